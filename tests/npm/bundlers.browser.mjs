// A minimal project for each bundler: the tarball installed, built without any configuration that the package
// would need, and the result run in Chromium.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";

import { start, watched } from "../page/support/browser.mjs";
import { serve } from "../page/support/serve.mjs";
import { bin, FIRST, project, run } from "./support.mjs";

const browser = await start();
after(() => browser.close());

const page = (script, type = "") => `<!doctype html><html lang="en"><title>bundled</title><body><script ${type} src="${script}"></script></body></html>`;

/** How each bundler builds `main.js`, or another entry, into `dist`. */
const BUNDLERS = {
  vite: {
    packages: ["vite@8.4.0"],
    build(folder, entry) {
      writeFileSync(join(folder, "index.html"), page(`./${entry}`, 'type="module"'));
      run(folder, bin(folder, "vite"), "build", "--base=./");
    },
  },
  webpack: {
    packages: ["webpack@5.113.0", "webpack-cli@7.3.1"],
    build(folder, entry) {
      run(folder, bin(folder, "webpack"), "--mode=production", "--entry", `./${entry}`, "--output-path=dist", "--output-filename=main.js");
      writeFileSync(join(folder, "dist/index.html"), page("main.js", "defer"));
    },
  },
  rollup: {
    packages: ["rollup@4.68.8", "@rollup/plugin-node-resolve@16.0.3"],
    build(folder, entry) {
      run(folder, bin(folder, "rollup"), entry, "--dir=dist", "--format=es", "--plugin=node-resolve", "--entryFileNames=main.js");
      writeFileSync(join(folder, "dist/index.html"), page("main.js", 'type="module"'));
    },
  },
  esbuild: {
    packages: ["esbuild@0.28.2"],
    build(folder, entry) {
      run(folder, bin(folder, "esbuild"), entry, "--bundle", "--minify", "--format=esm", "--outfile=dist/main.js");
      writeFileSync(join(folder, "dist/index.html"), page("main.js", 'type="module"'));
    },
  },
  parcel: {
    packages: ["parcel@2.16.4"],
    build(folder, entry) {
      writeFileSync(join(folder, "index.html"), page(`./${entry}`, 'type="module"'));
      run(folder, bin(folder, "parcel"), "build", "index.html", "--public-url=./", "--no-cache", "--no-source-maps");
    },
  },
};

/** Everything that was built, as text. */
const built = (folder) =>
  readdirSync(join(folder, "dist"), { recursive: true })
    .filter((name) => /\.m?js$/.test(name))
    .map((name) => readFileSync(join(folder, "dist", name), "utf8"))
    .join("\n");

for (const [name, { packages, build }] of Object.entries(BUNDLERS)) {
  test(name, async () => {
    const folder = project(name, packages);
    build(folder, "main.js");
    assert.ok(built(folder).includes("attention-select"), "the view is there");
    const site = await serve(join(folder, "dist"), { base: "/app/" });
    const { page, errors, requests, context } = await watched(browser);
    await page.goto(site.url);
    await page.waitForFunction(() => globalThis.answer !== undefined);
    const answer = await page.evaluate(() => globalThis.answer);
    assert.equal(answer.error, undefined);
    assert.deepEqual(answer.y.slice(0, 8), FIRST);
    assert.deepEqual(answer.scores, [1, 0, 0, 0]);
    assert.equal(answer.refused, "q");
    assert.ok(answer.svg);
    assert.deepEqual(errors.filter((error) => !error.includes("404")), []);
    assert.ok(requests.every((url) => url.startsWith(site.url) || url.endsWith("/favicon.ico")), requests.join());
    await context.close();
    site.close();

    rmSync(join(folder, "dist"), { recursive: true });
    build(folder, "least.js");
    assert.ok(!built(folder).includes("attention-select"), "the view is left out where nobody uses it");
  });
}
