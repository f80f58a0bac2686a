// What loading and calling cost, in Chromium and in Node: run by `cargo xtask npm --times`, alone on the machine.
//
// Loading: from before the import to the first result, in fresh pages by turns with the instantiation of an empty
// module and, where it is asked for, with onnxruntime-web (a model of one Identity). The scripts have been fetched
// before, all but the module that onnxruntime-web fetches itself, from this machine. Calling: a tiny forward
// through the package beside the raw export with the same arguments.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { start, watched } from "../page/support/browser.mjs";
import { serve } from "../page/support/serve.mjs";
import { project } from "./support.mjs";

/** How often each is loaded. The median counts. */
const TURNS = 15;

/** The most milliseconds above an empty module, and the most microseconds above the raw export. */
const [LOADING, CALLING] = [5, 1];

const folder = project("times", process.argv.includes("--ort") ? ["onnxruntime-web@1.30.0"] : []);

// An ONNX model: ir_version 8, one Identity from x to y, both float[1], opset 17.
const MODEL = [
  8, 8, 58, 55, 10, 16, 10, 1, 120, 18, 1, 121, 34, 8, 73, 100, 101, 110, 116, 105, 116, 121, 18, 1, 103, 90, 15, 10, 1, 120, 18, 10, 10, 8, 8, 1, 18, 4,
  10, 2, 8, 1, 98, 15, 10, 1, 121, 18, 10, 10, 8, 8, 1, 18, 4, 10, 2, 8, 1, 66, 2, 16, 17,
];
const SCRIPTS = {
  empty: "await WebAssembly.instantiate(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0));",
  mha: `const { load } = await import(urls[0]);
const layer = (await load()).layer({ dims: 8, heads: 2, weights: new Float32Array(256).fill(0.1) });
if (layer.forward({ q: new Float32Array(32).fill(1) }).y.length !== 32) throw new Error("no result");`,
  "onnxruntime-web": `const ort = await import(urls[0]);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", location.href).href;
const session = await ort.InferenceSession.create(Uint8Array.from(${JSON.stringify(MODEL)}));
const { y } = await session.run({ x: new ort.Tensor("float32", [1], [1]) });
if (y.data[0] !== 1) throw new Error("no result");`,
};
if (!process.argv.includes("--ort")) {
  delete SCRIPTS["onnxruntime-web"];
}
// Bundled, as an application has it.
const { createRequire } = await import("node:module");
await createRequire(process.env.ESBUILD)("esbuild").build({
  entryPoints: [join(folder, "node_modules/mha/index.js")],
  bundle: true,
  minify: true,
  format: "esm",
  outfile: join(folder, "node_modules/mha/bundle.js"),
});
const FILES = { mha: "node_modules/mha/bundle.js", "onnxruntime-web": "node_modules/onnxruntime-web/dist/ort.wasm.min.mjs" };
for (const [name, script] of Object.entries(SCRIPTS)) {
  const files = FILES[name] === undefined ? [] : [FILES[name]];
  const fetched = `const fetched = async (file) => URL.createObjectURL(new Blob([await (await fetch(file)).text()], { type: "text/javascript" }));
const urls = await Promise.all(${JSON.stringify(files)}.map(fetched));\n`;
  const timed = `${fetched}const t = performance.now();\ntry {\n${script}\nglobalThis.answer = performance.now() - t;\n} catch (error) {\nglobalThis.answer = String(error);\n}\n`;
  writeFileSync(join(folder, `${name}.js`), timed);
  writeFileSync(join(folder, `${name}.html`), `<!doctype html><title>t</title><script type="module" src="${name}.js"></script>`);
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const browser = await start();
const site = await serve(folder, { headers: { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" } });
const times = Object.fromEntries(Object.keys(SCRIPTS).map((name) => [name, []]));
for (let turn = 0; turn < TURNS; turn++) {
  for (const name of Object.keys(SCRIPTS)) {
    const { page, context } = await watched(browser);
    await page.goto(`${site.url}${name}.html`);
    await page.waitForFunction(() => globalThis.answer !== undefined);
    const answer = await page.evaluate(() => globalThis.answer);
    if (typeof answer !== "number") {
      throw new Error(`${name}: ${answer}`);
    }
    times[name].push(answer);
    await context.close();
  }
}
await browser.close();
site.close();
for (const [name, all] of Object.entries(times)) {
  console.log(`${name.padEnd(24)}${median(all).toFixed(2).padStart(9)} ms from import to first result, Chromium`);
}
const above = median(times.mha) - median(times.empty);
console.log(`${"above an empty module".padEnd(24)}${above.toFixed(2).padStart(9)} ms (at most ${LOADING})`);

// A forward of 4 tokens, 8 features, 2 heads.
const installed = (file) => import(pathToFileURL(join(folder, "node_modules/mha", file)).href);
const { load } = await installed("index.js");
const mha = await load();
const raw = await installed("glue/mha_wasm.js");
const [q, y] = [new Float32Array(32).fill(1), new Float32Array(32)];
const layer = mha.layer({ dims: 8, heads: 2, weights: new Float32Array(256).fill(0.1) });
const inner = raw.layer_new(8, 8, 8, 8, 8, 8, 2, 2, undefined, false);
const call = raw.call_new();
raw.layer_weights(inner, 257, 0, 0, 0, 0, 0, 0, 0);
const { memory } = await raw.default();
new Uint32Array(memory.buffer, raw.call_words(call), 6).set([1, 4, 4, 33, 0, 0]);
raw.layer_reserve(inner, call);
const microseconds = (work) => {
  let best = Infinity;
  for (let turn = 0; turn < 40; turn++) {
    const start = performance.now();
    for (let i = 0; i < 20_000; i++) {
      work();
    }
    best = Math.min(best, (performance.now() - start) / 20);
  }
  return best;
};
const ours = microseconds(() => layer.forward({ q, y }));
const export_ = microseconds(() => raw.layer_forward(inner, call));
console.log(`${"tiny forward".padEnd(24)}${ours.toFixed(2).padStart(9)} µs through the package, Node`);
console.log(`${"raw export".padEnd(24)}${export_.toFixed(2).padStart(9)} µs`);
console.log(`${"above it".padEnd(24)}${(ours - export_).toFixed(2).padStart(9)} µs (at most ${CALLING})`);
if (above > LOADING || ours - export_ > CALLING) {
  process.exit(1);
}
