// A decoder's layer, token by token: grouped heads, rotary positions, a linear cache.
import { load } from "mha/full";

const mha = await load();

const [width, tokens] = [16, 12];
const numbers = (length: number) => Float32Array.from({ length }, (_, i) => ((i * 7) % 13) / 13 - 0.5);
const [square, half] = [numbers(width * width), numbers((width * width) / 2)];
using layer = mha.layer({
  dims: width,
  heads: 4,
  kvHeads: 2,
  weights: { wq: square, wk: half, wv: half, wo: square },
});
using cache = layer.cache({ capacity: tokens });
const rope = { base: 10000 };
const x = numbers(tokens * width);

// Each token sees those before it and itself: with a cache the causal rule knows where it is.
const stepped: number[] = [];
for (let t = 0; t < tokens; t++) {
  const token = x.subarray(t * width, (t + 1) * width);
  layer.append(cache, { k: token, rope });
  stepped.push(...layer.attend(cache, { q: token, causal: true, rope }).y);
}

// Not nearly: bit for bit.
const { y } = layer.forward({ q: x, causal: true, rope });
const same = y.every((value, i) => Object.is(value, stepped[i]));
console.log(`token by token is the whole at once: ${same ? "yes" : "no"}`);
