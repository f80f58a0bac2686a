//! The layouts of `cargo xtask dist c` for build systems that no registry has: what of them can be checked
//! without, by the tools that come with each or by standing in for its functions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::builds::SHIPPED;
use crate::packages::platformio;
use crate::python;
use crate::report::{Report, output};

/// The options of Zephyr for a processor, and the archive that its layout must take.
const ZEPHYR: [(&[&str], &str); 16] = [
    (&["CPU_CORTEX_M0"], "thumbv6m"),
    (&["CPU_CORTEX_M0PLUS", "MHA_SIZE"], "thumbv6m-size"),
    (&["CPU_CORTEX_M3"], "thumbv7m"),
    (&["CPU_CORTEX_M3", "MHA_SIZE"], "thumbv7m-size"),
    (&["CPU_CORTEX_M4"], "thumbv7em"),
    (&["CPU_CORTEX_M4", "FPU"], "thumbv7em-fp"),
    (&["CPU_CORTEX_M4", "FPU", "MHA_SIZE"], "thumbv7em-fp-size"),
    (&["CPU_CORTEX_M7"], "thumbv7em"),
    (&["CPU_CORTEX_M7", "FPU"], "thumbv7em-fp-m7"),
    (&["CPU_CORTEX_M7", "FPU", "MHA_SIZE"], "thumbv7em-fp-size"),
    (&["CPU_CORTEX_M33"], "thumbv8m.main"),
    (&["CPU_CORTEX_M33", "FPU", "MHA_SIZE"], "thumbv8m.main-fp-size"),
    (&["CPU_CORTEX_M55", "FPU"], "thumbv8.1m.main-mve"),
    (&["CPU_CORTEX_M85", "FPU", "MHA_SIZE"], "thumbv8.1m.main-mve"),
    (&["RISCV"], "riscv32imc"),
    (&["RISCV", "RISCV_ISA_EXT_A", "MHA_SIZE"], "riscv32imac-size"),
];

/// Every check, a step each; `cmake` is a folder of Python's with that program.
pub(crate) fn test(report: &mut Report, dist: &Path, cmake: &Path) {
    report.step("c: packages: Zephyr's module takes the archive of every processor", || {
        zephyr(dist, cmake)
    });
    report.step("c: packages: ESP-IDF's component takes the archive of every chip", || {
        esp_idf(dist, cmake)
    });
    let wanted = ["kconfiglib==14.1.0"];
    let step = "c: packages: Zephyr's options are read";
    if let Some(packages) = python::packages_for(report, step, "kconfiglib", &wanted, &[]) {
        report.step(step, || {
            let mut read = Command::new(python::PROGRAM);
            read.current_dir(crate::root()).env("PYTHONPATH", packages);
            read.args(["-B", "tests/c/packages/kconfig.py"]);
            output(read.arg(dist.join("zephyr/Kconfig"))).map(|_| ())
        });
    }
    let wanted = ["idf-component-manager==3.1.2"];
    let step = "c: packages: ESP-IDF's component manager packs the component";
    if let Some(packages) = python::packages_for(report, step, "idf", &wanted, &[]) {
        report.step(step, || component(&packages, dist));
    }
    let wanted = ["platformio==6.1.18"];
    let step = "c: packages: the Arduino library is read and packed";
    if let Some(packages) = python::packages_for(report, step, "platformio", &wanted, &[]) {
        report.step(step, || arduino(&packages, dist));
    }
}

/// What a layout's CMakeLists.txt says with some variables set: the archive that it takes, or an error.
fn takes(cmake: &Path, file: &Path, variables: &[String]) -> Result<String> {
    let mut command = Command::new(cmake.join("bin/cmake"));
    command.env("PYTHONPATH", cmake);
    command.args(variables.iter().map(|variable| format!("-D{variable}")));
    command.arg(format!("-DFILE={}", file.display()));
    command.arg("-P").arg(crate::root().join("tests/c/packages/layouts.cmake"));
    let result = command.output()?;
    let said = String::from_utf8_lossy(&result.stderr);
    ensure!(result.status.success(), "{}", said.trim());
    let name = said.lines().find_map(|line| line.strip_prefix("mha: ")).context("no archive")?;
    ensure!(SHIPPED.iter().any(|build| build.name == name), "there is no archive {name}");
    Ok(name.into())
}

