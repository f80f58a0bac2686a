// A case: a layer, its inputs, and the outputs that somebody else's code computed for them.

import type { Bias, Extents, ForwardOptions, Mask, Weights } from "mha/train";

import { describe, type Description } from "./description.js";
import { fail, type Tensor, Tensors } from "./tensors.js";

/** One case, read whole. */
export interface Case {
  readonly about: Description;
  readonly batch: number;
  readonly qLen: number;
  /** New keys; those of the past come before them. */
  readonly kvLen: number;
  readonly q: Float32Array;
  readonly k: Float32Array | undefined;
  readonly v: Float32Array | undefined;
  readonly weights: Weights | undefined;
  /** Masks, rules and the other options of the call. */
  readonly options: Partial<ForwardOptions>;
  readonly past: { readonly len: number; readonly k: Float32Array; readonly v: Float32Array } | undefined;
  readonly y: Float32Array | undefined;
  readonly scores: Float32Array | undefined;
}

/** The outputs of gradients, which this page does not compute, and of caches, which it does not compare. */
const UNSEEN = "dscores dq dk dv dwq dwk dwv dwo dbq dbk dbv dbo dbias dy".split(" ");

const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);

/**
 * Reads the bytes of a file.
 *
 * @throws CaseError naming the key or the tensor at fault.
 */
export function readCase(file: Uint8Array<ArrayBuffer>): Case {
  const tensors = Tensors.parse(file);
  const text = tensors.metadata["mha"];
  if (typeof text !== "string") {
    return fail("This file is no case: its metadata has no entry mha, which says what the layer is.");
  }
  const about = describe(text);
  const { dims, heads, kvHeads } = about;
  const [d, dV] = [dims.qk / heads, dims.v / heads];

  const weights = readWeights(about, tensors);
  const { sequences, qLen, kvLen, q, k, v } = inputs(about, tensors);
  const batch = product(sequences);
  const past = readPast(tensors, [batch, kvHeads], d, dV);
  const columns = kvLen + (past?.len ?? 0);
  for (const [name, features] of [["present_k", d], ["present_v", dV]] as const) {
    if (tensors.has(name)) {
      tensors.required(name, [batch, kvHeads, columns, features]);
    }
  }
  const options = readOptions(about, tensors, { batch, heads, qLen, columns, past: past?.len ?? 0 });
  const y = expected("y", tensors, sequences, [qLen, dims.out]);
  const scores = expected("scores", tensors, sequences, [heads, qLen, columns]);
  tensors.forget(...UNSEEN);
  tensors.finish();
  if (y === undefined && scores === undefined) {
    fail("y: neither y nor scores are there, so there is nothing to compare with.");
  }
  return { about, batch, qLen, kvLen, q, k, v, weights, options, past, y, scores };
}

function readWeights({ dims, heads, kvHeads, weights: order }: Description, tensors: Tensors): Weights | undefined {
  const { qIn, kIn, vIn, qk, v, out } = dims;
  const [keys, values] = [(qk / heads) * kvHeads, (v / heads) * kvHeads];
  const names = ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"];
  if (order === "none") {
    if (qIn !== qk || kIn !== keys || vIn !== values || out !== v) {
      fail(`dims: without weights q, k and v must be ${qk}, ${keys} and ${values} wide, and out ${v}.`);
    }
    const found = names.find((name) => tensors.has(name));
    return found === undefined ? undefined : fail(`${found}: not expected with weights "none".`);
  }
  const shapes: Record<string, readonly [number, number]> = { q: [qIn, qk], k: [kIn, keys], v: [vIn, values], o: [v, out] };
  const read: Record<string, Float32Array> = {};
  for (const [letter, [from, to]] of Object.entries(shapes)) {
    read[`w${letter}`] = tensors.required(`w${letter}`, order === "in_out" ? [from, to] : [to, from]).data;
    if (tensors.has(`b${letter}`)) {
      read[`b${letter}`] = tensors.required(`b${letter}`, [to]).data;
    }
  }
  return read as unknown as Weights;
}

/** Queries, keys and values, and the axes in front of the length, all of which are batch. */
function inputs({ dims }: Description, tensors: Tensors) {
  const sequence = (name: string, width: number) => {
    const { data, shape } = tensors.required(name);
    const [length, features] = shape.slice(-2);
    if (length === undefined || features === undefined) {
      return fail(`${name}: [${shape.join(", ")}] has no axes for length and features.`);
    }
    return features === width ? { data, length, sequences: shape.slice(0, -2) } : fail(`${name}: ${features} features where dims say ${width}.`);
  };
  const { data: q, length: qLen, sequences } = sequence("q", dims.qIn);
  const like = (name: string, width: number) => {
    const found = sequence(name, width);
    return found.sequences.join() === sequences.join() ? found : fail(`${name}: batch [${found.sequences.join(", ")}] where q has [${sequences.join(", ")}].`);
  };
  const k = tensors.has("k") ? like("k", dims.kIn) : undefined;
  if (k === undefined && (tensors.has("v") || dims.kIn !== dims.qIn)) {
    fail("k: this tensor is missing, and q cannot take its place.");
  }
  const kvLen = k?.length ?? qLen;
  const v = tensors.has("v") ? like("v", dims.vIn) : undefined;
  if (v === undefined ? dims.vIn !== dims.kIn : v.length !== kvLen) {
    fail(v === undefined ? "v: this tensor is missing, and k cannot take its place." : `v: length ${v.length} where k has ${kvLen}.`);
  }
  return { sequences, qLen, kvLen, q, k: k?.data, v: v?.data };
}

