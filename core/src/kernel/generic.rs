//! The kernels, written once over a [`Vector`].
//!
//! All four products of the layer (projection, logits, mixing, output) are one: `C = start + A · B`,
//! each element of C summed over the depth in order. A is read one float at a time and spread over
//! a register, B and C in registers along their rows. The tile that stays in registers:
//!
//! ```text
//!                     B   k-th row:   b0      b1      …  b(N-1)
//!                                   ┌───────┬───────┬───┬───────┐
//!      A  column k:   a0 ───────────│ acc00 │ acc01 │   │       │
//!                     a1 ───────────│ acc10 │ acc11 │   │       │   M × N registers of C
//!                     …             │       │       │   │       │
//!                     a(M-1) ───────│       │       │   │       │
//!                                   └───────┴───────┴───┴───────┘
//! ```
//!
//! What an element of C holds does not depend on the tile that computed it: its bits are a property
//! of the product, not of the machine.

use core::mem::MaybeUninit;

use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::vector::Vector;
use crate::softmax::{BLOCK, EXP2};

/// What `tile` needs to know about one tile of a product.
struct Tile<'a> {
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b: *const f32,
    b_row: usize,
    /// From one register of B to the next.
    b_vector: usize,
    /// From one lane of B to the next; 1 unless the kernel reads scattered columns one by one.
    b_lane: usize,
    c: *mut f32,
    c_row: usize,
    c_vector: usize,
    /// Lanes of the last register that exist.
    last: usize,
    start: TileStart,
    scale: Option<f32>,
    marker: core::marker::PhantomData<&'a [f32]>,
}

/// [`Start`], brought to one tile.
#[derive(Clone, Copy)]
enum TileStart {
    Zero,
    Keep,
    Columns(*const f32),
    Rows(*const f32),
}

/// `c = start + a · b`, times `scale`.
///
/// # Safety
/// The machine has `V`'s instructions. (That the views lie inside their slices is checked here.)
#[inline(always)]
pub(super) unsafe fn product<V: Vector, const M: usize, const N: usize, const PACK: usize>(
    a: Matrix<'_>,
    b: Columns<'_>,
    c: &mut MatrixMut<'_>,
    start: Start<'_>,
    scale: Option<f32>,
) {
    let starts = match start {
        Start::Zero | Start::Keep => true,
        Start::Columns(bias) => bias.len() >= c.columns,
        Start::Rows(bias) => bias.len() >= c.rows,
    };
    let fits = a.rows == c.rows && a.columns == b.rows && b.columns == c.columns && starts;
    let inside = a.in_bounds() && b.in_bounds() && c.in_bounds();
    debug_assert!(fits && inside, "a product's views must fit each other and their slices");
    if !(fits && inside) {
        return;
    }
    let width = N * V::LANES;
    let depth = a.columns;
    // A panel of B that does not lie side by side is brought together, as deep as there is room.
    let packing = PACK > 0 && b.column_stride != 1;
    let step = if packing { (PACK / width).max(1) } else { depth.max(1) };
    let mut panel = [const { MaybeUninit::<f32>::uninit() }; PACK];

    // 1. Panels of columns.
    let mut j = 0;
    while j < c.columns {
        let columns = width.min(c.columns - j);
        let vectors = columns.div_ceil(V::LANES);
        let last = columns - (vectors - 1) * V::LANES;
        let b_at = (j / BLOCK) * b.block_stride + (j % BLOCK) * b.column_stride;
        let c_at = (j / BLOCK) * c.block_stride + j % BLOCK;
        // 2. Slices of the depth. Between them C holds the sums so far, which loses nothing.
        let mut k = 0;
        loop {
            let depth_here = step.min(depth - k);
            // SAFETY: b is inside its slice, and the panel has room for step × width floats.
            let b_here = unsafe {
                let from =
                    b.data.as_ptr().add(if depth == 0 { 0 } else { b_at + k * b.row_stride });
                if packing {
                    pack(&b, from, depth_here, columns, width, panel.as_mut_ptr().cast());
                    panel.as_ptr().cast()
                } else {
                    from
                }
            };
            // 3. Tiles of rows, as even as they come.
            let mut i = 0;
            while i < c.rows {
                let left = c.rows - i;
                let rows = left.div_ceil(left.div_ceil(M).max(1));
                let tile_start = match start {
                    _ if k > 0 => TileStart::Keep,
                    Start::Zero => TileStart::Zero,
                    Start::Keep => TileStart::Keep,
                    Start::Columns(bias) => TileStart::Columns(bias.as_ptr().wrapping_add(j)),
                    Start::Rows(bias) => TileStart::Rows(bias.as_ptr().wrapping_add(i)),
                };
                let tile = Tile {
                    depth: depth_here,
                    a: a.data.as_ptr().wrapping_add(i * a.row_stride + k * a.column_stride),
                    a_row: a.row_stride,
                    a_column: a.column_stride,
                    b: b_here,
                    b_row: if packing { width } else { b.row_stride },
                    b_vector: if packing {
                        V::LANES
                    } else if V::LANES == BLOCK {
                        b.block_stride
                    } else {
                        V::LANES * b.column_stride
                    },
                    b_lane: if packing { 1 } else { b.column_stride },
                    c: c.data.as_mut_ptr().wrapping_add(c_at + i * c.row_stride),
                    c_row: c.row_stride,
                    c_vector: if V::LANES == BLOCK { c.block_stride } else { V::LANES },
                    last,
                    start: tile_start,
                    scale: if k + depth_here == depth { scale } else { None },
                    marker: core::marker::PhantomData,
                };
                // SAFETY: the tile lies inside the three views.
                unsafe { by_rows::<V, M, N>(&tile, rows, vectors) };
                i += rows;
            }
            k += depth_here;
            if k >= depth {
                break;
            }
        }
        j += columns;
    }
}

