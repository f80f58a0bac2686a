//! Helium, the vectors of Armv8.1-M: Cortex-M55, M85. With the feature `helium`.
//!
//! Four lanes, eight registers, and a multiply-add by a float from a core register, rounded once: a tile
//! of 4 × 4 is four registers of sums, two of B, and A where the processor keeps its integers. Rust knows
//! no type for the registers, so whole loops are assembly and nothing crosses their edge but pointers.
//!
//! The family is the fused one. Helium flushes subnormal operands and results to 0 whatever the program
//! asks for, so equal bits need values of magnitude 0 or at least 2⁻¹²⁶ everywhere, and a NaN loses its
//! payload.

use core::arch::naked_asm;
use core::mem::MaybeUninit;

use super::Spread;
use super::cortex_m::{self, MAGIC, Panels, Row, TILE, Tiles, dots_with, finish, row_with};
use super::generic;
use super::matrix::{Columns, Matrix, MatrixMut, Start};
use super::turned;
use super::vector::Vector;
use crate::softmax::{self, BLOCK, EXP2};

pub(crate) struct HeliumKernel;

impl super::Kernel for HeliumKernel {
    fn product(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
    ) {
        cortex_m::product::<Self>(a, b, c, start, scale);
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
        // SAFETY: whoever turned the feature on has vouched for the instructions; so below.
        unsafe { generic::turn::<Helium>(from, to) }
    }

    fn tops(tile: &MatrixMut<'_>, maxima: &[f32], tops: &mut [f32]) -> Spread {
        // SAFETY: as above.
        unsafe { generic::tops::<Helium>(tile, maxima, tops) }
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
        unsafe { generic::advance::<Helium>(tile, tops, maxima, sums, mixed, near) }
    }

    fn settle(tile: &mut MatrixMut<'_>, tops: &mut [f32], maxima: &mut [f32], near: bool) {
        // SAFETY: as above.
        unsafe { generic::settle::<Helium>(tile, tops, maxima, near) }
    }

    fn scale_rows(rows: &mut MatrixMut<'_>, factors: &[f32]) {
        // SAFETY: as above.
        unsafe { generic::scale_rows::<Helium>(rows, factors) }
    }

    fn differentiate(weights: Matrix<'_>, gradients: &mut MatrixMut<'_>, deltas: &[f32]) {
        // SAFETY: as above.
        unsafe { generic::differentiate::<Helium>(weights, gradients, deltas) }
    }
}

