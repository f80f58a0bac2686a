//! NEON, which every 64-bit Arm has: the fused family.

use core::arch::aarch64::*;
use core::arch::asm;

use super::vector::Vector;
use crate::softmax::LOWEST_POWER;

#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

// SAFETY of every block below: the caller's shell has NEON, and pointers are the caller's promise,
// kept lane for lane.
impl Vector for Neon {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vld1q_f32(p) })
    }

    #[inline(always)]
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self {
        // SAFETY: see above; lanes from n on are not accessed.
        unsafe {
            let mut lanes = [0.0; 4];
            vst1q_f32(lanes.as_mut_ptr(), other.0);
            for (i, lane) in lanes.iter_mut().enumerate().take(n) {
                *lane = *p.add(i);
            }
            Self::load(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a hint, for any address.
        unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see above.
        unsafe { vst1q_f32(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: see above; lanes from n on are not accessed.
        unsafe {
            let mut lanes = [0.0; 4];
            self.store(lanes.as_mut_ptr());
            for (i, lane) in lanes.iter().enumerate().take(n) {
                *p.add(i) = *lane;
            }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(c.0, self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn accumulate(self, a: Self, b: Self) -> Self {
        let mut acc = self.0;
        // SAFETY: registers only. Assembly that is not `pure` stays where it stands.
        unsafe {
            asm!("fmla {acc:v}.4s, {a:v}.4s, {b:v}.4s", acc = inout(vreg) acc, a = in(vreg) a.0,
                b = in(vreg) b.0, options(nomem, nostack, preserves_flags));
        }
        Self(acc)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. FMAX would give a NaN; a comparison with one is false.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxvq_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        // SAFETY: see above.
        unsafe { vminvq_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let two = vadd_f32(vget_low_f32(self.0), vget_high_f32(self.0));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            let row = |i: usize| vld1q_f32(from.add(i * from_row));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            // Pairs of rows, then halves: as doubles, which two floats travel as.
            let pairs = [vtrn1q_f32(a, b), vtrn2q_f32(a, b), vtrn1q_f32(c, d), vtrn2q_f32(c, d)];
            let [ab0, ab1, cd0, cd1] = pairs.map(|pair| vreinterpretq_f64_f32(pair));
            let columns = [
                vtrn1q_f64(ab0, cd0),
                vtrn1q_f64(ab1, cd1),
                vtrn2q_f64(ab0, cd0),
                vtrn2q_f64(ab1, cd1),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                vst1q_f32(to.add(i * to_row), vreinterpretq_f32_f64(column));
            }
        }
    }

    #[inline(always)]
    unsafe fn replace_neg_inf(self, value: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let is = vceqq_f32(self.0, vdupq_n_f32(f32::NEG_INFINITY));
            vbslq_f32(is, value.0, self.0)
        })
    }

    #[inline(always)]
    unsafe fn where_positive(self, value: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let is = vcgtq_f32(self.0, vdupq_n_f32(0.0));
            vbslq_f32(is, value.0, vdupq_n_f32(0.0))
        })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vrndnq_f32(self.0) })
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, d: Self) -> Self {
        // SAFETY: see above. The low bits of d + 1.5·2^23 + 127 are the exponent of 2^d.
        Self(unsafe {
            let biased = vreinterpretq_u32_f32(vaddq_f32(d.0, vdupq_n_f32(12_583_039.0)));
            let power = vreinterpretq_f32_u32(vshlq_n_u32::<23>(biased));
            let gone = vcltq_f32(d.0, vdupq_n_f32(LOWEST_POWER));
            vbslq_f32(gone, vdupq_n_f32(0.0), vmulq_f32(self.0, power))
        })
    }
}
