//! `cargo xtask bench`: the benchmark, built as it must be to be worth reading.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::root;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the benchmark understands: --shape S4, --isa avx2, --millis 1000, --json FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the benchmark in release mode and runs it.
pub(crate) fn run(args: Args) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--release", "--quiet", "--package", "mha-bench", "--"]).args(args.rest);
    let status = cargo.current_dir(root()).status()?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}
