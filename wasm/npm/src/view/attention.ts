// What is to be seen: scores with the names of their tokens, checked once.

import { array, count, flag, number, object, wrongType } from "../checks.js";
import { ErrorCode, MhaError } from "../error.js";

/** Scores of one sequence, with the names of its tokens. */
export interface Attention {
  /** How much each query looks at each key, `[heads, queries, keys]`: `scores` of a call with one sequence. */
  readonly scores: Float32Array;
  /** The number of heads. */
  readonly heads: number;
  /** The tokens that ask, or how many there are. */
  readonly queries: readonly string[] | number;
  /** The tokens that are looked at, or how many there are. Default: the queries. */
  readonly keys?: readonly string[] | number | undefined;
  /**
   * The causal rule that held: query `i` could see the keys `j <= i + offset`. `true` is an offset of 0. What
   * could not be seen is hatched.
   */
  readonly causal?: boolean | number | undefined;
}

/** Attention that has been checked. */
export interface Checked {
  readonly scores: Float32Array;
  readonly heads: number;
  readonly queries: readonly string[];
  readonly keys: readonly string[];
  /** The causal rule's offset; undefined where it did not hold. */
  readonly causal: number | undefined;
  /** The least and the largest score that is finite; 0 and 1 for what lies between them. */
  readonly range: readonly [number, number];
}

/**
 * Checks what is to be seen.
 *
 * @throws MhaError naming what does not fit.
 */
export function check(attention: Attention): Checked {
  const { scores: given, heads: headsGiven, queries: q, keys: k, causal: rule } = object("options", attention);
  const scores = array("scores", "Float32Array", given);
  const heads = count("heads", headsGiven);
  const queries = names("q", q);
  const keys = k === undefined ? queries : names("k", k);
  const causal = typeof rule === "number" ? number("causal", rule) : flag("causal", rule) ? 0 : undefined;
  const needed = heads * queries.length * keys.length;
  if (scores.length !== needed) {
    throw new MhaError(ErrorCode.Length, "scores", `scores: ${needed} elements needed, ${scores.length} given`);
  }
  let [least, most] = [0, 1];
  for (const score of scores) {
    if (Number.isFinite(score)) {
      least = Math.min(least, score);
      most = Math.max(most, score);
    }
  }
  return { scores, heads, queries, keys, causal, range: [least, most] };
}

/** The score of a cell. */
export function score(attention: Checked, head: number, query: number, key: number): number {
  const { queries, keys, scores } = attention;
  return scores[(head * queries.length + query) * keys.length + key] ?? NaN;
}

/** Whether a query could see a key. */
export function visible(attention: Checked, query: number, key: number, value: number): boolean {
  return value !== -Infinity && (attention.causal === undefined || key <= query + attention.causal);
}

/** How strongly a score is drawn, 0 to 1. Weights by their square root, so that small ones can be told from none. */
export function strength(attention: Checked, value: number): number {
  const [least, most] = attention.range;
  const part = Math.max(0, Math.min(1, (value - least) / (most - least)));
  return least === 0 && most === 1 ? Math.sqrt(part) : part;
}

/** A float as its shortest decimal that no other float has. */
export function exact(value: number): string {
  if (!Number.isFinite(value)) {
    return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  }
  for (let digits = 1; digits < 9; digits++) {
    const text = String(Number(value.toPrecision(digits)));
    if (Math.fround(Number(text)) === Math.fround(value)) {
      return text;
    }
  }
  return String(Number(value.toPrecision(9)));
}

function names(argument: "q" | "k", value: unknown): readonly string[] {
  if (typeof value === "number") {
    return Array.from({ length: count(argument, value) }, (_, i) => String(i + 1));
  }
  if (!Array.isArray(value)) {
    throw wrongType(argument, "a list of tokens or their number is needed");
  }
  return value.map(String);
}
