//! WebAssembly's 128-bit vectors: the unfused family. A module cannot ask what its engine has, so they are
//! here where it is compiled for them.
//!
//! Compiled for relaxed vectors, a multiply-add rounds as the engine likes it best: once where the
//! machine fuses, twice elsewhere. Such a module is of no family.

use core::arch::wasm32::*;

use super::generic::weight;
use super::vector::Vector;
use crate::softmax::{self, BLOCK, LOWEST_POWER};

#[derive(Clone, Copy)]
pub(crate) struct Simd128(v128);

// SAFETY of every block below: the module is compiled for these instructions, and pointers are the
// caller's promise, kept lane for lane.
impl Vector for Simd128 {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(f32x4_splat(x))
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { v128_load(p.cast()) })
    }

    #[inline(always)]
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self {
        // SAFETY: see above; lanes from n on are not accessed.
        Self(unsafe {
            match n {
                0 => other.0,
                1 => v128_load32_lane::<0>(other.0, p.cast()),
                2 => v128_load64_lane::<0>(other.0, p.cast()),
                3 => {
                    let two = v128_load64_lane::<0>(other.0, p.cast());
                    v128_load32_lane::<2>(two, p.add(2).cast())
                }
                _ => v128_load(p.cast()),
            }
        })
    }

    #[inline(always)]
    unsafe fn broadcast(p: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { v128_load32_splat(p.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see above.
        unsafe { v128_store(p.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: passed on.
        unsafe { store_first(p, n, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(f32x4_add(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(f32x4_sub(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(f32x4_mul(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        #[cfg(target_feature = "relaxed-simd")]
        return Self(f32x4_relaxed_madd(self.0, b.0, c.0));
        #[cfg(not(target_feature = "relaxed-simd"))]
        Self(f32x4_add(f32x4_mul(self.0, b.0), c.0))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // `other < self ? self : other`
        Self(f32x4_pmax(other.0, self.0))
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // `self < other ? self : other`
        Self(f32x4_pmin(other.0, self.0))
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        let two = f32x4_pmax(self.0, u32x4_shuffle::<2, 3, 0, 1>(self.0, self.0));
        f32x4_extract_lane::<0>(f32x4_pmax(two, u32x4_shuffle::<1, 0, 3, 2>(two, two)))
    }

    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        let two = f32x4_pmin(self.0, u32x4_shuffle::<2, 3, 0, 1>(self.0, self.0));
        f32x4_extract_lane::<0>(f32x4_pmin(two, u32x4_shuffle::<1, 0, 3, 2>(two, two)))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let two = f32x4_add(self.0, u32x4_shuffle::<2, 3, 0, 1>(self.0, self.0));
        f32x4_extract_lane::<0>(f32x4_add(two, u32x4_shuffle::<1, 0, 3, 2>(two, two)))
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            let row = |i: usize| v128_load(from.add(i * from_row).cast());
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            // Pairs of rows, then pairs of pairs.
            let (ab01, ab23) =
                (u32x4_shuffle::<0, 4, 1, 5>(a, b), u32x4_shuffle::<2, 6, 3, 7>(a, b));
            let (cd01, cd23) =
                (u32x4_shuffle::<0, 4, 1, 5>(c, d), u32x4_shuffle::<2, 6, 3, 7>(c, d));
            let columns = [
                u64x2_shuffle::<0, 2>(ab01, cd01),
                u64x2_shuffle::<1, 3>(ab01, cd01),
                u64x2_shuffle::<0, 2>(ab23, cd23),
                u64x2_shuffle::<1, 3>(ab23, cd23),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                v128_store(to.add(i * to_row).cast(), column);
            }
        }
    }

    #[inline(always)]
    unsafe fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK], _near: bool) -> bool {
        // SAFETY: see above.
        unsafe { weigh(row, m, sums) };
        true
    }

    #[inline(always)]
    unsafe fn weigh_all(row: &mut [f32], m: f32, _near: bool) -> Option<f32> {
        let mut sums = [0.0; BLOCK];
        // SAFETY: see above.
        unsafe { weigh(row, m, &mut sums) };
        Some(softmax::total(&sums))
    }

    #[inline(always)]
    unsafe fn replace_neg_inf(self, value: Self) -> Self {
        let is = f32x4_eq(self.0, f32x4_splat(f32::NEG_INFINITY));
        Self(v128_bitselect(value.0, self.0, is))
    }

    #[inline(always)]
    unsafe fn where_positive(self, value: Self) -> Self {
        Self(v128_and(f32x4_gt(self.0, f32x4_splat(0.0)), value.0))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(f32x4_nearest(self.0))
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, d: Self) -> Self {
        // The low bits of d + 1.5·2^23 + 127 are the exponent of 2^d.
        let power = u32x4_shl(f32x4_add(d.0, f32x4_splat(12_583_039.0)), 23);
        let gone = f32x4_lt(d.0, f32x4_splat(LOWEST_POWER));
        Self(v128_andnot(f32x4_mul(self.0, power), gone))
    }
}

/// The square root, rounded to nearest, in one instruction.
pub(crate) fn square_root(x: f32) -> f32 {
    f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(x)))
}

/// [`Vector::store_first`], there once: a module is downloaded.
///
/// # Safety
/// `p` points at `n` floats.
#[inline(never)]
unsafe fn store_first(p: *mut f32, n: usize, lanes: v128) {
    // SAFETY: lanes from n on are not accessed.
    unsafe {
        match n {
            0 => {}
            1 => v128_store32_lane::<0>(lanes, p.cast()),
            2 => v128_store64_lane::<0>(lanes, p.cast()),
            3 => {
                v128_store64_lane::<0>(lanes, p.cast());
                v128_store32_lane::<2>(lanes, p.add(2).cast());
            }
            _ => v128_store(p.cast(), lanes),
        }
    }
}

/// [`Vector::weigh`], there once.
///
/// # Safety
/// None beyond the instructions.
#[inline(never)]
unsafe fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    const LANES: usize = Simd128::LANES;
    // What the last block lacks weighs nothing.
    let mut edge = [f32::NEG_INFINITY; BLOCK];
    // SAFETY: a block has sixteen floats, in the row or in the edge, and so have the sums.
    unsafe {
        let m = Simd128::splat(m);
        let mut acc = [m; BLOCK / LANES];
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = Simd128::load(sums.as_ptr().add(i * LANES));
        }
        for block in row.chunks_mut(BLOCK) {
            let whole = block.len() == BLOCK;
            let at = if whole {
                block.as_mut_ptr()
            } else {
                edge.iter_mut().zip(block.iter()).for_each(|(to, from)| *to = *from);
                edge.as_mut_ptr()
            };
            for (i, acc) in acc.iter_mut().enumerate() {
                let p = at.add(i * LANES);
                let weight = weight(Simd128::load(p), m);
                weight.store(p);
                *acc = acc.add(weight);
            }
            if !whole {
                block.iter_mut().zip(&edge).for_each(|(to, from)| *to = *from);
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            acc.store(sums.as_mut_ptr().add(i * LANES));
        }
    }
}
