//! Chooses the board: its memory map is `boards/$MHA_BOARD/memory.x`. On the desk there is none.

use std::env;

fn main() {
    println!("cargo:rerun-if-env-changed=MHA_BOARD");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let board = env::var("MHA_BOARD").expect("MHA_BOARD names a folder of boards/");
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=boards/{board}/memory.x");
    println!("cargo:rustc-link-search={here}/boards/{board}");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("riscv32") {
        // Its start-up code does not ask for the memory map by itself.
        println!("cargo:rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
}