fn zephyr(dist: &Path, cmake: &Path) -> Result<()> {
    let file = dist.join("zephyr/CMakeLists.txt");
    let on = |options: &[&str]| -> Vec<String> {
        options.iter().map(|option| format!("CONFIG_{option}=y")).collect()
    };
    for (options, archive) in ZEPHYR {
        let taken = takes(cmake, &file, &on(&[options, &["MHA"]].concat()))?;
        ensure!(taken == archive, "{options:?} takes {taken}, not {archive}");
    }
    for options in [&["MHA"][..], &["MHA", "RISCV", "64BIT"], &["CPU_CORTEX_M4"]] {
        ensure!(takes(cmake, &file, &on(options)).is_err(), "{options:?} takes an archive");
    }
    // What the module's description names is there.
    let module = fs::read_to_string(dist.join("zephyr/module.yml"))?;
    let (_, build) = module.split_once("\nbuild:\n").context("nothing to build")?;
    let mut named = BTreeSet::new();
    for line in build.lines() {
        let (key, path) = line.trim().split_once(": ").context("a strange line")?;
        ensure!(dist.join(path).exists(), "{key}: there is no {path}");
        named.insert(key);
    }
    ensure!(named == ["cmake", "kconfig"].into(), "the module names {named:?}");
    Ok(())
}

fn esp_idf(dist: &Path, cmake: &Path) -> Result<()> {
    let folder = dist.join("esp-idf/mha");
    let file = folder.join("CMakeLists.txt");
    let manifest = fs::read_to_string(folder.join("idf_component.yml"))?;
    let chips = manifest.lines().find_map(|line| line.strip_prefix("targets: ["));
    let chips = chips.and_then(|chips| chips.strip_suffix("]")).context("no list of chips")?;
    let mut count = 0;
    for chip in chips.split(", ") {
        // The two whose processor has no atomic operations.
        let has_atomics = !["esp32c2", "esp32c3"].contains(&chip);
        let archive = if has_atomics { "riscv32imac" } else { "riscv32imc" };
        let taken = takes(cmake, &file, &[format!("IDF_TARGET={chip}")])?;
        ensure!(taken == archive, "{chip} takes {taken}");
        count += 1;
    }
    ensure!(count >= 7, "only {count} chips");
    let other = takes(cmake, &file, &["IDF_TARGET=esp32s3".into()]);
    ensure!(other.is_err(), "a chip of another architecture takes an archive");
    Ok(())
}

/// The tool that uploads components reads the manifest and packs what it names.
fn component(packages: &Path, dist: &Path) -> Result<()> {
    let to = crate::target().join("c/esp-idf");
    let _ = fs::remove_dir_all(&to);
    let mut compote = Command::new(python::PROGRAM);
    compote.current_dir(dist.join("esp-idf/mha")).env("PYTHONPATH", packages);
    compote.arg(packages.join("bin/compote")).args(["component", "pack", "--name", "mha"]);
    output(compote.arg("--dest-dir").arg(&to))?;
    let package = to.join(concat!("mha_", env!("CARGO_PKG_VERSION"), ".tgz"));
    let names = output(Command::new("tar").arg("-tzf").arg(&package))?;
    for name in ["include/mha.h", "CMakeLists.txt", "idf_component.yml", "LICENSE-MIT"] {
        let has = |line: &str| line.strip_prefix("./") == Some(name);
        ensure!(names.lines().any(has), "the package has no {name}");
    }
    Ok(())
}

/// PlatformIO, which takes libraries of the Arduino as they are, reads the properties and packs the folder.
fn arduino(packages: &Path, dist: &Path) -> Result<()> {
    let to = crate::target().join("c/arduino");
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to)?;
    let mut pio = platformio(packages, &to.join("core"));
    pio.args(["pkg", "pack"]).arg(dist.join("arduino/mha")).arg("--output");
    let package = to.join("mha.tar.gz");
    output(pio.arg(&package))?;
    let names = output(Command::new("tar").arg("-tzf").arg(&package))?;
    for name in [
        "library.properties",
        "src/mha.h",
        "src/cortex-m4/fpv4-sp-d16-hard/libmha.a",
        "src/cortex-m4/fpv4-sp-d16-softfp/libmha.a",
    ] {
        ensure!(names.lines().any(|line| line == name), "the package has no {name}");
    }
    Ok(())
}
