//! The loops of the least code on single registers, four rows at once: [`product`](super::product)'s without
//! what packed and scaled operands ask for.

use core::arch::naked_asm;

use super::tiles::{accumulate, depth_by_columns, depth_by_rows};

/// Four rows of a product and as many columns, in fours. The assembly reads the fields by their place, and
/// moves on in them. Distances are in bytes.
#[repr(C)]
pub(in crate::kernel) struct Fours {
    /// The output's first column, and from one row to the next.
    pub(in crate::kernel) out: *mut f32,
    pub(in crate::kernel) out_row: usize,
    /// The same of A.
    pub(in crate::kernel) a_row: usize,
    pub(in crate::kernel) a: *const f32,
    /// The first column of B, and from one row or column to the next.
    pub(in crate::kernel) b: *const f32,
    pub(in crate::kernel) b_step: usize,
    /// What the sums begin with, from one row to the next, and from four columns to the next.
    pub(in crate::kernel) start: *const f32,
    pub(in crate::kernel) start_row: usize,
    pub(in crate::kernel) depth: usize,
    pub(in crate::kernel) start_step: usize,
    /// Fours of columns: at least one.
    pub(in crate::kernel) fours: usize,
}

/// The start of a tile: `r1` is the output, `r2` what lies between its rows; the sums are loaded, then
/// `r4`–`r7` are the rows of A, `r8` is B, `r9` its step and `lr` the depth.
macro_rules! begin {
    () => {
        "ldm r0, {{r1-r4, r8-r11, lr}}
         vldmia r10, {{s0-s3}}
         add r10, r10, r11
         vldmia r10, {{s4-s7}}
         add r10, r10, r11
         vldmia r10, {{s8-s11}}
         add r10, r10, r11
         vldmia r10, {{s12-s15}}
         add r5, r4, r3
         add r6, r5, r3
         add r7, r6, r3
        "
    };
}

/// The end of a tile: stored; and on to the next four columns, as `$step` moves `r8` on in B, at label 1.
macro_rules! finish {
    ($step:literal) => {
        concat!(
            "vstmia r1, {{s0-s3}}
             add r12, r1, r2
             vstmia r12, {{s4-s7}}
             add r12, r12, r2
             vstmia r12, {{s8-s11}}
             add r12, r12, r2
             vstmia r12, {{s12-s15}}
             ldrd r3, r4, [r0, #36]
             subs r4, r4, #1
             beq 7f
             str r4, [r0, #40]
             adds r1, r1, #16
             str r1, [r0]
             ldr r12, [r0, #24]
             add r12, r12, r3
             str r12, [r0, #24]
             ldrd r8, r9, [r0, #16]
            ",
            $step,
            "
             str r8, [r0, #16]
             b 1b
            7:
             vpop {{d8-d15}}
             pop {{r4-r11, pc}}"
        )
    };
}

/// `out[i][j] = start[i][j] + Σ a[i][k] · b[k][j]`, where the rows of B lie in one piece.
///
/// # Safety
/// What the fields say exists, and the depth is at least 1.
#[unsafe(naked)]
pub(in crate::kernel) unsafe extern "C" fn four_by_rows(fours: &mut Fours) {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        "lsrs lr, lr, #1",
        "bcs 4f",
        depth_by_rows!(),
        "5:",
        finish!("adds r8, r8, #16"),
    )
}

/// The same where the columns of B lie in one piece.
///
/// # Safety
/// That of [`four_by_rows`].
#[unsafe(naked)]
pub(in crate::kernel) unsafe extern "C" fn four_by_columns(fours: &mut Fours) {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        depth_by_columns!(),
        "5:",
        finish!("add r8, r8, r9, lsl #2"),
    )
}
