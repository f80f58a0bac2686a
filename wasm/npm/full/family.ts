// The attention family: what a call may ask for beyond the layer of 2017, and how it is handed over.

import { array, bits, count, flag, maybeFloats, number, object, offset, word, wrongType } from "./checks.js";
import type { Argument } from "./error.js";
import * as wasm from "./glue/mha_wasm.js";
import { memory, out } from "./run.js";

/** How far a query may see, each bound inclusive; left out it is unbounded. */
export interface Window {
  /** Keys before the query's own position. A window of `w` keys in the sense of Mistral and Keras is causal with `left: w - 1`. */
  readonly left?: number | undefined;
  /** Keys after it. */
  readonly right?: number | undefined;
}

/** Rotary positions: pairs of features are rotated by an angle that grows with the position. */
export interface Rope {
  /** The base of the angles `position · base^(-2i / dims)`, usually 10000. Either this or the tables. */
  readonly base?: number | undefined;
  /** Cosines, `[positions, dims / 2]`, as ONNX has them; frequencies can be scaled so. */
  readonly cos?: Float32Array | undefined;
  /** Sines, `[positions, dims / 2]`. */
  readonly sin?: Float32Array | undefined;
  /** Features of each head that are rotated, from the first on; even. Default: all. */
  readonly dims?: number | undefined;
  /** Pairs are `(2i, 2i+1)` (GPT-J) instead of `(i, i + dims/2)` (NeoX, Llama). Default false. */
  readonly interleaved?: boolean | undefined;
  /** Position by which the first query is rotated. Default: its position among the keys. */
  readonly qOffset?: number | undefined;
  /** Position by which the first new key is rotated. Default 0, or the length of the cache it is added to. */
  readonly kOffset?: number | undefined;
}

/** Normalises each head of queries and keys before they are rotated (Gemma 3, Qwen 3). */
export interface Norm {
  /** By what a head is divided: `√(mean x² + ε)` or `√(Σ x² + ε)`. */
  readonly kind: "rms" | "l2";
  /** Added under the square root. */
  readonly epsilon: number;
  /** Factor on each feature of a query's head, `[d]`. */
  readonly qGain?: Float32Array | undefined;
  /** Factor on each feature of a key's head, `[d]`. */
  readonly kGain?: Float32Array | undefined;
}

/** What changes keys on their way into a cache; it must be the same at every append and when attending. */
export interface KeyOptions {
  /** Rotary positions. */
  readonly rope?: Rope | undefined;
  /** Normalisation of queries and keys. */
  readonly norm?: Norm | undefined;
}

/** What a call may ask for beyond the plain layer. */
export interface FamilyOptions extends KeyOptions {
  /**
   * Position of the first query among the keys, for windows, ALiBi and rotation, for all sequences or
   * each. Default: that of the causal rule, else the one that a cache implies, else 0.
   */
  readonly offset?: number | Int32Array | undefined;
  /** How far a query may see. Keys outside cost nothing. */
  readonly window?: Window | undefined;
  /** How many keys of each sequence are real, `[batch]`: padding. */
  readonly lens?: Uint32Array | undefined;
  /** `c > 0`: logits become `c · tanh(logits / c)`. */
  readonly softcap?: number | undefined;
  /** A penalty on the distance between query and key: `true` for the usual slopes, or a slope for each head. */
  readonly alibi?: boolean | Float32Array | undefined;
  /** A logit for each head, `[heads]`, that takes part in the softmax and has no value. */
  readonly sinks?: Float32Array | undefined;
  /** Documents in one row: a query sees keys of its own document only. `[batch, qLen]` and `[batch, kvLen]`. */
  readonly segments?: { readonly q: Uint32Array; readonly kv: Uint32Array } | undefined;
  /** One more key and value, projected, that every query sees: PyTorch's `add_bias_kv`. */
  readonly extra?: { readonly k: Float32Array; readonly v: Float32Array } | undefined;
}

/** Which scores are written, and what else comes out. */
export interface SelectOptions {
  /** Scores of one head alone, or the mean over the heads (PyTorch's default): `[batch, qLen, kvLen]`. */
  readonly scoresOf?: number | "mean" | undefined;
  /** Only the scores of these queries of each sequence: the first and one past the last. */
  readonly scoreQueries?: readonly [start: number, end: number] | undefined;
  /** `true` for the log-sum-exp of each row in a new array, `[batch, heads, qLen]`, or where it is written. */
  readonly lse?: boolean | Float32Array | undefined;
}

