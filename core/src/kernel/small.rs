//! The kernel of least code: one loop for every product, one element at a time. Its bits are
//! [`portable`](super)'s, because the operations and their order are.

use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::{Spread, turned};
use crate::softmax::{self, BLOCK, EXP2};

/// `start + a · b`, each element summed over the depth in order.
pub(crate) struct Dense<'a> {
    /// `[rows, depth]`.
    pub(crate) a: &'a [f32],
    pub(crate) depth: usize,
    /// Element (k, j) lies at `k · along + j · across`.
    pub(crate) b: &'a [f32],
    pub(crate) along: usize,
    pub(crate) across: usize,
    pub(crate) start: Start<'a>,
}

impl Dense<'_> {
    /// Computes as many rows of so many `columns` as there are in `out`.
    #[inline(never)]
    pub(crate) fn run(&self, out: &mut [f32], columns: usize) {
        let Self { depth, along, across, start, .. } = *self;
        let last = columns.saturating_sub(1) * across + depth.saturating_sub(1) * along;
        let biased = !matches!(start, Start::Columns(bias) if bias.len() < columns);
        let inside = biased && (last < self.b.len() || columns == 0 || depth == 0);
        debug_assert!(inside, "a product's operands must lie in their slices");
        if !inside {
            return;
        }
        let mut a = self.a;
        for row in out.chunks_exact_mut(columns.max(1)) {
            let Some((left, rest)) = a.split_at_checked(depth) else { return };
            a = rest;
            match start {
                Start::Zero => row.iter_mut().for_each(|out| *out = 0.0),
                Start::Keep => {}
                Start::Columns(bias) => row.iter_mut().zip(bias).for_each(|(out, x)| *out = *x),
            }
            // SAFETY: the last element of the last column lies inside `b`.
            unsafe { accumulate(row, left, self.b.as_ptr(), along, across) };
        }
    }
}

/// Adds a row times a matrix to a row, whose element (k, j) lies at `k · along + j · across`.
///
/// # Safety
/// All elements of the matrix exist.
#[inline(never)]
unsafe fn accumulate(
    out: &mut [f32],
    row: &[f32],
    mut column: *const f32,
    along: usize,
    across: usize,
) {
    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    // SAFETY: the contract.
    let out = unsafe { accumulate_together(out, row, &mut column, along, across) };
    for out in out {
        let mut at = column;
        for left in row {
            // SAFETY: the contract.
            *out += left * unsafe { *at };
            at = at.wrapping_add(along);
        }
        column = column.wrapping_add(across);
    }
}

/// Begins to [`accumulate`] where rows or columns of the matrix lie in one piece: all pairs or fours of
/// columns; what is left.
///
/// # Safety
/// That of [`accumulate`].
#[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
#[inline(always)]
unsafe fn accumulate_together<'o>(
    out: &'o mut [f32],
    row: &[f32],
    column: &mut *const f32,
    along: usize,
    across: usize,
) -> &'o mut [f32] {
    use super::cortex_m::{add_columns, add_rows};
    let count = out.len() & if across == 1 { !1 } else { !3 };
    if along != 1 && across != 1 || row.is_empty() || count == 0 {
        return out;
    }
    let (now, rest) = out.split_at_mut_checked(count).unwrap_or_default();
    let (to, left) = (now.as_mut_ptr(), row.as_ptr());
    let [down, right] = [along, across].map(|floats| floats * size_of::<f32>());
    // SAFETY: the contract, and there are so many columns.
    unsafe {
        if across == 1 {
            add_rows(to, left, *column, down, row.len(), count);
        } else {
            add_columns(to, left, *column, right, row.len(), count);
        }
    }
    *column = column.wrapping_add(count * across);
    rest
}

pub(crate) struct SmallKernel;

impl super::Kernel for SmallKernel {
    fn product(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
    ) {
        // A row and a block of columns at a time.
        for row in 0..c.rows {
            let mut column = 0;
            while column < c.columns {
                let (to, side_by_side) = c.column(column);
                let count = side_by_side.min(BLOCK - column % BLOCK);
                let at = column / BLOCK * b.block_stride + column % BLOCK * b.column_stride;
                let start = match start {
                    Start::Columns(bias) => Start::Columns(bias.get(column..).unwrap_or(&[])),
                    start => start,
                };
                let out = c.data.get_mut(row * c.row_stride + to..).unwrap_or_default();
                let out = out.get_mut(..count).unwrap_or_default();
                let right = b.data.get(at..).unwrap_or(&[]);
                Dense {
                    a: a.row(row),
                    depth: a.columns,
                    b: right,
                    along: b.row_stride,
                    across: b.column_stride,
                    start,
                }
                .run(out, count);
                if let Some(scale) = scale {
                    out.iter_mut().for_each(|out| *out *= scale);
                }
                column += count;
            }
        }
    }

    fn product_turned(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
    ) {
        turned::product::<Self>(a, b, c, start, scale);
    }

    fn turn(from: Matrix<'_>, to: &mut MatrixMut<'_>) {
        for i in 0..from.rows {
            for (j, &x) in from.row(i).iter().enumerate() {
                if let Some(to) = to.data.get_mut(j * to.row_stride + i) {
                    *to = x;
                }
            }
        }
    }

    fn tops(tile: &MatrixMut<'_>, _maxima: &[f32], tops: &mut [f32]) -> Spread {
        for (row, top) in tops.iter_mut().enumerate().take(tile.rows) {
            let highest = |top: f32, &logit: &f32| if logit > top { logit } else { top };
            *top = tile.row(row).iter().fold(f32::NEG_INFINITY, highest);
        }
        Spread::Far
    }

