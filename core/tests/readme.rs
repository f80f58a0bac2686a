//! The README shows programs that other tests build and run; here, that it shows them as they are.

use std::fs::read_to_string;
use std::path::Path;

#[test]
fn the_readme_shows_the_examples_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = read_to_string(root.join("README.md")).unwrap();
    for example in ["tests/c/example.c", "tests/cpp/example.cpp", "tests/wasm/types/example.ts"] {
        let text = read_to_string(root.join(example)).unwrap();
        assert!(readme.contains(text.trim_end()), "{example} differs from what the README shows");
    }
}
