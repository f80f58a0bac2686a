//! `cargo xtask demo`: two trained models on real test data, the layer inside them computed through
//! a door of one's choice, and what its heads look at.

mod layer;
mod models;
mod pictures;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use mha::Isa;

use crate::doors::{self, Name};
use crate::draw::Style;

use layer::Layer;
use models::{Digits, Model, Vowels};

/// The least part of the test data that a model must get right.
const LEAST_ACCURACY: f64 = 0.98;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model to run; both where none is named
    #[arg(long, value_enum)]
    model: Option<Which>,
    /// The item of the test data to draw, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    index: usize,
    /// The door that computes the layer
    #[arg(long, value_enum, default_value = "rust")]
    door: Name,
    /// The instructions that the Rust door runs on: portable, avx2, avx512
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
}

/// A model.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Handwritten digits
    Digits,
    /// Who of nine says /ae/
    Vowels,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let mut layer = Layer::open(args.door, doors::isa(args.isa.as_deref())?)?;
    let style = Style::detect();
    let wants = |which| args.model.is_none_or(|model| model == which);
    let mut others = 0;
    if wants(Which::Digits) {
        let digits = Digits::read()?;
        others += show(&digits, args.index, &mut layer, style)?;
        print!("{}", pictures::digits(&digits, args.index, &mut layer, style)?);
    }
    if wants(Which::Vowels) {
        let vowels = Vowels::read()?;
        others += show(&vowels, args.index, &mut layer, style)?;
        print!("{}", pictures::vowels(&vowels, args.index, &mut layer, style)?);
    }
    ensure!(others == 0, "{others} answers differ from those of the Rust door");
    Ok(())
}

/// Runs a model over its whole test data and says how it did. How many answers differ from those of
/// the Rust door.
fn show(model: &dyn Model, index: usize, layer: &mut Layer, style: Style) -> Result<usize> {
    let items = model.len();
    ensure!(index < items, "{}: --index goes up to {}", model.name(), items - 1);
    println!("\n{}: {}", style.bold(model.name()), model.question());
    println!("{}", style.dim(&format!("{}, {} parameters", model.origin(), model.parameters())));
    let run = evaluate(model, layer)?;
    let mut line = format!("{}: {}", layer.name(), run.score(model));
    let _ = write!(line, " in {:.2} s", run.time.as_secs_f64());
    println!("{line}");
    if let Some(without) = model.without() {
        let score = evaluate(without, layer)?.score(without);
        println!("{}: {score}", without.name());
    }
    if layer.is_here() {
        return Ok(0);
    }
    let here = evaluate(model, &mut Layer::here(Isa::detect()))?;
    let others = here.classes.iter().zip(&run.classes).filter(|(here, there)| here != there);
    let others = others.count();
    println!("the answer of the Rust door for {} of {items} items", items - others);
    Ok(others)
}

/// How a model did.
struct Evaluation {
    classes: Vec<usize>,
    time: Duration,
}

impl Evaluation {
    fn right(&self, model: &dyn Model) -> usize {
        self.classes.iter().enumerate().filter(|&(i, &class)| class == model.label(i)).count()
    }

    fn score(&self, model: &dyn Model) -> String {
        let (right, items) = (self.right(model), self.classes.len());
        format!("{right} of {items} right, {:.1} %", 100.0 * right as f64 / items.max(1) as f64)
    }
}

/// Runs a model over its whole test data.
fn evaluate(model: &dyn Model, layer: &mut Layer) -> Result<Evaluation> {
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos} of {len}")?;
    let bar = ProgressBar::new(model.len() as u64).with_style(style).with_message(model.name());
    let start = Instant::now();
    let mut classes = Vec::new();
    for i in 0..model.len() {
        classes.push(mha_nets::best(&model.classify(i, layer)?.logits));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Evaluation { classes, time: start.elapsed() })
}

/// For the tests: every model through every door is as good as it should be and gives the same
/// answers.
pub(crate) fn verify() -> Result<()> {
    let (digits, vowels) = (Digits::read()?, Vowels::read()?);
    let models: [&dyn Model; 2] = [&digits, &vowels];
    let mut expected: [Option<Vec<usize>>; 2] = [None, None];
    for door in Name::ALL {
        let mut layer = Layer::open(door, Isa::detect())?;
        for (model, expected) in models.iter().zip(&mut expected) {
            let run = evaluate(*model, &mut layer)?;
            let name = format!("{} through {}", model.name(), layer.name());
            eprintln!("   {name}: {}", run.score(*model));
            let accuracy = run.right(*model) as f64 / model.len() as f64;
            ensure!(accuracy >= LEAST_ACCURACY, "{name}: {}", run.score(*model));
            let expected = expected.get_or_insert_with(|| run.classes.clone());
            ensure!(*expected == run.classes, "{name}: other answers than the Rust door's");
        }
    }
    Ok(())
}
