//! The cases of this repository through the Rust door, on every kernel that this machine runs.

use std::path::{Path, PathBuf};

use mha::Isa;
use mha_conformance::{Answer, Case, Door, Rust, Scratch, files, wire};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn bits(answer: &Answer) -> Vec<u32> {
    let present = answer.present.iter().flatten().flatten();
    answer.y.iter().chain(&answer.scores).chain(present).map(|x| x.to_bits()).collect()
}

#[test]
fn every_case_passes_on_every_kernel() {
    every_case_passes("cases", 150);
}

#[test]
fn every_case_of_the_family_passes_on_every_kernel() {
    every_case_passes("cases_family", 546);
}

fn every_case_passes(name: &str, least: usize) {
    let files = files(&folder(name)).unwrap();
    assert!(files.len() >= least, "only {} cases found", files.len());
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
    let all = ["cases", "cases_family"].map(|name| files(&folder(name)).unwrap());
    for path in all.concat() {
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

/// What the doors in other processes got before there was the family, they get still: nothing of a
/// plain case stands in the words that came later, and something of every case of the family does.
#[test]
fn plain_cases_need_the_plain_words_alone() {
    let beyond = |path: &Path| {
        let request = wire::request(&Case::read(path).unwrap().call);
        let later = request.as_chunks::<8>().0[2..][..wire::WORDS].iter().skip(wire::PLAIN_WORDS);
        later.into_iter().any(|word| u64::from_le_bytes(*word) != 0)
    };
    for path in files(&folder("cases")).unwrap() {
        assert!(!beyond(&path), "{}", path.display());
    }
    let family = files(&folder("cases_family")).unwrap();
    let many = family.iter().filter(|path| beyond(path)).count();
    assert!(many > family.len() / 2, "only {many} of {} cases", family.len());
}
