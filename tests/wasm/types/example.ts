import { load, MhaError } from "mha";

const mha = await load();

// Four tokens of eight features. The identity as every weight: attention and nothing else.
const tokens = Float32Array.from({ length: 4 * 8 }, (_, i) => Math.sin(i));
const identity = Float32Array.from({ length: 8 * 8 }, (_, i) => (i % 9 === 0 ? 1 : 0));
const weights = { wq: identity, wk: identity, wv: identity, wo: identity };

using layer = mha.layer({ dims: 8, heads: 2, weights });
const { y, scores } = layer.forward({ q: tokens, mask: "causal", scores: true });

console.log(y.length); // 32: [batch = 1, qLen = 4, out = 8]
console.log(scores.subarray(0, 4)); // the first head's first token sees itself alone: 1, 0, 0, 0

try {
  layer.forward({ q: tokens.subarray(1) });
} catch (error) {
  if (error instanceof MhaError) {
    console.log(error.message); // q: a multiple of 8 elements needed, 31 given
  }
}
