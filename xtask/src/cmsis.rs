//! CMSIS-DSP's matrix product beside ours, counted the same way: its sources come with the source
//! distribution of PyPI's `cmsisdsp`, its flags are those its authors ask for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::boards::Board;
use crate::firmware::{self, Part};
use crate::report::call;
use crate::{python, root};

/// The release that is compared with.
const RELEASE: &str = "cmsisdsp-1.10.3";

/// What each function did in the two products of attention, on boards with an FPU of a kind that the
/// plain C of CMSIS-DSP is for.
pub(crate) fn products(board: &Board) -> Result<Vec<Part>> {
    let sources = sources()?;
    let folder = crate::target().join("firmware").join(board.name).join("cmsis");
    fs::create_dir_all(&folder)?;
    // The C tests' image, with the memory of this board.
    let start = root().join("tests/c/board");
    let script = fs::read_to_string(start.join("mps2-an386.ld"))?;
    let (_, sections) = script.split_once("ENTRY").context("a strange linker script")?;
    let script = folder.join("board.ld");
    fs::write(&script, format!("{}\nENTRY{sections}", fs::read_to_string(board.memory())?))?;

    let image = folder.join("cmsis.elf");
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.arg(format!("-mcpu={}", board.build.cpu.unwrap_or("cortex-m4")));
    gcc.args(["-mthumb", "-mfloat-abi=hard", "-Ofast"]);
    // The second keeps out the headers of CMSIS-Core, which the distribution does not have.
    gcc.args(["-DARM_MATH_LOOPUNROLL", "-D__GNUC_PYTHON__"]);
    gcc.arg("-I").arg(sources.join("Include")).arg("-I").arg(sources.join("PrivateInclude"));
    gcc.arg(root().join("tests/qemu/cmsis.c")).arg(start.join("startup.c"));
    gcc.arg(sources.join("Source/MatrixFunctions/arm_mat_mult_f32.c"));
    gcc.args(["-nostartfiles", "--specs=nano.specs", "--specs=rdimon.specs"]);
    gcc.args(["-Wl,--gc-sections", "-Wl,--no-warn-execstack", "-Wl,--no-warn-rwx-segments"]);
    call(gcc.arg("-T").arg(&script).arg("-o").arg(&image))?;
    firmware::count_parts(board, &image, "measured_products", &folder)
}

/// The unpacked source distribution.
fn sources() -> Result<PathBuf> {
    let folder = crate::target().join("python/cmsisdsp");
    let sources = folder.join(RELEASE);
    if sources.is_dir() {
        return Ok(sources);
    }
    // pip looks into what it downloads, by what builds it.
    let build = python::packages("cmsisdsp-build", &["wheel", "setuptools", "numpy"], &[])?;
    let mut pip = Command::new(python::PROGRAM);
    pip.env("PYTHONPATH", build).args(["-m", "pip", "download", "--quiet", "--no-deps"]);
    pip.args([
        "--no-binary=:all:",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--dest",
    ]);
    call(pip.arg(&folder).arg(RELEASE.replace('-', "==")))?;
    unpack(&folder)?;
    Ok(sources)
}

fn unpack(folder: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    call(tar.arg("-C").arg(folder).arg("-xzf").arg(folder.join(format!("{RELEASE}.tar.gz"))))
}