impl Tiles for HeliumKernel {
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

/// Names the instructions to the assembler, which does not hear of the target's features where link-time
/// optimisation is to come.
macro_rules! cpu {
    () => {
        ".cpu cortex-m55"
    };
}

/// The start of a tile: `r0` is the panels; the sums are loaded, then `r4`–`r7` are the rows of A, `r1`
/// is B, `r12` its step and `r10` the depth, halved; the carry says whether one is left over.
macro_rules! begin {
    () => {
        "ldm r0, {{r1-r6, r8-r10}}
         vldrw.u32 q0, [r1]
         add r7, r1, r2
         vldrw.u32 q1, [r7]
         add r1, r1, r3
         vldrw.u32 q2, [r1]
         add r7, r7, r3
         vldrw.u32 q3, [r7]
         add r5, r4, r5
         add r7, r5, r6
         add r6, r4, r6
         mov r1, r8
         mov r12, r9
         lsrs r10, r10, #1
        "
    };
}

/// Two steps of the depth: B is in `q4` and `q5`.
macro_rules! two {
    () => {
        "ldrd r8, r9, [r4], #8
         ldrd r2, r3, [r5], #8
         vfma.f32 q0, q4, r8
         vfma.f32 q1, q4, r2
         vfma.f32 q0, q5, r9
         ldrd r8, r9, [r6], #8
         vfma.f32 q1, q5, r3
         ldrd r2, r3, [r7], #8
         vfma.f32 q2, q4, r8
         vfma.f32 q3, q4, r2
         vfma.f32 q2, q5, r9
         vfma.f32 q3, q5, r3
        "
    };
}

/// One step: B is in `q4`.
macro_rules! one {
    () => {
        "ldr r8, [r4], #4
         ldr r9, [r5], #4
         ldr r2, [r6], #4
         ldr r3, [r7], #4
         vfma.f32 q0, q4, r8
         vfma.f32 q1, q4, r9
         vfma.f32 q2, q4, r2
         vfma.f32 q3, q4, r3
        "
    };
}

macro_rules! finish_vectors {
    () => {
        finish!(
            "ldr r5, [r5]
             vmul.f32 q0, q0, r5
             vmul.f32 q1, q1, r5
             vmul.f32 q2, q2, r5
             vmul.f32 q3, q3, r5",
            "vstrw.32 q0, [r2]",
            "vstrw.32 q1, [r1]",
            "vstrw.32 q2, [r3]",
            "vstrw.32 q3, [r1]"
        )
    };
}

/// Panels of a B whose rows are contiguous.
///
/// # Safety
/// What the panels say exists.
#[unsafe(naked)]
unsafe extern "C" fn by_rows(panels: &mut Panels) {
    naked_asm!(
        cpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        "bcc 3f",
        "vldrw.u32 q4, [r1]",
        "add r1, r1, r12",
        one!(),
        "3:",
        "lsrs r10, r10, #1",
        "bcc 4f",
        "vldrw.u32 q4, [r1]",
        "add r1, r1, r12",
        "vldrw.u32 q5, [r1]",
        "add r1, r1, r12",
        two!(),
        "4:",
        "cmp r10, #0",
        "beq 5f",
        "dls lr, r10",
        "2:",
        "vldrw.u32 q4, [r1]",
        "add r1, r1, r12",
        "vldrw.u32 q5, [r1]",
        "add r1, r1, r12",
        two!(),
        "vldrw.u32 q4, [r1]",
        "add r1, r1, r12",
        "vldrw.u32 q5, [r1]",
        "add r1, r1, r12",
        two!(),
        "le lr, 2b",
        "5:",
        finish_vectors!(),
    )
}

/// Panels of a B whose columns are contiguous: four floats are gathered from four columns.
///
/// # Safety
/// What the panels say exists.
#[unsafe(naked)]
unsafe extern "C" fn by_columns(panels: &mut Panels) {
    naked_asm!(
        cpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "1:",
        begin!(),
        // The addresses, which grow before they are used.
        "sub r1, r1, #4",
        "vmov.32 q6[0], r1",
        "add r1, r1, r12",
        "vmov.32 q6[1], r1",
        "add r1, r1, r12",
        "vmov.32 q6[2], r1",
        "add r1, r1, r12",
        "vmov.32 q6[3], r1",
        "bcc 3f",
        "vldrw.u32 q4, [q6, #4]!",
        one!(),
        "3:",
        "lsrs r10, r10, #1",
        "bcc 4f",
        "vldrw.u32 q4, [q6, #4]!",
        "vldrw.u32 q5, [q6, #4]!",
        two!(),
        "4:",
        "cmp r10, #0",
        "beq 5f",
        "dls lr, r10",
        "2:",
        "vldrw.u32 q4, [q6, #4]!",
        "vldrw.u32 q5, [q6, #4]!",
        two!(),
        "vldrw.u32 q4, [q6, #4]!",
        "vldrw.u32 q5, [q6, #4]!",
        two!(),
        "le lr, 2b",
        "5:",
        finish_vectors!(),
    )
}

/// See [`Tiles::row`].
///
/// # Safety
/// That of [`Tiles::row`].
#[unsafe(naked)]
unsafe extern "C" fn by_row(row: &mut Row) {
    row_with!(
        cpu!(),
        "vldrw.u32 q0, [r1]
         vldrw.u32 q1, [r1, #16]",
        "dls lr, r6
         2:
         ldr r2, [r3], #4
         vldrw.u32 q2, [r4]
         vldrw.u32 q3, [r4, #16]
         add r4, r4, r5
         vfma.f32 q0, q2, r2
         vfma.f32 q1, q3, r2
         le lr, 2b",
        "ldr r2, [r8]
         vmul.f32 q0, q0, r2
         vmul.f32 q1, q1, r2",
        "vstrw.32 q0, [r7]
         vstrw.32 q1, [r7, #16]"
    )
}

/// See [`Tiles::dots`].
///
/// # Safety
/// That of [`Tiles::dots`].
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
        cpu!(),
        "vfma.f32 s0, s4, s8
         vfma.f32 s1, s5, s8
         vfma.f32 s2, s6, s8
         vfma.f32 s3, s7, s8"
    )
}

/// `a · b + c`, rounded once.
#[unsafe(naked)]
extern "C" fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    naked_asm!(cpu!(), "vfma.f32 s2, s0, s1", "vmov.f32 s0, s2", "bx lr")
}

/// A row's steps of the softmax. Of [`Vector`] it has what the loops over rows need, a float at a time
/// for what they leave.
#[derive(Clone, Copy)]
struct Helium(f32);

/// Lanes of a register.
const LANES: usize = 4;

impl Vector for Helium {
    const LANES: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(x)
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: passed on; so below.
        Self(unsafe { *p })
    }

