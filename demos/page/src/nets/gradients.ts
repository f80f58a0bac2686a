// The way back of the row arithmetic: demos/nets/src/arithmetic.rs has the same.

const { sqrt } = Math;

/** Under the square root of the norm; that of the way forward. */
const EPSILON = 1e-5;

/** The way back of `affine` to its `x`: `dx = d · weightᵀ`. */
export function affineBack(weight: Float32Array, d: Float32Array, dx: Float32Array): void {
  for (let i = 0, at = 0; i < dx.length; i++) {
    let sum = 0;
    for (let j = 0; j < d.length; j++, at++) {
      sum += weight[at]! * d[j]!;
    }
    dx[i] = sum;
  }
}

/** The way back of `affine` to its weight: `gradient += xᵀ · d`. */
export function outer(x: Float32Array, d: Float32Array, gradient: Float32Array): void {
  for (let i = 0, at = 0; i < x.length; i++) {
    const factor = x[i]!;
    for (let j = 0; j < d.length; j++, at++) {
      gradient[at] = gradient[at]! + factor * d[j]!;
    }
  }
}

/**
 * The way back of `rmsNorm`: adds to the gradients of `x` and of the gain. With `f` the factor,
 * `∂out_i/∂x_j = f · gain_i · (δ_ij − f² · x_i · x_j / N)`.
 */
export function rmsNormBack(x: Float32Array, gain: Float32Array, d: Float32Array, dx: Float32Array, dGain: Float32Array): void {
  let [squares, along] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    squares += x[i]! * x[i]!;
    along += d[i]! * gain[i]! * x[i]!;
  }
  const factor = 1 / sqrt(squares / x.length + EPSILON);
  const shrink = (factor ** 3 * along) / x.length;
  for (let i = 0; i < x.length; i++) {
    dx[i] = dx[i]! + factor * d[i]! * gain[i]! - shrink * x[i]!;
    dGain[i] = dGain[i]! + d[i]! * x[i]! * factor;
  }
}
