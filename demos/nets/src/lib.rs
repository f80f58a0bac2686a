//! The networks around the layer in the demos: embedding, norm, feed-forward, pooling, classifier.
//!
//! One crate for the desk, for firmware and for the browser, so that all three compute the same: no
//! allocator, no unsafe code, no panic, all memory the caller's. Outside the layer there is nothing
//! but `+ - * /`, square root and comparisons, each rounded on its own and in a fixed order, so with
//! [`Isa::PORTABLE`](mha::Isa::PORTABLE) the logits have the same bits on every machine.
//!
//! ```
//! use mha::Isa;
//! use mha_nets::{best, digits::Digits};
//!
//! static DIGITS: Digits<'static> = Digits::committed(Isa::PORTABLE);
//!
//! // A zero, as the data set has it: how many of 16 pixels of each block are ink.
//! let image = [
//!     0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0,
//!     8, 8, 0, 0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6,
//!     13, 10, 0, 0, 0,
//! ];
//! let mut logits = [0.0; 10];
//! let mut scratch = [0.0; Digits::SCRATCH_LEN];
//! DIGITS.classify(&image, &mut logits, None, &mut scratch)?;
//! assert_eq!(best(&logits), 0);
//! # Ok::<(), mha::Error>(())
//! ```
//!
//! | module | |
//! |---|---|
//! | [`network`] | the network, generic over its sizes |
//! | [`learning`] | the way back through it: gradients of its parameters |
//! | [`digits`] | which of ten digits is this 8×8 image |
//! | [`vowels`] | which of nine speakers says this /ae/ |
//! | [`drawing`] | from a drawn bitmap to an 8×8 image |
//!
//! The committed weights lie in this crate as flat little-endian floats; `mha-desk` makes those files
//! from `demos/models` and checks that they agree.
#![no_std]
#![forbid(unsafe_code)]

mod arithmetic;
pub mod digits;
pub mod drawing;
pub mod learning;
pub mod network;
pub mod vowels;
mod weights;

pub use network::{Call, Network};

/// The class with the largest logit; of equals the first, of none 0.
#[must_use]
pub fn best(logits: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (class, logit);
        }
    }
    best.0
}
