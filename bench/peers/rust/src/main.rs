//! A worker of the benchmark (../README.md): the layer by burn and by candle.

mod burn_training;
mod by_burn;
mod by_candle;
mod case;

use std::io::{BufRead, Write};
use std::time::Instant;

use case::{Case, Description};
use serde::Deserialize;
use serde_json::{Value, json};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// What a library computes: y, and the scores where they are wanted.
type Outputs = (Vec<f32>, Option<Vec<f32>>);

/// One library's way to compute a case.
trait Contender {
    /// The library, its version and the way.
    fn name(&self) -> [&'static str; 3];

    /// One call, from inputs in the library's arrays to outputs in them.
    fn call(&self) -> Result<()>;

    /// The same, with what it computes.
    fn outputs(&self) -> Result<Outputs>;
}

/// What the benchmark says.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request {
    Load { case: Description, folder: std::path::PathBuf },
    Check { contender: usize },
    Time { contender: usize, calls: u32 },
    End,
}

fn main() -> Result<()> {
    say(&json!({ "environment": "host", "peak": null }))?;
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    let mut folder = std::path::PathBuf::new();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::End => break,
            Request::Load { case, folder: path } => {
                let case = Case::read(case, &path)?;
                folder = path;
                contenders = if case.sizes.training {
                    vec![Box::new(burn_training::Layer::new(&case))]
                } else {
                    vec![
                        Box::new(by_burn::Layer::new(&case)),
                        Box::new(by_candle::Layer::new(&case)?),
                    ]
                };
                let names = contenders.iter().map(|contender| {
                    let [library, version, variant] = contender.name();
                    json!({ "library": library, "version": version, "variant": variant })
                });
                json!({ "contenders": names.collect::<Vec<_>>(), "refused": [] })
            }
            Request::Check { contender } => {
                let (y, scores) = contenders[contender].outputs()?;
                let write = |name: &str, floats: Vec<f32>| -> Result<Value> {
                    let path = folder.join(format!("rust_{name}_{contender}.f32"));
                    let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
                    std::fs::write(&path, bytes)?;
                    Ok(json!(path))
                };
                let scores = scores.map(|scores| write("scores", scores)).transpose()?;
                json!({ "y": write("y", y)?, "scores": scores })
            }
            Request::Time { contender, calls } => {
                let contender = &contenders[contender];
                contender.call()?;
                let start = Instant::now();
                for _ in 0..calls {
                    contender.call()?;
                }
                json!({ "seconds": start.elapsed().as_secs_f64() })
            }
        };
        say(&answer)?;
    }
    Ok(())
}

fn say(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
