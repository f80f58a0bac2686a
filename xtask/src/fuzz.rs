//! `cargo xtask fuzz`: made-up calls of the whole C interface, under the address sanitizer.
//!
//! libFuzzer with a nightly compiler, for everything but the way back and for that; what it has found worth
//! keeping lies in fuzz/corpus.bin and fuzz/backward.bin, one input after the other, each after its length in
//! two bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::report::{Report, call, output};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long, all targets together
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Take what was found into fuzz/corpus.bin and fuzz/backward.bin, as few inputs as reach as much
    #[arg(long)]
    keep: bool,
}

/// One program and its inputs.
struct Target {
    program: &'static str,
    inputs: &'static str,
}

/// What is called: everything but the way back, and that.
const TARGETS: [Target; 2] = [
    Target { program: "mha-fuzz", inputs: "corpus" },
    Target { program: "mha-fuzz-backward", inputs: "backward" },
];

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    all(args.seconds)?;
    if args.keep {
        for target in &TARGETS {
            let kept = crate::target().join("fuzz/kept").join(target.inputs);
            let _ = fs::remove_dir_all(&kept);
            fs::create_dir_all(&kept)?;
            let mut merge = Command::new(target.program());
            output(merge.arg("-merge=1").arg(&kept).arg(target.found()?).arg(target.corpus()?))?;
            let count = target.pack(&kept)?;
            println!("{count} inputs in {}", target.packed().display());
        }
    }
    Ok(())
}

/// Builds the programs, and gives each its share of the time.
fn all(seconds: u32) -> Result<()> {
    build()?;
    let each = seconds.div_ceil(TARGETS.len() as u32);
    TARGETS.iter().try_for_each(|target| target.fuzz(each))
}

impl Target {
    fn program(&self) -> PathBuf {
        crate::target().join("fuzz").join(TARGET).join("release").join(self.program)
    }

    /// The committed inputs in one file.
    fn packed(&self) -> PathBuf {
        crate::root().join("fuzz").join(self.inputs).with_extension("bin")
    }

    /// Writes the inputs of a folder as one file.
    fn pack(&self, folder: &Path) -> Result<usize> {
        let mut inputs = Vec::new();
        for entry in fs::read_dir(folder)? {
            inputs.push(fs::read(entry?.path())?);
        }
        inputs.sort();
        let mut bytes = Vec::new();
        for input in &inputs {
            bytes.extend(u16::try_from(input.len())?.to_le_bytes());
            bytes.extend(input);
        }
        fs::write(self.packed(), bytes)?;
        Ok(inputs.len())
    }

    /// The committed inputs as the fuzzer reads them: a folder of files.
    fn corpus(&self) -> Result<PathBuf> {
        let folder = crate::target().join("fuzz").join(self.inputs);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let bytes = fs::read(self.packed()).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut count = 0;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = u16::from_le_bytes(*length).into();
            let (input, after) =
                after.split_at_checked(length).context("the file of inputs is cut off")?;
            fs::write(folder.join(format!("{count:04}")), input)?;
            (rest, count) = (after, count + 1);
        }
        Ok(folder)
    }

    /// Where what it finds is put.
    fn found(&self) -> Result<PathBuf> {
        let folder = crate::target().join("fuzz/found").join(self.inputs);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn fuzz(&self, seconds: u32) -> Result<()> {
        let mut fuzz = Command::new(self.program());
        fuzz.arg(format!("-max_total_time={seconds}")).args([
            "-rss_limit_mb=2048",
            "-max_len=256",
            "-len_control=0",
        ]);
        fuzz.arg(format!("-artifact_prefix={}/", crate::target().join("fuzz").display()));
        let ran = fuzz.arg(self.found()?).arg(self.corpus()?).output()?;
        let said = String::from_utf8_lossy(&ran.stderr);
        let tail: Vec<_> = said.lines().rev().take(40).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        ensure!(ran.status.success(), "a call went wrong:\n{}", tail.join("\n"));
        let last =
            said.lines().rev().find(|line| line.contains("cov: ")).context("it said nothing")?;
        println!("{}: {}", self.program, last.trim());
        if let Some(done) = said.lines().rev().find(|line| line.starts_with("Done ")) {
            println!("{done}");
        }
        Ok(())
    }
}

/// The suite's step.
pub(crate) fn test(report: &mut Report) {
    let name = "c: fuzzing for a minute";
    if nightly().is_err() {
        report.skip(name, "no nightly Rust: rustup toolchain install nightly");
        return;
    }
    report.step(name, || all(60));
}

fn nightly() -> Result<()> {
    output(Command::new("cargo").args(["+nightly", "--version"])).map(|_| ())
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn build() -> Result<()> {
    let target = crate::target().join("fuzz");
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "build", "--quiet", "--release", "--target", TARGET]);
    cargo.current_dir(crate::root().join("fuzz")).arg("--target-dir").arg(&target);
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    cargo.env(
        "RUSTFLAGS",
        "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
         -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
         -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
         -Cdebug-assertions",
    );
    call(&mut cargo)
}
