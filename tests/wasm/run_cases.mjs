// The JavaScript door of `cargo xtask check`: reads requests on standard input, answers on standard
// output, until the input ends. What the bytes mean is said in tests/conformance/src/wire.rs.

import { readSync, writeSync } from "node:fs";

import { MhaError, TrainError, load, loadTraining } from "./support/mha.mjs";

const MAGIC = 0x3143_414d_4148_4d31n;
const WORDS = 58;
const GRADIENTS = ["q", "k", "v", "wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo", "bias"];
const NEWER = -100n;
const SCORES_AT = ["softmax", "logits", "masked", "capped"];
const [LAYER, , ROTATION] = [1, 2, 3];
/** Positions that lie side by side in a cache's keys. */
const BLOCK = 16;

/** Calls a system call again while the pipe is not ready. */
function patiently(call) {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (error.code !== "EAGAIN") {
        throw error;
      }
    }
  }
}

/** The next bytes, in a buffer of their own; undefined where the input ends before the first. */
function bytes(length) {
  const data = new Uint8Array(length);
  for (let have = 0; have < length; ) {
    const got = patiently(() => readSync(0, data, have, length - have, null));
    if (got === 0) {
      if (have === 0) {
        return undefined;
      }
      throw new Error("the request broke off");
    }
    have += got;
  }
  return data;
}

const words = (count) => new BigUint64Array(bytes(count * 8).buffer);
const floats = (count) => new Float32Array(bytes(count * 4).buffer);

function write(data) {
  const all = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let done = 0; done < all.length; ) {
    done += patiently(() => writeSync(1, all, done));
  }
}

function refuse(status, message) {
  const text = new TextEncoder().encode(message);
  write(BigInt64Array.of(BigInt(status), BigInt(text.length)));
  write(text);
}

/** An offset of 64 bits as one of 32: beyond that it makes no difference. */
const offset = (word) => Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, Number(BigInt.asIntN(64, word))));

/** The float whose bits lie in the low half of a word. */
const float = (word) => new Float32Array(Uint32Array.of(Number(word & 0xffff_ffffn)).buffer)[0];

const mha = await load();
const trainer = await loadTraining();

