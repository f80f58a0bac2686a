//! Row arithmetic in a fixed order.
//!
//! Every sum here runs from its first term to its last, every product is rounded before it is added.
//! The compiler may put independent sums side by side in a vector but may not reorder one or fuse it,
//! so the bits are those of a plain loop on any machine.

/// Under the square root of the norm; the trainer's value.
const EPSILON: f32 = 1e-5;

/// `out = bias + x · weight`: each output starts at its bias and adds its terms in the order of `x`.
pub(crate) fn affine<const OUT: usize>(
    x: &[f32],
    weight: &[[f32; OUT]],
    bias: &[f32; OUT],
    out: &mut [f32; OUT],
) {
    *out = *bias;
    for (&x, row) in x.iter().zip(weight) {
        for (out, &weight) in out.iter_mut().zip(row) {
            *out += x * weight;
        }
    }
}

/// `x += y`.
pub(crate) fn add<const N: usize>(x: &mut [f32; N], y: &[f32; N]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `1 / √(mean(x²) + ε)`: one square root and two divisions.
pub(crate) fn rms_factor<const N: usize>(x: &[f32; N]) -> f32 {
    let mut squares = 0.0;
    for &x in x {
        squares += x * x;
    }
    1.0 / libm::sqrtf(squares / N as f32 + EPSILON)
}

/// `out = x · (1 / √(mean(x²) + ε)) · gain`.
pub(crate) fn rms_norm<const N: usize>(x: &[f32; N], gain: &[f32; N], out: &mut [f32; N]) {
    let factor = rms_factor(x);
    for ((out, &x), &gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * factor * gain;
    }
}

/// `x = max(x, 0)`; NaN stays.
pub(crate) fn relu(x: &mut [f32]) {
    for x in x {
        if *x < 0.0 {
            *x = 0.0;
        }
    }
}

/// `Σ x · y`: sixteen partial sums, folded by halves, so that there is something to do side by side.
fn dot<const N: usize>(x: &[f32; N], y: &[f32; N]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in xs.iter().zip(ys) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    for ((sum, &x), &y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
        *sum += x * y;
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        for (low, &high) in low.iter_mut().zip(&*high) {
            *low += high;
        }
        half /= 2;
    }
    let [sum, ..] = sums;
    sum
}

/// The way back of [`affine`]'s `x`: `dx = d · weightᵀ`.
pub(crate) fn affine_back<const OUT: usize>(weight: &[[f32; OUT]], d: &[f32; OUT], dx: &mut [f32]) {
    for (dx, row) in dx.iter_mut().zip(weight) {
        *dx = dot(row, d);
    }
}

/// The way back of [`affine`]'s weight: `gradient += xᵀ · d`.
pub(crate) fn outer<const OUT: usize>(x: &[f32], d: &[f32; OUT], gradient: &mut [[f32; OUT]]) {
    for (&x, row) in x.iter().zip(gradient) {
        for (gradient, &d) in row.iter_mut().zip(d) {
            *gradient += x * d;
        }
    }
}

/// The way back of [`rms_norm`]: adds to the gradients of `x` and of the gain.
///
/// With `f` the factor, `∂out_i/∂x_j = f · gain_i · (δ_ij − f² · x_i · x_j / N)`.
pub(crate) fn rms_norm_back<const N: usize>(
    x: &[f32; N],
    gain: &[f32; N],
    d: &[f32; N],
    dx: &mut [f32; N],
    d_gain: Option<&mut [f32; N]>,
) {
    let factor = rms_factor(x);
    let mut scaled = *d;
    for (d, gain) in scaled.iter_mut().zip(gain) {
        *d *= gain;
    }
    let shrink = factor * factor * factor * dot(&scaled, x) / N as f32;
    for ((dx, &d), &x) in dx.iter_mut().zip(&scaled).zip(x) {
        *dx += factor * d - shrink * x;
    }
    if let Some(d_gain) = d_gain {
        for ((d_gain, &d), &x) in d_gain.iter_mut().zip(d).zip(x) {
            *d_gain += d * (x * factor);
        }
    }
}
