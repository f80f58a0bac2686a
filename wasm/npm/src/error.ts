// What can be wrong, and which argument is at fault.

/**
 * The numbers of the errors. Those below 32 are the library's own, the same in Rust and C; those
 * from 64 on exist in JavaScript only. A number is never given to another error.
 */
export const ErrorCode = {
  /** A dimension is zero that must not be. */
  Zero: 1,
  /** The number of heads does not divide a width that is split into heads. */
  Heads: 2,
  /** A size does not fit the address space. */
  TooLarge: 3,
  /** An array has the wrong length. */
  Length: 4,
  /** An extent of a mask or a bias is neither 1 nor the size of its axis. */
  Broadcast: 5,
  /** A number lies outside its domain. */
  Value: 6,
  /** A range does not lie inside what it selects from. */
  Range: 7,
  /** Two options exclude each other. */
  Conflict: 8,
  /** The cache is full. */
  CacheFull: 9,
  /** A gradient is wanted of what the call does not have. (`mha/train`) */
  NoGradient: 10,
  /** There is no way back through an option. (`mha/train`) */
  NoWayBack: 11,
  /** A value is of the wrong kind, for example an array of another class. */
  Type: 64,
  /** An array's buffer is detached: it was transferred to a worker, for example. */
  Detached: 65,
  /** The layer or the cache has been disposed of. */
  Disposed: 66,
  /** The module's memory cannot grow any further. */
  Memory: 67,
  /** What is asked for is in `mha/full`, not in `mha`. */
  Absent: 68,
} as const;

/** The number of an error, one of {@link ErrorCode}. */
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** The name of an argument, as in Rust and C, with a d in front of its gradient; `layer` and `options` exist in JavaScript only. */
export type Argument =
  | "dims" | "heads" | "scale" | "shape"
  | "q" | "k" | "v"
  | "wq" | "wk" | "wv" | "wo" | "bq" | "bk" | "bv" | "bo" | "weights"
  | "bias" | "mask" | "causal" | "dropout"
  | "rows" | "lens" | "softcap" | "alibi" | "rope" | "sinks" | "norm" | "segments" | "extra" | "cache" | "kv_heads"
  | "y" | "scores" | "lse" | "kept"
  | `d${"q" | "k" | "v" | "wq" | "wk" | "wv" | "wo" | "bq" | "bk" | "bv" | "bo" | "bias" | "y" | "scores"}`
  | "layer" | "options";

/**
 * Why a call was refused. Nothing has been written when one of these is thrown.
 *
 * @example
 * ```ts
 * try {
 *   layer.forward({ q });
 * } catch (error) {
 *   if (error instanceof MhaError && error.code === ErrorCode.Length) {
 *     console.log(error.argument); // "q"
 *   }
 * }
 * ```
 */
export class MhaError extends Error {
  override readonly name = "MhaError";
  /** What is wrong, as a stable number. */
  readonly code: ErrorCode;
  /** Which argument is at fault. */
  readonly argument: Argument;

  /** @internal */
  constructor(code: number, argument: string, message: string) {
    super(message);
    this.code = code as ErrorCode;
    this.argument = argument as Argument;
  }
}
