// A safetensors file: named tensors behind a header in JSON. Whoever wrote the file may have got any of it
// wrong, so nothing of it is believed.

/** Why a file was refused: a sentence that names the key or the tensor at fault. */
export class CaseError extends Error {
  override readonly name = "CaseError";
}

/** Refuses. */
export function fail(message: string): never {
  throw new CaseError(message);
}

/** Elements with the size of every axis. */
export interface Tensor<Data> {
  readonly data: Data;
  readonly shape: readonly number[];
}

interface View {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Bytes of an element. */
const SIZES: Readonly<Record<string, number>> = {
  BOOL: 1, U8: 1, I8: 1, F8_E5M2: 1, F8_E4M3: 1, I16: 2, U16: 2, F16: 2, BF16: 2, I32: 4, U32: 4, F32: 4, F64: 8, I64: 8, U64: 8,
};

const size = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** The tensors of a file that have not been taken yet. */
export class Tensors {
  readonly #left: Map<string, View>;

  private constructor(
    readonly metadata: Readonly<Record<string, unknown>>,
    left: Map<string, View>,
  ) {
    this.#left = left;
  }

  /** Takes a file apart. */
  static parse(file: Uint8Array<ArrayBuffer>): Tensors {
    const wrong = (why: string): never => fail(`This is not a safetensors file: ${why}.`);
    if (file.length < 8) {
      wrong(`it has ${file.length} bytes, and its header alone would have 8`);
    }
    const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
    const start = 8 + Number(length);
    if (start > file.length) {
      wrong(`its header should be ${length} bytes long, and the file has ${file.length}`);
    }
    let header: Record<string, unknown>;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, start))) as typeof header;
    } catch {
      return wrong("its header is not JSON");
    }
    if (typeof header !== "object" || header === null || Array.isArray(header)) {
      wrong("its header is not a JSON object");
    }
    const left = new Map<string, View>();
    const ends: [number, number][] = [];
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__") {
        continue;
      }
      const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
      const each = SIZES[dtype as string];
      if (each === undefined) {
        return wrong(`tensor ${name} is of the unknown type ${String(dtype)}`);
      }
      if (!Array.isArray(shape) || !shape.every(size) || !Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(size)) {
        return wrong(`tensor ${name} has no shape or no place`);
      }
      const [from, to] = offsets as [number, number];
      const needed = shape.reduce((product: number, extent: number) => product * extent, each);
      if (to - from !== needed || start + to > file.length) {
        return wrong(`tensor ${name} should have ${needed} bytes, and there are ${Math.min(to, file.length - start) - from}`);
      }
      ends.push([from, to]);
      // A copy, because elements of several bytes want to be aligned.
      left.set(name, { dtype: dtype as string, shape: shape as number[], bytes: file.slice(start + from, start + to) });
    }
    let end = 0;
    for (const [from, to] of ends.sort(([a, b], [c, d]) => a - c || b - d)) {
      if (from !== end) {
        return wrong("its tensors overlap or leave holes");
      }
      end = to;
    }
    if (start + end !== file.length) {
      wrong(`${file.length - start - end} bytes are left at its end`);
    }
    return new Tensors((header["__metadata__"] ?? {}) as Record<string, unknown>, left);
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return this.#left.has(name);
  }

  /** Takes a tensor of floats; 16-bit ones are widened. */
  floats(name: string): Tensor<Float32Array> | undefined {
    const view = this.#take(name);
    if (view === undefined) {
      return undefined;
    }
    const { dtype, shape, bytes } = view;
    switch (dtype) {
      case "F32":
        return { shape, data: new Float32Array(bytes.buffer) };
      case "F16":
        return { shape, data: Float32Array.from(new Uint16Array(bytes.buffer), half) };
      case "BF16":
        return { shape, data: new Float32Array(Uint32Array.from(new Uint16Array(bytes.buffer), (bits) => bits << 16).buffer) };
      default:
        return fail(`${name}: ${dtype} where F32, F16 or BF16 is expected.`);
    }
  }

  /** Takes a tensor of floats that must be there, and have this shape if one is given. */
  required(name: string, shape?: readonly number[]): Tensor<Float32Array> {
    const found = this.floats(name) ?? fail(`${name}: this tensor is missing.`);
    if (shape !== undefined && found.shape.join() !== shape.join()) {
      fail(`${name}: [${found.shape.join(", ")}] where [${shape.join(", ")}] is expected.`);
    }
    return found;
  }

  /** Takes a tensor of booleans. */
  bools(name: string): Tensor<Uint8Array> | undefined {
    const view = this.#take(name);
    if (view === undefined) {
      return undefined;
    }
    const { dtype, shape, bytes } = view;
    return dtype === "BOOL" || dtype === "U8" ? { shape, data: bytes } : fail(`${name}: ${dtype} where BOOL or U8 is expected.`);
  }

  /** Takes a tensor of sizes. */
  sizes(name: string): Tensor<Uint32Array> | undefined {
    const view = this.#take(name);
    if (view === undefined) {
      return undefined;
    }
    const { dtype, shape, bytes } = view;
    if (dtype !== "I64") {
      fail(`${name}: ${dtype} where I64 is expected.`);
    }
    const data = Uint32Array.from(new BigInt64Array(bytes.buffer), (value) =>
      value < 0n || value > 0xffff_ffffn ? fail(`${name}: ${value} is not a length.`) : Number(value),
    );
    return { shape, data };
  }

  /** Forgets tensors that are of no use here. */
  forget(...names: string[]): void {
    names.forEach((name) => this.#left.delete(name));
  }

  /** Refuses what nobody has taken. */
  finish(): void {
    for (const name of this.#left.keys()) {
      fail(`${name}: no tensor of a case has this name.`);
    }
  }

  #take(name: string): View | undefined {
    const view = this.#left.get(name);
    this.#left.delete(name);
    return view;
  }
}

/** The value of sixteen bits: sign, five bits of exponent, ten of fraction. */
function half(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const magnitude =
    exponent === 31 ? (fraction === 0 ? Infinity : NaN) : exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