    #[inline(always)]
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self {
        // SAFETY: as above.
        if n > 0 { Self(unsafe { *p }) } else { other }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: as above.
        unsafe { *p = self.0 }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        if n > 0 {
            // SAFETY: as above.
            unsafe { *p = self.0 }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(multiply_add(self.0, b.0, c.0))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(if self.0 > other.0 { self.0 } else { other.0 })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(if self.0 < other.0 { self.0 } else { other.0 })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        self.0
    }

    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        self.0
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self.0
    }

    #[inline(always)]
    unsafe fn replace_neg_inf(self, value: Self) -> Self {
        if self.0 == f32::NEG_INFINITY { value } else { self }
    }

    #[inline(always)]
    unsafe fn where_positive(self, value: Self) -> Self {
        if self.0 > 0.0 { value } else { Self(0.0) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(softmax::round(self.0))
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, d: Self) -> Self {
        Self(softmax::scale_by_power(self.0, d.0))
    }

    const ROWS: bool = true;

    #[inline(always)]
    unsafe fn extremes(row: &[f32]) -> Option<(f32, f32, bool)> {
        let (highest, lowest) = extremes(row);
        Some((highest, lowest, false))
    }

    #[inline(always)]
    unsafe fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK], _near: bool) -> bool {
        weigh(row, m, sums);
        true
    }

    #[inline(always)]
    unsafe fn weigh_all(row: &mut [f32], m: f32, _near: bool) -> Option<f32> {
        let mut sums = MaybeUninit::uninit();
        clear(&mut sums);
        // SAFETY: sixteen floats, cleared.
        let sums = unsafe { sums.assume_init_mut() };
        weigh(row, m, sums);
        Some(cortex_m::total(sums))
    }

    #[inline(always)]
    unsafe fn scale(row: &mut [f32], factor: f32) -> bool {
        let (fours, rest) = row.as_chunks_mut::<LANES>();
        if !fours.is_empty() {
            // SAFETY: as many fours as there are.
            unsafe { scale_fours(fours.as_mut_ptr(), fours.len(), factor) };
        }
        rest.iter_mut().for_each(|x| *x *= factor);
        true
    }
}

/// Sixteen zeros.
#[unsafe(naked)]
extern "C" fn clear(sums: &mut MaybeUninit<[f32; BLOCK]>) {
    naked_asm!(
        cpu!(),
        "vmov.i32 q0, #0",
        "vstrw.32 q0, [r0]",
        "vstrw.32 q0, [r0, #16]",
        "vstrw.32 q0, [r0, #32]",
        "vstrw.32 q0, [r0, #48]",
        "bx lr",
    )
}

