// What the library is made of: the plain layer. `mha/full` has another file in the place of this one.

import { absent } from "./family.js";
import { Layer } from "./layer.js";
import { Mha } from "./mha.js";

export type { ForwardOptions, LayerOptions, Output, OutputWithScores, WeightOrder, Weights } from "./layer.js";
export type { Prepared, PrepareOptions } from "./prepared.js";
export { Layer, Mha };

// Who calls what is not here learns where it is.
for (const [prototype, names] of [
  [Layer.prototype, ["forwardPacked", "cache", "append", "attend"]],
  [Mha.prototype, ["dotProductAttention", "dotProductAttentionScores", "dotProductAttentionCached", "cache", "merge"]],
] as const) {
  for (const name of names) {
    Object.defineProperty(prototype, name, {
      value: () => {
        throw absent(name);
      },
    });
  }
}
