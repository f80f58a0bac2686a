// A symbol that the network for digits has not seen: an eleventh class, learned from a few drawings. So that
// the digits are not forgotten meanwhile, images of them are learned again, each as likely to be this digit or
// that as the network thought before (Li, Hoiem: Learning without forgetting, 2016).

import type { Mha } from "mha/train";

import { softmax } from "./arithmetic.js";
import { CLASSES, Digits, PATCHES, tokens, WIDTH } from "./digits.js";
import { Learner } from "./learning.js";

/** Items of a step, and how many of them are the symbol. */
const [BATCH, SYMBOLS] = [24, 3];

/** How many steps a lesson has. */
export const STEPS = 160;

/** The rate of the first step; it falls along a cosine to nothing. */
const RATE = 1e-3;

/** The bias of a class that is not known yet: it is answered rarely. */
const UNKNOWN = -4;

/** A network for digits that is learning one symbol more. */
export class Pupil {
  /** The network as it is by now, with eleven classes. */
  readonly digits: Digits;
  readonly #learner: Learner;

  /** Begins with the weights `flat` of a network for digits that answers as `teacher` does. */
  constructor(
    mha: Mha,
    flat: Float32Array,
    private readonly teacher: Digits,
    private readonly rehearsals: readonly Uint8Array[],
    private readonly drawings: readonly Uint8Array[],
    private readonly random: () => number = Math.random,
  ) {
    this.digits = new Digits(mha, widened(flat), CLASSES + 1);
    this.#learner = new Learner(this.digits.network);
  }

  /** How much of the lesson is over, of 1. */
  get done(): number {
    return this.#learner.steps / STEPS;
  }

  /** A step of the lesson; how far its answers were from what they should be: Kullback's and Leibler's divergence. */
  step(): number {
    const count = CLASSES + 1;
    const [all, wanted] = [new Float32Array(BATCH * PATCHES * 4), new Float32Array(BATCH * count)];
    for (let item = 0; item < BATCH; item++) {
      const from = item < SYMBOLS ? this.drawings : this.rehearsals;
      const image = distorted(from[Math.floor(this.random() * from.length)]!, this.random);
      const target = wanted.subarray(item * count, (item + 1) * count);
      if (item < SYMBOLS) {
        target[CLASSES] = 1;
      } else {
        target.set(softmax(this.teacher.classify(image).logits));
      }
      all.set(tokens(image), item * PATCHES * 4);
    }
    const rate = RATE * 0.5 * (1 + Math.cos(Math.PI * this.done));
    // What no answer could go below.
    const entropy = wanted.reduce((sum, part) => (part > 0 ? sum - part * Math.log(part) : sum), 0) / BATCH;
    return this.#learner.step(all, wanted, rate) - entropy;
  }

  /** Gives the memory back. */
  dispose(): void {
    this.digits.network.layer.dispose();
  }
}

/** Weights with a class more in the classifier, which comes last. */
function widened(flat: Float32Array): Float32Array {
  const before = flat.length - (WIDTH + 1) * CLASSES;
  const wide = new Float32Array(flat.length + WIDTH + 1);
  wide.set(flat.subarray(0, before));
  for (let row = 0; row <= WIDTH; row++) {
    wide.set(flat.subarray(before + row * CLASSES, before + (row + 1) * CLASSES), before + row * (CLASSES + 1));
  }
  wide[wide.length - 1] = UNKNOWN;
  return wide;
}

/** An image as the hand might also have drawn it: turned, slanted, stretched and moved a little. */
export function distorted(image: Uint8Array, random: () => number): Uint8Array {
  // About normal, of deviation 1.
  const normal = (): number => (random() + random() + random() + random() - 2) * Math.sqrt(3);
  const [turn, shear] = [0.12 * normal(), 0.12 * normal()];
  const [scaleX, scaleY] = [Math.exp(0.1 * normal()), Math.exp(0.06 * normal())];
  const [moveX, moveY] = [0.5 * normal(), 0.35 * normal()];
  const [sin, cos] = [Math.sin(turn), Math.cos(turn)];
  const block = (x: number, y: number): number => (x >= 0 && x < 8 && y >= 0 && y < 8 ? image[8 * y + x]! : 0);
  return Uint8Array.from({ length: 64 }, (_, at) => {
    const [y, sheared] = [(at >> 3) - 3.5, (at & 7) - 3.5 + shear * ((at >> 3) - 3.5)];
    const fromX = scaleX * (cos * sheared - sin * y) + moveX + 3.5;
    const fromY = scaleY * (cos * y + sin * sheared) + moveY + 3.5;
    const [left, top] = [Math.floor(fromX), Math.floor(fromY)];
    const [fx, fy] = [fromX - left, fromY - top];
    const line = (row: number): number => block(left, row) * (1 - fx) + block(left + 1, row) * fx;
    return Math.round(line(top) * (1 - fy) + line(top + 1) * fy);
  });
}
