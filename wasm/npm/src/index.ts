// The library with the module inside: nothing to fetch, nothing to configure.

import { inlined } from "./inlined.js";
import { type Mha, once } from "./mha.js";

export * from "./core.js";

/**
 * Loads the library. There is one instance a realm (page, worker, process), and later calls give it.
 *
 * @example
 * ```ts
 * import { load } from "mha";
 * const mha = await load();
 * ```
 */
export function load(): Promise<Mha> {
  return once(() => unpack(decode(inlined)));
}

/** The bytes that gzip has packed: bundles are loaded compressed or not, and this is the smaller of both. */
function unpack(packed: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  const bytes = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(bytes).arrayBuffer();
}

/** The bytes that base64 stands for. */
function decode(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  // A loop takes a quarter of the time that Uint8Array.from does.
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = text.charCodeAt(i);
  }
  return bytes;
}
