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

/// A module: for which engines, and what it is called.
struct Variant {
    /// What comes between `mha` and `.wasm`.
    name: &'static str,
    flags: &'static str,
    /// What wasm-opt has to know beyond what all modules use.
    feature: Option<&'static str>,
}

/// The modules. The first is the one that the package's main entry carries: every browser has had
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

/// Compiles the modules: those of [`VARIANTS`], and the one with the way back.
fn modules() -> Result<Vec<PathBuf>> {
    let compile = |variant: &Variant| {
        let cross = Cross::new(tools::WASM).library(Library::Alloc).flags(variant.flags);
        // On standard error it says what it compiles, which the first time takes a while.
        call(cross.cargo("build")?.args(["--profile", "wasm", "--package", "mha-wasm"]))?;
        Ok(cross.folder("wasm").join("mha_wasm.wasm"))
    };
    // First the one with the way back, which would lie where the first of the others is to.
    let cross = Cross::new(tools::WASM).library(Library::Alloc).flags(VARIANTS[0].flags);
    let mut cargo = cross.cargo("build")?;
    cargo.args(["--profile", "wasm", "--package", "mha-wasm", "--features", "training"]);
    call(&mut cargo)?;
    let training = npm().join("training.wasm");
    fs::create_dir_all(npm())?;
    fs::copy(cross.folder("wasm").join("mha_wasm.wasm"), &training)?;
    let mut modules = VARIANTS.iter().map(compile).collect::<Result<Vec<_>>>()?;
    modules.push(training);
    Ok(modules)
}

/// What the package depends on, in a number.
fn stamp(modules: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for module in modules {
        read(module)?.hash(&mut hasher);
    }
    for file in files(&sources())? {
        file.hash(&mut hasher);
        read(&file)?.hash(&mut hasher);
    }
    (TYPESCRIPT, BINARYEN, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn assemble(modules: &[PathBuf], stamp: &str) -> Result<Package> {
    // 1. The sources, with wasm-bindgen's glue among them.
    let stage = npm().join("stage");
    fresh(&stage)?;
    copy(&sources(), &stage)?;
    let (glue, other) = (stage.join("src/glue"), stage.join("glue"));
    for (module, variant) in modules.iter().zip(&VARIANTS) {
        let to = if variant.name.is_empty() { &glue } else { &other };
        let mut bindgen = Bindgen::new();
        bindgen.input_path(module).out_name("mha_wasm").web(true)?;
        // Without it bundlers find no address that they would have to follow.
        bindgen.typescript(true).omit_default_module_path(true).generate(to)?;
        // One glue serves all.
        let [ours, theirs] = [&glue, to].map(|folder| read(&folder.join("mha_wasm.js")));
        ensure!(ours? == theirs?, "the glue of mha{}.wasm is another", variant.name);
        let packed = stage.join("wasm");
        fs::create_dir_all(&packed)?;
        let wasm = packed.join(format!("mha{}.wasm", variant.name));
        optimise(variant, &to.join("mha_wasm_bg.wasm"), &wasm)?;
    }

    // 2. Compiled.
    call(Command::new(tools::npm(TYPESCRIPT, "tsc")?).arg("--project").arg(&stage))?;

    // 3. Together.
    let new = npm().join("mha.new");
    fresh(&new)?;
    copy(&stage.join("out"), &new)?;
    for name in INTERNAL {
        fs::remove_file(new.join(name)).with_context(|| format!("no {name} was compiled"))?;
    }
    fs::create_dir_all(new.join("glue"))?;
    fs::copy(glue.join("mha_wasm.js"), new.join("glue/mha_wasm.js"))?;
    for Variant { name, .. } in VARIANTS {
        let wasm = read(&stage.join("wasm").join(format!("mha{name}.wasm")))?;
        let inlined = base64(&gzip(&wasm)?);
        let inlined = format!("export const inlined =\n  \"{inlined}\";\n");
        fs::write(new.join(format!("inlined{name}.js")), inlined)?;
        fs::write(new.join(format!("mha{name}.wasm")), wasm)?;
    }
    let manifest = fs::read_to_string(stage.join("package.json"))?;
    let version = concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\"");
    ensure!(manifest.contains(version), "package.json does not say {version}");
    fs::write(new.join("package.json"), manifest)?;
    for name in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        let file = if name == "README.md" { stage.join(name) } else { crate::root().join(name) };
        if file.exists() {
            fs::copy(&file, new.join(name))?;
        }
    }

    // 4. The entry with the way back: the same sources over another module.
    let training = modules.last().context("there is no module with the way back")?;
    train(training, &new.join("train"))?;

    // 5. In the place of the old one.
    let folder = npm().join("mha");
    remove(&folder)?;
    fs::rename(&new, &folder)?;
    fs::write(npm().join("mha.stamp"), stamp)?;
    Ok(Package { folder })
}

/// Puts together `mha/train`: the sources of the package and those of wasm/npm/train over a module of its own.
fn train(module: &Path, to: &Path) -> Result<()> {
    let stage = npm().join("stage.train");
    fresh(&stage)?;
    copy(&sources(), &stage)?;
    let inside = stage.join("src");
    for name in ["index.ts", "auto.ts", "view.ts", "inlined.relaxed.d.ts", "inlined.scalar.d.ts"] {
        fs::remove_file(inside.join(name)).with_context(|| format!("no {name} to leave out"))?;
    }
    remove(&inside.join("view"))?;
    copy(&sources().join("train"), &inside)?;
    let glue = inside.join("glue");
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name("mha_wasm").web(true)?;
    bindgen.typescript(true).omit_default_module_path(true).generate(&glue)?;
    call(Command::new(tools::npm(TYPESCRIPT, "tsc")?).arg("--project").arg(&stage))?;
    copy(&stage.join("out"), to)?;
    for name in INTERNAL {
        fs::remove_file(to.join(name)).with_context(|| format!("no {name} was compiled"))?;
    }
    fs::create_dir_all(to.join("glue"))?;
    fs::copy(glue.join("mha_wasm.js"), to.join("glue/mha_wasm.js"))?;
    let wasm = stage.join("mha.wasm");
    optimise(&VARIANTS[0], &glue.join("mha_wasm_bg.wasm"), &wasm)?;
    let inlined = base64(&gzip(&read(&wasm)?)?);
    let inlined = format!("export const inlined =\n  \"{inlined}\";\n");
    Ok(fs::write(to.join("inlined.js"), inlined)?)
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
    command.args(["-O3", "--strip-debug", "--strip-producers", "--strip-target-features"]);
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