/** Reads one request to its end and gives what answers it; undefined where there is none. */
function request() {
  const start = bytes(16);
  if (start === undefined) {
    return undefined;
  }
  const [magic, count] = new BigUint64Array(start.buffer);
  if (magic !== MAGIC) {
    throw new Error("this is not a request");
  }
  const all = words(Number(count));
  if (all.subarray(WORDS).some((word) => word !== 0n)) {
    // How long the rest of the request is, nobody knows.
    refuse(NEWER, "a newer protocol");
    process.exit(0);
  }
  const header = Array.from({ length: WORDS }, (_, i) => all[i] ?? 0n);
  const size = (i) => Number(header[i]);
  const extents = (i) => [size(i), size(i + 1), size(i + 2), size(i + 3)];
  const elements = (shape) => shape.reduce((product, extent) => product * extent, 1);

  const kind = size(0);
  const projected = kind === LAYER;
  const [qIn, kIn, vIn, qk, v, out, heads] = header.slice(1, 8).map(Number);
  const [batch, qLen, kvLen] = header.slice(11, 14).map(Number);
  const kvHeads = size(32) || heads;
  const [keyFeatures, valueFeatures] = [(kvHeads * qk) / heads, (kvHeads * v) / heads];
  const options = { heads, kvHeads, scale: size(9) ? float(header[10]) : undefined };
  if (kind === ROTATION) {
    const x = floats(batch * heads * qLen * (qk / heads));
    const rows = Array.from(words(batch * qLen), Number);
    const table = () => floats(size(55) * (size(44) / 2));
    const rope = { dims: size(44), interleaved: size(45) === 1, cos: table(), sin: table() };
    return { kind, options, x, rows, rope, sizes: { batch, heads, length: qLen, d: qk / heads } };
  }
  const call = {
    qLen,
    q: floats(batch * qLen * qIn),
  };
  const keys = { k: floats(batch * kvLen * kIn), v: floats(batch * kvLen * vIn) };
  if (projected) {
    options.dims = { qIn, kIn, vIn, qk, v, out };
    options.weightOrder = size(8) === 1 ? "out_in" : "in_out";
    options.weights = {
      wq: floats(qIn * qk),
      wk: floats(kIn * keyFeatures),
      wv: floats(vIn * valueFeatures),
      wo: floats(v * out),
    };
    const widths = { bq: qk, bk: keyFeatures, bv: valueFeatures, bo: out };
    for (const [bit, [name, width]] of Object.entries(widths).entries()) {
      if (size(31) & (1 << bit)) {
        options.weights[name] = floats(width);
      }
    }
  } else {
    options.dims = { qk, v };
  }
  /** An offset for all sequences, one for each, or none. */
  const offsets = (mode, by) =>
    size(mode) === 1 ? offset(header[by]) : size(mode) === 2 ? Int32Array.from(words(batch), offset) : undefined;
  call.causalOffset = offsets(14, 15);
  if (size(18)) {
    call.dropout = { p: float(header[19]), seed: header[20] };
  }
  if (size(21)) {
    call.mask = { shape: extents(22), data: bytes(elements(extents(22))) };
  }
  if (size(26)) {
    call.bias = { shape: extents(27), data: floats(elements(extents(27))) };
  }

  // The attention family.
  call.offset = offsets(33, 34);
  call.window = {
    left: size(35) ? size(36) : undefined,
    right: size(37) ? size(38) : undefined,
  };
  if (size(39)) {
    call.lens = Uint32Array.from(words(batch), Number);
  }
  call.softcap = size(40) ? float(header[41]) : undefined;
  call.alibi = size(42) === 2 ? floats(heads) : size(42) === 1;
  if (size(43)) {
    call.rope = {
      dims: size(44),
      interleaved: size(45) === 1,
      base: float(header[46]),
      qOffset: size(47) ? size(48) : undefined,
      kOffset: size(49) ? size(50) : undefined,
    };
  }
  if (size(51)) {
    call.sinks = floats(heads);
  }
  const pastLen = size(53);
  const past = pastLen > 0 ? { k: floats(batch * pastLen * keyFeatures), v: floats(batch * pastLen * valueFeatures) } : undefined;

  let back;
  if (size(56)) {
    const wanted = GRADIENTS.filter((_, bit) => size(56) & (1 << bit));
    back = {
      dy: floats(batch * qLen * (projected ? out : v)),
      dscores: size(57) ? floats(batch * heads * qLen * kvLen) : undefined,
      batch,
      kvLen,
      gradients: Object.fromEntries(wanted.map((name) => [name, true])),
    };
  }

  // Full of NaN, so that an element that the library forgets to write is noticed.
  call.y = new Float32Array(batch * qLen * (projected ? out : v)).fill(NaN);
  const columns = pastLen + kvLen;
  if (size(16)) {
    call.scores = new Float32Array(batch * heads * qLen * columns).fill(NaN);
    call.scoresAt = SCORES_AT[size(17)];
  }
  const cache = size(52) ? { batch, capacity: columns } : undefined;
  if (cache === undefined) {
    Object.assign(call, keys, { batch, kvLen });
  }
  return { kind, options, call, keys, cache, past, back, present: size(54) === 1, sizes: { batch, kvHeads, columns, d: qk / heads, dV: v / heads } };
}

/** A feature of the key at a position of one head, of those of all sequences, as a cache keeps it. */
const keyOf = (keys, blocks, head, features, position, feature) =>
  keys[((head * blocks + Math.floor(position / BLOCK)) * features + feature) * BLOCK + (position % BLOCK)];

