//! The product in tiles of 4 × 4, whose loops are somebody else's: the single registers' or Helium's.

use crate::kernel::matrix::{Columns, Matrix, MatrixMut, Start};
use crate::softmax::BLOCK;

/// How a machine computes tiles of 4 × 4.
pub(in crate::kernel) trait Tiles {
    /// Panels of a B whose rows are contiguous.
    ///
    /// # Safety
    /// What the panels say exists.
    unsafe fn by_rows(panels: &mut Panels);

    /// Panels of a B whose columns are contiguous.
    ///
    /// # Safety
    /// What the panels say exists.
    unsafe fn by_columns(panels: &mut Panels);

    /// One row of A against a B whose rows are contiguous, eight columns at a time.
    ///
    /// # Safety
    /// What is described exists, and something of it.
    unsafe fn row(row: &mut Row);

    /// Adds four dot products of `depth` to four sums: of vectors that begin at `at` with one that
    /// begins at `one`. Distances between elements are in bytes.
    ///
    /// # Safety
    /// All five vectors have that many elements; there is at least one.
    unsafe fn dots(
        sums: &mut [f32; TILE],
        at: &[*const f32; TILE],
        along: usize,
        one: *const f32,
        one_along: usize,
        depth: usize,
    );
}

/// Rows and columns of a tile.
pub(in crate::kernel) const TILE: usize = 4;

/// Columns of a single row that are taken at once.
const EIGHT: usize = 8;

/// Panels of four columns of C, a tile after another in each. Distances are in bytes; the assembly relies
/// on the order. The four rows of a tile lie at 0, `first`, `second`, and their sum.
#[repr(C)]
pub(in crate::kernel) struct Panels {
    start: *const f32,
    start_first: usize,
    start_second: usize,
    a: *const f32,
    a_first: usize,
    a_second: usize,
    b: *const f32,
    /// To the next row of B, or where its columns are contiguous to the next of these.
    b_step: usize,
    depth: usize,
    c: *mut f32,
    c_first: usize,
    c_second: usize,
    /// What the sums are multiplied by, or null.
    scale: *const f32,
    /// Tiles that are left of a panel.
    tiles: usize,
    /// To the next tile.
    start_tile: usize,
    a_tile: usize,
    c_tile: usize,
    /// Panels that are left.
    panels: usize,
    /// From the last tile of a panel to the first of the next.
    start_panel: usize,
    a_panel: usize,
    c_panel: usize,
    b_panel: usize,
    /// Tiles of each panel.
    height: usize,
    /// Panels that are left of a block of B, and what is to go to the next beyond `b_panel`.
    in_block: usize,
    b_block: usize,
}

/// Eights of columns of a single row of C. Distances are in bytes; the assembly relies on the order.
#[repr(C)]
pub(in crate::kernel) struct Row {
    start: *const f32,
    /// To the start of the next eight.
    start_step: usize,
    a: *const f32,
    b: *const f32,
    /// To the next row of B.
    b_row: usize,
    depth: usize,
    c: *mut f32,
    scale: *const f32,
    /// Eights that are left.
    eights: usize,
    /// Eights that are left of a block of B, 2 or 1, and what is to go to the next beyond 32.
    in_block: usize,
    b_block: usize,
}

/// What the sums of a product without a start begin with.
static ZEROS: [f32; EIGHT] = [0.0; EIGHT];

/// `c = start + a · b`, times `scale`, a block of C's columns after another.
pub(in crate::kernel) fn product<T: Tiles>(
    a: Matrix<'_>,
    b: Columns<'_>,
    c: &mut MatrixMut<'_>,
    start: Start<'_>,
    scale: Option<f32>,
) {
    let mut j = 0;
    loop {
        let (at, columns) = c.column(j);
        let from = (j / BLOCK) * b.block_stride + (j % BLOCK) * b.column_stride;
        let b = Columns { data: b.data.get(from..).unwrap_or(&[]), columns, ..b };
        let start = match start {
            Start::Columns(bias) => Start::Columns(bias.get(j..).unwrap_or(&[])),
            start => start,
        };
        let (rows, row_stride) = (c.rows, c.row_stride);
        let data = c.data.get_mut(at..).unwrap_or_default();
        block::<T>(a, b, &mut MatrixMut::new(data, rows, columns, row_stride), start, scale);
        j += columns;
        if j >= c.columns {
            break;
        }
    }
}

