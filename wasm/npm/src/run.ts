// A call, step by step: describe, make room, copy in, compute, copy out. And what goes wrong, in words.

import { bits } from "./checks.js";
import { MhaError } from "./error.js";
import { describe, fill, lse } from "./family.js";
import * as wasm from "./glue/mha_wasm.js";
import type { Read } from "./options.js";

/** The module's memory. */
export let memory: WebAssembly.Memory;

/** Says what the module's memory is. */
export function hold(given: WebAssembly.Memory): void {
  memory = given;
}

/** What a call writes. */
export interface Written {
  y: Float32Array;
  scores: Float32Array | undefined;
  lse: Float32Array | undefined;
}

/** What owns the room of its calls: handles, and how they are freed. */
export interface Owner {
  readonly call: number;
  readonly frees: (() => void)[];
  /** The way back, where there is one. */
  back?: number;
}

/** Frees everything of an owner. */
export function free(owner: Owner): void {
  for (const each of owner.frees) {
    each();
  }
}

/** The net under `dispose`: frees what belongs to an object that is gone. */
export const net = new FinalizationRegistry<Owner>(free);

/** The text that lies somewhere. */
export function text(at: number, length: number): string {
  return String.fromCharCode(...new Uint8Array(memory.buffer, at, length));
}

/** Throws what a step has found wrong: its number, and where it has left what there is to say. */
export function settle(code: number, problem: (handle: number) => number, handle: number): void {
  if (code !== 0) {
    const [name, length, a, b, c] = new Uint32Array(memory.buffer, problem(handle), 5) as unknown as [number, number, number, number, number];
    const argument = text(name, length);
    const words = [
      "a size is zero",
      `${a} heads do not divide a width of ${b}`,
      "the size overflows",
      `${a} elements needed, ${b} given`,
      `extent ${a} of axis ${b} is neither 1 nor ${c}`,
      "the value is outside its domain",
      `the range ends at ${a}, past ${b}`,
      // The only one whose numbers say where text lies.
      code === 8 ? `excludes ${text(a, b)}` : "",
      `${a} positions needed, ${b} there`,
    ];
    throw new MhaError(code, argument, `${argument}: ${words[code - 1] ?? "out of memory"}`);
  }
}

/** Where the arrays of a call lie, and how long its outputs are; `wasm/src/call.rs` has the same order. */
export function places(call: number) {
  const [q, k, v, bias, y, scores, mask, offsets, yLength, scoresLength] = new Uint32Array(memory.buffer, wasm.call_places(call), 10);
  return { q, k, v, bias, y, scores, mask, offsets, yLength, scoresLength } as Record<
    "q" | "k" | "v" | "bias" | "y" | "scores" | "mask" | "offsets" | "yLength" | "scoresLength",
    number
  >;
}

/** A length as it is described: one more than it is, 0 for what there is not. */
export function count(data: { readonly length: number } | undefined): number {
  return data === undefined ? 0 : data.length + 1;
}

/** An array with its extents, described. */
function grid(given: Read["mask"] | Read["bias"]): number[] {
  return given === undefined ? [0, 0, 0, 0, 0] : [count(given.data), ...given.shape];
}

/** Describes a call and copies its inputs into the room that `reserve` makes; it gives the number of an error. */
export function enter(call: number, read: Read, reserve: (call: number) => number): void {
  const { q, k, v, mask, bias, causal, dropout, family, y, scores } = read;

  // 1. Describe, in the order of `wasm/src/call.rs`. Lengths go as they are: the core compares them with what it
  //    needs.
  new Uint32Array(memory.buffer, wasm.call_words(call), 26).set([
    read.batch, read.qLen, read.kvLen, count(q), count(k), count(v), ...grid(bias), ...grid(mask),
    Number(mask?.excluding === true),
    ...(causal === undefined ? [0, 0] : causal === true ? [1, 0] : typeof causal === "number" ? [2, causal] : [3, causal.length]),
    ...(dropout === undefined ? [0, 0, 0, 0] : [1, bits(dropout.p), dropout.low, dropout.high]),
    count(y), scores === false ? 0 : scores === true ? 1 : scores.length + 2, read.scoresAt,
  ]);
  describe(call, family);

  // 2. Make room. This alone may move the memory, so views are made after it.
  settle(reserve(call), wasm.call_problem, call);
  const { buffer } = memory;
  const at = places(call);

  // 3. Copy in.
  const floats = (place: number, data: Float32Array | undefined): void => {
    if (data !== undefined) {
      new Float32Array(buffer, place, data.length).set(data);
    }
  };
  floats(at.q, q);
  floats(at.k, k);
  floats(at.v, v);
  floats(at.bias, bias?.data);
  if (mask !== undefined) {
    new Uint8Array(buffer, at.mask, mask.data.length).set(mask.data);
  }
  if (typeof causal === "object") {
    new Int32Array(buffer, at.offsets, causal.length).set(causal);
  }
  fill(call, family);
}

/**
 * Runs a call. `reserve` makes room and `compute` computes; both give the number of an error.
 * Outputs are copied to where they go only after both, so an error leaves them as they are.
 */
export function run(
  call: number,
  read: Read,
  reserve: (call: number) => number,
  compute: (call: number) => number,
): Written {
  // 1. to 3.
  enter(call, read, reserve);
  const { family, y, scores } = read;

  // 4. Compute. It takes no memory, so the buffer stays.
  settle(compute(call), wasm.call_problem, call);

  // 5. Copy out.
  const at = places(call);
  return {
    y: out(at.y, at.yLength, y),
    scores: scores === false ? undefined : out(at.scores, at.scoresLength, scores === true ? undefined : scores),
    lse: lse(call, family),
  };
}

/** Copies what lies somewhere to where it goes, or into a new array. */
export function out(at: number, length: number, to: Float32Array | undefined): Float32Array {
  const from = new Float32Array(memory.buffer, at, length);
  if (to === undefined) {
    return from.slice();
  }
  to.set(from);
  return to;
}
