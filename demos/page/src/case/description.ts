// The description in a case's metadata: a JSON object, every key of which is understood or refused by name.

import type { LayerDims, Rope, ScoresAt, WeightOrder, Window } from "mha/train";

import { fail } from "./tensors.js";

/** How far an element may be off: `|a − e| <= absolute + relative·|e|`. */
export type Tolerance = readonly [absolute: number, relative: number];

/** The description, each key in its type. */
export interface Description {
  readonly dims: LayerDims;
  readonly heads: number;
  readonly kvHeads: number;
  readonly weights: WeightOrder | "none";
  readonly scale: number | undefined;
  readonly causal: boolean;
  readonly causalOffset: number | readonly number[] | undefined;
  readonly window: Window | undefined;
  readonly softcap: number | undefined;
  readonly alibi: boolean | Float32Array;
  readonly rope: Rope | undefined;
  readonly scoresAt: ScoresAt;
  readonly dropout: { readonly p: number; readonly seed: bigint } | undefined;
  readonly yTolerance: Tolerance;
  readonly scoresTolerance: Tolerance;
  readonly source: string;
}

const show = (value: unknown): string => JSON.stringify(value) ?? String(value);
const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);

/** Understands the whole text or refuses it. */
export function describe(text: string): Description {
  let keys: Record<string, unknown>;
  try {
    keys = JSON.parse(text) as typeof keys;
  } catch {
    return fail("The entry mha of the metadata is not JSON.");
  }
  if (typeof keys !== "object" || keys === null || Array.isArray(keys)) {
    fail("The entry mha of the metadata is not a JSON object.");
  }
  const left = new Set(Object.keys(keys));
  const take = (key: string): unknown => (left.delete(key) ? keys[key] : undefined);

  const kind = take("kind");
  if (kind !== undefined) {
    fail(kind === "rope" ? 'kind: a case of kind "rope" is a rotation alone, with no attention to see.' : `kind: ${show(kind)} is no kind of case.`);
  }
  const dims = readDims(take("dims"));
  const heads = width("heads", take("heads"));
  const kvHeads = optional(take("kv_heads"), (value) => width("kv_heads", value)) ?? heads;
  if (heads % kvHeads !== 0) {
    fail(`kv_heads: ${kvHeads} do not divide ${heads} heads.`);
  }
  for (const name of ["qk", "v"] as const) {
    if (dims[name] % heads !== 0) {
      fail(`heads: ${heads} do not divide ${name}, which is ${dims[name]}.`);
    }
  }
  const softcap = optional(take("softcap"), (value) => {
    const cap = number("softcap", value);
    return cap > 0 ? cap : fail(`softcap: ${cap} caps nothing; it must be above 0.`);
  });
  const description: Description = {
    dims,
    heads,
    kvHeads,
    weights: choice("weights", ["in_out", "out_in", "none"] as const, take("weights")),
    scale: optional(take("scale"), (value) => number("scale", value)),
    causal: bool("causal", take("causal")),
    causalOffset: optional(take("causal_offset"), readOffsets),
    window: optional(take("window"), readWindow),
    softcap,
    alibi: readAlibi(take("alibi"), heads),
    rope: optional(take("rope"), (value) => readRope(value, dims.qk / heads)),
    scoresAt: scoresAt(choice("scores_at", ["softmax", "logits", "capped", "masked"] as const, take("scores_at")), softcap),
    dropout: optional(take("dropout"), (value) => readDropout(value, text)),
    yTolerance: tolerance("y_tol", take("y_tol")),
    scoresTolerance: tolerance("scores_tol", take("scores_tol")),
    source: optional(take("source"), (value) => (typeof value === "string" ? value : fail("source: this is not a text."))) ?? "unnamed",
  };
  tolerance("grad_tol", take("grad_tol"));
  for (const key of left) {
    fail(`${key}: no case has this key. A newer version may; then this page is too old.`);
  }
  return description;
}

function optional<T>(value: unknown, read: (value: unknown) => T): T | undefined {
  return value === undefined ? undefined : read(value);
}

function number(key: string, value: unknown): number {
  return typeof value === "number" ? value : fail(`${key}: ${show(value)} is not a number.`);
}

function bool(key: string, value: unknown): boolean {
  return value === undefined ? false : typeof value === "boolean" ? value : fail(`${key}: ${show(value)} is neither true nor false.`);
}

function width(key: string, value: unknown): number {
  if (value === undefined) {
    fail(`${key}: this key is missing.`);
  }
  return isWhole(value) && value > 0 ? value : fail(`${key}: ${show(value)} is not a size above 0.`);
}

