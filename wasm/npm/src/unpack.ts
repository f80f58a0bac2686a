// A module that is carried inside a script.

/** The bytes of a module: base64 of gzip. Bundles are loaded compressed or not, and this is the smaller of both. */
export function unpack(base64: string): Promise<ArrayBuffer> {
  const { readable, writable } = new DecompressionStream("gzip");
  // Written by hand: on the way of a Blob the bytes would go through another process, which takes longer than
  // all the rest of loading.
  const writer = writable.getWriter();
  void writer.write(decode(base64));
  void writer.close();
  return new Response(readable).arrayBuffer();
}

/** The bytes that base64 stands for. */
function decode(base64: string): Uint8Array<ArrayBuffer> {
  const { fromBase64 } = Uint8Array as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> };
  if (fromBase64 !== undefined) {
    return fromBase64.call(Uint8Array, base64);
  }
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  // A loop takes a quarter of the time that Uint8Array.from does.
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = text.charCodeAt(i);
  }
  return bytes;
}
