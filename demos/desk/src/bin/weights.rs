//! Writes what firmware has in flash, the models' weights and some test items: `weights DEMOS [--check]`, `DEMOS` being the folder
//! `demos`. With `--check` nothing is written, and the exit status says whether all are current.

use std::path::Path;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let mut demos = None;
    let mut check = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            _ => demos = Some(argument),
        }
    }
    let Some(demos) = demos else { anyhow::bail!("usage: weights DEMOS [--check]") };
    let changed = mha_desk::write_weights(Path::new(&demos), check)?;
    for path in &changed {
        println!("{} {}", if check { "stale:" } else { "written:" }, path.display());
    }
    Ok(if check && !changed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
