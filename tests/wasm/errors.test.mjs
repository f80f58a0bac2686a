// Everything that can be wrong with a call, one thing at a time: the error's number, the argument it
// names, and that the caller's outputs are as they were.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ErrorCode, MhaError, load } from "./support/mha.mjs";

const mha = await load();

const DIMS = { qIn: 5, kIn: 7, vIn: 3, qk: 8, v: 12, out: 6 };
const SHAPE = { batch: 2, qLen: 3, kvLen: 4 };
const floats = (length) => Float32Array.from({ length }, (_, i) => Math.sin(i));
const WEIGHTS = {
  wq: floats(5 * 8),
  wk: floats(7 * 8),
  wv: floats(3 * 12),
  wo: floats(12 * 6),
  bq: floats(8),
  bk: floats(8),
  bv: floats(12),
  bo: floats(6),
};
const LAYER = { dims: DIMS, heads: 4, weights: WEIGHTS };
const layer = mha.layer(LAYER);

const INPUTS = { q: floats(2 * 3 * 5), k: floats(2 * 4 * 7), v: floats(2 * 4 * 3) };
const MASK = { data: new Uint8Array(2 * 4 * 3 * 4).fill(1), shape: [2, 4, 3, 4] };
const BIAS = { data: floats(2 * 4 * 3 * 4), shape: [2, 4, 3, 4] };
const PATTERN = -123.5;
const OUTPUTS = { y: 2 * 3 * 6, scores: 2 * 4 * 3 * 4 };

/** An array without its buffer. */
function detached(array) {
  const copy = array.slice();
  structuredClone(copy.buffer, { transfer: [copy.buffer] });
  return copy;
}

/** An array whose buffer has shrunk from under it, where the engine knows such buffers. */
function shrunk(array) {
  const buffer = new ArrayBuffer(array.byteLength + 8, { maxByteLength: array.byteLength + 8 });
  const view = new array.constructor(buffer, 8, array.length);
  buffer.resize(4);
  return view;
}

/** Asserts that the work throws this error. */
function throws(work, code, argument, message) {
  assert.throws(work, (error) => {
    assert.ok(error instanceof MhaError, `${error}`);
    assert.ok(error instanceof Error);
    assert.equal(error.name, "MhaError");
    assert.deepEqual(
      [Object.keys(ErrorCode).find((name) => ErrorCode[name] === error.code), error.argument],
      [code, argument],
      error.message,
    );
    assert.ok(error.message.startsWith(`${argument}: `), error.message);
    if (message !== undefined) {
      assert.equal(error.message, message);
    }
    return true;
  });
}

/** Asserts that a call with these options is refused, and that its outputs keep every bit. */
function refused(options, code, argument, message) {
  const y = new Float32Array(OUTPUTS.y).fill(PATTERN);
  const scores = new Float32Array(OUTPUTS.scores).fill(PATTERN);
  const given = { ...INPUTS, ...SHAPE, y, scores, ...options };
  throws(() => layer.forward(given), code, argument, message);
  for (const output of [y, scores, given.y, given.scores]) {
    // One without a buffer has no elements that could have changed.
    const kept = !(output instanceof Float32Array) || output.length === 0 || output.every((x) => x === PATTERN);
    assert.ok(kept, "something was written");
  }
  // The layer has not suffered.
  assert.equal(layer.forward({ ...INPUTS, ...SHAPE }).y.length, OUTPUTS.y);
}

/** Arrays of lengths that are wrong for an array of this length. */
const wrongLengths = (length) => [length - 1, length + 1, 0, 2 * length];

/** What no array of this class is. */
const wrongClasses = (length) => [
  new Float64Array(length),
  new Int32Array(length),
  new Uint8ClampedArray(length),
  new ArrayBuffer(4 * length),
  new DataView(new ArrayBuffer(4 * length)),
  Array.from({ length }, () => 0),
  "text",
  7,
  null,
  {},
];

test("the call that the others are made of is right", () => {
  const y = new Float32Array(OUTPUTS.y);
  const scores = new Float32Array(OUTPUTS.scores);
  layer.forward({ ...INPUTS, ...SHAPE, mask: MASK, bias: BIAS, y, scores });
  assert.ok(y.some((x) => x !== 0) && scores.some((x) => x !== 0));
});

