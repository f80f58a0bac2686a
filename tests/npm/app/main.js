// What an application does: the least that needs the library, its errors, the view and a worker's result.

import { load, MhaError } from "mha";
import { defineAttentionView } from "mha/view";

async function main() {
  const mha = await load();
  const tokens = Float32Array.from({ length: 4 * 8 }, (_, i) => Math.sin(i));
  const identity = Float32Array.from({ length: 8 * 8 }, (_, i) => (i % 9 === 0 ? 1 : 0));
  const layer = mha.layer({ dims: 8, heads: 2, weights: { wq: identity, wk: identity, wv: identity, wo: identity } });
  const { y, scores } = layer.forward({ q: tokens, mask: "causal", scores: true });

  let refused;
  try {
    layer.forward({ q: tokens.subarray(1) });
  } catch (error) {
    refused = error instanceof MhaError && error.argument;
  }
  defineAttentionView();
  const view = document.createElement("attention-view");
  document.body.append(view);
  view.attention = { scores, heads: 2, queries: 4, causal: true };
  const svg = view.toSVG();
  layer.dispose();
  return { y: [...y], scores: [...scores.subarray(0, 4)], refused, svg: svg.startsWith("<svg"), isa: mha.isa };
}

main().then(
  (answer) => (globalThis.answer = answer),
  (error) => (globalThis.answer = { error: String(error) }),
);
