// The attention family in JavaScript: against what it must equal (one long call for a stream, one sequence
// at a time for a batch), what it refuses, and what it leaves in memory. (That the numbers are right is for
// the case files to say: `cargo xtask check tests/cases_family --door wasm`.)

import assert from "node:assert/strict";
import { test } from "node:test";

import { ErrorCode, MhaError, load } from "./support/mha.mjs";

const mha = await load();
const [WIDTH, HEADS, T] = [16, 4, 40];

/** Numbers in [-1, 1), the same every time. */
function numbers(length, seed) {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 23 - 1;
  });
}

const x = numbers(T * WIDTH, 2);
const frame = (t, n = 1) => x.subarray(t * WIDTH, (t + n) * WIDTH);
const grouped = () =>
  mha.layer({
    dims: WIDTH,
    heads: HEADS,
    kvHeads: 2,
    weights: { wq: numbers(256, 3), wk: numbers(128, 4), wv: numbers(128, 5), wo: numbers(256, 6) },
  });
const OPTIONS = { window: { left: 12 }, rope: { base: 10000 }, softcap: 20, alibi: true };

/** The error of a call: its number and the argument at fault. */
function refusal(call) {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof MhaError, String(error));
    return [error.code, error.argument];
  }
  return undefined;
}

for (const [name, options] of Object.entries({ plain: {}, "with options": OPTIONS })) {
  test(`any split of a stream gives the bits of one causal call, ${name}`, () => {
    const layer = grouped();
    const whole = layer.forward({ q: x, causal: true, scores: true, ...options });
    const cache = layer.cache({ capacity: T });
    const y = [];
    let at = 0;
    for (const n of [1, 5, 2, 16, 1, 15]) {
      layer.append(cache, { k: frame(at, n), rope: options.rope });
      const step = layer.attend(cache, { q: frame(at, n), causal: true, scores: true, ...options });
      y.push(...step.y);
      at += n;
      assert.equal(cache.length, at);
      assert.equal(cache.stored, at);
      const last = step.scores.subarray((n - 1) * at, n * at);
      assert.deepEqual(last, whole.scores.slice((at - 1) * T, (at - 1) * T + at));
    }
    assert.deepEqual(Float32Array.from(y), whole.y);
    assert.deepEqual(refusal(() => layer.append(cache, { k: frame(0) })), [ErrorCode.CacheFull, "cache"]);

    // Rolled back, saved, and gone on from there in another cache.
    cache.rollback(7);
    const saved = structuredClone(cache.save());
    cache.reset();
    assert.equal(cache.length, 0);
    const resumed = layer.cache({ capacity: T, saved });
    layer.append(resumed, { k: frame(7, 3), rope: options.rope });
    const { y: again } = layer.attend(resumed, { q: frame(7, 3), causal: true, ...options });
    assert.deepEqual(again, whole.y.slice(7 * WIDTH, 10 * WIDTH));
    for (const each of [cache, resumed, layer]) {
      each.dispose();
    }
  });
}

test("a ring gives the bits of a window over everything, in constant memory", () => {
  const layer = grouped();
  const window = { left: 15 };
  const { y } = layer.forward({ q: x, causal: true, window });
  const ring = layer.cache({ capacity: 32, ring: true });
  let before;
  for (let t = 0; t < 5 * T; t++) {
    const now = frame(t % T);
    layer.append(ring, { k: now });
    const step = layer.attend(ring, { q: now, causal: true, window });
    if (t < T) {
      assert.deepEqual(step.y, y.slice(t * WIDTH, (t + 1) * WIDTH));
    }
    before ??= mha.memoryBytes;
  }
  assert.equal(mha.memoryBytes, before);
  assert.deepEqual([ring.length, ring.stored, ring.capacity], [5 * T, 32, 32]);
  assert.deepEqual(refusal(() => ring.rollback(3)), [ErrorCode.Range, "cache"]);
  ring.dispose();
  layer.dispose();
});

