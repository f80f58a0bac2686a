//! The suite `kernels`: what the compiler makes of them, and that they touch no memory but their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::report::{Report, call};
use crate::{cross, disassembly, tools};

/// The arguments of `cargo rustc` that make a library with every kernel in it.
const LIBRARY: [&str; 9] = [
    "--quiet",
    "--release",
    "--package",
    "mha-ffi",
    "--lib",
    "--crate-type",
    "staticlib",
    "--features",
    "panic-handler",
];

/// The suite.
pub(crate) fn test(report: &mut Report) {
    if cfg!(target_arch = "x86_64") {
        report.step("kernels: hot loops of x86-64", || {
            let library = host_library()?;
            disassembly::check(&library, &disassembly::X86_64)
        });
    }
    if report.has("kernels: valgrind", &[&tools::VALGRIND]) {
        report.step("kernels: valgrind", valgrind);
    }
}

/// A step of the suite `aarch64`, which has the means to build for it.
pub(crate) fn aarch64_loops() -> Result<()> {
    let cross = cross::Cross::new(tools::AARCH64).flags(disassembly::FLAGS);
    call(cross.cargo("rustc")?.args(LIBRARY))?;
    let library = cross.folder("release").join("libmha_ffi.a");
    disassembly::check(&library, &disassembly::AARCH64)
}

/// Builds the library for this machine, with names that say which function is which.
fn host_library() -> Result<PathBuf> {
    let target = crate::target().join("kernels");
    let mut cargo = cargo();
    cargo.arg("rustc").args(LIBRARY).arg("--target-dir").arg(&target);
    call(cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", disassembly::FLAGS))?;
    let library = target.join("release/libmha_ffi.a");
    ensure!(library.exists(), "cargo has made no {}", library.display());
    Ok(library)
}

/// The kernels and the edges of whole calls under valgrind, which has no AVX-512. It knows what was
/// never written, such as the room for a panel, which a forbidden page does not.
fn valgrind() -> Result<()> {
    let runner = r#"target."cfg(all())".runner = ["valgrind", "--quiet", "--error-exitcode=9"]"#;
    let mut cargo = cargo();
    cargo.args(["test", "--quiet", "--config", runner, "--package", "mha"]);
    cargo.args(["--lib", "--test", "edges", "--", "--skip", "exponential"]);
    call(&mut cargo)
}

fn cargo() -> Command {
    let mut cargo = Command::new(cross::host_cargo());
    cargo.current_dir(crate::root());
    cargo
}
