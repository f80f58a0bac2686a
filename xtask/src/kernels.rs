//! The suite `kernels`: what the compiler makes of them, and that they touch no memory but their own.

use std::process::Command;

use anyhow::Result;

use crate::report::{Report, call};
use crate::{c, cross, disassembly, tools};

/// The suite.
pub(crate) fn test(report: &mut Report) {
    if cfg!(target_arch = "x86_64") {
        report.step("kernels: hot loops of x86-64", || {
            disassembly::check(&c::library()?, &disassembly::X86_64)
        });
    }
    if report.has("kernels: valgrind", &[&tools::VALGRIND]) {
        report.step("kernels: valgrind", valgrind);
    }
}

/// A step of the suite `aarch64`, which has the means to build for it.
pub(crate) fn aarch64_loops() -> Result<()> {
    let cross = cross::Cross::new(tools::AARCH64).flags(disassembly::FLAGS);
    call(cross.cargo("rustc")?.arg("--release").args(c::LIBRARY))?;
    let library = cross.folder("release").join("libmha_ffi.a");
    disassembly::check(&library, &disassembly::AARCH64)
}

/// The kernels and the edges of whole calls under valgrind, which has no AVX-512. It knows what was
/// never written, such as the room for a panel, which a forbidden page does not.
fn valgrind() -> Result<()> {
    let runner = r#"target."cfg(all())".runner = ["valgrind", "--quiet", "--error-exitcode=9"]"#;
    let mut cargo = Command::new(cross::host_cargo());
    cargo.current_dir(crate::root());
    cargo.args(["test", "--quiet", "--config", runner, "--package", "mha"]);
    cargo.args(["--lib", "--test", "edges", "--", "--skip", "exponential"]);
    call(&mut cargo)
}
