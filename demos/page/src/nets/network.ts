// The network of the demos around the layer: embedding and position in front of it, feed-forward, pooling
// and classifier behind it. The layer itself is the package's. demos/nets/src/network.rs is the same.
//
//   x = tokens · embed + embed_bias + position
//   x = x + layer(rms_norm(x))                              mha
//   x = x + relu(rms_norm(x) · feed1 + …) · feed2 + …
//   logits = mean of rms_norm(x) over the tokens · classifier + …

import type { Layer, Mha } from "mha/full";

import { add, affine, relu, rmsNorm } from "./arithmetic.js";

/** The sizes of a network. */
export interface Sizes {
  /** Features of a token. */
  readonly token: number;
  /** The most tokens there can be. */
  readonly tokens: number;
  readonly width: number;
  readonly heads: number;
  readonly hidden: number;
  readonly classes: number;
}

/** A network of one block. */
export class Network {
  readonly layer: Layer;
  readonly #embed: Float32Array;
  readonly #embedBias: Float32Array;
  readonly #position: Float32Array;
  readonly #gain1: Float32Array;
  readonly #gain2: Float32Array;
  readonly #feed1: Float32Array;
  readonly #feed1Bias: Float32Array;
  readonly #feed2: Float32Array;
  readonly #feed2Bias: Float32Array;
  readonly #gain: Float32Array;
  readonly #classifier: Float32Array;
  readonly #classifierBias: Float32Array;

  /** Takes flat weights apart, in the order in which the network meets them. */
  constructor(
    mha: Mha,
    readonly sizes: Sizes,
    flat: Float32Array,
  ) {
    const { token, tokens, width, heads, hidden, classes } = sizes;
    let at = 0;
    const cut = (length: number): Float32Array => flat.subarray(at, (at += length));
    this.#embed = cut(token * width);
    this.#embedBias = cut(width);
    this.#position = cut(tokens * width);
    this.#gain1 = cut(width);
    this.layer = mha.layer({ dims: width, heads, weights: cut(4 * width * width + 4 * width) });
    this.#gain2 = cut(width);
    this.#feed1 = cut(width * hidden);
    this.#feed1Bias = cut(hidden);
    this.#feed2 = cut(hidden * width);
    this.#feed2Bias = cut(width);
    this.#gain = cut(width);
    this.#classifier = cut(width * classes);
    this.#classifierBias = cut(classes);
    if (at !== flat.length) {
      throw new Error(`${at} weights needed, ${flat.length} given`);
    }
  }

  /** What comes before the layer: token `index` embedded into `x`, and its norm into `normed`. */
  embed(token: Float32Array, index: number, x: Float32Array, normed: Float32Array): void {
    const { width } = this.sizes;
    affine(token, this.#embed, this.#embedBias, x);
    add(x, this.#position.subarray(index * width, (index + 1) * width));
    rmsNorm(x, this.#gain1, normed);
  }

  /** What comes after the layer, whose output for the embedded tokens `x` is `y`: the logits. Uses both up. */
  readOut(x: Float32Array, y: Float32Array): Float32Array {
    const { width, hidden, classes } = this.sizes;
    const count = x.length / width;
    const [inner, normed, pooled] = [new Float32Array(hidden), new Float32Array(width), new Float32Array(width)];
    for (let i = 0; i < count; i++) {
      const row = x.subarray(i * width, (i + 1) * width);
      const out = y.subarray(i * width, (i + 1) * width);
      add(row, out);
      rmsNorm(row, this.#gain2, normed);
      affine(normed, this.#feed1, this.#feed1Bias, inner);
      relu(inner);
      affine(inner, this.#feed2, this.#feed2Bias, out);
      add(row, out);
      rmsNorm(row, this.#gain, normed);
      add(pooled, normed);
    }
    for (let i = 0; i < width; i++) {
      pooled[i] = pooled[i]! / count;
    }
    const logits = new Float32Array(classes);
    affine(pooled, this.#classifier, this.#classifierBias, logits);
    return logits;
  }
}
