// What the types allow and what they refuse. Compiled strictly and never run.

import { type Cache, type Dims, ErrorCode, type ForwardOptions, type Layer, load, type Mha, type Output, type SavedCache } from "mha/full";
import { load as loadFrom } from "mha/full/core";
import { load as loadTraining } from "mha/train";

declare const q: Float32Array;
declare const k: Float32Array;
declare const v: Float32Array;
declare const module: WebAssembly.Module;

/** Compiles where the two types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<T extends true>(): T | undefined {
  return undefined;
}

export async function allowed(): Promise<void> {
  const mha: Mha = await load();
  await loadFrom(module);
  await loadFrom(new URL("https://example.com/mha.wasm"));
  await loadFrom(fetch("mha.wasm"));

  const weights = { wq: q, wk: q, wv: q, wo: q, bo: q };
  const forms: Dims[] = [
    64,
    { in: 64, qkv: 32, out: 64 },
    { in: 64, qk: 32, v: 16, out: 64 },
    { qIn: 1, kIn: 2, vIn: 3, qk: 4, v: 5, out: 6 },
  ];
  for (const dims of forms) {
    using layer: Layer = mha.layer({ dims, weights });
    layer.forward({ q });
  }
  using flat = mha.layer({ dims: 8, heads: 2, weights: q, weightOrder: "out_in", scale: 0.5 });
  same<Same<typeof flat.dims.qIn, number>>();

  // Scores are there when they are asked for, and only then.
  const plain = flat.forward({ q, k });
  same<Same<typeof plain, Output>>();
  const { scores } = flat.forward({ q, k, v, scores: true, scoresAt: "logits" });
  same<Same<typeof scores, Float32Array>>();
  same<Same<ReturnType<typeof flat.forward>["scores"], Float32Array | undefined>>();
  const filled = flat.forward({ q, scores: new Float32Array(4), y: v });
  same<Same<typeof filled.scores, Float32Array>>();
  const maybe: boolean = Math.random() < 0.5;
  const either = flat.forward({ q, scores: maybe });
  same<Same<typeof either.scores, Float32Array | undefined>>();

  // Gradients are those that were asked for.
  const training = await loadTraining();
  using pupil = training.layer({ dims: 8, weights: q });
  const kept = pupil.forwardKeeping({ q, scores: true });
  same<Same<typeof kept.scores, Float32Array>>();
  const gradients = pupil.backward({ q, kept: kept.kept, dy: kept.y, gradients: { wq: true, bias: v } });
  same<Same<keyof typeof gradients, "wq" | "bias">>();
  pupil.weights.set(gradients.wq);

  const shape = [1, 1, 4, 4] as const;
  const options: ForwardOptions = {
    q,
    k,
    v,
    batch: 2,
    qLen: 4,
    kvLen: 4,
    mask: { data: new Uint8Array(16), shape },
    causal: true,
    causalOffset: Int32Array.of(1, -1),
    bias: { data: new Float32Array(16), shape },
    dropout: { p: 0.1, seed: 1n },
  };
  flat.forward(options);

  // The attention family.
  const family: ForwardOptions = {
    ...options,
    offset: 3,
    window: { left: 63, right: 0 },
    lens: Uint32Array.of(4, 2),
    softcap: 30,
    alibi: true,
    rope: { base: 10000, interleaved: true, dims: 4, qOffset: 1 },
    sinks: q,
    norm: { kind: "rms", epsilon: 1e-6, qGain: q },
    segments: { q: new Uint32Array(8), kv: new Uint32Array(8) },
    extra: { k, v },
    scoresOf: "mean",
    scoreQueries: [1, 3],
    scoresAt: "softmax",
    lse: true,
  };
  same<Same<ReturnType<typeof flat.forward>["lse"], Float32Array | undefined>>();
  flat.forward(family);
  using cache: Cache = flat.cache({ capacity: 64, ring: true, pinned: 16, batch: 1 });
  flat.append(cache, { k, rope: { cos: q, sin: q } });
  const step = flat.attend(cache, { q, causal: true, window: { left: 3 }, scores: true });
  same<Same<typeof step.scores, Float32Array>>();
  const saved: SavedCache = cache.save();
  mha.cache({ dims: 8, heads: 2, kvHeads: 1, capacity: 64, saved }).dispose();
  flat.forwardPacked({ q, qStarts: Uint32Array.of(0, 2, 4), causal: true }).y.length;
  mha.merge({ heads: 2, v: 8, y: q, lse: k, otherY: q, otherLse: k });
  mha.dotProductAttention({ dims: 8, heads: 2, q, k, v, mask: "causal" });
  mha.dotProductAttention({ dims: { qk: 8, v: 4 }, q, scale: 1 });
  same<Same<ReturnType<typeof mha.dotProductAttentionScores>, Float32Array>>();
  const codes: ErrorCode[] = [ErrorCode.Detached, 65];
  same<Same<typeof ErrorCode.Detached, 65>>();
  console.log(codes);
}

export function refused(mha: Mha, layer: Layer): void {
  const weights = { wq: q, wk: q, wv: q, wo: q };
  // @ts-expect-error: a weight is missing
  mha.layer({ dims: 8, weights: { wq: q, wk: q, wv: q } });
  // @ts-expect-error: a width is missing
  mha.layer({ dims: { in: 8, qk: 8, out: 8 }, weights });
  // @ts-expect-error: two forms in one
  mha.layer({ dims: { in: 8, qkv: 8, v: 8, out: 8 }, weights });
  // @ts-expect-error: two forms in one
  mha.layer({ dims: { in: 8, qkv: 8, qIn: 8, out: 8 }, weights });
  // @ts-expect-error: no such order
  mha.layer({ dims: 8, weights, weightOrder: "outIn" });
  // @ts-expect-error: plain arrays are not taken
  layer.forward({ q: [1, 2, 3] });
  // @ts-expect-error: another class
  layer.forward({ q: new Float64Array(8) });
  // @ts-expect-error: values without keys
  layer.forward({ q, v });
  // @ts-expect-error: no such option
  layer.forward({ q, causel: true });
  // @ts-expect-error: an extent is missing
  layer.forward({ q, mask: { data: new Uint8Array(4), shape: [1, 1, 4] } });
  // @ts-expect-error: a mask is bytes
  layer.forward({ q, mask: { data: new Float32Array(4), shape: [1, 1, 1, 4] } });
  // @ts-expect-error: a bias is floats
  layer.forward({ q, bias: { data: new Uint8Array(4), shape: [1, 1, 1, 4] } });
  // @ts-expect-error: no such place
  layer.forward({ q, scores: true, scoresAt: "weights" });
  // @ts-expect-error: no such norm
  layer.forward({ q, norm: { kind: "layer", epsilon: 0 } });
  // @ts-expect-error: lengths are whole numbers
  layer.forward({ q, lens: new Float32Array(1) });
  // @ts-expect-error: a cache brings the keys
  layer.attend(layer.cache({ capacity: 1 }), { q, k });
  // @ts-expect-error: a mask has no place where sequences are packed
  layer.forwardPacked({ q, qStarts: new Uint32Array(2), mask: { data: new Uint8Array(1), shape: [1, 1, 1, 1] } });
  // @ts-expect-error: no scores were asked for
  layer.forward({ q }).scores.length;
  // @ts-expect-error: no such number
  const code: ErrorCode = 12;
  console.log(code);
  // @ts-expect-error: read-only
  layer.heads = 4;
}

import { type Layer as PlainLayer, load as loadPlain } from "mha";

export async function plainly(): Promise<void> {
  const layer: PlainLayer = (await loadPlain()).layer({ dims: 8, weights: q });
  layer.forward({ q, mask: "causal", dropout: { p: 0.5, seed: 1 } });
  // @ts-expect-error The options of the family are in mha/full.
  layer.forward({ q, window: { left: 1 } });
  // @ts-expect-error So are caches.
  layer.cache({ capacity: 16 });
}
