// Bundles the page: `node build.mjs OUT`, in the folder that `cargo xtask page` has prepared. Says in the page
// and on the standard output how much of it is downloaded, and fails where that is more than it may be.

import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/** The most bytes that the page may be after gzip. */
const MOST = 150_000;

const { build } = createRequire(process.env.ESBUILD ?? import.meta.url)("esbuild");
const out = process.argv[2];

const usual = {
  bundle: true,
  minify: true,
  target: ["chrome111", "firefox114", "safari16.4"],
  loader: { ".gz": "binary" },
  legalComments: "none",
  logLevel: "warning",
};
/** The size after gzip of what a few lines of JavaScript are bundled to. */
async function weigh(contents) {
  const made = await build({ ...usual, stdin: { contents, resolveDir: "." }, format: "esm", write: false });
  return gzipSync(made.outputFiles[0].contents, { level: 9 }).length;
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await build({ ...usual, entryPoints: ["src/main.ts"], format: "iife", outfile: join(out, "page.js") });
await build({ ...usual, entryPoints: ["page.css"], outfile: join(out, "page.css") });
copyFileSync("icon.svg", join(out, "icon.svg"));

const sizes = {
  package: await weigh('import { load } from "mha/train"; console.log(load);'),
  view: await weigh('import { defineAttentionView } from "mha/view"; defineAttentionView();'),
  data: await weigh('import data from "./data/data.gz"; console.log(data);'),
};
const html = readFileSync("index.html", "utf8").replace(/\n\s+/g, "\n");
const total = [html, ...["page.js", "page.css", "icon.svg"].map((name) => readFileSync(join(out, name)))]
  .map((file) => gzipSync(file, { level: 9 }).length)
  .reduce((sum, size) => sum + size);
sizes.page = total - Object.values(sizes).reduce((sum, size) => sum + size);
sizes.total = total;
writeFileSync(
  join(out, "index.html"),
  html.replace(/\{\{(\w+)\}\}/g, (_, name) => (sizes[name] / 1000).toFixed(name === "total" ? 0 : 1)),
);
for (const [name, size] of Object.entries(sizes)) {
  console.log(`${name.padEnd(10)}${String(size).padStart(8)} bytes after gzip`);
}
if (total > MOST) {
  console.error(`the page may have ${MOST} bytes and has ${total}`);
  process.exit(1);
}
