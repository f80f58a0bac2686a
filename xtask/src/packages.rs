//! The packages of `cargo xtask dist c` in the hands of the tools that take them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::builds::{self, Build};
use crate::report::{Report, output};
use crate::{dist, layouts, python, tools};

/// What is built to be looked at: this machine's archive and one processor's two.
fn made() -> Result<PathBuf> {
    let host: &[&Build] = if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        &[&builds::X86_64]
    } else {
        &[]
    };
    dist::make(&[host, &[&builds::THUMBV7EM_FP, &builds::THUMBV7EM_FP_SIZE]].concat())
}

/// Every check of the packages, a step each.
pub(crate) fn test(report: &mut Report) {
    let name = "c: packages";
    if !report.has(name, &[&tools::RUST_CORTEX_M, &tools::LLVM, &tools::ARM_GCC, &tools::QEMU]) {
        return;
    }
    let mut dist = None;
    report.step("c: packages are made", || {
        dist = Some(made()?);
        Ok(())
    });
    let Some(dist) = dist else { return };
    report.step("c: packages: the CMSIS-Pack names what is there", || pack(&dist));
    let wanted = ["cmake==4.1.2", "ninja==1.13.0"];
    if let Some(python) = python::packages_for(report, "c: CMake", "cmake", &wanted, &[]) {
        for how in ["find", "subdirectory", "fetch"] {
            report.step(&format!("c: packages: CMake takes it by {how}"), || {
                if how == "find" {
                    cmake(&python, &dist, how, "thumbv7em-fp")?;
                    cmake(&python, &dist, how, "thumbv7em-fp-size")?;
                }
                if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
                    cmake(&python, &dist, how, "x86_64-linux")?;
                }
                Ok(())
            });
        }
        layouts::test(report, &dist, &python);
    }
    let wanted = ["platformio==6.1.18"];
    if let Some(python) = python::packages_for(report, "c: PlatformIO", "platformio", &wanted, &[])
    {
        report.step("c: packages: PlatformIO packs it", || packs(&python, &dist));
        let step = "c: packages: PlatformIO builds with it";
        let scons = python::packages_for(report, step, "scons", &["scons==4.8.1"], &["--no-deps"]);
        if let Some(scons) = scons {
            report.step(step, || builds(&python, &scons, &dist));
        }
    }
}

/// Builds the example over the package, for this machine or for a board, and runs it: it must take the
/// archive.
fn cmake(python: &Path, dist: &Path, how: &str, archive: &str) -> Result<()> {
    let on_board = archive.starts_with("thumb");
    let source = crate::root().join("tests/c/packages/cmake");
    let build = crate::target().join("c/cmake").join(format!("{how}-{archive}"));
    let _ = fs::remove_dir_all(&build);
    let tool = |name: &str| {
        let mut command = Command::new(python.join("bin").join(name));
        command.env("PYTHONPATH", python);
        command
    };
    let mut configure = tool("cmake");
    configure.args(["-G", "Ninja"]).arg("-S").arg(&source).arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", python.join("bin/ninja").display()));
    configure.arg(format!("-DHOW={how}")).arg(format!("-DMHA={}", dist.display()));
    if on_board {
        let toolchain = source.join("cortex-m4f.cmake");
        configure.arg(format!("-DCMAKE_TOOLCHAIN_FILE={}", toolchain.display()));
        configure.args(archive.ends_with("-size").then_some("-DMHA_SIZE=ON"));
    }
    configure.env("PYTHONPATH", python);
    let said = output(&mut configure)?;
    ensure!(
        said.lines().any(|line| line.ends_with(&format!("mha: {archive}"))),
        "another archive was chosen:\n{said}"
    );
    output(tool("cmake").arg("--build").arg(&build))?;
    let program = build.join("user");
    let said = if on_board {
        output(crate::boards::BOARDS[0].emulator(&program).current_dir(&build))?
    } else {
        output(&mut Command::new(program))?
    };
    ensure!(said == "y = 3 6, scores = 0.5 0.5\n", "the example says {said:?}");
    Ok(())
}

/// The package's own tool reads the manifest and packs what it names.
fn packs(python: &Path, dist: &Path) -> Result<()> {
    let to = crate::target().join("c/platformio");
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to)?;
    // It asks the network for the list of licences, so of this alone it cannot be asked here.
    let copy = to.join("mha");
    output(Command::new("cp").arg("-r").arg(dist).arg(&copy))?;
    let manifest = fs::read_to_string(copy.join("library.json"))?;
    let without: String = manifest.lines().filter(|line| !line.contains("\"license\"")).collect();
    fs::write(copy.join("library.json"), without)?;
    let mut pio = platformio(python, &to.join("core"));
    pio.args(["pkg", "pack"]).arg(&copy).arg("--output");
    let package = to.join("mha.tar.gz");
    output(pio.arg(&package))?;
    let names = output(Command::new("tar").arg("-tzf").arg(&package))?;
    for name in [
        "include/mha.h",
        "lib/thumbv7em-fp/libmha.a",
        "library.json",
        "platformio.py",
        "cmake/which.c",
    ] {
        ensure!(names.lines().any(|line| line == name), "the package has no {name}");
    }
    Ok(())
}

