//! Python, and packages for it that are put under the target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::report::{Report, call, output};
use crate::tools;

/// The interpreter.
pub(crate) const PROGRAM: &str = "python3";

/// Whether it is there, with its installer.
pub(crate) fn found() -> bool {
    output(Command::new(PROGRAM).args(["-m", "pip", "--version"])).is_ok()
}

/// As [`packages`]; where they cannot be had, `step` counts as skipped.
pub(crate) fn packages_for(
    report: &mut Report,
    step: &str,
    name: &str,
    wanted: &[&str],
    options: &[&str],
) -> Option<PathBuf> {
    if !report.has(step, &[&tools::PYTHON]) {
        return None;
    }
    match packages(name, wanted, options) {
        Ok(folder) => Some(folder),
        Err(error) => {
            report.skip(step, format!("{} cannot be had from PyPI: {error:#}", wanted.join(", ")));
            None
        }
    }
}

/// A folder with some packages, and with what they need unless `options` are `--no-deps`, got from
/// PyPI where it is not there yet; for `PYTHONPATH`.
pub(crate) fn packages(name: &str, packages: &[&str], options: &[&str]) -> Result<PathBuf> {
    let folder = crate::target().join("python").join(name);
    // Written last: what was broken off is got again. It says what is there, so that another
    // version is got too.
    let (mark, wanted) = (folder.join("packages.txt"), packages.join(" "));
    if std::fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
        return Ok(folder);
    }
    eprintln!("   missing: {wanted}: getting it from PyPI into {}", folder.display());
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).context("cannot make a folder for Python's packages")?;
    let mut pip = Command::new(PROGRAM);
    let quiet = ["--quiet", "--disable-pip-version-check", "--root-user-action=ignore"];
    pip.args(["-m", "pip", "install"]).args(quiet).args(options);
    call(pip.arg("--target").arg(&folder).args(packages))?;
    std::fs::write(&mark, wanted).context("cannot note what was got")?;
    Ok(folder)
}
