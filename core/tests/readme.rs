//! The README and the guides show programs that other tests build and run; here, that they show them
//! as they are.

use std::fs::read_to_string;
use std::path::Path;

/// A page and the programs on it.
const PAGES: [(&str, &[&str]); 4] = [
    ("README.md", &["tests/c/example.c", "tests/cpp/example.cpp", "tests/wasm/types/example.ts"]),
    ("docs/guide/stream.md", &["tests/c/stream.c", "tests/wasm/types/stream.ts"]),
    ("docs/guide/decode.md", &["tests/c/decode.c", "tests/wasm/types/decode.ts"]),
    ("docs/guide/batch.md", &["tests/c/batch.c", "tests/wasm/types/batch.ts"]),
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

/// The columns of `docs/coming-from.md` that are about this library name what there is.
#[test]
fn the_names_of_the_tables_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = |folder: &str, extension: &str| -> String {
        let files = std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|it| it == extension));
        files.map(|path| read_to_string(path).unwrap()).collect()
    };
    // Rust, C, JavaScript: the last three columns.
    let package = text("wasm/npm/src", "ts") + &text("wasm/npm/full", "ts");
    let known = [text("core/src", "rs"), text("include", "h"), package];
    let page = read_to_string(root.join("docs/coming-from.md")).unwrap();
    let mut names = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 8, "{line}");
        for (cell, known) in cells[5..].iter().zip(&known) {
            let code = cell.split('`').skip(1).step_by(2);
            let words =
                code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_'));
            for word in words.filter(|word| !word.is_empty()) {
                let mut there = known.split(|c: char| !c.is_alphanumeric() && c != '_');
                assert!(there.any(|there| there == word), "{word}: {line}");
                names += 1;
            }
        }
    }
    assert!(names > 80, "{names}");
}
