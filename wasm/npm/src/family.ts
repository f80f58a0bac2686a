// What the attention family adds to a call: here nothing. `mha/full` has another file in the place of this one.

import { ErrorCode, MhaError } from "./error.js";

/** Options beyond those of the plain layer: none; they are in `mha/full`. */
export type FamilyOptions = object;

/** Choices of scores and other outputs: none; they are in `mha/full`. */
export type SelectOptions = object;

/** @internal */
export type Family = never;

const ABSENT = [
  "offset", "window", "lens", "softcap", "alibi", "rope", "sinks", "norm", "segments", "extra", "scoresOf", "scoreQueries", "lse",
];

/**
 * The error for what only `mha/full` has.
 *
 * @internal
 */
export function absent(name: string): MhaError {
  return new MhaError(ErrorCode.Absent, "options", `options: ${name} is not in "mha"; import { load } from "mha/full" instead`);
}

/**
 * Refuses what is of `mha/full`.
 *
 * @internal
 */
export function look(given: object): void {
  for (const name of ABSENT) {
    const value = (given as Record<string, unknown>)[name];
    if (value !== undefined && value !== false) {
      throw absent(name);
    }
  }
}

/** @internal */
export function readFamily(_seen: void, _rows: number): undefined {}

/** @internal */
export function describe(_call: number, _family: undefined): void {}

/** @internal */
export function fill(_call: number, _family: undefined): void {}

/** @internal */
export function lse(_call: number, _family: undefined): undefined {}
