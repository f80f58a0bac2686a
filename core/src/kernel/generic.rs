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

use super::Spread;
use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::vector::Vector;
use crate::softmax::{self, BLOCK, EXP2};

/// What [`tile`] needs to know about one tile of a product.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    depth: usize,
    a: *const f32,
    a_row: usize,
    /// To the next of a row of A, where the tile is one of [`TURNED`].
    a_step: usize,
    b: *const f32,
    b_row: usize,
    /// From one block of sixteen columns of B to the next.
    b_block: usize,
    /// From one lane of B to the next; 1 unless the kernel reads scattered columns one by one.
    b_lane: usize,
    c: *mut f32,
    c_row: usize,
    /// Lanes of the last register that exist.
    last: usize,
    start: TileStart,
    scale: Option<f32>,
}

/// [`Start`], brought to one tile.
#[derive(Clone, Copy)]
enum TileStart {
    Zero,
    Keep,
    Columns(*const f32),
}

/// A machine's tiles: their sizes, and [`tile`] compiled for its instructions.
pub(super) trait Tiles {
    type Vector: Vector;

    /// Rows of the tile.
    const ROWS: usize;

    /// A register of half the lanes, for columns that fill no more; the same where there is none.
    type Half: Vector;

    /// Registers of columns of the tile, at most 4.
    const VECTORS: usize;

    /// Rows of a tile of at most two registers of columns, at most 12.
    const TALL: usize;

    /// Whether a tile of one row may have [`WIDEST`] registers of columns: the more of a row of B is
    /// read side by side the better for decoding. Such a machine has room for packing.
    const WIDE: bool;

    /// [`tile`], as a function of its own: inlined into the loops around it, dozens of instances would
    /// share one set of registers for what they have in common.
    ///
    /// # Safety
    /// That of [`tile`].
    unsafe fn tile<const M: usize, const N: usize, const LANES: u8>(t: &Tile);

    /// [`by_rows`], for A along its rows: no generic function, so that it is this crate that compiles the tiles,
    /// however small or fast the crates around it are made.
    ///
    /// # Safety
    /// That of [`by_rows`].
    unsafe fn straight(t: &Tile, rows: usize, vectors: usize);

    /// The same for A along its columns.
    ///
    /// # Safety
    /// That of [`by_rows`].
    unsafe fn turned(t: &Tile, rows: usize, vectors: usize);

    /// [`panels`], with room on the stack if `pack`, in a frame of its own: most products need none, and a
    /// frame of many pages is touched page by page.
    ///
    /// # Safety
    /// That of [`panels`].
    unsafe fn packed<const TURN: u8>(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
        pack: bool,
    );
}

/// Rows of A from which on it pays to bring a panel of B together whose rows lie far apart.
const PACK_ROWS: usize = 12;

/// Registers of columns of the widest tile of one row.
pub(super) const WIDEST: usize = 8;

/// Rows of B from use to prefetch.
const AHEAD: usize = 8;

/// The same for a tile of one row, which is through with a row of B sooner.
const FURTHER_AHEAD: usize = 16;

/// Rows of B that a single row of A goes through together.
const STREAMS: usize = 4;

/// Floats between two rows of B that count as far apart.
const FAR: usize = 128;

/// `c = start + a · b`, or aᵀ · b where `TURN` is [`TURNED`], times `scale`. Machines with room for packing, `PACK`, have panels of B brought
/// together where they do not lie side by side.
///
/// # Safety
/// The machine has the tiles' instructions. (That the views lie inside their slices is checked here.)
#[inline(always)]
pub(super) unsafe fn product<T: Tiles, const PACK: bool, const TURN: u8>(
    a: Matrix<'_>,
    b: Columns<'_>,
    c: &mut MatrixMut<'_>,
    start: Start<'_>,
    scale: Option<f32>,
) {
    let starts = match start {
        Start::Zero | Start::Keep => true,
        Start::Columns(bias) => bias.len() >= c.columns,
    };
    let (rows, depth) = if TURN == TURNED { (a.columns, a.rows) } else { (a.rows, a.columns) };
    let fits = rows == c.rows && depth == b.rows && b.columns == c.columns && starts;
    let inside = a.in_bounds() && b.in_bounds() && c.in_bounds();
    debug_assert!(fits && inside, "a product's views must fit each other and their slices");
    if !(fits && inside) {
        return;
    }
    // A panel of B that does not lie side by side is brought together; one whose rows lie far apart
    // only where many rows of A make use of it.
    let far = (lanes::<T>() < BLOCK && b.row_stride >= FAR || b.row_stride.is_multiple_of(1024))
        && c.rows >= PACK_ROWS;
    // SAFETY: the views are checked, the rest is passed on.
    unsafe {
        let side_by_side = b.column_stride == 1 && b.block_stride == BLOCK;
        let whole = c.columns.is_multiple_of(lanes::<T>()) && b.rows.is_multiple_of(STREAMS);
        let more = c.columns > T::VECTORS * lanes::<T>();
        if T::WIDE && TURN == STRAIGHT && c.rows == 1 && side_by_side && whole && more {
            return row::<T::Vector>(a, b, c, start, scale);
        }
        let pack = b.column_stride != 1 || far;
        // In WebAssembly a frame costs nothing, and one copy of the loops is enough.
        if PACK && (pack || cfg!(target_arch = "wasm32")) {
            return T::packed::<TURN>(a, b, c, start, scale, pack);
        }
        panels::<T, TURN>(a, b, c, start, scale, &mut []);
    }
}

