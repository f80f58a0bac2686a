//! The loops of the product on single registers. Each is a function of its own whose stack is its own, so
//! nothing of it can be inlined or spilled.

use core::arch::naked_asm;

use super::product::{Panels, Row, TILE};

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

pub(super) use accumulate;

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
pub(in crate::kernel) use finish;

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

/// The depth of a tile over a B whose rows are contiguous, a half of it in `lr`: label 2 where it is even, 4 where
/// it is odd, which enters the loop half way.
macro_rules! depth_by_rows {
    () => {
        concat!(
            "2:\n",
            "vldmia r4!, {{s16, s17}}\n",
            "vldmia r5!, {{s18, s19}}\n",
            "vldmia r6!, {{s20, s21}}\n",
            "vldmia r7!, {{s22, s23}}\n",
            "vldmia r8, {{s24-s27}}\n",
            "add r8, r8, r9\n",
            accumulate!("s0" "s16" "s24", "s1" "s16" "s25", "s2" "s16" "s26", "s3" "s16" "s27"),
            accumulate!("s4" "s18" "s24", "s5" "s18" "s25", "s6" "s18" "s26", "s7" "s18" "s27"),
            accumulate!("s8" "s20" "s24", "s9" "s20" "s25", "s10" "s20" "s26", "s11" "s20" "s27"),
            accumulate!("s12" "s22" "s24", "s13" "s22" "s25", "s14" "s22" "s26", "s15" "s22" "s27"),
            "3:\n",
            "vldmia r8, {{s24-s27}}\n",
            "add r8, r8, r9\n",
            accumulate!("s0" "s17" "s24", "s1" "s17" "s25", "s2" "s17" "s26", "s3" "s17" "s27"),
            accumulate!("s4" "s19" "s24", "s5" "s19" "s25", "s6" "s19" "s26", "s7" "s19" "s27"),
            accumulate!("s8" "s21" "s24", "s9" "s21" "s25", "s10" "s21" "s26", "s11" "s21" "s27"),
            accumulate!("s12" "s23" "s24", "s13" "s23" "s25", "s14" "s23" "s26", "s15" "s23" "s27"),
            "subs lr, lr, #1\n",
            "bne 2b\n",
            "b 5f\n",
            "4:\n",
            "vldmia r4!, {{s17}}\n",
            "vldmia r5!, {{s19}}\n",
            "vldmia r6!, {{s21}}\n",
            "vldmia r7!, {{s23}}\n",
            "add lr, lr, #1\n",
            "b 3b\n",
        )
    };
}
pub(super) use depth_by_rows;

/// The depth of a tile over a B whose columns are contiguous, as it stands in `lr`.
macro_rules! depth_by_columns {
    () => {
        concat!(
            "add r10, r8, r9, lsl #1\n",
            "add r11, r10, r9\n",
            "add r9, r8, r9\n",
            "lsrs lr, lr, #1\n",
            "bcs 4f\n",
            "3:\n",
            "beq 5f\n",
            "2:\n",
            "vldmia r4!, {{s16, s17}}\n",
            "vldmia r5!, {{s18, s19}}\n",
            "vldmia r6!, {{s20, s21}}\n",
            "vldmia r7!, {{s22, s23}}\n",
            "vldmia r8!, {{s24, s25}}\n",
            accumulate!("s0" "s16" "s24", "s4" "s18" "s24", "s8" "s20" "s24", "s12" "s22" "s24"),
            accumulate!("s0" "s17" "s25", "s4" "s19" "s25", "s8" "s21" "s25", "s12" "s23" "s25"),
            "vldmia r9!, {{s24, s25}}\n",
            accumulate!("s1" "s16" "s24", "s5" "s18" "s24", "s9" "s20" "s24", "s13" "s22" "s24"),
            accumulate!("s1" "s17" "s25", "s5" "s19" "s25", "s9" "s21" "s25", "s13" "s23" "s25"),
            "vldmia r10!, {{s24, s25}}\n",
            accumulate!("s2" "s16" "s24", "s6" "s18" "s24", "s10" "s20" "s24", "s14" "s22" "s24"),
            accumulate!("s2" "s17" "s25", "s6" "s19" "s25", "s10" "s21" "s25", "s14" "s23" "s25"),
            "vldmia r11!, {{s24, s25}}\n",
            accumulate!("s3" "s16" "s24", "s7" "s18" "s24", "s11" "s20" "s24", "s15" "s22" "s24"),
            accumulate!("s3" "s17" "s25", "s7" "s19" "s25", "s11" "s21" "s25", "s15" "s23" "s25"),
            "subs lr, lr, #1\n",
            "bne 2b\n",
            "b 5f\n",
            "4:\n",
            "vldmia r4!, {{s16}}\n",
            "vldmia r5!, {{s18}}\n",
            "vldmia r6!, {{s20}}\n",
            "vldmia r7!, {{s22}}\n",
            "vldmia r8!, {{s24}}\n",
            "vldmia r9!, {{s25}}\n",
            "vldmia r10!, {{s26}}\n",
            "vldmia r11!, {{s27}}\n",
            accumulate!("s0" "s16" "s24", "s1" "s16" "s25", "s2" "s16" "s26", "s3" "s16" "s27"),
            accumulate!("s4" "s18" "s24", "s5" "s18" "s25", "s6" "s18" "s26", "s7" "s18" "s27"),
            accumulate!("s8" "s20" "s24", "s9" "s20" "s25", "s10" "s20" "s26", "s11" "s20" "s27"),
            accumulate!("s12" "s22" "s24", "s13" "s22" "s25", "s14" "s22" "s26", "s15" "s22" "s27"),
            "cmp lr, #0\n",
            "b 3b\n",
        )
    };
}
pub(super) use depth_by_columns;

/// Panels of a B whose rows are contiguous.
///
/// # Safety
/// What the panels say exists.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn by_rows(panels: &mut Panels) {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        "lsrs lr, lr, #1",
        "bcs 4f",
        "beq 5f",
        depth_by_rows!(),
        "5:",
        finish_singles!(),
    )
}

/// Panels of a B whose columns are contiguous.
///
/// # Safety
/// What the panels say exists.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn by_columns(panels: &mut Panels) {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        depth_by_columns!(),
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
pub(in crate::kernel) use row_with;

/// See [`Tiles::row`].
///
/// # Safety
/// That of [`Tiles::row`].
#[unsafe(naked)]
pub(super) unsafe extern "C" fn by_row(row: &mut Row) {
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
pub(in crate::kernel) use dots_with;

/// See [`Tiles::dots`].
#[unsafe(naked)]
pub(super) unsafe extern "C" fn dots(
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
