// What the layer computes and how it may be asked to.

import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./support/mha.mjs";

const mha = await load();

/** Numbers that depend on nothing but the seed, in ±1. */
function floats(length, seed) {
  let state = seed >>> 0;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** Weights of a layer with these widths, and all four biases where they are wanted. */
function weightsOf({ qIn, kIn, vIn, qk, v, out }, biases = false) {
  const weights = { wq: floats(qIn * qk, 1), wk: floats(kIn * qk, 2), wv: floats(vIn * v, 3), wo: floats(v * out, 4) };
  return biases ? { ...weights, bq: floats(qk, 5), bk: floats(qk, 6), bv: floats(v, 7), bo: floats(out, 8) } : weights;
}

const DIMS = { qIn: 5, kIn: 7, vIn: 3, qk: 8, v: 12, out: 6 };
const q = floats(2 * 3 * 5, 11);
const k = floats(2 * 4 * 7, 12);
const v = floats(2 * 4 * 3, 13);

/** A layer over DIMS, given to a function and disposed of. */
function withLayer(work, options = {}) {
  const layer = mha.layer({ dims: DIMS, heads: 4, weights: weightsOf(DIMS, true), ...options });
  try {
    return work(layer);
  } finally {
    layer.dispose();
  }
}

const transposed = (data, rows, columns) =>
  Float32Array.from({ length: data.length }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);

test("the library says what it is", async () => {
  assert.match(mha.version, /^\d+\.\d+\.\d+$/);
  assert.equal(typeof mha.isa, "string");
  assert.ok(mha.isa.length > 0);
  assert.equal(await load(), mha);
});

test("NNlib's published numbers", () => {
  // NNlib.jl, test/attention.jl, "specific results".
  const q = Float32Array.from({ length: 12 }, (_, i) => (i + 1) / 12);
  const { y, scores } = mha.dotProductAttention({ q, dims: 4, heads: 2, scores: true });
  const expected = [
    0.429754, 0.513087, 0.613791, 0.697125, 0.46431, 0.547644, 0.647876, 0.73121, 0.49773, 0.581064, 0.680455, 0.763788,
  ];
  expected.forEach((e, i) => assert.ok(Math.abs(y[i] - e) < 1e-5, `y[${i}] is ${y[i]}, not ${e}`));
  const expectedScores = [
    0.313896, 0.332948, 0.353157, 0.264431, 0.328206, 0.407362, 0.219215, 0.31838, 0.462405,
    0.288691, 0.331243, 0.380066, 0.241239, 0.323893, 0.434868, 0.198438, 0.311761, 0.489801,
  ];
  expectedScores.forEach((e, i) => assert.ok(Math.abs(scores[i] - e) < 1e-5, `scores[${i}] is ${scores[i]}`));
});

test("outputs have the shapes that the arrays imply", () => {
  withLayer((layer) => {
    const { y, scores } = layer.forward({ q, k, v, batch: 2, scores: true });
    assert.equal(y.length, 2 * 3 * 6);
    assert.equal(scores.length, 2 * 4 * 3 * 4);
    for (let row = 0; row < scores.length; row += 4) {
      const sum = scores.subarray(row, row + 4).reduce((a, b) => a + b);
      assert.ok(Math.abs(sum - 1) < 1e-6, `row ${row / 4} sums to ${sum}`);
    }
    assert.deepEqual(layer.forward({ q, k, v, batch: 2, qLen: 3, kvLen: 4 }).y, y);
    assert.deepEqual(layer.dims, DIMS);
    assert.equal(layer.heads, 4);
  });
});

test("scores cost no bits and are there only when asked for", () => {
  withLayer((layer) => {
    const plain = layer.forward({ q, k, v, batch: 2 });
    assert.deepEqual(Object.keys(plain), ["y"]);
    assert.deepEqual(layer.forward({ q, k, v, batch: 2, scores: false }), plain);
    for (const scoresAt of ["softmax", "logits", "masked"]) {
      assert.deepEqual(layer.forward({ q, k, v, batch: 2, scores: true, scoresAt }).y, plain.y);
    }
  });
});

test("outputs go where they are wanted", () => {
  withLayer((layer) => {
    const { y, scores } = layer.forward({ q, k, v, batch: 2, scores: true });
    const own = { y: new Float32Array(y.length).fill(NaN), scores: new Float32Array(scores.length).fill(NaN) };
    const output = layer.forward({ q, k, v, batch: 2, ...own });
    assert.equal(output.y, own.y);
    assert.equal(output.scores, own.scores);
    assert.deepEqual(output, { y, scores });
    // An output may be an input: inputs are read to their end first.
    const shared = q.slice();
    const square = floats(5 * 5, 9);
    const layer2 = mha.layer({ dims: 5, heads: 1, weights: { wq: square, wk: square, wv: square, wo: square } });
    const expected = layer2.forward({ q: shared }).y;
    assert.deepEqual(layer2.forward({ q: shared, y: shared }).y, expected);
    layer2.dispose();
  });
});

test("new outputs are the caller's own, not the module's memory", () => {
  withLayer((layer) => {
    const first = layer.forward({ q, k, v, batch: 2 }).y;
    const copy = first.slice();
    layer.forward({ q: floats(q.length, 99), k, v, batch: 2 });
    assert.deepEqual(first, copy);
    assert.equal(first.buffer.byteLength, first.byteLength);
  });
});

test("the four forms of dims are the same layer", () => {
  const n = 8;
  const all = { qIn: n, kIn: n, vIn: n, qk: n, v: n, out: n };
  const weights = weightsOf(all);
  const x = floats(3 * n, 20);
  const forms = [n, { in: n, qkv: n, out: n }, { in: n, qk: n, v: n, out: n }, all];
  const results = forms.map((dims) => {
    const layer = mha.layer({ dims, heads: 2, weights });
    const { y } = layer.forward({ q: x });
    assert.deepEqual(layer.dims, all);
    layer.dispose();
    return y;
  });
  results.forEach((y) => assert.deepEqual(y, results[0]));
});

test("heads are eight unless said otherwise", () => {
  const weights = { wq: floats(64, 1), wk: floats(64, 2), wv: floats(64, 3), wo: floats(64, 4) };
  const layer = mha.layer({ dims: 8, weights });
  assert.equal(layer.heads, 8);
  assert.equal(layer.forward({ q: floats(16, 5), scores: true }).scores.length, 8 * 2 * 2);
  layer.dispose();
});

test("q alone is (q, q, q), and (q, k) is (q, k, k)", () => {
  const layer = mha.layer({ dims: 5, heads: 1, weights: weightsOf({ qIn: 5, kIn: 5, vIn: 5, qk: 5, v: 5, out: 5 }) });
  const other = floats(20, 30);
  assert.deepEqual(layer.forward({ q }), layer.forward({ q, k: q.slice(), v: q.slice() }));
  assert.deepEqual(layer.forward({ q }), layer.forward({ q, k: q, v: q }));
  assert.deepEqual(layer.forward({ q, k: other }), layer.forward({ q, k: other, v: other.slice() }));
  assert.deepEqual(layer.forward({ q, k: q, v: floats(30, 3) }), layer.forward({ q, k: q.slice(), v: floats(30, 3) }));
  layer.dispose();
});

test("both orders of the weights give the same bits", () => {
  const inOut = weightsOf(DIMS, true);
  const { qIn, kIn, vIn, qk, v: width, out } = DIMS;
  const outIn = {
    ...inOut,
    wq: transposed(inOut.wq, qIn, qk),
    wk: transposed(inOut.wk, kIn, qk),
    wv: transposed(inOut.wv, vIn, width),
    wo: transposed(inOut.wo, width, out),
  };
  const run = (layer) => layer.forward({ q, k, v, batch: 2, scores: true });
  const expected = withLayer(run, { weights: inOut, weightOrder: "in_out" });
  assert.deepEqual(withLayer(run, { weights: outIn, weightOrder: "out_in" }), expected);
});

test("weights in one array are the same weights", () => {
  const run = (layer) => layer.forward({ q, k, v, batch: 2 });
  for (const biases of [true, false]) {
    const weights = weightsOf(DIMS, biases);
    const flat = Float32Array.from(Object.values(weights).flatMap((part) => [...part]));
    assert.deepEqual(withLayer(run, { weights: flat }), withLayer(run, { weights }));
  }
});

test("each bias may be left out", () => {
  const run = (layer) => layer.forward({ q, k, v, batch: 2 }).y;
  const all = weightsOf(DIMS, true);
  for (const name of ["bq", "bk", "bv", "bo"]) {
    const without = withLayer(run, { weights: { ...all, [name]: undefined } });
    const zero = withLayer(run, { weights: { ...all, [name]: new Float32Array(all[name].length) } });
    assert.deepEqual(without, zero, name);
  }
});

test("weights are copied", () => {
  const weights = weightsOf(DIMS, true);
  withLayer(
    (layer) => {
      const before = layer.forward({ q, k, v, batch: 2 });
      Object.values(weights).forEach((part) => part.fill(0));
      assert.deepEqual(layer.forward({ q, k, v, batch: 2 }), before);
    },
    { weights },
  );
});

test("scale is a factor", () => {
  const run = (layer) => layer.forward({ q, k, v, batch: 2, scores: true, scoresAt: "logits" });
  const usual = withLayer(run);
  assert.deepEqual(withLayer(run, { scale: 1 / Math.sqrt(2) }), usual);
  const none = withLayer(run, { scale: 0 });
  assert.ok(none.scores.every((logit) => logit === 0));
});

test("the three ways to say causal, and the mask that says the same", () => {
  const x = floats(2 * 4 * 5, 40);
  const layer = mha.layer({ dims: 5, heads: 1, weights: weightsOf({ qIn: 5, kIn: 5, vIn: 5, qk: 5, v: 5, out: 5 }) });
  const call = { q: x, batch: 2, scores: true };
  const expected = layer.forward({ ...call, causal: true });
  assert.notDeepEqual(expected, layer.forward(call));
  assert.deepEqual(layer.forward({ ...call, mask: "causal" }), expected);
  assert.deepEqual(layer.forward({ ...call, causalOffset: 0 }), expected);
  assert.deepEqual(layer.forward({ ...call, causalOffset: Int32Array.of(0, 0) }), expected);
  const triangle = Uint8Array.from({ length: 16 }, (_, i) => Number(i % 4 <= Math.floor(i / 4)));
  assert.deepEqual(layer.forward({ ...call, mask: { data: triangle, shape: [1, 1, 4, 4] } }), expected);
  // An offset shifts the rule where there is one, and is the rule where nothing is said of it.
  assert.deepEqual(layer.forward({ ...call, causal: false, causalOffset: 0 }), layer.forward(call));
  assert.deepEqual(layer.forward({ ...call, causal: false, mask: "causal" }), expected);

  const shifted = layer.forward({ ...call, causal: true, causalOffset: Int32Array.of(1, -2) });
  const visible = (batch) => (i) => Number((i % 4) <= Math.floor(i / 4) + [1, -2][batch]);
  const two = Uint8Array.from([0, 1].flatMap((batch) => Array.from({ length: 16 }, (_, i) => visible(batch)(i))));
  assert.deepEqual(layer.forward({ ...call, mask: { data: two, shape: [2, 1, 4, 4] } }), shifted);
  // Beyond what 32 bits hold an offset means the same as the nearest that they do.
  assert.deepEqual(layer.forward({ ...call, causalOffset: 2 ** 40 }), layer.forward(call));
  assert.ok(layer.forward({ ...call, causalOffset: -(2 ** 40) }).scores.every((score) => score === 0));
  layer.dispose();
});

test("mask, causal rule and bias go together", () => {
  withLayer((layer) => {
    const call = { q, k, v, batch: 2, scores: true };
    const mask = { data: Uint8Array.of(1, 0, 1, 1), shape: [1, 1, 1, 4] };
    const bias = { data: floats(4 * 3, 50), shape: [1, 4, 3, 1] };
    const { scores } = layer.forward({ ...call, mask, bias, causalOffset: 1 });
    for (let row = 0; row < 2 * 4 * 3; row++) {
      const seen = [...scores.subarray(row * 4, row * 4 + 4)].map((score) => Number(score > 0));
      assert.deepEqual(seen, [1, 0, Number(2 <= (row % 3) + 1), Number(3 <= (row % 3) + 1)], `row ${row}`);
    }
    const minusInfinity = { data: Float32Array.of(0, -Infinity, 0, 0), shape: [1, 1, 1, 4] };
    assert.deepEqual(layer.forward({ ...call, bias: minusInfinity }), layer.forward({ ...call, mask }));
  });
});

test("a query that sees nothing gives scores of 0 and the output bias", () => {
  withLayer((layer) => {
    const mask = { data: Uint8Array.of(0), shape: [1, 1, 1, 1] };
    const { y, scores } = layer.forward({ q, k, v, batch: 2, mask, scores: true });
    assert.ok(scores.every((score) => score === 0));
    assert.deepEqual(y, Float32Array.from({ length: 36 }, (_, i) => weightsOf(DIMS, true).bo[i % 6]));
    const none = new Float32Array(0);
    assert.deepEqual(layer.forward({ q, k: none, v: none, batch: 2 }).y, y);
  });
});

test("nothing in, nothing out", () => {
  withLayer((layer) => {
    const none = new Float32Array(0);
    assert.equal(layer.forward({ q: none, k, v, batch: 2 }).y.length, 0);
    assert.equal(layer.forward({ q: none, k: none, v: none, batch: 0, qLen: 3, kvLen: 4 }).y.length, 0);
    assert.equal(layer.forward({ q: none }).y.length, 0);
  });
});

test("NaN stays in the sequence where it lies", () => {
  withLayer((layer) => {
    const clean = layer.forward({ q, k, v, batch: 2 }).y;
    const bad = q.slice();
    bad[0] = NaN;
    const { y } = layer.forward({ q: bad, k, v, batch: 2 });
    assert.ok(y.subarray(0, 6).every(Number.isNaN));
    assert.deepEqual(y.subarray(6), clean.subarray(6));
  });
});

test("dropout is decided by its seed", () => {
  withLayer((layer) => {
    const run = (p, seed) => layer.forward({ q, k, v, batch: 2, dropout: { p, seed }, scores: true });
    const plain = layer.forward({ q, k, v, batch: 2, scores: true });
    assert.deepEqual(run(0, 1), plain);
    assert.deepEqual(run(0.5, 7), run(0.5, 7n));
    assert.notDeepEqual(run(0.5, 7), run(0.5, 8));
    assert.notDeepEqual(run(0.5, 7n), run(0.5, 7n + (1n << 32n)));
    const { scores } = run(0.5, 7);
    const dropped = scores.filter((score) => score === 0).length;
    assert.ok(dropped > 20 && dropped < 76, `${dropped} of 96 dropped`);
    scores.forEach((score, i) => assert.ok(score === 0 || Math.abs(score - 2 * plain.scores[i]) < 1e-6));
  });
});

test("attention without projections is the layer with identities", () => {
  const identity = Float32Array.from({ length: 64 }, (_, i) => Number(i % 9 === 0));
  const [a, b, c] = [floats(2 * 3 * 8, 60), floats(2 * 4 * 8, 61), floats(2 * 4 * 8, 62)];
  const layer = mha.layer({ dims: 8, heads: 2, weights: { wq: identity, wk: identity, wv: identity, wo: identity } });
  const call = { q: a, k: b, v: c, batch: 2, mask: "causal", scores: true };
  const expected = layer.forward(call);
  const actual = mha.dotProductAttention({ ...call, dims: 8, heads: 2 });
  expected.y.forEach((e, i) => assert.ok(Math.abs(actual.y[i] - e) < 1e-6));
  expected.scores.forEach((e, i) => assert.ok(Math.abs(actual.scores[i] - e) < 1e-6));
  const { v: _, ...keys } = call;
  const scores = mha.dotProductAttentionScores({ ...keys, scores: undefined, dims: 8, heads: 2 });
  assert.deepEqual(scores, actual.scores);
  const own = new Float32Array(scores.length);
  assert.equal(mha.dotProductAttentionScores({ ...keys, scores: own, dims: 8, heads: 2 }), own);
  assert.deepEqual(own, scores);
  layer.dispose();
});

test("values may be wider or narrower than keys", () => {
  const { y } = mha.dotProductAttention({ q: floats(8, 1), k: floats(12, 2), v: floats(6, 3), dims: { qk: 4, v: 2 } });
  assert.equal(y.length, 2 * 2);
});

test("arrays may be views of larger buffers, shared buffers and of another realm", async () => {
  const { runInNewContext } = await import("node:vm");
  withLayer((layer) => {
    const expected = layer.forward({ q, k, v, batch: 2 });
    const large = new Float32Array(100);
    large.set(q, 17);
    assert.deepEqual(layer.forward({ q: large.subarray(17, 17 + q.length), k, v, batch: 2 }), expected);
    const shared = new Float32Array(new SharedArrayBuffer(k.byteLength));
    shared.set(k);
    assert.deepEqual(layer.forward({ q, k: shared, v, batch: 2 }), expected);
    const foreign = runInNewContext("(numbers) => Float32Array.from(numbers)")([...v]);
    assert.ok(!(foreign instanceof Float32Array));
    assert.deepEqual(layer.forward({ q, k, v: foreign, batch: 2 }), expected);
    const unaligned = new Uint8Array(Buffer.from([1, 0, 1, 1]));
    layer.forward({ q, k, v, batch: 2, mask: { data: unaligned, shape: [1, 1, 1, 4] } });
  });
});

test("layers do not know of each other", () => {
  const weights = weightsOf(DIMS, true);
  const first = mha.layer({ dims: DIMS, heads: 4, weights });
  const expected = first.forward({ q, k, v, batch: 2, scores: true });
  const others = Array.from({ length: 20 }, (_, i) => mha.layer({ dims: 16, heads: 2, weights: floats(4 * 256, i) }));
  others.forEach((layer) => layer.forward({ q: floats(16 * 64, 3) }));
  assert.deepEqual(first.forward({ q, k, v, batch: 2, scores: true }), expected);
  others.forEach((layer) => layer.dispose());
  assert.deepEqual(first.forward({ q, k, v, batch: 2, scores: true }), expected);
  first.dispose();
});
