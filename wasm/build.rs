//! Link options of the WebAssembly module.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        // The linker's default stack is a megabyte, eight times all the memory that a small layer
        // needs. The stack lies first in memory, so running over its end traps.
        println!("cargo:rustc-link-arg-cdylib=-zstack-size=65536");
    }
}
