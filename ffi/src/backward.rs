//! The way back: gradients. Functions and messages of their own, so that a program that only goes
//! forward contains nothing of them.
//!
//! | module | what is in it |
//! |---|---|
//! | `types` | the structs |
//! | `call` | the layer and attention |
//! | `keeping` | a way forward after which less is computed again |
//! | `written` | the gradients of a call and scratch: pointers first, then slices |
//! | `apart` | gradients out of one array, a call among threads |
//! | `size` | lengths of scratch |
//! | `message` | the texts of what can go wrong on the way back alone |

mod apart;
mod call;
mod keeping;
mod message;
mod size;
mod types;
mod written;

pub use apart::*;
pub use call::*;
pub use keeping::*;
pub(crate) use message::GRADIENT;
pub use message::mha_backward_status_message;
pub use size::*;
pub use types::*;
