//! A product with a left operand that lies turned, for machines whose tiles read it along its rows: a
//! piece of it is turned at a time.

use super::Kernel;
use super::matrix::{Columns, Matrix, MatrixMut, Start};

/// Rows of a piece: four tiles of the smallest machine.
const ROWS: usize = 16;

/// How deep a piece is. What the sums cost to be kept between pieces, once a piece, is little beside
/// their products.
const DEPTH: usize = 16;

/// `c = start + aᵀ · b`, then times `scale`, each element summed over the rows of `a` and `b` in order.
pub(super) fn product<K: Kernel>(
    a: Matrix<'_>,
    b: Columns<'_>,
    c: &mut MatrixMut<'_>,
    start: Start<'_>,
    scale: Option<f32>,
) {
    let mut room = [0.0; ROWS * DEPTH];
    let mut i = 0;
    while i < c.rows {
        let rows = ROWS.min(c.rows - i);
        let at = i * c.row_stride;
        let here = c.data.get_mut(at..).unwrap_or_default();
        let mut here = MatrixMut { data: here, rows, ..*c };
        let mut k = 0;
        loop {
            let depth = DEPTH.min(a.rows - k);
            let from = a.data.get(k * a.row_stride + i..).unwrap_or(&[]);
            let from = Matrix { data: from, rows: depth, columns: rows, row_stride: a.row_stride };
            K::turn(from, &mut MatrixMut::new(&mut room, rows, depth, DEPTH));
            let piece = Matrix { data: &room, rows, columns: depth, row_stride: DEPTH };
            let under = b.data.get(k * b.row_stride..).unwrap_or(&[]);
            let under = Columns { data: under, rows: depth, ..b };
            let start = if k > 0 { Start::Keep } else { start };
            let last = k + depth >= a.rows;
            K::product(piece, under, &mut here, start, scale.filter(|_| last));
            k += depth;
            if last {
                break;
            }
        }
        i += rows;
    }
}
