// Which instructions the engine has.

/** What a module is compiled for: fused multiply-adds where the machine has them, vectors, neither. */
export type Simd = "relaxed" | "simd128" | "scalar";

/** A module of one function that takes nothing and gives nothing back but runs these instructions. */
const module = (...code: number[]): Uint8Array<ArrayBuffer> =>
  // magic, version; a type: no parameters, no results; a function of it; its body
  Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, code.length + 5, 1, code.length + 3, 0, ...code, 26, 11);

/** `i32.const 0; i8x16.splat; drop` */
const VECTORS = module(65, 0, 253, 15);
/** `v128.const 0` thrice, then `f32x4.relaxed_madd; drop`: splats, since they are shorter. */
const RELAXED = module(65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15, 253, 133, 2);

/** The best that this engine runs. */
export function detect(): Simd {
  return WebAssembly.validate(RELAXED) ? "relaxed" : WebAssembly.validate(VECTORS) ? "simd128" : "scalar";
}
