// The entry with the plain layer: the bits of the one with everything, its errors, and where it says that the
// rest is.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";

import { readCase } from "./support/case.mjs";
import { load, plain } from "./support/mha.mjs";

const [mha, full] = [await plain.load(), await load()];
const cases = new URL("../cases/", import.meta.url);
const files = readdirSync(cases, { recursive: true })
  .map((name) => name.replaceAll("\\", "/"))
  .filter((name) => name.endsWith(".safetensors") && !name.includes("invalid/"))
  .map((name) => [name, readCase(new URL(name, cases))])
  .filter(([, { projected }]) => projected);

test("there are enough cases", () => assert.ok(files.length >= 120, `${files.length} cases`));

for (const [name, { layer, call }] of files) {
  test(name, () => {
    const [ours, theirs] = [mha, full].map((library) => {
      const made = library.layer(layer);
      const output = made.forward(call);
      made.dispose();
      return output;
    });
    assert.deepEqual(Object.keys(ours), Object.keys(theirs));
    for (const key of Object.keys(ours)) {
      assert.deepEqual(new Uint32Array(ours[key].buffer), new Uint32Array(theirs[key].buffer), key);
    }
  });
}

const floats = (length) => Float32Array.from({ length }, (_, i) => Math.sin(i));
const LAYER = { dims: 8, heads: 2, weights: floats(256) };

test("a prepared call has the same bits, again and again", () => {
  const [layer, other] = [mha.layer(LAYER), full.layer(LAYER)];
  const call = layer.prepare({ qLen: 5, causal: true, scores: true, dropout: { p: 0.25, seed: 7n } });
  for (let i = 0; i < 3; i++) {
    const q = floats(40).map((x) => x + i);
    call.q.set(q);
    call.forward();
    const { y, scores } = other.forward({ q, causal: true, scores: true, dropout: { p: 0.25, seed: 7n } });
    assert.deepEqual([call.y, call.scores].map((x) => x.slice()), [y, scores]);
  }
  call.dispose();
  layer.dispose();
  assert.throws(() => layer.forward({ q: floats(8) }), { code: plain.ErrorCode.Disposed });
});

test("what is only in mha/full is refused, and says where it is", () => {
  const layer = mha.layer(LAYER);
  const options = {
    offset: 1,
    window: { left: 1 },
    lens: Uint32Array.of(1),
    softcap: 1,
    alibi: true,
    rope: { base: 10000 },
    sinks: floats(2),
    norm: { kind: "rms", epsilon: 0 },
    segments: { q: Uint32Array.of(0), kv: Uint32Array.of(0) },
    extra: { k: floats(8), v: floats(8) },
    scoresOf: "mean",
    scoreQueries: [0, 1],
    lse: true,
  };
  const refused = (work, name) =>
    assert.throws(work, (error) => {
      assert.ok(error instanceof plain.MhaError);
      assert.deepEqual([error.code, error.argument], [plain.ErrorCode.Absent, "options"]);
      assert.equal(error.message, `options: ${name} is not in "mha"; import { load } from "mha/full" instead`);
      return true;
    });
  for (const [name, value] of Object.entries(options)) {
    refused(() => layer.forward({ q: floats(8), [name]: value }), name);
    refused(() => layer.prepare({ qLen: 1, [name]: value }), name);
    full.layer(LAYER).forward({ q: floats(8), [name]: value });
  }
  assert.equal(layer.forward({ q: floats(8), alibi: false, lens: undefined }).y.length, 8);
  for (const name of ["forwardPacked", "cache", "append", "attend"]) {
    refused(() => layer[name]({}), name);
    assert.equal(typeof full.layer(LAYER)[name], "function");
  }
  for (const name of ["dotProductAttention", "dotProductAttentionScores", "dotProductAttentionCached", "cache", "merge"]) {
    refused(() => mha[name]({}), name);
  }
});

test("every sentence is that of the core", () => {
  const layer = mha.layer(LAYER);
  const [two, four] = [[2, 1, 1, 1], [1, 1, 1, 2]];
  const said = (work, code, message) => assert.throws(work, { code: plain.ErrorCode[code], message });
  const forward = (options) => () => layer.forward({ q: floats(8), ...options });
  said(() => mha.layer({ ...LAYER, dims: { in: 0, qkv: 8, out: 8 } }), "Zero", "dims: a size is zero");
  said(() => mha.layer({ ...LAYER, heads: 3 }), "Heads", "heads: 3 heads do not divide a width of 8");
  said(() => mha.layer({ ...LAYER, dims: 1 << 20 }), "TooLarge", "dims: the size overflows");
  said(() => mha.layer({ ...LAYER, weights: floats(3) }), "Length", "weights: 256 elements needed, 3 given");
  said(forward({ qLen: 2 }), "Length", "q: 16 elements needed, 8 given");
  const mask = { data: new Uint8Array(2), shape: two };
  said(forward({ mask }), "Broadcast", "mask: extent 2 of axis 0 is neither 1 nor 1");
  said(forward({ bias: { data: floats(2), shape: four } }), "Broadcast", "bias: extent 2 of axis 3 is neither 1 nor 1");
  said(forward({ dropout: { p: 1, seed: 0 } }), "Value", "dropout: the value is outside its domain");
});

test("a million calls take no memory once the largest has been", () => {
  const layer = mha.layer(LAYER);
  const [q, y] = [floats(32), new Float32Array(32)];
  layer.forward({ q, y });
  const before = mha.memoryBytes;
  for (let i = 0; i < 1_000_000; i++) {
    layer.forward({ q, y });
  }
  assert.equal(mha.memoryBytes, before);
});
