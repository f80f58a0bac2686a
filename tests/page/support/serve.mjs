// Serves a folder on this machine: `node serve.mjs FOLDER PORT`. For tests also under a path of one's choice
// and with headers of one's choice.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize, sep } from "node:path";
import { pathToFileURL } from "node:url";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Serves a folder and gives its address and what ends it. */
export function serve(folder, { port = 0, base = "/", headers = {} } = {}) {
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    const inside = path.startsWith(base) ? normalize(path.slice(base.length)) : "..";
    const name = inside === "." || inside.endsWith(sep) ? join(inside, "index.html") : inside;
    try {
      if (name.startsWith("..")) {
        throw new Error("outside");
      }
      const data = await readFile(join(folder, name));
      response.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "cache-control": "no-store", ...headers });
      response.end(data);
    } catch {
      response.writeHead(404, { "content-type": "text/plain" }).end("not here");
    }
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      resolve({ url: `http://127.0.0.1:${server.address().port}${base}`, close: () => server.close() });
    });
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { url } = await serve(process.argv[2], { port: Number(process.argv[3]) });
  console.log(`${url} (Ctrl-C ends it)`);
}
