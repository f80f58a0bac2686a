//! `cargo xtask test`: every suite, or those named.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::builder::PossibleValue;

use crate::doors::Name;
use crate::lanes::Job;
use crate::report::{Report, call, output};
use crate::tools::{self, Tool};
use crate::{
    anarcii, c, check, cross, demo, firmware, fuzz, kernels, lanes, links, npm, onnx, packages,
    page, wasm,
};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The suites to run; all of them where none is named
    #[arg(value_name = "SUITE", value_parser = SUITES.map(|suite| named(&suite)))]
    suites: Vec<String>,
    /// Count what had to be skipped as failed
    #[arg(long)]
    strict: bool,
    /// Only the steps with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many suites at a time; one says what happens while it happens
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Where to write what the suite came to, for a run of several
    #[arg(long, hide = true)]
    record: Option<PathBuf>,
}

/// A set of tests with what it needs.
struct Suite {
    name: &'static str,
    about: &'static str,
    /// Without one of these nothing of the suite runs.
    needs: &'static [&'static Tool],
    /// Without one of these a part of the suite is skipped.
    uses: &'static [&'static Tool],
    /// What it writes under the target directory that other suites write too.
    writes: &'static [&'static str],
    test: fn(&mut Report),
}

/// The npm package, and what is staged from it.
const PACKAGE: &str = "package";
/// The test programs in C.
const PROGRAMS: &str = "programs";
/// The archives that are shipped, which programs of firmware are linked with.
const ARCHIVES: &str = "archives";

/// The suites, those that take long first: the others fill the gaps beside them.
const SUITES: [Suite; 13] = [
    Suite {
        name: "core",
        about: "everything that needs nothing but Rust: tests, formatting, lints, documentation",
        needs: &[],
        uses: &[],
        writes: &[],
        test: core,
    },
    Suite {
        name: "npm",
        about: "the package as it is published, in runtimes, bundlers and a browser",
        needs: &[&tools::RUST_WASM, &tools::NODE],
        uses: &[&tools::CHROMIUM],
        writes: &[PACKAGE],
        test: npm::test,
    },
    Suite {
        name: "firmware",
        about: "the firmware demo in QEMU",
        needs: &[&tools::RUST_CORTEX_M, &tools::QEMU, &tools::LLVM],
        uses: &[&tools::GCC, &tools::ARM_GCC, &tools::RISCV_GCC],
        writes: &[ARCHIVES],
        test: firmware::test,
    },
    Suite {
        name: "aarch64",
        about: "the library on another kind of processor",
        needs: &[&tools::RUST_AARCH64],
        uses: &[&tools::LLVM],
        writes: &[],
        test: aarch64,
    },
    Suite {
        name: "c",
        about: "the C and C++ interface",
        needs: &[&tools::GCC],
        uses: &[
            &tools::CLANG,
            &tools::LLVM,
            &tools::VALGRIND,
            &tools::RUST_CORTEX_M,
            &tools::ARM_GCC,
            &tools::RISCV_GCC,
            &tools::QEMU,
        ],
        writes: &[PROGRAMS],
        test: c::test,
    },
    Suite {
        name: "fuzz",
        about: "made-up calls of the C interface",
        needs: &[],
        uses: &[],
        writes: &[],
        test: fuzz::test,
    },
    Suite {
        name: "packages",
        about: "the archives and packages for C in other people's builds",
        needs: &[&tools::RUST_CORTEX_M, &tools::LLVM, &tools::ARM_GCC, &tools::QEMU],
        uses: &[&tools::PYTHON],
        writes: &[ARCHIVES],
        test: packages,
    },
    Suite {
        name: "wasm",
        about: "the JavaScript package",
        needs: &[&tools::RUST_WASM, &tools::NODE],
        uses: &[],
        writes: &[PACKAGE],
        test: wasm::test,
    },
    Suite {
        name: "page",
        about: "the attention page in a browser",
        needs: &[&tools::RUST_WASM, &tools::NODE],
        uses: &[&tools::CHROMIUM],
        writes: &[PACKAGE],
        test: page::test,
    },
    Suite {
        name: "conformance",
        about: "the case files through every door",
        needs: &[],
        uses: &[&tools::GCC, &tools::RUST_WASM, &tools::NODE],
        writes: &[PACKAGE, PROGRAMS],
        test: conformance,
    },
    Suite {
        name: "onnx",
        about: "ONNX's own conformance cases",
        needs: &[],
        uses: &[&tools::GCC, &tools::RUST_WASM, &tools::NODE, &tools::PYTHON],
        writes: &[PACKAGE, PROGRAMS],
        test: onnx::test,
    },
    Suite {
        name: "kernels",
        about: "the kernels' loops as they are built, and their memory",
        needs: &[&tools::LLVM],
        uses: &[&tools::VALGRIND],
        writes: &[],
        test: kernels::test,
    },
    Suite {
        name: "anarcii",
        about: "a trained encoder-decoder out of a package from PyPI",
        needs: &[],
        uses: &[&tools::PYTHON],
        writes: &[],
        test: anarcii::test,
    },
];

