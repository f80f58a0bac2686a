//! What training needs beside gradients: steps of [`Sgd`] and [`Adam`], [`clip_norm`], and the loss of a
//! classifier, [`cross_entropy`].
//!
//! Everything works on flat slices that the caller provides, state included: no allocator, no unsafe
//! code, no panic. Operations are `+ - * /`, a square root, an exponential and a logarithm, each rounded
//! on its own and in a fixed order, so the bits are the same on a desk and on a chip.
//!
//! Parameters that shall learn otherwise than the rest (biases without decay, a layer that stands still)
//! are a slice of their own: call a step for each.
//!
//! ```
//! use mha_train::{Adam, Target, clip_norm, cross_entropy};
//!
//! // A classifier of two classes with nothing but biases, shown class 1 again and again.
//! let adam = Adam::new(0.1);
//! let (mut biases, mut means, mut squares) = ([0.0; 2], [0.0; 2], [0.0; 2]);
//! let mut losses = [0.0; 50];
//! for (i, loss) in losses.iter_mut().enumerate() {
//!     let mut gradient = [0.0; 2];
//!     *loss = cross_entropy(&biases, Target::Class(1), &mut gradient)?;
//!     clip_norm(&mut gradient, 1.0);
//!     adam.step(1 + i as u32, &mut biases, &gradient, &mut means, &mut squares)?;
//! }
//! assert!((losses[0] - 0.693).abs() < 0.001); // ln 2: it knows nothing
//! assert!(losses[49] < 0.01);
//! # Ok::<(), mha_train::Error>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod adam;
mod clip;
mod error;
mod loss;
mod sgd;

pub use adam::Adam;
pub use clip::clip_norm;
pub use error::Error;
pub use loss::{Target, cross_entropy, smooth};
pub use sgd::Sgd;
