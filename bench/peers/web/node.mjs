// Times the package and other libraries for WebAssembly in Node. MHA_PACKAGE is the package's folder,
// MHA_PEERS that of the others' `node_modules`.

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import * as contenders from "./contenders.mjs";
import { peak } from "./peak.mjs";
import { answer } from "./words.mjs";

// What libraries print is not for who reads the answers.
console.log = console.info = console.error;

const peers = process.env.MHA_PEERS;
const file = (...words) => pathToFileURL(join(...words)).href;
const { load } = await import(file(process.env.MHA_PACKAGE, "index.js"));
const full = await import(file(process.env.MHA_PACKAGE, "full/index.js"));
const training = await import(file(process.env.MHA_PACKAGE, "train/train.js"));
const libraries = { plain: await load(), full: await full.load(), training: await training.load() };
const ort = await import(file(peers, "onnxruntime-web/dist/ort.node.min.mjs"));
ort.env.wasm.numThreads = 1;
libraries.ort = ort;
const require = createRequire(join(peers, "x.js"));
// Not the core alone, which has no gradients.
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
wasm.setWasmPaths(`${join(peers, "@tensorflow/tfjs-backend-wasm/dist")}/`);
await tf.setBackend("wasm");
libraries.tf = tf;

await answer("node", {
  load: (layer, tensors) => contenders.load(libraries, layer, tensors),
  check: contenders.check,
  time: contenders.time,
  peak: () => peak(),
});
process.exit(0);
