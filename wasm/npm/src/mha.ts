// The library, loaded: what `load` gives.

import * as wasm from "./glue/mha_wasm.js";
import { Layer, type LayerOptions } from "./layer.js";
import { memory, text } from "./run.js";

/** The library, loaded. */
export class Mha {
  /** The version of the library. */
  readonly version: string = "0.1.0";
  /** The name of the instructions that calls run on. */
  readonly isa: string = text(wasm.isa(), wasm.isa_len());

  /** @internal */
  constructor() {}

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
    return new Layer(options);
  }

  /** The bytes of the module's memory. Making a layer, or the largest call so far, can raise it. */
  get memoryBytes(): number {
    return memory.buffer.byteLength;
  }
}
