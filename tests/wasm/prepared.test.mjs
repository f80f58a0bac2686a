// Calls that are run in place, in the module's memory.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ErrorCode, MhaError, load } from "./support/mha.mjs";

const mha = await load();
const floats = (length, start = 0) => Float32Array.from({ length }, (_, i) => Math.sin(start + i));
const DIMS = { qIn: 3, kIn: 4, vIn: 5, qk: 6, v: 8, out: 7 };
const WEIGHTS = 3 * 6 + 4 * 6 + 5 * 8 + 8 * 7;
const make = () => mha.layer({ dims: DIMS, heads: 2, weights: floats(WEIGHTS) });

test("run in place, it is the same call, to the bit", () => {
  const layer = make();
  const mask = { data: Uint8Array.of(1, 0, 1, 1, 1), shape: [1, 1, 1, 5] };
  const options = { batch: 2, qLen: 3, kvLen: 5, mask, causalOffset: 1, softcap: 3, scoresAt: "logits" };
  const call = layer.prepare({ ...options, k: true, v: true, scores: true });
  for (const start of [0, 100, 200]) {
    const inputs = { q: floats(18, start), k: floats(40, start + 1), v: floats(50, start + 2) };
    const usual = layer.forward({ ...options, ...inputs, scores: true });
    call.q.set(inputs.q);
    call.k.set(inputs.k);
    call.v.set(inputs.v);
    call.forward();
    assert.deepEqual([...call.y], [...usual.y]);
    assert.deepEqual([...call.scores], [...usual.scores]);
  }
  call.dispose();
  layer.dispose();
});

test("self-attention has no keys of its own", () => {
  const layer = mha.layer({ dims: 8, heads: 2, weights: floats(256) });
  const call = layer.prepare({ qLen: 4, causal: true });
  call.q.set(floats(32));
  call.forward();
  assert.deepEqual([...call.y], [...layer.forward({ q: floats(32), causal: true }).y]);
  assert.deepEqual([call.k.length, call.v.length, call.scores.length], [0, 0, 0]);
});

test("a million runs take no memory, and make no views", () => {
  const layer = mha.layer({ dims: 8, heads: 2, weights: floats(256) });
  const call = layer.prepare({ qLen: 2 });
  const [before, { q, y }] = [mha.memoryBytes, call];
  for (let i = 0; i < 1_000_000; i++) {
    call.forward();
  }
  assert.equal(mha.memoryBytes, before);
  assert.equal(call.q, q);
  assert.equal(call.y, y);
});

test("the views follow the memory where it moves", () => {
  const layer = mha.layer({ dims: 8, heads: 2, weights: floats(256) });
  const call = layer.prepare({ qLen: 2 });
  call.q.set(floats(16));
  call.forward();
  const [old, expected] = [call.q, [...call.y]];
  const large = mha.layer({ dims: 512, heads: 8, weights: new Float32Array(4 * 512 * 512) });
  assert.equal(old.length, 0, "the memory has moved");
  assert.deepEqual([...call.q], [...floats(16)]);
  assert.deepEqual([...call.y], expected);
  call.forward();
  assert.deepEqual([...call.y], expected);
  large.dispose();
});

test("mistakes", () => {
  const layer = make();
  const refused = (work, code, argument) =>
    assert.throws(work, (error) => {
      assert.ok(error instanceof MhaError, String(error));
      assert.equal(error.code, ErrorCode[code]);
      assert.equal(error.argument, argument);
      return true;
    });
  refused(() => layer.prepare(), "Type", "options");
  refused(() => layer.prepare({}), "Type", "shape");
  refused(() => layer.prepare({ qLen: -1 }), "Value", "shape");
  refused(() => layer.prepare({ qLen: 1, k: floats(4) }), "Type", "k");
  refused(() => layer.prepare({ qLen: 1, v: true }), "Type", "k");
  refused(() => layer.prepare({ qLen: 1, k: true, v: true, scores: new Float32Array(2) }), "Type", "scores");
  const call = layer.prepare({ qLen: 1, k: true, v: true });
  call.dispose();
  call.dispose();
  assert.equal(call.disposed, true);
  refused(() => call.forward(), "Disposed", "layer");
  refused(() => call.y, "Disposed", "layer");
  const other = layer.prepare({ qLen: 1, k: true, v: true });
  layer.dispose();
  refused(() => other.forward(), "Disposed", "layer");
});

test("ten thousand of them leave the memory where it was", () => {
  const layer = make();
  const work = () => layer.prepare({ qLen: 9, kvLen: 9, k: true, v: true, scores: true }).dispose();
  work();
  const before = mha.memoryBytes;
  for (let i = 0; i < 10_000; i++) {
    work();
  }
  assert.equal(mha.memoryBytes, before);
});
