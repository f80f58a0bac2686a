//! The dozen operations that a machine must have to run the kernels.
//!
//! [`generic`](super::generic) is written once over this trait. A new machine is one file that
//! implements it and stamps the shells; see [`portable`](super::portable) for the smallest one.

/// A register of `LANES` floats.
///
/// # Safety
/// The methods of an implementation may use instructions that not every machine has: call them only
/// under a shell that [`Isa`](super::Isa) has vouched for. Pointers need no alignment beyond that of
/// `f32`.
pub(crate) trait Vector: Copy {
    /// Floats in one register; a divisor of 16.
    const LANES: usize;

    /// The same value in every lane.
    unsafe fn splat(x: f32) -> Self;

    /// Lanes from `p[0..LANES]`.
    unsafe fn load(p: *const f32) -> Self;

    /// The first `n` lanes from `p[0..n]`, the others from `other`. Reads nothing past `p + n`.
    unsafe fn load_first_or(p: *const f32, n: usize, other: Self) -> Self;

    /// The first `n` lanes from `p[0..n]`, the others 0. Reads nothing past `p + n`.
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: passed on.
        unsafe { Self::load_first_or(p, n, Self::splat(0.0)) }
    }

    /// Asks for the memory at `p`, which need not exist, to be near soon.
    #[inline(always)]
    unsafe fn prefetch(_p: *const f32) {}

    /// Lanes to `p[0..LANES]`.
    unsafe fn store(self, p: *mut f32);

    /// The first `n` lanes to `p[0..n]`. Writes nothing past `p + n`.
    unsafe fn store_first(self, p: *mut f32, n: usize);

    unsafe fn add(self, other: Self) -> Self;

    unsafe fn sub(self, other: Self) -> Self;

    unsafe fn mul(self, other: Self) -> Self;

    /// `self · b + c`: rounded once in the fused family, twice in the unfused one. Nothing else
    /// tells the families apart.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;

    /// The float at `p` in every lane, for [`Vector::accumulate`].
    #[inline(always)]
    unsafe fn broadcast(p: *const f32) -> Self {
        // SAFETY: passed on.
        unsafe { Self::splat(*p) }
    }

    /// `a · b + self` as [`Vector::mul_add`], for the product's tile: after what stands before it in
    /// the program. A compiler that loads all operands first runs out of registers.
    #[inline(always)]
    unsafe fn accumulate(self, a: Self, b: Self) -> Self {
        // SAFETY: passed on.
        unsafe { a.mul_add(b, self) }
    }

    /// `if self > other { self } else { other }`: a NaN in `self` is passed over.
    unsafe fn max(self, other: Self) -> Self;

    /// `if self < other { self } else { other }`: a NaN in `self` is passed over.
    unsafe fn min(self, other: Self) -> Self;

    /// The largest lane, of lanes that are no NaN.
    unsafe fn highest(self) -> f32;

    /// The smallest lane, of lanes that are no NaN.
    unsafe fn lowest(self) -> f32;

    /// The sum of the lanes: halves onto each other until one is left.
    unsafe fn sum(self) -> f32;

    /// Transposes a square of `LANES × LANES` floats: `to[j][i] = from[i][j]`, rows `from_row` and
    /// `to_row` apart. The two do not overlap.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller lends both squares.
                unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) };
            }
        }
    }

    /// Whether the machine has ways of its own to go over a row: all of those below.
    const ROWS: bool = false;

    /// The largest element of a row, the smallest that is not −∞, and whether every one is surely a number,
    /// where the machine has a way of its own that can tell.
    #[inline(always)]
    unsafe fn extremes(_row: &[f32]) -> Option<(f32, f32, bool)> {
        None
    }

    /// Turns a row of logits into weights and adds them to the row's sums, where the machine has a way of
    /// its own; whether it has. `near`: see [`Spread::Near`](super::Spread::Near).
    #[inline(always)]
    unsafe fn weigh(_row: &mut [f32], _m: f32, _sums: &mut [f32; 16], _near: bool) -> bool {
        false
    }

    /// [`Vector::weigh`] for sums that begin at 0; their total.
    #[inline(always)]
    unsafe fn weigh_all(_row: &mut [f32], _m: f32, _near: bool) -> Option<f32> {
        None
    }

    /// Multiplies a row by a factor, where the machine has a way of its own; whether it has.
    #[inline(always)]
    unsafe fn scale(_row: &mut [f32], _factor: f32) -> bool {
        false
    }

    /// `self`, but `value` in the lanes where `self` is −∞.
    unsafe fn replace_neg_inf(self, value: Self) -> Self;

    /// `value` in the lanes where `self` is above 0, and 0 in the others, whatever `value` holds there.
    unsafe fn where_positive(self, value: Self) -> Self;

    /// The nearest integer, ties to even. Exact for every finite value; ±∞ and NaN give anything
    /// that is not a finite number.
    unsafe fn round(self) -> Self;

    /// `self · 2^d`, or +0 where `d < -125`, even if `self` is NaN or infinite there. `d` is an
    /// integer of at most 0, or NaN where `self` is NaN.
    unsafe fn scale_by_power(self, d: Self) -> Self;
}
