//! Merging of results over different keys: two memories, two cores, a prefix that many share.

use crate::dims::Attention;
use crate::error::{Argument, Error};
use crate::plan::exact;

/// Merges the attention over some keys with that over others into the attention over all of them.
///
/// `y` and `other_y` are `[rows, heads · d_v]` without projections, `lse` and `other_lse` the
/// log-sum-exps `[heads, rows]` that belong to them, of one sequence
/// ([`Options::lse`](crate::Options::lse)). `y` and `lse` receive the result. Exact but for the
/// rounding of two products a value; pieces can be merged in any order.
///
/// # Errors
/// [`Error::Length`] naming `y` or `lse`. Nothing has been written then.
pub fn merge(
    attention: &Attention,
    y: &mut [f32],
    lse: &mut [f32],
    other_y: &[f32],
    other_lse: &[f32],
) -> Result<(), Error> {
    attention.check()?;
    let (heads, d_v) = (attention.heads, attention.head_v());
    let rows = y.len() / attention.v.max(1);
    exact(Argument::Y, y.len(), rows * attention.v)?;
    exact(Argument::Y, other_y.len(), y.len())?;
    exact(Argument::Lse, lse.len(), rows * heads)?;
    exact(Argument::Lse, other_lse.len(), rows * heads)?;
    for (at, (lse, &other)) in lse.iter_mut().zip(other_lse).enumerate() {
        let (head, row) = (at.checked_div(rows).unwrap_or(0), at.checked_rem(rows).unwrap_or(0));
        let highest = lse.max(other);
        if highest == f32::NEG_INFINITY {
            // Neither has seen a key: both are 0 already.
            continue;
        }
        let (a, b) = (libm::expf(*lse - highest), libm::expf(other - highest));
        let sum = a + b;
        *lse = highest + libm::logf(sum);
        let (a, b) = (a / sum, b / sum);
        let range = row * attention.v + head * d_v..row * attention.v + (head + 1) * d_v;
        let other_y = other_y.get(range.clone()).unwrap_or(&[]);
        for (y, other) in y.get_mut(range).unwrap_or_default().iter_mut().zip(other_y) {
            *y = a * *y + b * other;
        }
    }
    Ok(())
}