/// Columns of C that [`row`] keeps near.
const NEAR: usize = 512;

/// The product of a single row with rows of B that lie side by side: B, which is read but once, is read
/// in the order of memory, and the row of C is kept near, whose own place may be slow to go over again
/// and again.
///
/// # Safety
/// The views lie inside their slices and fit each other; columns fill registers, and rows of B come in
/// whole [`STREAMS`]; the machine has `V`'s instructions.
#[inline(always)]
unsafe fn row<V: Vector>(
    a: Matrix<'_>,
    b: Columns<'_>,
    c: &mut MatrixMut<'_>,
    start: Start<'_>,
    scale: Option<f32>,
) {
    #[repr(align(64))]
    struct Near([f32; NEAR]);
    // 1. As many columns as fit.
    let mut first = 0;
    while first < c.columns {
        let mut near = Near([0.0; NEAR]);
        let near = near.0.get_mut(..NEAR.min(c.columns - first)).unwrap_or_default();
        let (sums, n) = (near.as_mut_ptr(), near.len());
        match start {
            Start::Zero => {}
            Start::Keep => each_column(c, first, near, |c, sum| *sum = *c),
            Start::Columns(bias) => {
                near.iter_mut().zip(bias.iter().skip(first)).for_each(|(to, from)| *to = *from);
            }
        }
        // 2. A few rows of B at a time.
        for k in (0..b.rows).step_by(STREAMS) {
            // SAFETY: rows of B from k on, columns from `first` on: as many as there are.
            unsafe {
                let a: [V; STREAMS] =
                    core::array::from_fn(|i| V::splat(*a.data.as_ptr().add(k + i)));
                let b_at = b.data.as_ptr().add(k * b.row_stride + first);
                for j in (0..n).step_by(V::LANES) {
                    let mut acc = V::load(sums.add(j));
                    for (i, a) in a.iter().enumerate() {
                        let from = b_at.add(i * b.row_stride + j);
                        acc = a.mul_add(V::load(from), acc);
                        V::prefetch(from.wrapping_add(STREAMS * b.row_stride));
                    }
                    acc.store(sums.add(j));
                }
            }
        }
        // Times 1 every float stays what it is.
        let factor = scale.unwrap_or(1.0);
        each_column(c, first, near, |c, sum| *c = *sum * factor);
        first += n;
    }
}

/// Goes over floats and as many columns of the one row of C.
#[inline(always)]
fn each_column(
    c: &mut MatrixMut<'_>,
    first: usize,
    floats: &mut [f32],
    copy: impl Fn(&mut f32, &mut f32),
) {
    let mut done = 0;
    while done < floats.len() {
        let (at, together) = c.column(first + done);
        let c = c.data.get_mut(at..at + together).unwrap_or_default();
        let here = floats.get_mut(done..).unwrap_or_default();
        c.iter_mut().zip(here).for_each(|(c, float)| copy(c, float));
        done += together.max(1);
    }
}