/// Brings `depth` rows of a panel of B together, `width` apart.
///
/// # Safety
/// `from` is where the panel begins in `b`; `to` has room for `depth · width` floats.
#[inline(always)]
unsafe fn pack(
    b: &Columns<'_>,
    from: *const f32,
    depth: usize,
    columns: usize,
    width: usize,
    to: *mut f32,
) {
    for j in 0..columns {
        // SAFETY: column j of the panel and its first `depth` rows lie inside b, element (k, j)
        // inside the room.
        unsafe {
            let column = from.add((j / BLOCK) * b.block_stride + (j % BLOCK) * b.column_stride);
            for k in 0..depth {
                *to.add(k * width + j) = *column.add(k * b.row_stride);
            }
        }
    }
}

/// Picks the instance of the tile for a number of rows.
///
/// # Safety
/// That of [`tile`], for `rows <= M` and `vectors <= N`.
#[inline(always)]
unsafe fn by_rows<V: Vector, const M: usize, const N: usize>(
    t: &Tile<'_>,
    rows: usize,
    vectors: usize,
) {
    // SAFETY: passed on.
    unsafe {
        match rows {
            1 => by_vectors::<V, 1, N>(t, vectors),
            2 => by_vectors::<V, 2, N>(t, vectors),
            3 => by_vectors::<V, 3, N>(t, vectors),
            4 => by_vectors::<V, 4, N>(t, vectors),
            5 if M >= 5 => by_vectors::<V, 5, N>(t, vectors),
            6 if M >= 6 => by_vectors::<V, 6, N>(t, vectors),
            _ => {}
        }
    }
}

/// Picks the instance of the tile for a number of registers.
///
/// # Safety
/// That of [`tile`], for `vectors <= N`.
#[inline(always)]
unsafe fn by_vectors<V: Vector, const M: usize, const N: usize>(t: &Tile<'_>, vectors: usize) {
    // SAFETY: passed on.
    unsafe {
        match vectors {
            1 => by_lanes::<V, M, 1>(t),
            2 if N >= 2 => by_lanes::<V, M, 2>(t),
            3 if N >= 3 => by_lanes::<V, M, 3>(t),
            4 if N >= 4 => by_lanes::<V, M, 4>(t),
            _ => {}
        }
    }
}

/// Picks the instance of the tile for how its columns lie.
///
/// # Safety
/// That of [`tile`].
#[inline(always)]
unsafe fn by_lanes<V: Vector, const M: usize, const N: usize>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if t.b_lane != 1 {
            tile::<V, M, N, SCATTERED>(t);
        } else if t.last == V::LANES {
            tile::<V, M, N, WHOLE>(t);
        } else {
            tile::<V, M, N, PARTIAL>(t);
        }
    }
}

/// All lanes exist and lie side by side.
const WHOLE: u8 = 0;
/// The last register has fewer lanes.
const PARTIAL: u8 = 1;
/// The lanes of B do not lie side by side, and the last register may have fewer.
const SCATTERED: u8 = 2;

