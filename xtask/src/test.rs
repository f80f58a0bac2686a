//! `cargo xtask test`: every suite, or those named.

use anyhow::Result;

use crate::report::Report;

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Carries the word out.
pub(crate) fn run(Args {}: Args) -> Result<()> {
    let mut report = Report::default();
    crate::c::test(&mut report);
    crate::wasm::test(&mut report);
    crate::firmware::test(&mut report);
    report.finish()
}
