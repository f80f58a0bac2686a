//! The JavaScript door: what the TypeScript in `wasm/npm` drives.
//!
//! Three classes. A [`Layer`] owns a copy of its weights, a [`Store`] keys and values that outlive a
//! call; a [`Call`] owns the arrays of a call and the scratch, all in the module's memory. A call goes in three steps, and only the second can take
//! memory:
//!
//! 1. describe: `begin`, `mask`, `bias`, …, numbers only;
//! 2. `reserve`: makes room, then `q()`, `mask_data()`, … say where JavaScript may copy to;
//! 3. `forward`: computes. The same call can be run again and again with what lies there.
//!
//! With the feature `training` a fourth, `Back`, owns what comes from above and the gradients.
//!
//! Nothing here throws or panics. What can fail gives the number of the error, 0 for none, and keeps
//! the error for `argument()` and `message()`. Every length that JavaScript has is handed on to the
//! core as it is, so that it is the core that finds and words every mistake, as in the other
//! languages.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

#[cfg(feature = "training")]
mod backward;
mod cache;
mod call;
mod failure;
mod family;
#[cfg(any(target_arch = "wasm32", test))]
mod heap;
mod layer;
#[cfg(target_arch = "wasm32")]
mod runtime;

use alloc::string::String;

#[cfg(feature = "training")]
pub use backward::Back;
pub use cache::Store;
pub use call::Call;
pub use layer::Layer;
use wasm_bindgen::prelude::wasm_bindgen;

/// The name of the instructions that calls run on.
#[wasm_bindgen]
#[must_use]
pub fn isa() -> String {
    mha::Isa::detect().name().into()
}

/// The version of the library.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}
