// Which of nine speakers says this /ae/? One token for each frame, and frames come one at a time: what
// each is looked up by (its key) and what it has to give (its value) are projected once and stay in a cache.

import type { Cache, Mha } from "mha/train";

import { Network } from "./network.js";

/** Features of a frame. */
export const FEATURES = 12;
/** Frames of the longest utterance that the network knows positions for. */
export const LONGEST = 29;
/** The number of speakers. */
export const SPEAKERS = 9;

/** What the network says after a frame. */
export interface Heard {
  readonly logits: Float32Array;
  /** How much each frame looks at each, `[heads, frames, frames]`. */
  readonly scores: Float32Array;
  readonly frames: number;
}

/** The network for vowels. */
export class Vowels {
  readonly #mean: Float32Array;
  readonly #deviation: Float32Array;
  readonly #network: Network;
  readonly heads = 4;

  constructor(mha: Mha, flat: Float32Array) {
    this.#mean = flat.subarray(0, FEATURES);
    this.#deviation = flat.subarray(FEATURES, 2 * FEATURES);
    const sizes = { token: FEATURES, tokens: LONGEST, width: 32, heads: this.heads, hidden: 64, classes: SPEAKERS };
    this.#network = new Network(mha, sizes, flat.subarray(2 * FEATURES));
  }

  /** Begins to listen to an utterance. */
  listen(): Listener {
    return new Listener(this.#network, (frame) => this.#normal(frame));
  }

  /** `(frame − mean) / deviation`. */
  #normal(frame: Float32Array): Float32Array {
    return frame.map((value, i) => Math.fround(value - this.#mean[i]!) / this.#deviation[i]!);
  }
}

/** An utterance as it is heard. */
export class Listener {
  readonly #cache: Cache;
  readonly #x: Float32Array;
  readonly #normed: Float32Array;

  constructor(
    private readonly network: Network,
    private readonly normal: (frame: Float32Array) => Float32Array,
  ) {
    const { tokens, width } = network.sizes;
    this.#cache = network.layer.cache({ capacity: tokens });
    this.#x = new Float32Array(tokens * width);
    this.#normed = new Float32Array(tokens * width);
  }

  /** Hears one more frame, and answers as the network would that is given all frames so far. */
  hear(frame: Float32Array): Heard {
    const { network } = this;
    const { width } = network.sizes;
    const index = this.#cache.length;
    const [from, to] = [index * width, (index + 1) * width];
    const normed = this.#normed.subarray(from, to);
    network.embed(this.normal(frame), index, this.#x.subarray(from, to), normed);
    // The new key and value alone; all frames ask, since all are pooled.
    network.layer.append(this.#cache, { k: normed });
    const { y, scores } = network.layer.attend(this.#cache, { q: this.#normed.subarray(0, to), scores: true });
    return { logits: network.readOut(this.#x.slice(0, to), y), scores, frames: index + 1 };
  }

  /** Gives the memory back. */
  stop(): void {
    this.#cache.dispose();
  }
}
