// What `mha/full` adds to the plain layer: streaming over caches, packed sequences, attention without projections.

import { append, type AppendOptions, Cache, type CacheOptions, cache as checked } from "./cache.js";
import { array, count, number, object } from "./checks.js";
import { type AttentionDims, attentionDims } from "./dims.js";
import { ErrorCode, MhaError } from "./error.js";
import { packed } from "./family.js";
import * as wasm from "./glue/mha_wasm.js";
import { type ForwardOptions, inside, Layer, type LayerOptions, type Output, output, type OutputWithScores } from "./layer.js";
import { Mha } from "./mha.js";
import { type AttentionOptions, type Inputs, type OutputOptions, read } from "./options.js";
import { count as described, memory, type Owner, places, run, settle } from "./run.js";

/** The widths, heads and scale of attention without projections. */
export interface BareOptions {
  /** Features of queries and keys, and of values, all heads together. */
  readonly dims: AttentionDims;
  /** The number of heads. Head `h` owns the features `h·d … (h+1)·d`. Default 1. */
  readonly heads?: number | undefined;
  /** Key/value heads, each shared by `heads / kvHeads` query heads. Default: `heads`. */
  readonly kvHeads?: number | undefined;
  /** The factor on `q·kᵀ`. Default `1/√(qk/heads)`. */
  readonly scale?: number | undefined;
}

/** What {@link Mha.dotProductAttention} takes. */
export type DotProductOptions = BareOptions & Inputs & AttentionOptions & OutputOptions;

/** What {@link Mha.dotProductAttentionScores} takes. */
export type DotProductScoresOptions = BareOptions &
  AttentionOptions & {
    /** The queries, `[batch, qLen, qk]`. */
    readonly q: Float32Array;
    /** The keys, `[batch, kvLen, qk]`. Default: the queries. */
    readonly k?: Float32Array | undefined;
    /** Where the scores are written, instead of to a new array. */
    readonly scores?: Float32Array | undefined;
  };

/** What {@link Mha.dotProductAttentionCached} takes. */
export type CachedOptions = BareOptions & { readonly q: Float32Array } & Omit<AttentionOptions, "batch" | "kvLen"> &
  OutputOptions;

/** What {@link Mha.merge} takes: attention of one sequence without projections over some keys, and over others. */
export interface MergeOptions {
  /** The number of heads. */
  readonly heads: number;
  /** Features of `y`, all heads together. */
  readonly v: number;
  /** The output over some keys, `[rows, v]`; receives the result. */
  readonly y: Float32Array;
  /** Its log-sum-exps, `[heads, rows]`; receives those of the result. */
  readonly lse: Float32Array;
  /** The output over the other keys, `[rows, v]`. */
  readonly otherY: Float32Array;
  /** Its log-sum-exps, `[heads, rows]`. */
  readonly otherLse: Float32Array;
}

/** What {@link FullLayer.attend} takes. */
export type AttendOptions = { readonly q: Float32Array } & Omit<AttentionOptions, "batch" | "kvLen"> & OutputOptions;

/** What {@link FullLayer.forwardPacked} takes: what is given for each sequence of a batch has no place there. */
export type PackedOptions = Inputs &
  Omit<AttentionOptions, "batch" | "qLen" | "kvLen" | "mask" | "bias" | "lens" | "segments"> &
  Omit<OutputOptions, "lse"> & {
    /** Where each sequence's queries begin, and the end of the last: `cu_seqlens` elsewhere. */
    readonly qStarts: Uint32Array;
    /** Where each sequence's keys begin, and the end of the last. Default: `qStarts`. */
    readonly kvStarts?: Uint32Array | undefined;
  };

