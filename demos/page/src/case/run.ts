// Computes a case through the package and holds it against what the case expects.

import type { ForwardOptions, Mha, ScoresAt } from "mha/train";

import type { Case } from "./case.js";
import type { Tolerance } from "./description.js";

/** How one output compares. */
export interface Comparison {
  readonly output: "y" | "scores";
  /** Elements that are further off than allowed. */
  readonly failed: number;
  readonly elements: number;
  /** The largest difference between finite elements. */
  readonly worst: number;
}

/** What came of a case. */
export interface Outcome {
  /** The weights after the softmax, `[batch, heads, qLen, columns]`. */
  readonly weights: Float32Array;
  readonly columns: number;
  readonly comparisons: readonly Comparison[];
  /** Milliseconds of the call. */
  readonly took: number;
}

/** Computes a case. */
export function runCase(mha: Mha, given: Case): Outcome {
  const columns = given.kvLen + (given.past?.len ?? 0);
  const { about } = given;
  const comparisons: Comparison[] = [];
  const start = performance.now();
  const { y, scores } = compute(mha, given, about.scoresAt);
  const took = performance.now() - start;
  if (given.y !== undefined) {
    comparisons.push(compare("y", y, given.y, about.yTolerance));
  }
  if (given.scores !== undefined) {
    comparisons.push(compare("scores", scores, given.scores, about.scoresTolerance));
  }
  const weights = about.scoresAt === "softmax" ? scores : compute(mha, given, "softmax").scores;
  return { weights, columns, comparisons, took };
}

function compute(mha: Mha, given: Case, scoresAt: ScoresAt): { y: Float32Array; scores: Float32Array } {
  const { about, batch, qLen, kvLen, q, k, v, weights, options, past } = given;
  const { dims, heads, kvHeads, scale } = about;
  const bare = { dims: { qk: dims.qk, v: dims.v }, heads, kvHeads, scale };
  const order = about.weights === "none" ? undefined : about.weights;
  const layer = weights && mha.layer({ dims, heads, kvHeads, scale, weights, weightOrder: order });
  const inputs = { q, ...(k === undefined ? {} : { k, v }) } as Pick<ForwardOptions, "q">;
  const call = { ...options, qLen, scores: true, scoresAt } as const;
  // Keys that no projection has written anew are rotated on their way into a cache.
  const cached = past !== undefined || (layer === undefined && options.rope !== undefined);
  if (!cached) {
    const all = { ...inputs, ...call, batch, kvLen } as ForwardOptions & { scores: true };
    const output = layer === undefined ? mha.dotProductAttention({ ...bare, ...all }) : layer.forward(all);
    layer?.dispose();
    return output;
  }
  const sizes = { capacity: kvLen + (past?.len ?? 0), batch };
  const cache = layer === undefined ? mha.cache({ ...bare, ...sizes }) : layer.cache(sizes);
  try {
    if (past !== undefined) {
      cache.append({ k: past.k, v: past.v });
    }
    const fresh = { k: k ?? q, v: v ?? k ?? q, rope: options.rope };
    if (layer === undefined) {
      cache.append(fresh);
      return mha.dotProductAttentionCached(cache, { ...bare, q, ...call }) as { y: Float32Array; scores: Float32Array };
    }
    layer.append(cache, fresh);
    return layer.attend(cache, { q, ...call });
  } finally {
    cache.dispose();
    layer?.dispose();
  }
}

function compare(output: "y" | "scores", got: Float32Array, expected: Float32Array, [absolute, relative]: Tolerance): Comparison {
  let [failed, worst] = [Math.abs(got.length - expected.length), 0];
  for (let i = 0; i < Math.min(got.length, expected.length); i++) {
    const [a, e] = [got[i]!, expected[i]!];
    if (a === e || (Number.isNaN(a) && Number.isNaN(e))) {
      continue;
    }
    const error = Math.abs(a - e);
    worst = Number.isFinite(error) ? Math.max(worst, error) : Infinity;
    // Written so that NaN fails; what is infinite was equal above or is wrong.
    if (!(error <= absolute + relative * Math.abs(e)) || error === Infinity) {
      failed++;
    }
  }
  return { output, failed, elements: expected.length, worst };
}
