// Sequences of different lengths in one call: padded to the longest, or packed without padding.
import { load } from "mha/full";

const mha = await load();

const [width, long, short] = [8, 6, 4];
const numbers = (length: number) => Float32Array.from({ length }, (_, i) => ((i * 7) % 13) / 13 - 0.5);
const w = numbers(width * width);
using layer = mha.layer({ dims: width, heads: 2, weights: { wq: w, wk: w, wv: w, wo: w } });
const packed = numbers((long + short) * width);

// The second sequence's last positions are padding: whatever lies there, nobody sees it.
const padded = new Float32Array(2 * long * width).fill(NaN);
padded.set(packed);
const queries = padded.map((value) => (Number.isNaN(value) ? 0 : value));
const a = layer.forward({ q: queries, k: padded, batch: 2, lens: Uint32Array.of(long, short) });
const b = layer.forwardPacked({ q: packed, qStarts: Uint32Array.of(0, long, long + short) });
const c = layer.forward({ q: packed.subarray(long * width) });

const same = c.y.every((value, i) => Object.is(value, a.y[long * width + i]) && Object.is(value, b.y[long * width + i]));
console.log(`padded, packed and alone agree: ${same ? "yes" : "no"}`);
