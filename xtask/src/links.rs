//! The shipped archives in programs of every kind: each convention of passing floats, link-time
//! optimisation, either size of enumerations, other static libraries of Rust beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::boards::BOARDS;
use crate::c::{WARNINGS, WARNINGS_C};
use crate::report::{Report, output};
use crate::{archive, builds, cross, tools};

/// Every link, a step each.
pub(crate) fn test(report: &mut Report) {
    let name = "c: links";
    if !report.has(name, &[&tools::RUST_CORTEX_M, &tools::LLVM, &tools::ARM_GCC, &tools::QEMU]) {
        return;
    }
    for abi in ["soft", "softfp", "hard"] {
        report.step(&format!("c: links: an object for an FPU, -mfloat-abi={abi}"), || {
            for options in OPTIONS {
                on_board(abi, options)?;
            }
            Ok(())
        });
    }
    report.step("c: links: without the attribute the conventions do not mix", mixing_is_refused);
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        report.step("c: links: beside two other static libraries of Rust", neighbours);
    }
}

/// What else the C compiler is told.
const OPTIONS: [&[&str]; 4] =
    [&["-O2"], &["-O2", "-flto"], &["-Os", "-fshort-enums"], &["-O2", "-flto", "-fno-short-enums"]];

fn folder() -> Result<PathBuf> {
    let folder = crate::target().join("c/links");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A program of the tests over an archive, for the default board under one convention.
fn link(abi: &str, options: &[&str], program: &str, archive: &Path) -> Result<PathBuf> {
    let tests = crate::root().join("tests/c");
    let image = folder()?.join(format!("{program}-{abi}")).with_extension("elf");
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.args(["-mcpu=cortex-m4", "-mthumb"]).arg(format!("-mfloat-abi={abi}"));
    gcc.args((abi != "soft").then_some("-mfpu=fpv4-sp-d16"));
    // The unit must be on whoever passes floats how.
    gcc.args(["-std=c11", "-DBOARD_HAS_FPU"]).args(options).args(WARNINGS).args(WARNINGS_C);
    gcc.arg("-I").arg(crate::root().join("include"));
    gcc.arg(tests.join(program).with_extension("c")).arg(tests.join("board/startup.c"));
    gcc.arg(archive).args(["-lm", "-nostartfiles", "--specs=nano.specs", "--specs=rdimon.specs"]);
    gcc.args(["-u", "_printf_float", "-Wl,--gc-sections", "-Wl,--no-warn-execstack"]);
    // Enumerations of another size are the C library's business here; ours has none.
    gcc.args(["-Wl,--no-enum-size-warning", "-Wl,--fatal-warnings"]);
    output(gcc.arg("-T").arg(tests.join("board/mps2-an386.ld")).arg("-o").arg(&image))?;
    Ok(image)
}

fn on_board(abi: &str, options: &[&str]) -> Result<()> {
    let archive = archive::make(&builds::THUMBV7EM_FP)?;
    for program in ["example", "calls"] {
        let image = link(abi, options, program, &archive)?;
        let said = output(&mut BOARDS[0].emulator(&image))?;
        let is_right = program != "example" || said == "y = 3 6, scores = 0.5 0.5\n";
        ensure!(is_right, "the example says {said:?}");
    }
    Ok(())
}

/// The control: the library as Rust makes it does not link into a soft float program.
fn mixing_is_refused() -> Result<()> {
    archive::make(&builds::THUMBV7EM_FP)?;
    let raw = builds::THUMBV7EM_FP.cross().folder("release").join("libmha_ffi.a");
    let Err(error) = link("soft", &["-O2"], "example", &raw) else {
        anyhow::bail!("it linked");
    };
    let said = format!("{error:#}");
    ensure!(said.contains("uses VFP register arguments"), "refused for something else: {said}");
    Ok(())
}

/// A program with two more static libraries of Rust, of two compilers where there are two, in every
/// order.
fn neighbours() -> Result<()> {
    let folder = folder()?;
    let ours = archive::make(&builds::X86_64)?;
    let source = crate::root().join("tests/c/rust/neighbour.rs");
    let host = cross::host_cargo().with_file_name("rustc");
    let debian = PathBuf::from("/usr/bin/rustc");
    let second = if debian.exists() { debian } else { host.clone() };
    let mut others = Vec::new();
    let bare: &[&str] = &["--cfg", "bare", "-C", "panic=abort"];
    for (name, rustc, flags) in [("neighbour_one", host, &[][..]), ("neighbour_two", second, bare)]
    {
        let library = folder.join(format!("lib{name}.a"));
        let mut rustc = Command::new(rustc);
        rustc.args(["--edition=2024", "-O", "--crate-name", name]).args(flags);
        output(rustc.arg(&source).arg("-o").arg(&library))?;
        others.push(library);
    }
    let [one, two] = [&others[0], &others[1]];
    for (i, order) in
        [[&ours, one, two], [one, &ours, two], [two, one, &ours]].into_iter().enumerate()
    {
        let program = folder.join(format!("neighbours-{i}"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-O1"]).args(WARNINGS).arg("-I").arg(crate::root().join("include"));
        gcc.arg(crate::root().join("tests/c/neighbours.c")).args(order);
        output(gcc.args(["-lm", "-lpthread", "-ldl"]).arg("-o").arg(&program))?;
        let said = output(&mut Command::new(&program))?;
        ensure!(said == "three of them in one program\n", "{said:?}");
    }
    Ok(())
}
