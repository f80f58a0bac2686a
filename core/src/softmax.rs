//! The numbers of the softmax: how a logit becomes a weight, and how a row of weights becomes a sum.
//!
//! Logits are carried in units of log2. A row keeps a running maximum `m`, an integer, and the
//! weight of a key with logit `l` is
//!
//! ```text
//! 2^(l − m) = 2^f · 2^(n − m),   n = round(l),  f = l − n
//! ```
//!
//! `f` depends on the logit alone, so the polynomial gives the same bits whatever `m` is, and where
//! a later key raises `m` to `m'` all that was computed before is multiplied by `2^(m − m')`, which
//! is exact: in fixed point, a shift. A weight below 2⁻¹²⁶ is 0, so nothing is ever subnormal.
//!
//! **The law.** Keys are taken in blocks of sixteen, aligned at the first key. For each block: raise
//! `m` to the ceiling of the block's largest logit; shift the sums and the mixed values; compute the
//! weights; add weight `j` to partial sum `j mod 16`; add weight times value in the order of the
//! keys. At the end the sixteen sums are added as a fixed tree. [`reference`](crate::reference) is
//! the law in code. A driver may take many blocks at once where that provably gives the same bits:
//! where all visible logits lie within [`WIDE`] of the new maximum.

/// Keys of one block of the law.
pub(crate) const BLOCK: usize = 16;

/// How far below the running maximum a logit may lie so that blocks may be taken together: far
/// from the 126 where a weight vanishes, so that it vanishes in no order of evaluation.
pub(crate) const WIDE: f32 = 60.0;

/// log2 e, the unit of the logits.
pub(crate) const LOG2_E: f32 = core::f32::consts::LOG2_E;

/// 2^f on [−0.5, 0.5] by a polynomial of degree 6, minimax in the relative error: 2.0e-9 in exact
/// arithmetic, 1.23 ulp at most in f32 unfused and 0.96 ulp fused. 2^0 is exactly 1.
pub(crate) const EXP2: [f32; 7] = [
    1.0,
    f32::from_bits(0x3f31_7218),
    f32::from_bits(0x3e75_fdee),
    f32::from_bits(0x3d63_5774),
    f32::from_bits(0x3c1d_96a6),
    f32::from_bits(0x3aaf_9f2a),
    f32::from_bits(0x3920_fdde),
];

/// The smallest power that a weight keeps: 2^f is at least 2^−0.5, so 2^−125 times that is normal.
pub(crate) const LOWEST_POWER: f32 = -125.0;

/// The nearest integer, ties to even. ±∞ and NaN give something that is not finite.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    // Adding 2^23 leaves no room for a fraction. Above it, every float is an integer.
    let magic = 8_388_608.0f32.copysign(x);
    let rounded = (x + magic) - magic;
    if x.abs() < 8_388_608.0 { rounded } else { x }
}

/// `p · 2^d` for an integer `d <= 0`, +0 where that would be subnormal.
#[inline(always)]
pub(crate) fn scale_by_power(p: f32, d: f32) -> f32 {
    // The low bits of d + 1.5·2^23 hold d itself; 127 more, shifted to the exponent, are 2^d.
    let power = f32::from_bits((d + 12_583_039.0).to_bits() << 23);
    if d < LOWEST_POWER { 0.0 } else { p * power }
}

/// The integer at or above the largest logit; ±∞ stay what they are.
#[inline(always)]
pub(crate) fn ceil(x: f32) -> f32 {
    let rounded = round(x);
    if rounded < x { rounded + 1.0 } else { rounded }
}

/// The exact factor `2^(old − new)` by which sums shrink when the maximum rises, 0 where it would
/// be subnormal. `old <= new`, both integers or −∞.
#[inline(always)]
pub(crate) fn shift(old: f32, new: f32) -> f32 {
    if old == new { 1.0 } else { scale_by_power(1.0, old - new) }
}

/// The sum of a row's sixteen partial sums, always in this order: halves onto each other until one is
/// left.
#[inline(always)]
pub(crate) fn total(sums: &[f32; BLOCK]) -> f32 {
    let mut sums = *sums;
    add_up(&mut sums);
    sums[0]
}

