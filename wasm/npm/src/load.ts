// Loading: the one instance of a realm.

import init from "./glue/mha_wasm.js";
import { Mha } from "./library.js";
import { hold } from "./run.js";

/** Where the module comes from: compiled, its bytes, a response, or an address to fetch. */
export type Source = WebAssembly.Module | BufferSource | Response | URL | string;

let loaded: Promise<Mha> | undefined;

/**
 * Loads the module, once: later calls give what the first did. One that fails may be tried again.
 *
 * @internal
 */
export function once(source: () => Source | PromiseLike<Source>): Promise<Mha> {
  loaded ??= start(source).catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function start(source: () => Source | PromiseLike<Source>): Promise<Mha> {
  const { memory } = await init({ module_or_path: await source() });
  hold(memory);
  return new Mha();
}
