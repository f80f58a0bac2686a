//! `cargo xtask test onnx`: ONNX's own conformance cases of attention and of rotary embedding through
//! the doors, at ONNX's tolerance; and that the cases in this repository are those that ONNX makes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use mha::Isa;
use mha_conformance::{Case, Comparison, Door, files};

use crate::doors::Name;
use crate::python;
use crate::report::{Report, call};

/// How many cases a release of ONNX has of an operator's version. The wheel of 1.22.0 carries its
/// cases as files, 1.23 makes them in memory.
const CASES: [(&str, &str, usize); 6] = [
    ("1.22.0", "Attention-23", 63),
    ("1.22.0", "Attention-24", 1),
    ("1.23.2", "Attention-23", 69),
    ("1.23.2", "Attention-24", 13),
    ("1.23.2", "Attention-25", 11),
    ("1.23.2", "RotaryEmbedding-23", 8),
];

/// Makes the cases again.
const PACKAGES: [&str; 3] = ["onnx==1.23.2", "numpy", "ml_dtypes"];

/// The suite.
pub(crate) fn test(report: &mut Report) {
    for door in Name::ALL {
        let name = format!("ONNX's cases through the door {}", door.text());
        if report.has(&name, door.tools()) {
            report.step(&name, || every_case(door));
        }
    }
    let name = "the cases are those that ONNX makes";
    if let Some(packages) = python::packages_for(report, name, "onnx", &PACKAGES, &[]) {
        report.step(name, || made_again(&packages));
    }
}

/// What became of the cases of one release and operator.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

fn every_case(name: Name) -> Result<()> {
    let mut door = name.open(Isa::detect())?;
    let mut counts: BTreeMap<(String, String), Count> = BTreeMap::new();
    for folder in ["onnx_1_22", "onnx_1_23"] {
        for path in files(&crate::root().join("tests/cases_family").join(folder))? {
            let case = Case::read(&path).with_context(|| format!("{}", path.display()))?;
            let count = counts.entry(release(&case.source)?).or_default();
            if let Err(error) = one(&case, door.as_mut()) {
                eprintln!("   FAILED {}: {error:#}", path.display());
                count.failed += 1;
            } else {
                count.passed += 1;
            }
        }
    }
    let (mut passed, mut failed) = (0, 0);
    for ((version, operator), count) in &counts {
        let whole = count.passed + count.failed;
        eprintln!("   onnx {version}, {operator}: {} of {whole} passed", count.passed);
        passed += count.passed;
        failed += count.failed;
    }
    eprintln!("   {passed} passed, {failed} failed");
    ensure!(failed == 0, "{failed} cases fail");
    for (version, operator, needed) in CASES {
        let count = counts.remove(&(version.into(), operator.into())).unwrap_or_default();
        let passed = count.passed;
        ensure!(passed == needed, "onnx {version}, {operator}: {passed} cases, not {needed}");
    }
    ensure!(counts.is_empty(), "cases of other releases: {:?}", counts.keys());
    Ok(())
}

/// Release and operator out of `onnx 1.22.0 conformance case NAME, Attention-23`.
fn release(source: &str) -> Result<(String, String)> {
    let mut words = source.split_whitespace();
    match (words.next(), words.next(), words.last()) {
        (Some("onnx"), Some(version), Some(operator)) => Ok((version.into(), operator.into())),
        _ => bail!("{source}: no case of ONNX"),
    }
}

/// One case through a door: every output that it expects must agree.
fn one(case: &Case, door: &mut dyn Door) -> Result<()> {
    let comparisons = case.compare(&door.run(&case.call)?);
    ensure!(!comparisons.is_empty(), "nothing to compare");
    let wrong = comparisons.iter().find(|comparison| !comparison.passed());
    ensure!(wrong.is_none(), "{}", wrong.map(Comparison::to_string).unwrap_or_default());
    Ok(())
}

/// Makes every case again from the packages that ONNX publishes.
fn made_again(packages: &Path) -> Result<()> {
    let mut python = Command::new(python::PROGRAM);
    python.current_dir(crate::root().join("tests/cases_src")).env("PYTHONPATH", packages);
    call(python.args(["-B", "make_family_onnx.py", "--check"]))
}
