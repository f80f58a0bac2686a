//! The plain calls in little code and memory, one head and a few queries at a time: for microcontrollers. With
//! the feature `size` it is one query at a time.
//!
//! ```text
//!   for each sequence, for each key/value head
//!       project its keys and values            [kv_len, d], [kv_len, d_v]      layer
//!       for each query head that shares them, for each tile of queries
//!           project the queries                [rows, d]                       layer
//!           for each block of sixteen keys     logits, what may be seen,       tile
//!                                              weights, mixed values
//!           add the head's part to y           [rows, out]                     layer
//! ```
//!
//! This is the order in which [`reference`](crate::reference) sums, so the bits are the same. Attention
//! without projections goes the same way, with keys and values where the caller has them.
//!
//! Each step is a function that is not inlined and loads what it needs: inlined, the steps would keep it all
//! on the stack.

mod dot_product;
mod layer;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use dot_product::dot_product;
pub(crate) use layer::{Call, forward};

use crate::dims::{MAX_ELEMENTS, Shape};
use crate::error::{Argument, Error};
use crate::plan::{COMPACT_KEYS, COMPACT_ROWS, take};
use crate::softmax::BLOCK;

/// Whether a tile may be more than a block of keys wide.
pub(crate) const LOOKS_FAR: bool = COMPACT_KEYS > BLOCK;

/// Floats of scratch that a query takes at least beside its features and what it mixes: sixteen sums, a block
/// of logits, its maximum and the next one.
const ROW: usize = 2 * BLOCK + 2;

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

/// Queries of a tile, where each takes so many floats of scratch at least.
fn rows(q_len: usize, floats: usize, each: usize) -> usize {
    floats.checked_div(each).unwrap_or(0).min(COMPACT_ROWS).min(q_len)
}

/// What the rows of a tile work with.
struct Scratch<'a> {
    /// The queries, projected and scaled, `[rows, d]`.
    queries: &'a mut [f32],
    sums: &'a mut [[f32; BLOCK]],
    /// Running maxima.
    maxima: &'a mut [f32],
    /// What they become.
    tops: &'a mut [f32],
    /// A tile, `[rows, keys]`.
    logits: &'a mut [f32],
    keys: usize,
}

impl<'a> Scratch<'a> {
    fn carve(mut scratch: &'a mut [f32], rows: usize, d: usize) -> Self {
        let rest = &mut scratch;
        let queries = take(rest, rows * d);
        let sums = take(rest, rows * BLOCK).as_chunks_mut().0;
        let (maxima, tops) = (take(rest, rows), take(rest, rows));
        let blocks = rest.len().checked_div(rows * BLOCK).unwrap_or(0);
        let keys = (blocks * BLOCK).min(COMPACT_KEYS);
        Self { queries, sums, maxima, tops, logits: take(rest, rows * keys), keys }
    }
}

/// The sequence of a row, and the rows of a range that belong to it from this one on.
fn sequence(shape: Shape, next: usize, end: usize) -> (usize, usize) {
    let batch = next / shape.q_len.max(1);
    (batch, end.min((batch + 1) * shape.q_len))
}

/// So many elements from a place on; none where there are not as many.
#[cfg_attr(feature = "size", inline(never))]
fn part(data: &mut [f32], at: usize, len: usize) -> &mut [f32] {
    data.get_mut(at..).and_then(|data| data.get_mut(..len)).unwrap_or_default()
}
