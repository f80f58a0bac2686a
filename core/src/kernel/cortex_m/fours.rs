//! The loops of the least code on single registers, four rows at once: [`product`](super::product)'s without
//! what packed and scaled operands ask for.

use core::arch::naked_asm;

use super::tiles::accumulate;

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
    // An odd depth enters the loop half way.
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        "lsrs lr, lr, #1",
        "bcs 4f",
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
        finish!("add r8, r8, r9, lsl #2"),
    )
}
