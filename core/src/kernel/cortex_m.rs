//! The portable kernel's loops for Arm's single-precision registers, in assembly: Cortex-M4F, M7, M33,
//! and whatever else has 32 of them.
//!
//! The bits are [`portable`](super::portable)'s, because the operations are: a product and a sum, each
//! rounded. What the compiler cannot be brought to do is keep a tile of sixteen sums, eight floats of A
//! and four of B in 32 registers without a spill, and load several with one instruction. A tile:
//!
//! ```text
//!   s0–s15    sums, 4 × 4           s24–s27   B, a row of four (or a pair of one column)
//!   s16–s23   A, four rows, two k   s28–s31   products on their way to the sums
//! ```
//!
//! A tile with fewer rows takes some of them twice: it computes and stores the same bits twice. Columns
//! beyond the last four are taken one by one, and so is a single row.
//!
//! The processors differ in one thing. M4 and M33 take three cycles for a multiply-add and one each for
//! a product and a sum; M7 takes one for either: the feature `cortex-m7` chooses. (`vmla` rounds twice:
//! it is no fused multiply-add.)

use core::arch::naked_asm;

use super::generic;
use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::portable::Portable;
use crate::softmax::{self, BLOCK, EXP2};

pub(crate) struct CortexMKernel;

impl super::Kernel for CortexMKernel {
    fn product(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
    ) {
        product::<Self>(a, b, c, start, scale);
    }

    fn turn(from: Matrix<'_>, to: &mut MatrixMut<'_>) {
        // SAFETY: the portable vector asks for no instructions; so below.
        unsafe { generic::turn::<Portable>(from, to) }
    }

    fn tops(tile: &MatrixMut<'_>, maxima: &[f32], tops: &mut [f32]) -> bool {
        // SAFETY: as above.
        unsafe { generic::tops::<Portable>(tile, maxima, tops) }
    }

    fn advance(
        tile: &mut MatrixMut<'_>,
        tops: &[f32],
        maxima: &mut [f32],
        sums: &mut [[f32; BLOCK]],
        mixed: Option<&mut MatrixMut<'_>>,
    ) {
        // SAFETY: as above.
        unsafe { generic::advance::<Portable>(tile, tops, maxima, sums, mixed) }
    }

    fn settle(tile: &mut MatrixMut<'_>, tops: &mut [f32], maxima: &mut [f32]) {
        // SAFETY: as above.
        unsafe { generic::settle::<Portable>(tile, tops, maxima) }
    }

    fn scale_rows(rows: &mut MatrixMut<'_>, factors: &[f32]) {
        // SAFETY: as above.
        unsafe { generic::scale_rows::<Portable>(rows, factors) }
    }
}

/// How a machine computes tiles of 4 × 4.
pub(super) trait Tiles {
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

impl Tiles for CortexMKernel {
    unsafe fn by_rows(panels: &mut Panels) {
        // SAFETY: passed on.
        unsafe { by_rows(panels) }
    }

    unsafe fn by_columns(panels: &mut Panels) {
        // SAFETY: passed on.
        unsafe { by_columns(panels) }
    }

    unsafe fn row(row: &mut Row) {
        // SAFETY: passed on.
        unsafe { by_row(row) }
    }

