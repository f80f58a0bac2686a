// The library over a module that the application brings: `mha/core`.

import type { Mha } from "./library.js";
import { once, type Source } from "./load.js";
import { detect, type Simd } from "./simd.js";

export type { AttentionDims, Dims, LayerDims } from "./dims.js";
export { type Argument, ErrorCode, MhaError } from "./error.js";
export type * from "./library.js";
export type { Source } from "./load.js";
export type {
  AttentionOptions,
  Bias,
  Dropout,
  Extents,
  Inputs,
  Mask,
  OutputOptions,
  ScoresAt,
  ShapeOptions,
} from "./options.js";
export { detect, type Simd } from "./simd.js";

/**
 * Loads the library from a module that the application brings: `mha.wasm`, `mha.relaxed.wasm` or
 * `mha.scalar.wasm` of this package, compiled or not; or from what a function gives for the best of them. There is one instance a realm (page, worker, process): later calls give that, whatever
 * they are given.
 *
 * @example
 * ```ts
 * import { load } from "mha/core";
 * const mha = await load(new URL("mha.wasm", document.baseURI));
 * ```
 */
export function load(source: Source | PromiseLike<Source> | ((simd: Simd) => Source | PromiseLike<Source>)): Promise<Mha> {
  return once(() => (typeof source === "function" ? source(detect()) : source));
}
