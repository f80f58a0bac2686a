// Which of ten digits is this 8×8 image? Sixteen tokens, one for each patch of 2×2 blocks.

import type { Mha } from "mha/train";

import { Network } from "./network.js";

/** Patches of an image. Patch `4·r + c` is the one in patch row `r` and patch column `c`. */
export const PATCHES = 16;

/** Features of a token inside the network. */
export const WIDTH = 24;

/** What the network says of an image. */
export interface Seen {
  readonly logits: Float32Array;
  /** How much each patch looks at each, `[heads, 16, 16]`. */
  readonly scores: Float32Array;
}

/** Digits. */
export const CLASSES = 10;

/** The network for digits. */
export class Digits {
  readonly network: Network;
  readonly heads = 4;

  /** Of `flat` weights, which say what is a digit or, as one of more classes, something else. */
  constructor(mha: Mha, flat: Float32Array, classes = CLASSES) {
    const sizes = { token: 4, tokens: PATCHES, width: WIDTH, heads: this.heads, hidden: 48, classes };
    this.network = new Network(mha, sizes, flat);
  }

  /** Reads an image of 64 counts, 0 to 16, row by row. */
  classify(image: Uint8Array): Seen {
    const [x, normed] = [new Float32Array(PATCHES * WIDTH), new Float32Array(PATCHES * WIDTH)];
    const all = tokens(image);
    for (let patch = 0; patch < PATCHES; patch++) {
      const [from, to] = [patch * WIDTH, (patch + 1) * WIDTH];
      this.network.embed(all.subarray(4 * patch, 4 * patch + 4), patch, x.subarray(from, to), normed.subarray(from, to));
    }
    const { y, scores } = this.network.layer.forward({ q: normed, scores: true });
    return { logits: this.network.readOut(x, y), scores };
  }
}

/** The tokens of an image: four blocks of each patch. */
export function tokens(image: Uint8Array): Float32Array {
  return Float32Array.from({ length: 64 }, (_, at) => {
    const [patch, block] = [at >> 2, at & 3];
    const first = (patch >> 2) * 16 + (patch & 3) * 2;
    return image[first + (block >> 1) * 8 + (block & 1)]! / 16;
  });
}
