// A module that is carried inside a script.

/** The bytes of a module: base64 of gzip. Bundles are loaded compressed or not, and this is the smaller of both. */
export function unpack(base64: string): Promise<ArrayBuffer> {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  // A loop takes a quarter of the time that Uint8Array.from does.
  for (let i = 0; i < packed.length; i++) {
    packed[i] = text.charCodeAt(i);
  }
  const bytes = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(bytes).arrayBuffer();
}