for (const name of ["q", "k", "v"]) {
  const right = INPUTS[name];
  test(`${name} of a wrong length`, () => {
    for (const length of wrongLengths(right.length)) {
      const message = `${name}: ${right.length} elements needed, ${length} given`;
      refused({ [name]: floats(length) }, "Length", name, message);
    }
  });
  test(`${name} of a wrong class`, () => {
    for (const wrong of [...wrongClasses(right.length), new Uint8Array(right.length)]) {
      refused({ [name]: wrong }, "Type", name);
    }
  });
  test(`${name} without its buffer`, () => refused({ [name]: detached(right) }, "Detached", name));
}

test("lengths that follow from arrays which do not divide", () => {
  const inferred = { qLen: undefined, kvLen: undefined };
  refused({ ...inferred, q: floats(31) }, "Length", "q", "q: a multiple of 10 elements needed, 31 given");
  refused({ ...inferred, k: floats(57) }, "Length", "k", "k: a multiple of 14 elements needed, 57 given");
  refused({ ...inferred, v: floats(23) }, "Length", "v", "v: 24 elements needed, 23 given");
  // Four keys, and values for five.
  refused({ ...inferred, v: floats(30) }, "Length", "v", "v: 24 elements needed, 30 given");
});

test("v without k", () => refused({ k: undefined }, "Type", "k"));

test("no q at all", () => refused({ q: undefined }, "Type", "q", "q: a Float32Array is needed, undefined given"));

for (const name of ["y", "scores"]) {
  test(`${name} of a wrong length`, () => {
    for (const length of wrongLengths(OUTPUTS[name])) {
      const message = `${name}: ${OUTPUTS[name]} elements needed, ${length} given`;
      refused({ [name]: new Float32Array(length).fill(PATTERN) }, "Length", name, message);
    }
  });
  test(`${name} of a wrong class`, () => {
    for (const wrong of [...wrongClasses(OUTPUTS[name]), new Uint8Array(OUTPUTS[name])]) {
      refused({ [name]: wrong }, "Type", name);
    }
  });
  test(`${name} without its buffer`, () => {
    refused({ [name]: detached(new Float32Array(OUTPUTS[name])) }, "Detached", name);
  });
}

for (const [name, right, other] of [
  ["mask", MASK, Float32Array],
  ["bias", BIAS, Uint8Array],
]) {
  const { data, shape } = right;
  test(`${name} of a wrong length`, () => {
    for (const length of wrongLengths(data.length)) {
      const message = `${name}: ${data.length} elements needed, ${length} given`;
      refused({ [name]: { data: new data.constructor(length), shape } }, "Length", name, message);
    }
    refused({ [name]: { data: data.slice(0, 3), shape: [1, 1, 1, 4] } }, "Length", name);
  });
  test(`${name} of a wrong class`, () => {
    for (const wrong of [...wrongClasses(data.length), new other(data.length)]) {
      refused({ [name]: { data: wrong, shape } }, "Type", name);
    }
    for (const wrong of [true, 1, null, "anticausal", data]) {
      refused({ [name]: wrong }, "Type", name);
    }
  });
  test(`${name} without its buffer`, () => refused({ [name]: { data: detached(data), shape } }, "Detached", name));
  test(`${name} of a wrong shape`, () => {
    for (const [axis, size] of shape.entries()) {
      for (const extent of [0, 5, size + 1]) {
        const wrong = shape.with?.(axis, extent) ?? shape.map((same, i) => (i === axis ? extent : same));
        const given = { data: new data.constructor(wrong.reduce((a, b) => a * b)), shape: wrong };
        const message = `${name}: extent ${extent} of axis ${axis} is neither 1 nor ${size}`;
        refused({ [name]: given }, "Broadcast", name, message);
      }
    }
    for (const wrong of [undefined, 4, [1, 1, 4], [1, 1, 1, 1, 4], "1114"]) {
      refused({ [name]: { data, shape: wrong } }, "Type", name);
    }
    refused({ [name]: { data, shape: [2, 4, 3, -4] } }, "Value", name);
    refused({ [name]: { data, shape: [2, 4, 3, 0.5] } }, "Value", name);
    refused({ [name]: { data, shape: [2, 4, 3, "4"] } }, "Type", name);
    refused({ [name]: { data, shape: [2, 4, 3, 2 ** 32] } }, "TooLarge", name);
  });
}

