// Times the package and other libraries for WebAssembly in a Chromium without a window. MHA_PACKAGE and
// MHA_PEERS as for node.mjs, MHA_CHROMIUM is the program.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { pathToFileURL } from "node:url";

import { answer } from "./words.mjs";

const peers = process.env.MHA_PEERS;
const { chromium } = await import(pathToFileURL(join(peers, "playwright-core/index.mjs")).href);

const FOLDERS = { mha: process.env.MHA_PACKAGE, peers, bench: import.meta.dirname };
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
let tensors = {};

const server = createServer((request, response) => {
  const [, folder, ...path] = new URL(request.url, "http://localhost").pathname.split("/");
  try {
    const name = path.join("/");
    if (folder === "tensors") {
      const { buffer } = tensors[name];
      response.writeHead(200, { "cross-origin-resource-policy": "same-origin" }).end(new Uint8Array(buffer));
      return;
    }
    const data = readFileSync(join(FOLDERS[folder], name));
    response.writeHead(200, {
      "content-type": TYPES[extname(name)] ?? "application/octet-stream",
      // Isolated, so that the clock is a fine one.
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    });
    response.end(data);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const browser = await chromium.launch({
  executablePath: process.env.MHA_CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage();
page.on("console", (message) => console.error(message.text()));
page.on("pageerror", (error) => console.error(error));
await page.goto(`http://127.0.0.1:${server.address().port}/bench/page.html`);
await page.waitForFunction(() => globalThis.ready !== undefined, null, { timeout: 60_000 });

await answer("chromium", {
  load: (layer, given) => {
    tensors = given;
    return page.evaluate((layer) => globalThis.ready.load(layer), layer);
  },
  check: async (contender) => {
    const outputs = await page.evaluate((contender) => globalThis.ready.check(contender), contender);
    return outputs.map((text) => {
      const bytes = text === null ? null : Buffer.from(text, "base64");
      return bytes && new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    });
  },
  time: (contender, calls) => page.evaluate(([contender, calls]) => globalThis.ready.time(contender, calls), [contender, calls]),
  peak: () => page.evaluate(() => globalThis.ready.peak()),
});
await browser.close();
process.exit(0);
