// Says what an application downloads for each entry: bundled and minified, and after gzip.
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
const inlined = await bundled("index.js", "load");
row("mha", inlined.length, gzip(inlined));
const [core, wasm] = [await bundled("core.js", "load"), readFileSync(join(folder, "mha.wasm"))];
row("mha/core", core.length, gzip(core));
row("mha.wasm", wasm.length, gzip(wasm));
row("mha/core and mha.wasm", core.length + wasm.length, gzip(core) + gzip(wasm));
const view = await bundled("view.js", "defineAttentionView");
row("mha/view", view.length, gzip(view));
