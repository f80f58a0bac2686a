//! Files that are broken on purpose: each is refused, and the refusal names what is at fault.

use std::collections::BTreeMap;
use std::path::Path;

use mha::Isa;
use mha_conformance::{Case, Door, Rust, Scratch};

/// Whether the message has the word, not as a part of another.
fn names(message: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    message.split(|c| !part(c)).any(|found| found == word)
}

#[test]
fn every_broken_file_is_refused_by_name() {
    refused("../cases/invalid");
}

#[test]
fn every_broken_file_of_the_family_is_refused_by_name() {
    refused("../cases_family/invalid");
}

fn refused(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let index: BTreeMap<String, String> = serde_json::from_str(&index).unwrap();
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(index.len() + 1, files, "a file that the index does not name");
    let mut failures = Vec::new();
    for (file, word) in index {
        // What the reader leaves to the library, the library finds.
        let result = Case::read(&folder.join(&file))
            .and_then(|case| Rust::new(Isa::PORTABLE, Scratch::Recommended).run(&case.call));
        match result {
            Ok(_) => failures.push(format!("{file}: accepted")),
            Err(error) => {
                let message = format!("{error:#}");
                if !names(&message, &word) {
                    failures.push(format!("{file}: no {word} in: {message}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
