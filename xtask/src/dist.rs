//! `cargo xtask dist c`: everything that a firmware engineer takes, under target/dist/c.
//!
//! The templates lie in `packaging/c`; what depends on the archives is put in here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::builds::{Build, SHIPPED};
use crate::{archive, cross, tools};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What for
    what: What,
    /// Only these archives; all of them where none is named
    #[arg(long, value_name = "ARCHIVE")]
    only: Vec<String>,
    /// No archive: only the files that choose one
    #[arg(long, conflicts_with = "only")]
    cmake_only: bool,
}

/// The day of the version, which a CMSIS-Pack wants said.
const RELEASED: &str = "2026-11-28";

/// What is made.
#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// Headers, archives and packages for C and C++
    C,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let What::C = args.what;
    let unknown = args.only.iter().find(|name| !SHIPPED.iter().any(|build| build.name == **name));
    ensure!(unknown.is_none(), "there is no archive {unknown:?}");
    tools::get(&[&tools::RUST_CORTEX_M, &tools::LLVM]);
    let chosen =
        |build: &&&Build| args.only.is_empty() || args.only.iter().any(|n| n == build.name);
    let builds: Vec<_> = match args.cmake_only {
        true => Vec::new(),
        false => SHIPPED.iter().filter(chosen).copied().collect(),
    };
    let dist = make(&builds)?;
    for build in builds {
        let archive = dist.join("lib").join(build.name).join(archive::FILE);
        let bytes = fs::metadata(&archive)?.len();
        println!("{:<20}{:>9} bytes  {}", build.name, bytes, build.cores);
    }
    println!("in {}", dist.display());
    Ok(())
}

/// Makes the folder with some archives; its path.
pub(crate) fn make(builds: &[&Build]) -> Result<PathBuf> {
    let root = crate::root();
    let dist = crate::target().join("dist/c");
    fs::create_dir_all(&dist)?;
    fill(&root.join("packaging/c"), &dist)?;
    fs::write(dist.join("cmake/which.c"), which())?;
    for name in ["mha.h", "mha.hpp"] {
        let header = root.join("include").join(name);
        for folder in ["include", "esp-idf/mha/include", "arduino/mha/src", "cmsis-pack/include"] {
            put(&header, &dist.join(folder).join(name))?;
        }
    }
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md"] {
        for folder in ["", "esp-idf/mha", "arduino/mha", "cmsis-pack"] {
            put(&root.join(name), &dist.join(folder).join(name))?;
        }
    }
    for build in builds {
        if !cross::available(build.target) {
            eprintln!("   {} is left out: {}", build.name, cross::remedy(build.target));
            continue;
        }
        let archive = archive::make(build)?;
        let name = Path::new("lib").join(build.name).join(archive::FILE);
        put(&archive, &dist.join(&name))?;
        if build.is_arm() {
            put(&archive, &dist.join("cmsis-pack").join(&name))?;
        } else if build.is_bare() {
            put(&archive, &dist.join("esp-idf/mha").join(&name))?;
        }
        for folder in arduino(build) {
            put(&archive, &dist.join("arduino/mha/src").join(folder).join(archive::FILE))?;
        }
    }
    Ok(dist)
}

/// Where Arduino looks for the archive: by `build.mcu`, with an FPU also by its kind and the ABI.
fn arduino(build: &Build) -> Vec<String> {
    let abis =
        |mcu: &str, fpu: &str| ["softfp", "hard"].map(|abi| format!("{mcu}/{fpu}-{abi}")).to_vec();
    match build.name {
        "thumbv6m" => vec!["cortex-m0".into(), "cortex-m0plus".into()],
        "thumbv7m" => vec!["cortex-m3".into()],
        "thumbv7em" => vec!["cortex-m4".into()],
        "thumbv7em-fp" => abis("cortex-m4", "fpv4-sp-d16"),
        "thumbv7em-fp-m7" => {
            [abis("cortex-m7", "fpv5-d16"), abis("cortex-m7", "fpv5-sp-d16")].concat()
        }
        "thumbv8m.main" => vec!["cortex-m33".into()],
        "thumbv8m.main-fp" => abis("cortex-m33", "fpv5-sp-d16"),
        "riscv32imc" => vec!["esp32c3".into()],
        "riscv32imac" => vec!["esp32c6".into(), "esp32h2".into()],
        _ => Vec::new(),
    }
}

