//! The plain calls in the least code and memory, one query and one head at a time: for builds with the
//! feature `size`.
//!
//! ```text
//!   for each sequence, for each key/value head
//!       project its keys and values            [kv_len, d], [kv_len, d_v]      layer
//!       for each query head that shares them, for each query
//!           project the query                  [d]                             layer
//!           for each block of sixteen keys     logits, what may be seen,       row
//!                                              weights, mixed values
//!           add the head's part to y           [out]                           layer
//! ```
//!
//! This is the order in which [`reference`](crate::reference) sums, so the bits are the same. Attention
//! without projections goes the same way, with keys and values where the caller has them.
//!
//! Each step is a function that is not inlined and loads what it needs: inlined, the steps would keep it all
//! on the stack.

mod dot_product;
mod layer;
mod row;

pub(crate) use dot_product::dot_product;
pub(crate) use layer::{Call, forward};

use crate::dims::{MAX_ELEMENTS, Shape};
use crate::error::{Argument, Error};
use crate::softmax::BLOCK;

/// Checks the scratch of a call.
fn check_scratch(needed: usize, got: usize) -> Result<(), Error> {
    if needed > MAX_ELEMENTS {
        return Err(Error::TooLarge { argument: Argument::Shape });
    }
    if needed > got {
        return Err(Error::Length { argument: Argument::Scratch, needed, got });
    }
    Ok(())
}

/// Floats that a row of logits takes in scratch beside its query and what it mixes: sixteen sums, a block of
/// logits, and two that only the other driver needs.
const ROW: usize = 2 * BLOCK + 2;

/// The sequence of a row, and the rows of a range that belong to it from this one on.
fn sequence(shape: Shape, next: usize, end: usize) -> (usize, usize) {
    let batch = next / shape.q_len.max(1);
    (batch, end.min((batch + 1) * shape.q_len))
}

/// So many elements from a place on; none where there are not as many.
#[inline(never)]
fn part(data: &mut [f32], at: usize, len: usize) -> &mut [f32] {
    data.get_mut(at..).and_then(|data| data.get_mut(..len)).unwrap_or_default()
}