/// The loops around the tiles. With room, panels of B are brought together there, as deep as fits.
///
/// # Safety
/// The views lie inside their slices and fit each other; the machine has the tiles' instructions; room
/// is enough for a row of a panel, or none.
#[inline(always)]
pub(super) unsafe fn panels<T: Tiles, const TURN: u8>(
    a: Matrix<'_>,
    b: Columns<'_>,
    c: &mut MatrixMut<'_>,
    start: Start<'_>,
    scale: Option<f32>,
    room: &mut [MaybeUninit<f32>],
) {
    let turned = TURN == TURNED;
    let depth = if turned { a.rows } else { a.columns };
    let (a_row, a_step) = if turned { (1, a.row_stride) } else { (a.row_stride, 1) };
    let packing = !room.is_empty();
    let step = if packing { room.len() / (T::VECTORS * lanes::<T>()) } else { depth };
    let step = step.max(1);

    // 1. Panels of columns.
    let mut j = 0;
    while j < c.columns {
        let (c_at, together) = c.column(j);
        let widest = WIDEST * lanes::<T>();
        // More than four blocks of keys side by side are more than memory is read well at once.
        let wide = T::WIDE && widest <= 4 * BLOCK && !cfg!(target_arch = "wasm32");
        let wide = wide && c.rows == 1 && !packing && together >= widest;
        let width = if wide { widest } else { T::VECTORS * lanes::<T>() };
        let columns = if wide { widest } else { width.min(together) };
        // Where code is downloaded an edge is a panel of its own: a tile of one register, instead of one
        // of every width.
        let edge = columns % lanes::<T>();
        let apart = cfg!(target_arch = "wasm32") && columns > edge;
        let columns = if apart { columns - edge } else { columns };
        let vectors = columns.div_ceil(lanes::<T>());
        let b_at = (j / BLOCK) * b.block_stride + (j % BLOCK) * b.column_stride;
        // Tiles of rows, as even as they come: the first `taller` have a row more.
        let most = if T::TALL > T::ROWS && vectors <= 2 { T::TALL } else { T::ROWS };
        let (rows, taller) = if c.rows <= most {
            (c.rows, 0)
        } else {
            let tiles = c.rows.div_ceil(most).max(1);
            (c.rows / tiles, c.rows % tiles)
        };
        // 2. Slices of the depth. Between them C holds the sums so far, which loses nothing.
        let mut k = 0;
        loop {
            let depth_here = step.min(depth - k);
            let mut t = Tile {
                depth: depth_here,
                a: a.data.as_ptr().wrapping_add(k * a_step),
                a_row,
                a_step,
                b: b.data.as_ptr().wrapping_add(b_at + k * b.row_stride),
                b_row: b.row_stride,
                b_block: b.block_stride,
                b_lane: b.column_stride,
                c: c.data.as_mut_ptr().wrapping_add(c_at),
                c_row: c.row_stride,
                last: columns - (vectors - 1) * lanes::<T>(),
                start: match start {
                    _ if k > 0 => TileStart::Keep,
                    Start::Zero => TileStart::Zero,
                    Start::Keep => TileStart::Keep,
                    Start::Columns(bias) => TileStart::Columns(bias.as_ptr().wrapping_add(j)),
                },
                scale: if k + depth_here == depth { scale } else { None },
            };
            if packing {
                // SAFETY: b is inside its slice, and there is room for step × width floats.
                unsafe {
                    let to = room.as_mut_ptr().cast();
                    pack::<T::Vector>(&b, t.b, depth_here, columns, width, to);
                }
                (t.b, t.b_row) = (room.as_ptr().cast(), width);
                (t.b_block, t.b_lane) = (BLOCK, 1);
            }
            // 3. Tiles of rows.
            let mut i = 0;
            while i < c.rows {
                let here = rows + usize::from(i < taller * (rows + 1));
                // SAFETY: the tile lies inside the three views.
                unsafe {
                    if wide {
                        by_lanes::<T, 1, WIDEST, TURN>(&t);
                    } else if turned {
                        T::turned(&t, here, vectors);
                    } else {
                        T::straight(&t, here, vectors);
                    }
                }
                t.a = t.a.wrapping_add(here * a_row);
                t.c = t.c.wrapping_add(here * c.row_stride);
                i += here;
            }
            k += depth_here;
            if k >= depth {
                break;
            }
        }
        j += columns;
    }
}

/// Floats of a register.
const fn lanes<T: Tiles>() -> usize {
    <T::Vector as Vector>::LANES
}

/// Brings `depth` rows of a panel of B together, `width` apart.
///
/// # Safety
/// `from` is where the panel begins in `b`, at a multiple of sixteen columns or of the registers'
/// lanes; `to` has room for `depth · width` floats, and `columns <= width`.
#[inline(always)]
unsafe fn pack<V: Vector>(
    b: &Columns<'_>,
    from: *const f32,
    depth: usize,
    columns: usize,
    width: usize,
    to: *mut f32,
) {
    let whole = columns / V::LANES * V::LANES;
    let column = |j: usize| (j / BLOCK) * b.block_stride + (j % BLOCK) * b.column_stride;
    // SAFETY: element (k, j) of the panel, k < depth and j < columns, lies inside b, and its place
    // inside the room; whole registers are taken only where they exist.
    unsafe {
        // Row by row where a row lies side by side, square by square where a column does.
        let mut squares = 0;
        if b.column_stride == 1 {
            for k in 0..depth {
                let (from, to) = (from.add(k * b.row_stride), to.add(k * width));
                for j in (0..whole).step_by(V::LANES) {
                    V::prefetch(from.wrapping_add(column(j) + AHEAD * b.row_stride));
                    V::load(from.add(column(j))).store(to.add(j));
                }
            }
            squares = depth;
        } else if b.row_stride == 1 {
            while squares + V::LANES <= depth {
                for j in (0..whole).step_by(V::LANES) {
                    let from = from.add(column(j) + squares);
                    V::transpose(from, b.column_stride, to.add(squares * width + j), width);
                }
                squares += V::LANES;
            }
        }
        // What is left at the edges, one by one.
        for j in 0..columns {
            let first = if j < whole { squares } else { 0 };
            for k in first..depth {
                *to.add(k * width + j) = *from.add(column(j) + k * b.row_stride);
            }
        }
    }
}