test("a buffer that has shrunk away", { skip: ArrayBuffer.prototype.resize === undefined }, () => {
  refused({ q: shrunk(INPUTS.q) }, "Detached", "q");
  refused({ mask: { data: shrunk(MASK.data), shape: MASK.shape } }, "Detached", "mask");
  refused({ y: shrunk(new Float32Array(OUTPUTS.y)) }, "Detached", "y");
});

test("wrong lengths of the call", () => {
  for (const name of ["batch", "qLen", "kvLen"]) {
    for (const wrong of [-1, 0.5, NaN, Infinity]) {
      refused({ [name]: wrong }, "Value", "shape");
    }
    for (const wrong of ["2", null, {}, 2n]) {
      refused({ [name]: wrong }, "Type", "shape");
    }
    refused({ [name]: 2 ** 32 }, "TooLarge", "shape");
  }
  refused({ batch: 3 }, "Length", "q");
  refused({ qLen: 2 }, "Length", "q");
  refused({ kvLen: 5 }, "Length", "k");
});

test("sizes that do not fit the address space", () => {
  const none = { q: new Float32Array(0), k: new Float32Array(0), v: new Float32Array(0), y: undefined, scores: undefined };
  for (const [shape, argument] of [
    [{ batch: 2 ** 31, qLen: 2 ** 31, kvLen: 0 }, "y"],
    [{ batch: 1, qLen: 2 ** 32 - 1, kvLen: 0 }, "y"],
    [{ batch: 1, qLen: 0, kvLen: 2 ** 32 - 1 }, "shape"],
  ]) {
    refused({ ...none, ...shape }, "TooLarge", argument);
  }
  refused({ ...none, batch: 1, qLen: 2 ** 14, kvLen: 2 ** 14, scores: true }, "TooLarge", "scores");
});

test("more memory than there is", () => {
  const none = { q: new Float32Array(0), k: new Float32Array(0), v: new Float32Array(0), y: undefined, scores: undefined };
  const before = mha.memoryBytes;
  // y alone would fit; with the scratch it is beyond what one module can have.
  refused({ ...none, batch: 1, qLen: 2 ** 26, kvLen: 2 ** 23 }, "Memory", "shape", "shape: out of memory");
  assert.equal(mha.memoryBytes, before);
});

test("wrong causal options", () => {
  for (const length of [0, 1, 3]) {
    const message = `causal: 2 elements needed, ${length} given`;
    refused({ causalOffset: new Int32Array(length) }, "Length", "causal", message);
  }
  for (const wrong of [[0, 0], new Float32Array(2), new BigInt64Array(2), "0", {}]) {
    refused({ causalOffset: wrong }, "Type", "causal");
  }
  refused({ causalOffset: detached(new Int32Array(2)) }, "Detached", "causal");
  for (const wrong of [0.5, NaN, Infinity]) {
    refused({ causalOffset: wrong }, "Value", "causal");
  }
  for (const wrong of [1, "yes", null]) {
    refused({ causal: wrong }, "Type", "causal");
  }
});

test("wrong dropout", () => {
  for (const p of [1, -0.1, 1.5, NaN, Infinity]) {
    refused({ dropout: { p, seed: 1 } }, "Value", "dropout");
  }
  for (const dropout of [0.1, { p: 0.1 }, { p: "0.1", seed: 1 }, { p: 0.1, seed: 0.5 }, { p: 0.1, seed: 2 ** 60 }, null]) {
    refused({ dropout }, "Type", "dropout");
  }
  for (const seed of [-1, -1n, 1n << 64n]) {
    refused({ dropout: { p: 0.1, seed } }, "Value", "dropout");
  }
});

test("a place to take scores that there is not", () => {
  refused({ scoresAt: "weights" }, "Value", "scores");
  refused({ scoresAt: 1 }, "Value", "scores");
});

test("no options", () => {
  for (const wrong of [undefined, null, 5, "q"]) {
    throws(() => layer.forward(wrong), "Type", "options");
    throws(() => mha.layer(wrong), "Type", "options");
    throws(() => mha.dotProductAttention(wrong), "Type", "options");
    throws(() => mha.dotProductAttentionScores(wrong), "Type", "options");
  }
});