/// Multiplies fours of floats, at least one, by a factor.
///
/// # Safety
/// There are as many.
#[unsafe(naked)]
unsafe extern "C" fn scale_fours(row: *mut [f32; LANES], fours: usize, factor: f32) {
    naked_asm!(
        cpu!(),
        "push {{r7, lr}}",
        "vmov r2, s0",
        // One where they are odd, then two at a time.
        "lsrs r1, r1, #1",
        "bcc 3f",
        "vldrw.u32 q0, [r0]",
        "vmul.f32 q0, q0, r2",
        "vstrw.32 q0, [r0], #16",
        "3:",
        "wls lr, r1, 4f",
        "2:",
        "vldrw.u32 q0, [r0]",
        "vldrw.u32 q1, [r0, #16]",
        "vmul.f32 q0, q0, r2",
        "vmul.f32 q1, q1, r2",
        "vstrw.32 q0, [r0], #16",
        "vstrw.32 q1, [r0], #16",
        "le lr, 2b",
        "4:",
        "pop {{r7, pc}}",
    )
}

/// The largest element of a row, and the smallest that is not −∞, NaN passed over.
fn extremes(row: &[f32]) -> (f32, f32) {
    let (fours, rest) = row.as_chunks::<LANES>();
    let (mut highest, mut lowest) = (f32::NEG_INFINITY, f32::INFINITY);
    if !fours.is_empty() {
        // SAFETY: as many fours as there are.
        let both = unsafe { extremes_of_fours(fours.as_ptr(), fours.len()) };
        [highest, lowest] = [both as u32, (both >> 32) as u32].map(f32::from_bits);
        if lowest == f32::NEG_INFINITY {
            return cortex_m::extremes_plainly(row, f32::NEG_INFINITY, f32::INFINITY);
        }
    }
    if rest.is_empty() {
        return (highest, lowest);
    }
    cortex_m::extremes_plainly(rest, highest, lowest)
}

/// The largest, in the low half, and the smallest of fours of floats, at least one.
///
/// # Safety
/// There are as many.
#[unsafe(naked)]
unsafe extern "C" fn extremes_of_fours(row: *const [f32; LANES], fours: usize) -> u64 {
    naked_asm!(
        cpu!(),
        "push {{r7, lr}}",
        "mov r2, #0xff000000",
        "orr r2, r2, #0x800000",
        "bic r3, r2, #0x80000000",
        "vdup.32 q0, r2",
        "vdup.32 q1, r3",
        // One where they are odd, then two at a time.
        "lsrs r1, r1, #1",
        "bcc 3f",
        "vldrw.u32 q2, [r0], #16",
        "vmaxnm.f32 q0, q0, q2",
        "vminnm.f32 q1, q1, q2",
        "3:",
        "wls lr, r1, 4f",
        "2:",
        "vldrw.u32 q2, [r0], #16",
        "vldrw.u32 q3, [r0], #16",
        "vmaxnm.f32 q0, q0, q2",
        "vminnm.f32 q1, q1, q2",
        "vmaxnm.f32 q0, q0, q3",
        "vminnm.f32 q1, q1, q3",
        "le lr, 2b",
        "4:",
        "vmaxnmv.f32 r2, q0",
        "vminnmv.f32 r3, q1",
        "mov r0, r2",
        "mov r1, r3",
        "pop {{r7, pc}}",
    )
}

/// The polynomial's coefficients times 2, which is exact, and [`MAGIC`], in the order of the registers.
static CONSTANTS: [f32; 8] = [
    EXP2[0] * 2.0,
    EXP2[1] * 2.0,
    EXP2[2] * 2.0,
    EXP2[3] * 2.0,
    EXP2[4] * 2.0,
    EXP2[5] * 2.0,
    EXP2[6] * 2.0,
    MAGIC,
];