    fn advance(
        tile: &mut MatrixMut<'_>,
        tops: &[f32],
        maxima: &mut [f32],
        sums: &mut [[f32; BLOCK]],
        mut mixed: Option<&mut MatrixMut<'_>>,
        _near: bool,
    ) {
        let rows = tops.iter().zip(maxima).zip(sums).enumerate().take(tile.rows);
        for (row, ((&top, m), sums)) in rows {
            let raised = softmax::ceil(top);
            if raised > *m {
                let factor = softmax::shift(*m, raised);
                let started = *m > f32::NEG_INFINITY;
                if started {
                    sums.iter_mut().for_each(|sum| softmax::shift_weight(sum, factor));
                }
                if let Some(mixed) = &mut mixed {
                    for x in mixed.row_mut(row) {
                        *x = if started { *x * factor } else { 0.0 };
                    }
                }
                *m = raised;
            }
            for block in tile.row_mut(row).chunks_mut(BLOCK) {
                weigh(block, *m, sums);
            }
        }
    }

    fn settle(tile: &mut MatrixMut<'_>, tops: &mut [f32], maxima: &mut [f32], near: bool) {
        for (row, (top, m)) in tops.iter_mut().zip(maxima).enumerate().take(tile.rows) {
            let mut sums = [[0.0; BLOCK]];
            let columns = tile.columns;
            let mut one = MatrixMut::new(tile.row_mut(row), 1, columns, columns);
            *m = f32::NEG_INFINITY;
            Self::advance(&mut one, &[*top], core::slice::from_mut(m), &mut sums, None, near);
            *top = softmax::normaliser(softmax::total(&sums[0]));
        }
    }

    fn scale_rows(rows: &mut MatrixMut<'_>, factors: &[f32]) {
        for (row, &factor) in factors.iter().enumerate().take(rows.rows) {
            let cleared = factor == 0.0;
            rows.row_mut(row).iter_mut().for_each(|x| *x = if cleared { 0.0 } else { *x * factor });
        }
    }

    fn differentiate(weights: Matrix<'_>, gradients: &mut MatrixMut<'_>, deltas: &[f32]) {
        for (row, &delta) in deltas.iter().enumerate().take(gradients.rows) {
            for (g, &w) in gradients.row_mut(row).iter_mut().zip(weights.row(row)) {
                *g = if w > 0.0 { w * (*g - delta) } else { 0.0 };
            }
        }
    }
}

/// Added and subtracted, it rounds what is smaller than 2²² to an integer, ties to even.
const MAGIC: f32 = 12_582_912.0;

/// Turns logits into weights against a maximum, `2^(l − m)`, and adds each to its sum.
#[inline(never)]
pub(crate) fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    let m = if m.abs() < 2_097_152.0 { m } else { bring_near(row, m) };
    for (logit, sum) in row.iter_mut().zip(sums) {
        // Rounded wrongly only where it is so far below the maximum that it has no weight.
        let n = (*logit + MAGIC) - MAGIC;
        let f = *logit - n;
        let [c0, c1, c2, c3, c4, c5, c6] = EXP2;
        let p = (((((c6 * f + c5) * f + c4) * f + c3) * f + c2) * f + c1) * f + c0;
        *logit = softmax::scale_by_power(p, n - m);
        *sum += *logit;
    }
}

/// Takes the same from a maximum and its logits; the maximum that is left. An even number, so that
/// halves are rounded to where they were; what has a weight is near enough to the maximum for the
/// difference to be exact.
#[inline(never)]
fn bring_near(row: &mut [f32], m: f32) -> f32 {
    if m == f32::NEG_INFINITY {
        // No key is visible: −∞ has no weight against anything.
        return 0.0;
    }
    let odd = m.abs() < 16_777_216.0 && (m as i32) & 1 != 0;
    let left = f32::from(u8::from(odd));
    // Keys at +∞ share the row.
    row.iter_mut().for_each(|l| *l = if *l == m { left } else { *l - (m - left) });
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `2^(l − m)` as [`softmax`] defines it.
    fn weight(l: f32, m: f32) -> f32 {
        if m == f32::INFINITY {
            return if l.is_nan() { l } else { f32::from(u8::from(l == m)) };
        }
        let n = softmax::round(l);
        let p = EXP2.iter().rev().skip(1).fold(EXP2[6], |p, c| p * (l - n) + c);
        softmax::scale_by_power(p, if m == f32::NEG_INFINITY { n } else { n - m })
    }

    #[test]
    fn weights_are_those_of_the_law_however_large_the_maximum() {
        let powers = (0..31).map(|power| (1u32 << power) as f32);
        let near = powers.flat_map(|power| [-1.0, 0.0, 1.0, 2.0, 3.0].map(|more| power + more));
        let maxima = near.flat_map(|m| [m, -m]).chain([1e30, -1e30, f32::MAX, f32::MIN]);
        for m in maxima.chain([f32::INFINITY, f32::NEG_INFINITY]) {
            let below = (0..1100).map(|eighths| m - eighths as f32 / 8.0);
            let far = [m - 1e5, m * 2.0, f32::MIN, f32::NEG_INFINITY, f32::NAN];
            let logits = below.chain(far).chain([m]).filter(|l| l.is_nan() || *l <= m);
            for l in logits {
                let (mut row, mut sums) = ([l; 3], [1.0; BLOCK]);
                weigh(&mut row, m, &mut sums);
                let expected = weight(l, m);
                let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(row.iter().all(|&w| same(w, expected)), "{l} {m}: {row:?}, {expected}");
                assert!(same(sums[0], 1.0 + expected) && sums[3] == 1.0, "{l} {m}: {sums:?}");
            }
        }
    }
}