/// `to[j][i] = from[i][j]`.
///
/// # Safety
/// The machine has `V`'s instructions. (That the views lie inside their slices is checked here.)
#[inline(always)]
pub(super) unsafe fn turn<V: Vector>(from: Matrix<'_>, to: &mut MatrixMut<'_>) {
    let fits = from.rows == to.columns && from.columns == to.rows;
    let inside = from.in_bounds() && to.in_bounds();
    debug_assert!(fits && inside, "a matrix must fit its transpose and both their slices");
    if !(fits && inside) {
        return;
    }
    let (rows, columns) = (from.rows, from.columns);
    // SAFETY: element (i, j) lies inside `from`, (j, i) inside `to`; whole registers are taken only
    // where they exist.
    unsafe {
        let (a, b) = (from.data.as_ptr(), to.data.as_mut_ptr());
        let mut i = 0;
        while i < rows {
            let whole = V::LANES > 1 && i + V::LANES <= rows;
            let height = if whole { V::LANES } else { rows - i };
            let mut j = 0;
            while whole && j + V::LANES <= columns {
                let to_here = b.add(j * to.row_stride + i);
                V::transpose(
                    a.add(i * from.row_stride + j),
                    from.row_stride,
                    to_here,
                    to.row_stride,
                );
                j += V::LANES;
            }
            while j < columns {
                for i in i..i + height {
                    *b.add(j * to.row_stride + i) = *a.add(i * from.row_stride + j);
                }
                j += 1;
            }
            i += height;
        }
    }
}

/// Picks the instance of the tile for a number of rows.
///
/// # Safety
/// That of [`tile`]; the number of rows and of registers is one that the machine's tiles can have.
#[inline(always)]
pub(super) unsafe fn by_rows<T: Tiles, const TURN: u8>(t: &Tile, rows: usize, vectors: usize) {
    // SAFETY: passed on.
    unsafe {
        match rows {
            1 => by_vectors::<T, 1, TURN>(t, vectors),
            2 => by_vectors::<T, 2, TURN>(t, vectors),
            3 => by_vectors::<T, 3, TURN>(t, vectors),
            4 => by_vectors::<T, 4, TURN>(t, vectors),
            5 if T::TALL >= 5 => by_vectors::<T, 5, TURN>(t, vectors),
            6 if T::TALL >= 6 => by_vectors::<T, 6, TURN>(t, vectors),
            7 if T::TALL >= 7 => by_vectors::<T, 7, TURN>(t, vectors),
            8 if T::TALL >= 8 => by_vectors::<T, 8, TURN>(t, vectors),
            9 if T::TALL >= 9 => by_vectors::<T, 9, TURN>(t, vectors),
            10 if T::TALL >= 10 => by_vectors::<T, 10, TURN>(t, vectors),
            11 if T::TALL >= 11 => by_vectors::<T, 11, TURN>(t, vectors),
            12 if T::TALL >= 12 => by_vectors::<T, 12, TURN>(t, vectors),
            _ => {}
        }
    }
}

/// Picks the instance of the tile for a number of registers.
///
/// # Safety
/// That of [`by_rows`].
#[inline(always)]
unsafe fn by_vectors<T: Tiles, const M: usize, const TURN: u8>(t: &Tile, vectors: usize) {
    // SAFETY: passed on.
    unsafe {
        match vectors {
            1 => by_lanes::<T, M, 1, TURN>(t),
            2 if T::VECTORS >= 2 => by_lanes::<T, M, 2, TURN>(t),
            3 if T::VECTORS >= 3 && M <= T::ROWS => by_lanes::<T, M, 3, TURN>(t),
            4 if T::VECTORS >= 4 && M <= T::ROWS => by_lanes::<T, M, 4, TURN>(t),
            _ => {}
        }
    }
}

