/// <reference lib="esnext.disposable" preserve="true" />
// The layer, as JavaScript sees it.

import { array, count, maybeFloats, number, object, word } from "./checks.js";
import { type Dims, type LayerDims, layerDims } from "./dims.js";
import { type Argument, ErrorCode, MhaError } from "./error.js";
import * as wasm from "./glue/mha_wasm.js";
import { type AttentionOptions, type Inputs, type OutputOptions, read } from "./options.js";
import { Prepared, type PrepareOptions } from "./prepared.js";
import { count as described, free, memory, net, type Owner, run, settle, type Written } from "./run.js";

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

/** What a call gives. */
export interface Output {
  /** The output, `[batch, qLen, out]`. */
  y: Float32Array;
  /** The log-sum-exp of each row, `[batch, heads, qLen]`, where it was asked for. (`mha/full`) */
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
 * What a layer works with, for the entries that add to it.
 *
 * @internal
 */
export let inside: (layer: Layer) => OwnLayer;

/**
 * The handles of a layer.
 *
 * @internal
 */
export interface OwnLayer extends Owner {
  readonly layer: number;
}

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
  #inner: OwnLayer | undefined;
  /** Gives the memory back, at the end of a `using` block. */
  declare [Symbol.dispose]: () => void;

  /** @internal */
  constructor(options: LayerOptions) {
    const given = object("options", options);
    this.dims = layerDims(given.dims);
    this.heads = given.heads === undefined ? 8 : count("heads", given.heads);
    this.kvHeads = given.kvHeads === undefined ? this.heads : count("kv_heads", given.kvHeads);
    const { qIn, kIn, vIn, qk, v, out } = this.dims;
    const scale = given.scale === undefined ? undefined : number("scale", given.scale);
    const order = given.weightOrder === undefined ? 0 : word("weights", ORDERS, given.weightOrder);
    const flat = isArray(given.weights) ? array("weights", "Float32Array", given.weights) : undefined;
    const parts = flat === undefined ? readWeights(object("weights", given.weights) as Weights) : [flat];

    const layer = wasm.layer_new(qIn, kIn, vIn, qk, v, out, this.heads, this.kvHeads, scale, order === 1);
    const own: OwnLayer = { layer, call: wasm.call_new(), frees: [] };
    own.frees.push(() => wasm.layer_free(layer), () => wasm.call_free(own.call));
    try {
      const [wq, wk, wv, wo, bq, bk, bv, bo] = parts.map(described);
      settle(wasm.layer_weights(layer, wq ?? 0, wk ?? 0, wv ?? 0, wo ?? 0, bq ?? 0, bk ?? 0, bv ?? 0, bo ?? 0), wasm.layer_problem, layer);
    } catch (error) {
      free(own);
      throw error;
    }
    let at = wasm.layer_data(layer);
    for (const part of parts) {
      if (part !== undefined) {
        new Float32Array(memory.buffer, at, part.length).set(part);
        at += part.byteLength;
      }
    }
    this.#inner = own;
    net.register(this, own, this);
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
      call,
      read(options, this.dims.qIn, this.dims.kIn, this.heads),
      (call) => wasm.layer_reserve(layer, call),
      (call) => wasm.layer_forward(layer, call),
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
    return new Prepared(this.dims, this.heads, () => this.#open().layer, options);
  }

  static {
    inside = (layer) => layer.#open();
  }

  #open(): OwnLayer {
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
    if (this.#inner !== undefined) {
      net.unregister(this);
      free(this.#inner);
      this.#inner = undefined;
    }
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
