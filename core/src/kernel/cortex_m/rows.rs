//! The loops of the softmax on single registers, over the rows of a tile.

use core::arch::naked_asm;

use crate::softmax::{self, BLOCK, EXP2};

/// The patterns of +∞ and of −0.
const INFINITY: u32 = f32::INFINITY.to_bits();
const SIGN: u32 = (-0.0f32).to_bits();

/// Floats that the loops over a row take at once.
const EIGHT: usize = 8;

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

/// The largest element of a row, and the smallest that is not −∞, NaN passed over; and whether there was
/// nothing to pass over.
pub(in crate::kernel) fn extremes(row: &[f32]) -> (f32, f32, bool) {
    let (eights, rest) = row.as_chunks::<EIGHT>();
    // As integers, positive floats are in their order and negative ones in the reverse: the largest
    // signed one is the highest float unless all are negative, the largest unsigned one the lowest
    // unless all are positive.
    let mut hidden = 0;
    let both = if eights.is_empty() {
        0
    } else {
        // SAFETY: as many eights as there are.
        unsafe { largest(eights.as_ptr(), eights.len(), &mut hidden) }
    };
    // A float of at least 0, and one below it: neither NaN nor −∞.
    let (high, low) = (both as u32, (both >> 32) as u32);
    if high <= INFINITY && low.wrapping_sub(SIGN | 1) < INFINITY - 1 {
        let [highest, lowest] = [high, low].map(f32::from_bits);
        if rest.is_empty() {
            return (highest, lowest, hidden == 0);
        }
        let (highest, lowest) = extremes_plainly(rest, highest, lowest);
        return (highest, lowest, false);
    }
    // All of one sign, or something among them that is no number.
    let (highest, lowest) = extremes_plainly(row, f32::NEG_INFINITY, f32::INFINITY);
    (highest, lowest, false)
}