for (const [name, right] of Object.entries(WEIGHTS)) {
  const made = (value) => () => mha.layer({ ...LAYER, weights: { ...WEIGHTS, [name]: value } });
  test(`${name} of a wrong length`, () => {
    for (const length of wrongLengths(right.length)) {
      throws(made(floats(length)), "Length", name, `${name}: ${right.length} elements needed, ${length} given`);
    }
  });
  test(`${name} of a wrong class`, () => {
    for (const wrong of [...wrongClasses(right.length), new Uint8Array(right.length)]) {
      throws(made(wrong), "Type", name);
    }
    if (name.startsWith("w")) {
      throws(made(undefined), "Type", name);
    }
  });
  test(`${name} without its buffer`, () => throws(made(detached(right)), "Detached", name));
}

test("weights in one array", () => {
  const [plain, biases] = [40 + 56 + 36 + 72, 8 + 8 + 12 + 6];
  const made = (weights) => () => mha.layer({ ...LAYER, weights });
  for (const length of [plain, plain + biases]) {
    made(floats(length))().dispose();
    for (const wrong of [length - 1, length + 1, 0]) {
      throws(made(floats(wrong)), "Length", "weights");
    }
  }
  throws(made(new Float64Array(plain)), "Type", "weights");
  throws(made([...floats(plain)]), "Type", "weights");
  throws(made(detached(floats(plain))), "Detached", "weights");
  throws(made(undefined), "Type", "weights");
  throws(made(null), "Type", "weights");
});

test("wrong dims", () => {
  const made = (dims) => () => mha.layer({ ...LAYER, dims });
  for (const name of Object.keys(DIMS)) {
    throws(made({ ...DIMS, [name]: 0 }), "Zero", "dims", "dims: a size is zero");
    throws(made({ ...DIMS, [name]: -1 }), "Value", "dims");
    throws(made({ ...DIMS, [name]: 1.5 }), "Value", "dims");
    throws(made({ ...DIMS, [name]: NaN }), "Value", "dims");
    throws(made({ ...DIMS, [name]: 2 ** 32 }), "TooLarge", "dims");
    throws(made({ ...DIMS, [name]: "8" }), "Type", "dims");
    throws(made({ ...DIMS, [name]: undefined }), "Type", "dims");
  }
  throws(made(0), "Zero", "dims");
  throws(made(2 ** 31), "TooLarge", "dims");
  throws(made({ in: 8, qkv: 8 }), "Type", "dims");
  throws(made({ in: 8, qIn: 8, qkv: 8, out: 8 }), "Type", "dims");
  throws(made({ in: 8, qkv: 8, qk: 8, v: 8, out: 8 }), "Type", "dims");
  throws(made([8]), "Type", "dims");
  throws(made("8"), "Type", "dims");
  throws(made(null), "Type", "dims");
});

test("wrong heads", () => {
  const made = (heads) => () => mha.layer({ ...LAYER, heads });
  throws(made(0), "Zero", "heads");
  throws(made(3), "Heads", "heads", "heads: 3 heads do not divide a width of 8");
  throws(made(8), "Heads", "heads", "heads: 8 heads do not divide a width of 12");
  throws(made(-4), "Value", "heads");
  throws(made(0.5), "Value", "heads");
  throws(made("4"), "Type", "heads");
  throws(made(2 ** 32 + 4), "TooLarge", "heads");
});

test("wrong scale and order", () => {
  for (const scale of [NaN, Infinity, -Infinity, 1e39]) {
    throws(() => mha.layer({ ...LAYER, scale }), "Value", "scale");
    throws(() => mha.dotProductAttention({ q: floats(8), dims: 4, scale }), "Value", "scale");
  }
  throws(() => mha.layer({ ...LAYER, scale: "1" }), "Type", "scale");
  throws(() => mha.layer({ ...LAYER, weightOrder: "row-major" }), "Value", "weights");
});

