/// <reference lib="esnext.disposable" preserve="true" />
// Keys and values that outlive a call, as JavaScript sees them.

import { array, count, flag, object } from "./checks.js";
import { ErrorCode, MhaError } from "./error.js";
import { describe, fill, look, type KeyOptions, readFamily } from "./family.js";
import * as wasm from "./glue/mha_wasm.js";
import { count as described, free, memory, net, type Owner, places, settle } from "./run.js";

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

/** The handles of a cache. */
interface OwnCache extends Owner {
  readonly store: number;
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
  #inner: OwnCache | undefined;
  /** Gives the memory back, at the end of a `using` block. */
  declare [Symbol.dispose]: () => void;

  /** @internal */
  constructor(sizes: CacheSizes, options: CacheOptions) {
    const { capacity, ring, pinned, batch, saved } = object("options", options);
    this.capacity = count("cache", capacity);
    this.batch = batch === undefined ? 1 : count("cache", batch);
    const first = pinned === undefined ? 0 : count("cache", pinned);
    if (first > 0 && ring !== true) {
      throw new MhaError(ErrorCode.Value, "cache", "cache: pinned positions need a ring");
    }
    const { heads, kvHeads, qk, v } = sizes;
    const place = flag("cache", ring) ? first : undefined;
    const store = wasm.store_new(heads, kvHeads, qk, v, this.batch, this.capacity, place);
    const own: OwnCache = { store, call: wasm.call_new(), frees: [] };
    own.frees.push(() => wasm.store_free(store), () => wasm.call_free(own.call));
    try {
      settle(wasm.store_reserve(store), wasm.store_problem, store);
      if (saved !== undefined) {
        const { keys: k, values, length, oldest } = object("cache", saved);
        const keys = array("cache", "Float32Array", k);
        const held = array("cache", "Float32Array", values);
        for (const [given, needed] of [[keys.length, wasm.store_keys_len(store)], [held.length, wasm.store_values_len(store)]] as const) {
          if (given !== needed) {
            throw new MhaError(ErrorCode.Length, "cache", `cache: ${needed} elements needed, ${given} given`);
          }
        }
        settle(wasm.store_resume(store, count("cache", length), count("cache", oldest)), wasm.store_problem, store);
        new Float32Array(memory.buffer, wasm.store_keys(store), keys.length).set(keys);
        new Float32Array(memory.buffer, wasm.store_values(store), held.length).set(held);
      }
    } catch (error) {
      free(own);
      throw error;
    }
    this.#inner = own;
    net.register(this, own, this);
  }

  /** Positions appended so far, less those rolled back; a ring counts on past its capacity. */
  get length(): number {
    return wasm.store_len(this.store);
  }

  /** Positions that can still be attended to: the last axis of the scores. */
  get stored(): number {
    return wasm.store_stored(this.store);
  }

  /**
   * Appends keys and values that are projected already.
   *
   * @throws MhaError for what does not fit, or where the cache is full; nothing has changed then.
   */
  append(options: AppendOptions): void {
    const { call } = this.#open();
    append(call, this, options, (call) => wasm.store_append(this.store, call));
  }

  /** Forgets the positions from `length` on, as when a speculation failed. */
  rollback(length: number): void {
    settle(wasm.store_rollback(this.store, count("cache", length)), wasm.store_problem, this.store);
  }

  /** Forgets everything. */
  reset(): void {
    wasm.store_reset(this.store);
  }

  /** Copies everything that it holds. */
  save(): SavedCache {
    const { store } = this;
    const copy = (at: number, length: number): Float32Array => new Float32Array(memory.buffer, at, length).slice();
    return {
      keys: copy(wasm.store_keys(store), wasm.store_keys_len(store)),
      values: copy(wasm.store_values(store), wasm.store_values_len(store)),
      length: wasm.store_len(store),
      oldest: wasm.store_oldest(store),
    };
  }

  /** Whether the cache has been disposed of. */
  get disposed(): boolean {
    return this.#inner === undefined;
  }

  /** Gives the memory back. The cache cannot be used any more; disposing of it twice does nothing. */
  dispose(): void {
    if (this.#inner !== undefined) {
      net.unregister(this);
      free(this.#inner);
      this.#inner = undefined;
    }
  }

  /** @internal */
  get store(): number {
    return this.#open().store;
  }

  #open(): OwnCache {
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
export function append(call: number, to: Cache, options: AppendOptions, compute: (call: number) => number): void {
  const { k: kGiven, v: vGiven, rope, norm } = object("options", options);
  const seen = look({ rope, norm });
  const k = array("k", "Float32Array", kGiven);
  const given = vGiven === undefined ? undefined : array("v", "Float32Array", vGiven);
  const v = given === k ? undefined : given;
  const family = readFamily(seen, 0);
  const words = new Uint32Array(memory.buffer, wasm.call_words(call), 26).fill(0);
  words.set([to.batch, 0, 0, described(k), 0, described(v)]);
  describe(call, family);
  settle(wasm.call_reserve_append(call), wasm.call_problem, call);
  const at = places(call);
  new Float32Array(memory.buffer, at.q, k.length).set(k);
  if (v !== undefined) {
    new Float32Array(memory.buffer, at.v, v.length).set(v);
  }
  fill(call, family);
  settle(compute(call), wasm.call_problem, call);
}