/** The layer with everything: {@link Layer}, streaming over caches and packed sequences. */
export class FullLayer extends Layer {
  /**
   * Computes sequences of different lengths that lie one after another without padding. `y` is
   * `[queries, out]`; scores are for each sequence in order `[heads, its queries, its keys]`. The causal rule
   * and the options apply to each sequence by itself.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  forwardPacked(options: PackedOptions): Output & Partial<OutputWithScores> {
    const { layer, call } = inside(this);
    const { qStarts: ofQ, kvStarts: ofKv, ...rest } = object("options", options);
    const q = array("rows", "Uint32Array", ofQ);
    const kv = ofKv === undefined ? q : array("rows", "Uint32Array", ofKv);
    if (kv.length !== q.length) {
      throw new MhaError(ErrorCode.Length, "rows", `rows: ${q.length} elements needed, ${kv.length} given`);
    }
    const { qIn, kIn } = this.dims;
    const given = read({ ...rest, batch: 1, qLen: 0, kvLen: 0 } as ForwardOptions, qIn, kIn, this.heads);
    const lengths = (starts: Uint32Array): number[] =>
      Array.from(starts.subarray(1), (end, i) => Math.max(end - (starts[i] ?? 0), 0));
    const [qLens, kvLens] = [lengths(q), lengths(kv)];
    const heads = rest.scoresOf === undefined ? this.heads : 1;
    const chosen = rest.scoreQueries && rest.scoreQueries[1] - rest.scoreQueries[0];
    const scores = qLens.reduce((sum, n, i) => sum + heads * (chosen ?? n) * (kvLens[i] ?? 0), 0);
    const queries = qLens.reduce((sum, n) => sum + n, 0);
    const longest = (lens: number[]): number => lens.reduce((most, n) => Math.max(most, n), 0);
    const written = run(
      call,
      { ...given, qLen: longest(qLens), kvLen: longest(kvLens), family: packed(given.family, [q, kv]) },
      (call) => wasm.layer_reserve_packed(layer, call, queries, scores),
      (call) => wasm.layer_forward_packed(layer, call),
    );
    return output(written);
  }

  /**
   * Makes a cache for this layer.
   *
   * @throws MhaError for what does not fit.
   */
  cache(options: CacheOptions): Cache {
    const { heads, kvHeads } = this;
    return new Cache({ heads, kvHeads, qk: this.dims.qk, v: this.dims.v }, options);
  }

  /**
   * Projects keys `[batch, n, kIn]` and values `[batch, n, vIn]` and appends them to a cache. Appending n
   * positions at once or one by one leaves the same bits.
   *
   * @throws MhaError for what does not fit, or where the cache is full; nothing has changed then.
   */
  append(to: Cache, options: AppendOptions): void {
    const { layer, call } = inside(this);
    const { store } = checked(to);
    append(call, to, options, (call) => wasm.layer_append(layer, call, store));
  }

  /**
   * Attends over a cache. Where nothing else is said the last query stands at the last position, so a causal
   * call gives after each append what {@link Layer.forward} gives for the whole, bit for bit. Scores are
   * `[batch, heads, qLen, cache.stored]`; masks and biases count the keys by their positions.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  attend(over: Cache, options: AttendOptions & { readonly scores: true | Float32Array }): OutputWithScores;
  attend(over: Cache, options: AttendOptions & { readonly scores?: false | undefined }): Output;
  attend(over: Cache, options: AttendOptions): Output & Partial<OutputWithScores>;
  attend(over: Cache, options: AttendOptions): Output & Partial<OutputWithScores> {
    const { layer, call } = inside(this);
    const { store } = checked(over);
    const given = { ...object("options", options), k: undefined, v: undefined, batch: over.batch, kvLen: 0 };
    const written = run(
      call,
      read(given, this.dims.qIn, this.dims.kIn, this.heads),
      (call) => wasm.layer_reserve_attend(layer, call, store),
      (call) => wasm.layer_attend(layer, call, store),
    );
    return output(written);
  }
}

/**
 * What the library works with, for the entry that adds to it.
 *
 * @internal
 */
export let insideMha: (mha: FullMha) => Owner;

/** The library, loaded, with everything. */
export class FullMha extends Mha {
  #own: Owner | undefined;

  static {
    insideMha = (mha) => {
      mha.#call();
      return mha.#own as Owner;
    };
  }

  #call(): number {
    return (this.#own ??= { call: wasm.call_new(), frees: [] }).call;
  }

  /**
   * Makes a layer, with a copy of the weights.
   *
   * @throws MhaError naming what does not fit.
   *
   * @example
   * ```ts
   * using layer = mha.layer({ dims: 64, heads: 8, weights: { wq, wk, wv, wo } });
   * ```
   */
  override layer(options: LayerOptions): FullLayer {
    return new FullLayer(options);
  }

