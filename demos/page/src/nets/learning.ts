// A network that learns: gradients of all of its parameters, and steps of AdamW. The way back through the
// layer is the package's; demos/nets/src/learning.rs goes the same way.

import { add, affine, relu, rmsNorm, softmax } from "./arithmetic.js";
import { affineBack, outer, rmsNormBack } from "./gradients.js";
import { apart, type Network, OF_LAYER, type Parameters } from "./network.js";

/** AdamW's constants (Loshchilov, Hutter: Decoupled weight decay regularization, 2019). */
const [BETA1, BETA2, EPSILON] = [0.9, 0.999, 1e-8];

/** What fades: matrices. Gains, biases and positions are free. */
const FADES: readonly (keyof Parameters)[] = ["embed", "wq", "wk", "wv", "wo", "feed1", "feed2", "classifier"];

/** Teaches a network by changing its weights. */
export class Learner {
  readonly #gradients: Float32Array;
  readonly #means: Float32Array;
  readonly #squares: Float32Array;
  #steps = 0;

  constructor(
    readonly network: Network,
    readonly decay = 0,
  ) {
    const { length } = network.flat;
    [this.#gradients, this.#means, this.#squares] = [new Float32Array(length), new Float32Array(length), new Float32Array(length)];
  }

  /** Steps so far. */
  get steps(): number {
    return this.#steps;
  }

  /**
   * A step of this rate from some items of `sizes.tokens` tokens each; `wanted` is how likely every class should
   * be for each. Returns the mean cross-entropy before it.
   */
  step(tokens: Float32Array, wanted: Float32Array, rate: number): number {
    const { network } = this;
    const gradients = this.#gradients.fill(0);
    const loss = goBack(network, tokens, wanted, apart(network.sizes, gradients));
    // No further than 1 away.
    const norm = Math.sqrt(gradients.reduce((sum, g) => sum + g * g, 0));
    this.#adam(1 / Math.max(1, norm), rate);
    network.layer.weights.set(network.ofLayer());
    return loss;
  }

  #adam(scale: number, rate: number): void {
    const t = ++this.#steps;
    const { sizes, flat, weights } = this.network;
    const [corrected1, corrected2] = [1 - BETA1 ** t, 1 - BETA2 ** t];
    const [gradients, means, squares] = [this.#gradients, this.#means, this.#squares];
    for (const [i, gradient] of gradients.entries()) {
      const g = gradient * scale;
      const mean = (means[i] = BETA1 * means[i]! + (1 - BETA1) * g);
      const square = (squares[i] = BETA2 * squares[i]! + (1 - BETA2) * g * g);
      gradients[i] = rate * (mean / corrected1 / (Math.sqrt(square / corrected2) + EPSILON));
    }
    // What was a gradient is now how far to go.
    const far = apart(sizes, gradients);
    for (const name of FADES) {
      weights[name].forEach((weight, i) => (far[name][i]! += rate * this.decay * weight));
    }
    gradients.forEach((step, i) => (flat[i]! -= step));
  }
}

/** Adds the gradients of the mean loss over a batch, and returns the loss. */
function goBack(network: Network, tokens: Float32Array, wanted: Float32Array, gradients: Parameters): number {
  const { sizes, weights, layer } = network;
  const { token, tokens: n, width, hidden, classes } = sizes;
  const rows = tokens.length / token;
  const batch = rows / n;
  const all = (columns: number): Float32Array => new Float32Array(rows * columns);
  const row = (data: Float32Array, i: number): Float32Array => {
    const columns = data.length / rows;
    return data.subarray(i * columns, (i + 1) * columns);
  };

  // 1. Forward; all that the way back looks at is kept: what goes into each norm, and what comes out.
  const [x1, normed1, normed2, inner, x3] = [all(width), all(width), all(width), all(hidden), all(width)];
  for (let i = 0; i < rows; i++) {
    network.embed(row(tokens, i), i % n, row(x1, i), row(normed1, i));
  }
  const { y, kept } = layer.forwardKeeping({ q: normed1, batch });
  const x2 = y;
  const [out, pooled] = [new Float32Array(width), new Float32Array(batch * width)];
  for (let i = 0; i < rows; i++) {
    add(row(x2, i), row(x1, i));
    rmsNorm(row(x2, i), weights.gain2, row(normed2, i));
    affine(row(normed2, i), weights.feed1, weights.feed1Bias, row(inner, i));
    relu(row(inner, i));
    affine(row(inner, i), weights.feed2, weights.feed2Bias, row(x3, i));
    add(row(x3, i), row(x2, i));
    rmsNorm(row(x3, i), weights.gain, out);
    const item = Math.floor(i / n) * width;
    out.forEach((value, j) => (pooled[item + j]! += value / n));
  }

  // 2. The loss, and back to every token's share of the mean.
  let loss = 0;
  const [logits, dPooled] = [new Float32Array(classes), new Float32Array(batch * width)];
  for (let item = 0; item < batch; item++) {
    const of = (data: Float32Array, columns: number): Float32Array => data.subarray(item * columns, (item + 1) * columns);
    affine(of(pooled, width), weights.classifier, weights.classifierBias, logits);
    const target = of(wanted, classes);
    const likely = softmax(logits);
    target.forEach((part, j) => (loss -= part === 0 ? 0 : (part * Math.log(Math.max(likely[j]!, 1e-30))) / batch));
    const d = Float32Array.from(target, (part, j) => (likely[j]! - part) / batch);
    add(gradients.classifierBias, d);
    outer(of(pooled, width), d, gradients.classifier);
    affineBack(weights.classifier, d, of(dPooled, width));
  }

  // 3. Back through the feed-forward: x3 becomes its gradient, and x2's.
  const [dInner, dNormed] = [new Float32Array(hidden), new Float32Array(width)];
  const dx2 = all(width);
  for (let i = 0; i < rows; i++) {
    const item = Math.floor(i / n) * width;
    const dx = row(dx2, i);
    rmsNormBack(row(x3, i), weights.gain, dPooled.subarray(item, item + width).map((d) => d / n), dx, gradients.gain);
    add(gradients.feed2Bias, dx);
    outer(row(inner, i), dx, gradients.feed2);
    affineBack(weights.feed2, dx, dInner);
    row(inner, i).forEach((value, j) => (dInner[j] = value > 0 ? dInner[j]! : 0));
    add(gradients.feed1Bias, dInner);
    outer(row(normed2, i), dInner, gradients.feed1);
    affineBack(weights.feed1, dInner, dNormed);
    rmsNormBack(row(x2, i), weights.gain2, dNormed, dx, gradients.gain2);
  }

  // 4. Back through the layer, of which one array is queries, keys and values; and to the tokens.
  const ofLayer = Object.fromEntries(OF_LAYER.map((name) => [name, gradients[name]]));
  const { q, k, v } = layer.backward({ q: normed1, batch, kept, dy: dx2, gradients: { q: true, k: true, v: true, ...ofLayer } });
  add(q, k);
  add(q, v);
  for (let i = 0; i < rows; i++) {
    const dx = row(dx2, i);
    rmsNormBack(row(x1, i), weights.gain1, row(q, i), dx, gradients.gain1);
    add(gradients.position.subarray((i % n) * width, ((i % n) + 1) * width), dx);
    add(gradients.embedBias, dx);
    outer(row(tokens, i), dx, gradients.embed);
  }
  return loss;
}
