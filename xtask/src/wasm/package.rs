//! Builds the npm package in target/npm/mha: the module, wasm-bindgen's glue, and the TypeScript of
//! wasm/npm over both, compiled.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use wasm_bindgen_cli_support::Bindgen;

use crate::cross::{Cross, Library};
use crate::report::{call, output};
use crate::tools;

/// The compiler of the TypeScript, from npm.
pub(crate) const TYPESCRIPT: &str = "typescript@5.9.3";

/// What makes the module smaller, from npm.
const BINARYEN: &str = "binaryen@132.0.0";

/// A build of the module: for which engines, and what it is called.
struct Variant {
    /// What comes between `mha` and `.wasm`.
    name: &'static str,
    flags: &'static str,
    /// What wasm-opt has to know beyond what all modules use.
    feature: Option<&'static str>,
}

/// The builds. The first is the one that the main entries carry: every browser has had
/// 128-bit vectors since 2023, and they round as the portable kernel's floats do, so the bits stay.
const VARIANTS: [Variant; 3] = [
    Variant { name: "", flags: "-Ctarget-feature=+simd128", feature: Some("simd") },
    Variant {
        name: ".relaxed",
        flags: "-Ctarget-feature=+simd128,+relaxed-simd",
        feature: Some("relaxed-simd"),
    },
    Variant { name: ".scalar", flags: "", feature: None },
];

/// A part of the package with a module of its own: the same TypeScript over more of the library.
struct Part {
    /// Its folder in the package, empty for the package's own.
    folder: &'static str,
    /// The feature of the crate.
    feature: &'static str,
    /// Folders of TypeScript that are laid over `wasm/npm/src`.
    over: &'static [&'static str],
    /// What of `wasm/npm/src` it does not have.
    without: &'static [&'static str],
    variants: &'static [Variant],
}

/// The parts: the plain layer, small; everything; everything and the way back.
const PARTS: [Part; 3] = [
    Part { folder: "", feature: "", over: &[], without: &[], variants: &VARIANTS },
    Part {
        folder: "full",
        feature: "family",
        over: &["full"],
        without: &["view.ts", "view"],
        variants: &VARIANTS,
    },
    Part {
        folder: "train",
        feature: "training",
        over: &["full", "train"],
        without: &[
            "view.ts",
            "view",
            "index.ts",
            "auto.ts",
            "inlined.relaxed.d.ts",
            "inlined.scalar.d.ts",
        ],
        variants: VARIANTS.first_chunk::<1>().unwrap().as_slice(),
    },
];

/// Declarations that describe no entry of the package.
const INTERNAL: [&str; 2] = ["checks.d.ts", "run.d.ts"];

/// The package.
pub(super) struct Package {
    pub(super) folder: PathBuf,
}

/// Builds the package, unless it was built from these very sources.
pub(super) fn built() -> Result<Package> {
    let modules = modules()?;
    let stamp = stamp(&modules)?;
    let package = Package { folder: npm().join("mha") };
    let known = fs::read_to_string(npm().join("mha.stamp")).unwrap_or_default();
    if known == stamp && package.folder.is_dir() { Ok(package) } else { assemble(&modules, &stamp) }
}

/// Builds the package.
pub(super) fn build() -> Result<Package> {
    let modules = modules()?;
    let stamp = stamp(&modules)?;
    assemble(&modules, &stamp)
}

/// Compiles the modules: those of each part.
fn modules() -> Result<Vec<Vec<PathBuf>>> {
    let folder = npm().join("modules");
    fs::create_dir_all(&folder)?;
    let compile = |part: &Part, variant: &Variant| {
        let cross = Cross::new(tools::WASM).library(Library::Alloc).flags(variant.flags);
        // On standard error it says what it compiles, which the first time takes a while.
        let mut cargo = cross.cargo("build")?;
        cargo.args(["--profile", "wasm", "--package", "mha-wasm", "--features", part.feature]);
        call(&mut cargo)?;
        // The next part's lies in the same place.
        let to = folder.join(format!("{}{}.wasm", part.folder, variant.name));
        fs::copy(cross.folder("wasm").join("mha_wasm.wasm"), &to)?;
        Ok(to)
    };
    PARTS.iter().map(|part| part.variants.iter().map(|v| compile(part, v)).collect()).collect()
}

/// What the package depends on, in a number.
fn stamp(modules: &[Vec<PathBuf>]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for module in modules.iter().flatten() {
        read(module)?.hash(&mut hasher);
    }
    for file in files(&sources())? {
        file.hash(&mut hasher);
        read(&file)?.hash(&mut hasher);
    }
    (TYPESCRIPT, BINARYEN, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn assemble(modules: &[Vec<PathBuf>], stamp: &str) -> Result<Package> {
    let new = npm().join("mha.new");
    fresh(&new)?;
    for (part, modules) in PARTS.iter().zip(modules) {
        put(part, modules, &new.join(part.folder))?;
    }
    let manifest = fs::read_to_string(sources().join("package.json"))?;
    let version = concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\"");
    ensure!(manifest.contains(version), "package.json does not say {version}");
    let library = fs::read_to_string(sources().join("src/mha.ts"))?;
    let version = concat!("version: string = \"", env!("CARGO_PKG_VERSION"), "\"");
    ensure!(library.contains(version), "mha.ts does not say {version}");
    fs::write(new.join("package.json"), manifest)?;
    fs::copy(sources().join("README.md"), new.join("README.md"))?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(crate::root().join(name), new.join(name))?;
    }

    // In the place of the old one.
    let folder = npm().join("mha");
    remove(&folder)?;
    fs::rename(&new, &folder)?;
    fs::write(npm().join("mha.stamp"), stamp)?;
    Ok(Package { folder })
}

