//! `cargo xtask coverage`: which lines of `core` and `ffi` the tests run.
//!
//! The crates' own tests and those of the cases, and the C and C++ programs over an instrumented library.

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

/// Lines of `core` that must be run, in per cent.
const BAR: f64 = 95.0;

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
    let mut objects = Vec::new();
    for line in said.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        objects.extend(message["executable"].as_str().map(PathBuf::from));
    }

    // The C programs, over a library that counts.
    call(cargo("rustc").arg("--release").args(c::LIBRARY))?;
    let library = folder.join("release/libmha_ffi.a");
    objects.extend(c::run_counted(&library, &profiles)?);

    let profile = folder.join("all.profdata");
    let mut merge = llvm("profdata")?;
    merge.args(["merge", "-sparse", "-o"]).arg(&profile);
    for entry in fs::read_dir(&profiles)? {
        merge.arg(entry?.path());
    }
    output(&mut merge)?;

    let mut export = llvm("cov")?;
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&profile);
    let Some((first, others)) = objects.split_first() else { bail!("no programs") };
    export.arg(first);
    for object in others {
        export.arg("--object").arg(object);
    }
    let lines = output(&mut export)?;
    report(&lines, args.missing)
}

fn llvm(tool: &str) -> Result<Command> {
    Ok(Command::new(tools::llvm(tool).with_context(|| format!("no llvm-{tool}"))?))
}

/// Adds the lines of each file up, and prints them by crate.
fn report(lcov: &str, missing: bool) -> Result<()> {
    let root = crate::root();
    let mut files: Vec<(String, usize, usize, Vec<u32>)> = Vec::new();
    for record in lcov.split("end_of_record") {
        let Some(path) = record.lines().find_map(|line| line.strip_prefix("SF:")) else { continue };
        let Some(path) = path.strip_prefix(&format!("{}/", root.display())) else { continue };
        let is_ours = path.starts_with("core/src") || path.starts_with("ffi/src");
        if !is_ours || path.ends_with("tests.rs") {
            continue;
        }
        let source = fs::read_to_string(root.join(path))?;
        let tests = source.lines().position(|line| line == "mod tests {").unwrap_or(usize::MAX);
        let (mut all, mut run, mut not) = (0, 0, Vec::new());
        for line in record.lines().filter_map(|line| line.strip_prefix("DA:")) {
            let (number, count) = line.split_once(',').context("a strange line")?;
            let number: u32 = number.parse()?;
            if number as usize > tests {
                continue;
            }
            all += 1;
            if count.parse::<u64>()? > 0 {
                run += 1;
            } else {
                not.push(number);
            }
        }
        files.push((path.to_owned(), run, all, not));
    }
    println!("{:<36}{:>8}{:>8}{:>9}", "file", "run", "lines", "share");
    let share = |run: usize, all: usize| 100.0 * run as f64 / all.max(1) as f64;
    for (path, run, all, not) in &files {
        println!("{path:<36}{run:>8}{all:>8}{:>8.1}%", share(*run, *all));
        if missing && !not.is_empty() {
            println!("    not: {not:?}");
        }
    }
    let mut of_core = 0.0;
    for name in ["core", "ffi"] {
        let of_crate = || files.iter().filter(|file| file.0.starts_with(name));
        let run = of_crate().map(|file| file.1).sum::<usize>();
        let all = of_crate().map(|file| file.2).sum::<usize>();
        println!("{name}: {run} of {all} lines, {:.1} %", share(run, all));
        if name == "core" {
            of_core = share(run, all);
        }
    }
    ensure!(of_core >= BAR, "less than {BAR} % of core");
    Ok(())
}