test("attention without projections is checked alike", () => {
  const call = { q: floats(12), k: floats(20), v: floats(10), dims: { qk: 4, v: 2 }, heads: 2 };
  const run = (options) => () => mha.dotProductAttention({ ...call, ...options });
  run({})();
  throws(run({ q: floats(13) }), "Length", "q");
  throws(run({ k: floats(21) }), "Length", "k");
  throws(run({ v: floats(11) }), "Length", "v", "v: 10 elements needed, 11 given");
  throws(run({ q: new Float64Array(12) }), "Type", "q");
  throws(run({ q: detached(call.q) }), "Detached", "q");
  throws(run({ heads: 3 }), "Heads", "heads");
  throws(run({ heads: 0 }), "Zero", "heads");
  throws(run({ dims: 0 }), "Zero", "dims");
  throws(run({ dims: { qk: 4, v: 0 } }), "Zero", "dims");
  throws(run({ dims: { qk: 4 } }), "Type", "dims");
  throws(run({ dims: undefined }), "Type", "dims");
  throws(run({ mask: { data: new Uint8Array(5), shape: [1, 1, 1, 6] } }), "Broadcast", "mask");
  const y = new Float32Array(5).fill(PATTERN);
  throws(run({ y }), "Length", "y", "y: 6 elements needed, 5 given");
  assert.ok(y.every((x) => x === PATTERN));
  const scores = new Float32Array(29).fill(PATTERN);
  throws(run({ scores }), "Length", "scores", "scores: 30 elements needed, 29 given");
  const { v: _, ...keys } = call;
  throws(() => mha.dotProductAttentionScores({ ...keys, scores }), "Length", "scores");
  throws(() => mha.dotProductAttentionScores({ ...keys, scores: [] }), "Type", "scores");
  assert.ok(scores.every((x) => x === PATTERN));
});

test("use after dispose", () => {
  const made = mha.layer(LAYER);
  assert.equal(made.disposed, false);
  made.dispose();
  assert.equal(made.disposed, true);
  throws(() => made.forward({ ...INPUTS, ...SHAPE }), "Disposed", "layer");
  made.dispose();
  throws(() => made.forward({ ...INPUTS, ...SHAPE }), "Disposed", "layer");
  // What is left of it is harmless.
  assert.deepEqual(made.dims, DIMS);
  assert.equal(layer.forward({ ...INPUTS, ...SHAPE }).y.length, OUTPUTS.y);
});

test("the end of a using block disposes", { skip: Symbol.dispose === undefined }, () => {
  const made = mha.layer(LAYER);
  made[Symbol.dispose]();
  throws(() => made.forward({ ...INPUTS, ...SHAPE }), "Disposed", "layer");
});

test("arrays over shared memory are arrays", () => {
  const shared = (array) => {
    const copy = new array.constructor(new SharedArrayBuffer(array.byteLength));
    copy.set(array);
    return copy;
  };
  const usual = layer.forward({ ...INPUTS, ...SHAPE, scores: true });
  const [q, k, v] = [INPUTS.q, INPUTS.k, INPUTS.v].map(shared);
  const [y, scores] = [usual.y, usual.scores].map((array) => shared(array).fill(NaN));
  layer.forward({ ...INPUTS, ...SHAPE, q, k, v, y, scores });
  assert.deepEqual([...y], [...usual.y]);
  assert.deepEqual([...scores], [...usual.scores]);
});

test("an array whose buffer has shrunk away under it is noticed", () => {
  const buffer = new ArrayBuffer(4 * OUTPUTS.y, { maxByteLength: 8 * OUTPUTS.y });
  const y = new Float32Array(buffer, 4, OUTPUTS.y - 1);
  buffer.resize(4);
  throws(() => layer.forward({ ...INPUTS, ...SHAPE, y }), "Detached", "y");
});

test("an option that takes an array away is noticed", () => {
  // A getter that takes the buffer of another argument away when it is its turn.
  const victim = INPUTS.q.slice();
  const y = new Float32Array(OUTPUTS.y).fill(PATTERN);
  const options = {
    ...INPUTS,
    ...SHAPE,
    q: victim,
    y,
    get scoresAt() {
      structuredClone(victim.buffer, { transfer: [victim.buffer] });
      return "softmax";
    },
  };
  throws(() => layer.forward(options), "Detached", "q");
  assert.ok(y.every((x) => x === PATTERN));
});

test("every number has a test", () => {
  // Those of the attention family have theirs in family.test.mjs, of the way back in train.test.mjs, what is
  // absent in plain.test.mjs.
  assert.deepEqual(Object.keys(ErrorCode), [
    "Zero", "Heads", "TooLarge", "Length", "Broadcast", "Value", "Range", "Conflict", "CacheFull", "NoGradient",
    "NoWayBack", "Type", "Detached", "Disposed", "Memory", "Absent",
  ]);
});