/// Picks the instance of the tile for how its columns lie.
///
/// # Safety
/// That of [`by_rows`].
#[inline(always)]
unsafe fn by_lanes<T: Tiles, const M: usize, const N: usize, const TURN: u8>(t: &Tile) {
    // SAFETY: passed on.
    unsafe {
        // A machine that reads scattered columns one by one reads a narrow edge so too: one instance
        // less of every tile.
        debug_assert!(
            !T::WIDE || t.b_lane == 1,
            "a machine with wide tiles packs scattered columns"
        );
        let scattered = !T::WIDE && (t.b_lane != 1 || t.last < lanes::<T>());
        let half = <T::Half as Vector>::LANES;
        let halved = N == 1 && half < lanes::<T>() && t.last == half;
        let partial = T::WIDE && t.last < lanes::<T>() && (N == 1 || !cfg!(target_arch = "wasm32"));
        match (TURN == TURNED, scattered, halved, partial) {
            (false, true, ..) => T::tile::<M, N, SCATTERED>(t),
            (false, _, true, _) => T::tile::<M, N, HALF>(t),
            (false, _, _, true) => T::tile::<M, N, PARTIAL>(t),
            (false, ..) => T::tile::<M, N, WHOLE>(t),
            (true, true, ..) => T::tile::<M, N, { TURNED | SCATTERED }>(t),
            (true, _, true, _) => T::tile::<M, N, { TURNED | HALF }>(t),
            (true, _, _, true) => T::tile::<M, N, { TURNED | PARTIAL }>(t),
            (true, ..) => T::tile::<M, N, { TURNED | WHOLE }>(t),
        }
    }
}

/// All lanes exist and lie side by side.
pub(super) const WHOLE: u8 = 0;
/// The last register has fewer lanes.
const PARTIAL: u8 = 1;
/// The lanes of B do not lie side by side, and the last register may have fewer.
const SCATTERED: u8 = 2;
/// There is one register of half the lanes: to the tile, all of its.
pub(super) const HALF: u8 = 3;
/// Beside one of these: A is read along its columns.
pub(super) const TURNED: u8 = 4;
/// A is read along its rows.
pub(super) const STRAIGHT: u8 = 0;

/// What the lanes of a tile say. Constants, not variables: a closure that captures one is not inlined
/// everywhere.
struct Lanes<const LANES: u8>;

impl<const LANES: u8> Lanes<LANES> {
    const KIND: u8 = LANES & !TURNED;
    const TURNED: bool = LANES & TURNED != 0;
}

/// One tile: M rows of A against N registers of columns.
///
/// # Safety
/// A's M rows and B's N registers exist over the depth, C's M × N registers exist, the last register
/// of each in its first `last` lanes only. A start of columns points at as many floats.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const M: usize, const N: usize, const LANES: u8>(t: &Tile) {
    // SAFETY: by the contract above, every address below is inside its operand.
    unsafe {
        let a_step = if Lanes::<LANES>::TURNED { t.a_step } else { 1 };
        let whole = |n: usize| Lanes::<LANES>::KIND == WHOLE || n + 1 < N;
        let load =
            |p: *const f32, n: usize| if whole(n) { V::load(p) } else { V::load_first(p, t.last) };
        // Where the lanes of the last register lie; a lane that does not exist is another one again.
        let mut places = [0; BLOCK];
        if Lanes::<LANES>::KIND == SCATTERED {
            for (i, place) in places.iter_mut().enumerate().take(V::LANES) {
                *place = if i < t.last { i * t.b_lane } else { 0 };
            }
        }
        let load_b = |p: *const f32, n: usize| {
            if Lanes::<LANES>::KIND == SCATTERED {
                let mut lanes = [0.0; BLOCK];
                for (i, lane) in lanes.iter_mut().enumerate().take(V::LANES) {
                    let place = if n + 1 < N { i * t.b_lane } else { places[i] };
                    *lane = *p.add(place);
                }
                V::load(lanes.as_ptr())
            } else {
                load(p, n)
            }
        };
        // Where register n of a row of B begins: registers fill blocks.
        let b_lane = if Lanes::<LANES>::KIND == SCATTERED { t.b_lane } else { 1 };
        let b_offset =
            |n: usize| (n * V::LANES / BLOCK) * t.b_block + (n * V::LANES % BLOCK) * b_lane;
        let c_offset = |n: usize| n * V::LANES;
        let mut acc = [[V::splat(0.0); N]; M];
        match t.start {
            TileStart::Zero => {}
            TileStart::Keep => {
                for (m, row) in acc.iter_mut().enumerate() {
                    for (n, acc) in row.iter_mut().enumerate() {
                        *acc = load(t.c.add(m * t.c_row + c_offset(n)), n);
                        // The tile below is next.
                        V::prefetch(t.c.wrapping_add((M + m) * t.c_row + c_offset(n)));
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
        }
        // 4. The depth.
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            if M == 1 {
                // Each register of B is used once: with all of them at hand, the widest tile would
                // not fit a machine of sixteen.
                let a_here = V::broadcast(a);
                for (n, acc) in acc.as_flattened_mut().iter_mut().enumerate() {
                    *acc = acc.accumulate(a_here, load_b(b.add(b_offset(n)), n));
                    if Lanes::<LANES>::KIND == WHOLE {
                        V::prefetch(b.wrapping_add(b_offset(n) + FURTHER_AHEAD * t.b_row));
                    }
                }
                a = a.wrapping_add(a_step);
                b = b.wrapping_add(t.b_row);
                continue;
            }
            let mut b_row = [V::splat(0.0); N];
            for (n, b_row) in b_row.iter_mut().enumerate() {
                *b_row = load_b(b.add(b_offset(n)), n);
                if Lanes::<LANES>::KIND == WHOLE {
                    V::prefetch(b.wrapping_add(b_offset(n) + AHEAD * t.b_row));
                }
            }
            for (m, row) in acc.iter_mut().enumerate() {
                let a = V::broadcast(a.add(m * t.a_row));
                for (acc, b) in row.iter_mut().zip(b_row) {
                    *acc = acc.accumulate(a, b);
                }
            }
            a = a.wrapping_add(a_step);
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
                let p = t.c.add(m * t.c_row + c_offset(n));
                if whole(n) { acc.store(p) } else { acc.store_first(p, t.last) }
            }
        }
    }
}

