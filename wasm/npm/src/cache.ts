/// <reference lib="esnext.disposable" preserve="true" />
// Keys and values that outlive a call, as JavaScript sees them.

import { array, count, flag, object } from "./checks.js";
import { ErrorCode, MhaError } from "./error.js";
import { look, type KeyOptions, readFamily } from "./family.js";
import * as wasm from "./glue/mha_wasm.js";
import { describe, fill, settle } from "./run.js";

/** How a cache is built. */
export interface CacheOptions {
  /** Positions that each sequence can hold. A multiple of 16 for a ring. */
  readonly capacity: number;
  /** Overwrites the oldest positions instead of being full: an endless stream in constant memory. Default false. */
  readonly ring?: boolean | undefined;
  /** The first positions of a ring, which are never overwritten (attention sinks). A multiple of 16. Default 0. */
  readonly pinned?: number | undefined;
  /** Sequences that grow side by side. Default 1. */
  readonly batch?: number | undefined;
  /** What {@link Cache.save} gave, to go on from there. */
  readonly saved?: SavedCache | undefined;
}

/** What a cache holds, to be stored and given to {@link CacheOptions.saved}. Plain data. */
export interface SavedCache {
  /** The keys, as the library keeps them. */
  readonly keys: Float32Array;
  /** The values, as the library keeps them. */
  readonly values: Float32Array;
  /** Positions appended so far. */
  readonly length: number;
  /** The first position after the pinned ones that has not been overwritten. */
  readonly oldest: number;
}

/** New keys and values for a cache. */
export interface AppendOptions extends KeyOptions {
  /** The keys, `[batch, n, features]`; n follows from the length. */
  readonly k: Float32Array;
  /** The values, `[batch, n, features]`. Default: the keys. */
  readonly v?: Float32Array | undefined;
}

/** What a cache is for. @internal */
export interface CacheSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly qk: number;
  readonly v: number;
}

/**
 * Keys and values between calls: append positions, one or many at a time, and attend over them with
 * {@link Layer.attend} or {@link Mha.dotProductAttention}. Any split into pieces gives the bits of one
 * long causal call.
 *
 * @example
 * ```ts
 * using cache = layer.cache({ capacity: 64, ring: true });
 * for (const frame of frames) {
 *   layer.append(cache, { k: frame });
 *   const { y } = layer.attend(cache, { q: frame });
 * }
 * ```
 */
export class Cache {
  /** Positions that each sequence can hold. */
  readonly capacity: number;
  /** Sequences that grow side by side. */
  readonly batch: number;
  readonly #memory: WebAssembly.Memory;
  #inner: { store: wasm.Store; call: wasm.Call } | undefined;
  /** Gives the memory back, at the end of a `using` block. */
  declare [Symbol.dispose]: () => void;

  /** @internal */
  constructor(memory: WebAssembly.Memory, sizes: CacheSizes, options: CacheOptions) {
    const { capacity, ring, pinned, batch, saved } = object("options", options);
    this.capacity = count("cache", capacity);
    this.batch = batch === undefined ? 1 : count("cache", batch);
    this.#memory = memory;
    const first = pinned === undefined ? 0 : count("cache", pinned);
    if (first > 0 && ring !== true) {
      throw new MhaError(ErrorCode.Value, "cache", "cache: pinned positions need a ring");
    }
    const { heads, kvHeads, qk, v } = sizes;
    const place = flag("cache", ring) ? first : undefined;
    const store = new wasm.Store(heads, kvHeads, qk, v, this.batch, this.capacity, place);
    try {
      settle(store.reserve(), store);
      if (saved !== undefined) {
        const { keys: k, values, length, oldest } = object("cache", saved);
        const keys = array("cache", "Float32Array", k);
        const held = array("cache", "Float32Array", values);
        for (const [given, needed] of [[keys.length, store.keys_len()], [held.length, store.values_len()]] as const) {
          if (given !== needed) {
            throw new MhaError(ErrorCode.Length, "cache", `cache: ${needed} elements needed, ${given} given`);
          }
        }
        settle(store.resume(count("cache", length), count("cache", oldest)), store);
        new Float32Array(memory.buffer, store.keys(), keys.length).set(keys);
        new Float32Array(memory.buffer, store.values(), held.length).set(held);
      }
    } catch (error) {
      store.free();
      throw error;
    }
    this.#inner = { store, call: new wasm.Call() };
  }

  /** Positions appended so far, less those rolled back; a ring counts on past its capacity. */
  get length(): number {
    return this.store.len();
  }

  /** Positions that can still be attended to: the last axis of the scores. */
  get stored(): number {
    return this.store.stored();
  }

  /**
   * Appends keys and values that are projected already.
   *
   * @throws MhaError for what does not fit, or where the cache is full; nothing has changed then.
   */
  append(options: AppendOptions): void {
    const { call } = this.#open();
    append(this.#memory, call, this, options, (call) => this.store.append(call));
  }

  /** Forgets the positions from `length` on, as when a speculation failed. */
  rollback(length: number): void {
    settle(this.store.rollback(count("cache", length)), this.store);
  }

  /** Forgets everything. */
  reset(): void {
    this.store.reset();
  }

  /** Copies everything that it holds. */
  save(): SavedCache {
    const { store } = this;
    const copy = (at: number, length: number): Float32Array => new Float32Array(this.#memory.buffer, at, length).slice();
    return {
      keys: copy(store.keys(), store.keys_len()),
      values: copy(store.values(), store.values_len()),
      length: store.len(),
      oldest: store.oldest(),
    };
  }

  /** Whether the cache has been disposed of. */
  get disposed(): boolean {
    return this.#inner === undefined;
  }

  /** Gives the memory back. The cache cannot be used any more; disposing of it twice does nothing. */
  dispose(): void {
    this.#inner?.store.free();
    this.#inner?.call.free();
    this.#inner = undefined;
  }

  /** @internal */
  get store(): wasm.Store {
    return this.#open().store;
  }

  #open(): { store: wasm.Store; call: wasm.Call } {
    if (this.#inner === undefined) {
      throw new MhaError(ErrorCode.Disposed, "cache", "cache: it has been disposed of");
    }
    return this.#inner;
  }
}

if (Symbol.dispose !== undefined) {
  Object.defineProperty(Cache.prototype, Symbol.dispose, { value: Cache.prototype.dispose });
}

/**
 * The value as a cache.
 *
 * @internal
 */
export function cache(value: unknown): Cache {
  if (!(value instanceof Cache)) {
    throw new MhaError(ErrorCode.Type, "cache", "cache: a Cache is needed");
  }
  return value;
}

/**
 * Brings new keys and values over and lets `compute` append them.
 *
 * @internal
 */
export function append(
  memory: WebAssembly.Memory,
  call: wasm.Call,
  to: Cache,
  options: AppendOptions,
  compute: (call: wasm.Call) => number,
): void {
  const { k: kGiven, v: vGiven, rope, norm } = object("options", options);
  const seen = look({ rope, norm });
  const k = array("k", "Float32Array", kGiven);
  const v = vGiven === undefined ? undefined : array("v", "Float32Array", vGiven);
  const family = readFamily(seen, 0);
  call.begin(to.batch, 0, 0, k.length, undefined, v === k ? undefined : v?.length);
  describe(memory, call, family);
  settle(call.reserve_append(), call);
  new Float32Array(memory.buffer, call.q(), k.length).set(k);
  if (v !== undefined && v !== k) {
    new Float32Array(memory.buffer, call.v(), v.length).set(v);
  }
  fill(memory, call, family);
  settle(compute(call), call);
}