/// A suite as the help lists it.
fn named(suite: &Suite) -> PossibleValue {
    PossibleValue::new(suite.name).help(suite.about)
}

/// Carries the word out.
pub(crate) fn run(Args { suites, strict, only, lanes, record }: Args) -> Result<()> {
    let chosen = |suite: &&Suite| suites.is_empty() || suites.iter().any(|s| s == suite.name);
    let chosen: Vec<_> = SUITES.iter().filter(chosen).collect();
    let mut wanted: Vec<&Tool> = Vec::new();
    for tool in chosen.iter().flat_map(|suite| suite.needs.iter().chain(suite.uses)) {
        if wanted.iter().all(|known| known.name != tool.name) {
            wanted.push(tool);
        }
    }

    let mut report = Report::new(strict, only.clone());
    if lanes > 1 && chosen.len() > 1 {
        let only = only.iter().flat_map(|only| ["--only", only]);
        let options: Vec<_> = strict.then_some("--strict").into_iter().chain(only).collect();
        let jobs = chosen.iter().map(|suite| suite.job()).collect();
        lanes::run(jobs, lanes, &options, || tools::get(&wanted), &mut report);
    } else {
        tools::get(&wanted);
        for suite in chosen {
            eprintln!("\n━━ {}: {}", suite.name, suite.about);
            if report.has(suite.name, suite.needs) {
                (suite.test)(&mut report);
            }
        }
    }
    if let Some(record) = record {
        return report.save(&record);
    }
    if !report.finish() {
        std::process::exit(1);
    }
    Ok(())
}

