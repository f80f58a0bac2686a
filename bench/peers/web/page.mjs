// What chromium.mjs drives, in the page.

import { load } from "/mha/index.js";
import { load as loadFull } from "/mha/full/index.js";
import { load as loadTraining } from "/mha/train/train.js";
import * as ort from "/peers/onnxruntime-web/dist/ort.wasm.min.mjs";

import * as contenders from "./contenders.mjs";
import { peak } from "./peak.mjs";

const NAMES = ["wq", "wk", "wv", "wo", "q", "k", "v", "past_k", "past_v", "dy"];

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = "/peers/onnxruntime-web/dist/";
const { tf } = globalThis;
tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
tf.wasm.setWasmPaths("/peers/@tensorflow/tfjs-backend-wasm/dist/");
await tf.setBackend("wasm");
const libraries = { plain: await load(), full: await loadFull(), training: await loadTraining(), ort, tf };

/** Floats as base64: an array of numbers would take minutes to cross. */
function base64(floats) {
  const bytes = new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  }
  return btoa(text);
}

globalThis.ready = {
  async load(layer) {
    const fetched = NAMES.map(async (name) => {
      const response = await fetch(`/tensors/${name}`, { cache: "no-store" });
      return [name, new Float32Array(await response.arrayBuffer())];
    });
    return contenders.load(libraries, layer, Object.fromEntries(await Promise.all(fetched)));
  },
  check: async (contender) => (await contenders.check(contender)).map((floats) => (floats ? base64(floats) : null)),
  time: contenders.time,
  peak: () => peak(),
};
