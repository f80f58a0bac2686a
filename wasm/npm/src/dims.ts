// The widths of a layer, in the four forms in which Flux writes them.

import { count, object, wrongType } from "./checks.js";

/** Every width of a layer on its own. */
export interface LayerDims {
  /** Features of a query input. */
  readonly qIn: number;
  /** Features of a key input. */
  readonly kIn: number;
  /** Features of a value input. */
  readonly vIn: number;
  /** Features of the projected queries and keys, all heads together. */
  readonly qk: number;
  /** Features of the projected values, all heads together. */
  readonly v: number;
  /** Features of the output. */
  readonly out: number;
}

/**
 * The widths of a layer.
 *
 * | Flux | here |
 * |---|---|
 * | `n` | `n` |
 * | `in => qkv => out` | `{ in, qkv, out }` |
 * | `in => (qk, v) => out` | `{ in, qk, v, out }` |
 * | `(q_in, k_in, v_in) => (qk, v) => out` | `{ qIn, kIn, vIn, qk, v, out }` |
 */
export type Dims =
  | number
  | Only<{ readonly in: number; readonly qkv: number; readonly out: number }>
  | Only<{ readonly in: number; readonly qk: number; readonly v: number; readonly out: number }>
  | Only<LayerDims>;

/** One form of {@link Dims} without the members of the others. */
type Only<Form> = Form & { readonly [Other in Exclude<keyof LayerDims | "in" | "qkv", keyof Form>]?: never };

/** The widths of attention without projections: one, or those of queries and keys and of values. */
export type AttentionDims = number | { readonly qk: number; readonly v: number };

/**
 * Brings the four forms to one.
 *
 * @internal
 */
export function layerDims(dims: Dims): LayerDims {
  const width = (value: unknown): number => count("dims", value);
  if (typeof dims === "number") {
    const n = width(dims);
    return { qIn: n, kIn: n, vIn: n, qk: n, v: n, out: n };
  }
  const given: Partial<Record<keyof LayerDims | "in" | "qkv", unknown>> = object("dims", dims);
  const some = (...names: (keyof typeof given)[]): boolean => names.some((name) => given[name] !== undefined);
  if (some("in") && some("qIn", "kIn", "vIn")) {
    throw wrongType("dims", "either in or qIn, kIn and vIn are needed, not both");
  }
  if (some("qkv") && some("qk", "v")) {
    throw wrongType("dims", "either qkv or qk and v are needed, not both");
  }
  return {
    qIn: width(given.in ?? given.qIn),
    kIn: width(given.in ?? given.kIn),
    vIn: width(given.in ?? given.vIn),
    qk: width(given.qkv ?? given.qk),
    v: width(given.qkv ?? given.v),
    out: width(given.out),
  };
}

/**
 * Brings the two forms to one.
 *
 * @internal
 */
export function attentionDims(dims: AttentionDims): { qk: number; v: number } {
  if (typeof dims === "number") {
    const n = count("dims", dims);
    return { qk: n, v: n };
  }
  const { qk, v } = object("dims", dims);
  return { qk: count("dims", qk), v: count("dims", v) };
}
