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

/// `out = x · (1 / √(mean(x²) + ε)) · gain`: one square root and two divisions a row.
pub(crate) fn rms_norm<const N: usize>(x: &[f32; N], gain: &[f32; N], out: &mut [f32; N]) {
    let mut squares = 0.0;
    for &x in x {
        squares += x * x;
    }
    let factor = 1.0 / libm::sqrtf(squares / N as f32 + EPSILON);
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