/// `c = start + a · b`, times `scale`, where all of C's columns lie side by side.
#[inline(never)]
fn block<T: Tiles>(
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
    let fits = a.rows == c.rows && a.columns == b.rows && b.columns == c.columns && starts;
    let inside = a.in_bounds() && b.in_bounds() && c.in_bounds();
    debug_assert!(fits && inside, "a product's views must fit each other and their slices");
    if !(fits && inside) {
        return;
    }
    let depth = a.columns;
    let contiguous = b.column_stride == 1;
    // Where the sums of a column begin, and how far it is to those of the next column and row.
    let (start_at, start_column, start_row) = match start {
        Start::Zero => (ZEROS.as_ptr(), 0, 0),
        Start::Keep => (c.data.as_ptr(), 1, c.row_stride),
        Start::Columns(bias) => (bias.as_ptr(), 1, 0),
    };
    let start_at = |j: usize| start_at.wrapping_add(j * start_column);
    let b_at = |j: usize| {
        let at = (j / BLOCK) * b.block_stride + (j % BLOCK) * b.column_stride;
        b.data.as_ptr().wrapping_add(at)
    };
    let mut done = 0;

    // 1. Columns in fours: all whole tiles, then the rows that are left.
    if c.rows > 1 && c.columns >= TILE && (contiguous || b.row_stride == 1) {
        done = c.columns / TILE * TILE;
        let [a_row, c_row, start_row, b_row, b_column, b_block] = [
            a.row_stride,
            c.row_stride,
            start_row,
            b.row_stride,
            b.column_stride,
            b.block_stride.wrapping_sub(BLOCK * b.column_stride),
        ]
        .map(|floats| size_of::<f32>().wrapping_mul(floats));
        let rest = c.rows % TILE;
        let parts = [(0, c.rows / TILE, 1, 2), (c.rows - rest, rest.min(1), rest / 2, rest / 3)];
        for (row, tiles, first, second) in parts {
            if tiles == 0 {
                continue;
            }
            let back = |row: usize| 0usize.wrapping_sub((tiles - 1) * TILE * row);
            let mut panels = Panels {
                start: start_at(0).wrapping_byte_add(row * start_row),
                start_first: first * start_row,
                start_second: second * start_row,
                a: a.data.as_ptr().wrapping_byte_add(row * a_row),
                a_first: first * a_row,
                a_second: second * a_row,
                b: b.data.as_ptr(),
                b_step: if contiguous { b_row } else { b_column },
                depth,
                c: c.data.as_mut_ptr().wrapping_byte_add(row * c_row),
                c_first: first * c_row,
                c_second: second * c_row,
                scale: scale.as_ref().map_or(core::ptr::null(), |scale| scale),
                tiles,
                start_tile: TILE * start_row,
                a_tile: TILE * a_row,
                c_tile: TILE * c_row,
                panels: done / TILE,
                start_panel: back(start_row).wrapping_add(size_of::<[f32; TILE]>() * start_column),
                a_panel: back(a_row),
                c_panel: back(c_row).wrapping_add(size_of::<[f32; TILE]>()),
                b_panel: TILE * b_column,
                height: tiles,
                in_block: BLOCK / TILE,
                b_block,
            };
            // SAFETY: the tiles' rows and columns lie inside the views, and a start of columns points at
            // as many floats.
            unsafe {
                if contiguous {
                    T::by_rows(&mut panels);
                } else {
                    T::by_columns(&mut panels);
                }
            }
        }
    }

    // 2. One row, columns in eights.
    if c.rows == 1 && contiguous && c.columns >= EIGHT && depth > 0 {
        let eights = c.columns / EIGHT;
        done = eights * EIGHT;
        let mut row = Row {
            start: start_at(0),
            start_step: size_of::<[f32; EIGHT]>() * start_column,
            a: a.data.as_ptr(),
            b: b.data.as_ptr(),
            b_row: size_of::<f32>() * b.row_stride,
            depth,
            c: c.data.as_mut_ptr(),
            scale: scale.as_ref().map_or(core::ptr::null(), |scale| scale),
            eights,
            in_block: BLOCK / EIGHT,
            b_block: size_of::<f32>().wrapping_mul(b.block_stride.wrapping_sub(BLOCK)),
        };
        // SAFETY: as above.
        unsafe { T::row(&mut row) };
    }

    // 3. What is left: of one row four columns at a time, otherwise of one column four rows.
    while done < c.columns {
        let one_row = c.rows == 1;
        let count = if one_row { c.columns - done } else { c.rows };
        for i in (0..count.min(if one_row { TILE } else { count })).step_by(TILE) {
            let here = (count - i).min(TILE);
            let c_at = c.data.as_mut_ptr().wrapping_add(i * c.row_stride + done);
            let starts = start_at(done).wrapping_add(i * start_row);
            let a_at = a.data.as_ptr().wrapping_add(i * a.row_stride);
            let (many, one, starts, out) = if one_row {
                // Four columns are four rows of Bᵀ against it.
                let many = Many { at: b_at(done), step: b.column_stride, along: b.row_stride };
                (many, (a_at, 1), (starts, start_column), (c_at, 1))
            } else {
                let many = Many { at: a_at, step: a.row_stride, along: 1 };
                (many, (b_at(done), b.row_stride), (starts, start_row), (c_at, c.row_stride))
            };
            // SAFETY: as above.
            unsafe { strip::<T>(many, one, depth, starts, out, here, scale) };
        }
        done += if one_row { TILE } else { 1 };
    }
}

/// Vectors that are multiplied with one other: from one to the next, and from an element to the next.
#[derive(Clone, Copy)]
struct Many {
    at: *const f32,
    step: usize,
    along: usize,
}

/// `here` dot products, at most four, of many vectors with one.
///
/// # Safety
/// All vectors have `depth` elements; there are `here` of the many, of the starts and of the outputs.
#[inline(never)]
unsafe fn strip<T: Tiles>(
    many: Many,
    one: (*const f32, usize),
    depth: usize,
    starts: (*const f32, usize),
    out: (*mut f32, usize),
    here: usize,
    scale: Option<f32>,
) {
    // SAFETY: one that does not exist is the first again; the rest is the contract.
    unsafe {
        let place = |i: usize| if i < here { i } else { 0 };
        let mut sums = [0.0; TILE];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = *starts.0.add(place(i) * starts.1);
        }
        let at = core::array::from_fn(|i| many.at.wrapping_add(place(i) * many.step));
        let [along, one_along] = [many.along, one.1].map(|floats| size_of::<f32>() * floats);
        if depth > 0 {
            T::dots(&mut sums, &at, along, one.0, one_along, depth);
        }
        for (i, sum) in sums.into_iter().enumerate().take(here) {
            *out.0.add(i * out.1) = scale.map_or(sum, |scale| sum * scale);
        }
    }
}