test("packed and padded sequences give what each gives by itself", () => {
  const layer = grouped();
  const qStarts = Uint32Array.of(0, 3, 3, 20, T);
  const packed = layer.forwardPacked({ q: x, qStarts, causal: true, scores: true });
  let scores = 0;
  for (let i = 0; i + 1 < qStarts.length; i++) {
    const [from, to] = [qStarts[i], qStarts[i + 1]];
    const alone = layer.forward({ q: frame(from, to - from), causal: true, scores: true });
    assert.deepEqual(packed.y.slice(from * WIDTH, to * WIDTH), alone.y);
    assert.deepEqual(packed.scores.slice(scores, (scores += alone.scores.length)), alone.scores);
  }
  assert.equal(scores, packed.scores.length);

  // What lies in the padding does not matter.
  const padded = x.slice().fill(NaN, 31 * WIDTH);
  const both = layer.forward({ q: x, k: padded, batch: 2, lens: Uint32Array.of(20, 11) });
  const alone = layer.forward({ q: frame(20, 20), k: frame(20, 11) });
  assert.deepEqual(both.y.slice(20 * WIDTH), alone.y);
  layer.dispose();
});

test("scores of one head, of some queries, and their mean", () => {
  const layer = grouped();
  const all = layer.forward({ q: x, scores: true });
  const one = layer.forward({ q: x, scores: true, scoresOf: 2, scoreQueries: [5, 8] });
  assert.deepEqual(one.scores, all.scores.slice((2 * T + 5) * T, (2 * T + 8) * T));
  assert.deepEqual(one.y, all.y);
  const { scores: mean } = layer.forward({ q: x, scores: true, scoresOf: "mean" });
  assert.equal(mean.length, T * T);
  for (let i = 0; i < mean.length; i++) {
    const sum = [0, 1, 2, 3].reduce((sum, head) => sum + all.scores[head * T * T + i], 0);
    assert.ok(Math.abs(mean[i] - sum / 4) < 1e-6);
  }
  layer.dispose();
});

test("attention over two pieces, merged, is attention over both", () => {
  const bare = { dims: WIDTH, heads: HEADS };
  const q = frame(0, 4);
  const whole = mha.dotProductAttention({ ...bare, q, k: x });
  const pieces = [x.subarray(0, 10 * WIDTH), x.subarray(10 * WIDTH)].map((k) =>
    mha.dotProductAttention({ ...bare, q, k, lse: true }),
  );
  const [{ y, lse }, { y: otherY, lse: otherLse }] = pieces;
  assert.equal(lse.length, HEADS * 4);
  mha.merge({ heads: HEADS, v: WIDTH, y, lse, otherY, otherLse });
  y.forEach((value, i) => assert.ok(Math.abs(value - whole.y[i]) < 1e-6));
  assert.deepEqual(refusal(() => mha.merge({ heads: HEADS, v: WIDTH, y, lse, otherY, otherLse: lse.slice(1) })), [
    ErrorCode.Length,
    "lse",
  ]);
});

test("a mask in the opposite sense", () => {
  const layer = grouped();
  const data = Uint8Array.from({ length: T }, (_, i) => i % 3 === 0);
  const shape = [1, 1, 1, T];
  const { y } = layer.forward({ q: x, mask: { data, shape } });
  const opposite = data.map((byte) => 1 - byte);
  assert.deepEqual(layer.forward({ q: x, mask: { data: opposite, shape, excluding: true } }).y, y);
  layer.dispose();
});

