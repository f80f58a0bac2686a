//! `cargo xtask test anarcii`: a trained encoder-decoder out of a package from PyPI decodes through
//! this library what it decodes through PyTorch.

use std::process::Command;

use mha::Isa;

use crate::python;
use crate::report::{Report, call};

/// Carries the weights; what it needs to run, PyTorch among it, is not wanted.
const PACKAGE: &str = "anarcii==2.0.8";

/// The suite.
pub(crate) fn test(report: &mut Report) {
    let name = "antibodies numbered as the package does";
    let Some(package) = python::packages_for(report, name, "anarcii", &[PACKAGE], &["--no-deps"])
    else {
        return;
    };
    report.step(name, || {
        let weights = crate::target().join("anarcii.safetensors");
        let mut export = Command::new(python::PROGRAM);
        export.current_dir(crate::root().join("tests/anarcii")).args(["-B", "export.py"]);
        call(export.arg(&weights).arg(package))?;
        for isa in Isa::available() {
            for line in mha_anarcii::check(&weights, isa)? {
                eprintln!("   {}: {line}", isa.name());
            }
        }
        Ok(())
    });
}