    unsafe fn dots(
        sums: &mut [f32; TILE],
        at: &[*const f32; TILE],
        along: usize,
        one: *const f32,
        one_along: usize,
        depth: usize,
    ) {
        // SAFETY: passed on.
        unsafe { dots(sums, at, along, one, one_along, depth) }
    }
}

/// Rows and columns of a tile.
pub(super) const TILE: usize = 4;

/// Panels of four columns of C, a tile after another in each. Distances are in bytes; the assembly relies
/// on the order. The four rows of a tile lie at 0, `first`, `second`, and their sum.
#[repr(C)]
pub(super) struct Panels {
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
pub(super) struct Row {
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

/// `c = start + a · b`, times `scale`.
#[inline(never)]
pub(super) fn product<T: Tiles>(
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

/// Four sums, each plus the product of its A and one B or of one A and its B.
#[cfg(not(feature = "cortex-m7"))]
macro_rules! accumulate {
    ($($sum:literal $a:literal $b:literal),*) => {
        concat!(accumulate!(@ "vmul.f32 s28, ", "vmul.f32 s29, ", "vmul.f32 s30, ", "vmul.f32 s31, ";
            $($a $b),*), accumulate!(+ "s28", "s29", "s30", "s31"; $($sum),*))
    };
    (@ $($mul:literal),*; $($a:literal $b:literal),*) => {
        concat!($($mul, $a, ", ", $b, "\n"),*)
    };
    (+ $($product:literal),*; $($sum:literal),*) => {
        concat!($("vadd.f32 ", $sum, ", ", $sum, ", ", $product, "\n"),*)
    };
}
#[cfg(feature = "cortex-m7")]
macro_rules! accumulate {
    ($($sum:literal $a:literal $b:literal),*) => {
        concat!($("vmla.f32 ", $sum, ", ", $a, ", ", $b, "\n"),*)
    };
}

/// Names the registers to the assembler, which does not hear of the target's features where link-time
/// optimisation is to come.
macro_rules! fpu {
    () => {
        ".fpu fpv4-sp-d16"
    };
}

/// The start of a tile: `r0` is the panels; the sums are loaded, then `r4`–`r7` are the rows of A, `r8`
/// is B, `r9` its step and `lr` the depth.
macro_rules! begin {
    () => {
        "ldm r0, {{r1-r6, r8-r10}}
         vldmia r1, {{s0-s3}}
         add r7, r1, r2
         vldmia r7, {{s4-s7}}
         add r1, r1, r3
         vldmia r1, {{s8-s11}}
         add r7, r7, r3
         vldmia r7, {{s12-s15}}
         add r5, r4, r5
         add r7, r5, r6
         add r6, r4, r6
         mov lr, r10
        "
    };
}

/// The end of a tile: scaled and stored; and on to the next tile or panel, at label 1.
macro_rules! finish {
    ($scale:literal, $first:literal, $second:literal, $third:literal, $fourth:literal) => {
        concat!(
            "add r1, r0, #36
         ldm r1, {{r2-r9}}
         cmp r5, #0
         beq 8f
         ",
            $scale,
            "
        8:
         ",
            $first,
            "
         add r1, r2, r3
         ",
            $second,
            "
         add r3, r2, r4
         ",
            $third,
            "
         add r1, r1, r4
         ",
            $fourth,
            "
         ldr r1, [r0]
         ldr r3, [r0, #12]
         subs r6, r6, #1
         beq 7f
         add r1, r1, r7
         add r3, r3, r8
         add r2, r2, r9
        6:
         str r1, [r0]
         str r3, [r0, #12]
         str r2, [r0, #36]
         str r6, [r0, #52]
         b 1b
        7:
         add r4, r0, #68
         ldm r4, {{r4-r11}}
         subs r4, r4, #1
         beq 9f
         str r4, [r0, #68]
         add r1, r1, r5
         add r3, r3, r6
         add r2, r2, r7
         mov r6, r9
         ldr r4, [r0, #24]
         add r4, r4, r8
         subs r10, r10, #1
         bne 8f
         add r4, r4, r11
         mov r10, #4
        8:
         str r4, [r0, #24]
         str r10, [r0, #92]
         b 6b
        9:
         vpop {{d8-d15}}
         pop {{r4-r11, pc}}"
        )
    };
}
#[cfg(feature = "helium")]
pub(super) use finish;

/// [`finish`] for single registers.
macro_rules! finish_singles {
    () => {
        finish!(
            "vldr s16, [r5]
             vmul.f32 s0, s0, s16
             vmul.f32 s1, s1, s16
             vmul.f32 s2, s2, s16
             vmul.f32 s3, s3, s16
             vmul.f32 s4, s4, s16
             vmul.f32 s5, s5, s16
             vmul.f32 s6, s6, s16
             vmul.f32 s7, s7, s16
             vmul.f32 s8, s8, s16
             vmul.f32 s9, s9, s16
             vmul.f32 s10, s10, s16
             vmul.f32 s11, s11, s16
             vmul.f32 s12, s12, s16
             vmul.f32 s13, s13, s16
             vmul.f32 s14, s14, s16
             vmul.f32 s15, s15, s16",
            "vstmia r2, {{s0-s3}}",
            "vstmia r1, {{s4-s7}}",
            "vstmia r3, {{s8-s11}}",
            "vstmia r1, {{s12-s15}}"
        )
    };
}

/// Panels of a B whose rows are contiguous.
///
/// # Safety
/// What the panels say exists.
#[unsafe(naked)]
unsafe extern "C" fn by_rows(panels: &mut Panels) {
    // An odd depth enters the loop half way.
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        "lsrs lr, lr, #1",
        "bcs 4f",
        "beq 5f",
        "2:",
        "vldmia r4!, {{s16, s17}}",
        "vldmia r5!, {{s18, s19}}",
        "vldmia r6!, {{s20, s21}}",
        "vldmia r7!, {{s22, s23}}",
        "vldmia r8, {{s24-s27}}",
        "add r8, r8, r9",
        accumulate!("s0" "s16" "s24", "s1" "s16" "s25", "s2" "s16" "s26", "s3" "s16" "s27"),
        accumulate!("s4" "s18" "s24", "s5" "s18" "s25", "s6" "s18" "s26", "s7" "s18" "s27"),
        accumulate!("s8" "s20" "s24", "s9" "s20" "s25", "s10" "s20" "s26", "s11" "s20" "s27"),
        accumulate!("s12" "s22" "s24", "s13" "s22" "s25", "s14" "s22" "s26", "s15" "s22" "s27"),
        "3:",
        "vldmia r8, {{s24-s27}}",
        "add r8, r8, r9",
        accumulate!("s0" "s17" "s24", "s1" "s17" "s25", "s2" "s17" "s26", "s3" "s17" "s27"),
        accumulate!("s4" "s19" "s24", "s5" "s19" "s25", "s6" "s19" "s26", "s7" "s19" "s27"),
        accumulate!("s8" "s21" "s24", "s9" "s21" "s25", "s10" "s21" "s26", "s11" "s21" "s27"),
        accumulate!("s12" "s23" "s24", "s13" "s23" "s25", "s14" "s23" "s26", "s15" "s23" "s27"),
        "subs lr, lr, #1",
        "bne 2b",
        "b 5f",
        "4:",
        "vldmia r4!, {{s17}}",
        "vldmia r5!, {{s19}}",
        "vldmia r6!, {{s21}}",
        "vldmia r7!, {{s23}}",
        "add lr, lr, #1",
        "b 3b",
        "5:",
        finish_singles!(),
    )
}

/// Panels of a B whose columns are contiguous.
///
/// # Safety
/// What the panels say exists.
#[unsafe(naked)]
unsafe extern "C" fn by_columns(panels: &mut Panels) {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        "add r10, r8, r9, lsl #1",
        "add r11, r10, r9",
        "add r9, r8, r9",
        "lsrs lr, lr, #1",
        "bcs 4f",
        "3:",
        "beq 5f",
        "2:",
        "vldmia r4!, {{s16, s17}}",
        "vldmia r5!, {{s18, s19}}",
        "vldmia r6!, {{s20, s21}}",
        "vldmia r7!, {{s22, s23}}",
        "vldmia r8!, {{s24, s25}}",
        accumulate!("s0" "s16" "s24", "s4" "s18" "s24", "s8" "s20" "s24", "s12" "s22" "s24"),
        accumulate!("s0" "s17" "s25", "s4" "s19" "s25", "s8" "s21" "s25", "s12" "s23" "s25"),
        "vldmia r9!, {{s24, s25}}",
        accumulate!("s1" "s16" "s24", "s5" "s18" "s24", "s9" "s20" "s24", "s13" "s22" "s24"),
        accumulate!("s1" "s17" "s25", "s5" "s19" "s25", "s9" "s21" "s25", "s13" "s23" "s25"),
        "vldmia r10!, {{s24, s25}}",
        accumulate!("s2" "s16" "s24", "s6" "s18" "s24", "s10" "s20" "s24", "s14" "s22" "s24"),
        accumulate!("s2" "s17" "s25", "s6" "s19" "s25", "s10" "s21" "s25", "s14" "s23" "s25"),
        "vldmia r11!, {{s24, s25}}",
        accumulate!("s3" "s16" "s24", "s7" "s18" "s24", "s11" "s20" "s24", "s15" "s22" "s24"),
        accumulate!("s3" "s17" "s25", "s7" "s19" "s25", "s11" "s21" "s25", "s15" "s23" "s25"),
        "subs lr, lr, #1",
        "bne 2b",
        "b 5f",
        "4:",
        "vldmia r4!, {{s16}}",
        "vldmia r5!, {{s18}}",
        "vldmia r6!, {{s20}}",
        "vldmia r7!, {{s22}}",
        "vldmia r8!, {{s24}}",
        "vldmia r9!, {{s25}}",
        "vldmia r10!, {{s26}}",
        "vldmia r11!, {{s27}}",
        accumulate!("s0" "s16" "s24", "s1" "s16" "s25", "s2" "s16" "s26", "s3" "s16" "s27"),
        accumulate!("s4" "s18" "s24", "s5" "s18" "s25", "s6" "s18" "s26", "s7" "s18" "s27"),
        accumulate!("s8" "s20" "s24", "s9" "s20" "s25", "s10" "s20" "s26", "s11" "s20" "s27"),
        accumulate!("s12" "s22" "s24", "s13" "s22" "s25", "s14" "s22" "s26", "s15" "s22" "s27"),
        "cmp lr, #0",
        "b 3b",
        "5:",
        finish_singles!(),
    )
}

/// [`Tiles::row`], with what loads the sums, goes over the depth, scales and stores. There, `r1` is the start
/// and then the scale, `r3` A, `r4` B, `r5` its step, `r6` the depth, at least 1, and `r7` C.
macro_rules! row_with {
    ($fpu:expr, $load:expr, $depth:expr, $scale:expr, $store:expr) => {
        naked_asm!(
            $fpu,
            "push {{r4-r10, lr}}",
            "vpush {{d8}}",
            "1:",
            "ldm r0, {{r1-r10}}",
            $load,
            $depth,
            "cmp r8, #0",
            "beq 8f",
            $scale,
            "8:",
            $store,
            "subs r9, r9, #1",
            "beq 9f",
            "add r7, r7, #32",
            "ldr r1, [r0]",
            "ldr r2, [r0, #4]",
            "add r1, r1, r2",
            "str r1, [r0]",
            "ldr r4, [r0, #12]",
            "add r4, r4, #32",
            "subs r10, r10, #1",
            "bne 7f",
            "ldr r1, [r0, #40]",
            "add r4, r4, r1",
            "mov r10, #2",
            "7:",
            "str r4, [r0, #12]",
            "add r1, r0, #24",
            "stm r1, {{r7-r10}}",
            "b 1b",
            "9:",
            "vpop {{d8}}",
            "pop {{r4-r10, pc}}",
        )
    };
}
#[cfg(feature = "helium")]
pub(super) use row_with;

/// See [`Tiles::row`].
///
/// # Safety
/// That of [`Tiles::row`].
#[unsafe(naked)]
unsafe extern "C" fn by_row(row: &mut Row) {
    #[cfg(not(feature = "cortex-m7"))]
    macro_rules! accumulate_eight {
        ($($sum:literal $b:literal),*) => {
            concat!(
                $("vmul.f32 ", $b, ", ", $b, ", s16\n",)*
                $("vadd.f32 ", $sum, ", ", $sum, ", ", $b, "\n",)*
            )
        };
    }
    #[cfg(feature = "cortex-m7")]
    macro_rules! accumulate_eight {
        ($($sum:literal $b:literal),*) => {
            concat!($("vmla.f32 ", $sum, ", ", $b, ", s16\n",)*)
        };
    }
    macro_rules! scale_eight {
        ($($sum:literal),*) => {
            concat!("vldr s16, [r8]\n", $("vmul.f32 ", $sum, ", ", $sum, ", s16\n",)*)
        };
    }
    row_with!(
        fpu!(),
        "vldmia r1, {{s0-s7}}",
        concat!(
            "2:
             vldmia r3!, {{s16}}
             vldmia r4, {{s8-s15}}
             add r4, r4, r5
            ",
            accumulate_eight!(
                "s0" "s8", "s1" "s9", "s2" "s10", "s3" "s11", "s4" "s12", "s5" "s13", "s6" "s14",
                "s7" "s15"
            ),
            "subs r6, r6, #1
             bne 2b"
        ),
        scale_eight!("s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"),
        "vstmia r7, {{s0-s7}}"
    )
}

/// [`Tiles::dots`], with the machine's multiply-add.
macro_rules! dots_with {
    ($fpu:expr, $accumulate:expr) => {
        naked_asm!(
            $fpu,
            "push {{r4-r9, lr}}",
            "ldr r8, [sp, #28]",
            "ldr r9, [sp, #32]",
            "ldm r1, {{r4-r7}}",
            "vldmia r0, {{s0-s3}}",
            "2:",
            "vldr s8, [r3]",
            "add r3, r3, r8",
            "vldr s4, [r4]",
            "add r4, r4, r2",
            "vldr s5, [r5]",
            "add r5, r5, r2",
            "vldr s6, [r6]",
            "add r6, r6, r2",
            "vldr s7, [r7]",
            "add r7, r7, r2",
            $accumulate,
            "subs r9, r9, #1",
            "bne 2b",
            "vstmia r0, {{s0-s3}}",
            "pop {{r4-r9, pc}}",
        )
    };
}
#[cfg(feature = "helium")]
pub(super) use dots_with;

/// See [`Tiles::dots`].
#[unsafe(naked)]
unsafe extern "C" fn dots(
    sums: &mut [f32; TILE],
    at: &[*const f32; TILE],
    along: usize,
    one: *const f32,
    one_along: usize,
    depth: usize,
) {
    dots_with!(
        fpu!(),
        concat!(
            "vmul.f32 s4, s4, s8\nvmul.f32 s5, s5, s8\nvmul.f32 s6, s6, s8\nvmul.f32 s7, s7, s8\n",
            "vadd.f32 s0, s0, s4\nvadd.f32 s1, s1, s5\nvadd.f32 s2, s2, s6\nvadd.f32 s3, s3, s7"
        )
    )
}

/// Floats that the loops over a row take at once.
const EIGHT: usize = 8;

/// The largest element of a row, and the smallest that is not −∞, NaN passed over.
pub(super) fn extremes(row: &[f32]) -> (f32, f32) {
    let (eights, rest) = row.as_chunks::<EIGHT>();
    if eights.is_empty() {
        return extremes_plainly(row, f32::NEG_INFINITY, f32::INFINITY);
    }
    // As integers, positive floats are in their order and negative ones in the reverse: the largest
    // signed one is the highest float unless all are negative, the largest unsigned one the lowest
    // unless all are positive.
    // SAFETY: as many eights as there are.
    let both = unsafe { largest(eights.as_ptr(), eights.len()) };
    let [highest, lowest] = [both as u32, (both >> 32) as u32].map(f32::from_bits);
    if highest >= 0.0 && highest.is_sign_positive() && lowest < 0.0 {
        if rest.is_empty() { (highest, lowest) } else { extremes_plainly(rest, highest, lowest) }
    } else {
        // All of one sign, or something among them that is no number.
        extremes_plainly(row, f32::NEG_INFINITY, f32::INFINITY)
    }
}

/// [`extremes`] of a row and what is known, one by one.
#[inline(never)]
pub(super) fn extremes_plainly(row: &[f32], mut highest: f32, mut lowest: f32) -> (f32, f32) {
    for &x in row {
        if x > highest {
            highest = x;
        }
        if x < lowest && x > f32::NEG_INFINITY {
            lowest = x;
        }
    }
    (highest, lowest)
}

/// The largest of eights of words as signed integers, in the low half, and as unsigned ones, in the high
/// half, passing over the word that is −∞; 0x80000000 and 0 where nothing is larger.
///
/// # Safety
/// There are as many words.
#[unsafe(naked)]
unsafe extern "C" fn largest(row: *const [f32; EIGHT], eights: usize) -> u64 {
    macro_rules! compare {
        ($($word:literal $more:literal $back:literal $above:literal $next:literal),*) => {
            concat!($(
                "cmp ", $word, ", r2\nbgt ", $more, "f\n", $back, ":\n",
                "cmp ", $word, ", r3\nbhi ", $above, "f\n", $next, ":\n"
            ),*)
        };
    }
    macro_rules! raise {
        ($($word:literal $more:literal $back:literal $above:literal $next:literal),*) => {
            concat!($(
                $more, ":\nmov r2, ", $word, "\nb ", $back, "b\n",
                $above, ":\ncmp ", $word, ", r12\nbeq ", $next, "b\nmov r3, ", $word, "\nb ", $next, "b\n"
            ),*)
        };
    }
    macro_rules! eight {
        ($each:ident) => {
            $each!("r4" "20" "21" "22" "23", "r5" "24" "25" "26" "27",
                "r6" "28" "29" "30" "31", "r7" "32" "33" "34" "35",
                "r8" "36" "37" "38" "39", "r9" "40" "41" "42" "43",
                "r10" "44" "45" "46" "47", "r11" "48" "49" "50" "51")
        };
    }
    naked_asm!(
        "push {{r4-r11, lr}}",
        "mov r2, #0x80000000",
        "mov r3, #0",
        "mov r12, #0xff000000",
        "orr r12, r12, #0x800000",
        "2:",
        "ldmia r0!, {{r4-r11}}",
        eight!(compare),
        "subs r1, r1, #1",
        "bne 2b",
        "mov r0, r2",
        "mov r1, r3",
        "pop {{r4-r11, pc}}",
        eight!(raise),
    )
}

/// Multiplies a row by a factor.
pub(super) fn scale(row: &mut [f32], factor: f32) {
    let (eights, rest) = row.as_chunks_mut::<EIGHT>();
    if !eights.is_empty() {
        // SAFETY: as many eights as there are.
        unsafe { scale_eights(eights.as_mut_ptr(), eights.len(), factor) };
    }
    rest.iter_mut().for_each(|x| *x *= factor);
}

/// Multiplies eights of floats, at least one, by a factor.
///
/// # Safety
/// There are as many.
#[unsafe(naked)]
unsafe extern "C" fn scale_eights(row: *mut [f32; EIGHT], eights: usize, factor: f32) {
    naked_asm!(
        fpu!(),
        "1:",
        "vldmia r0, {{s8-s15}}",
        "vmul.f32 s8, s8, s0",
        "vmul.f32 s9, s9, s0",
        "vmul.f32 s10, s10, s0",
        "vmul.f32 s11, s11, s0",
        "vmul.f32 s12, s12, s0",
        "vmul.f32 s13, s13, s0",
        "vmul.f32 s14, s14, s0",
        "vmul.f32 s15, s15, s0",
        "vstmia r0!, {{s8-s15}}",
        "subs r1, r1, #1",
        "bne 1b",
        "bx lr",
    )
}

/// Added and subtracted, it rounds what is smaller than 2²² to an integer, ties to even.
const MAGIC: f32 = 12_582_912.0;

/// The polynomial's coefficients times 4, which is exact, and [`MAGIC`], in the order of the registers.
static CONSTANTS: [f32; 8] = [
    EXP2[0] * 4.0,
    EXP2[1] * 4.0,
    EXP2[2] * 4.0,
    EXP2[3] * 4.0,
    EXP2[4] * 4.0,
    EXP2[5] * 4.0,
    EXP2[6] * 4.0,
    MAGIC,
];

/// Turns a row of logits into weights against a finite maximum, and adds them to their sums.
#[inline(never)]
pub(super) fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    // Within these bounds MAGIC rounds m and every logit that has a weight exactly, and what lies below
    // looks like it.
    let small = m.abs() < 2_097_152.0;
    let last = (m + MAGIC).to_bits().wrapping_add(2);
    let all = if small { row.len() / EIGHT * EIGHT } else { 0 };
    for (half, sums) in sums.as_chunks_mut::<EIGHT>().0.iter_mut().enumerate() {
        let mut at = half * EIGHT;
        while at < all {
            let left = (all - at).div_ceil(BLOCK);
            // SAFETY: there are eight floats at every second place of the eights that are left.
            let rest =
                unsafe { weigh_eights(row.as_mut_ptr().add(at), left, sums, last, &CONSTANTS) };
            at += BLOCK * (left - rest);
            // What is hidden, far below or no number is left to the plain way.
            if rest > 0 {
                weigh_plainly(row.get_mut(at..at + EIGHT).unwrap_or_default(), m, sums);
                at += BLOCK;
            }
        }
    }
    let mut at = all;
    while at < row.len() {
        let eight = row.get_mut(at..row.len().min(at + EIGHT)).unwrap_or_default();
        let (low, high) = sums.split_at_mut(EIGHT);
        weigh_plainly(eight, m, if at % BLOCK < EIGHT { low } else { high });
        at += EIGHT;
    }
}

/// [`softmax::total`], in registers.
#[unsafe(naked)]
pub(super) extern "C" fn total(sums: &[f32; BLOCK]) -> f32 {
    naked_asm!(
        fpu!(),
        "vldmia r0, {{s0-s15}}",
        "vadd.f32 s0, s0, s8",
        "vadd.f32 s1, s1, s9",
        "vadd.f32 s2, s2, s10",
        "vadd.f32 s3, s3, s11",
        "vadd.f32 s4, s4, s12",
        "vadd.f32 s5, s5, s13",
        "vadd.f32 s6, s6, s14",
        "vadd.f32 s7, s7, s15",
        "vadd.f32 s0, s0, s4",
        "vadd.f32 s1, s1, s5",
        "vadd.f32 s2, s2, s6",
        "vadd.f32 s3, s3, s7",
        "vadd.f32 s0, s0, s2",
        "vadd.f32 s1, s1, s3",
        "vadd.f32 s0, s0, s1",
        "bx lr",
    )
}

/// [`weigh`], one by one.
#[inline(never)]
fn weigh_plainly(logits: &mut [f32], m: f32, sums: &mut [f32]) {
    for (logit, sum) in logits.iter_mut().zip(sums) {
        *logit = if *logit == f32::NEG_INFINITY { 0.0 } else { weight(*logit, m) };
        *sum += *logit;
    }
}

/// `2^(l − m)`.
#[inline(never)]
fn weight(l: f32, m: f32) -> f32 {
    let n = softmax::round(l);
    let f = l - n;
    let p = EXP2.iter().rev().copied().reduce(|p, coefficient| p * f + coefficient);
    softmax::scale_by_power(p.unwrap_or_default(), n - m)
}

/// Turns every second eight of floats, as many as `eights`, into weights and adds them to their sums,
/// until one is not at most 0 and at least −125 powers of two from the maximum; how many are left then.
///
/// `last` is the maximum's pattern after adding [`MAGIC`], plus 2: less that of a logit it is 2 to 127
/// where there is a weight, and anything larger for what is hidden, too far below or no number. The 2 is
/// taken back by the factor of the coefficients.
///
/// # Safety
/// The floats exist.
#[unsafe(naked)]
unsafe extern "C" fn weigh_eights(
    row: *mut f32,
    eights: usize,
    sums: &mut [f32; EIGHT],
    last: u32,
    constants: &[f32; 8],
) -> usize {
    /// One instruction for each of eight registers.
    macro_rules! each {
        ($op:literal $(, $to:literal)+ ; $from:literal) => {
            concat!($($op, " ", $to, ", ", $to, ", ", $from, "\n"),+)
        };
        ($op:literal $(, $to:literal $a:literal)+ ; $b:literal) => {
            concat!($($op, " ", $to, ", ", $a, ", ", $b, "\n"),+)
        };
        ($op:literal $(, $to:literal $a:literal $b:literal)+) => {
            concat!($($op, " ", $to, ", ", $a, ", ", $b, "\n"),+)
        };
    }
    /// `p = p · f + coefficient`.
    macro_rules! horner {
        ($coefficient:literal) => {
            concat!(
                each!("vmul.f32", "s16" "s16" "s8", "s17" "s17" "s9", "s18" "s18" "s10",
                    "s19" "s19" "s11", "s20" "s20" "s12", "s21" "s21" "s13", "s22" "s22" "s14",
                    "s23" "s23" "s15"),
                each!("vadd.f32", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23"; $coefficient)
            )
        };
    }
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "ldr r12, [sp, #100]",
        "vldmia r12, {{s24-s31}}",
        "vldmia r2, {{s0-s7}}",
        "1:",
        "vldmia r0, {{s8-s15}}",
        // The integer in the low bits, and how far it is below the maximum.
        each!("vadd.f32", "s16" "s8", "s17" "s9", "s18" "s10", "s19" "s11", "s20" "s12", "s21" "s13",
            "s22" "s14", "s23" "s15"; "s31"),
        "vmov r4, r5, s16, s17",
        "vmov r6, r7, s18, s19",
        "vmov r8, r9, s20, s21",
        "vmov r10, r11, s22, s23",
        each!("sub", "r4" "r3" "r4", "r5" "r3" "r5", "r6" "r3" "r6", "r7" "r3" "r7", "r8" "r3" "r8",
            "r9" "r3" "r9", "r10" "r3" "r10", "r11" "r3" "r11"),
        "orr lr, r4, r5",
        each!("orr", "lr" "lr" "r6", "lr" "lr" "r7", "lr" "lr" "r8", "lr" "lr" "r9", "lr" "lr" "r10",
            "lr" "lr" "r11"),
        "cmp lr, #127",
        "bhi 2f",
        // n, f = l − n, and the polynomial.
        each!("vsub.f32", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23"; "s31"),
        each!("vsub.f32", "s8" "s8" "s16", "s9" "s9" "s17", "s10" "s10" "s18", "s11" "s11" "s19",
            "s12" "s12" "s20", "s13" "s13" "s21", "s14" "s14" "s22", "s15" "s15" "s23"),
        each!("vmul.f32", "s16" "s8", "s17" "s9", "s18" "s10", "s19" "s11", "s20" "s12", "s21" "s13",
            "s22" "s14", "s23" "s15"; "s30"),
        each!("vadd.f32", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23"; "s29"),
        horner!("s28"),
        horner!("s27"),
        horner!("s26"),
        horner!("s25"),
        horner!("s24"),
        // The weights: the exponent goes down. And their sums.
        "vmov r12, lr, s16, s17",
        each!("sub", "r4" "r12" "r4, lsl #23", "r5" "lr" "r5, lsl #23"),
        "vmov r12, lr, s18, s19",
        each!("sub", "r6" "r12" "r6, lsl #23", "r7" "lr" "r7, lsl #23"),
        "vmov r12, lr, s20, s21",
        each!("sub", "r8" "r12" "r8, lsl #23", "r9" "lr" "r9, lsl #23"),
        "vmov r12, lr, s22, s23",
        each!("sub", "r10" "r12" "r10, lsl #23", "r11" "lr" "r11, lsl #23"),
        "stm r0, {{r4-r11}}",
        "vldmia r0, {{s16-s23}}",
        each!("vadd.f32", "s0" "s0" "s16", "s1" "s1" "s17", "s2" "s2" "s18", "s3" "s3" "s19",
            "s4" "s4" "s20", "s5" "s5" "s21", "s6" "s6" "s22", "s7" "s7" "s23"),
        "add r0, r0, #64",
        "subs r1, r1, #1",
        "bne 1b",
        "2:",
        "vstmia r2, {{s0-s7}}",
        "mov r0, r1",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
    )
}
