// Row arithmetic in a fixed order, in 32-bit floats: each product and each sum is rounded on its own, as
// in demos/nets/src/arithmetic.rs, so the bits are those of the desk and of the chip.

const { fround, sqrt } = Math;

/** Under the square root of the norm; the trainer's value. */
const EPSILON = fround(1e-5);

/** `out = bias + x · weight`, weight `[x.length][out.length]`, terms added in the order of `x`. */
export function affine(x: Float32Array, weight: Float32Array, bias: Float32Array, out: Float32Array): void {
  out.set(bias);
  const width = out.length;
  for (let i = 0; i < x.length; i++) {
    const factor = x[i]!;
    for (let j = 0, at = i * width; j < width; j++, at++) {
      out[j] = out[j]! + fround(factor * weight[at]!);
    }
  }
}

/** `x += y`. */
export function add(x: Float32Array, y: Float32Array): void {
  for (let i = 0; i < x.length; i++) {
    x[i] = x[i]! + y[i]!;
  }
}

/** `out = x · (1 / √(mean(x²) + ε)) · gain`. */
export function rmsNorm(x: Float32Array, gain: Float32Array, out: Float32Array): void {
  let squares = 0;
  for (const value of x) {
    squares = fround(squares + fround(value * value));
  }
  const factor = fround(1 / fround(sqrt(fround(fround(squares / x.length) + EPSILON))));
  for (let i = 0; i < x.length; i++) {
    out[i] = fround(x[i]! * factor) * gain[i]!;
  }
}

/** `x = max(x, 0)`. */
export function relu(x: Float32Array): void {
  for (let i = 0; i < x.length; i++) {
    if (x[i]! < 0) {
      x[i] = 0;
    }
  }
}

/** The class with the largest logit; of equals the first. */
export function best(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) {
    if (logits[i]! > logits[best]!) {
      best = i;
    }
  }
  return best;
}

/** Logits as probabilities, for the eye only. */
export function softmax(logits: Float32Array): number[] {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
