// The library over a module that the application brings: `mha/core`.

import { type Mha, once, type Source } from "./mha.js";
import { detect, type Simd } from "./simd.js";

export type { AppendOptions, Cache, CacheOptions, SavedCache } from "./cache.js";
export type { AttentionDims, Dims, LayerDims } from "./dims.js";
export { type Argument, ErrorCode, MhaError } from "./error.js";
export type { FamilyOptions, KeyOptions, Norm, Rope, SelectOptions, Window } from "./family.js";
export type { AttendOptions, ForwardOptions, Layer, LayerOptions, Output, OutputWithScores, PackedOptions, WeightOrder, Weights } from "./layer.js";
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
export type { Prepared, PrepareOptions } from "./prepared.js";
export { detect, type Simd } from "./simd.js";
export type { BareOptions, CachedOptions, DotProductOptions, MergeOptions, DotProductScoresOptions, Mha, Source } from "./mha.js";

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
