// The network of the demos around the layer: embedding and position in front of it, feed-forward, pooling
// and classifier behind it. The layer itself is the package's. demos/nets/src/network.rs is the same.
//
//   x = tokens · embed + embed_bias + position
//   x = x + layer(rms_norm(x))                              mha
//   x = x + relu(rms_norm(x) · feed1 + …) · feed2 + …
//   logits = mean of rms_norm(x) over the tokens · classifier + …

import type { Layer, Mha } from "mha/train";

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

/** The matrices of the layer and its biases, in the order in which it takes them. */
export const OF_LAYER = ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"] as const;

/** The parameters of a network by their names, or what belongs to each: their gradients. */
export type Parameters = Readonly<
  Record<
    | (typeof OF_LAYER)[number]
    | `${"embed" | "feed1" | "feed2" | "classifier"}${"" | "Bias"}`
    | "position"
    | `gain${"1" | "2" | ""}`,
    Float32Array
  >
>;

/** Takes flat numbers apart, in the order in which the network meets its parameters. */
export function apart({ token, tokens, width, hidden, classes }: Sizes, flat: Float32Array): Parameters {
  let at = 0;
  const cut = (length: number): Float32Array => flat.subarray(at, (at += length));
  const [matrix, row] = [(): Float32Array => cut(width * width), (): Float32Array => cut(width)];
  const parameters: Parameters = {
    embed: cut(token * width),
    embedBias: row(),
    position: cut(tokens * width),
    gain1: row(),
    wq: matrix(),
    wk: matrix(),
    wv: matrix(),
    wo: matrix(),
    bq: row(),
    bk: row(),
    bv: row(),
    bo: row(),
    gain2: row(),
    feed1: cut(width * hidden),
    feed1Bias: cut(hidden),
    feed2: cut(hidden * width),
    feed2Bias: row(),
    gain: row(),
    classifier: cut(width * classes),
    classifierBias: cut(classes),
  };
  if (at !== flat.length) {
    throw new Error(`${at} weights needed, ${flat.length} given`);
  }
  return parameters;
}

/** A network of one block. */
export class Network {
  readonly layer: Layer;
  readonly weights: Parameters;

  constructor(
    mha: Mha,
    readonly sizes: Sizes,
    readonly flat: Float32Array,
  ) {
    const { width: dims, heads } = sizes;
    this.weights = apart(sizes, flat);
    this.layer = mha.layer({ dims, heads, weights: this.ofLayer() });
  }

  /** The weights that are the layer's: they lie one after another. */
  ofLayer(): Float32Array {
    const { wq, bo } = this.weights;
    return new Float32Array(wq.buffer, wq.byteOffset, (bo.byteOffset - wq.byteOffset) / 4 + bo.length);
  }

  /** What comes before the layer: token `index` embedded into `x`, and its norm into `normed`. */
  embed(token: Float32Array, index: number, x: Float32Array, normed: Float32Array): void {
    const { width } = this.sizes;
    const { embed, embedBias, position, gain1 } = this.weights;
    affine(token, embed, embedBias, x);
    add(x, position.subarray(index * width, (index + 1) * width));
    rmsNorm(x, gain1, normed);
  }

  /** What comes after the layer, whose output for the embedded tokens `x` is `y`: the logits. Uses both up. */
  readOut(x: Float32Array, y: Float32Array): Float32Array {
    const { width, hidden, classes } = this.sizes;
    const { gain2, feed1, feed1Bias, feed2, feed2Bias, gain, classifier, classifierBias } = this.weights;
    const count = x.length / width;
    const [inner, normed, pooled] = [new Float32Array(hidden), new Float32Array(width), new Float32Array(width)];
    for (let i = 0; i < count; i++) {
      const row = x.subarray(i * width, (i + 1) * width);
      const out = y.subarray(i * width, (i + 1) * width);
      add(row, out);
      rmsNorm(row, gain2, normed);
      affine(normed, feed1, feed1Bias, inner);
      relu(inner);
      affine(inner, feed2, feed2Bias, out);
      add(row, out);
      rmsNorm(row, gain, normed);
      add(pooled, normed);
    }
    for (let i = 0; i < width; i++) {
      pooled[i] = pooled[i]! / count;
    }
    const logits = new Float32Array(classes);
    affine(pooled, classifier, classifierBias, logits);
    return logits;
  }
}