/// PlatformIO with its packages in a folder.
pub(crate) fn platformio(python: &Path, core: &Path) -> Command {
    let mut pio = Command::new(python::PROGRAM);
    pio.env("PYTHONPATH", python).env("PLATFORMIO_CORE_DIR", core);
    pio.env("PLATFORMIO_SETTING_ENABLE_TELEMETRY", "no").args(["-m", "platformio"]);
    pio
}

/// Projects that name the library in `lib_deps`, for this machine and for a board. Its own platforms and
/// their compilers come from the network; a platform of our own takes the compilers of this machine.
fn builds(python: &Path, scons: &Path, dist: &Path) -> Result<()> {
    let tests = crate::root().join("tests/c");
    let platform = tests.join("packages/platformio");
    let folder = crate::target().join("c/platformio-build");
    let _ = fs::remove_dir_all(&folder);
    let tool = folder.join("core/packages/tool-scons");
    fs::create_dir_all(&tool)?;
    fs::copy(platform.join("scons.py"), tool.join("scons.py"))?;
    output(Command::new("cp").arg("-r").arg(scons).arg(tool.join("modules")))?;
    let named = r#""name":"tool-scons","version":"4.40801.0""#;
    fs::write(tool.join("package.json"), format!(r#"{{{named},"description":"SCons"}}"#))?;
    let spec =
        r#"{"owner":"platformio","id":null,"name":"tool-scons","requirements":null,"uri":null}"#;
    fs::write(tool.join(".piopm"), format!(r#"{{"type":"tool",{named},"spec":{spec}}}"#))?;

    let m4f = "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16";
    let link = format!(
        "-nostartfiles --specs=nano.specs --specs=rdimon.specs -u _printf_float \
         -Wl,--no-warn-execstack -T {}",
        tests.join("board/mps2-an386.ld").display()
    );
    let board = ("arm-none-eabi-gcc", m4f, link, "thumbv7em-fp");
    let host = ("gcc", "", String::new(), "x86_64-linux");
    let is_host = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    for (compiler, machine, link, archive) in
        [Some(board), is_host.then_some(host)].into_iter().flatten()
    {
        let project = folder.join(archive);
        fs::create_dir_all(project.join("src"))?;
        fs::copy(tests.join("example.c"), project.join("src/main.c"))?;
        if compiler != "gcc" {
            fs::copy(tests.join("board/startup.c"), project.join("src/startup.c"))?;
        }
        let (platform, dist) = (platform.display(), dist.display());
        fs::write(
            project.join("platformio.ini"),
            format!(
                "[env:it]\nplatform = symlink://{platform}\nlib_deps = symlink://{dist}\n\
                 custom_compiler = {compiler}\ncustom_machine = {machine}\ncustom_link = {link}\n"
            ),
        )?;
        let mut pio = platformio(python, &folder.join("core"));
        let said = output(pio.arg("run").arg("-d").arg(&project))?;
        ensure!(said.lines().any(|line| line == format!("mha: {archive}")), "{said}");
        let program = project.join(".pio/build/it/program");
        let said = if compiler == "gcc" {
            output(&mut Command::new(program))?
        } else {
            output(&mut crate::boards::BOARDS[0].emulator(&program))?
        };
        ensure!(said == "y = 3 6, scores = 0.5 0.5\n", "the example says {said:?}");
    }
    Ok(())
}

/// Every file that the pack's description names is there, and every element that begins ends.
fn pack(dist: &Path) -> Result<()> {
    let folder = dist.join("cmsis-pack");
    let text = fs::read_to_string(folder.join("mha.mha.pdsc"))?;
    let mut open = Vec::new();
    for tag in text.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').context("a tag without an end")?;
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            ensure!(open.pop() == Some(name), "</{name}> ends another element");
        } else if !tag.ends_with('/') && !tag.starts_with('?') {
            open.push(name);
        }
    }
    ensure!(open.is_empty(), "{open:?} do not end");
    ensure!(!text.contains('@'), "a word of the template is left");
    let conditions: BTreeSet<_> =
        text.split("<condition id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut files = 0;
    for line in text.lines().filter(|line| line.contains("<file ")) {
        let value = |key: &str| line.split(&format!("{key}=\"")).nth(1)?.split('"').next();
        let name = value("name").context("a file without a name")?;
        if let Some(condition) = value(" condition") {
            ensure!(conditions.contains(condition), "no condition {condition}");
        }
        // Archives that were not built this time are another matter.
        let is_archive = name.ends_with(".a");
        ensure!(is_archive || folder.join(name).exists(), "there is no {name}");
        files += 1;
    }
    ensure!(files >= 10, "only {files} files");
    Ok(())
}
