// What a call takes, and how it is read: every option once, its kind checked, before anything else
// happens.

import { array, count, flag, maybeFloats, number, object, offset, word, wrongType } from "./checks.js";
import { type Argument, ErrorCode, MhaError } from "./error.js";

/** The sizes `[batch, heads, qLen, kvLen]`; each may be 1, where an array is the same all along that axis. */
export type Extents = readonly [batch: number, heads: number, qLen: number, kvLen: number];

/** A boolean mask, row-major. Nonzero attends, as in Flux and ONNX. (In PyTorch's layer true excludes.) */
export interface Mask {
  /** One byte an element. */
  readonly data: Uint8Array;
  /** `[batch | 1, heads | 1, qLen | 1, kvLen | 1]` */
  readonly shape: Extents;
}

/** An additive bias on the logits, row-major. −∞ excludes a key as a mask does. */
export interface Bias {
  /** One number an element. */
  readonly data: Float32Array;
  /** `[batch | 1, heads | 1, qLen | 1, kvLen | 1]` */
  readonly shape: Extents;
}

/** Dropout on the scores, decided by a counter: the same seed gives the same decisions everywhere. */
export interface Dropout {
  /** The probability of a score to be dropped, `0 <= p < 1`. Survivors are multiplied by `1 / (1 - p)`. */
  readonly p: number;
  /** A whole number of up to 64 bits; a `bigint` beyond 2⁵³. */
  readonly seed: number | bigint;
}

/** Where scores are taken: after softmax and dropout; `scale · q·kᵀ`; the same plus bias, −∞ where masked. */
export type ScoresAt = "softmax" | "logits" | "masked";

/** How many sequences there are and how long they are. */
export interface ShapeOptions {
  /** Independent sequences. Default 1. */
  readonly batch?: number | undefined;
  /** Queries of each sequence. Default: as many as `q` holds. */
  readonly qLen?: number | undefined;
  /** Keys and values of each sequence. Default: as many as `k` holds. */
  readonly kvLen?: number | undefined;
}

/** What a query may see, and what becomes of its scores. */
export interface AttentionOptions extends ShapeOptions {
  /** Which keys a query may see. `"causal"` is the same as `causal: true`. */
  readonly mask?: "causal" | Mask | undefined;
  /** Lets query `i` see the keys `j <= i + causalOffset` only, without a mask array. Goes together with a mask. */
  readonly causal?: boolean | undefined;
  /**
   * Shifts the queries against the keys for `causal`: one number, or one for each sequence. Default
   * 0: the first query sees the first key. Given alone it means `causal: true`.
   */
  readonly causalOffset?: number | Int32Array | undefined;
  /** A bias that is added to the logits. */
  readonly bias?: Bias | undefined;
  /** Drops scores at random, as training wants it. */
  readonly dropout?: Dropout | undefined;
}

/** Which outputs are wanted, and where they go. */
export interface OutputOptions {
  /** Where the output is written, instead of to a new array. */
  readonly y?: Float32Array | undefined;
  /** `true` for the scores in a new array, or where they are written. `y` has the same bits without them. */
  readonly scores?: boolean | Float32Array | undefined;
  /** Where on the way the scores are taken. Default `"softmax"`. */
  readonly scoresAt?: ScoresAt | undefined;
}

/** Queries alone (self-attention), queries and keys (the values are the keys), or all three. */
export type Inputs =
  | {
      /** The queries, `[batch, qLen, qIn]`: keys and values too. */
      readonly q: Float32Array;
      readonly k?: undefined;
      readonly v?: undefined;
    }
  | {
      /** The queries, `[batch, qLen, qIn]`. */
      readonly q: Float32Array;
      /** The keys, `[batch, kvLen, kIn]`. */
      readonly k: Float32Array;
      /** The values, `[batch, kvLen, vIn]`. Default: the keys. */
      readonly v?: Float32Array | undefined;
    };

/**
 * A call, read and with its kinds checked.
 *
 * @internal
 */
export interface Read {
  readonly q: Float32Array;
  readonly k: Float32Array | undefined;
  readonly v: Float32Array | undefined;
  readonly batch: number;
  readonly qLen: number;
  readonly kvLen: number;
  readonly mask: Mask | undefined;
  readonly bias: Bias | undefined;
  readonly causal: number | Int32Array | undefined;
  readonly dropout: { readonly p: number; readonly low: number; readonly high: number } | undefined;
  readonly y: Float32Array | undefined;
  readonly scores: boolean | Float32Array;
  readonly scoresAt: number;
}

