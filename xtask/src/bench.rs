//! `cargo xtask bench`: the benchmark, built as it must be to be worth reading; and `bench cores`, which
//! counts on microcontrollers.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cores, python, report, root, tools, wasm};

/// The arguments.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    word: Option<Word>,
    /// Also time ONNX Runtime, OpenVINO, JAX and numpy, got from PyPI, and burn and candle, from crates.io,
    /// in turn with ours; their results are compared first
    #[arg(long)]
    peers: bool,
    /// Also time the npm package in Node and in Chromium, beside onnxruntime-web and TensorFlow.js
    #[arg(long)]
    wasm: bool,
    /// What the benchmark understands: a word (forward, decode, train, table), and then --shape S4,
    /// --isa avx2, --threads 1, --scores without, --millis 1000, --json FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// What else can be measured.
#[derive(clap::Subcommand)]
enum Word {
    /// Count instructions and bytes on every microcontroller, and estimate cycles
    Cores(cores::Args),
}

/// The libraries to compare with.
const PEERS: [&str; 5] = ["numpy", "onnx", "onnxruntime", "openvino", "jax"];

/// The libraries to compare with in JavaScript engines, and what drives Chromium.
const WEB: [&str; 4] = [
    "onnxruntime-web@1.30.0",
    "@tensorflow/tfjs@4.22.0",
    "@tensorflow/tfjs-backend-wasm@4.22.0",
    "playwright-core@1.65.1",
];

/// Builds the benchmark in release mode and runs it.
pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(Word::Cores(args)) = args.word {
        return cores::run(args);
    }
    // They may also stand behind the word.
    let mut rest = args.rest;
    let mut asked = |flag: bool, name: &str| {
        let before = rest.len();
        rest.retain(|word| word != name);
        flag || rest.len() < before
    };
    let (peers, with_wasm) = (asked(args.peers, "--peers"), asked(args.wasm, "--wasm"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--release", "--quiet", "--package", "mha-bench", "--"]).args(rest);
    if peers {
        cargo.env("PYTHONPATH", python::packages("peers", &PEERS, &[])?);
        let program = root().join("bench/peers/host.py");
        let command = format!("{} -B {}", python::PROGRAM, program.display());
        cargo.args(["--worker", &command]);
        cargo.args(["--worker", &rust_peers()?.display().to_string()]);
    }
    if with_wasm {
        cargo.env("MHA_PACKAGE", wasm::package()?);
        cargo.env("MHA_PEERS", tools::npm_modules("bench", &WEB)?);
        let program = |name| root().join("bench/peers/web").join(name);
        cargo.args(["--worker", &format!("node {}", program("node.mjs").display())]);
        let chromium = ["chromium", "chromium-browser", "google-chrome"];
        let chromium = chromium.into_iter().find_map(tools::on_path);
        cargo.env("MHA_CHROMIUM", chromium.context("no Chromium: apt-get install chromium")?);
        cargo.args(["--worker", &format!("node {}", program("chromium.mjs").display())]);
    }
    let status = cargo.current_dir(root()).status()?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}

/// Builds the worker of Rust's libraries, for the processor that it will run on: they choose their
/// instructions when they are compiled.
fn rust_peers() -> Result<PathBuf> {
    let target = root().join("target/peers");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--manifest-path"]);
    cargo.arg(root().join("bench/peers/rust/Cargo.toml")).arg("--target-dir").arg(&target);
    report::call(cargo.env("RUSTFLAGS", "-C target-cpu=native"))?;
    Ok(target.join("release/mha-bench-peers"))
}
