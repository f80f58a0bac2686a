//! Four floats in an array: runs everywhere, rounds the product and the sum of a multiply-add
//! separately, and is the reference for every other kernel of the unfused family.

use super::vector::Vector;

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }
}

impl Vector for Portable {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller lends p[0..4]; an array of floats has the alignment of a float.
        Self(unsafe { p.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self {
        let Self(mut lanes) = other;
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, and the caller lends p[0..n].
            *lane = unsafe { *p.add(i) };
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller lends p[0..4].
        unsafe { p.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: i < n, and the caller lends p[0..n].
            unsafe { *p.add(i) = *lane };
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        self.zip(b, |a, b| a * b).zip(c, |p, c| p + c)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        self.0.iter().fold(f32::NEG_INFINITY, |high, &x| if x > high { x } else { high })
    }

    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        self.0.iter().fold(f32::INFINITY, |low, &x| if x < low { x } else { low })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }

    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    const ROWS: bool = true;

    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    #[inline(always)]
    unsafe fn extremes(row: &[f32]) -> Option<(f32, f32, bool)> {
        Some(super::cortex_m::extremes(row))
    }

    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    #[inline(always)]
    unsafe fn weigh(row: &mut [f32], m: f32, sums: &mut [f32; 16], near: bool) -> bool {
        super::cortex_m::weigh(row, m, sums, near);
        true
    }

    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    #[inline(always)]
    unsafe fn weigh_all(row: &mut [f32], m: f32, near: bool) -> Option<f32> {
        Some(super::cortex_m::weigh_all(row, m, near))
    }

    #[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
    #[inline(always)]
    unsafe fn scale(row: &mut [f32], factor: f32) -> bool {
        super::cortex_m::scale(row, factor);
        true
    }

    #[inline(always)]
    unsafe fn replace_neg_inf(self, value: Self) -> Self {
        self.zip(value, |x, value| if x == f32::NEG_INFINITY { value } else { x })
    }

    #[inline(always)]
    unsafe fn where_positive(self, value: Self) -> Self {
        self.zip(value, |x, value| if x > 0.0 { value } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(crate::softmax::round)
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, d: Self) -> Self {
        self.zip(d, crate::softmax::scale_by_power)
    }
}
