//! Multi-head attention for places without an allocator.
//!
//! This crate computes Flux's [`MultiHeadAttention`] layer, projections and all, in buffers that the
//! caller provides. It needs no operating system, no heap and no standard library, holds no global
//! state, and no call of it can panic: whatever is wrong with a call is an [`Error`] that names the
//! argument, and then nothing has been written.
//!
//! ```
//! use mha::{Config, Dims, Inputs, MultiHeadAttention, Outputs, Shape, Weights, init};
//! use rand_core::SeedableRng;
//!
//! // Sizes are constants, so buffers can be arrays.
//! const CONFIG: Config = Config::new(Dims::square(64)).heads(8);
//! const SHAPE: Shape = Shape::new(1, 10, 20);
//!
//! // The weights of a trained layer would lie in flash; these are fresh.
//! let mut weights = [0.0; CONFIG.weights_len()];
//! init::glorot_uniform(&mut weights, 64, 64, &mut init::SplitMix::seed_from_u64(1));
//! let layer = MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &weights)?)?;
//!
//! let (q, kv) = ([0.1; 10 * 64], [0.2; 20 * 64]);
//! let mut y = [0.0; CONFIG.y_len(SHAPE)];
//! let mut scores = [0.0; CONFIG.scores_len(SHAPE)];
//! let mut scratch = [0.0; CONFIG.scratch_len(SHAPE)];
//!
//! let inputs = Inputs::cross(&q, &kv).causal();
//! let outputs = Outputs::new(&mut y).scores(&mut scores);
//! layer.forward(SHAPE, inputs, outputs, &mut scratch)?;
//!
//! // The first query sees the first key alone.
//! assert_eq!(scores[..3], [1.0, 0.0, 0.0]);
//! # Ok::<(), mha::Error>(())
//! ```
//!
//! # Memory order
//! Everything is row-major: inputs `[batch, len, features]`, scores `[batch, heads, q_len, kv_len]`.
//! Flux writes the same arrays column-major as `(features, len, batch)` and
//! `(kv_len, q_len, heads, batch)`, which is the same memory byte for byte. Head `h` owns the
//! features `h·d .. (h+1)·d`, as Flux's `split_heads` cuts them.
//!
//! # What it promises
//! - **Bits.** A result depends on the numbers alone, not on tiles, ranges, threads, the size of the
//!   scratch or the machine. Kernels are of two families, fused and unfused
//!   ([`Isa::is_fused`]); within a family every one gives the same bits.
//! - **Memory.** Nothing grows with `q_len · kv_len` unless scores are asked for. Every size is a
//!   `const fn`.
//! - **Edges.** A query that may not see any key gives the output bias (Flux: NaN). Keys at a logit
//!   of +∞ share the row. A key that nobody may see influences nothing, even if it is NaN. No finite
//!   logit overflows.
//!
//! # Beyond the plain layer
//! [`Options`] has what attention has learned since: windows, softcap, ALiBi, rotary positions, sinks
//! and more; [`Cache`] holds keys and values between calls, linear or as a ring. `inputs.options(…)`
//! changes the type of the inputs, so a program that never calls it does not contain their code.
//!
//! # Features
//! None is needed. `size` is the least code and working memory, with the same bits: two thirds of the flash,
//! at some per cent of speed where floats are function calls, a fifth to two fifths with an FPU. Build it
//! with `opt-level = "z"`. `cortex-m7` and `helium` name a processor of which more can be made.
//!
//! # Where to read
//! [`mod@reference`] is the layer as a textbook would write it, and decides its bits. The way of the data
//! is `work` (project, attend, project), `attention` (the online softmax over tiles), `softmax` (its
//! numbers), `kernel` (one product, written once over a small vector trait).
//!
//! # What it is not
//! It has **no** integer path, **no** other layers, and does **not** start threads: it offers ranges
//! of rows ([`MultiHeadAttention::forward_rows`]), the caller brings the threads.

#![no_std]
#![deny(missing_docs, unsafe_code)]

// The tests share what makes up calls, which knows the crate by its name.
#[cfg(test)]
extern crate self as mha;
#[cfg(test)]
extern crate std;

mod attention;
mod backward;
mod cache;
mod call;
mod compact;
mod dims;
mod dot_product;
mod dropout;
mod error;
pub mod init;
mod kernel;
mod layer;
mod mask;
mod merge;
mod options;
mod packed;
mod plan;
pub mod reference;
mod scores;
mod select;
mod softmax;
mod split;
mod store;
mod transform;
mod view;
mod visible;
mod work;

pub use backward::{BackwardError, Gradients, Part, Upstream, dot_product_attention_backward};
pub use cache::{Cache, CacheConfig, CacheState};
pub use call::{Inputs, Outputs, ScoresAt, Weights};
pub use dims::{Attention, Config, Dims, Shape, WeightOrder};
pub use dot_product::{
    dot_product_attention, dot_product_attention_cached, dot_product_attention_scores,
};
pub use dropout::Dropout;
pub use error::{Argument, Error};
pub use kernel::Isa;
pub use layer::MultiHeadAttention;
pub use mask::{Broadcast, Causal, Mask};
pub use merge::merge;
pub use options::{
    Alibi, Angles, Extra, Norm, NormKind, Options, Plain, Rope, Rules, Segments, Window,
};
pub use select::Select;
pub use view::{CacheView, ReadCache};

/// The examples of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The examples of the guides.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/guide/stream.md")]
    struct Stream;

    #[doc = include_str!("../../docs/guide/decode.md")]
    struct Decode;

    #[doc = include_str!("../../docs/guide/batch.md")]
    struct Batch;
}