function readPast(tensors: Tensors, [batch, kvHeads]: readonly [number, number], d: number, dV: number): Case["past"] {
  if (!tensors.has("past_k") && !tensors.has("past_v")) {
    return undefined;
  }
  const k = tensors.required("past_k");
  const len = k.shape[2] ?? 0;
  const wanted = [batch, kvHeads, len, d];
  if (k.shape.join() !== wanted.join()) {
    fail(`past_k: [${k.shape.join(", ")}] where [${wanted.join(", ")}] is expected.`);
  }
  const v = tensors.required("past_v", [batch, kvHeads, len, dV]);
  return { len, k: sideBySide(k), v: sideBySide(v) };
}

/** Turns `[batch, heads, length, d]` into `[batch, length, heads · d]`. */
function sideBySide({ data, shape }: Tensor<Float32Array>): Float32Array {
  const [batch, heads, length, d] = shape as [number, number, number, number];
  const out = new Float32Array(data.length);
  for (let b = 0, to = 0; b < batch; b++) {
    for (let i = 0; i < length; i++) {
      for (let h = 0; h < heads; h++, to += d) {
        const from = ((b * heads + h) * length + i) * d;
        out.set(data.subarray(from, from + d), to);
      }
    }
  }
  return out;
}

interface Lengths {
  readonly batch: number;
  readonly heads: number;
  readonly qLen: number;
  readonly columns: number;
  readonly past: number;
}

function readOptions(about: Description, tensors: Tensors, lengths: Lengths): Partial<ForwardOptions> {
  const { batch, heads, qLen, columns } = lengths;
  const grid = (name: string, tensor: Tensor<unknown> | undefined): Extents | undefined => {
    if (tensor === undefined) {
      return undefined;
    }
    const sizes = [batch, heads, qLen, columns];
    const extents = [1, 1, 1, 1, ...tensor.shape].slice(-4);
    const fits = tensor.shape.length <= 4 && extents.every((extent, axis) => extent === 1 || extent === sizes[axis]);
    return fits ? (extents as unknown as Extents) : fail(`${name}: [${tensor.shape.join(", ")}] does not broadcast to [${sizes.join(", ")}].`);
  };
  const [mask, bias] = [tensors.bools("mask"), tensors.floats("bias")];
  const [maskShape, biasShape] = [grid("mask", mask), grid("bias", bias)];
  const { causal, window, alibi } = about;
  const given = about.causalOffset ?? lengths.past;
  if (typeof given === "object" && given.length !== batch) {
    fail(`causal_offset: ${given.length} numbers for a batch of ${batch}.`);
  }
  const offset = typeof given === "object" ? Int32Array.from(given) : given;
  const lens = tensors.sizes("kv_lens");
  if (lens !== undefined && (lens.shape.length !== 1 || lens.data.length !== batch)) {
    fail(`kv_lens: [${lens.shape.join(", ")}] where [${batch}] is expected.`);
  }
  for (const len of lens?.data ?? []) {
    if (len > columns) {
      fail(`kv_lens: ${len} of ${columns} keys.`);
    }
  }
  return {
    mask: mask && maskShape && ({ data: mask.data, shape: maskShape } satisfies Mask),
    bias: bias && biasShape && ({ data: bias.data, shape: biasShape } satisfies Bias),
    causal,
    causalOffset: causal ? offset : undefined,
    // Without a causal rule it is the position that windows and ALiBi count from.
    offset: !causal && (window !== undefined || alibi !== false) ? offset : undefined,
    window,
    lens: lens?.data,
    softcap: about.softcap,
    alibi,
    rope: about.rope,
    sinks: tensors.has("sinks") ? tensors.required("sinks", [heads]).data : undefined,
    dropout: about.dropout,
  };
}

/** An expected output: the batch, in as many axes as q has or in one, then `rest`. */
function expected(name: string, tensors: Tensors, sequences: readonly number[], rest: readonly number[]): Float32Array | undefined {
  const found = tensors.floats(name);
  if (found === undefined) {
    return undefined;
  }
  const wanted = [...sequences, ...rest];
  const flat = [product(sequences), ...rest];
  const fits = [wanted, flat].some((shape) => shape.join() === found.shape.join());
  return fits ? found.data : fail(`${name}: [${found.shape.join(", ")}] where [${wanted.join(", ")}] is expected.`);
}
