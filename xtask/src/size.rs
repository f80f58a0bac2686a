//! `cargo xtask size`: measures the firmware image.

use anyhow::{Result, bail};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Carries the word out.
pub(crate) fn run(Args {}: Args) -> Result<()> {
    bail!("not there yet")
}
