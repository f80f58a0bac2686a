//! `cargo xtask WORD`: every step of this repository that is more than `cargo test`.
//!
//! Each word is a module with its arguments (`Args`) and a function that carries it out (`run`).
//! A person and the continuous integration enter by the same words.

mod abi;
mod anarcii;
mod archive;
mod bench;
mod boards;
mod builds;
mod c;
mod check;
mod cmsis;
mod cores;
mod coverage;
mod cross;
mod demo;
mod disassembly;
mod dist;
mod doors;
mod draw;
mod firmware;
mod fuzz;
mod header;
mod kernels;
mod lanes;
mod layouts;
mod links;
mod npm;
mod onnx;
mod packages;
mod page;
mod python;
mod report;
mod size;
mod stack;
mod test;
mod tools;
mod train;
mod wasm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// Every step of this repository that is more than `cargo test`.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
enum Word {
    /// Run the models of the demos on their test data and draw what the heads look at
    Demo(demo::Args),
    /// Train a model of the demos from scratch with this repository's code
    Train(train::Args),
    /// Run every test, or those of some suites
    Test(test::Args),
    /// Compare case files (a layer, its inputs, somebody else's outputs) through every door
    Check(check::Args),
    /// Write include/mha.h from the C interface's source
    Header(header::Args),
    /// Build the JavaScript package
    Wasm(wasm::Args),
    /// Build the JavaScript package and pack it as it is published
    Npm(npm::Args),
    /// Build the attention page and serve it
    Page(page::Args),
    /// Build and run the firmware demo in QEMU
    Firmware(firmware::Args),
    /// Make what is shipped: headers, archives and packages for C and C++
    Dist(dist::Args),
    /// Compare the C interface's functions, numbers and layouts with the committed list
    Abi(abi::Args),
    /// Make up calls of the C interface and see that none goes wrong
    Fuzz(fuzz::Args),
    /// Say which lines of core and ffi the tests run
    Coverage(coverage::Args),
    /// Bound the stack of every function of the C interface
    Stack(stack::Args),
    /// Measure flash, RAM, scratch and stack
    Size(size::Args),
    /// Time the layer beside this machine's peak
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Word::parse() {
        Word::Demo(args) => demo::run(args),
        Word::Train(args) => train::run(args),
        Word::Test(args) => test::run(args),
        Word::Check(args) => check::run(args),
        Word::Header(args) => header::run(args),
        Word::Wasm(args) => wasm::run(args),
        Word::Npm(args) => npm::run(args),
        Word::Page(args) => page::run(args),
        Word::Firmware(args) => firmware::run(args),
        Word::Dist(args) => dist::run(args),
        Word::Abi(args) => abi::run(args),
        Word::Fuzz(args) => fuzz::run(args),
        Word::Coverage(args) => coverage::run(args),
        Word::Stack(args) => stack::run(args),
        Word::Size(args) => size::run(args),
        Word::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // For a person who typed something: where in this program it came up is of no use.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder that cargo builds into, `target` unless the environment says otherwise.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None => root().join("target"),
    }
}
