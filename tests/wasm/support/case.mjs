// Reads a case (a layer, its inputs, somebody else's outputs; a safetensors file) as an application
// would: into options of this package, with the lengths left to follow from the arrays.

import { readFileSync } from "node:fs";

const KEYS = new Set(
  "dims heads weights scale causal causal_offset scores_at dropout y_tol scores_tol source".split(" "),
);

/** The value of sixteen bits: sign, five bits of exponent, ten of fraction. */
function half(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 31 ? (fraction ? NaN : Infinity) : exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}

const READERS = {
  F32: (data) => new Float32Array(data),
  F16: (data) => Float32Array.from(new Uint16Array(data), half),
  BF16: (data) => new Float32Array(Uint32Array.from(new Uint16Array(data), (bits) => bits << 16).buffer),
  I64: (data) => new BigInt64Array(data),
  U8: (data) => new Uint8Array(data),
  BOOL: (data) => new Uint8Array(data),
};

/** Tensors by name, `{ shape, data }`, and the metadata. */
export function safetensors(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata, ...entries } = JSON.parse(file.toString("utf8", 8, 8 + length));
  const start = file.byteOffset + 8 + length;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
    tensors[name] = { shape, data: READERS[dtype](file.buffer.slice(start + from, start + to)) };
  }
  return { metadata, tensors };
}

/** Fewer axes than four stand for the last ones. */
const broadcast = ({ shape, data }) => ({ data, shape: [1, 1, 1, 1, ...shape].slice(-4) });

/** The case in a file: the layer's options, the call's, and what is expected. */
export function readCase(path) {
  const { metadata, tensors } = safetensors(path);
  const about = JSON.parse(metadata.mha);
  const unknown = Object.keys(about).filter((key) => !KEYS.has(key));
  if (unknown.length > 0) {
    throw new Error(`${path}: unknown ${unknown}`);
  }
  const projected = (about.weights ?? "in_out") !== "none";
  const layer = { heads: about.heads, scale: about.scale, dims: dims(about.dims, projected) };
  if (projected) {
    const names = ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"];
    layer.weights = Object.fromEntries(names.map((name) => [name, tensors[name]?.data]));
    layer.weightOrder = about.weights;
  }
  // All axes in front of the length are batch.
  const batch = tensors.q.shape.slice(0, -2).reduce((product, extent) => product * extent, 1);
  const offset = about.causal_offset;
  const call = {
    batch,
    q: tensors.q.data,
    k: tensors.k?.data,
    v: tensors.v?.data,
    mask: tensors.mask && broadcast(tensors.mask),
    bias: tensors.bias && broadcast(tensors.bias),
    causal: about.causal ?? false,
    causalOffset: Array.isArray(offset) ? Int32Array.from(offset) : offset,
    // The text, because a number of JavaScript has 53 bits.
    dropout: about.dropout && { ...about.dropout, seed: BigInt(/"seed":\s*(\d+)/.exec(metadata.mha)[1]) },
    scores: tensors.scores !== undefined,
    // Without a softcap, after it is the same as before.
    scoresAt: about.scores_at === "capped" ? "logits" : about.scores_at,
  };
  if (call.q.length === 0 || call.k?.length === 0) {
    // Nothing tells how long what is empty is.
    call.qLen = tensors.q.shape.at(-2);
    call.kvLen = (tensors.k ?? tensors.q).shape.at(-2);
  }
  return {
    projected,
    layer,
    call,
    y: tensors.y?.data,
    scores: tensors.scores?.data,
    yTolerance: about.y_tol ?? [2e-5, 2e-5],
    scoresTolerance: about.scores_tol ?? [2e-5, 2e-5],
  };
}

/** A case's widths, missing ones filled in as Flux's shorter forms would. */
function dims(given, projected) {
  if (typeof given === "number") {
    return given;
  }
  if (!projected) {
    return { qk: given.qk, v: given.v ?? given.qk };
  }
  const { q_in: qIn, k_in: kIn = qIn, v_in: vIn = kIn, qk = qIn, v = qk, out = qIn } = given;
  return { qIn, kIn, vIn, qk, v, out };
}
