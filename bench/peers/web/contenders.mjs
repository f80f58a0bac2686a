// Those who are timed in a JavaScript engine. Each is given the libraries as its environment has loaded
// them, a case and its tensors, and makes `{ library, version, variant, call, result, end }`.

import { columns, model, rows } from "./model.mjs";

async function mha({ plain, full }, layer, tensors) {
  const { wq, wk, wv, wo, q, k, v, past_k, past_v } = tensors;
  const { q_in, k_in, v_in, qk, v: width, out, heads, batch, q_len, kv_len, past } = layer;
  const dims = { qIn: q_in, kIn: k_in, vIn: v_in, qk, v: width, out };
  // The entry that an application would load for it.
  const mha = layer.past > 0 ? full : plain;
  const own = mha.layer({ dims, heads, weights: { wq, wk, wv, wo } });
  const y = new Float32Array(batch * q_len * out);
  const scores = layer.scores ? new Float32Array(batch * heads * q_len * kv_len) : undefined;
  const asked = scores === undefined ? { y } : { y, scores };
  let call = () => void own.forward({ q, k, v, batch, qLen: q_len, kvLen: kv_len, ...asked });
  let cache;
  if (past > 0) {
    // The step is taken at the same length each time.
    cache = own.cache({ capacity: kv_len, batch });
    cache.append({ k: past_k, v: past_v });
    call = () => {
      cache.rollback(past);
      own.append(cache, { k, v });
      own.attend(cache, { q, ...asked });
    };
  }
  const end = () => {
    own.dispose();
    cache?.dispose();
  };
  return { library: "mha", version: mha.version, variant: mha.isa, call, result: async () => (call(), [y, scores]), end };
}

async function onnxRuntime({ ort }, layer, tensors) {
  const { bytes, inputs } = model(layer, tensors);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const feeds = Object.fromEntries(
    Object.entries(inputs).map(([name, [dims, data]]) => [name, new ort.Tensor("float32", data, dims)]),
  );
  const call = () => session.run(feeds);
  const result = async () => {
    const { y, scores } = await call();
    return [y.data, scores?.data];
  };
  return { library: "onnxruntime-web", version: ort.env.versions.web, variant: "graph", call, result, end: () => session.release() };
}

async function tensorflow({ tf }, layer, tensors) {
  const { q_in, k_in, v_in, qk, v: width, out, heads, batch, q_len, kv_len, past } = layer;
  const scale = Math.fround((qk / heads) ** -0.5);
  const kept = [];
  const keep = (data, dims) => {
    const tensor = tf.tensor(data, dims, "float32");
    kept.push(tensor);
    return tensor;
  };
  const wq = keep(tensors.wq.map((w) => w * scale), [q_in, qk]);
  const [wk, wv, wo] = [keep(tensors.wk, [k_in, qk]), keep(tensors.wv, [v_in, width]), keep(tensors.wo, [width, out])];
  const fresh = kv_len - past;
  const q = keep(tensors.q, [batch * q_len, q_in]);
  const [k, v] = [keep(tensors.k, [batch * fresh, k_in]), keep(tensors.v, [batch * fresh, v_in])];
  const oldK = past > 0 && keep(columns(tensors.past_k, past, qk), [batch, heads, qk / heads, past]);
  const oldV = past > 0 && keep(rows(tensors.past_v, past, width, heads), [batch, heads, past, width / heads]);
  const { matMul, reshape, transpose, slice } = tf;
  const split = (x, length, features) => transpose(reshape(x, [batch, length, heads, features / heads]), [0, 2, 1, 3]);
  const compute = () => {
    const [pq, pk] = [split(matMul(q, wq), q_len, qk), split(matMul(k, wk), fresh, qk)];
    const pv = split(matMul(v, wv), fresh, width);
    const logits = matMul(pq, pk, false, true);
    const scores = tf.softmax(past > 0 ? tf.concat([matMul(pq, oldK), logits], 3) : logits);
    const [old, now] = [[0, 0, 0, 0], [0, 0, 0, past]];
    const mixed =
      past > 0
        ? tf.add(matMul(slice(scores, old, [-1, -1, -1, past]), oldV), matMul(slice(scores, now), pv))
        : matMul(scores, pv);
    const y = matMul(reshape(transpose(mixed, [0, 2, 1, 3]), [batch * q_len, width]), wo);
    return [y.dataSync(), layer.scores ? scores.dataSync() : undefined];
  };
  const call = () => void tf.tidy(() => void compute());
  const result = async () => {
    let got;
    tf.tidy(() => {
      got = compute().map((data) => data?.slice());
    });
    return got;
  };
  return { library: "tfjs-backend-wasm", version: tf.version_core, variant: "ops", call, result, end: () => tf.dispose(kept) };
}

