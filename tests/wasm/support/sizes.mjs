// Prints the sizes of the package's files, as they are and by gzip. What each entry loads, `cargo xtask npm` says.

import { readFileSync, readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";

import { folder } from "./mha.mjs";

const files = readdirSync(folder, { recursive: true }).filter((name) => /\.(js|wasm)$/.test(name));
const table = new Map();
for (const name of files.map((name) => name.replaceAll("\\", "/")).sort()) {
  const data = readFileSync(new URL(name, folder));
  table.set(name, [data.length, gzipSync(data, { level: 9 }).length]);
}
const row = (name, [raw, gzip]) => console.log(`${name.padEnd(34)}${String(raw).padStart(8)}${String(gzip).padStart(8)}`);

console.log(`${"bytes".padEnd(34)}${"raw".padStart(8)}${"gzip".padStart(8)}`);
table.forEach((size, name) => row(name, size));
