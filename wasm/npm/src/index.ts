// The library with the module inside: nothing to fetch, nothing to configure.

import { inlined } from "./inlined.js";
import type { Mha } from "./library.js";
import { once } from "./load.js";
import { unpack } from "./unpack.js";

export * from "./core.js";

/**
 * Loads the library, on 128-bit vectors: the same bits as on the desk and on a microcontroller. (`mha/auto` chooses
 * what is fastest.) There is one instance a realm (page, worker, process), and later calls give it.
 *
 * @example
 * ```ts
 * import { load } from "mha";
 * const mha = await load();
 * ```
 */
export function load(): Promise<Mha> {
  return once(() => unpack(inlined));
}
