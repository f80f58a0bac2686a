//! AVX2 with FMA, and AVX-512F: the fused family.

use core::arch::asm;
use core::arch::x86_64::*;

use super::vector::Vector;
use crate::softmax::LOWEST_POWER;

/// What the processor and the operating system together offer.
#[derive(Clone, Copy)]
pub(super) struct Features {
    pub(super) avx2_fma: bool,
    pub(super) avx512: bool,
}

/// Asks the processor, without the standard library.
pub(super) fn features() -> Features {
    const NONE: Features = Features { avx2_fma: false, avx512: false };
    #[target_feature(enable = "xsave")]
    unsafe fn enabled_states() -> u64 {
        // SAFETY: the caller has seen OSXSAVE, so XGETBV exists and register 0 is readable.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 {
        return NONE;
    }
    let (one, seven) = (__cpuid(1), __cpuid_count(7, 0));
    let bit = |register: u32, bit: u32| register >> bit & 1 == 1;
    let (fma, osxsave, avx) = (bit(one.ecx, 12), bit(one.ecx, 27), bit(one.ecx, 28));
    if !(fma && osxsave && avx) {
        return NONE;
    }
    // SAFETY: OSXSAVE is set.
    let states = unsafe { enabled_states() };
    // The system saves XMM and YMM (bits 1, 2), and for AVX-512 also masks and ZMM (5, 6, 7).
    let avx2_fma = states & 0b110 == 0b110 && bit(seven.ebx, 5);
    let avx512 = avx2_fma && states & 0b1110_0000 == 0b1110_0000 && bit(seven.ebx, 16);
    Features { avx2_fma, avx512 }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

impl Avx2 {
    /// All bits in the first `n` lanes.
    #[inline(always)]
    unsafe fn first(n: usize) -> __m256i {
        // SAFETY: the caller's shell has AVX2.
        unsafe {
            _mm256_cmpgt_epi32(
                _mm256_set1_epi32(n as i32),
                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            )
        }
    }
}

// SAFETY of every block below: the caller's shell has AVX2 and FMA, and pointers are the caller's
// promise, kept lane for lane.
impl Vector for Avx2 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self {
        // SAFETY: see above; lanes that the mask leaves out are not accessed.
        Self(unsafe {
            let first = Self::first(n);
            _mm256_blendv_ps(other.0, _mm256_maskload_ps(p, first), _mm256_castsi256_ps(first))
        })
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: see above; lanes that the mask leaves out are not accessed.
        Self(unsafe { _mm256_maskload_ps(p, Self::first(n)) })
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a hint, for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: see above; lanes that the mask leaves out are not accessed.
        unsafe { _mm256_maskstore_ps(p, Self::first(n), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn broadcast(p: *const f32) -> Self {
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn broadcast(p: *const f32) -> __m256 {
            let x: __m256;
            // SAFETY: the caller lends p[0].
            unsafe {
                asm!("vbroadcastss {x}, dword ptr [{p}]", x = out(ymm_reg) x, p = in(reg) p,
                    options(readonly, nostack, preserves_flags));
            }
            x
        }
        // SAFETY: see above.
        Self(unsafe { broadcast(p) })
    }

    #[inline(always)]
    unsafe fn accumulate(self, a: Self, b: Self) -> Self {
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn accumulate(mut acc: __m256, a: __m256, b: __m256) -> __m256 {
            // SAFETY: registers only. Assembly that is not `pure` stays where it stands.
            unsafe {
                asm!("vfmadd231ps {acc}, {a}, {b}", acc = inout(ymm_reg) acc, a = in(ymm_reg) a,
                    b = in(ymm_reg) b, options(nomem, nostack, preserves_flags));
            }
            acc
        }
        // SAFETY: see above.
        Self(unsafe { accumulate(self.0, a.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. MAXPS gives its second operand where the first is NaN.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above. MINPS gives its second operand where the first is NaN.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four =
                _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four =
                _mm_min_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four =
                _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            // Pairs of rows, then pairs of pairs, then halves.
            let mut r: [__m256; 8] =
                core::array::from_fn(|i| _mm256_loadu_ps(from.add(i * from_row)));
            r = core::array::from_fn(|i| match i % 2 {
                0 => _mm256_unpacklo_ps(r[i], r[i + 1]),
                _ => _mm256_unpackhi_ps(r[i - 1], r[i]),
            });
            r = core::array::from_fn(|i| {
                let (a, b) = (r[i / 4 * 4 + i % 4 / 2], r[i / 4 * 4 + i % 4 / 2 + 2]);
                if i % 2 == 0 {
                    _mm256_shuffle_ps::<0x44>(a, b)
                } else {
                    _mm256_shuffle_ps::<0xee>(a, b)
                }
            });
            for i in 0..4 {
                _mm256_storeu_ps(
                    to.add(i * to_row),
                    _mm256_permute2f128_ps::<0x20>(r[i], r[i + 4]),
                );
                let high = _mm256_permute2f128_ps::<0x31>(r[i], r[i + 4]);
                _mm256_storeu_ps(to.add((i + 4) * to_row), high);
            }
        }
    }

    #[inline(always)]
    unsafe fn replace_neg_inf(self, value: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let is = _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, _mm256_set1_ps(f32::NEG_INFINITY));
            _mm256_blendv_ps(self.0, value.0, is)
        })
    }

    #[inline(always)]
    unsafe fn where_positive(self, value: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let is = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
            _mm256_and_ps(is, value.0)
        })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, d: Self) -> Self {
        // SAFETY: see above. The low bits of d + 1.5·2^23 + 127 are the exponent of 2^d.
        Self(unsafe {
            let biased = _mm256_castps_si256(_mm256_add_ps(d.0, _mm256_set1_ps(12_583_039.0)));
            let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased));
            let gone = _mm256_cmp_ps::<_CMP_LT_OQ>(d.0, _mm256_set1_ps(LOWEST_POWER));
            _mm256_andnot_ps(gone, _mm256_mul_ps(self.0, power))
        })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

