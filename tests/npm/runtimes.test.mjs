// The tarball in every runtime that a registry has.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { bin, project, run } from "./support.mjs";

const PROGRAM = `
const identity = Float32Array.from({ length: 64 }, (_, i) => (i % 9 === 0 ? 1 : 0));
const use = (mha) => {
  const layer = mha.layer({ dims: 8, heads: 2, weights: { wq: identity, wk: identity, wv: identity, wo: identity } });
  const { scores } = layer.forward({ q: Float32Array.from({ length: 32 }, (_, i) => Math.sin(i)), mask: "causal", scores: true });
  layer.dispose();
  console.log("scores", ...scores.subarray(0, 4));
};
`;
const ESM = `import { load } from "mha";\nimport { load as loadFull } from "mha/full";\nimport { attentionSvg } from "mha/view";\n${PROGRAM}
use(await load());
console.log((await loadFull()).cache({ dims: 8, heads: 2, capacity: 16 }).length);
console.log(attentionSvg({ scores: new Float32Array(4).fill(0.5), heads: 1, queries: 2 }).length > 500);
`;
const CJS = `const { load } = require("mha");\n${PROGRAM}\nload().then(use);\n`;
const CORE = `import { readFile } from "node:fs/promises";\nimport { load } from "mha/core";\n${PROGRAM}
const module = await WebAssembly.compile(await readFile(new URL(import.meta.resolve("mha/mha.wasm"))));
use(await load(module));
`;

const folder = project("runtimes", [], { "esm.mjs": ESM, "cjs.cjs": CJS, "core.mjs": CORE });
const SCORES = "scores 1 0 0 0\n";

test("node: import, require, a module of one's own", () => {
  assert.equal(run(folder, "node", "esm.mjs"), `${SCORES}0\ntrue\n`);
  assert.equal(run(folder, "node", "cjs.cjs"), SCORES);
  assert.equal(run(folder, "node", "core.mjs"), SCORES);
});

/** Which module is chosen, and what each is when it is forced. */
const CHOSEN = `import { detect, load } from "mha/auto";\nconsole.log(detect(), (await load()).isa);\n`;
const FORCED = `import { load } from "mha/auto";\nconsole.log((await load({ simd: process.argv[2] })).isa);\n`;
const ASKED = `import { readFile } from "node:fs/promises";
import { load } from "mha/core";
const names = { relaxed: "mha.relaxed.wasm", simd128: "mha.wasm", scalar: "mha.scalar.wasm" };
const mha = await load((simd) => readFile(new URL(import.meta.resolve("mha/" + names[simd]))));
console.log(mha.isa);
`;

test("every module, chosen and forced", () => {
  // The Node that is oldest here has no relaxed vectors, a newer one has.
  const files = { "chosen.mjs": CHOSEN, "forced.mjs": FORCED, "asked.mjs": ASKED };
  const there = project("simd", ["node@24"], files);
  const node = bin(there, "node");
  assert.equal(run(there, node, "chosen.mjs"), "relaxed relaxed-simd\n");
  assert.equal(run(there, node, "asked.mjs"), "relaxed-simd\n");
  const isa = { relaxed: "relaxed-simd", simd128: "simd128", scalar: "portable" };
  for (const [simd, name] of Object.entries(isa)) {
    assert.equal(run(there, node, "forced.mjs", simd), `${name}\n`);
  }
  const major = Number(/^v(\d+)/.exec(run(there, "node", "--version"))[1]);
  if (major < 22) {
    assert.equal(run(there, "node", "chosen.mjs"), "simd128 simd128\n");
    assert.throws(() => run(there, "node", "forced.mjs", "relaxed"), /CompileError/);
  }
});

for (const version of ["22", "24"]) {
  test(`node ${version}`, () => {
    const there = project(`node${version}`, [`node@${version}`], { "esm.mjs": ESM, "cjs.cjs": CJS });
    const node = bin(there, "node");
    assert.match(run(there, node, "--version"), new RegExp(`^v${version}\\.`));
    assert.equal(run(there, node, "esm.mjs"), `${SCORES}0\ntrue\n`);
    assert.equal(run(there, node, "cjs.cjs"), SCORES);
  });
}

test("deno", () => {
  const there = project("deno", ["deno@2.9.6"], { "esm.mjs": ESM });
  assert.equal(run(there, bin(there, "deno"), "run", "--no-remote", "--node-modules-dir=manual", "esm.mjs"), `${SCORES}0\ntrue\n`);
});

test("bun", () => {
  const there = project("bun", ["bun@1.4.5"], { "esm.mjs": ESM });
  assert.equal(run(there, bin(there, "bun"), "run", "esm.mjs"), `${SCORES}0\ntrue\n`);
});

test("TypeScript in every way of resolving", () => {
  const there = project("typescript", ["typescript@5.9.3"], {
    "use.ts": `import { load, type Layer } from "mha";\nimport { load as core } from "mha/core";\nimport { AttentionView, attentionSvg } from "mha/view";\nexport const f = async (): Promise<Layer> => (await load()).layer({ dims: 4, heads: 2, weights: new Float32Array(64) });\nexport const g = () => core("x.wasm");\nexport const view: AttentionView | undefined = undefined;\nexport const svg: string = attentionSvg({ scores: new Float32Array(1), heads: 1, queries: 1 });\n`,
  });
  for (const [module, resolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    run(there, bin(there, "tsc"), "--noEmit", "--strict", "--target", "es2022", "--module", module, "--moduleResolution", resolution, "--lib", "es2022,dom,esnext.disposable", "use.ts");
  }
  // A mistake is one to the compiler as well.
  writeFileSync(join(there, "wrong.ts"), 'import { attentionSvg } from "mha/view";\nattentionSvg({ scores: [1], heads: 1, queries: 1 });\n');
  assert.throws(() => run(there, bin(there, "tsc"), "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "wrong.ts"), /TS2740|TS2322/);
});