const SCORES_AT: readonly ScoresAt[] = ["softmax", "logits", "masked"];

/**
 * Reads the options of a call whose queries and keys have these widths.
 *
 * @internal
 */
export function read(options: Inputs & AttentionOptions & OutputOptions, qWidth: number, kWidth: number): Read {
  const given = object("options", options);
  const q = array("q", "Float32Array", given.q);
  const k = maybeFloats("k", given.k);
  const v = maybeFloats("v", given.v);
  if (v !== undefined && k === undefined) {
    throw wrongType("k", "v is given without k");
  }
  const batch = given.batch === undefined ? 1 : count("shape", given.batch);
  const qLen = length("q", q, batch, qWidth, given.qLen);
  const kvLen = length(k === undefined ? "q" : "k", k ?? q, batch, kWidth, given.kvLen);
  const { mask, scores } = given;
  const y = maybeFloats("y", given.y);
  if (scores !== undefined && typeof scores !== "boolean") {
    array("scores", "Float32Array", scores);
  }
  return {
    q,
    // The same array twice is copied once.
    k: k === q ? undefined : k,
    v: v === k ? undefined : v,
    batch,
    qLen,
    kvLen,
    mask: mask === undefined || mask === "causal" ? undefined : broadcast("mask", "Uint8Array", mask),
    bias: given.bias === undefined ? undefined : broadcast("bias", "Float32Array", given.bias),
    causal: causal(flag("causal", given.causal ?? (mask === "causal" ? true : undefined)), given),
    dropout: given.dropout === undefined ? undefined : dropout(given.dropout),
    y,
    scores: scores ?? false,
    scoresAt: given.scoresAt === undefined ? 0 : word("scores", SCORES_AT, given.scoresAt),
  };
}

/** How long each sequence is: as the caller says, or as long as the array is. */
function length(argument: Argument, data: Float32Array, batch: number, width: number, given: unknown): number {
  if (given !== undefined) {
    return count("shape", given);
  }
  const each = batch * width;
  if (each === 0) {
    return 0;
  }
  if (data.length % each !== 0) {
    const message = `${argument}: a multiple of ${each} elements needed, ${data.length} given`;
    throw new MhaError(ErrorCode.Length, argument, message);
  }
  return data.length / each;
}

/** A mask or a bias, its array and its extents looked at once. */
function broadcast<Name extends "Uint8Array" | "Float32Array">(
  argument: "mask" | "bias",
  name: Name,
  value: { readonly data: unknown; readonly shape: unknown },
) {
  const { data, shape } = object(argument, value);
  if (!Array.isArray(shape) || shape.length !== 4) {
    throw wrongType(argument, "shape must be four numbers, [batch | 1, heads | 1, qLen | 1, kvLen | 1]");
  }
  const [batch, heads, qLen, kvLen] = shape as unknown[];
  const extents: Extents = [
    count(argument, batch),
    count(argument, heads),
    count(argument, qLen),
    count(argument, kvLen),
  ];
  return { data: array(argument, name, data), shape: extents };
}

/** The causal rule: nothing, an offset, or an offset a sequence. */
function causal(wanted: boolean, given: AttentionOptions): number | Int32Array | undefined {
  const shift = given.causalOffset;
  const read = shift === undefined || typeof shift === "number" ? offset("causal", shift ?? 0) : array("causal", "Int32Array", shift);
  return wanted || (shift !== undefined && given.causal === undefined) ? read : undefined;
}

function dropout(value: Dropout): NonNullable<Read["dropout"]> {
  const { p, seed } = object("dropout", value);
  const chance = number("dropout", p);
  const whole = typeof seed === "number" && Number.isSafeInteger(seed) ? BigInt(seed) : seed;
  if (typeof whole !== "bigint") {
    throw wrongType("dropout", "the seed must be a whole number or a bigint");
  }
  if (whole !== BigInt.asUintN(64, whole)) {
    throw new MhaError(ErrorCode.Value, "dropout", "dropout: the seed must be at least 0 and fit 64 bits");
  }
  return { p: chance, low: Number(whole & 0xffff_ffffn), high: Number(whole >> 32n) };
}
