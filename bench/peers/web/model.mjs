// The layer as an ONNX model: a graph of products, a softmax and transpositions, written as the bytes of
// its protocol buffer.

const text = new TextEncoder();

function varint(n) {
  const bytes = [];
  for (; n > 127; n = Math.floor(n / 128)) {
    bytes.push((n % 128) | 128);
  }
  return [...bytes, n];
}

function join(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const number = (field, n) => new Uint8Array([...varint(field * 8), ...varint(n)]);
const bytes = (field, ...parts) => {
  const all = join(parts);
  return join([new Uint8Array([...varint(field * 8 + 2), ...varint(all.length)]), all]);
};
const string = (field, s) => bytes(field, text.encode(s));

const [FLOAT, INT64] = [1, 7];
const [INT, INTS] = [2, 7];

function tensor(field, name, dims, data) {
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const type = data instanceof Float32Array ? FLOAT : INT64;
  return bytes(field, ...dims.map((dim) => number(1, dim)), number(2, type), string(8, name), bytes(9, raw));
}

function attribute(name, value) {
  const list = Array.isArray(value);
  const values = list ? value.map((n) => number(8, n)) : [number(3, value)];
  return bytes(5, string(1, name), ...values, number(20, list ? INTS : INT));
}

function value(field, name, dims) {
  const shape = dims === undefined ? [] : [bytes(2, ...dims.map((dim) => bytes(1, number(1, dim))))];
  return bytes(field, string(1, name), bytes(2, bytes(1, number(1, FLOAT), ...shape)));
}

/** The model, and its inputs by name: `[dims, data]`. `past` is laid out as its readers like it. */
export function model(layer, tensors) {
  const { batch, heads, past, qk, v, q_len, kv_len } = layer;
  const parts = [];
  const node = (op, inputs, outputs, attributes = {}) => {
    const names = [...inputs.map((name) => string(1, name)), ...outputs.map((name) => string(2, name))];
    parts.push(bytes(1, ...names, string(4, op), ...Object.entries(attributes).map(([name, value]) => attribute(name, value))));
    return outputs[0];
  };
  const constant = (name, dims, data) => {
    parts.push(tensor(5, name, dims, data));
    return name;
  };
  const ints = (name, list) => constant(name, [list.length], new BigInt64Array(list.map(BigInt)));
  const split = (name, width, perm) => {
    const shape = ints(`${name}_shape`, [0, -1, heads, width / heads]);
    return node("Transpose", [node("Reshape", [name, shape], [`${name}_split`])], [`${name}_heads`], { perm });
  };
  // The scale goes into the weights of the queries, as a user would who knows.
  const scale = Math.fround((qk / heads) ** -0.5);
  const wq = constant("wq", [layer.q_in, qk], tensors.wq.map((w) => w * scale));
  const wk = constant("wk", [layer.k_in, qk], tensors.wk);
  const wv = constant("wv", [layer.v_in, v], tensors.wv);
  const wo = constant("wo", [v, layer.out], tensors.wo);
  const q = split(node("MatMul", ["q", wq], ["pq"]), qk, [0, 2, 1, 3]);
  const k = split(node("MatMul", ["k", wk], ["pk"]), qk, [0, 2, 3, 1]);
  const values = split(node("MatMul", ["v", wv], ["pv"]), v, [0, 2, 1, 3]);
  let logits = node("MatMul", [q, k], ["logits"]);
  if (past > 0) {
    // The logits are brought together, not the keys: they are few.
    logits = node("Concat", [node("MatMul", [q, "past_k"], ["old_logits"]), logits], ["all_logits"], { axis: 3 });
  }
  const scores = node("Softmax", [logits], ["scores"], { axis: 3 });
  let mixed;
  if (past > 0) {
    node("Split", [scores, ints("sizes", [past, kv_len - past])], ["old", "new"], { axis: 3 });
    mixed = node("Add", [node("MatMul", ["old", "past_v"], ["m0"]), node("MatMul", ["new", values], ["m1"])], ["mixed"]);
  } else {
    mixed = node("MatMul", [scores, values], ["mixed"]);
  }
  const joined = node("Transpose", [mixed], ["joined"], { perm: [0, 2, 1, 3] });
  const flat = node("Reshape", [joined, ints("y_shape", [0, 0, v])], ["flat"]);
  node("MatMul", [flat, wo], ["y"]);

  const fresh = kv_len - past;
  const inputs = {
    q: [[batch, q_len, layer.q_in], tensors.q],
    k: [[batch, fresh, layer.k_in], tensors.k],
    v: [[batch, fresh, layer.v_in], tensors.v],
  };
  if (past > 0) {
    inputs.past_k = [[batch, heads, qk / heads, past], columns(tensors.past_k, past, qk)];
    inputs.past_v = [[batch, heads, past, v / heads], rows(tensors.past_v, past, v, heads)];
  }
  const outputs = layer.scores ? ["y", "scores"] : ["y"];
  const graph = [
    ...parts,
    string(2, "layer"),
    ...Object.entries(inputs).map(([name, [dims]]) => value(11, name, dims)),
    ...outputs.map((name) => value(12, name)),
  ];
  return { bytes: join([number(1, 9), bytes(7, ...graph), bytes(8, string(1, ""), number(2, 20))]), inputs };
}

/** `[past, width]` as `[width, past]`, which is heads one after another. One sequence. */
export function columns(data, past, width) {
  const turned = new Float32Array(data.length);
  for (let i = 0; i < past; i++) {
    for (let j = 0; j < width; j++) {
      turned[j * past + i] = data[i * width + j];
    }
  }
  return turned;
}

/** `[past, width]` as `[heads, past, width / heads]`. One sequence. */
export function rows(data, past, width, heads) {
  const [apart, each] = [new Float32Array(data.length), width / heads];
  for (let i = 0; i < past; i++) {
    for (let j = 0; j < width; j++) {
      apart[(Math.floor(j / each) * past + i) * each + (j % each)] = data[i * width + j];
    }
  }
  return apart;
}
