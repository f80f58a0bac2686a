//! The README and the guides show programs that other tests build and run; here, that they show them
//! as they are.

use std::fs::read_to_string;
use std::path::Path;

/// A page and the programs on it.
const PAGES: [(&str, &[&str]); 4] = [
    ("README.md", &["tests/c/example.c", "tests/cpp/example.cpp", "tests/wasm/types/example.ts"]),
    ("docs/guide/stream.md", &["tests/c/stream.c"]),
    ("docs/guide/decode.md", &["tests/c/decode.c"]),
    ("docs/guide/batch.md", &["tests/c/batch.c"]),
];

#[test]
fn the_pages_show_the_examples_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (page, examples) in PAGES {
        let text = read_to_string(root.join(page)).unwrap();
        for example in examples {
            let example_text = read_to_string(root.join(example)).unwrap();
            assert!(
                text.contains(example_text.trim_end()),
                "{example} differs from what {page} shows"
            );
        }
    }
}
