// The most multiply-adds a second that this engine reaches: a loop of independent chains in registers,
// as a module that is written here byte by byte, so that no compiler is between.

const ROUNDS = 100_000;
const SAMPLES = 20;

/** An unsigned number as modules write it. */
function leb(n) {
  return n < 128 ? [n] : [(n & 127) | 128, ...leb(n >>> 7)];
}

const section = (id, bytes) => [id, ...leb(bytes.length), ...bytes];
const simd = (opcode) => [0xfd, ...leb(opcode)];
const get = (local) => [0x20, local];
const set = (local) => [0x21, local];
const splat = (float) => [0x43, ...new Uint8Array(new Float32Array([float]).buffer), ...simd(0x13)];
const [MUL, ADD, MADD] = [0xe6, 0xe4, 0x105].map(simd);

/** A module with one function that does so many rounds over so many chains: `x = x · a + b`. */
function assemble(chains, relaxed) {
  const [a, b, first] = [1, 2, 3];
  const step = (x) => [...get(x), ...get(a), ...(relaxed ? [...get(b), ...MADD] : [...MUL, ...get(b), ...ADD]), ...set(x)];
  const all = Array.from({ length: chains }, (_, i) => first + i);
  const code = [
    ...leb(1), ...leb(2 + chains), 0x7b, // locals: v128
    ...splat(1), ...set(a), ...splat(1e-9), ...set(b),
    0x03, 0x40, // loop
    ...all.flatMap(step),
    ...get(0), 0x41, 1, 0x6b, 0x22, 0, // rounds -= 1
    0x0d, 0, 0x0b, // again
    ...get(first), ...all.slice(1).flatMap((x) => [...get(x), ...ADD]), ...simd(0x1f), 0,
    0x0b,
  ];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 1, 0x7f, 1, 0x7d]),
    ...section(3, [1, 0]),
    ...section(7, [1, 1, 0x66, 0, 0]),
    ...section(10, [1, ...leb(code.length), ...code]),
  ]);
}

/** Operations a second, a multiply-add being two; 0 where the engine has no such instructions. */
export function peak(relaxed = false) {
  let most = 0;
  for (const chains of [8, 10, 12]) {
    const bytes = assemble(chains, relaxed);
    if (!WebAssembly.validate(bytes)) {
      continue;
    }
    const { f } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
    for (let i = 0; i < SAMPLES; i++) {
      const start = performance.now();
      f(ROUNDS);
      const seconds = (performance.now() - start) / 1000;
      most = Math.max(most, (ROUNDS * chains * 8) / seconds);
    }
  }
  return most;
}
