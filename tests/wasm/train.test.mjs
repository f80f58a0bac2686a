// The entry with the way back: what it adds to the layer. (That its gradients are right, the cases say.)

import assert from "node:assert/strict";
import { test } from "node:test";

import { ErrorCode, TrainError, loadTraining } from "./support/mha.mjs";

const mha = await loadTraining();
const numbers = (length, by) => Float32Array.from({ length }, (_, i) => ((i * by + 11) % 101) / 50 - 1);
const DIMS = { qIn: 3, kIn: 4, vIn: 5, qk: 6, v: 8, out: 7 };
const PARTS = { q: numbers(9, 37), k: numbers(20, 29), v: numbers(25, 53) };
const layer = () =>
  mha.layer({ dims: DIMS, heads: 2, weights: numbers(3 * 6 + 4 * 6 + 5 * 8 + 8 * 7, 17) });

test("gradients are written where they are wanted, and added where that is wanted", (t) => {
  const one = layer();
  t.after(() => one.dispose());
  const dy = numbers(21, 7);
  const fresh = one.backward({ ...PARTS, dy, gradients: { q: true, wo: true } });
  assert.deepEqual(Object.keys(fresh), ["q", "wo"]);
  assert.equal(fresh.wo.length, 56);
  const wo = new Float32Array(56).fill(NaN);
  const given = one.backward({ ...PARTS, dy, gradients: { wo } });
  assert.equal(given.wo, wo);
  assert.deepEqual(wo, fresh.wo);
  one.backward({ ...PARTS, dy, gradients: { wo }, accumulate: true });
  wo.forEach((x, i) => assert.ok(Math.abs(x - 2 * fresh.wo[i]) <= 1e-5 * (1 + Math.abs(x))));
});

test("a layer learns where its weights lie", (t) => {
  const one = layer();
  t.after(() => one.dispose());
  const target = numbers(21, 23);
  const loss = () => {
    const { y } = one.forward(PARTS);
    const dy = y.map((y, i) => y - target[i]);
    return { dy, loss: dy.reduce((sum, d) => sum + d * d, 0) / 2 };
  };
  const names = ["wq", "wk", "wv", "wo"];
  const before = loss().loss;
  for (let step = 0; step < 200; step++) {
    const gradients = one.backward({ ...PARTS, dy: loss().dy, gradients: { wq: true, wk: true, wv: true, wo: true } });
    const { weights } = one;
    let at = 0;
    for (const name of names) {
      gradients[name].forEach((d) => (weights[at++] -= 0.02 * d));
    }
    assert.equal(at, weights.length);
  }
  assert.ok(loss().loss < before / 10, `${before} before, ${loss().loss} after`);
});

test("what is kept spares the way back, bit for bit", (t) => {
  const one = layer();
  t.after(() => one.dispose());
  const dy = numbers(21, 7);
  const call = { ...PARTS, mask: "causal", dropout: { p: 0.25, seed: 3 }, scores: true };
  const { kept, ...found } = one.forwardKeeping(call);
  assert.deepEqual(found, one.forward(call));
  // Queries, keys, values and mixed values of three queries and five keys.
  assert.equal(kept.length, 3 * 6 + 5 * 6 + 5 * 8 + 3 * 8);
  const gradients = Object.fromEntries(["q", "k", "v", "wq", "wk", "wv", "wo"].map((name) => [name, true]));
  const fresh = one.backward({ ...call, dy, gradients });
  assert.deepEqual(one.backward({ ...call, dy, kept, gradients }), fresh);
  // It is what is kept that is used.
  const other = one.backward({ ...call, dy, kept: kept.map((x) => -x), gradients });
  assert.notDeepEqual(other.wo, fresh.wo);
  const mine = new Float32Array(kept.length);
  assert.equal(one.forwardKeeping({ ...call, kept: mine }).kept, mine);
  assert.deepEqual(mine, kept);

  const fails = (call, argument, code, message) =>
    assert.throws(call, (error) => error instanceof TrainError && error.argument === argument && error.code === code && error.message === message);
  const short = kept.subarray(1);
  fails(() => one.forwardKeeping({ ...call, kept: short }), "kept", 4, "kept: 112 elements needed, 111 given");
  fails(() => one.backward({ ...call, dy, kept: short, gradients }), "kept", 4, "kept: 112 elements needed, 111 given");
  fails(() => one.forwardKeeping({ ...call, norm: { kind: "rms", epsilon: 1e-6 } }), "norm", 11, "norm: there is no way back through it");
  fails(() => one.forwardKeeping({ ...call, q: PARTS.q.subarray(3), qLen: 3 }), "q", 4, "q: 9 elements needed, 6 given");
  assert.deepEqual(mine, kept);
});

test("what is wrong is named, and nothing has been written", (t) => {
  const one = layer();
  t.after(() => one.dispose());
  const wq = new Float32Array(18).fill(3);
  const dy = numbers(21, 7);
  const fails = (options, argument, code, words) =>
    assert.throws(
      () => one.backward({ ...PARTS, dy, gradients: { wq }, ...options }),
      (error) => error instanceof TrainError && error.argument === argument && error.code === code && error.message === `${argument}: ${words}`,
    );
  fails({ dy: dy.subarray(1) }, "dy", 4, "21 elements needed, 20 given");
  fails({ dscores: dy }, "dscores", 4, "30 elements needed, 21 given");
  fails({ gradients: { wq: wq.subarray(1) } }, "dwq", 4, "18 elements needed, 17 given");
  fails({ gradients: { wq, bq: true } }, "dbq", ErrorCode.NoGradient, "the call has no bq");
  fails({ norm: { kind: "rms", epsilon: 1e-6 } }, "norm", ErrorCode.NoWayBack, "there is no way back through it");
  fails({ dropout: { p: 1, seed: 1 } }, "dropout", 6, "the value is outside its domain");
  fails({ q: PARTS.q.subarray(3), qLen: 3 }, "q", 4, "9 elements needed, 6 given");
  assert.ok(wq.every((x) => x === 3));
});

test("a layer that has gone back gives all its memory back", () => {
  const round = () => {
    const one = layer();
    one.backward({ ...PARTS, dy: numbers(21, 7), gradients: { q: true, k: true, v: true } });
    const { byteLength } = one.weights.buffer;
    one.dispose();
    return byteLength;
  };
  round();
  const first = round();
  for (let i = 0; i < 2000; i++) {
    round();
  }
  assert.equal(round(), first);
});