function choice<Word extends string>(key: string, words: readonly [Word, ...Word[]], value: unknown): Word {
  const found = value === undefined ? words[0] : words.find((word) => word === value);
  return found ?? fail(`${key}: ${show(value)} is none of ${words.map(show).join(", ")}.`);
}

/** Members of an object, none of which is unknown. */
function members(key: string, names: readonly string[], value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    fail(`${key}: ${show(value)} is not an object.`);
  }
  for (const name of Object.keys(value as object)) {
    if (!names.includes(name)) {
      fail(`${key}: it has no member ${name}.`);
    }
  }
  return value as Record<string, unknown>;
}

/** A number, or an object whose missing members are filled in as Flux's shorter forms would. */
function readDims(value: unknown): LayerDims {
  if (typeof value !== "object" || value === null) {
    const n = width("dims", value);
    return { qIn: n, kIn: n, vIn: n, qk: n, v: n, out: n };
  }
  const given = members("dims", ["q_in", "k_in", "v_in", "qk", "v", "out"], value);
  const member = (name: string): number | undefined => optional(given[name], (value) => width(`dims: ${name}`, value));
  const qIn = member("q_in") ?? fail("dims: q_in is missing.");
  const qk = member("qk") ?? qIn;
  return { qIn, kIn: member("k_in") ?? qIn, vIn: member("v_in") ?? qIn, qk, v: member("v") ?? qk, out: member("out") ?? qIn };
}

function readOffsets(value: unknown): number | readonly number[] {
  const one = (value: unknown): number => (isWhole(value) ? value : fail(`causal_offset: ${show(value)} is not a whole number.`));
  return Array.isArray(value) ? value.map(one) : one(value);
}

function readWindow(value: unknown): Window {
  if (!Array.isArray(value) || value.length !== 2 || !value.every((side) => isWhole(side) && side >= -1)) {
    return fail(`window: ${show(value)} is not [left, right], each a count or −1.`);
  }
  const [left, right] = (value as number[]).map((side) => (side < 0 ? undefined : side));
  return { left, right };
}

function readAlibi(value: unknown, heads: number): boolean | Float32Array {
  if (!Array.isArray(value)) {
    return value === undefined || typeof value === "boolean" ? value === true : fail(`alibi: ${show(value)} is neither true nor a list of slopes.`);
  }
  const slopes = value.map((slope) => number("alibi", slope));
  return slopes.length === heads ? Float32Array.from(slopes) : fail(`alibi: ${slopes.length} slopes for ${heads} heads.`);
}

function readRope(value: unknown, d: number): Rope {
  const given = members("rope", ["base", "dims", "interleaved", "q_offset", "k_offset"], value);
  const count = (name: string, usual: number): number => {
    const value = given[name] ?? usual;
    return isWhole(value) && value >= 0 ? value : fail(`rope: ${name}: ${show(value)} is not a count.`);
  };
  const base = number("rope: base", given["base"] ?? 10_000);
  const dims = count("dims", d);
  if (!(base > 0)) {
    fail(`rope: base: ${base} is not above 0.`);
  }
  if (dims === 0 || dims > d || dims % 2 !== 0) {
    fail(`rope: dims: ${dims} of a head of ${d} features; an even number of them can be rotated.`);
  }
  return { base, dims, interleaved: bool("rope: interleaved", given["interleaved"]), qOffset: count("q_offset", 0), kOffset: count("k_offset", 0) };
}

/** Without a softcap, after it is the same as before. */
function scoresAt(given: ScoresAt, softcap: number | undefined): ScoresAt {
  return given === "capped" && softcap === undefined ? "logits" : given;
}

function readDropout(value: unknown, text: string): { p: number; seed: bigint } {
  const given = members("dropout", ["p", "seed"], value);
  const p = number("dropout: p", given["p"] ?? fail("dropout: p is missing."));
  if (!(p >= 0 && p < 1)) {
    fail(`dropout: p: ${p} is not a probability below 1.`);
  }
  // The text, because a number of JavaScript has 53 bits.
  const digits = given["seed"] === undefined ? fail("dropout: seed is missing.") : /"seed"\s*:\s*(\d+)\s*[,}]/.exec(text)?.[1];
  return { p, seed: digits === undefined ? fail("dropout: seed is not a whole number from 0 on.") : BigInt(digits) };
}

function tolerance(key: string, value: unknown): Tolerance {
  if (value === undefined) {
    return [2e-5, 2e-5];
  }
  if (!Array.isArray(value) || value.length !== 2 || !value.every((part) => typeof part === "number" && part >= 0)) {
    return fail(`${key}: ${show(value)} is not [absolute, relative].`);
  }
  return value as unknown as Tolerance;
}