test("what is wrong is refused, and nothing is written", () => {
  const layer = grouped();
  const y = new Float32Array(T * WIDTH).fill(7);
  const forward = (options) => refusal(() => layer.forward({ q: x, y, ...options }));
  const { Length, Value, Type, Range, Conflict, Disposed } = ErrorCode;
  for (const [options, code, argument] of [
    [{ softcap: -1 }, Value, "softcap"],
    [{ softcap: NaN }, Value, "softcap"],
    [{ softcap: "1" }, Type, "softcap"],
    [{ alibi: new Float32Array(3) }, Length, "alibi"],
    [{ alibi: [1, 2, 3, 4] }, Type, "alibi"],
    [{ sinks: new Float32Array(5) }, Length, "sinks"],
    [{ lens: Uint32Array.of(T + 1) }, Range, "lens"],
    [{ lens: new Float32Array(1) }, Type, "lens"],
    [{ rope: { base: 0 } }, Value, "rope"],
    [{ rope: {} }, Type, "rope"],
    [{ rope: { base: 1, cos: x } }, Type, "rope"],
    [{ rope: { base: 10000, dims: 3 } }, Value, "rope"],
    [{ norm: { kind: "other", epsilon: 0 } }, Value, "norm"],
    [{ norm: { kind: "rms", epsilon: -1 } }, Value, "norm"],
    [{ norm: { kind: "l2", epsilon: 0, qGain: new Float32Array(3) } }, Length, "norm"],
    [{ segments: { q: new Uint32Array(T), kv: new Uint32Array(1) } }, Length, "segments"],
    [{ extra: { k: new Float32Array(8), v: new Float32Array(7) } }, Length, "extra"],
    [{ window: { left: -1 } }, Value, "options"],
    [{ scores: true, scoresOf: HEADS }, Range, "scores"],
    [{ scores: true, scoreQueries: [2, 1] }, Range, "scores"],
    [{ scores: true, scoresOf: "mean", scoresAt: "logits" }, Conflict, undefined],
    [{ lse: new Float32Array(3) }, Length, "lse"],
    [{ offset: 0.5 }, Value, "causal"],
  ]) {
    const found = forward(options);
    assert.ok(found !== undefined, JSON.stringify(options));
    assert.deepEqual(found, [code, argument ?? found[1]], JSON.stringify(options));
  }
  assert.ok(y.every((value) => value === 7));
  const bare = { dims: WIDTH, heads: HEADS, q: x };
  assert.deepEqual(refusal(() => mha.dotProductAttention({ ...bare, rope: { base: 1e4 } })), [Conflict, "rope"]);

  const make = (options) => refusal(() => layer.cache(options));
  assert.deepEqual(make({ capacity: 20, ring: true }), [Value, "cache"]);
  assert.deepEqual(make({ capacity: 16, pinned: 16 }), [Value, "cache"]);
  assert.deepEqual(make({ capacity: -1 }), [Value, "cache"]);
  const cache = layer.cache({ capacity: 16 });
  const saved = cache.save();
  assert.deepEqual(make({ capacity: 32, saved }), [Length, "cache"]);
  assert.deepEqual(make({ capacity: 16, saved: { ...saved, length: 17 } }), [Range, "cache"]);
  assert.deepEqual(refusal(() => layer.append(cache, { k: x.subarray(0, 3) })), [Length, "k"]);
  assert.deepEqual(refusal(() => layer.append({}, { k: frame(0) })), [Type, "cache"]);
  assert.equal(cache.length, 0);
  const other = mha.cache({ dims: 8, heads: 4, capacity: 16 });
  assert.deepEqual(refusal(() => layer.append(other, { k: frame(0) })), [Value, "cache"]);
  cache.dispose();
  cache.dispose();
  assert.deepEqual(refusal(() => layer.append(cache, { k: frame(0) })), [Disposed, "cache"]);
  assert.deepEqual(refusal(() => cache.length), [Disposed, "cache"]);
  other.dispose();
  layer.dispose();
});

test("caches and options leave memory where it was", () => {
  const layer = grouped();
  let before;
  for (let i = 0; i < 2000; i++) {
    const cache = layer.cache({ capacity: 64 });
    layer.append(cache, { k: frame(0, 10), rope: OPTIONS.rope });
    layer.attend(cache, { q: frame(0, 2), lse: true, ...OPTIONS });
    cache.dispose();
    if (i === 10) {
      before = mha.memoryBytes;
    }
  }
  assert.equal(mha.memoryBytes, before);
  layer.dispose();
});