/** The places of the words; `wasm/src/family.rs` has the same. */
const W = {
  offset: 0, offsetBy: 1, offsetsLen: 2, hasLeft: 3, left: 4, hasRight: 5, right: 6, lensLen: 7, hasSoftcap: 8,
  softcap: 9, alibi: 10, slopesLen: 11, rope: 12, ropeInterleaved: 13, ropeBase: 14, ropeDims: 15, hasRopeQ: 16,
  ropeQ: 17, hasRopeK: 18, ropeK: 19, cosLen: 20, sinLen: 21, sinksLen: 22, norm: 23, normEpsilon: 24, qGainLen: 25,
  kGainLen: 26, segmentsQLen: 27, segmentsKvLen: 28, extraKLen: 29, extraVLen: 30, scores: 31, scoreHead: 32,
  hasScoreQueries: 33, scoreQueriesStart: 34, scoreQueriesEnd: 35, lseLen: 36,
  startsLen: 37,
} as const;

/** How many words there are. */
const WORDS = 38;

/**
 * The options of a call, read and with their kinds checked.
 *
 * @internal
 */
export interface Family {
  readonly words: Uint32Array;
  /** In the order in which they lie in memory. */
  readonly floats: readonly Float32Array[];
  readonly lens: Uint32Array | undefined;
  readonly positions: Int32Array | undefined;
  readonly segments: readonly Uint32Array[];
  readonly lse: boolean | Float32Array;
  /** Where packed sequences begin: queries and keys. */
  readonly starts: readonly [Uint32Array, Uint32Array] | undefined;
}

/**
 * The options of a call of packed sequences, which begin there.
 *
 * @internal
 */
export function packed(family: Family | undefined, starts: [Uint32Array, Uint32Array]): Family {
  const words = family?.words ?? new Uint32Array(WORDS);
  words[W.startsLen] = starts[0].length;
  const none = { floats: [], lens: undefined, positions: undefined, segments: [], lse: false } as const;
  return { ...(family ?? none), words, starts };
}

/**
 * Everything that the options say, looked at once; what the arrays are is asked later.
 *
 * @internal
 */
export function look(given: FamilyOptions & SelectOptions) {
  const { offset, window, lens, softcap, alibi, rope, sinks, norm, segments, extra, scoresOf, scoreQueries, lse } = given;
  return {
    offset,
    window: window === undefined ? undefined : { ...object("options", window) },
    lens,
    softcap,
    alibi,
    rope: rope === undefined ? undefined : { ...object("rope", rope) },
    sinks,
    norm: norm === undefined ? undefined : { ...object("norm", norm) },
    segments: segments === undefined ? undefined : { ...object("segments", segments) },
    extra: extra === undefined ? undefined : { ...object("extra", extra) },
    scoresOf,
    scoreQueries: scoreQueries === undefined ? undefined : pair(scoreQueries),
    lse,
  };
}

/**
 * Reads what was looked at; undefined where nothing is asked for.
 *
 * @internal
 */