impl Avx512 {
    /// A bit for each of the first `n` lanes.
    #[inline(always)]
    fn first(n: usize) -> __mmask16 {
        ((1u32 << n) - 1) as __mmask16
    }
}

// SAFETY of every block below: the caller's shell has AVX-512F, and pointers are the caller's
// promise, kept lane for lane.
impl Vector for Avx512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self {
        // SAFETY: see above; lanes that the mask leaves out are not accessed.
        Self(unsafe { _mm512_mask_loadu_ps(other.0, Self::first(n), p) })
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: see above; lanes that the mask leaves out are not accessed.
        Self(unsafe { _mm512_maskz_loadu_ps(Self::first(n), p) })
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a hint, for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: see above; lanes that the mask leaves out are not accessed.
        unsafe { _mm512_mask_storeu_ps(p, Self::first(n), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn broadcast(p: *const f32) -> Self {
        #[inline]
        #[target_feature(enable = "avx512f")]
        unsafe fn broadcast(p: *const f32) -> __m512 {
            let x: __m512;
            // SAFETY: the caller lends p[0].
            unsafe {
                asm!("vbroadcastss {x}, dword ptr [{p}]", x = out(zmm_reg) x, p = in(reg) p,
                    options(readonly, nostack, preserves_flags));
            }
            x
        }
        // SAFETY: see above.
        Self(unsafe { broadcast(p) })
    }

    #[inline(always)]
    unsafe fn accumulate(self, a: Self, b: Self) -> Self {
        #[inline]
        #[target_feature(enable = "avx512f,fma")]
        unsafe fn accumulate(mut acc: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: registers only. Assembly that is not `pure` stays where it stands.
            unsafe {
                asm!("vfmadd231ps {acc}, {a}, {b}", acc = inout(zmm_reg) acc, a = in(zmm_reg) a,
                    b = in(zmm_reg) b, options(nomem, nostack, preserves_flags));
            }
            acc
        }
        // SAFETY: see above.
        Self(unsafe { accumulate(self.0, a.0, b.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. VMAXPS gives its second operand where the first is NaN.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above. VMINPS gives its second operand where the first is NaN.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_min_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above; the upper half travels as doubles, which AVX-512F can extract.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            let low = _mm512_castps512_ps256(self.0);
            Avx2(_mm256_add_ps(low, _mm256_castpd_ps(high))).sum()
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see above.
        unsafe {
            // Pairs of rows, pairs of pairs: then each quarter of register 4g + c holds, of column
            // 4q + c for quarter q, the rows 4g to 4g + 3. The quarters are then transposed too.
            let mut r: [__m512; 16] =
                core::array::from_fn(|i| _mm512_loadu_ps(from.add(i * from_row)));
            r = core::array::from_fn(|i| match i % 2 {
                0 => _mm512_unpacklo_ps(r[i], r[i + 1]),
                _ => _mm512_unpackhi_ps(r[i - 1], r[i]),
            });
            r = core::array::from_fn(|i| {
                let (a, b) = (r[i / 4 * 4 + i % 4 / 2], r[i / 4 * 4 + i % 4 / 2 + 2]);
                if i % 2 == 0 {
                    _mm512_shuffle_ps::<0x44>(a, b)
                } else {
                    _mm512_shuffle_ps::<0xee>(a, b)
                }
            });
            for c in 0..4 {
                let (a, b, d, e) = (r[c], r[4 + c], r[8 + c], r[12 + c]);
                let (ab_even, ab_odd) =
                    (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (de_even, de_odd) =
                    (_mm512_shuffle_f32x4::<0x88>(d, e), _mm512_shuffle_f32x4::<0xdd>(d, e));
                let columns = [
                    _mm512_shuffle_f32x4::<0x88>(ab_even, de_even),
                    _mm512_shuffle_f32x4::<0x88>(ab_odd, de_odd),
                    _mm512_shuffle_f32x4::<0xdd>(ab_even, de_even),
                    _mm512_shuffle_f32x4::<0xdd>(ab_odd, de_odd),
                ];
                for (q, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((4 * q + c) * to_row), column);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn replace_neg_inf(self, value: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let is = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, _mm512_set1_ps(f32::NEG_INFINITY));
            _mm512_mask_mov_ps(self.0, is, value.0)
        })
    }

    #[inline(always)]
    unsafe fn where_positive(self, value: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            let is = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(is, value.0)
        })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above. Scale 0: to integers.
        Self(unsafe {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, d: Self) -> Self {
        // SAFETY: see above. The comparison is false for NaN, which therefore survives.
        Self(unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(d.0, _mm512_set1_ps(LOWEST_POWER));
            _mm512_maskz_scalef_ps(kept, self.0, d.0)
        })
    }
}
