// The package without a bundler, in Chromium: plain module scripts under a strict policy, workers, a module that
// the application brings, every case file, and what loading costs.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { start, watched } from "../page/support/browser.mjs";
import { serve } from "../page/support/serve.mjs";
import { FIRST, project } from "./support.mjs";

const { build } = createRequire(process.env.ESBUILD)("esbuild");
const browser = await start();
after(() => browser.close());

const folder = project("plain");
const ENTRIES = { mha: "index", "mha/auto": "auto", "mha/core": "core", "mha/view": "view", "mha/full": "full/index", "mha/full/auto": "full/auto" };
const MAP = JSON.stringify({ imports: Object.fromEntries(Object.entries(ENTRIES).map(([name, file]) => [name, `./node_modules/mha/${file}.js`])) });
// An import map is an inline script, which a strict policy wants a hash or a nonce for.
const html = (script) => `<!doctype html><html lang="en"><title>plain</title><script type="importmap" nonce="n">${MAP}</script><script type="module" src="${script}"></script><body></body></html>`;
writeFileSync(join(folder, "index.html"), html("main.js"));

async function open(file, headers = {}) {
  const site = await serve(folder, { headers });
  const watching = await watched(browser);
  await watching.page.goto(`${site.url}${file}`);
  await watching.page.waitForFunction(() => globalThis.answer !== undefined, undefined, { timeout: 60000 });
  const answer = await watching.page.evaluate(() => globalThis.answer);
  await watching.context.close();
  site.close();
  return { answer, ...watching };
}

test("a plain module script, under a policy with wasm-unsafe-eval alone", async () => {
  const policy = (wasm) => ({ "content-security-policy": `default-src 'none'; script-src 'self' 'nonce-n'${wasm}; connect-src 'none'; style-src 'none'` });
  const { answer, errors } = await open("index.html", policy(" 'wasm-unsafe-eval'"));
  assert.equal(answer.error, undefined);
  assert.deepEqual(answer.y.slice(0, 8), FIRST);
  assert.deepEqual(errors.filter((error) => !/404|favicon/.test(error)), []);
  // The control: without it nothing is compiled.
  const { answer: refused } = await open("index.html", policy(""));
  assert.match(refused.error, /CompileError|unsafe-eval/);
});

test("a worker, by the default entry and by a module that was sent to it", async () => {
  writeFileSync(
    join(folder, "worker.js"),
    `import { load } from "./node_modules/mha/core.js";
import { load as inlined } from "./node_modules/mha/index.js";
onmessage = async ({ data }) => {
  const mha = await (data === "inlined" ? inlined() : load(data));
  const weights = new Float32Array(4 * 64).fill(0.1);
  const { y } = mha.layer({ dims: 8, heads: 2, weights }).forward({ q: new Float32Array(32).fill(1) });
  postMessage(y, [y.buffer]);
};\n`,
  );
  writeFileSync(
    join(folder, "workers.js"),
    `const ask = (message) => new Promise((resolve, reject) => {
  const worker = new Worker("worker.js", { type: "module" });
  worker.onerror = reject;
  worker.onmessage = ({ data }) => resolve([...data]);
  worker.postMessage(message);
});
const module = await WebAssembly.compileStreaming(fetch("node_modules/mha/mha.wasm"));
globalThis.answer = await Promise.all([ask("inlined"), ask(module)]).catch((error) => ({ error: String(error.message ?? error) }));\n`,
  );
  writeFileSync(join(folder, "workers.html"), html("workers.js"));
  const { answer } = await open("workers.html");
  assert.equal(answer.error, undefined);
  assert.equal(answer[0].length, 32);
  assert.ok(answer[0].every(Number.isFinite) && answer[0][0] !== 0);
  assert.deepEqual(answer[0], answer[1]);
});

test("mha/core takes an address, a response, bytes or a module", async () => {
  writeFileSync(join(folder, "core.html"), html("core.js"));
  for (const source of [
    'new URL("node_modules/mha/mha.wasm", location.href)',
    '"node_modules/mha/mha.wasm"',
    'fetch("node_modules/mha/mha.wasm")',
    'fetch("node_modules/mha/mha.wasm").then((response) => response.arrayBuffer())',
    'WebAssembly.compileStreaming(fetch("node_modules/mha/mha.wasm"))',
  ]) {
    writeFileSync(join(folder, "core.js"), `import { load } from "mha/core";\nglobalThis.answer = await load(${source}).then((mha) => mha.version, (error) => String(error));\n`);
    assert.match((await open("core.html")).answer, /^\d+\.\d+\.\d+$/, source);
  }
});

test("every case file, through the installed package, on every kind of instructions", async () => {
  const tests = fileURLToPath(new URL("..", import.meta.url));
  const stage = process.env.PAGE_STAGE;
  mkdirSync(join(folder, "case"), { recursive: true });
  await build({
    stdin: { contents: 'export { readCase } from "./src/case/case.ts"; export { runCase } from "./src/case/run.ts";', resolveDir: stage },
    bundle: true,
    format: "esm",
    external: ["mha/full"],
    outfile: join(folder, "case/case.js"),
  });
  const names = ["cases", "cases_family"].flatMap((kind) =>
    readdirSync(join(tests, kind), { recursive: true })
      .map((name) => `${kind}/${name.replaceAll("\\", "/")}`)
      .filter((name) => name.endsWith(".safetensors") && !name.includes("/invalid/")),
  );
  const files = names.map((name) => [name, readFileSync(join(tests, name)).toString("base64")]);
  writeFileSync(join(folder, "case/files.json"), JSON.stringify(files));
  writeFileSync(
    join(folder, "cases.js"),
    `import { load } from "mha/full/auto";
import { ErrorCode, load as loadPlain } from "mha/auto";
import { readCase, runCase } from "./case/case.js";
const search = new URLSearchParams(location.search);
const mha = await (search.has("plain") ? loadPlain : load)({ simd: search.get("simd") });
const wrong = [];
let [ran, rotations, absent] = [0, 0, 0];
for (const [name, text] of await (await fetch("case/files.json")).json()) {
  try {
    const { comparisons } = runCase(mha, readCase(Uint8Array.from(atob(text), (c) => c.charCodeAt(0))));
    comparisons.filter(({ failed }) => failed > 0).forEach(({ output, failed }) => wrong.push(name + ": " + failed + " of " + output));
    ran++;
  } catch (error) {
    if (error.code === ErrorCode.Absent && search.has("plain")) {
      absent++;
      continue;
    }
    error.message.includes("rotation alone") ? rotations++ : wrong.push(name + ": " + error);
  }
}
globalThis.answer = { ran, rotations, absent, wrong, isa: mha.isa };\n`,
  );
  writeFileSync(join(folder, "cases.html"), html("cases.js"));
  for (const [simd, isa] of Object.entries({ relaxed: "relaxed-simd", simd128: "simd128", scalar: "portable" })) {
    const { answer } = await open(`cases.html?simd=${simd}`);
    assert.equal(answer.isa, isa);
    assert.deepEqual(answer.wrong, []);
    assert.ok(answer.ran >= 600 && answer.rotations < 20, JSON.stringify(answer));
    const { answer: plain } = await open(`cases.html?plain&simd=${simd}`);
    assert.deepEqual([plain.isa, plain.wrong], [isa, []]);
    assert.ok(plain.ran >= 150 && plain.ran + plain.absent === answer.ran, JSON.stringify(plain));
    console.log(`   ${answer.ran} cases on ${answer.isa}, ${plain.ran} of them by the plain layer alone`);
  }
});
