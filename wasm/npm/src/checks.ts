// What JavaScript can get wrong that no other language can: the kinds of its values. Lengths,
// extents and domains are for the core to check.

import { type Argument, ErrorCode, MhaError } from "./error.js";

/** The typed arrays that are taken, by the name of their class. */
interface Arrays {
  Float32Array: Float32Array;
  Int32Array: Int32Array;
  Uint8Array: Uint8Array;
  Uint32Array: Uint32Array;
}

const prototype = Object.getPrototypeOf(Float32Array.prototype) as object;

/** The name of the class of a typed array, wherever it comes from: another frame has other classes. */
const className = Object.getOwnPropertyDescriptor(prototype, Symbol.toStringTag)?.get as (
  this: unknown,
) => string | undefined;

/** Throws a TypeError where the buffer is detached or has shrunk away under the array. */
const validate = Object.getOwnPropertyDescriptor(prototype, "keys")?.value as (this: unknown) => unknown;

/** The value as a typed array of the class, with a buffer that is there. */
export function array<Name extends keyof Arrays>(argument: Argument, name: Name, value: unknown): Arrays[Name] {
  const found = className.call(value);
  if (found !== name) {
    throw wrongType(argument, `a ${name} is needed, ${found ?? kind(value)} given`);
  }
  // A buffer that is gone leaves an array of length 0.
  if ((value as ArrayLike<unknown>).length === 0) {
    try {
      validate.call(value);
    } catch {
      throw new MhaError(ErrorCode.Detached, argument, `${argument}: the array's buffer is detached`);
    }
  }
  return value as Arrays[Name];
}

/** As {@link array}, for a Float32Array that may be left out. */
export function maybeFloats(argument: Argument, value: unknown): Float32Array | undefined {
  return value === undefined ? undefined : array(argument, "Float32Array", value);
}

/** The value as a count: a whole number, not negative, that fits 32 bits. */
export function count(argument: Argument, value: unknown): number {
  const n = number(argument, value);
  if (!Number.isInteger(n) || n < 0) {
    throw new MhaError(ErrorCode.Value, argument, `${argument}: ${n} is not a count`);
  }
  if (n > 0xffff_ffff) {
    throw new MhaError(ErrorCode.TooLarge, argument, `${argument}: the size overflows`);
  }
  return n;
}

/** The value as a whole number of 32 bits; one beyond that is brought to the nearest. */
export function offset(argument: Argument, value: unknown): number {
  const n = number(argument, value);
  if (!Number.isInteger(n)) {
    throw new MhaError(ErrorCode.Value, argument, `${argument}: ${n} is not a whole number`);
  }
  return Math.max(-0x8000_0000, Math.min(0x7fff_ffff, n));
}

/** The value as a number. */
export function number(argument: Argument, value: unknown): number {
  if (typeof value !== "number") {
    throw wrongType(argument, `a number is needed, ${kind(value)} given`);
  }
  return value;
}

/** The value as an object whose members can be looked at. */
export function object<T>(argument: Argument, value: T): T & object {
  if (typeof value !== "object" || value === null) {
    throw wrongType(argument, `an object is needed, ${kind(value)} given`);
  }
  return value;
}

/** The place of the value in a list of words. */
export function word(argument: Argument, words: readonly string[], value: unknown): number {
  const place = words.indexOf(value as string);
  if (place < 0) {
    const choice = words.map((each) => JSON.stringify(each)).join(", ");
    const message = `${argument}: one of ${choice} is needed, ${kind(value)} given`;
    throw new MhaError(ErrorCode.Value, argument, message);
  }
  return place;
}

/** The value as true or false; left out it is false. */
export function flag(argument: Argument, value: unknown): boolean {
  if (value !== undefined && typeof value !== "boolean") {
    throw wrongType(argument, `true or false is needed, ${kind(value)} given`);
  }
  return value === true;
}

/** The error for a value of the wrong kind. */
export function wrongType(argument: Argument, message: string): MhaError {
  return new MhaError(ErrorCode.Type, argument, `${argument}: ${message}`);
}

/** A value's kind, for messages. */
function kind(value: unknown): string {
  if (value === null || value === undefined) {
    return String(value);
  }
  if (typeof value === "string") {
    return JSON.stringify(value);
  }
  const name = typeof value === "object" ? (value.constructor as { name?: unknown } | undefined)?.name : undefined;
  return typeof name === "string" && name !== "" ? name : typeof value;
}

/** The bits of a float. */
export function bits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] as number;
}
