// The library on the best instructions that the engine has.

import type { Mha } from "./library.js";
import { once } from "./load.js";
import { detect, type Simd } from "./simd.js";
import { unpack } from "./unpack.js";

export * from "./core.js";

/** How the library is loaded. */
export interface AutoOptions {
  /** Forces a module. Default: the best that the engine runs. */
  readonly simd?: Simd | undefined;
}

/**
 * Loads the library with the module that suits the engine. Each lies in a script of its own, one of which is
 * loaded; a bundler that cannot split puts all three into one, and there `mha` is the better entry.
 *
 * Relaxed vectors are the fastest and round as the machine likes it best, so their bits are not those of other
 * machines; `simd128` and `scalar` give the same bits everywhere.
 *
 * @example
 * ```ts
 * import { load } from "mha/auto";
 * const mha = await load();
 * console.log(mha.isa); // "relaxed-simd", "simd128" or "portable"
 * ```
 */
export function load(options: AutoOptions = {}): Promise<Mha> {
  return once(async () => {
    switch (options.simd ?? detect()) {
      case "relaxed":
        return unpack((await import("./inlined.relaxed.js")).inlined);
      case "scalar":
        return unpack((await import("./inlined.scalar.js")).inlined);
      default:
        return unpack((await import("./inlined.js")).inlined);
    }
  });
}
