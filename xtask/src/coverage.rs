//! `cargo xtask coverage`: which lines of `core` and `ffi` the tests run.
//!
//! The crates' own tests and those of the cases, and the C and C++ programs over an instrumented library.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::report::{call, output};
use crate::{c, cross, tools};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also print every line that no test runs
    #[arg(long)]
    missing: bool,
}

/// Lines of each crate that must be run, in per cent.
const BARS: [(&str, f64); 2] = [("core", 95.0), ("ffi", 95.0)];

/// Tests that take minutes where every line is counted, and reach no line that others do not.
const LONG: [&str; 2] = [
    "every_kernel_and_every_scratch_gives_the_bits_of_its_family",
    "every_range_and_every_batch_gives_the_bits_of_its_family",
];

const FLAGS: &str = "-C instrument-coverage";

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    tools::get(&[&tools::LLVM, &tools::GCC]);
    let folder = crate::target().join("coverage");
    let profiles = folder.join("profiles");
    let _ = fs::remove_dir_all(&profiles);
    fs::create_dir_all(&profiles)?;
    let cargo = |word: &str| {
        let mut cargo = Command::new(cross::host_cargo());
        cargo.current_dir(crate::root()).env("RUSTFLAGS", FLAGS);
        cargo.env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"));
        cargo.arg(word).arg("--target-dir").arg(&folder);
        cargo
    };
    let packages = ["mha", "mha-ffi", "mha-conformance", "mha-family-oracle"];
    let packages: Vec<_> = packages.iter().flat_map(|name| ["--package", name]).collect();
    let mut test = cargo("test");
    test.args(["--quiet", "--lib", "--tests"]).args(&packages).arg("--");
    call(test.args(LONG.iter().flat_map(|name| ["--skip", name])))?;
    let said = output(
        cargo("test")
            .args(["--quiet", "--lib", "--tests", "--no-run", "--message-format=json"])
            .args(&packages),
    )?;
    let mut tests = Vec::new();
    for line in said.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        tests.extend(message["executable"].as_str().map(PathBuf::from));
    }

    // The C programs, over a library that counts.
    call(cargo("rustc").arg("--release").args(c::LIBRARY))?;
    let library = folder.join("release/libmha_ffi.a");
    let programs = c::run_counted(&library, &profiles)?;

    let profile = folder.join("all.profdata");
    let mut merge = llvm("profdata")?;
    merge.args(["merge", "-sparse", "-o"]).arg(&profile);
    for entry in fs::read_dir(&profiles)? {
        merge.arg(entry?.path());
    }
    output(&mut merge)?;

    // Apart: a function that nothing in the tests calls hides that of the same name in the programs.
    let mut counts = Counts::new();
    for objects in [&tests, &programs] {
        let mut export = llvm("cov")?;
        export.args(["export", "--format=lcov", "--instr-profile"]).arg(&profile);
        let Some((first, others)) = objects.split_first() else { bail!("no programs") };
        export.arg(first);
        for object in others {
            export.arg("--object").arg(object);
        }
        count(&output(&mut export)?, &mut counts)?;
    }
    report(&counts, args.missing)
}

fn llvm(tool: &str) -> Result<Command> {
    Ok(Command::new(tools::llvm(tool).with_context(|| format!("no llvm-{tool}"))?))
}

/// How often each line of each file was run.
type Counts = BTreeMap<String, BTreeMap<u32, u64>>;

/// Adds what a report of LLVM's says of the lines of `core` and `ffi`, but for their tests.
fn count(lcov: &str, counts: &mut Counts) -> Result<()> {
    let root = crate::root();
    for record in lcov.split("end_of_record") {
        let Some(path) = record.lines().find_map(|line| line.strip_prefix("SF:")) else { continue };
        let Some(path) = path.strip_prefix(&format!("{}/", root.display())) else { continue };
        let is_ours = path.starts_with("core/src") || path.starts_with("ffi/src");
        if !is_ours || path.ends_with("tests.rs") {
            continue;
        }
        let source = fs::read_to_string(root.join(path))?;
        let tests = source.lines().position(|line| line == "mod tests {").unwrap_or(usize::MAX);
        let of_file = counts.entry(path.to_owned()).or_default();
        for line in record.lines().filter_map(|line| line.strip_prefix("DA:")) {
            let (number, count) = line.split_once(',').context("a strange line")?;
            let number: u32 = number.parse()?;
            if number as usize <= tests {
                *of_file.entry(number).or_default() += count.parse::<u64>()?;
            }
        }
    }
    Ok(())
}

/// Adds the lines of each file up, and prints them by crate.
fn report(counts: &Counts, missing: bool) -> Result<()> {
    println!("{:<36}{:>8}{:>8}{:>9}", "file", "run", "lines", "share");
    let share = |run: usize, all: usize| 100.0 * run as f64 / all.max(1) as f64;
    let run_of = |lines: &BTreeMap<u32, u64>| lines.values().filter(|count| **count > 0).count();
    for (path, lines) in counts {
        let (run, all) = (run_of(lines), lines.len());
        println!("{path:<36}{run:>8}{all:>8}{:>8.1}%", share(run, all));
        let not: Vec<_> =
            lines.iter().filter(|(_, count)| **count == 0).map(|(line, _)| *line).collect();
        if missing && !not.is_empty() {
            println!("    not: {not:?}");
        }
    }
    for (name, bar) in BARS {
        let of_crate = || counts.iter().filter(|(path, _)| path.starts_with(name));
        let run = of_crate().map(|(_, lines)| run_of(lines)).sum();
        let all = of_crate().map(|(_, lines)| lines.len()).sum();
        println!("{name}: {run} of {all} lines, {:.1} %", share(run, all));
        ensure!(share(run, all) >= bar, "less than {bar} % of {name}");
    }
    Ok(())
}
