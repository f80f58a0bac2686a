// Which of ten digits is this 8×8 image? Sixteen tokens, one for each patch of 2×2 blocks.

import type { Mha } from "mha/full";

import { Network } from "./network.js";

/** Patches of an image. Patch `4·r + c` is the one in patch row `r` and patch column `c`. */
export const PATCHES = 16;

/** What the network says of an image. */
export interface Seen {
  readonly logits: Float32Array;
  /** How much each patch looks at each, `[heads, 16, 16]`. */
  readonly scores: Float32Array;
}

/** The network for digits. */
export class Digits {
  readonly #network: Network;
  readonly heads = 4;

  constructor(mha: Mha, flat: Float32Array) {
    const sizes = { token: 4, tokens: PATCHES, width: 24, heads: this.heads, hidden: 48, classes: 10 };
    this.#network = new Network(mha, sizes, flat);
  }

  /** Reads an image of 64 counts, 0 to 16, row by row. */
  classify(image: Uint8Array): Seen {
    const { width } = this.#network.sizes;
    const [x, normed] = [new Float32Array(PATCHES * width), new Float32Array(PATCHES * width)];
    for (let patch = 0; patch < PATCHES; patch++) {
      const first = (patch >> 2) * 16 + (patch & 3) * 2;
      const token = Float32Array.from([first, first + 1, first + 8, first + 9], (at) => image[at]! / 16);
      const [from, to] = [patch * width, (patch + 1) * width];
      this.#network.embed(token, patch, x.subarray(from, to), normed.subarray(from, to));
    }
    const { y, scores } = this.#network.layer.forward({ q: normed, scores: true });
    return { logits: this.#network.readOut(x, y), scores };
  }
}
