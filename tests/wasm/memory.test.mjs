// Who takes memory and who gives it back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { MhaError, load } from "./support/mha.mjs";

const mha = await load();

const make = (n, heads = 2) => mha.layer({ dims: n, heads, weights: new Float32Array(4 * n * n).fill(0.01) });
const tokens = (count, n) => new Float32Array(count * n).fill(0.5);

test("a small layer needs little", () => {
  assert.ok(mha.memoryBytes <= 2 * 65536, `${mha.memoryBytes} bytes before anything was made`);
});

test("ten thousand layers leave the memory where it was", () => {
  const work = (n) => {
    const layer = make(n);
    layer.forward({ q: tokens(1 + (n % 7), n), scores: n % 3 === 0 });
    layer.dispose();
  };
  for (let n = 2; n <= 64; n += 2) {
    work(n);
  }
  const before = mha.memoryBytes;
  for (let i = 0; i < 10_000; i++) {
    work(2 + ((i * 14) % 64));
  }
  assert.equal(mha.memoryBytes, before);
});

test("layers that live together and go in any order leave no holes", () => {
  const round = (order) => {
    const layers = Array.from({ length: 50 }, (_, i) => make(8 + 8 * (i % 5)));
    layers.forEach((layer) => layer.forward({ q: tokens(9, layer.dims.out) }));
    order(layers).forEach((layer) => layer.dispose());
  };
  round((layers) => layers);
  const before = mha.memoryBytes;
  for (let i = 0; i < 50; i++) {
    round((layers) => layers.reverse());
    round((layers) => [...layers.filter((_, i) => i % 2), ...layers.filter((_, i) => i % 2 === 0)]);
  }
  assert.equal(mha.memoryBytes, before);
});

test("a million calls take no memory once the largest has been", () => {
  const layer = make(16);
  const call = { q: tokens(40, 16), scores: true, mask: { data: new Uint8Array(40).fill(1), shape: [1, 1, 1, 40] } };
  layer.forward(call);
  const before = mha.memoryBytes;
  const output = { y: new Float32Array(40 * 16) };
  for (let i = 0; i < 1_000_000; i++) {
    layer.forward({ q: call.q.subarray(0, 16 * (1 + (i % 4))), y: output.y.subarray(0, 16 * (1 + (i % 4))) });
  }
  layer.forward(call);
  assert.equal(mha.memoryBytes, before);
  layer.dispose();
});

test("what is refused takes no memory for ever", () => {
  const layer = make(8);
  const wrong = () => {
    assert.throws(() => layer.forward({ q: tokens(3, 8), y: new Float32Array(7) }), MhaError);
    assert.throws(() => mha.layer({ dims: 8, heads: 2, weights: new Float32Array(100_000) }), MhaError);
    assert.throws(() => mha.layer({ dims: 8, heads: 3, weights: new Float32Array(256) }), MhaError);
  };
  wrong();
  const before = mha.memoryBytes;
  for (let i = 0; i < 2_000; i++) {
    wrong();
  }
  assert.equal(mha.memoryBytes, before);
  layer.dispose();
});

test("attention without projections uses its room again", () => {
  const call = { q: tokens(30, 8), dims: 8, heads: 2 };
  mha.dotProductAttention(call);
  const before = mha.memoryBytes;
  for (let i = 0; i < 10_000; i++) {
    mha.dotProductAttention(call);
  }
  assert.equal(mha.memoryBytes, before);
});

test("a larger call moves the room, not the results", () => {
  const layer = make(8);
  const small = layer.forward({ q: tokens(2, 8), scores: true });
  const copy = structuredClone(small);
  const before = mha.memoryBytes;
  layer.forward({ q: tokens(20_000, 8), mask: { data: Uint8Array.of(1), shape: [1, 1, 1, 1] }, batch: 100 });
  assert.ok(mha.memoryBytes > before);
  assert.deepEqual(small, copy);
  assert.deepEqual(layer.forward({ q: tokens(2, 8), scores: true }), copy);
  layer.dispose();
});

test("the garbage collector gives back what nobody disposed of", { skip: globalThis.gc === undefined }, async () => {
  const n = 256;
  const abandon = () => {
    for (let i = 0; i < 16; i++) {
      make(n);
    }
  };
  // Sixteen layers of a megabyte at a time: without the net a hundred megabytes more.
  abandon();
  const before = mha.memoryBytes;
  for (let i = 0; i < 6; i++) {
    for (let turn = 0; turn < 5; turn++) {
      globalThis.gc();
      await setTimeout(5);
    }
    abandon();
  }
  assert.ok(mha.memoryBytes < before + 64 * 2 ** 20, `${(mha.memoryBytes - before) / 2 ** 20} MiB more`);
});