/** What a full cache holds, `[batch, kvHeads, positions, d]`: keys and values. */
function present(cache, { batch, kvHeads, columns, d, dV }) {
  const { keys, values } = cache.save();
  const blocks = Math.ceil(columns / BLOCK);
  const out = [new Float32Array(batch * kvHeads * columns * d), new Float32Array(batch * kvHeads * columns * dV)];
  let [k, v] = [0, 0];
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < kvHeads; head++) {
      for (let i = 0; i < columns; i++) {
        for (let e = 0; e < d; e++) {
          out[0][k++] = keyOf(keys, blocks, b * kvHeads + head, d, i, e);
        }
        for (let e = 0; e < dV; e++) {
          out[1][v++] = values[((b * kvHeads + head) * columns + i) * dV + e];
        }
      }
    }
  }
  return out;
}

/** Rotation alone: each position as a key that is appended to a cache, where it can be read. */
function rotate({ x, rows, rope, sizes: { batch, heads, length, d } }) {
  const rotated = new Float32Array(x.length);
  if (x.length === 0) {
    return rotated;
  }
  const [features, positions] = [heads * d, batch * length];
  const cache = mha.cache({ dims: { qk: features, v: heads }, heads, capacity: positions });
  const at = (b, head, i, e) => ((b * heads + head) * length + i) * d + e;
  for (let place = 0; place < positions; place++) {
    const [b, i] = [Math.floor(place / length), place % length];
    const k = Float32Array.from({ length: features }, (_, f) => x[at(b, Math.floor(f / d), i, f % d)]);
    cache.append({ k, v: new Float32Array(heads), rope: { ...rope, kOffset: rows[place] } });
  }
  const { keys } = cache.save();
  const blocks = Math.ceil(positions / BLOCK);
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < length; i++) {
        for (let e = 0; e < d; e++) {
          rotated[at(b, head, i, e)] = keyOf(keys, blocks, head, d, b * length + i, e);
        }
      }
    }
  }
  cache.dispose();
  return rotated;
}

/** Carries out a call, with a cache if it takes one. */
function run({ kind, options, call, keys, cache: cached, past, present: wanted, sizes }) {
  let layer;
  let cache;
  try {
    layer = kind === LAYER ? mha.layer(options) : undefined;
    if (cached === undefined) {
      layer === undefined ? mha.dotProductAttention({ ...options, ...call }) : layer.forward(call);
      return [];
    }
    cache = layer === undefined ? mha.cache({ ...options, ...cached }) : layer.cache(cached);
    if (past !== undefined) {
      cache.append(past);
    }
    const { rope } = call;
    if (layer === undefined) {
      cache.append({ ...keys, rope });
      mha.dotProductAttentionCached(cache, { ...options, ...call });
    } else {
      layer.append(cache, { ...keys, rope });
      layer.attend(cache, call);
    }
    return wanted ? present(cache, sizes) : [];
  } finally {
    cache?.dispose();
    layer?.dispose();
  }
}

/** Goes back over a call; its gradients in their order. */
function goBack({ kind, options, call, keys, back }) {
  const { y, scores, scoresAt, ...rest } = call;
  const given = { ...rest, ...keys, ...back };
  if (kind !== LAYER) {
    return Object.values(trainer.dotProductAttentionBackward({ ...options, ...given }));
  }
  const layer = trainer.layer(options);
  try {
    return Object.values(layer.backward(given));
  } finally {
    layer.dispose();
  }
}

for (let next = request(); next !== undefined; next = request()) {
  try {
    if (next.kind === ROTATION) {
      const rotated = rotate(next);
      write(BigInt64Array.of(0n));
      write(rotated);
      continue;
    }
    const held = run(next);
    if (next.back !== undefined) {
      held.push(...goBack(next));
    }
    write(BigInt64Array.of(0n));
    write(next.call.y);
    if (next.call.scores !== undefined) {
      write(next.call.scores);
    }
    held.forEach(write);
  } catch (error) {
    if (!(error instanceof MhaError || error instanceof TrainError)) {
      throw error;
    }
    refuse(error.code, error.message);
  }
}
