//! `cargo xtask test`: every suite, or those named.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::report::Report;
use crate::tools::{self, Tool};
use crate::{c, check, cross, firmware, wasm};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The suites to run; all of them where none is named
    #[arg(value_parser = SUITES.map(|suite| suite.name))]
    suites: Vec<String>,
    /// Count what had to be skipped as failed
    #[arg(long)]
    strict: bool,
}

/// A set of tests with what it needs.
struct Suite {
    name: &'static str,
    about: &'static str,
    /// Without one of these nothing of the suite runs.
    needs: &'static [&'static Tool],
    /// Without one of these a part of the suite is skipped.
    uses: &'static [&'static Tool],
    test: fn(&mut Report),
}

/// The suites, quick ones first.
const SUITES: [Suite; 6] = [
    Suite {
        name: "core",
        about: "everything that needs nothing but Rust: tests, formatting, lints, documentation",
        needs: &[],
        uses: &[],
        test: core,
    },
    Suite {
        name: "c",
        about: "the C and C++ interface",
        needs: &[&tools::GCC],
        uses: &[&tools::CLANG, &tools::LLVM, &tools::VALGRIND],
        test: c::test,
    },
    Suite {
        name: "wasm",
        about: "the JavaScript package",
        needs: &[&tools::RUST_WASM, &tools::NODE],
        uses: &[],
        test: wasm::test,
    },
    Suite {
        name: "conformance",
        about: "the case files through every door",
        needs: &[&tools::GCC, &tools::RUST_WASM, &tools::NODE],
        uses: &[],
        test: conformance,
    },
    Suite {
        name: "firmware",
        about: "the firmware demo in QEMU",
        needs: &[&tools::RUST_CORTEX_M, &tools::QEMU, &tools::LLVM],
        uses: &[&tools::GCC],
        test: firmware::test,
    },
    Suite {
        name: "aarch64",
        about: "the library on another kind of processor",
        needs: &[&tools::RUST_AARCH64],
        uses: &[],
        test: aarch64,
    },
];

/// Carries the word out.
pub(crate) fn run(Args { suites, strict }: Args) -> Result<()> {
    let chosen = |suite: &&Suite| suites.is_empty() || suites.iter().any(|s| s == suite.name);
    let chosen: Vec<_> = SUITES.iter().filter(chosen).collect();
    let mut wanted: Vec<&Tool> = Vec::new();
    for tool in chosen.iter().flat_map(|suite| suite.needs.iter().chain(suite.uses)) {
        if wanted.iter().all(|known| known.name != tool.name) {
            wanted.push(tool);
        }
    }
    tools::get(&wanted);

    let mut report = Report::new(strict);
    for suite in chosen {
        eprintln!("\n━━ {}: {}", suite.name, suite.about);
        if report.has(suite.name, suite.needs) {
            (suite.test)(&mut report);
        }
    }
    if !report.finish() {
        std::process::exit(1);
    }
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new(cross::host_cargo());
    cargo.current_dir(crate::root());
    cargo
}

/// The workspace's default members: those that need nothing but Rust.
fn core(report: &mut Report) {
    report.command("formatting", cargo().args(["fmt", "--all", "--check"]));
    report.command(
        "lints",
        cargo().args(["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"]),
    );
    report.command("tests", cargo().args(["test", "--quiet"]));
    report.command(
        "documentation",
        cargo()
            .args(["doc", "--quiet", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    );
}

fn cases() -> PathBuf {
    crate::root().join("tests/cases")
}

/// The case files of the repository through every door, on the fastest kernel.
fn conformance(report: &mut Report) {
    report.step("case files through every door", || {
        let args = check::Args { paths: vec![cases()], door: Vec::new(), isa: None };
        let summary = check::check(&args)?;
        ensure!(summary.failed == 0, "{} of the cases fail", summary.failed);
        ensure!(summary.passed >= 3 * 150, "only {} cases ran", summary.passed);
        for (door, other) in &summary.other_bits {
            ensure!(*other == 0, "{door}: {other} answers have the bits of no Rust kernel");
        }
        Ok(())
    });
}

/// The tests of the library and the case files, built for 64-bit Arm and run in an emulator.
fn aarch64(report: &mut Report) {
    report.step("tests on aarch64", || {
        let cross = cross::Cross::new(tools::AARCH64).library(cross::Library::Std);
        let mut cargo = cross.cargo("test")?;
        cargo.args(["--quiet", "--release", "--package", "mha", "--package", "mha-conformance"]);
        if !cfg!(target_arch = "aarch64") {
            let runner = "qemu-aarch64 -L /usr/aarch64-linux-gnu";
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        }
        crate::report::call(&mut cargo)
    });
}
