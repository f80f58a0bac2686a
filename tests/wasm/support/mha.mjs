// The built package: where `cargo xtask wasm` puts it, or where MHA_PACKAGE says.

import { pathToFileURL } from "node:url";

const built = new URL("../../../target/npm/mha/", import.meta.url);
/** The package's folder. */
export const folder = process.env.MHA_PACKAGE === undefined ? built : pathToFileURL(`${process.env.MHA_PACKAGE}/`);

/** The entry with everything. */
export const { ErrorCode, MhaError, load } = await import(new URL("full/index.js", folder).href);
/** The entry with the plain layer. */
export const plain = await import(new URL("index.js", folder).href);
/** The entry with the way back. */
export const { MhaError: TrainError, load: loadTraining } = await import(new URL("train/train.js", folder).href);
