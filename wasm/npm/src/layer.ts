/// <reference lib="esnext.disposable" preserve="true" />
// The layer, as JavaScript sees it.

import { append, type AppendOptions, Cache, type CacheOptions, cache as checked } from "./cache.js";
import { array, count, maybeFloats, number, object, word } from "./checks.js";
import { type Dims, type LayerDims, layerDims } from "./dims.js";
import { type Argument, ErrorCode, MhaError } from "./error.js";
import * as wasm from "./glue/mha_wasm.js";
import { type AttentionOptions, type Inputs, type OutputOptions, read } from "./options.js";
import { Prepared, type PrepareOptions } from "./prepared.js";
import { type Owner, run, settle, type Written } from "./run.js";

/** The weights of a layer. Each projection may have a bias of its own; Flux's `bias = true` is all four. */
export interface Weights {
  /** Query projection, `[qIn, qk]` or `[qk, qIn]`. */
  readonly wq: Float32Array;
  /** Key projection, `[kIn, qk]` or `[qk, kIn]`. */
  readonly wk: Float32Array;
  /** Value projection, `[vIn, v]` or `[v, vIn]`. */
  readonly wv: Float32Array;
  /** Output projection, `[v, out]` or `[out, v]`. */
  readonly wo: Float32Array;
  /** Bias of the query projection, `[qk]`. */
  readonly bq?: Float32Array | undefined;
  /** Bias of the key projection, `[qk]`. */
  readonly bk?: Float32Array | undefined;
  /** Bias of the value projection, `[v]`. */
  readonly bv?: Float32Array | undefined;
  /** Bias of the output projection, `[out]`. */
  readonly bo?: Float32Array | undefined;
}

/**
 * The order in which the axes of a weight lie in memory: `"in_out"` is Flux's `Dense` as stored,
 * Keras, Flax and ONNX `MatMul`; `"out_in"` is PyTorch and Hugging Face.
 */
export type WeightOrder = "in_out" | "out_in";

/** What a layer is made of. */
export interface LayerOptions {
  /** The widths. */
  readonly dims: Dims;
  /** The number of heads; it divides `qk` and `v`. Default 8. */
  readonly heads?: number | undefined;
  /** Key/value heads, each shared by `heads / kvHeads` query heads (grouped and multi-query attention). Default: `heads`. */
  readonly kvHeads?: number | undefined;
  /** The weights, or all of them in one array: `wq wk wv wo`, then none or all of `bq bk bv bo`. They are copied. */
  readonly weights: Weights | Float32Array;
  /** The order of the weights' axes. Default `"in_out"`. */
  readonly weightOrder?: WeightOrder | undefined;
  /** The factor on `q·kᵀ`. Default `1/√(qk/heads)`. (NNlib's and Lux's keyword of this name is a denominator.) */
  readonly scale?: number | undefined;
}

/** What {@link Layer.forward} takes. */
export type ForwardOptions = Inputs & AttentionOptions & OutputOptions;

/** What {@link Layer.attend} takes. */
export type AttendOptions = { readonly q: Float32Array } & Omit<AttentionOptions, "batch" | "kvLen"> & OutputOptions;

/** What {@link Layer.forwardPacked} takes: what is given for each sequence of a batch has no place there. */
export type PackedOptions = Inputs &
  Omit<AttentionOptions, "batch" | "qLen" | "kvLen" | "mask" | "bias" | "lens" | "segments"> &
  Omit<OutputOptions, "lse"> & {
    /** Where each sequence's queries begin, and the end of the last: `cu_seqlens` elsewhere. */
    readonly qStarts: Uint32Array;
    /** Where each sequence's keys begin, and the end of the last. Default: `qStarts`. */
    readonly kvStarts?: Uint32Array | undefined;
  };

/** What a call gives. */
export interface Output {
  /** The output, `[batch, qLen, out]`. */
  y: Float32Array;
  /** The log-sum-exp of each row, `[batch, heads, qLen]`, where it was asked for. */
  lse?: Float32Array;
}

