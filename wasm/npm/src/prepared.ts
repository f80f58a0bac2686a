/// <reference lib="esnext.disposable" preserve="true" />
// A call whose arrays lie in the module's memory: nothing is copied, nothing is allocated.

import { count, flag, object } from "./checks.js";
import { ErrorCode, MhaError } from "./error.js";
import * as wasm from "./glue/mha_wasm.js";
import type { LayerDims } from "./dims.js";
import { type AttentionOptions, type Inputs, type OutputOptions, read } from "./options.js";
import { enter, free, memory, net, type Owner, places, settle } from "./run.js";

/** What a prepared call is for: its sizes, and everything that stays the same from one run to the next. */
export interface PrepareOptions extends Omit<AttentionOptions, "qLen">, Pick<OutputOptions, "scoresAt"> {
  /** Queries of each sequence. */
  readonly qLen: number;
  /** Keys and values of each sequence. Default: `qLen`. */
  readonly kvLen?: number | undefined;
  /** Keys of their own, in {@link Prepared.k}. Default false: the queries are the keys. */
  readonly k?: boolean | undefined;
  /** Values of their own, in {@link Prepared.v}. Default false: the keys are the values. */
  readonly v?: boolean | undefined;
  /** Scores as well, in {@link Prepared.scores}. Default false. */
  readonly scores?: boolean | undefined;
}

/**
 * A call that is run again and again in place: fill {@link Prepared.q}, run {@link Prepared.forward}, read
 * {@link Prepared.y}. Making one takes memory, running it does not.
 *
 * The arrays are views of the module's memory. Making a layer or a larger call can move that memory, which leaves
 * old views empty, so ask for them again instead of keeping them.
 *
 * @example
 * ```ts
 * using call = layer.prepare({ qLen: 16, causal: true });
 * call.q.set(tokens);
 * call.forward();
 * console.log(call.y[0]);
 * ```
 */
export class Prepared {
  readonly #layer: () => number;
  readonly #lengths: readonly [q: number, k: number, v: number];
  #own: Owner | undefined;
  /** The memory that the views below are of. */
  #buffer: ArrayBufferLike | undefined;
  #views: Views | undefined;
  /** Gives the memory back, at the end of a `using` block. */
  declare [Symbol.dispose]: () => void;

  /** @internal */
  constructor(dims: LayerDims, heads: number, layer: () => number, options: PrepareOptions) {
    const { qLen, kvLen, batch, k, v, scores, ...rest } = object("options", options);
    const sequences = batch === undefined ? 1 : count("shape", batch);
    const queries = count("shape", qLen);
    const keys = kvLen === undefined ? queries : count("shape", kvLen);
    const [hasK, hasV] = [flag("k", k), flag("v", v)];
    this.#layer = layer;
    this.#lengths = [sequences * queries * dims.qIn, hasK ? sequences * keys * dims.kIn : 0, hasV ? sequences * keys * dims.vIn : 0];
    const [q, ofK, ofV] = this.#lengths.map((length) => new Float32Array(length)) as [Float32Array, Float32Array, Float32Array];
    const inputs = { q, k: hasK ? ofK : undefined, v: hasV ? ofV : undefined } as Inputs;
    const given = { ...rest, ...inputs, batch: sequences, qLen: queries, kvLen: keys, scores: flag("scores", scores) };
    const seen = read(given, dims.qIn, dims.kIn, heads);
    const call = wasm.call_new();
    const own: Owner = { call, frees: [() => wasm.call_free(call)] };
    try {
      enter(call, seen, (call) => wasm.layer_reserve(layer(), call));
    } catch (error) {
      free(own);
      throw error;
    }
    this.#own = own;
    net.register(this, own, this);
  }

  /** The queries, `[batch, qLen, qIn]`: zeros at first. */
  get q(): Float32Array {
    return this.#open().q;
  }

  /** The keys, `[batch, kvLen, kIn]`; empty where the queries are the keys. */
  get k(): Float32Array {
    return this.#open().k;
  }

  /** The values, `[batch, kvLen, vIn]`; empty where the keys are the values. */
  get v(): Float32Array {
    return this.#open().v;
  }

  /** The output of the last run, `[batch, qLen, out]`. */
  get y(): Float32Array {
    return this.#open().y;
  }

  /** The scores of the last run, `[batch, heads, qLen, kvLen]`; empty where none are wanted. */
  get scores(): Float32Array {
    return this.#open().scores;
  }

  /**
   * Computes.
   *
   * @throws MhaError for what does not fit, and once the layer or this call has been disposed of.
   */
  forward(): void {
    if (this.#own === undefined) {
      throw disposed();
    }
    const { call } = this.#own;
    settle(wasm.layer_forward(this.#layer(), call), wasm.call_problem, call);
  }

  /** Whether the call has been disposed of. */
  get disposed(): boolean {
    return this.#own === undefined;
  }

  /** Gives the memory back. Disposing of it twice does nothing. */
  dispose(): void {
    if (this.#own !== undefined) {
      net.unregister(this);
      free(this.#own);
    }
    this.#own = this.#views = this.#buffer = undefined;
  }

  #open(): Views {
    if (this.#own === undefined) {
      throw disposed();
    }
    const { buffer } = memory;
    if (this.#views === undefined || this.#buffer !== buffer) {
      const [q, k, v] = this.#lengths;
      const at = places(this.#own.call);
      const view = (at: number, length: number): Float32Array => new Float32Array(buffer, at, length);
      this.#buffer = buffer;
      this.#views = {
        q: view(at.q, q),
        k: view(at.k, k),
        v: view(at.v, v),
        y: view(at.y, at.yLength),
        scores: view(at.scores, at.scoresLength),
      };
    }
    return this.#views;
  }
}

if (Symbol.dispose !== undefined) {
  Object.defineProperty(Prepared.prototype, Symbol.dispose, { value: Prepared.prototype.dispose });
}

interface Views {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly y: Float32Array;
  readonly scores: Float32Array;
}

function disposed(): MhaError {
  return new MhaError(ErrorCode.Disposed, "layer", "layer: the call has been disposed of");
}