/// The largest logit of each row of a tile, and how far its logits lie apart.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn tops<V: Vector>(
    tile: &MatrixMut<'_>,
    maxima: &[f32],
    tops: &mut [f32],
) -> Spread {
    // SAFETY: the instructions are the caller's promise.
    if !V::ROWS && !unsafe { may_be_wide::<V>(tile, maxima, tops) } {
        return Spread::Far;
    }
    let (mut wide, mut near) = (false, V::ROWS);
    for (row, (top, &m)) in tops.iter_mut().zip(maxima).enumerate().take(tile.rows) {
        let row = tile.row(row);
        // SAFETY: the instructions are the caller's promise.
        let (highest, lowest, numbers) = unsafe {
            V::extremes(row).unwrap_or_else(|| {
                let (highest, lowest) = extremes::<V>(row);
                (highest, lowest, false)
            })
        };
        let first = m == f32::NEG_INFINITY;
        if !(first && numbers && highest + 1.0 - lowest <= softmax::WIDE) {
            let against = if m > highest { m } else { highest };
            near &= numbers && against + 1.0 - lowest <= softmax::WIDE;
            wide |= softmax::is_wide(m, highest, lowest);
        }
        *top = highest;
    }
    if wide {
        Spread::Wide
    } else if near {
        Spread::Near
    } else {
        Spread::Far
    }
}

/// The tops of a tile, and whether a row of it may be wide, judged by the smallest logit of all rows:
/// hardly ever, and for a fraction of the work of looking at every row.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
unsafe fn may_be_wide<V: Vector>(tile: &MatrixMut<'_>, maxima: &[f32], tops: &mut [f32]) -> bool {
    // SAFETY: a chunk has as many floats as a register, and what is left fewer.
    unsafe {
        let (nothing, all) = (V::splat(f32::NEG_INFINITY), V::splat(f32::INFINITY));
        let (mut low, mut highest, mut far) = (all, f32::NEG_INFINITY, false);
        for (row, (top, &m)) in tops.iter_mut().zip(maxima).enumerate().take(tile.rows) {
            let mut high = nothing;
            let row = tile.row(row);
            let chunks = row.chunks_exact(V::LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                let l = V::load(chunk.as_ptr());
                (high, low) = (l.max(high), l.min(low));
            }
            if !rest.is_empty() {
                high = V::load_first_or(rest.as_ptr(), rest.len(), nothing).max(high);
                low = V::load_first_or(rest.as_ptr(), rest.len(), all).min(low);
            }
            *top = high.highest();
            highest = if *top > highest { *top } else { highest };
            if m > f32::NEG_INFINITY {
                far |= *top + 1.0 - m > softmax::WIDE;
            }
        }
        // Of a hidden key the smallest is −∞, which only a look at the row can tell from far below.
        far || highest + 1.0 - low.lowest() > softmax::WIDE
    }
}

/// The largest element of a row, and the smallest that is not −∞. NaN is passed over; of nothing:
/// (−∞, +∞).
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
unsafe fn extremes<V: Vector>(row: &[f32]) -> (f32, f32) {
    // SAFETY: a chunk has as many floats as a register, and what is left fewer.
    unsafe {
        let (nothing, all) = (V::splat(f32::NEG_INFINITY), V::splat(f32::INFINITY));
        let (mut high, mut low) = (nothing, all);
        let chunks = row.chunks_exact(V::LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            let l = V::load(chunk.as_ptr());
            (high, low) = (l.max(high), l.min(low));
        }
        if !rest.is_empty() {
            high = V::load_first_or(rest.as_ptr(), rest.len(), nothing).max(high);
            low = V::load_first_or(rest.as_ptr(), rest.len(), all).min(low);
        }
        let (highest, mut lowest) = (high.highest(), low.lowest());
        if lowest == f32::NEG_INFINITY {
            // Some are hidden: look again, past them.
            low = all;
            let chunks = row.chunks_exact(V::LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                low = V::load(chunk.as_ptr()).replace_neg_inf(all).min(low);
            }
            if !rest.is_empty() {
                let l = V::load_first_or(rest.as_ptr(), rest.len(), all);
                low = l.replace_neg_inf(all).min(low);
            }
            lowest = low.lowest();
        }
        (highest, lowest)
    }
}

