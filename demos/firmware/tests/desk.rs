//! The firmware's programs, run on the desk, print what lies beside their source: the digests there
//! pin the bits of the portable kernels for every machine. `cargo xtask firmware` compares the
//! boards; with `--bless` it rewrites the files.

use std::path::Path;
use std::process::Command;

/// Runs a program in a folder of its own, because it leaves a file there.
fn compare(name: &str, program: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let output = Command::new(program).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{name} ended with {}", output.status);
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<_> = printed.lines().filter(|line| !line.starts_with("cost ")).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin").join(name);
    let expected = std::fs::read_to_string(source.with_extension("out")).unwrap();
    for (printed, expected) in printed.iter().zip(expected.lines()) {
        assert_eq!(*printed, expected, "{name}");
    }
    assert_eq!(printed.len(), expected.lines().count(), "{name}: lines");
}

#[test]
fn layer() {
    compare("layer", env!("CARGO_BIN_EXE_layer"));
}

#[test]
fn attention() {
    compare("attention", env!("CARGO_BIN_EXE_attention"));
}

#[test]
fn rest() {
    compare("rest", env!("CARGO_BIN_EXE_rest"));
}

#[test]
fn adapt() {
    compare("adapt", env!("CARGO_BIN_EXE_adapt"));
}

#[test]
fn vowels() {
    compare("vowels", env!("CARGO_BIN_EXE_vowels"));
}

#[test]
fn digits() {
    compare("digits", env!("CARGO_BIN_EXE_digits"));
}

#[test]
fn stream() {
    compare("stream", env!("CARGO_BIN_EXE_stream"));
}

#[test]
fn utterances() {
    let demos = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = mha_desk::vowels(&demos).unwrap();
    let mut of_speaker = [0; 9];
    let mut first_two = file.iter().filter(|vowel| {
        let count = &mut of_speaker[usize::from(vowel.label)];
        *count += usize::from(vowel.held_out);
        vowel.held_out && *count <= 2
    });
    for spoken in mha_firmware::utterances::in_flash() {
        let vowel = first_two.next().unwrap();
        assert_eq!(spoken.speaker, usize::from(vowel.label));
        assert_eq!(spoken.frames, &vowel.frames[..vowel.len]);
    }
    assert!(first_two.next().is_none());
}