/// [`total`], which becomes the first of the sums.
#[inline(always)]
pub(crate) fn add_up(sums: &mut [f32; BLOCK]) {
    let mut half = BLOCK / 2;
    while half > 0 {
        if let Some((low, high)) = sums.split_at_mut_checked(half) {
            low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        }
        half /= 2;
    }
}

/// Multiplies by a shift and flushes what would be subnormal; for values that are never negative.
#[inline(always)]
pub(crate) fn shift_weight(x: &mut f32, factor: f32) {
    let shifted = *x * factor;
    *x = if shifted < f32::MIN_POSITIVE { 0.0 } else { shifted };
}

/// Multiplies a mixed value by a shift. Plus 0, so that one that vanishes leaves +0: to that, a key without weight
/// adds nothing whether it is multiplied or left out.
#[inline(always)]
pub(crate) fn shift_mixed(x: &mut f32, factor: f32) {
    *x = *x * factor + 0.0;
}

/// What a finished row is multiplied by: one over its sum, or 0 for a row without a visible key.
#[inline(always)]
pub(crate) fn normaliser(total: f32) -> f32 {
    if total == 0.0 { 0.0 } else { 1.0 / total }
}

/// The factor that goes into the queries: the scale of the logits times log2 e.
#[inline(always)]
pub(crate) fn query_scale(scale: Option<f32>, head_qk: usize) -> f32 {
    /// (log2 e)².
    const LOG2_E_SQUARED: f32 = 2.081_369;
    match scale {
        Some(scale) => scale * LOG2_E,
        // One rounding less than log2 e / √d.
        None => square_root(LOG2_E_SQUARED / head_qk as f32),
    }
}

/// The square root of a normal number, rounded to nearest.
#[cfg(not(any(
    feature = "size",
    all(target_arch = "arm", target_abi = "eabihf"),
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
fn square_root(x: f32) -> f32 {
    libm::sqrtf(x)
}

#[cfg(any(
    all(target_arch = "arm", target_abi = "eabihf"),
    all(not(feature = "size"), target_arch = "wasm32", target_feature = "simd128")
))]
use crate::kernel::square_root;

/// The same bit by bit: slower, and a sixth of the code.
#[cfg(all(feature = "size", not(all(target_arch = "arm", target_abi = "eabihf"))))]
fn square_root(x: f32) -> f32 {
    let bits = x.to_bits();
    // x = rest · 2^(exponent − 23), the exponent even; the root has half of it.
    let exponent = (bits >> 23).wrapping_sub(127).cast_signed();
    let mut rest = (bits & 0x007f_ffff | 0x0080_0000) << (1 + (exponent & 1));
    let (mut root, mut doubled, mut bit) = (0, 0, 0x0100_0000);
    while bit != 0 {
        if doubled + bit <= rest {
            rest -= doubled + bit;
            doubled += 2 * bit;
            root += bit;
        }
        rest <<= 1;
        bit >>= 1;
    }
    // 25 bits: the last one rounds, and a root is never half way between two floats.
    root += root & 1;
    f32::from_bits(((exponent >> 1) << 23).cast_unsigned().wrapping_add((root >> 1) + 0x3f00_0000))
}

#[cfg(all(test, feature = "size"))]
mod tests {
    use super::square_root;

    #[test]
    fn a_root_bit_by_bit_is_that_of_the_library() {
        for bits in (0x0080_0000..0x7f80_0000u32).step_by(1_237) {
            let x = f32::from_bits(bits);
            assert_eq!(square_root(x).to_bits(), libm::sqrtf(x).to_bits(), "{x}");
        }
    }
}

/// Whether a tile must be taken block by block: its largest logit, `top`, raises the maximum from `m`
/// so far above what the row holds, or above its smallest logit, that something might vanish too early.
#[inline(always)]
pub(crate) fn is_wide(m: f32, top: f32, lowest: f32) -> bool {
    // Hardly ever, so nothing is rounded to learn that it is not.
    let before = m > f32::NEG_INFINITY;
    if !(top + 1.0 - lowest > WIDE || before && top + 1.0 - m > WIDE) {
        return false;
    }
    let raised = ceil(top);
    raised > m && (raised - lowest > WIDE || before && raised - m > WIDE)
}
