//! The kernel of least code: [`Dense`] for every product, and one element at a time. Its bits are
//! [`portable`](super)'s, because the operations and their order are.

use super::dense::{Dense, Extent, weigh};
use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::{Spread, turned};
use crate::softmax::{self, BLOCK};

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
                    a_row: a.columns,
                    depth: a.columns,
                    b: right,
                    along: b.row_stride,
                    across: b.column_stride,
                    start,
                }
                .run(out, Extent { rows: 1, columns: count, row: count });
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
                        if started {
                            softmax::shift_mixed(x, factor);
                        } else {
                            *x = 0.0;
                        }
                    }
                }
                *m = raised;
            }
            for block in tile.row_mut(row).chunks_mut(BLOCK) {
                weigh(block, *m, sums, false);
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
