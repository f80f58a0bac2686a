//! The doors by name, opened: what is not built yet is built.

use std::process::Command;

use anyhow::{Context, Result};
use mha::Isa;
use mha_conformance::{Door, Process, Rust, Scratch};

use crate::tools::{self, Tool};

/// A way into the library.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Rust, in this process
    Rust,
    /// C, by the static library
    C,
    /// JavaScript, by the package in Node
    Wasm,
}

impl Name {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Rust, Self::C, Self::Wasm];

    /// The name.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Wasm => "wasm",
        }
    }

    /// What building the door takes.
    pub(crate) fn tools(self) -> &'static [&'static Tool] {
        match self {
            Self::Rust => &[],
            Self::C => &[&tools::GCC],
            Self::Wasm => &[&tools::RUST_WASM, &tools::NODE],
        }
    }

    /// Opens the door; Rust on the given instructions. An error says what is missing and the line
    /// that gets it.
    pub(crate) fn open(self, isa: Isa) -> Result<Box<dyn Door>> {
        match self {
            Self::Rust => Ok(Box::new(Rust::new(isa, Scratch::Recommended))),
            Self::C => {
                let runner = crate::c::runner().context("the C door cannot be opened")?;
                Ok(Box::new(Process::start(self.text(), Command::new(runner))?))
            }
            Self::Wasm => {
                let runner =
                    crate::wasm::runner().context("the JavaScript door cannot be opened")?;
                Ok(Box::new(Process::start(self.text(), runner)?))
            }
        }
    }
}

/// The instructions of this name; the fastest where there is none.
pub(crate) fn isa(name: Option<&str>) -> Result<Isa> {
    let Some(name) = name else { return Ok(Isa::detect()) };
    Isa::available().find(|isa| isa.name() == name).with_context(|| {
        let names: Vec<_> = Isa::available().map(Isa::name).collect();
        format!("this machine does not run {name}, but {}", names.join(", "))
    })
}
