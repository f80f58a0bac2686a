//! The least code for products and weights: one loop each, and on Arm's single registers tiles of 4 × 4. The
//! bits are [`portable`](super::portable)'s, because the operations and their order are.

#[cfg(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size")))]
use super::cortex_m as loops;
#[cfg(not(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size"))))]
use super::loops;
use super::matrix::Start;
use crate::compact::LOOKS_FAR;
use crate::softmax::{self, BLOCK, EXP2};

/// `start + a · b`, each element summed over the depth in order.
pub(crate) struct Dense<'a> {
    /// Element (i, k) lies at `i · a_row + k`.
    pub(crate) a: &'a [f32],
    pub(crate) a_row: usize,
    pub(crate) depth: usize,
    /// Element (k, j) lies at `k · along + j · across`.
    pub(crate) b: &'a [f32],
    pub(crate) along: usize,
    pub(crate) across: usize,
    pub(crate) start: Start<'a>,
}

/// How much of an output is computed: element (i, j) lies at `i · row + j`.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row: usize,
}

impl Dense<'_> {
    /// Computes that much of `out`.
    #[inline(never)]
    pub(crate) fn run(&self, out: &mut [f32], extent: Extent) {
        let Self { a, a_row, depth, b, along, across, start } = *self;
        let Extent { rows, columns, row } = extent;
        let (Some(below), Some(beside)) = (rows.checked_sub(1), columns.checked_sub(1)) else {
            return;
        };
        let last = beside * across + depth.saturating_sub(1) * along;
        let biased = !matches!(start, Start::Columns(bias) if bias.len() < columns);
        let multiplied = below * a_row + depth <= a.len() && (last < b.len() || depth == 0);
        let inside = biased && multiplied && below * row + columns <= out.len();
        debug_assert!(inside, "a product's operands must lie in their slices");
        if !inside {
            return;
        }
        #[cfg(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size")))]
        // SAFETY: all elements of the rows and of the matrix exist.
        let (of, done) = (rows & !3, unsafe { self.by_fours(out, extent) });
        #[cfg(not(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size"))))]
        let (of, done) = (0, 0);
        for i in if done < columns { 0 } else { of }..rows {
            let (out, a) =
                (out.as_mut_ptr().wrapping_add(i * row), a.as_ptr().wrapping_add(i * a_row));
            let first = if i < of { done } else { 0 };
            // SAFETY: all elements of the row and of the matrix exist.
            unsafe { self.row(out, first, columns, a) };
        }
    }

    /// A row, from a column on.
    ///
    /// # Safety
    /// All elements of the row and of the matrix exist.
    #[inline(never)]
    unsafe fn row(&self, out: *mut f32, first: usize, columns: usize, a: *const f32) {
        let Self { depth, b, along, across, start, .. } = *self;
        // SAFETY: the contract.
        let row = unsafe { core::slice::from_raw_parts_mut(out.add(first), columns - first) };
        match start {
            Start::Zero => row.iter_mut().for_each(|out| *out = 0.0),
            Start::Keep => {}
            Start::Columns(bias) => {
                let bias = bias.get(first..).unwrap_or(&[]);
                row.iter_mut().zip(bias).for_each(|(out, x)| *out = *x);
            }
        }
        if depth > 0 {
            let b = b.as_ptr().wrapping_add(first * across);
            // SAFETY: the contract.
            unsafe { accumulate(row, a, depth, b, along, across) };
        }
    }

    /// All fours of rows, by fours of columns where rows or columns of the matrix lie in one piece; how many
    /// columns. Where nothing is added to, the last four may overlap those before.
    ///
    /// # Safety
    /// All elements of the rows and of the matrix exist.
    #[cfg(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size")))]
    #[inline(always)]
    unsafe fn by_fours(&self, out: &mut [f32], Extent { rows, columns, row }: Extent) -> usize {
        let Self { depth, along, across, start, .. } = *self;
        let whole = columns & !3;
        if whole == 0 || depth == 0 || along != 1 && across != 1 {
            return 0;
        }
        let (out, fours) = (out.as_mut_ptr(), rows / 4);
        // SAFETY: the contract, and there are so many rows and columns.
        unsafe { self.tiles(out, row, fours, 0, whole / 4) };
        if whole == columns || matches!(start, Start::Keep) {
            return whole;
        }
        // SAFETY: as above.
        unsafe { self.tiles(out, row, fours, columns - 4, 1) };
        columns
    }

    /// So many fours of rows by so many fours of columns, from a column on.
    ///
    /// # Safety
    /// All of these exist, the depth is at least 1, and rows or columns of the matrix lie in one piece.
    #[cfg(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size")))]
    #[inline(never)]
    unsafe fn tiles(&self, out: *mut f32, row: usize, rows: usize, first: usize, fours: usize) {
        use super::cortex_m::{Fours, four_by_columns, four_by_rows};
        const FLOAT: usize = size_of::<f32>();
        static ZEROS: [f32; 4] = [0.0; 4];
        let Self { a, a_row, depth, b, along, across, start } = *self;
        let (mut out, mut a) = (out.wrapping_add(first), a.as_ptr());
        for _ in 0..rows {
            let out_row = row * FLOAT;
            let (start, start_row, start_step) = match start {
                Start::Zero => (ZEROS.as_ptr(), 0, 0),
                Start::Keep => (out.cast_const(), out_row, 4 * FLOAT),
                Start::Columns(bias) => (bias.as_ptr().wrapping_add(first), 0, 4 * FLOAT),
            };
            let mut tiles = Fours {
                out,
                out_row,
                a_row: a_row * FLOAT,
                a,
                b: b.as_ptr().wrapping_add(first * across),
                b_step: (if across == 1 { along } else { across }) * FLOAT,
                start,
                start_row,
                depth,
                start_step,
                fours,
            };
            // SAFETY: the contract.
            unsafe {
                if across == 1 {
                    four_by_rows(&mut tiles);
                } else {
                    four_by_columns(&mut tiles);
                }
            }
            (out, a) = (out.wrapping_add(4 * row), a.wrapping_add(4 * a_row));
        }
    }
}