/// [`extremes`] of a row and what is known, one by one.
#[inline(never)]
pub(in crate::kernel) fn extremes_plainly(
    row: &[f32],
    mut highest: f32,
    mut lowest: f32,
) -> (f32, f32) {
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

/// The largest of eights of words, at least one, as signed integers, in the low half, and as unsigned
/// ones, in the high half, passing over the word that is −∞; 0x80000000 and 0 where nothing is larger.
/// `hidden` becomes something else than 0 where that word is among them.
///
/// # Safety
/// There are as many words.
#[unsafe(naked)]
unsafe extern "C" fn largest(row: *const [f32; EIGHT], eights: usize, hidden: &mut u32) -> u64 {
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
                $above, ":\ncmp ", $word, ", r12\nite eq\nmoveq lr, r12\nmovne r3, ", $word, "\nb ", $next, "b\n"
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
    macro_rules! other {
        ($each:ident) => {
            $each!("r4" "52" "53" "54" "55", "r5" "56" "57" "58" "59",
                "r6" "60" "61" "62" "63", "r7" "64" "65" "66" "67",
                "r8" "68" "69" "70" "71", "r9" "72" "73" "74" "75",
                "r10" "76" "77" "78" "79", "r11" "80" "81" "82" "83")
        };
    }
    naked_asm!(
        "push {{r2, r4-r11, lr}}",
        "mov lr, #0",
        "mov r2, #0x80000000",
        "mov r3, #0",
        "mov r12, #0xff000000",
        "orr r12, r12, #0x800000",
        // One eight where they are odd, then two at a time.
        "sub r1, r1, #1",
        "lsrs r1, r1, #1",
        "bcc 3f",
        "2:",
        "ldmia r0!, {{r4-r11}}",
        eight!(compare),
        "3:",
        "ldmia r0!, {{r4-r11}}",
        other!(compare),
        "subs r1, r1, #1",
        "bpl 2b",
        "mov r0, r2",
        "mov r1, r3",
        "pop {{r2}}",
        "str lr, [r2]",
        "pop {{r4-r11, pc}}",
        eight!(raise),
        other!(raise),
    )
}

/// The largest of a row's eights and `m`, and something at most as large as the smallest; what is left of the row.
/// `None` where they are not ordered as integers, for want of one that is at least 0 or for a NaN.
#[inline(always)]
pub(in crate::kernel) fn bounds(m: f32, row: &[f32]) -> Option<(f32, f32, &[f32])> {
    let (eights, rest) = row.as_chunks::<EIGHT>();
    if eights.is_empty() {
        return None;
    }
    // SAFETY: as many eights as there are.
    let both = unsafe { bounds_of_eights(eights.as_ptr(), eights.len()) };
    let (high, low) = (both as u32, (both >> 32) as u32);
    // Where all are below 0, the largest is of no interest to an m that is not.
    let ordered = high <= INFINITY || high >= SIGN && m >= 0.0;
    let highest = if high <= INFINITY { f32::from_bits(high) } else { m };
    let lowest = if low <= INFINITY { 0.0 } else { f32::from_bits(low) };
    if !ordered || lowest.is_nan() {
        return None;
    }
    Some((if highest > m { highest } else { m }, lowest, rest))
}

/// The largest of eights of words, at least one, as signed integers, in the low half, and as unsigned ones, in
/// the high half.
///
/// # Safety
/// There are as many words.
#[unsafe(naked)]
unsafe extern "C" fn bounds_of_eights(row: *const [f32; EIGHT], eights: usize) -> u64 {
    macro_rules! raise {
        ($($word:literal),*) => {
            concat!($("cmp ", $word, ", r2\nit gt\nmovgt r2, ", $word,
                "\ncmp ", $word, ", r3\nit hi\nmovhi r3, ", $word, "\n"),*)
        };
    }
    naked_asm!(
        "push {{r4-r10, lr}}",
        "mov r2, #0x80000000",
        "movs r3, #0",
        "1:",
        "ldmia r0!, {{r4-r10, r12}}",
        raise!("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r12"),
        "subs r1, r1, #1",
        "bne 1b",
        "mov r0, r2",
        "mov r1, r3",
        "pop {{r4-r10, pc}}",
    )
}

/// Multiplies a row by a factor.
pub(in crate::kernel) fn scale(row: &mut [f32], factor: f32) {
    let (eights, rest) = row.as_chunks_mut::<EIGHT>();
    if !eights.is_empty() {
        let to = eights.as_mut_ptr();
        // SAFETY: as many eights as there are.
        unsafe { scale_eights(to, eights.len(), to, factor) };
    }
    rest.iter_mut().for_each(|x| *x *= factor);
}

/// A row times a factor, as long as the shorter of both.
#[cfg(not(feature = "size"))]
pub(in crate::kernel) fn scaled(to: &mut [f32], from: &[f32], factor: f32) {
    let (eights, rest) = to.as_chunks_mut::<EIGHT>();
    let (all, left) = from.as_chunks::<EIGHT>();
    if eights.len() == all.len() && !eights.is_empty() {
        // SAFETY: as many eights as there are in both.
        unsafe { scale_eights(eights.as_mut_ptr(), eights.len(), all.as_ptr(), factor) };
        rest.iter_mut().zip(left).for_each(|(to, from)| *to = from * factor);
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
    }
}

/// Fills a row with a value.
pub(in crate::kernel) fn fill(row: &mut [f32], value: f32) {
    let (eights, rest) = row.as_chunks_mut::<EIGHT>();
    if !eights.is_empty() {
        // SAFETY: as many eights as there are.
        unsafe { fill_eights(eights.as_mut_ptr(), eights.len(), value) };
    }
    rest.iter_mut().for_each(|x| *x = value);
}

/// Fills eights of floats, at least one, with a value.
///
/// # Safety
/// There are as many.
#[unsafe(naked)]
unsafe extern "C" fn fill_eights(row: *mut [f32; EIGHT], eights: usize, value: f32) {
    naked_asm!(
        fpu!(),
        "vmov r2, s0",
        "vmov s1, r2",
        "vmov s2, s3, r2, r2",
        "vmov s4, s5, r2, r2",
        "vmov s6, s7, r2, r2",
        "1:",
        "vstmia r0!, {{s0-s7}}",
        "subs r1, r1, #1",
        "bne 1b",
        "bx lr",
    )
}

/// Eights of floats, at least one, times a factor.
///
/// # Safety
/// There are as many.
#[unsafe(naked)]
unsafe extern "C" fn scale_eights(
    to: *mut [f32; EIGHT],
    eights: usize,
    from: *const [f32; EIGHT],
    factor: f32,
) {
    macro_rules! eight {
        () => {
            concat!(
                "vldmia r2!, {{s8-s15}}\n",
                each!("vmul.f32", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15"; "s0"),
                "vstmia r0!, {{s8-s15}}\n",
            )
        };
    }
    naked_asm!(
        fpu!(),
        // Two at a time; one first where they are odd.
        "adds r1, r1, #1",
        "lsrs r1, r1, #1",
        "bcc 2f",
        "1:",
        eight!(),
        "2:",
        eight!(),
        "subs r1, r1, #1",
        "bne 1b",
        "bx lr",
    )
}

/// Added and subtracted, it rounds what is smaller than 2²² to an integer, ties to even.
pub(in crate::kernel) const MAGIC: f32 = 12_582_912.0;

/// Maxima whose power of two, and that of what is near them, the coefficients can be multiplied by.
const NEAR: f32 = 40.0;

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

/// Turns a row of logits into weights against a finite maximum, and adds them to their sums. With `near`
/// every logit is a number at most [`softmax::WIDE`] below the maximum.
#[inline(never)]
pub(in crate::kernel) fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK], near: bool) {
    let eights = row.len() / EIGHT;
    if near && m.abs() < NEAR && eights > 0 {
        let power = power(m);
        // SAFETY: as many eights as there are.
        unsafe { weigh_near(row.as_mut_ptr(), eights, sums, power, &CONSTANTS) };
        let (low, high) = sums.split_at_mut(EIGHT);
        let rest = row.get_mut(eights * EIGHT..).unwrap_or_default();
        if !rest.is_empty() {
            weigh_plainly(rest, m, if eights.is_multiple_of(2) { low } else { high });
        }
        return;
    }
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

/// [`weigh`] for eights that are near, if the maximum is near to 0: how many floats.
#[cfg(not(feature = "size"))]
#[inline(always)]
pub(in crate::kernel) fn weigh_eights_near(
    row: &mut [f32],
    m: f32,
    sums: &mut [f32; BLOCK],
) -> usize {
    let eights = row.len() / EIGHT;
    if m.abs() >= NEAR || eights == 0 {
        return 0;
    }
    // SAFETY: as many eights as there are.
    unsafe { weigh_near(row.as_mut_ptr(), eights, sums, power(m), &CONSTANTS) };
    eights * EIGHT
}

/// [`weigh`] for sums that begin at 0; their total.
#[inline(always)]
pub(in crate::kernel) fn weigh_all(row: &mut [f32], m: f32, near: bool) -> f32 {
    let eights = row.len() / EIGHT;
    if near && m.abs() < NEAR && eights > 0 && row.len().is_multiple_of(EIGHT) {
        // SAFETY: as many eights as there are.
        return unsafe { settle_near(row.as_mut_ptr(), eights, power(m), &CONSTANTS) };
    }
    // Stored one by one: for so few, a call to memset takes four times as long.
    let mut sums = [core::hint::black_box(0.0); BLOCK];
    weigh(row, m, &mut sums, near);
    total(&sums)
}

/// `2^(−m)`, less the 4 that is in the coefficients.
#[inline(always)]
fn power(m: f32) -> f32 {
    f32::from_bits((125 - m as i32).cast_unsigned() << 23)
}

/// [`softmax::total`], in registers.
#[unsafe(naked)]
pub(in crate::kernel) extern "C" fn total(sums: &[f32; BLOCK]) -> f32 {
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

/// The weights of the eight floats at `r0`, added to `s0` to `s7`; the coefficients, times a power of the
/// maximum, and [`MAGIC`] are in `s24` to `s31`.
macro_rules! near_eight {
    () => {
        concat!(
            "vldmia r0, {{s8-s15}}\n",
            // n in the low bits; n; f = l − n; and the polynomial.
            each!("vadd.f32", "s16" "s8", "s17" "s9", "s18" "s10", "s19" "s11", "s20" "s12", "s21" "s13",
            "s22" "s14", "s23" "s15"; "s31"),
            "vmov r4, r5, s16, s17\n",
            "vmov r6, r7, s18, s19\n",
            "vmov r8, r9, s20, s21\n",
            "vmov r10, r11, s22, s23\n",
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
            // The weights: the exponent goes up by n. And their sums.
            "vmov r12, lr, s16, s17\n",
            each!("add", "r4" "r12" "r4, lsl #23", "r5" "lr" "r5, lsl #23"),
            "vmov r12, lr, s18, s19\n",
            each!("add", "r6" "r12" "r6, lsl #23", "r7" "lr" "r7, lsl #23"),
            "vmov r12, lr, s20, s21\n",
            each!("add", "r8" "r12" "r8, lsl #23", "r9" "lr" "r9, lsl #23"),
            "vmov r12, lr, s22, s23\n",
            each!("add", "r10" "r12" "r10, lsl #23", "r11" "lr" "r11, lsl #23"),
            "stm r0, {{r4-r11}}\n",
            "vldmia r0, {{s16-s23}}\n",
            each!("vadd.f32", "s0" "s0" "s16", "s1" "s1" "s17", "s2" "s2" "s18", "s3" "s3" "s19",
            "s4" "s4" "s20", "s5" "s5" "s21", "s6" "s6" "s22", "s7" "s7" "s23"),
        )
    };
}

/// Turns eights of floats, at least one, into weights and adds them to their sums, as [`weigh`] says of what
/// is near: the maximum goes into the coefficients, and nothing is asked of a logit.
///
/// `power` is 2^(−m − 2).
///
/// # Safety
/// The floats exist.
#[unsafe(naked)]
unsafe extern "C" fn weigh_near(
    row: *mut f32,
    eights: usize,
    sums: &mut [f32; BLOCK],
    power: f32,
    constants: &[f32; 8],
) {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "vldmia r3, {{s24-s31}}",
        "vmul.f32 s24, s24, s0",
        "vmul.f32 s25, s25, s0",
        "vmul.f32 s26, s26, s0",
        "vmul.f32 s27, s27, s0",
        "vmul.f32 s28, s28, s0",
        "vmul.f32 s29, s29, s0",
        "vmul.f32 s30, s30, s0",
        // Every second eight to the end, from the first one and then from the second.
        "add r1, r0, r1, lsl #5",
        "add r3, r0, #32",
        "1:",
        "vldmia r2, {{s0-s7}}",
        "2:",
        near_eight!(),
        "add r0, r0, #64",
        "cmp r0, r1",
        "blo 2b",
        "vstmia r2!, {{s0-s7}}",
        "mov r0, r3",
        "mov r3, r1",
        "cmp r0, r1",
        "blo 1b",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
    )
}

/// [`weigh_near`] for a row whose sums begin at 0; their [`total`].
///
/// # Safety
/// The floats exist.
#[unsafe(naked)]
unsafe extern "C" fn settle_near(
    row: *mut f32,
    eights: usize,
    power: f32,
    constants: &[f32; 8],
) -> f32 {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d15}}",
        "vldmia r2, {{s24-s31}}",
        "vmul.f32 s24, s24, s0",
        "vmul.f32 s25, s25, s0",
        "vmul.f32 s26, s26, s0",
        "vmul.f32 s27, s27, s0",
        "vmul.f32 s28, s28, s0",
        "vmul.f32 s29, s29, s0",
        "vmul.f32 s30, s30, s0",
        "add r1, r0, r1, lsl #5",
        "add r3, r0, #32",
        "mov r2, #0",
        "1:",
        "vmov s0, s1, r2, r2",
        "vmov s2, s3, r2, r2",
        "vmov s4, s5, r2, r2",
        "vmov s6, s7, r2, r2",
        "2:",
        near_eight!(),
        "add r0, r0, #64",
        "cmp r0, r1",
        "blo 2b",
        // Where there is but one eight, the sums of the second are those of nothing.
        "mov r0, r3",
        "mov r3, r2",
        "cbz r0, 3f",
        "vpush {{s0-s7}}",
        "cmp r0, r1",
        "blo 1b",
        "vmov s0, s1, r2, r2",
        "vmov s2, s3, r2, r2",
        "vmov s4, s5, r2, r2",
        "vmov s6, s7, r2, r2",
        "3:",
        "vpop {{s8-s15}}",
        "vadd.f32 s0, s8, s0",
        "vadd.f32 s1, s9, s1",
        "vadd.f32 s2, s10, s2",
        "vadd.f32 s3, s11, s3",
        "vadd.f32 s4, s12, s4",
        "vadd.f32 s5, s13, s5",
        "vadd.f32 s6, s14, s6",
        "vadd.f32 s7, s15, s7",
        "vadd.f32 s0, s0, s4",
        "vadd.f32 s1, s1, s5",
        "vadd.f32 s2, s2, s6",
        "vadd.f32 s3, s3, s7",
        "vadd.f32 s0, s0, s2",
        "vadd.f32 s1, s1, s3",
        "vadd.f32 s0, s0, s1",
        "vpop {{d8-d15}}",
        "pop {{r4-r11, pc}}",
    )
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
