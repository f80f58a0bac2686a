// The library, loaded: what `load` gives.

import { Cache, type CacheOptions, cache as checked } from "./cache.js";
import { array, count, number, object } from "./checks.js";
import { type AttentionDims, attentionDims } from "./dims.js";
import init, * as wasm from "./glue/mha_wasm.js";
import { Layer, type LayerOptions, type Output, output, type OutputWithScores } from "./layer.js";
import { type AttentionOptions, type Inputs, type OutputOptions, read } from "./options.js";
import { type Owner, run, settle } from "./run.js";

/** Where the module comes from: compiled, its bytes, a response, or an address to fetch. */
export type Source = WebAssembly.Module | BufferSource | Response | URL | string;

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

/**
 * What the library works with, for the entry that adds to it.
 *
 * @internal
 */
export let insideMha: (mha: Mha) => { memory: WebAssembly.Memory; own: Owner };

/** The library, loaded. */
export class Mha {
  /** The version of the library. */
  readonly version: string;
  /** The name of the instructions that calls run on. */
  readonly isa: string;
  readonly #memory: WebAssembly.Memory;
  readonly #own: { call?: wasm.Call; back?: { free(): void } } = {};

  static {
    insideMha = (mha) => {
      mha.#own.call ??= new wasm.Call();
      return { memory: mha.#memory, own: mha.#own as Owner };
    };
  }

  /** @internal */
  constructor(memory: WebAssembly.Memory) {
    this.#memory = memory;
    this.version = wasm.version();
    this.isa = wasm.isa();
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
  layer(options: LayerOptions): Layer {
    return new Layer(this.#memory, options);
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
      this.#memory,
      (this.#own.call ??= new wasm.Call()),
      read(options, qk, shared(qk, heads, kvHeads), heads),
      (call) => call.reserve(heads, kvHeads, qk, v, scale),
      (call) => call.attend(heads, kvHeads, qk, v, scale),
    );
    return output(written);
  }

  /**
   * Makes a cache for attention without projections.
   *
   * @throws MhaError for what does not fit.
   */
  cache(options: BareOptions & CacheOptions): Cache {
    return new Cache(this.#memory, bare(options), options);
  }

  /**
   * Attention over a cache, without projections: see {@link Layer.attend} for positions. `y` is
   * `[batch, qLen, v]`.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  dotProductAttentionCached(over: Cache, options: CachedOptions): Output & Partial<OutputWithScores> {
    const { qk, v, heads, kvHeads, scale } = bare(options);
    const { store } = checked(over);
    const given = { ...options, k: undefined, v: undefined, batch: over.batch, kvLen: 0 };
    const written = run(
      this.#memory,
      (this.#own.call ??= new wasm.Call()),
      read(given, qk, qk, heads),
      (call) => call.reserve_cached(heads, kvHeads, qk, v, scale, store),
      (call) => call.attend_cached(heads, kvHeads, qk, v, scale, store),
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
    const call = (this.#own.call ??= new wasm.Call());
    call.begin(1, 0, 0, y.length, lse.length, otherY.length);
    call.bias(otherLse.length, 1, 1, 1, 1);
    settle(call.reserve_append(), call);
    const { buffer } = this.#memory;
    const mine = new Float32Array(buffer, call.q(), y.length);
    const sums = new Float32Array(buffer, call.k(), lse.length);
    mine.set(y);
    sums.set(lse);
    new Float32Array(buffer, call.v(), otherY.length).set(otherY);
    new Float32Array(buffer, call.bias_data(), otherLse.length).set(otherLse);
    settle(call.merge(heads, v), call);
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
      this.#memory,
      (this.#own.call ??= new wasm.Call()),
      { ...given, scores: given.scores || true },
      (call) => call.reserve_scores(heads, kvHeads, qk, scale),
      (call) => call.attend_scores(heads, kvHeads, qk, scale),
    );
    return scores as Float32Array;
  }

  /** The bytes of the module's memory. Making a layer, or the largest call so far, can raise it. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
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

let loaded: Promise<Mha> | undefined;

/**
 * Loads the module, once: later calls give what the first did. One that fails may be tried again.
 *
 * @internal
 */
export function once(source: () => Source | PromiseLike<Source>): Promise<Mha> {
  loaded ??= start(source).catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function start(source: () => Source | PromiseLike<Source>): Promise<Mha> {
  const { memory } = await init({ module_or_path: await source() });
  return new Mha(memory);
}
