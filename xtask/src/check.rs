//! `cargo xtask check`: runs case files through the doors and says how far off each is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use mha::Isa;
use mha_conformance::{Answer, Case, Comparison, Door, Rust, Scratch, files};

use crate::doors::{self, Name};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Case files, or folders of them
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The doors to go through; all of them where none is named
    #[arg(long, value_enum)]
    pub(crate) door: Vec<Name>,
    /// The instructions that the Rust door runs on: portable, avx2, avx512
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,
    /// Print no line for a case that passes
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// How the cases went.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Cases that gave other bits through a door than in Rust, by the door's name.
    pub(crate) other_bits: BTreeMap<String, usize>,
    /// Largest errors relative to the largest output, by source.
    relative: BTreeMap<String, Vec<f64>>,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let summary = check(&args)?;
    println!("{} passed, {} failed", summary.passed, summary.failed);
    if summary.failed > 0 || summary.passed == 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// Runs the cases and prints a line for each case and door, then the errors by source.
pub(crate) fn check(args: &Args) -> Result<Summary> {
    let isa = doors::isa(args.isa.as_deref())?;
    let mut paths = Vec::new();
    for path in &args.paths {
        let found = files(path)?;
        ensure!(!found.is_empty(), "{}: no case files there", path.display());
        paths.extend(found);
    }
    let names = if args.door.is_empty() { &Name::ALL[..] } else { &args.door };

    let mut out = io::stdout().lock();
    let mut summary = Summary::default();
    let mut open: Vec<Box<dyn Door>> = Vec::new();
    for name in names {
        match name.open(isa) {
            Ok(door) => open.push(door),
            Err(error) => {
                let (door, cases) = (name.text(), paths.len());
                writeln!(out, "FAILED {door}: {cases} cases not run: {error:#}")?;
                summary.failed += cases;
            }
        }
    }
    for path in &paths {
        match Case::read(path) {
            Ok(case) => {
                for door in &mut open {
                    let (passed, said) = summary.one(&case, door.as_mut());
                    let (how, door) = (if passed { "ok" } else { "FAILED" }, door.name());
                    if !(passed && args.quiet) {
                        writeln!(out, "{how} {door}: {}: {said}", path.display())?;
                    }
                }
            }
            Err(error) => {
                writeln!(out, "FAILED {}: cannot be run: {error:#}", path.display())?;
                summary.failed += open.len().max(1);
            }
        }
    }
    summary.write(&mut out)?;
    Ok(summary)
}

impl Summary {
    /// Runs one case through one door; gives whether it passed and by how much.
    fn one(&mut self, case: &Case, door: &mut dyn Door) -> (bool, String) {
        let answer = match door.run(&case.call) {
            Ok(answer) => answer,
            Err(error) => {
                self.failed += 1;
                return (false, format!("cannot be run: {error:#}"));
            }
        };
        let comparisons = case.compare(&answer);
        // Of all outputs together: a gradient that should be nothing is not compared with nothing.
        let most = |of: fn(&Comparison) -> f64| comparisons.iter().map(of).fold(0.0, f64::max);
        let (error, largest) = (most(|c| c.worst.error), most(|c| c.largest));
        let relative = if largest > 0.0 { error / largest } else { error };
        self.relative.entry(case.source.clone()).or_default().push(relative);
        let other = self.other_bits.entry(door.name().into()).or_default();
        *other += usize::from(!rust_gives(case, &answer));
        let said: Vec<_> = comparisons.iter().map(Comparison::to_string).collect();
        let passed = comparisons.iter().all(Comparison::passed);
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        (passed, said.join(", "))
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "\nlargest error relative to the largest output, typical and worst:")?;
        for (source, errors) in &self.relative {
            let mut errors = errors.clone();
            errors.sort_by(f64::total_cmp);
            let (Some(typical), Some(worst)) = (errors.get(errors.len() / 2), errors.last()) else {
                bail!("{source}: a source without cases");
            };
            writeln!(out, "  {typical:.1e} {worst:.1e} {source}")?;
        }
        for (door, other) in &self.other_bits {
            match other {
                0 => writeln!(out, "{door}: every answer has the bits of a Rust kernel")?,
                _ => writeln!(out, "{door}: {other} answers have the bits of no Rust kernel")?,
            }
        }
        Ok(())
    }
}

/// Whether one of the two families of kernels gives these very bits. (Which NaN it is does not
/// count: WebAssembly leaves that open.)
fn rust_gives(case: &Case, answer: &Answer) -> bool {
    let bits = |answer: &Answer| -> Vec<u32> {
        let all = answer.y.iter().chain(&answer.scores).chain(answer.gradients.iter().flatten());
        all.map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
    };
    [Isa::PORTABLE, Isa::detect()].into_iter().any(|isa| {
        let ours = Rust::new(isa, Scratch::Recommended).run(&case.call);
        ours.is_ok_and(|ours| bits(&ours) == bits(answer))
    })
}
