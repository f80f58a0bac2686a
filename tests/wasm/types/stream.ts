// A sensor that never stops: a ring cache holds the last 48 frames, and every frame attends to them.
import { load } from "mha/full";

const mha = await load();

// Trained weights would stand here.
const w = Float32Array.from({ length: 8 * 8 }, (_, i) => Math.sin(i) / 4);
using layer = mha.layer({ dims: 8, heads: 2, weights: { wq: w, wk: w, wv: w, wo: w } });
using cache = layer.cache({ capacity: 48, ring: true });

/** One frame in, one answer out; called for ever, in constant memory. */
function onFrame(frame: Float32Array): Float32Array {
  layer.append(cache, { k: frame });
  return layer.attend(cache, { q: frame }).y;
}

for (let t = 0; t < 1000; t++) {
  onFrame(Float32Array.from({ length: 8 }, (_, i) => Number(i === t % 8)));
}
console.log(`${cache.length} frames, the last ${cache.stored} kept`);