/// Takes a tile of logits into the softmax: raises each row's maximum to that of its top, shifts the
/// row's sums and what is mixed of its values, turns its logits into weights and adds them to the
/// sums, each to the one of its place modulo 16. See [`softmax`].
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn advance<V: Vector>(
    tile: &mut MatrixMut<'_>,
    tops: &[f32],
    maxima: &mut [f32],
    sums: &mut [[f32; BLOCK]],
    mut mixed: Option<&mut MatrixMut<'_>>,
    near: bool,
) {
    for row in 0..tile.rows {
        let (Some(&top), Some(m), Some(sums)) =
            (tops.get(row), maxima.get_mut(row), sums.get_mut(row))
        else {
            return;
        };
        let raised = softmax::ceil(top);
        if raised > *m {
            let factor = softmax::shift(*m, raised);
            if *m > f32::NEG_INFINITY {
                sums.iter_mut().for_each(|sum| softmax::shift_weight(sum, factor));
            }
            if let Some(mixed) = &mut mixed {
                let x = mixed.row_mut(row);
                if *m > f32::NEG_INFINITY {
                    x.iter_mut().for_each(|x| softmax::shift_mixed(x, factor));
                } else {
                    x.fill(0.0);
                }
            }
            *m = raised;
        }
        let logits = tile.row_mut(row);
        let against = finite(*m, logits);
        // SAFETY: the instructions are the caller's promise; the sums are sixteen floats.
        unsafe {
            if V::weigh(logits, against, sums, near) {
                continue;
            }
            let mut acc = load_sums::<V>(sums);
            weigh::<V>(logits, against, &mut acc);
            for (i, acc) in acc.iter().enumerate().take(BLOCK / V::LANES) {
                acc.store(sums.as_mut_ptr().add(i * V::LANES));
            }
        }
    }
}

/// [`advance`] for rows of which this tile is everything: each top becomes what the row is to be
/// multiplied by in the end, [`softmax::normaliser`] of its sum.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn settle<V: Vector>(
    tile: &mut MatrixMut<'_>,
    tops: &mut [f32],
    maxima: &mut [f32],
    near: bool,
) {
    // Where registers are wide, what every row needs once is done for many rows at once.
    let together = V::LANES >= 8;
    if together {
        let rows = tops.iter().zip(maxima.iter_mut()).take(tile.rows);
        rows.for_each(|(top, m)| *m = softmax::ceil(*top));
    }
    for (row, (top, m)) in tops.iter_mut().zip(maxima).enumerate().take(tile.rows) {
        if !together {
            *m = softmax::ceil(*top);
        }
        let logits = tile.row_mut(row);
        let against = if near { *m } else { finite(*m, logits) };
        // SAFETY: the instructions are the caller's promise.
        unsafe {
            if let Some(sum) = V::weigh_all(logits, against, near) {
                *top = softmax::normaliser(sum);
                continue;
            }
            let mut acc = [V::splat(0.0); BLOCK];
            weigh::<V>(logits, against, &mut acc);
            // The tree of `softmax::total`: halves onto each other, registers first.
            let mut registers = BLOCK / V::LANES;
            while registers > 1 {
                registers /= 2;
                for i in 0..registers {
                    acc[i] = acc[i].add(acc[i + registers]);
                }
            }
            *top = acc[0].sum();
            if !together {
                *top = softmax::normaliser(*top);
            }
        }
    }
    if together {
        let rows = tops.iter_mut().take(tile.rows);
        rows.for_each(|top| *top = softmax::normaliser(*top));
    }
}

/// A maximum to subtract: of an infinite one, 0, with a row's logits changed so that keys at +∞ share
/// the row and NaN stays NaN.
#[inline(always)]
fn finite(m: f32, logits: &mut [f32]) -> f32 {
    if m == f32::INFINITY {
        for logit in logits {
            *logit = if *logit == f32::INFINITY {
                0.0
            } else if logit.is_nan() {
                *logit
            } else {
                f32::NEG_INFINITY
            };
        }
    }
    if m.abs() == f32::INFINITY { 0.0 } else { m }
}

