// What a call takes, and how it is read: every option once, its kind checked, before anything else
// happens.

import { array, count, flag, maybeFloats, number, object, offset, word, wrongType } from "./checks.js";
import { type Argument, ErrorCode, MhaError } from "./error.js";
import { type Family, type FamilyOptions, look, readFamily, type SelectOptions } from "./family.js";

/** The sizes `[batch, heads, qLen, kvLen]`; each may be 1, where an array is the same all along that axis. */
export type Extents = readonly [batch: number, heads: number, qLen: number, kvLen: number];

/** A boolean mask, row-major. Nonzero attends, as in Flux and ONNX. (In PyTorch's layer true excludes.) */
export interface Mask {
  /** One byte an element. */
  readonly data: Uint8Array;
  /** `[batch | 1, heads | 1, qLen | 1, kvLen | 1]` */
  readonly shape: Extents;
  /** Reads the mask in the opposite sense, that of PyTorch's layer: nonzero excludes. Default false. */
  readonly excluding?: boolean | undefined;
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

/**
 * Where scores are taken: after softmax and dropout; `scale · q·kᵀ`; after the softcap; the same plus bias,
 * −∞ where masked.
 */
export type ScoresAt = "softmax" | "logits" | "capped" | "masked";

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
export interface AttentionOptions extends ShapeOptions, FamilyOptions {
  /** Which keys a query may see. `"causal"` is the same as `causal: true`. */
  readonly mask?: "causal" | Mask | undefined;
  /** Lets query `i` see the keys `j <= i + causalOffset` only, without a mask array. Goes together with a mask. */
  readonly causal?: boolean | undefined;
  /**
   * Shifts the queries against the keys for `causal`: one number, or one for each sequence. Default
   * 0: the first query sees the first key; over a cache, the last query stands at the last position. Given alone it
   * means `causal: true`.
   */
  readonly causalOffset?: number | Int32Array | undefined;
  /** A bias that is added to the logits. */
  readonly bias?: Bias | undefined;
  /** Drops scores at random, as training wants it. */
  readonly dropout?: Dropout | undefined;
}

/** Which outputs are wanted, and where they go. */
export interface OutputOptions extends SelectOptions {
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
  /** `true`: as it comes naturally. */
  readonly causal: true | number | Int32Array | undefined;
  readonly family: Family | undefined;
  readonly dropout: { readonly p: number; readonly low: number; readonly high: number } | undefined;
  readonly y: Float32Array | undefined;
  readonly scores: boolean | Float32Array;
  readonly scoresAt: number;
}

const SCORES_AT: readonly ScoresAt[] = ["softmax", "logits", "masked", "capped"];

/**
 * Reads the options of a call whose queries and keys have these widths.
 *
 * @internal
 */
export function read(
  options: Inputs & AttentionOptions & OutputOptions,
  qWidth: number,
  kWidth: number,
  heads: number,
): Read {
  // 1. Everything is looked at once. This alone can run code of the caller's (a getter, a proxy), so
  //    what the arrays are is asked after it.
  const given = object("options", options);
  const { q: qData, k: kData, v: vData, batch: sequences, qLen: queries, kvLen: keys } = given;
  const { mask: maskGiven, bias: biasGiven, dropout: dropoutGiven, causal: rule, causalOffset: shift } = given;
  const { y: yData, scores: scoresGiven, scoresAt: place } = given;
  const maskParts = maskGiven === undefined || maskGiven === "causal" ? undefined : grid("mask", maskGiven);
  const biasParts = biasGiven === undefined ? undefined : grid("bias", biasGiven);
  const opposite = maskGiven !== undefined && maskGiven !== "causal" && flag("mask", maskGiven.excluding);
  const dropout = dropoutGiven === undefined ? undefined : readDropout(dropoutGiven);
  const seen = look(given);

  // 2. Words and numbers.
  const batch = sequences === undefined ? 1 : count("shape", sequences);
  const qLenGiven = queries === undefined ? undefined : count("shape", queries);
  const kvLenGiven = keys === undefined ? undefined : count("shape", keys);
  const scoresAt = place === undefined ? 0 : word("scores", SCORES_AT, place);
  const wanted = flag("causal", rule) || maskGiven === "causal" || (shift !== undefined && rule === undefined);

  // 3. Arrays.
  const q = array("q", "Float32Array", qData);
  const k = maybeFloats("k", kData);
  const v = maybeFloats("v", vData);
  if (v !== undefined && k === undefined) {
    throw wrongType("k", "v is given without k");
  }
  const mask = maskParts && {
    data: array("mask", "Uint8Array", maskParts.data),
    shape: maskParts.shape,
    excluding: opposite,
  };
  const bias = biasParts && { data: array("bias", "Float32Array", biasParts.data), shape: biasParts.shape };
  const offsets =
    shift === undefined ? true : typeof shift === "object" ? array("causal", "Int32Array", shift) : offset("causal", shift);
  const y = maybeFloats("y", yData);
  const scores = typeof scoresGiven === "boolean" ? scoresGiven : (maybeFloats("scores", scoresGiven) ?? false);
  const qLen = qLenGiven ?? length("q", q, batch, qWidth);
  return {
    q,
    // The same array twice is copied once.
    k: k === q ? undefined : k,
    v: v === k ? undefined : v,
    batch,
    qLen,
    kvLen: kvLenGiven ?? (k === undefined ? length("q", q, batch, kWidth) : length("k", k, batch, kWidth)),
    mask,
    bias,
    causal: wanted ? offsets : undefined,
    family: readFamily(seen, batch * heads * qLen),
    dropout,
    y,
    scores,
    scoresAt,
  };
}

/** How long each sequence is, by the length of the array. */
function length(argument: Argument, data: Float32Array, batch: number, width: number): number {
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

/** The parts of a mask or a bias; the array is not looked at yet. */
function grid(argument: "mask" | "bias", value: Mask | Bias): { data: unknown; shape: Extents } {
  const { data, shape } = object(argument, value);
  if (!Array.isArray(shape) || shape.length !== 4) {
    throw wrongType(argument, "shape must be four numbers, [batch | 1, heads | 1, qLen | 1, kvLen | 1]");
  }
  const [batch, heads, qLen, kvLen] = shape as unknown[];
  return {
    data,
    shape: [count(argument, batch), count(argument, heads), count(argument, qLen), count(argument, kvLen)],
  };
}

function readDropout(value: Dropout): NonNullable<Read["dropout"]> {
  const { p, seed } = object("dropout", value);
  const chance = number("dropout", p);
  const whole = typeof seed === "number" && Number.isSafeInteger(seed) ? BigInt(seed) : seed;
  if (typeof whole !== "bigint") {
    throw wrongType("dropout", "the seed must be a safe integer or a bigint");
  }
  if (whole !== BigInt.asUintN(64, whole)) {
    throw new MhaError(ErrorCode.Value, "dropout", "dropout: the seed must be at least 0 and fit 64 bits");
  }
  return { p: chance, low: Number(whole & 0xffff_ffffn), high: Number(whole >> 32n) };
}
