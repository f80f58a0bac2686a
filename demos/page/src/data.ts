// What comes with the page: the weights of two networks, and things to try them on. `cargo xtask page` writes
// the file from demos/models, demos/data and tests/cases.

import packed from "../data/data.gz";

import { FEATURES } from "./nets/vowels.js";

/** An utterance of the test data. */
export interface Utterance {
  readonly speaker: number;
  /** A row of features each. */
  readonly frames: readonly Float32Array[];
}

/** What comes with the page. */
export interface Data {
  /** The weights of the network for digits. */
  readonly digits: Float32Array;
  /** The weights of the network for vowels. */
  readonly vowels: Float32Array;
  /** An utterance of each speaker. */
  readonly spoken: readonly Utterance[];
  /** An image of each digit, of the test data. */
  readonly images: readonly Uint8Array[];
  /** Images of digits that the network has learned from. */
  readonly rehearsals: readonly Uint8Array[];
  /** Case files, by what they show. */
  readonly cases: readonly (readonly [name: string, bytes: Uint8Array<ArrayBuffer>])[];
}

/** The names of the case files, in their order. */
const CASES = ["PyTorch, masked"];

/** How many images there are to learn again. */
const REHEARSALS = 80;

/** Unpacks what comes with the page. */
export async function unpack(): Promise<Data> {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const file = await new Response(stream).arrayBuffer();
  const lengths = [...new Uint32Array(file, 0, 3 + CASES.length)] as [number, number, number, ...number[]];
  let at = 4 * lengths.length;
  const words = joined(new Uint8Array(file, at, 4 * (lengths[0] + lengths[1] + lengths[2])));
  const floats = new Float32Array(words);
  at += words.byteLength;
  const take = (length: number): Uint8Array<ArrayBuffer> => new Uint8Array(file.slice(at, (at += length)));
  const [images, rehearsals] = [10, REHEARSALS].map((length) => Array.from({ length }, () => take(64))) as [Uint8Array[], Uint8Array[]];
  const cases = CASES.map((name, i) => [name, take(lengths[3 + i]!)] as const);
  const [digits, vowels] = [lengths[0], lengths[0] + lengths[1]];
  return {
    digits: floats.subarray(0, digits),
    vowels: floats.subarray(digits, vowels),
    spoken: utterances(new Uint32Array(words).subarray(vowels)),
    images,
    rehearsals,
    cases: [...cases, ["A broken file", broken(cases[0]![1])]],
  };
}

/** Words whose first bytes come first, then all second ones. */
function joined(planes: Uint8Array<ArrayBuffer>): ArrayBuffer {
  const count = planes.length / 4;
  return planes.map((_, i) => planes[(i & 3) * count + (i >> 2)]!).buffer;
}

/** What is added to millionths, so that none is negative. */
const MIDDLE = 1 << 22;

/** Speaker and length each, then the frames in millionths. */
function utterances(all: Uint32Array): Utterance[] {
  const found: Utterance[] = [];
  for (let at = 0; at < all.length; ) {
    const [speaker, length] = [all[at]!, all[at + 1]!];
    at += 2;
    const frame = (i: number): Float32Array =>
      Float32Array.from(all.subarray(at + i * FEATURES, at + (i + 1) * FEATURES), (word) => (word - MIDDLE) / 1e6);
    found.push({ speaker, frames: Array.from({ length }, (_, i) => frame(i)) });
    at += length * FEATURES;
  }
  return found;
}

/** A case whose description says "haeds". */
function broken(good: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const bytes = good.slice();
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 4096));
  bytes.set(new TextEncoder().encode("haeds"), text.indexOf("heads"));
  return bytes;
}