/// Adds a row times a matrix to a row; element (k, j) of the matrix lies at `k · along + j · across`.
///
/// # Safety
/// All elements exist, and the depth is at least 1.
#[inline(never)]
unsafe fn accumulate(
    out: &mut [f32],
    row: *const f32,
    depth: usize,
    mut b: *const f32,
    along: usize,
    across: usize,
) {
    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    // SAFETY: the contract.
    let out = unsafe { accumulate_together(out, row, depth, &mut b, along, across) };
    for out in out {
        let mut at = b;
        for k in 0..depth {
            // SAFETY: the contract.
            *out += unsafe { *row.add(k) * *at };
            at = at.wrapping_add(along);
        }
        b = b.wrapping_add(across);
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
    row: *const f32,
    depth: usize,
    b: &mut *const f32,
    along: usize,
    across: usize,
) -> &'o mut [f32] {
    use super::cortex_m::{add_columns, add_rows};
    let count = out.len() & if across == 1 { !1 } else { !3 };
    if along != 1 && across != 1 || count == 0 {
        return out;
    }
    let (now, rest) = out.split_at_mut_checked(count).unwrap_or_default();
    let [down, right] = [along, across].map(|floats| floats * size_of::<f32>());
    // SAFETY: the contract, and there are so many columns.
    unsafe {
        if across == 1 {
            add_rows(now.as_mut_ptr(), row, *b, down, depth, count);
        } else {
            add_columns(now.as_mut_ptr(), row, *b, right, depth, count);
        }
    }
    *b = b.wrapping_add(count * across);
    rest
}

/// Added and subtracted, it rounds what is smaller than 2²² to an integer, ties to even.
const MAGIC: f32 = 12_582_912.0;

/// Turns logits into weights against a maximum, `2^(l − m)`, and adds each to its sum: that of its place modulo
/// 16. With `near` every logit is a number at most [`WIDE`](softmax::WIDE) below the maximum.
#[inline(never)]
pub(crate) fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK], near: bool) {
    let m = if m.abs() < 2_097_152.0 { m } else { bring_near(row, m) };
    let mut done = if near { loops::weigh_eights_near(row, m, sums) } else { 0 };
    while let Some(eight) = row.get_mut(done..).filter(|row| !row.is_empty()) {
        let (low, high) = sums.split_at_mut(BLOCK / 2);
        weigh_plainly(eight, m, if done % BLOCK == 0 { low } else { high });
        done += BLOCK / 2;
    }
}

/// [`weigh`] for a row's first elements, as many as there are sums.
#[inline(never)]
fn weigh_plainly(row: &mut [f32], m: f32, sums: &mut [f32]) {
    for (logit, sum) in row.iter_mut().zip(sums) {
        *logit = weight(*logit, m);
        *sum += *logit;
    }
}

/// `2^(l − m)`. Its own function where it is the exception, so that no loop over it is unrolled.
#[cfg_attr(not(feature = "size"), inline(never))]
fn weight(l: f32, m: f32) -> f32 {
    // Rounded wrongly only where it is so far below the maximum that it has no weight.
    let n = (l + MAGIC) - MAGIC;
    let f = l - n;
    let [c0, c1, c2, c3, c4, c5, c6] = EXP2;
    let p = (((((c6 * f + c5) * f + c4) * f + c3) * f + c2) * f + c1) * f + c0;
    softmax::scale_by_power(p, n - m)
}

/// The largest of a row and `m`, and something at most as large as the smallest, NaN passed over; whether it is
/// known that there is none, where that matters.
#[inline(never)]
pub(crate) fn bounds(m: f32, row: &[f32]) -> (f32, f32, bool) {
    let eights = loops::bounds(m, row);
    let ordered = eights.is_some();
    let (mut top, mut lowest, left) = eights.unwrap_or((m, f32::INFINITY, row));
    for &x in left {
        if x > top {
            top = x;
        }
        if LOOKS_FAR && x < lowest {
            lowest = x;
        }
    }
    (top, lowest, ordered)
}

/// Multiplies a row by a factor.
#[inline(never)]
pub(crate) fn scale(row: &mut [f32], factor: f32) {
    loops::scale(row, factor);
}

/// A row times a factor, as long as the shorter of both.
#[inline(never)]
pub(crate) fn scaled(to: &mut [f32], from: &[f32], factor: f32) {
    loops::scaled(to, from, factor);
}

/// Fills a row with a value.
#[inline(never)]
pub(crate) fn fill(row: &mut [f32], value: f32) {
    loops::fill(row, value);
}

/// [`softmax::total`], which may leave anything in the sums.
pub(crate) fn total(sums: &mut [f32; BLOCK]) -> f32 {
    loops::total(sums)
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
                weigh(&mut row, m, &mut sums, false);
                let expected = weight(l, m);
                let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(row.iter().all(|&w| same(w, expected)), "{l} {m}: {row:?}, {expected}");
                assert!(same(sums[0], 1.0 + expected) && sums[3] == 1.0, "{l} {m}: {sums:?}");
            }
        }
    }
}
