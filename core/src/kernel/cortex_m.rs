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
//! beyond the last four are taken one by one, those of a single row eight at a time.
//!
//! The processors differ in one thing. M4 and M33 take three cycles for a multiply-add and one each for
//! a product and a sum; M7 takes one for either: the feature `cortex-m7` chooses. (`vmla` rounds twice:
//! it is no fused multiply-add.)

use super::Spread;
use super::generic;
use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::portable::Portable;
use super::turned;
use crate::softmax::BLOCK;

/// Names the registers to the assembler, which does not hear of the target's features where link-time
/// optimisation is to come.
macro_rules! fpu {
    () => {
        ".fpu fpv4-sp-d16"
    };
}

mod fours;
mod lean;
mod product;
mod rows;
mod tiles;

#[cfg(not(feature = "size"))]
pub(super) use fours::{Fours, four_by_columns, four_by_rows};
pub(super) use lean::{add_columns, add_rows};
pub(super) use product::{Panels, Row, TILE, Tiles, product};
#[cfg(all(feature = "helium", feature = "size"))]
pub(super) use rows::total;
#[cfg(feature = "helium")]
pub(super) use rows::{MAGIC, extremes_plainly};
#[cfg(not(feature = "size"))]
pub(super) use rows::{bounds, fill, scaled, total, weigh_eights_near};
pub(super) use rows::{extremes, scale, weigh, weigh_all};
#[cfg(feature = "helium")]
pub(super) use tiles::{dots_with, finish, row_with};

/// The square root, by the instruction that there is for it.
#[unsafe(naked)]
pub(crate) extern "C" fn square_root(x: f32) -> f32 {
    core::arch::naked_asm!(fpu!(), "vsqrt.f32 s0, s0", "bx lr")
}

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
        // SAFETY: the portable vector asks for no instructions; so below.
        unsafe { generic::turn::<Portable>(from, to) }
    }

    fn tops(tile: &MatrixMut<'_>, maxima: &[f32], tops: &mut [f32]) -> Spread {
        // SAFETY: as above.
        unsafe { generic::tops::<Portable>(tile, maxima, tops) }
    }

    fn advance(
        tile: &mut MatrixMut<'_>,
        tops: &[f32],
        maxima: &mut [f32],
        sums: &mut [[f32; BLOCK]],
        mixed: Option<&mut MatrixMut<'_>>,
        near: bool,
    ) {
        // SAFETY: as above.
        unsafe { generic::advance::<Portable>(tile, tops, maxima, sums, mixed, near) }
    }

    fn settle(tile: &mut MatrixMut<'_>, tops: &mut [f32], maxima: &mut [f32], near: bool) {
        // SAFETY: as above.
        unsafe { generic::settle::<Portable>(tile, tops, maxima, near) }
    }

    fn scale_rows(rows: &mut MatrixMut<'_>, factors: &[f32]) {
        // SAFETY: as above.
        unsafe { generic::scale_rows::<Portable>(rows, factors) }
    }

    fn differentiate(weights: Matrix<'_>, gradients: &mut MatrixMut<'_>, deltas: &[f32]) {
        // SAFETY: as above.
        unsafe { generic::differentiate::<Portable>(weights, gradients, deltas) }
    }
}

impl Tiles for CortexMKernel {
    unsafe fn by_rows(panels: &mut Panels) {
        // SAFETY: passed on.
        unsafe { tiles::by_rows(panels) }
    }

    unsafe fn by_columns(panels: &mut Panels) {
        // SAFETY: passed on.
        unsafe { tiles::by_columns(panels) }
    }

    unsafe fn row(row: &mut Row) {
        // SAFETY: passed on.
        unsafe { tiles::by_row(row) }
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
        unsafe { tiles::dots(sums, at, along, one, one_along, depth) }
    }
}
