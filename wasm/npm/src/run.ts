// A call, step by step: describe, make room, copy in, compute, copy out.

import { MhaError } from "./error.js";
import { type Family, WORDS } from "./family.js";
import type { Call } from "./glue/mha_wasm.js";
import type { Read } from "./options.js";

/** What a call writes. */
export interface Written {
  y: Float32Array;
  scores: Float32Array | undefined;
  lse: Float32Array | undefined;
}

/** What owns the room of its calls and, where it has gone back, of that. */
export interface Owner {
  readonly call: Call;
  back?: { free(): void };
}

/** Throws what a step has found wrong. */
export function settle(code: number, step: { argument(): string; message(): string }): void {
  if (code !== 0) {
    throw new MhaError(code, step.argument(), step.message());
  }
}

/** Describes the options of a call that has begun. */
export function describe(memory: WebAssembly.Memory, call: Call, family: Family | undefined): void {
  if (family !== undefined) {
    new Uint32Array(memory.buffer, call.words(), WORDS).set(family.words);
  }
}

/** Copies the arrays of the options into the room that has been made. */
export function fill(memory: WebAssembly.Memory, call: Call, family: Family | undefined): void {
  if (family === undefined) {
    return;
  }
  const { buffer } = memory;
  let at = call.option_floats();
  for (const floats of family.floats) {
    new Float32Array(buffer, at, floats.length).set(floats);
    at += floats.byteLength;
  }
  if (family.lens !== undefined) {
    new Uint32Array(buffer, call.lens(), family.lens.length).set(family.lens);
  }
  if (family.positions !== undefined) {
    new Int32Array(buffer, call.positions(), family.positions.length).set(family.positions);
  }
  at = call.segments();
  for (const segments of family.segments) {
    new Uint32Array(buffer, at, segments.length).set(segments);
    at += segments.byteLength;
  }
}

/** Describes a call, makes room for it and copies its inputs there. `reserve` gives the number of an error. */
export function enter(memory: WebAssembly.Memory, call: Call, read: Read, reserve: (call: Call) => number): void {
  const { q, k, v, mask, bias, causal, dropout, family, y, scores } = read;

  // 1. Describe. Lengths go as they are: the core compares them with what it needs.
  call.begin(read.batch, read.qLen, read.kvLen, q.length, k?.length, v?.length);
  if (bias !== undefined) {
    call.bias(bias.data.length, ...bias.shape);
  }
  if (mask !== undefined) {
    call.mask(mask.data.length, ...mask.shape);
    if (mask.excluding === true) {
      call.excluding();
    }
  }
  if (causal === true) {
    call.causal_natural();
  } else if (typeof causal === "number") {
    call.causal(causal);
  } else if (causal !== undefined) {
    call.causal_per_sequence(causal.length);
  }
  if (dropout !== undefined) {
    call.dropout(dropout.p, dropout.low, dropout.high);
  }
  if (y !== undefined) {
    call.y_of(y.length);
  }
  if (scores !== false) {
    call.scores_of(read.scoresAt, scores === true ? undefined : scores.length);
  }

  describe(memory, call, family);
  const { starts } = read;
  if (starts !== undefined) {
    call.packed(starts[0].length);
  }

  // 2. Make room. This alone may move the memory, so views are made after it.
  settle(reserve(call), call);
  const { buffer } = memory;

  // 3. Copy in.
  new Float32Array(buffer, call.q(), q.length).set(q);
  if (k !== undefined) {
    new Float32Array(buffer, call.k(), k.length).set(k);
  }
  if (v !== undefined) {
    new Float32Array(buffer, call.v(), v.length).set(v);
  }
  if (bias !== undefined) {
    new Float32Array(buffer, call.bias_data(), bias.data.length).set(bias.data);
  }
  if (mask !== undefined) {
    new Uint8Array(buffer, call.mask_data(), mask.data.length).set(mask.data);
  }
  fill(memory, call, family);
  if (starts !== undefined) {
    const [ofQ, ofKv] = starts;
    new Uint32Array(buffer, call.starts(), ofQ.length).set(ofQ);
    new Uint32Array(buffer, call.starts() + ofQ.byteLength, ofKv.length).set(ofKv);
  }
  if (typeof causal === "object") {
    new Int32Array(buffer, call.offsets(), causal.length).set(causal);
  }
}

/**
 * Runs a call. `reserve` makes room and `compute` computes; both give the number of an error.
 * Outputs are copied to where they go only after both, so an error leaves them as they are.
 */
export function run(
  memory: WebAssembly.Memory,
  call: Call,
  read: Read,
  reserve: (call: Call) => number,
  compute: (call: Call) => number,
): Written {
  // 1. to 3.
  enter(memory, call, read, reserve);
  const { family, y, scores } = read;

  // 4. Compute. It takes no memory, so the buffer stays.
  settle(compute(call), call);
  const { buffer } = memory;

  // 5. Copy out.
  const out = (at: number, length: number, to: Float32Array | undefined): Float32Array => {
    const from = new Float32Array(buffer, at, length);
    if (to === undefined) {
      return from.slice();
    }
    to.set(from);
    return to;
  };
  return {
    y: out(call.y(), call.y_len(), y),
    scores: scores === false ? undefined : out(call.scores(), call.scores_len(), scores === true ? undefined : scores),
    lse: lse(family, out, call),
  };
}

/** The log-sum-exps, where they are wanted. */
function lse(
  family: Family | undefined,
  out: (at: number, length: number, to: Float32Array | undefined) => Float32Array,
  call: Call,
): Float32Array | undefined {
  if (family === undefined || family.lse === false) {
    return undefined;
  }
  const length = (family.words[WORDS - 1] as number) - 1;
  return out(call.lse(), length, family.lse === true ? undefined : family.lse);
}
