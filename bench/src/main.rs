//! Times the layer beside the peak of the machine that it runs on, and beside other libraries.
//!
//! Contenders for one case are sampled in turn, so that drift of the machine hits all alike; the
//! minimum and the median are given. Operations count the products only. Nothing here decides whether
//! a result is right but the comparison with other libraries, which comes before their times.

mod data;
mod decode;
mod forward;
mod ours;
mod peak;
mod report;
mod sample;
mod shapes;
mod table;
mod training;
mod worker;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::report::Report;

#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Words {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    forward: forward::Args,
}

#[derive(Subcommand)]
enum Word {
    /// Time calls of the layer on S1 to S9 (what happens where no word is given)
    Forward(forward::Args),
    /// Time decoding over caches, windows, and how cost grows with length
    Decode(decode::Args),
    /// Time forward and backward with all gradients on S1 to S9
    Train(training::Args),
    /// Write figures that --json has left as tables into a document
    Table(table::Args),
}

/// Writes a report where it was asked for.
fn finish(report: &Report, json: Option<PathBuf>) -> Result<()> {
    json.map_or(Ok(()), |path| report.write(&path))
}

fn main() -> Result<()> {
    let words = Words::parse();
    match words.word {
        Some(Word::Decode(args)) => decode::run(args),
        Some(Word::Train(args)) => training::run(args),
        Some(Word::Table(args)) => table::run(&args),
        Some(Word::Forward(args)) => forward::run(args),
        None => forward::run(words.forward),
    }
}
