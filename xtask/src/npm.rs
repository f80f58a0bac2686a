//! The npm package as it is published: packed, and tested as its users install it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::report::{Report, call, output};
use crate::{page, tools, wasm};

/// What judges packages: whether bundlers and runtimes find their way, and TypeScript in every way of
/// resolving.
const JUDGES: [&str; 2] = ["publint@0.3.25", "@arethetypeswrong/cli@0.18.5"];

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure what loading and calling cost, in Chromium and in Node
    #[arg(long)]
    times: bool,
    /// Load onnxruntime-web in the same run, which gets it from npm
    #[arg(long, requires = "times")]
    ort: bool,
}

/// Builds and packs the package, and says what it weighs, or how long it takes.
pub(crate) fn run(Args { times, ort }: Args) -> Result<()> {
    let tarball = pack()?;
    println!("{}", tarball.display());
    if times {
        let mut node = node(&tarball)?;
        node.arg(crate::root().join("tests/npm/times.mjs"));
        return call(node.args(ort.then_some("--ort")));
    }
    call(weigh()?.arg(wasm::package()?))
}

/// Builds the package and packs it.
fn pack() -> Result<PathBuf> {
    let package = wasm::package()?;
    let folder = crate::target().join("npm/pack");
    wasm::fresh(&folder)?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--loglevel=error", "--pack-destination"]).arg(&folder);
    let name = output(npm.current_dir(&package))?;
    let tarball = folder.join(name.trim());
    ensure!(tarball.is_file(), "npm pack made no {}", tarball.display());
    Ok(tarball)
}

/// The script that bundles what entries load, and weighs it.
fn weigh() -> Result<Command> {
    let mut node = page::bundler()?;
    node.arg(crate::root().join("tests/npm/weigh.mjs"));
    Ok(node)
}

/// The suite `npm`.
pub(crate) fn test(report: &mut Report) {
    let mut packed = None;
    report.step("the package, packed", || {
        packed = Some(pack()?);
        Ok(())
    });
    let Some(tarball) = packed else { return };
    report.step("what each entry loads", || call(weigh()?.arg(wasm::package()?)));
    report.step("the same bytes from a second build", || again(&tarball));
    report.step("publint and attw", || judge(&tarball));
    report.step("in every runtime", || {
        call(tests(&tarball)?.arg(crate::root().join("tests/npm/runtimes.test.mjs")))
    });
    if report.has("in a browser", &[&tools::CHROMIUM]) {
        report.step("in every bundler, and in a browser", || {
            let folder = crate::root().join("tests/npm");
            let mut node = tests(&tarball)?;
            node.args(["bundlers.browser.mjs", "pages.browser.mjs"].map(|name| folder.join(name)));
            call(&mut node)
        });
    }
}

/// Node, told what the tests need.
fn node(tarball: &Path) -> Result<Command> {
    let mut node = page::browser()?;
    node.env("TARBALL", tarball).env("WORK", crate::target().join("npm/projects"));
    node.env("PAGE_STAGE", page::stage()?);
    Ok(node)
}

/// Node's own runner of tests.
fn tests(tarball: &Path) -> Result<Command> {
    let mut node = node(tarball)?;
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]);
    Ok(node)
}

/// Builds everything a second time in another folder, and compares.
fn again(tarball: &Path) -> Result<()> {
    let folder = crate::target().join("npm/again");
    wasm::fresh(&folder)?;
    let mut command = Command::new(std::env::current_exe()?);
    call(command.arg("npm").env("CARGO_TARGET_DIR", &folder))?;
    let name = tarball.file_name().context("no name")?;
    let second = folder.join("npm/pack").join(name);
    let (one, two) = (fs::read(tarball)?, fs::read(&second)?);
    ensure!(one == two, "{} and {} differ", tarball.display(), second.display());
    fs::remove_dir_all(&folder)?;
    eprintln!("   {} bytes, the same", one.len());
    Ok(())
}

/// Lets publint and attw judge the tarball.
fn judge(tarball: &Path) -> Result<()> {
    let modules = tools::npm_modules("judges", &JUDGES)?;
    call(Command::new(modules.join(".bin/publint")).arg(tarball).arg("--strict"))?;
    // Modules alone: `require` takes them from Node 20.19 on, which the runtimes' tests try.
    let mut attw = Command::new(modules.join(".bin/attw"));
    call(attw.arg(tarball).args([
        "--profile",
        "esm-only",
        "--exclude-entrypoints",
        "mha.wasm",
        "mha.relaxed.wasm",
        "mha.scalar.wasm",
        "full/mha.wasm",
        "full/mha.relaxed.wasm",
        "full/mha.scalar.wasm",
    ]))
}
