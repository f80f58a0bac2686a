//! The cases of this repository through the Rust door, on every kernel that this machine runs.

use std::path::{Path, PathBuf};

use mha::Isa;
use mha_conformance::{Answer, Case, Door, Rust, Scratch, files};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases")
}

fn bits(answer: &Answer) -> Vec<u32> {
    answer.y.iter().chain(&answer.scores).map(|x| x.to_bits()).collect()
}

#[test]
fn every_case_passes_on_every_kernel() {
    let files = files(&folder()).unwrap();
    assert!(files.len() >= 150, "only {} cases found", files.len());
    let mut failures = Vec::new();
    for path in &files {
        let name = path.display();
        let case = match Case::read(path) {
            Ok(case) => case,
            Err(error) => {
                failures.push(format!("{name}: {error:#}"));
                continue;
            }
        };
        for isa in Isa::available() {
            let run = |scratch| Rust::new(isa, scratch).run(&case.call);
            match (run(Scratch::Recommended), run(Scratch::Minimum)) {
                (Ok(full), Ok(least)) => {
                    for comparison in case.compare(&full) {
                        if !comparison.passed() {
                            failures.push(format!("{name} on {}: {comparison}", isa.name()));
                        }
                    }
                    if bits(&full) != bits(&least) {
                        failures
                            .push(format!("{name} on {}: least scratch, other bits", isa.name()));
                    }
                }
                (Err(error), _) | (_, Err(error)) => {
                    failures.push(format!("{name} on {}: {error:#}", isa.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Kernels of one family give the same bits.
#[test]
fn kernels_of_one_family_agree_bit_for_bit() {
    for path in files(&folder()).unwrap() {
        let Ok(case) = Case::read(&path) else { continue };
        let mut seen: [Option<Vec<u32>>; 2] = [None, None];
        for isa in Isa::available() {
            let answer = Rust::new(isa, Scratch::Recommended).run(&case.call).unwrap();
            let family = &mut seen[usize::from(isa.is_fused())];
            let first = family.get_or_insert_with(|| bits(&answer));
            assert!(*first == bits(&answer), "{} on {}", path.display(), isa.name());
        }
    }
}
