//! Building images: programs in Rust by cargo, programs in C by GCC over the archive that is shipped.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Program, Variant};
use crate::archive;
use crate::boards::Board;
use crate::c::{WARNINGS, WARNINGS_C};
use crate::cross::Cross;
use crate::report;

/// Builds a program for a board; the image.
pub(crate) fn build(board: &Board, program: Program, variant: Variant) -> Result<PathBuf> {
    let cross = board.build.cross();
    report::call(&mut cargo_build(board, &cross, program, variant)?)?;
    // Variants and boards are built in one place: the image is kept from the next build.
    let from = cross.folder(board.build.profile).join(program.name());
    let to = folder(board, program.name(), "rust")?
        .join(variant.feature().unwrap_or("whole"))
        .with_extension("elf");
    fs::copy(&from, &to).with_context(|| format!("no image {}", from.display()))?;
    Ok(to)
}

pub(super) fn cargo_build(
    board: &Board,
    cross: &Cross,
    program: Program,
    variant: Variant,
) -> Result<Command> {
    let mut command = cross.cargo("build")?;
    command.args(["--quiet", "--profile", board.build.profile]);
    command.args(["--package", "mha-firmware", "--bin", program.name()]);
    let features = variant.feature().into_iter().chain(board.build.feature);
    let features = features.chain((!board.is_roomy).then_some("small"));
    command.args(features.map(|feature| format!("--features={feature}")));
    command.env("MHA_BOARD", board.machine);
    Ok(command)
}

/// Where the images of a program in a language, and what they wrote, are kept.
fn folder(board: &Board, program: &str, language: &str) -> Result<PathBuf> {
    let name = format!("{program}-{language}");
    let folder = crate::target().join("firmware").join(board.name).join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What a program in C is made of beside its own file.
const PARTS: [&str; 6] = ["score.c", "network.c", "host.c", "memory.c", "startup.c", "data.S"];

/// Builds a program in C for a board; the image.
pub(crate) fn build_c(board: &Board, program: Program, variant: Variant) -> Result<PathBuf> {
    let parts: &[&str] = if program.is_model() { &["model.c"] } else { &[] };
    compile(board, program.name(), parts, variant)
}

/// Builds the program of a name, with more files than those of all programs.
pub(super) fn compile(
    board: &Board,
    name: &str,
    more: &[&str],
    variant: Variant,
) -> Result<PathBuf> {
    let archive = archive::make(board.build)?;
    let firmware = crate::root().join("demos/firmware");
    let to =
        folder(board, name, "c")?.join(variant.feature().unwrap_or("whole")).with_extension("elf");
    let mut gcc = Command::new(board.build.gcc);
    gcc.args(board.build.flags).args(["-std=c11", "-O2", "-ffp-contract=off", "-ffreestanding"]);
    gcc.args(["-ffunction-sections", "-fdata-sections"]).args(WARNINGS).args(WARNINGS_C);
    gcc.args((variant == Variant::WithoutCalls).then_some("-DWITHOUT_CALLS"));
    gcc.args((!board.is_roomy).then(|| format!("-DFRAMES={SMALL_FRAMES}")));
    gcc.arg("-I").arg(crate::root().join("include"));
    for folder in ["demos/nets/src/weights", "demos/firmware/items"] {
        gcc.arg(format!("-Wa,-I,{}", crate::root().join(folder).display()));
    }
    gcc.arg(firmware.join("c").join(name).with_extension("c"));
    gcc.args(more.iter().map(|part| firmware.join("c").join(part)));
    gcc.args(PARTS.map(|part| firmware.join("c").join(part)));
    gcc.arg(&archive).args(["-nostdlib", "-lgcc", "-Wl,--gc-sections", "-Wl,--fatal-warnings"]);
    gcc.args(["-Wl,--no-warn-rwx-segments", "-Wl,--no-warn-execstack"]);
    gcc.arg("-T").arg(board.memory()).arg("-T").arg(firmware.join("c/sections.ld"));
    report::output(gcc.arg("-o").arg(&to))?;
    Ok(to)
}

/// Frames of an utterance that a small board has room for.
const SMALL_FRAMES: usize = 20;