/** What a call gives when scores are asked for. */
export interface OutputWithScores extends Output {
  /** The scores of every head, `[batch, heads, qLen, kvLen]`. */
  scores: Float32Array;
}

const ORDERS: readonly WeightOrder[] = ["in_out", "out_in"];
const MATRICES = ["wq", "wk", "wv", "wo"] as const;
const BIASES = ["bq", "bk", "bv", "bo"] as const;

/**
 * What a layer works with, for the entry that adds to it.
 *
 * @internal
 */
export let inside: (layer: Layer) => { memory: WebAssembly.Memory; own: Owner & { readonly layer: wasm.Layer } };

/**
 * Multi-head attention with its four projections: Flux's `MultiHeadAttention`.
 *
 * It owns a copy of its weights in the module's memory, and there the arrays of its calls, which grow
 * with the largest call and are used again by the next. `using`, or {@link Layer.dispose}, gives the
 * memory back; if neither is done, the garbage collector does it one day.
 */
export class Layer {
  /** The widths. */
  readonly dims: LayerDims;
  /** The number of heads. */
  readonly heads: number;
  /** The number of key/value heads. */
  readonly kvHeads: number;
  readonly #memory: WebAssembly.Memory;
  #inner: (Owner & { readonly layer: wasm.Layer }) | undefined;
  /** Gives the memory back, at the end of a `using` block. */
  declare [Symbol.dispose]: () => void;

  /** @internal */
  constructor(memory: WebAssembly.Memory, options: LayerOptions) {
    const given = object("options", options);
    this.dims = layerDims(given.dims);
    this.heads = given.heads === undefined ? 8 : count("heads", given.heads);
    this.kvHeads = given.kvHeads === undefined ? this.heads : count("kv_heads", given.kvHeads);
    this.#memory = memory;
    const { qIn, kIn, vIn, qk, v, out } = this.dims;
    const scale = given.scale === undefined ? undefined : number("scale", given.scale);
    const order = given.weightOrder === undefined ? 0 : word("weights", ORDERS, given.weightOrder);
    const flat = isArray(given.weights) ? array("weights", "Float32Array", given.weights) : undefined;
    const parts = flat === undefined ? readWeights(object("weights", given.weights) as Weights) : [flat];

    const layer = new wasm.Layer(qIn, kIn, vIn, qk, v, out, this.heads, this.kvHeads, scale, order === 1);
    try {
      if (flat === undefined) {
        const [wq, wk, wv, wo, ...biases] = parts.map((part) => part?.length);
        settle(layer.weights(wq ?? 0, wk ?? 0, wv ?? 0, wo ?? 0, ...biases), layer);
      } else {
        settle(layer.flat_weights(flat.length), layer);
      }
    } catch (error) {
      layer.free();
      throw error;
    }
    let at = layer.data();
    for (const part of parts) {
      if (part !== undefined) {
        new Float32Array(memory.buffer, at, part.length).set(part);
        at += part.byteLength;
      }
    }
    this.#inner = { layer, call: new wasm.Call() };
  }

  /**
   * Computes the layer.
   *
   * `forward({ q })` is self-attention, `forward({ q, k })` takes the keys as values. Lengths follow
   * from the arrays and `batch`. A query that may not see any key gets scores of 0 and an attention
   * output of 0, so its `y` is the output bias. (Flux gives NaN there.)
   *
   * @throws {@link MhaError} for what does not fit; nothing has been written then.
   *
   * @example
   * ```ts
   * const { y, scores } = layer.forward({ q, k, v, batch: 2, mask: "causal", scores: true });
   * ```
   */
  forward(options: ForwardOptions & { readonly scores: true | Float32Array }): OutputWithScores;
  forward(options: ForwardOptions & { readonly scores?: false | undefined }): Output;
  forward(options: ForwardOptions): Output & Partial<OutputWithScores>;
  forward(options: ForwardOptions): Output & Partial<OutputWithScores> {
    const { layer, call } = this.#open();
    const written = run(
      this.#memory,
      call,
      read(options, this.dims.qIn, this.dims.kIn, this.heads),
      (call) => layer.reserve(call),
      (call) => layer.forward(call),
    );
    return output(written);
  }