  /**
   * Attention over queries, keys and values that are projected already: NNlib's
   * `dot_product_attention`. `y` is `[batch, qLen, v]`.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  dotProductAttention(options: DotProductOptions & { readonly scores: true | Float32Array }): OutputWithScores;
  dotProductAttention(options: DotProductOptions & { readonly scores?: false | undefined }): Output;
  dotProductAttention(options: DotProductOptions): Output & Partial<OutputWithScores>;
  dotProductAttention(options: DotProductOptions): Output & Partial<OutputWithScores> {
    const { qk, v, heads, kvHeads, scale } = bare(options);
    const written = run(
      this.#call(),
      read(options, qk, shared(qk, heads, kvHeads), heads),
      (call) => wasm.call_reserve(call, heads, kvHeads, qk, v, scale),
      (call) => wasm.call_attend(call, heads, kvHeads, qk, v, scale),
    );
    return output(written);
  }

  /**
   * Makes a cache for attention without projections.
   *
   * @throws MhaError for what does not fit.
   */
  cache(options: BareOptions & CacheOptions): Cache {
    return new Cache(bare(options), options);
  }

  /**
   * Attention over a cache, without projections: see {@link FullLayer.attend} for positions. `y` is
   * `[batch, qLen, v]`.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  dotProductAttentionCached(over: Cache, options: CachedOptions): Output & Partial<OutputWithScores> {
    const { qk, v, heads, kvHeads, scale } = bare(options);
    const { store } = checked(over);
    const given = { ...options, k: undefined, v: undefined, batch: over.batch, kvLen: 0 };
    const written = run(
      this.#call(),
      read(given, qk, qk, heads),
      (call) => wasm.call_reserve_cached(call, store, heads, kvHeads, qk, v, scale),
      (call) => wasm.call_attend_cached(call, store, heads, kvHeads, qk, v, scale),
    );
    return output(written);
  }

  /**
   * Merges attention over some keys with that over others into attention over all of them: two memories, two
   * workers, a prefix that many share. `y` and `lse` receive the result.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  merge(options: MergeOptions): void {
    const { heads: h, v: width, y: a, lse: b, otherY: c, otherLse: d } = object("options", options);
    const [heads, v] = [count("heads", h), count("dims", width)];
    const y = array("y", "Float32Array", a);
    const lse = array("lse", "Float32Array", b);
    const otherY = array("y", "Float32Array", c);
    const otherLse = array("lse", "Float32Array", d);
    const call = this.#call();
    new Uint32Array(memory.buffer, wasm.call_words(call), 26).fill(0).set([
      1, 0, 0, described(y), described(lse), described(otherY), described(otherLse), 1, 1, 1, 1,
    ]);
    settle(wasm.call_reserve_append(call), wasm.call_problem, call);
    const { buffer } = memory;
    const at = places(call);
    const mine = new Float32Array(buffer, at.q, y.length);
    const sums = new Float32Array(buffer, at.k, lse.length);
    mine.set(y);
    sums.set(lse);
    new Float32Array(buffer, at.v, otherY.length).set(otherY);
    new Float32Array(buffer, at.bias, otherLse.length).set(otherLse);
    settle(wasm.call_merge(call, heads, v), wasm.call_problem, call);
    y.set(mine);
    lse.set(sums);
  }

  /**
   * The scores of attention alone, `[batch, heads, qLen, kvLen]`: NNlib's
   * `dot_product_attention_scores`.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  dotProductAttentionScores(options: DotProductScoresOptions): Float32Array {
    const { qk, heads, kvHeads, scale } = bare(options);
    const plain = { ...options, v: undefined, y: undefined, scoresAt: undefined } as DotProductOptions;
    const given = read(plain, qk, shared(qk, heads, kvHeads), heads);
    const { scores } = run(
      this.#call(),
      { ...given, scores: given.scores || true },
      (call) => wasm.call_reserve_scores(call, heads, kvHeads, qk, scale),
      (call) => wasm.call_attend_scores(call, heads, kvHeads, qk, scale),
    );
    return scores as Float32Array;
  }
}

/**
 * Reads what attention without projections is made of.
 *
 * @internal
 */
export function bare(options: BareOptions) {
  const { dims, heads: given, kvHeads, scale } = object("options", options);
  const heads = given === undefined ? 1 : count("heads", given);
  return {
    ...attentionDims(dims),
    heads,
    kvHeads: kvHeads === undefined ? heads : count("kv_heads", kvHeads),
    scale: scale === undefined ? undefined : number("scale", scale),
  };
}

/** Features of keys where heads share them. */
function shared(qk: number, heads: number, kvHeads: number): number {
  return heads === 0 ? qk : (qk / heads) * kvHeads;
}
