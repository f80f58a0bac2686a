// Says what an application downloads for each entry: bundled and minified, and after gzip; and that what everybody
// downloads is no more than it may be.
// `node weigh.mjs PACKAGE`

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";

const { build } = createRequire(process.env.ESBUILD)("esbuild");
const folder = process.argv[2];
const gzip = (data) => gzipSync(data, { level: 9 }).length;

async function bundled(entry, name) {
  const contents = `import { ${name} } from ${JSON.stringify(join(folder, entry))}; globalThis.it = ${name};`;
  const made = await build({ stdin: { contents, resolveDir: dirname(folder) }, bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  return made.outputFiles[0].contents;
}

const row = (name, raw, packed) => console.log(`${name.padEnd(34)}${String(raw).padStart(9)}${String(packed).padStart(9)}`);
row("bytes", "raw", "gzip");
const weigh = async (name, entry, file) => {
  const script = await bundled(entry, "load");
  const wasm = file === undefined ? Buffer.alloc(0) : readFileSync(join(folder, file));
  const packed = gzip(script) + (file === undefined ? 0 : gzip(wasm));
  row(name, script.length + wasm.length, packed);
  return packed;
};
/** The most that the entries of the plain layer may weigh. */
const [MOST, MOST_CORE] = [25_000, 24_000];
const ours = await weigh("mha", "index.js");
const core = await weigh("mha/core and mha.wasm", "core.js", "mha.wasm");
await weigh("mha/full", "full/index.js");
await weigh("mha/full/core and full/mha.wasm", "full/core.js", "full/mha.wasm");
await weigh("mha/train", "train/train.js");
const view = await bundled("view.js", "defineAttentionView");
row("mha/view", view.length, gzip(view));
if (ours > MOST || core > MOST_CORE) {
  console.error(`more than ${MOST} bytes, or ${MOST_CORE} with a module of one's own`);
  process.exit(1);
}