export function readFamily(seen: ReturnType<typeof look>, rows: number): Family | undefined {
  if (Object.values(seen).every((value) => value === undefined || value === false)) {
    return undefined;
  }
  const words = new Uint32Array(WORDS);
  const floats: Float32Array[] = [];
  /** An array of floats that goes over, its length one more than it is. */
  const take = (place: number, argument: Argument, value: unknown): void => {
    const data = maybeFloats(argument, value);
    if (data !== undefined) {
      words[place] = data.length + 1;
      floats.push(data);
    }
  };
  const flagged = (place: number, value: number | undefined): void => {
    if (value !== undefined) {
      words[place] = 1;
      words[place + 1] = value;
    }
  };

  let positions: Int32Array | undefined;
  if (typeof seen.offset === "object") {
    positions = array("causal", "Int32Array", seen.offset);
    words[W.offset] = 2;
    words[W.offsetsLen] = positions.length;
  } else if (seen.offset !== undefined) {
    words[W.offset] = 1;
    words[W.offsetBy] = offset("causal", seen.offset);
  }
  const { left, right } = seen.window ?? {};
  flagged(W.hasLeft, left === undefined ? undefined : count("options", left));
  flagged(W.hasRight, right === undefined ? undefined : count("options", right));
  const lens = seen.lens === undefined ? undefined : array("lens", "Uint32Array", seen.lens);
  if (lens !== undefined) {
    words[W.lensLen] = lens.length + 1;
  }
  flagged(W.hasSoftcap, seen.softcap === undefined ? undefined : bits(number("softcap", seen.softcap)));

  // Floats, in the order in which they lie in memory.
  if (seen.alibi === true) {
    words[W.alibi] = 1;
  } else if (seen.alibi !== undefined && seen.alibi !== false) {
    words[W.alibi] = 2;
    take(W.slopesLen, "alibi", seen.alibi);
  }
  const { rope } = seen;
  if (rope !== undefined) {
    const tables = rope.cos !== undefined || rope.sin !== undefined;
    if (tables === (rope.base !== undefined)) {
      throw wrongType("rope", "either a base or both tables are needed");
    }
    words[W.rope] = tables ? 2 : 1;
    words[W.ropeInterleaved] = Number(flag("rope", rope.interleaved));
    words[W.ropeBase] = rope.base === undefined ? 0 : bits(number("rope", rope.base));
    words[W.ropeDims] = rope.dims === undefined ? 0 : count("rope", rope.dims);
    flagged(W.hasRopeQ, rope.qOffset === undefined ? undefined : count("rope", rope.qOffset));
    flagged(W.hasRopeK, rope.kOffset === undefined ? undefined : count("rope", rope.kOffset));
    take(W.cosLen, "rope", rope.cos);
    take(W.sinLen, "rope", rope.sin);
  }
  take(W.sinksLen, "sinks", seen.sinks);
  const { norm } = seen;
  if (norm !== undefined) {
    words[W.norm] = word("norm", ["rms", "l2"], norm.kind) + 1;
    words[W.normEpsilon] = bits(number("norm", norm.epsilon));
    take(W.qGainLen, "norm", norm.qGain);
    take(W.kGainLen, "norm", norm.kGain);
  }
  const segments: Uint32Array[] = [];
  if (seen.segments !== undefined) {
    const { q, kv } = seen.segments;
    segments.push(array("segments", "Uint32Array", q), array("segments", "Uint32Array", kv));
    words.set(segments.map((each) => each.length + 1), W.segmentsQLen);
  }
  if (seen.extra !== undefined) {
    take(W.extraKLen, "extra", array("extra", "Float32Array", seen.extra.k));
    take(W.extraVLen, "extra", array("extra", "Float32Array", seen.extra.v));
  }

  if (seen.scoresOf === "mean") {
    words[W.scores] = 2;
  } else if (seen.scoresOf !== undefined) {
    words[W.scores] = 1;
    words[W.scoreHead] = count("scores", seen.scoresOf);
  }
  if (seen.scoreQueries !== undefined) {
    words[W.hasScoreQueries] = 1;
    words.set(seen.scoreQueries, W.scoreQueriesStart);
  }
  const lse = typeof seen.lse === "boolean" ? seen.lse : (maybeFloats("lse", seen.lse) ?? false);
  if (lse !== false) {
    words[W.lseLen] = (lse === true ? rows : lse.length) + 1;
  }
  return { words, floats, lens, positions, segments, lse, starts: undefined };
}

/** Two counts. */
function pair(value: readonly [number, number]): [number, number] {
  if (!Array.isArray(value) || value.length !== 2) {
    throw wrongType("scores", "scoreQueries must be two numbers, the first query and one past the last");
  }
  const [start, end] = value as unknown[];
  return [count("scores", start), count("scores", end)];
}

/**
 * Describes the options of a call.
 *
 * @internal
 */
export function describe(call: number, family: Family | undefined): void {
  const words = new Uint32Array(memory.buffer, wasm.call_option_words(call), WORDS);
  family === undefined ? words.fill(0) : words.set(family.words);
}

/**
 * Copies the arrays of the options into the room that has been made.
 *
 * @internal
 */
export function fill(call: number, family: Family | undefined): void {
  if (family === undefined) {
    return;
  }
  const { buffer } = memory;
  const { floats, lens, positions, segments, starts } = family;
  let at = wasm.call_option_floats(call);
  for (const data of floats) {
    new Float32Array(buffer, at, data.length).set(data);
    at += data.byteLength;
  }
  if (lens !== undefined) {
    new Uint32Array(buffer, wasm.call_lens(call), lens.length).set(lens);
  }
  if (positions !== undefined) {
    new Int32Array(buffer, wasm.call_positions(call), positions.length).set(positions);
  }
  at = wasm.call_segments(call);
  for (const data of segments) {
    new Uint32Array(buffer, at, data.length).set(data);
    at += data.byteLength;
  }
  at = wasm.call_starts(call);
  for (const data of starts ?? []) {
    new Uint32Array(buffer, at, data.length).set(data);
    at += data.byteLength;
  }
}

/**
 * The log-sum-exps, where they are wanted.
 *
 * @internal
 */
export function lse(call: number, family: Family | undefined): Float32Array | undefined {
  if (family === undefined || family.lse === false) {
    return undefined;
  }
  const length = (family.words[W.lseLen] as number) - 1;
  return out(wasm.call_lse(call), length, family.lse === true ? undefined : family.lse);
}