  /**
   * Computes sequences of different lengths that lie one after another without padding. `y` is
   * `[queries, out]`; scores are for each sequence in order `[heads, its queries, its keys]`. The causal rule
   * and the options apply to each sequence by itself.
   *
   * @throws MhaError for what does not fit; nothing has been written then.
   */
  forwardPacked(options: PackedOptions): Output & Partial<OutputWithScores> {
    const { layer, call } = this.#open();
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
      this.#memory,
      call,
      { ...given, qLen: longest(qLens), kvLen: longest(kvLens), starts: [q, kv] },
      (call) => layer.reserve_packed(call, queries, scores),
      (call) => layer.forward_packed(call),
    );
    return output(written);
  }

  /**
   * Prepares a call that is run in place, without copies: sizes, masks and options now, inputs each time.
   *
   * @throws MhaError for what does not fit.
   *
   * @example
   * ```ts
   * using call = layer.prepare({ qLen: 16, scores: true });
   * call.q.set(tokens);
   * call.forward();
   * ```
   */
  prepare(options: PrepareOptions): Prepared {
    return new Prepared(this.#memory, this.dims, this.heads, () => this.#open().layer, options);
  }

  /**
   * Makes a cache for this layer.
   *
   * @throws MhaError for what does not fit.
   */
  cache(options: CacheOptions): Cache {
    const { heads, kvHeads } = this;
    return new Cache(this.#memory, { heads, kvHeads, qk: this.dims.qk, v: this.dims.v }, options);
  }

  /**
   * Projects keys `[batch, n, kIn]` and values `[batch, n, vIn]` and appends them to a cache. Appending n
   * positions at once or one by one leaves the same bits.
   *
   * @throws MhaError for what does not fit, or where the cache is full; nothing has changed then.
   */
  append(to: Cache, options: AppendOptions): void {
    const { layer, call } = this.#open();
    const { store } = checked(to);
    append(this.#memory, call, to, options, (call) => layer.append(call, store));
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
    const { layer, call } = this.#open();
    const { store } = checked(over);
    const given = { ...object("options", options), k: undefined, v: undefined, batch: over.batch, kvLen: 0 };
    const written = run(
      this.#memory,
      call,
      read(given, this.dims.qIn, this.dims.kIn, this.heads),
      (call) => layer.reserve_attend(call, store),
      (call) => layer.attend(call, store),
    );
    return output(written);
  }

  static {
    inside = (layer) => ({ memory: layer.#memory, own: layer.#open() });
  }

  #open(): Owner & { readonly layer: wasm.Layer } {
    if (this.#inner === undefined) {
      throw new MhaError(ErrorCode.Disposed, "layer", "layer: it has been disposed of");
    }
    return this.#inner;
  }

  /** Whether the layer has been disposed of. */
  get disposed(): boolean {
    return this.#inner === undefined;
  }

  /** Gives the memory back. The layer cannot be used any more; disposing of it twice does nothing. */
  dispose(): void {
    this.#inner?.layer.free();
    this.#inner?.call.free();
    this.#inner?.back?.free();
    this.#inner = undefined;
  }
}

if (Symbol.dispose !== undefined) {
  Object.defineProperty(Layer.prototype, Symbol.dispose, { value: Layer.prototype.dispose });
}

/**
 * What a call has written, without what nobody asked for.
 *
 * @internal
 */
export function output({ y, scores, lse }: Written): Output & Partial<OutputWithScores> {
  return { y, ...(scores === undefined ? {} : { scores }), ...(lse === undefined ? {} : { lse }) };
}

/** The eight arrays in the order in which they lie in memory. */
function readWeights(weights: Weights): (Float32Array | undefined)[] {
  return [
    ...MATRICES.map((name) => array(name, "Float32Array", weights[name])),
    ...BIASES.map((name: (typeof BIASES)[number] & Argument) => maybeFloats(name, weights[name])),
  ];
}

/** Whether all weights are in one array (of whatever class). */
function isArray(weights: unknown): boolean {
  return ArrayBuffer.isView(weights) || Array.isArray(weights);
}