/// Partial sums in registers.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
unsafe fn load_sums<V: Vector>(sums: &[f32; BLOCK]) -> [V; BLOCK] {
    // SAFETY: sixteen floats, a multiple of the lanes.
    unsafe {
        let mut acc = [V::splat(0.0); BLOCK];
        for (i, acc) in acc.iter_mut().enumerate().take(BLOCK / V::LANES) {
            *acc = V::load(sums.as_ptr().add(i * V::LANES));
        }
        acc
    }
}

/// Weights from the logits of a row against a finite maximum, added to their sums.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
unsafe fn weigh<V: Vector>(row: &mut [f32], m: f32, acc: &mut [V; BLOCK]) {
    // SAFETY: a block has sixteen floats, a multiple of the lanes, the last block as many as are
    // left.
    unsafe {
        let m = V::splat(m);
        let registers = BLOCK / V::LANES;
        let mut blocks = row.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            for (i, acc) in acc.iter_mut().enumerate().take(registers) {
                let p = block.as_mut_ptr().add(i * V::LANES);
                let weight = weight::<V>(V::load(p), m);
                weight.store(p);
                *acc = acc.add(weight);
            }
        }
        let rest = blocks.into_remainder();
        for (i, acc) in acc.iter_mut().enumerate().take(registers) {
            let n = rest.len().saturating_sub(i * V::LANES).min(V::LANES);
            if n == 0 {
                break;
            }
            let p = rest.as_mut_ptr().add(i * V::LANES);
            let logits = V::load_first_or(p, n, V::splat(f32::NEG_INFINITY));
            let weight = weight::<V>(logits, m);
            weight.store_first(p, n);
            *acc = acc.add(weight);
        }
    }
}

/// `2^(l − m)`.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn weight<V: Vector>(l: V, m: V) -> V {
    // SAFETY: the instructions are the caller's promise.
    unsafe {
        let n = l.round();
        let f = l.sub(n);
        let mut p = V::splat(EXP2[6]);
        for &coefficient in EXP2[..6].iter().rev() {
            p = p.mul_add(f, V::splat(coefficient));
        }
        p.scale_by_power(n.sub(m))
    }
}

/// Multiplies each row by its factor; a factor of 0 clears the row, whatever it holds.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn scale_rows<V: Vector>(rows: &mut MatrixMut<'_>, factors: &[f32]) {
    for (row, &factor) in factors.iter().enumerate().take(rows.rows) {
        let x = rows.row_mut(row);
        if factor == 0.0 {
            x.fill(0.0);
        } else {
            // SAFETY: the instructions are the caller's promise.
            unsafe { scale::<V>(x, factor) };
        }
    }
}

/// Multiplies a row by a factor.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
unsafe fn scale<V: Vector>(row: &mut [f32], factor: f32) {
    // SAFETY: the instructions are the caller's promise.
    if unsafe { V::scale(row, factor) } {
        return;
    }
    let mut chunks = row.chunks_exact_mut(V::LANES);
    // SAFETY: a chunk has as many floats as a register, what is left fewer.
    unsafe {
        let by = V::splat(factor);
        for chunk in &mut chunks {
            V::load(chunk.as_ptr()).mul(by).store(chunk.as_mut_ptr());
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let x = V::load_first(rest.as_ptr(), rest.len());
            x.mul(by).store_first(rest.as_mut_ptr(), rest.len());
        }
    }
}

/// The way back through the softmax: each gradient becomes its weight times what it is above the row's
/// delta; 0 where there is no weight, whatever the gradient.
///
/// # Safety
/// The machine has `V`'s instructions.
#[inline(always)]
pub(super) unsafe fn differentiate<V: Vector>(
    weights: Matrix<'_>,
    gradients: &mut MatrixMut<'_>,
    deltas: &[f32],
) {
    for (row, &delta) in deltas.iter().enumerate().take(gradients.rows) {
        let at = row * weights.row_stride;
        let weights = weights.data.get(at..at + weights.columns).unwrap_or_default();
        let gradients = gradients.row_mut(row);
        let mut weights = weights.chunks_exact(V::LANES);
        let mut gradients = gradients.chunks_exact_mut(V::LANES);
        // SAFETY: a chunk has as many floats as a register, what is left fewer; the instructions are the
        // caller's promise.
        unsafe {
            let delta = V::splat(delta);
            for (w, g) in (&mut weights).zip(&mut gradients) {
                let (w, p) = (V::load(w.as_ptr()), g.as_mut_ptr());
                w.where_positive(w.mul(V::load(p).sub(delta))).store(p);
            }
            let (weights, gradients) = (weights.remainder(), gradients.into_remainder());
            let n = weights.len().min(gradients.len());
            if n > 0 {
                let (w, p) = (V::load_first(weights.as_ptr(), n), gradients.as_mut_ptr());
                w.where_positive(w.mul(V::load_first(p, n).sub(delta))).store_first(p, n);
            }
        }
    }
}