/// Turns a row of logits into weights against a finite maximum, and adds them to their sums.
#[inline(never)]
fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    let last = (m + MAGIC).to_bits().wrapping_add(1);
    // Within these bounds the magic number rounds m and every logit that has a weight exactly, and what
    // lies below looks like it.
    let small = m.abs() < 2_097_152.0;
    let mut at = 0;
    while at < row.len() {
        let blocks = (row.len() - at) / BLOCK;
        if small && blocks > 0 {
            // SAFETY: there are as many blocks.
            let left = unsafe {
                let first = row.as_mut_ptr().add(at);
                weigh_fours(first, LANES * blocks, sums, last, &CONSTANTS)
            };
            at += BLOCK * blocks - LANES * left;
            if at == row.len() {
                break;
            }
        }
        // What is hidden, far below, no number, or of no whole block is left to the plain way, up to the
        // end of its block.
        let place = at % BLOCK;
        let end = row.len().min(at - place + BLOCK);
        let logits = row.get_mut(at..end).unwrap_or_default();
        for (logit, sum) in logits.iter_mut().zip(sums.iter_mut().skip(place)) {
            *logit = weight(*logit, m);
            *sum += *logit;
        }
        at = end;
    }
}

/// `2^(l − m)`.
fn weight(l: f32, m: f32) -> f32 {
    if l == f32::NEG_INFINITY {
        return 0.0;
    }
    let n = softmax::round(l);
    let f = l - n;
    let polynomial = EXP2.iter().rev().copied();
    let p = polynomial.reduce(|p, coefficient| multiply_add(p, f, coefficient));
    softmax::scale_by_power(p.unwrap_or_default(), n - m)
}

/// Turns fours of floats, whole blocks of them and at least one, into weights and adds them to their sums,
/// until one is not at most 0 and at least −125 powers of two from the maximum; how many fours are left
/// then.
///
/// `last` is the maximum's pattern after adding [`MAGIC`], plus 1: less that, a logit's is −126 to −1 where
/// there is a weight, and as an unsigned number smaller for what is hidden, too far below or no number.
///
/// # Safety
/// The floats exist.
#[unsafe(naked)]
unsafe extern "C" fn weigh_fours(
    row: *mut f32,
    fours: usize,
    sums: &mut [f32; BLOCK],
    last: u32,
    constants: &[f32; 8],
) -> usize {
    /// One four, and the branch where it has none.
    macro_rules! four {
        ($sums:literal) => {
            concat!(
                "vldrw.u32 q0, [r0]
                 vadd.f32 q1, q0, r11
                 vsub.f32 q2, q1, r11
                 vsub.i32 q1, q1, r12
                 vminv.u32 r3, q1
                 cmp r3, lr
                 blo 3f
                 vsub.f32 q0, q0, q2
                 vdup.32 q2, r10
                 vfmas.f32 q2, q0, r9
                 vfmas.f32 q2, q0, r8
                 vfmas.f32 q2, q0, r7
                 vfmas.f32 q2, q0, r6
                 vfmas.f32 q2, q0, r5
                 vfmas.f32 q2, q0, r4
                 vshl.i32 q1, q1, #23
                 vadd.i32 q2, q2, q1
                 vstrw.32 q2, [r0], #16
                 vadd.f32 ",
                $sums,
                ", ",
                $sums,
                ", q2
                "
            )
        };
    }
    naked_asm!(
        cpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "mov r12, r3",
        "ldr r3, [sp, #100]",
        "ldm r3, {{r4-r11}}",
        "add r1, r0, r1, lsl #4",
        "mvn lr, #125",
        "mvn r3, #0",
        "vldrw.u32 q4, [r2]",
        "vldrw.u32 q5, [r2, #16]",
        "vldrw.u32 q6, [r2, #32]",
        "vldrw.u32 q7, [r2, #48]",
        "2:",
        four!("q4"),
        four!("q5"),
        four!("q6"),
        four!("q7"),
        "cmp r0, r1",
        "bne 2b",
        "3:",
        "vstrw.32 q4, [r2]",
        "vstrw.32 q5, [r2, #16]",
        "vstrw.32 q6, [r2, #32]",
        "vstrw.32 q7, [r2, #48]",
        "sub r0, r1, r0",
        "lsr r0, r0, #4",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
    )
}
