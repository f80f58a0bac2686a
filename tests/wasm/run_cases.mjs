// The JavaScript door of `cargo xtask check`: reads requests on standard input, answers on standard
// output, until the input ends. What the bytes mean is said in tests/conformance/src/wire.rs.

import { readSync, writeSync } from "node:fs";

import { MhaError, load } from "./support/mha.mjs";

const MAGIC = 0x3143_414d_4148_4d31n;
const WORDS = 32;
const NEWER = -100n;
const SCORES_AT = ["softmax", "logits", "masked"];

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

  const projected = size(0) === 1;
  const [qIn, kIn, vIn, qk, v, out, heads] = header.slice(1, 8).map(Number);
  const [batch, qLen, kvLen] = header.slice(11, 14).map(Number);
  const options = { heads, scale: size(9) ? float(header[10]) : undefined };
  const call = {
    batch,
    qLen,
    kvLen,
    q: floats(batch * qLen * qIn),
    k: floats(batch * kvLen * kIn),
    v: floats(batch * kvLen * vIn),
  };
  if (projected) {
    options.dims = { qIn, kIn, vIn, qk, v, out };
    options.weightOrder = size(8) === 1 ? "out_in" : "in_out";
    options.weights = { wq: floats(qIn * qk), wk: floats(kIn * qk), wv: floats(vIn * v), wo: floats(v * out) };
    for (const [bit, [name, width]] of Object.entries({ bq: qk, bk: qk, bv: v, bo: out }).entries()) {
      if (size(31) & (1 << bit)) {
        options.weights[name] = floats(width);
      }
    }
  } else {
    options.dims = { qk, v };
  }
  if (size(14) === 1) {
    call.causalOffset = offset(header[15]);
  } else if (size(14) === 2) {
    call.causalOffset = Int32Array.from(words(batch), offset);
  }
  if (size(18)) {
    call.dropout = { p: float(header[19]), seed: header[20] };
  }
  if (size(21)) {
    call.mask = { shape: extents(22), data: bytes(elements(extents(22))) };
  }
  if (size(26)) {
    call.bias = { shape: extents(27), data: floats(elements(extents(27))) };
  }
  // Full of NaN, so that an element that the library forgets to write is noticed.
  call.y = new Float32Array(batch * qLen * (projected ? out : v)).fill(NaN);
  if (size(16)) {
    call.scores = new Float32Array(batch * heads * qLen * kvLen).fill(NaN);
    call.scoresAt = SCORES_AT[size(17)];
  }
  return { projected, options, call };
}

for (let next = request(); next !== undefined; next = request()) {
  const { projected, options, call } = next;
  let layer;
  try {
    if (projected) {
      layer = mha.layer(options);
      layer.forward(call);
    } else {
      mha.dotProductAttention({ ...options, ...call });
    }
    write(BigInt64Array.of(0n));
    write(call.y);
    if (call.scores !== undefined) {
      write(call.scores);
    }
  } catch (error) {
    if (!(error instanceof MhaError)) {
      throw error;
    }
    refuse(error.code, error.message);
  } finally {
    layer?.dispose();
  }
}
