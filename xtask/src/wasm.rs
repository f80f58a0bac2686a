//! The JavaScript door: builds the npm package and tests it in Node.

mod bits;
mod package;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::report::{Report, call, output};
use crate::tools;

use package::Package;
pub(crate) use package::{TYPESCRIPT, copy, fresh, gzip};

/// The arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Builds the package and says how large it is.
pub(crate) fn run(Args {}: Args) -> Result<()> {
    let package = package::build()?;
    println!("{}", package.folder.display());
    call(node(&package).arg(script("support/sizes.mjs")))
}

/// Builds the package and gives its folder.
pub(crate) fn package() -> Result<PathBuf> {
    Ok(package::built()?.folder)
}

/// Builds the package and gives the command that runs tests/wasm/run_cases.mjs over it. It reads
/// requests on its standard input and answers on its standard output.
pub(crate) fn runner() -> Result<Command> {
    let package = package::built()?;
    let mut command = node(&package);
    command.arg(script("run_cases.mjs"));
    Ok(command)
}

/// The suite `wasm`: every check of the package, a step each.
pub(crate) fn test(report: &mut Report) {
    let mut package = None;
    report.step("the npm package", || {
        package = Some(package::build()?);
        Ok(())
    });
    let Some(package) = package else { return };
    report.step("TypeScript: the types and the examples", || types(&package));
    report.step("the package in Node", || {
        let tests = tests()?;
        call(node(&package).args(["--expose-gc", "--test", "--test-reporter=spec"]).args(tests))
    });
    report.step("the bits of the portable kernel", || bits::compare(runner()?));
    report.command("sizes of the package", node(&package).arg(script("support/sizes.mjs")));
}

/// Node, told where the package is.
fn node(package: &Package) -> Command {
    let mut node = Command::new("node");
    node.env("MHA_PACKAGE", &package.folder).current_dir(crate::root());
    node
}

/// A script of the tests.
fn script(name: &str) -> PathBuf {
    crate::root().join("tests/wasm").join(name)
}

/// The test files of Node's own runner.
fn tests() -> Result<Vec<PathBuf>> {
    let folder = crate::root().join("tests/wasm");
    let mut files = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Compiles tests/wasm/types as a user's own files, strictly, with the package installed beside
/// them, and runs the examples among them: those of README.md and of the guides.
fn types(package: &Package) -> Result<()> {
    let sources = crate::root().join("tests/wasm/types");
    let folder = crate::target().join("npm/types");
    package::fresh(&folder)?;
    package::copy(&sources, &folder)?;
    package::copy(&package.folder, &folder.join("node_modules/mha"))?;
    call(Command::new(tools::npm(package::TYPESCRIPT, "tsc")?).arg("--project").arg(&folder))?;

    for example in ["example", "stream", "decode", "batch"] {
        let program = folder.join("out").join(example).with_extension("js");
        let printed = output(Command::new("node").arg(program))?;
        let expected = read_to_string(&sources.join(example).with_extension("out"))?;
        ensure!(printed == expected, "{example}.ts prints\n{printed}and not\n{expected}");
    }
    let readme = crate::root().join("README.md");
    if readme.exists() {
        let block = format!("```ts\n{}```", read_to_string(&sources.join("example.ts"))?);
        ensure!(read_to_string(&readme)?.contains(&block), "README.md does not show example.ts");
    }
    Ok(())
}

fn read_to_string(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