impl Suite {
    fn job(&self) -> Job {
        let Self { name, needs, uses, writes, .. } = *self;
        Job { name, writes, waits: !(needs.is_empty() && uses.is_empty()) }
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new(cross::host_cargo());
    cargo.current_dir(crate::root());
    cargo
}

/// The members of the workspace whose tests are built together.
const TESTED: [(&str, &[&str]); 3] = [
    ("tests", &["--workspace", "--exclude", "xtask", "--exclude", "mha-wasm"]),
    ("tests of the JavaScript door in Rust", &["--package", "mha-wasm"]),
    ("tests of xtask", &["--package", "xtask"]),
];

/// The workspace's members: those that need nothing but Rust.
fn core(report: &mut Report) {
    report.command("formatting", cargo().args(["fmt", "--all", "--check"]));
    for apart in ["bench/peers/rust", "fuzz"] {
        let manifest = format!("{apart}/Cargo.toml");
        report.command(
            &format!("formatting of {apart}"),
            cargo().args(["fmt", "--check", "--manifest-path", &manifest]),
        );
    }
    report.command(
        "lints",
        cargo().args(["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"]),
    );
    // Apart from each other they have the features that others' crates have been built with already.
    for (name, packages) in TESTED {
        report.command(name, cargo().args(["test", "--quiet"]).args(packages));
    }
    let least = ["--package", "mha", "--package", "mha-conformance", "--features", "mha/size"];
    report.command(
        "lints of the least code",
        cargo().args(["clippy", "--quiet"]).args(least).args(["--", "--deny", "warnings"]),
    );
    report.command(
        "tests of the least code",
        cargo().args(["test", "--quiet"]).args(least).args(["--lib", "--tests"]),
    );
    report.command(
        "documentation",
        cargo()
            .args(["doc", "--quiet", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    );
}

/// What is shipped for C.
fn packages(report: &mut Report) {
    packages::test(report);
    links::test(report);
}

/// The case files of the repository and the demo models through every door.
fn conformance(report: &mut Report) {
    for door in Name::ALL {
        let (files, models) = (
            format!("case files through the door {}", door.text()),
            format!("demo models through the door {}", door.text()),
        );
        if report.has(&files, door.tools()) {
            report.step(&files, || every_case(door, "cases"));
            report.step(&models, || demo::verify(door));
        }
        let family = format!("cases of the attention family through the door {}", door.text());
        if report.has(&family, door.tools()) {
            report.step(&family, || every_case(door, "cases_family"));
        }
        let gradients = format!("cases of gradients through the door {}", door.text());
        if report.has(&gradients, door.tools()) {
            report.step(&gradients, || every_case(door, "cases_gradients"));
        }
    }
}

/// Every case passes through a door, with the bits of a kernel of Rust.
fn every_case(door: Name, folder: &str) -> Result<()> {
    let paths = vec![crate::root().join("tests").join(folder)];
    let args = check::Args { paths, door: vec![door], isa: None, quiet: true };
    let summary = check::check(&args)?;
    ensure!(summary.failed == 0, "{} of the cases fail", summary.failed);
    ensure!(summary.passed >= 120, "only {} cases ran", summary.passed);
    for other in summary.other_bits.values() {
        ensure!(*other == 0, "{other} answers have the bits of no Rust kernel");
    }
    Ok(())
}

/// The tests of the library and the case files, built for 64-bit Arm and run in an emulator; and
/// that each family of kernels gives the same bits there as here, to the cases and to random calls.
fn aarch64(report: &mut Report) {
    report.step("tests on aarch64", || {
        let mut cargo = aarch64_cargo("test")?;
        cargo.args(["--quiet", "--no-fail-fast"]);
        cargo.args(["--package", "mha", "--package", "mha-conformance"]);
        // That one is run below, by name.
        call(cargo.args(["--", "--skip", RANDOM_CALLS]))
    });
    if report.has("hot loops of aarch64", &[&tools::LLVM]) {
        report.step("hot loops of aarch64", kernels::aarch64_loops);
    }
    report.step("the same bits on aarch64 as here, cases", || {
        same_bits(
            "run",
            &["--package", "mha-conformance", "--example", "bits", "--", "tests/cases"],
        )
    });
    report.step("the same bits on aarch64 as here, random calls", || {
        let run = ["--package", "mha", "--test", "bits", RANDOM_CALLS, "--", "--nocapture"];
        same_bits("test", &run)
    });
}

/// The test that prints the bits of random calls.
const RANDOM_CALLS: &str = "every_range_and_every_batch_gives_the_bits_of_its_family";

/// What a program prints of the families' bits is the same on aarch64 and here.
fn same_bits(word: &str, arguments: &[&str]) -> Result<()> {
    let bits = |mut cargo: Command| -> Result<Vec<String>> {
        let said = output(cargo.args(["--quiet", "--profile", "test"]).args(arguments))?;
        let families = ["unfused", "fused"];
        let of = |line: &&str| line.split(' ').any(|word| families.contains(&word));
        Ok(said.lines().filter(of).map(str::to_owned).collect())
    };
    let mut here = cargo();
    here.arg(word);
    let (mut here, there) = (bits(here)?, bits(aarch64_cargo(word)?)?);
    if !here.iter().any(|line| line.contains("fused") && !line.contains("unfused")) {
        eprintln!("   no fused kernel here");
        here.retain(|line| line.contains("unfused"));
    }
    let other: Vec<_> = here.iter().filter(|line| !there.contains(line)).cloned().collect();
    ensure!(other.is_empty(), "other bits there:\n{}", other.join("\n"));
    ensure!(!here.is_empty(), "nothing to compare");
    eprintln!("   {} hashes", here.len());
    Ok(())
}

/// Not in the release profile: that aborts on panic, which tests cannot, and the library would be
/// built once for each.
fn aarch64_cargo(word: &str) -> Result<Command> {
    let cross = cross::Cross::new(tools::AARCH64).library(cross::Library::Std);
    let mut cargo = cross.cargo(word)?;
    // The standard library is a crate of others here, and what is emulated takes long enough.
    cargo.args(["--config", r#"profile.dev.package."*".opt-level=2"#]);
    if !cfg!(target_arch = "aarch64") {
        let runner = "qemu-aarch64 -L /usr/aarch64-linux-gnu";
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    Ok(cargo)
}