/// Copies a file, with its folder.
fn put(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file in a folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Copies the templates, with what they name put in.
fn fill(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            // These two are folders that go as they are.
            let is_whole = ["esp-idf", "arduino"].iter().any(|whole| name.to_str() == Some(*whole));
            let to = if is_whole { to.join(&name).join("mha") } else { to.join(&name) };
            fs::create_dir_all(&to)?;
            fill(&entry.path(), &to)?;
            continue;
        }
        let mut text = fs::read_to_string(entry.path())?;
        let version = env!("CARGO_PKG_VERSION");
        let mut numbers = version.split('.');
        for (word, value) in [
            ("@VERSION@", version.to_owned()),
            ("@MAJOR@", numbers.next().unwrap_or_default().to_owned()),
            ("@MINOR@", numbers.next().unwrap_or_default().to_owned()),
            ("@DATE@", RELEASED.to_owned()),
            ("@TABLE@", table()),
            ("@CONDITIONS@", conditions()),
            ("@FILES@", files()),
        ] {
            text = text.replace(word, &value);
        }
        fs::write(to.join(name), text)?;
    }
    Ok(())
}

/// What a compiler's macros say of the archive, for its preprocessor.
fn which() -> String {
    let mut text = String::from("/* Which archive a compiler's macros ask for. */\n");
    let mut word = "#if";
    for build in SHIPPED.iter().filter(|build| !build.when.is_empty()) {
        text += &format!("{word} {}\nmha_archive \"{}\"\n", build.when, build.name);
        word = "#elif";
    }
    text + "#else\nmha_archive none\n#endif\n"
}

fn table() -> String {
    let mut text =
        String::from("| archive | processors | of Rust's target | made for |\n|---|---|---|---|");
    for build in SHIPPED {
        let purpose = if build.profile == "size" { "the least code" } else { "speed" };
        let Build { name, cores, target, .. } = build;
        text += &format!("\n| `lib/{name}` | {cores} | `{target}` | {purpose} |");
    }
    text
}

/// The archives of a CMSIS-Pack: one for each processor.
fn arm_of_pack() -> impl Iterator<Item = &'static Build> {
    SHIPPED.into_iter().filter(|build| build.is_arm() && build.profile == "release")
}

/// A processor as a CMSIS-Pack names it.
fn cores_of_pack(build: &Build) -> &'static [(&'static str, &'static str)] {
    match build.name {
        "thumbv6m" => &[("Cortex-M0", ""), ("Cortex-M0+", "")],
        "thumbv7m" => &[("Cortex-M3", "")],
        "thumbv7em" => &[("Cortex-M4", "NO_FPU"), ("Cortex-M7", "NO_FPU")],
        "thumbv7em-fp" => &[("Cortex-M4", "SP_FPU")],
        "thumbv7em-fp-m7" => &[("Cortex-M7", "SP_FPU"), ("Cortex-M7", "DP_FPU")],
        "thumbv8m.main" => &[("Cortex-M33", "NO_FPU")],
        "thumbv8m.main-fp" => &[("Cortex-M33", "SP_FPU")],
        "thumbv8.1m.main-mve" => &[("Cortex-M55", ""), ("Cortex-M85", "")],
        _ => &[],
    }
}

fn conditions() -> String {
    let mut lines = vec!["    <condition id=\"any\">".to_owned()];
    let accept = |core: &str, fpu: &str| {
        let fpu = if fpu.is_empty() { String::new() } else { format!(" Dfpu=\"{fpu}\"") };
        format!("      <accept Dcore=\"{core}\"{fpu}/>")
    };

    lines.extend(arm_of_pack().flat_map(cores_of_pack).map(|(core, fpu)| accept(core, fpu)));
    lines.push("    </condition>".into());
    for build in arm_of_pack() {
        lines.push(format!("    <condition id=\"{}\">", build.name));
        lines.extend(cores_of_pack(build).iter().map(|(core, fpu)| accept(core, fpu)));
        lines.push("    </condition>".into());
    }
    lines.join("\n")
}

fn files() -> String {
    let arm = arm_of_pack();
    let line = |build: &Build| {
        let name = build.name;
        format!(
            "        <file category=\"library\" condition=\"{name}\" name=\"lib/{name}/libmha.a\"/>"
        )
    };
    arm.map(line).collect::<Vec<_>>().join("\n")
}