/// One tile: M rows of A against N registers of columns.
///
/// # Safety
/// A's M rows and B's N registers exist over the depth, C's M × N registers exist, the last register
/// of each in its first `last` lanes only. A start of columns or rows points at as many floats.
#[inline(always)]
unsafe fn tile<V: Vector, const M: usize, const N: usize, const LANES: u8>(t: &Tile<'_>) {
    // SAFETY: by the contract above, every address below is inside its operand.
    unsafe {
        let whole = |n: usize| LANES == WHOLE || n + 1 < N;
        let load =
            |p: *const f32, n: usize| if whole(n) { V::load(p) } else { V::load_first(p, t.last) };
        let load_b = |p: *const f32, n: usize| {
            if LANES == SCATTERED {
                let mut lanes = [0.0; BLOCK];
                for (i, lane) in lanes.iter_mut().enumerate().take(V::LANES) {
                    if n + 1 < N || i < t.last {
                        *lane = *p.add(i * t.b_lane);
                    }
                }
                V::load(lanes.as_ptr())
            } else {
                load(p, n)
            }
        };
        let mut acc = [[V::splat(0.0); N]; M];
        match t.start {
            TileStart::Zero => {}
            TileStart::Keep => {
                for (m, row) in acc.iter_mut().enumerate() {
                    for (n, acc) in row.iter_mut().enumerate() {
                        *acc = load(t.c.add(m * t.c_row + n * t.c_vector), n);
                    }
                }
            }
            TileStart::Columns(bias) => {
                for row in &mut acc {
                    for (n, acc) in row.iter_mut().enumerate() {
                        *acc = load(bias.add(n * V::LANES), n);
                    }
                }
            }
            TileStart::Rows(bias) => {
                for (m, row) in acc.iter_mut().enumerate() {
                    *row = [V::splat(*bias.add(m)); N];
                }
            }
        }
        // 4. The depth.
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            let mut b_row = [V::splat(0.0); N];
            for (n, b_row) in b_row.iter_mut().enumerate() {
                *b_row = load_b(b.add(n * t.b_vector), n);
            }
            for (m, row) in acc.iter_mut().enumerate() {
                let a = V::splat(*a.add(m * t.a_row));
                for (acc, b) in row.iter_mut().zip(b_row) {
                    *acc = a.mul_add(b, *acc);
                }
            }
            a = a.wrapping_add(t.a_column);
            b = b.wrapping_add(t.b_row);
        }
        if let Some(scale) = t.scale {
            let scale = V::splat(scale);
            for acc in acc.as_flattened_mut() {
                *acc = acc.mul(scale);
            }
        }
        for (m, row) in acc.iter().enumerate() {
            for (n, acc) in row.iter().enumerate() {
                let p = t.c.add(m * t.c_row + n * t.c_vector);
                if whole(n) { acc.store(p) } else { acc.store_first(p, t.last) }
            }
        }
    }
}

/// The largest element of a row, and the smallest that is not −∞.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn extremes<V: Vector>(row: &[f32]) -> (f32, f32) {
    let (mut highest, mut lowest) = (f32::NEG_INFINITY, f32::INFINITY);
    let chunks = row.chunks_exact(V::LANES);
    let rest = chunks.remainder();
    // SAFETY: a chunk has as many floats as a register, and so have the arrays.
    unsafe {
        let none = V::splat(f32::INFINITY);
        let (mut high, mut low) = (V::splat(f32::NEG_INFINITY), none);
        for chunk in chunks {
            let l = V::load(chunk.as_ptr());
            high = l.max(high);
            low = l.replace_neg_inf(none).min(low);
        }
        let (mut highs, mut lows) = ([f32::NEG_INFINITY; BLOCK], [f32::INFINITY; BLOCK]);
        high.store(highs.as_mut_ptr());
        low.store(lows.as_mut_ptr());
        for (&h, &l) in highs.iter().zip(&lows).take(V::LANES) {
            highest = if h > highest { h } else { highest };
            lowest = if l < lowest { l } else { lowest };
        }
    }
    for &l in rest {
        highest = if l > highest { l } else { highest };
        lowest = if l < lowest && l != f32::NEG_INFINITY { l } else { lowest };
    }
    (highest, lowest)
}

/// Weights from logits, and their sums: see [`softmax`](crate::softmax).
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn weights<V: Vector>(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    // SAFETY: blocks, sums and the padded tail all have sixteen floats, a multiple of the lanes.
    unsafe {
        let mut blocks = row.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            weigh_block::<V>(block.as_mut_ptr(), m, sums);
        }
        let rest = blocks.into_remainder();
        if !rest.is_empty() {
            let mut padded = [f32::NEG_INFINITY; BLOCK];
            for (to, &from) in padded.iter_mut().zip(&*rest) {
                *to = from;
            }
            weigh_block::<V>(padded.as_mut_ptr(), m, sums);
            for (to, from) in rest.iter_mut().zip(padded) {
                *to = from;
            }
        }
    }
}

/// Weights of one block.
///
/// # Safety
/// `block` points at sixteen floats.
#[inline(always)]
unsafe fn weigh_block<V: Vector>(block: *mut f32, m: f32, sums: &mut [f32; BLOCK]) {
    // SAFETY: i is a multiple of the lanes below sixteen.
    unsafe {
        let m = V::splat(m);
        let mut i = 0;
        while i < BLOCK {
            let l = V::load(block.add(i));
            let n = l.round();
            let f = l.sub(n);
            let mut p = V::splat(EXP2[6]);
            for &coefficient in EXP2[..6].iter().rev() {
                p = p.mul_add(f, V::splat(coefficient));
            }
            let p = p.scale_by_power(n.sub(m));
            p.store(block.add(i));
            let sum = sums.as_mut_ptr().add(i);
            V::load(sum).add(p).store(sum);
            i += V::LANES;
        }
    }
}

/// Multiplies a row by a factor.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn scale<V: Vector>(row: &mut [f32], factor: f32) {
    let mut chunks = row.chunks_exact_mut(V::LANES);
    // SAFETY: a chunk has as many floats as a register.
    unsafe {
        let by = V::splat(factor);
        for chunk in &mut chunks {
            V::load(chunk.as_ptr()).mul(by).store(chunk.as_mut_ptr());
        }
    }
    for x in chunks.into_remainder() {
        *x *= factor;
    }
}
