//! Case files: a layer, its inputs and the outputs that somebody else's code computed for them,
//! read, run through a door and compared.
//!
//! The way of the data: [`Case::read`] takes a file apart and refuses what it does not understand
//! to the last key; its [`Call`] goes through a [`Door`] (Rust in this process, C and JavaScript by
//! the [`wire`] protocol in another); [`Case::compare`] holds the [`Answer`] against the
//! file's outputs. This crate computes nothing that it compares.

#![forbid(unsafe_code)]

mod cached;
mod call;
mod case;
mod compare;
mod description;
mod door;
mod family;
pub mod gradients;
mod rotation;
mod tensors;
pub mod wire;

pub use call::{Answer, Call, Causality, Drop, Grid, Operation, Parameters};
pub use case::{Case, Tolerance};
pub use compare::{Comparison, Worst};
pub use door::{Door, Process, Rust, Scratch};
pub use family::{Family, Past, Slopes};
pub use gradients::Above;
pub use rotation::Rotation;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The case files of a folder, all levels deep, sorted; a file is itself. Folders called `invalid`
/// hold files that no reader accepts, and count only where they are named.
///
/// # Errors
/// A path that cannot be read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if path.is_dir() {
        collect(path, &mut found)?;
    } else {
        path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        found.push(path.to_path_buf());
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "invalid") {
                collect(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    Ok(())
}
