//! The JavaScript door: what the TypeScript in `wasm/npm` drives.
//!
//! A `Layer` owns a copy of its weights; a `Call` owns the arrays of a call and the scratch, all in the
//! module's memory. A call goes in three steps, and only the second can take memory:
//!
//! 1. describe: JavaScript writes a row of words, one meaning each, where the call says;
//! 2. `reserve`: makes room, and writes down where JavaScript may copy to;
//! 3. `forward`: computes. The same call can be run again and again with what lies there.
//!
//! There are three modules of it. Without features it computes the plain layer, and nothing of the rest is in
//! it. With `family` come the options of the attention family, attention without projections and a `Store`
//! of keys and values that outlive a call; with `training` `Back`, which owns what comes from above and the
//! gradients.
//!
//! Nothing here throws or panics. What can fail gives the number of the error, 0 for none, and `problem()` is
//! where the argument's name and the numbers of the error lie, which JavaScript puts into words. Every length
//! that JavaScript has is handed on to the core as it is, so that it is the core that finds every mistake, as in
//! the other languages.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

#[cfg(feature = "training")]
mod backward;
#[cfg(feature = "family")]
mod bare;
#[cfg(feature = "family")]
mod cache;
mod call;
mod door;
mod failure;
#[cfg(feature = "family")]
mod family;
#[cfg(any(target_arch = "wasm32", test))]
mod heap;
mod layer;
#[cfg(target_arch = "wasm32")]
mod runtime;

#[cfg(feature = "training")]
pub use backward::*;
pub use door::*;
#[cfg(feature = "family")]
pub use {bare::*, cache::*, family::*};
