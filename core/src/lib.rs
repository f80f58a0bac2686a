//! Multi-head attention for places without an allocator.
#![no_std]
#![deny(missing_docs, unsafe_code)]

mod attention;
mod call;
mod dims;
mod dot_product;
mod dropout;
mod error;
pub mod init;
mod kernel;
mod layer;
mod mask;
mod plan;
pub mod reference;
mod softmax;

pub use call::{Inputs, Outputs, ScoresAt, Weights};
pub use dims::{Attention, Config, Dims, Shape, WeightOrder};
pub use dot_product::{dot_product_attention, dot_product_attention_scores};
pub use dropout::Dropout;
pub use error::{Argument, Error};
pub use kernel::Isa;
pub use layer::MultiHeadAttention;
pub use mask::{Broadcast, Causal, Mask};
