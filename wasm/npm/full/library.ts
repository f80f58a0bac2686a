// What the library is made of: everything.

export type { AppendOptions, Cache, CacheOptions, SavedCache } from "./cache.js";
export type { FamilyOptions, KeyOptions, Norm, Rope, SelectOptions, Window } from "./family.js";
export type {
  AttendOptions,
  BareOptions,
  CachedOptions,
  DotProductOptions,
  DotProductScoresOptions,
  MergeOptions,
  PackedOptions,
} from "./full.js";
export { FullLayer as Layer, FullMha as Mha } from "./full.js";
export type { ForwardOptions, LayerOptions, Output, OutputWithScores, WeightOrder, Weights } from "./layer.js";
export type { Prepared, PrepareOptions } from "./prepared.js";
