// `cargo xtask wasm` writes inlined.js beside the compiled files.

/** The module, base64. */
export const inlined: string;
