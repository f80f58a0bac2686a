//! That the benchmark still runs, and says what it should. Its figures are nobody's business here.

use std::process::Command;

fn bench(arguments: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_mha-bench");
    let output = Command::new(program).args(arguments).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn the_layer_is_timed_on_one_and_two_threads() {
    let said = bench(&["--shape", "S9", "--millis", "1"]);
    let figures = said.lines().filter(|line| line.starts_with("S9") && line.contains("mha"));
    assert_eq!(figures.count(), 4, "{said}");
}

#[test]
fn decoding_is_timed() {
    let said = bench(&["decode", "--millis", "1", "--longest", "512"]);
    // Three lengths with two kinds of heads, six windows, one length of growth, three heads of tables.
    let rows = said.lines().filter(|line| line.starts_with("| ") && line.contains('.'));
    assert!(rows.count() >= 13, "{said}");
}
