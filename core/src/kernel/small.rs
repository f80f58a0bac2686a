//! The kernel of least code: one loop for every product, one element at a time. Its bits are
//! [`portable`](super)'s, because the operations and their order are.

use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::{Spread, turned};
use crate::softmax::{self, BLOCK, EXP2};

/// `(start + a · b) · factor`, each element summed over the depth in order.
pub(crate) struct Dense<'a> {
    /// `[rows, depth]`.
    pub(crate) a: &'a [f32],
    pub(crate) depth: usize,
    /// Element (k, j) lies at `k · along + j · across`.
    pub(crate) b: &'a [f32],
    pub(crate) along: usize,
    pub(crate) across: usize,
    pub(crate) start: Start<'a>,
    pub(crate) factor: f32,
}

impl Dense<'_> {
    /// Computes as many rows of so many `columns` as there are in `out`.
    #[inline(never)]
    pub(crate) fn run(&self, out: &mut [f32], columns: usize) {
        let last =
            columns.saturating_sub(1) * self.across + self.depth.saturating_sub(1) * self.along;
        let biased = !matches!(self.start, Start::Columns(bias) if bias.len() < columns);
        let inside = biased && (last < self.b.len() || columns == 0 || self.depth == 0);
        debug_assert!(inside, "a product's operands must lie in their slices");
        if !inside {
            return;
        }
        let mut a = self.a;
        for row in out.chunks_exact_mut(columns.max(1)) {
            let Some((left, rest)) = a.split_at_checked(self.depth) else { return };
            a = rest;
            let mut column = self.b.as_ptr();
            for (j, out) in row.iter_mut().enumerate() {
                let mut sum = match self.start {
                    Start::Zero => 0.0,
                    Start::Keep => *out,
                    Start::Columns(bias) => bias.get(j).copied().unwrap_or(0.0),
                };
                let mut right = column;
                for left in left {
                    // SAFETY: the last element of the last column lies inside `b`.
                    sum += left * unsafe { *right };
                    right = right.wrapping_add(self.along);
                }
                *out = sum * self.factor;
                column = column.wrapping_add(self.across);
            }
        }
    }
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
                    factor: scale.unwrap_or(1.0),
                }
                .run(out, count);
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
                for (logit, sum) in block.iter_mut().zip(sums.iter_mut()) {
                    *logit = weight(*logit, *m);
                    *sum += *logit;
                }
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

/// `2^(l − m)`.
#[inline(never)]
pub(crate) fn weight(l: f32, m: f32) -> f32 {
    if m == f32::INFINITY {
        // Keys at +∞ share the row.
        return if l.is_nan() { l } else { f32::from(u8::from(l == m)) };
    }
    let n = softmax::round(l);
    let f = l - n;
    let p = EXP2.iter().rev().fold(0.0, |p, c| p * f + c);
    softmax::scale_by_power(p, if m == f32::NEG_INFINITY { n } else { n - m })
}
