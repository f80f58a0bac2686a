// The library, loaded: what `load` gives.

import { count, number, object } from "./checks.js";
import { type AttentionDims, attentionDims } from "./dims.js";
import init, * as wasm from "./glue/mha_wasm.js";
import { Layer, type LayerOptions, type Output, type OutputWithScores } from "./layer.js";
import { type AttentionOptions, type Inputs, type OutputOptions, read } from "./options.js";
import { run } from "./run.js";

/** Where the module comes from: compiled, its bytes, a response, or an address to fetch. */
export type Source = WebAssembly.Module | BufferSource | Response | URL | string;

/** The widths, heads and scale of attention without projections. */
export interface BareOptions {
  /** Features of queries and keys, and of values, all heads together. */
  readonly dims: AttentionDims;
  /** The number of heads. Head `h` owns the features `h·d … (h+1)·d`. Default 1. */
  readonly heads?: number | undefined;
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

/** The library, loaded. */
export class Mha {
  /** The version of the library. */
  readonly version: string;
  /** The name of the instructions that calls run on. */
  readonly isa: string;
  readonly #memory: WebAssembly.Memory;
  #call: wasm.Call | undefined;

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
    const { qk, v, heads, scale } = bare(options);
    const { y, scores } = run(
      this.#memory,
      (this.#call ??= new wasm.Call()),
      read(options, qk, qk),
      (call) => call.reserve(heads, qk, v, scale),
      (call) => call.attend(heads, qk, v, scale),
    );
    return scores === undefined ? { y } : { y, scores };
  }

  /**
   * The scores of attention alone, `[batch, heads, qLen, kvLen]`: NNlib's
   * `dot_product_attention_scores`.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  dotProductAttentionScores(options: DotProductScoresOptions): Float32Array {
    const { qk, heads, scale } = bare(options);
    const given = read({ ...options, v: undefined, y: undefined, scoresAt: undefined } as DotProductOptions, qk, qk);
    const { scores } = run(
      this.#memory,
      (this.#call ??= new wasm.Call()),
      { ...given, scores: given.scores || true },
      (call) => call.reserve_scores(heads, qk, scale),
      (call) => call.attend_scores(heads, qk, scale),
    );
    return scores as Float32Array;
  }

  /** The bytes of the module's memory. Making a layer, or the largest call so far, can raise it. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }
}

/** Reads what attention without projections is made of. */
function bare(options: BareOptions): { qk: number; v: number; heads: number; scale: number | undefined } {
  const { dims, heads, scale } = object("options", options);
  return {
    ...attentionDims(dims),
    heads: heads === undefined ? 1 : count("heads", heads),
    scale: scale === undefined ? undefined : number("scale", scale),
  };
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