/** Forward and backward with the gradients of all inputs and weights; the result is all of them in one array. */
async function mhaTraining({ training }, layer, tensors) {
  const { wq, wk, wv, wo, q, k, v, dy } = tensors;
  const { q_in, k_in, v_in, qk, v: width, out, heads, batch, q_len, kv_len } = layer;
  const dims = { qIn: q_in, kIn: k_in, vIn: v_in, qk, v: width, out };
  const own = training.layer({ dims, heads, weights: { wq, wk, wv, wo } });
  const y = new Float32Array(dy.length);
  const like = Object.entries({ q, k, v, wq, wk, wv, wo }).map(([name, x]) => [name, new Float32Array(x.length)]);
  const gradients = Object.fromEntries(like);
  const asked = { q, k, v, batch, qLen: q_len, kvLen: kv_len };
  const call = () => {
    own.forward({ ...asked, y });
    own.backward({ ...asked, dy, gradients });
  };
  const result = async () => (call(), [joined([y, ...Object.values(gradients)])]);
  return { library: "mha", version: training.version, variant: training.isa, call, result, end: () => own.dispose() };
}

/** The same by TensorFlow.js, whose gradients are made of operations that its backend has. */
async function tensorflowTraining({ tf }, layer, tensors) {
  const { q_in, k_in, v_in, qk, v: width, out, heads, batch, q_len, kv_len } = layer;
  const scale = tf.scalar(Math.fround((qk / heads) ** -0.5));
  const shapes = {
    q: [batch * q_len, q_in],
    k: [batch * kv_len, k_in],
    v: [batch * kv_len, v_in],
    wq: [q_in, qk],
    wk: [k_in, qk],
    wv: [v_in, width],
    wo: [width, out],
  };
  const given = Object.entries(shapes).map(([name, shape]) => tf.tensor(tensors[name], shape, "float32"));
  const dy = tf.tensor(tensors.dy, [batch * q_len, out], "float32");
  const { matMul, mul, reshape, softmax, transpose } = tf;
  const split = (x, length, features) => transpose(reshape(x, [batch, length, heads, features / heads]), [0, 2, 1, 3]);
  const forward = (q, k, v, wq, wk, wv, wo) => {
    const [pq, pk] = [split(mul(matMul(q, wq), scale), q_len, qk), split(matMul(k, wk), kv_len, qk)];
    const mixed = matMul(softmax(matMul(pq, pk, false, true)), split(matMul(v, wv), kv_len, width));
    return matMul(reshape(transpose(mixed, [0, 2, 1, 3]), [batch * q_len, width]), wo);
  };
  const both = tf.valueAndGrads(forward);
  const compute = () => {
    const { value, grads } = both(given, dy);
    return [value, ...grads].map((x) => x.dataSync());
  };
  const call = () => void tf.tidy(() => void compute());
  const result = async () => {
    let got;
    tf.tidy(() => {
      got = joined(compute());
    });
    return [got];
  };
  const end = () => tf.dispose([...given, dy, scale]);
  return { library: "tfjs-backend-wasm", version: tf.version_core, variant: "ops", call, result, end };
}

/** Some arrays as one. */
function joined(parts) {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const FORWARD = [["mha", mha], ["onnxruntime-web", onnxRuntime], ["tfjs-backend-wasm", tensorflow]];
const TRAINING = [["mha", mhaTraining], ["tfjs-backend-wasm", tensorflowTraining]];

let contenders = [];

/** Makes everybody ready for a case; says who is, and who is not and why. */
export async function load(libraries, layer, tensors) {
  contenders.forEach(({ end }) => end());
  contenders = [];
  const refused = [];
  for (const [library, make] of layer.training ? TRAINING : FORWARD) {
    try {
      contenders.push(await make(libraries, layer, tensors));
    } catch (error) {
      refused.push({ library, variant: "", why: String(error).slice(0, 300) });
    }
  }
  return { contenders: contenders.map(({ library, version, variant }) => ({ library, version, variant })), refused };
}

/** What one of them computes: `[y, scores]`, or `[y and all gradients]`. */
export function check(contender) {
  return contenders[contender].result();
}

/** How long so many calls take, in seconds, after one that is not timed. */
export async function time(contender, calls) {
  const { call } = contenders[contender];
  // Waiting for what is no promise would cost a turn of the engine.
  await call();
  const start = performance.now();
  for (let i = 0; i < calls; i++) {
    const pending = call();
    if (pending !== undefined) {
      await pending;
    }
  }
  return (performance.now() - start) / 1000;
}