/// Puts a part together.
fn put(part: &Part, modules: &[PathBuf], to: &Path) -> Result<()> {
    // 1. The sources, with wasm-bindgen's glue among them.
    let stage =
        npm().join("stage").join(if part.folder.is_empty() { "plain" } else { part.folder });
    fresh(&stage)?;
    for name in ["package.json", "tsconfig.json"] {
        fs::copy(sources().join(name), stage.join(name))?;
    }
    let inside = stage.join("src");
    copy(&sources().join("src"), &inside)?;
    for name in part.without {
        let left_out = inside.join(name);
        if left_out.is_dir() {
            fs::remove_dir_all(left_out)?;
        } else {
            fs::remove_file(left_out).with_context(|| format!("no {name} to leave out"))?;
        }
    }
    for folder in part.over {
        copy(&sources().join(folder), &inside)?;
    }
    fs::create_dir_all(to)?;
    let (glue, other) = (inside.join("glue"), stage.join("glue"));
    for (module, variant) in modules.iter().zip(part.variants) {
        let here = if variant.name.is_empty() { &glue } else { &other };
        let mut bindgen = Bindgen::new();
        bindgen.input_path(module).out_name("mha_wasm").web(true)?;
        // Without it bundlers find no address that they would have to follow.
        bindgen.typescript(true).omit_default_module_path(true).generate(here)?;
        // One glue serves all.
        let [ours, theirs] = [&glue, here].map(|folder| read(&folder.join("mha_wasm.js")));
        ensure!(ours? == theirs?, "the glue of mha{}.wasm is another", variant.name);
        let wasm = to.join(format!("mha{}.wasm", variant.name));
        optimise(variant, &here.join("mha_wasm_bg.wasm"), &wasm)?;
        let inlined = base64(&gzip(&read(&wasm)?)?);
        let inlined = format!("export const inlined =\n  \"{inlined}\";\n");
        fs::write(to.join(format!("inlined{}.js", variant.name)), inlined)?;
    }

    // 2. Compiled.
    call(Command::new(tools::npm(TYPESCRIPT, "tsc")?).arg("--project").arg(&stage))?;
    copy(&stage.join("out"), to)?;
    for name in INTERNAL {
        fs::remove_file(to.join(name)).with_context(|| format!("no {name} was compiled"))?;
    }
    fs::create_dir_all(to.join("glue"))?;
    fs::copy(glue.join("mha_wasm.js"), to.join("glue/mha_wasm.js"))?;
    Ok(())
}

/// Makes the module smaller; where wasm-opt cannot be had, it stays as it is.
fn optimise(variant: &Variant, from: &Path, to: &Path) -> Result<()> {
    let program = match tools::npm(BINARYEN, "wasm-opt") {
        Ok(program) => program,
        Err(error) => {
            eprintln!("   no wasm-opt, so the module stays larger than it need be: {error:#}");
            fs::copy(from, to)?;
            return Ok(());
        }
    };
    let features = [
        "bulk-memory",
        "multivalue",
        "mutable-globals",
        "nontrapping-float-to-int",
        "reference-types",
        "sign-ext",
    ];
    let relaxed = variant.feature == Some("relaxed-simd");
    let own = variant.feature.into_iter().chain(relaxed.then_some("simd"));
    let mut command = Command::new(program);
    // The stack comes first and grows down, so nothing lies in the first kilobyte, and what is added to an address
    // can be part of the load.
    command.args(["-O3", "--low-memory-unused"]);
    command.args(["--strip-debug", "--strip-producers", "--strip-target-features"]);
    let features = features.into_iter().chain(own);
    command.args(features.map(|feature| format!("--enable-{feature}")));
    output(command.arg(from).arg("-o").arg(to))?;
    Ok(())
}

/// Compresses as well as gzip can: what is in the package is made once and loaded often.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = Vec::new();
    zopfli::compress(zopfli::Options::default(), zopfli::Format::Gzip, bytes, &mut packed)?;
    Ok(packed)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let all = (0..3).fold(0, |all, i| all << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for place in 0..4 {
            let digit = DIGITS[(all >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}

fn npm() -> PathBuf {
    crate::target().join("npm")
}

fn sources() -> PathBuf {
    crate::root().join("wasm/npm")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Makes a folder empty.
pub(crate) fn fresh(folder: &Path) -> Result<()> {
    remove(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let inside = file.strip_prefix(from).map_err(|error| anyhow!(error))?;
        let target = to.join(inside);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&file, &target)
            .with_context(|| format!("cannot copy {} to {}", file.display(), target.display()))?;
    }
    Ok(())
}

/// The files of a folder, all levels deep, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        let context = || format!("cannot read {}", folder.display());
        for entry in folder.read_dir().with_context(context)? {
            let path = entry.with_context(context)?.path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::base64;

    /// The examples of RFC 4648.
    #[test]
    fn base64_is_as_the_standard_says() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in examples {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
