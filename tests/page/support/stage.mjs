// The page's sources as `cargo xtask test page` has prepared them, bundled for Node.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** The folder of the page's sources. */
export const stage = process.env.PAGE_STAGE;

/** A module of the page's sources. */
export async function source(name) {
  const { build } = createRequire(process.env.ESBUILD)("esbuild");
  // Beside the package, which it finds as the page does.
  const outfile = join(stage, "bundled", name.replaceAll("/", "-").replace(".ts", ".mjs"));
  await build({
    entryPoints: [join(stage, "src", name)],
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    external: ["mha", "mha/*"],
    loader: { ".gz": "binary" },
    outfile,
    logLevel: "error",
  });
  return import(pathToFileURL(outfile).href);
}

/** The package that is installed there: all of it and the way back, as the page has it. */
export const mha = () => import(pathToFileURL(join(stage, "node_modules/mha/train/train.js")).href);

/** What the Rust program has written. */
export const expected = (name) => readFileSync(join(stage, "expected", name));

/** The bytes as floats. */
export const floats = (bytes) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
