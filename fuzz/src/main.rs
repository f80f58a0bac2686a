//! The whole C interface under made-up calls: shapes, pointers, lengths, overlaps, options and caches.
//!
//! Whatever is given, a call must not read or write outside of its buffers (the address sanitizer sees
//! that), must not panic, must write nothing where it returns an error, and nothing but its outputs
//! where it does not; and with the least scratch its outputs have the same bits.
#![no_main]

mod made;
mod pool;

use std::ptr;

use libfuzzer_sys::fuzz_target;
use made::{NO_WEIGHTS, Sizes, inputs, options, product, slice_mut, weights};
use mha_ffi::*;
use pool::{Bytes, Pool, difference};

fuzz_target!(|data: &[u8]| call(&mut Bytes::new(data)));

/// A call of one function or another.
fn call(from: &mut Bytes<'_>) {
    let pool = &mut Pool::default();
    let sizes = Sizes::new(from);
    let Sizes { dims, heads, shape, .. } = sizes;
    let mha_shape { batch, q_len, kv_len } = shape;
    let isa = if from.seldom(64) { from.byte().into() } else { from.below(4) as i32 };
    let function = from.below(16);
    let bare = matches!(function, 4..=6 | 11);

    let config = sizes.config(from);
    let attention = sizes.attention(from);
    let weights = if bare { NO_WEIGHTS } else { weights(from, pool, &sizes) };
    let layer = mha_layer { config, weights, isa };

    // The cache, for those that have one: made full of what may lie anywhere.
    let block = 16 * (from.below(3) + 1);
    let ring = u32::from(from.seldom(2));
    let capacity = if ring == 1 { block } else { from.below(40) };
    let (kept_k, kept_v) = (sizes.shared(dims.qk), sizes.shared(dims.v));
    let mut cache = mha_cache {
        attention: mha_attention { has_scale: 0, ..attention },
        config: mha_cache_config {
            batch,
            capacity,
            pinned: if from.seldom(4) { 16 } else { 0 },
            ring,
        },
        keys: mha_slice_mut { data: ptr::null_mut(), len: 0 },
        values: mha_slice_mut { data: ptr::null_mut(), len: 0 },
        state: mha_cache_state { len: 0, oldest: 0 },
    };
    let is_cached = function >= 9;
    if is_cached {
        let positions = capacity.next_multiple_of(16);
        let sequences = batch.max(1);
        cache.keys = slice_mut(pool.buffer(from, product(&[sequences, positions, kept_k]), true));
        cache.values = slice_mut(pool.buffer(from, product(&[sequences, capacity, kept_v]), true));
        if from.seldom(2) {
            cache.state.len = from.below(200);
            cache.state.oldest = if from.seldom(4) {
                from.below(200)
            } else {
                let pinned = cache.config.pinned;
                cache.state.len.saturating_sub(capacity.saturating_sub(pinned)).max(pinned)
            };
        }
    }

    // SAFETY: every pointer below is null, misaligned, or good for the length beside it, but for lengths
    // that no call can ask for.
    unsafe {
        let scratch_len = match function {
            4..=6 => mha_attention_scratch_len(&attention, shape),
            9..=11 => mha_cached_scratch_len(&config, q_len),
            _ => mha_scratch_len(&config, shape),
        };
        let shape = match is_cached {
            true => mha_shape { kv_len: mha_cache_stored(&cache), ..shape },
            false => shape,
        };
        let widths = match bare {
            true => [dims.qk, kept_k, kept_v],
            false => [dims.q_in, dims.k_in, dims.v_in],
        };
        let inputs = inputs(from, pool, shape, heads, widths);
        let options = options(from, pool, shape, &sizes);
        let out = if bare { dims.v } else { dims.out };
        let rows = (from.below(24), from.below(24));
        let y_rows = match function {
            1 | 3 => rows.1.saturating_sub(rows.0),
            _ => batch * q_len,
        };
        let y = slice_mut(pool.buffer(from, product(&[y_rows, out]), true));
        let scores = match from.seldom(3) {
            true => slice_mut(pool.buffer(from, product(&[heads, y_rows, shape.kv_len]), true)),
            false => mha_slice_mut { data: ptr::null_mut(), len: 0 },
        };
        let outputs = mha_outputs { y, scores, scores_at: from.below(5) as i32 };
        let (scratch, scratch_len) = pool.buffer(from, scratch_len, true);
        let options: *const mha_options = if from.seldom(8) { ptr::null() } else { &options };
        let new = (from.below(10), from.below(2));

        let (i, o) = (&raw const inputs, &raw const outputs);
        let (l, a) = (&raw const layer, &raw const attention);
        if std::env::var_os("MHA_FUZZ_SHOW").is_some() {
            eprintln!(
                "function {function}, rows {rows:?}, {shape:?}, {layer:?}, {inputs:?}, {outputs:?}"
            );
        }
        let mut run = |pool: &Pool, scratch: *mut f32, scratch_len: usize| {
            let before = pool.bits();
            let cache_before = (cache.state.len, cache.state.oldest);
            let c = &raw mut cache;
            let status = match function {
                0 => mha_forward(l, shape, i, o, scratch, scratch_len),
                1 => mha_forward_rows(l, shape, rows.0, rows.1, i, o, scratch, scratch_len),
                2 => mha_forward_with(l, shape, i, options, o, scratch, scratch_len),
                3 => mha_forward_rows_with(
                    l,
                    shape,
                    rows.0,
                    rows.1,
                    i,
                    options,
                    o,
                    scratch,
                    scratch_len,
                ),
                4 => mha_dot_product_attention(a, isa, shape, i, o, scratch, scratch_len),
                5 => mha_dot_product_attention_with(
                    a,
                    isa,
                    shape,
                    i,
                    options,
                    o,
                    scratch,
                    scratch_len,
                ),
                6 => mha_dot_product_attention_scores_with(
                    a,
                    isa,
                    shape,
                    i,
                    options,
                    scores.data,
                    scores.len,
                    scratch,
                    scratch_len,
                ),
                7 => {
                    // Packed: the batch as sequences of lengths that come to the same.
                    let starts = |total: usize, sequences: usize| -> Vec<usize> {
                        (0..=sequences)
                            .map(|i| {
                                (total / sequences.max(1)).wrapping_mul(i)
                                    + total % sequences.max(1) * usize::from(i == sequences)
                            })
                            .collect()
                    };
                    let count = rows.0 % 5;
                    let q = starts(batch * q_len, count);
                    let kv = starts(product(&[batch, kv_len]), count);
                    mha_forward_packed(
                        l,
                        count,
                        q.as_ptr(),
                        kv.as_ptr(),
                        i,
                        options,
                        o,
                        scratch,
                        scratch_len,
                    )
                }
                8 => mha_layer_check(l),
                9 => mha_append(
                    l,
                    c,
                    inputs.k.data,
                    inputs.k.len,
                    inputs.v.data,
                    inputs.v.len,
                    options,
                ),
                10 => mha_attend(l, c, q_len, i, options, o, scratch, scratch_len),
                11 => mha_dot_product_attention_cached(
                    a,
                    isa,
                    c,
                    q_len,
                    i,
                    options,
                    o,
                    scratch,
                    scratch_len,
                ),
                12 => mha_cache_append(
                    c,
                    inputs.k.data,
                    inputs.k.len,
                    inputs.v.data,
                    inputs.v.len,
                    options,
                ),
                13 => mha_cache_rollback(c, new.0),
                14 => mha_cache_reset(c),
                _ => mha_cache_check(c),
            };
            // SAFETY: a text that lives as long as the program.
            assert!(*mha_status_message(status) != 0, "a status without a text");
            assert!(status >> 16 == 0, "a status with more than a kind and an argument");
            pool.check(&before, status != 0);
            if status != 0 {
                assert_eq!(
                    cache_before,
                    (cache.state.len, cache.state.oldest),
                    "the cache changed"
                );
            }
            status
        };
        let status = run(pool, scratch, scratch_len);

        // The same bits with the least scratch; functions that change a cache cannot be called again.
        let again = matches!(function, 0..=7 | 10 | 11);
        if status == 0 && again && !pool.is_wild {
            let least = match function {
                0..=3 => mha_min_scratch_len(&config, shape),
                4..=6 => mha_attention_min_scratch_len(&attention),
                _ => return,
            };
            let Some(first) = pool.at(y.data) else { return };
            let mut small = vec![f32::NAN; least];
            assert_eq!(run(pool, small.as_mut_ptr(), least), 0, "the least scratch is too little");
            let second = pool.at(y.data).unwrap_or_default();
            let differ = difference(&first, &second);
            assert!(
                differ.is_none(),
                "function {function}: other bits with the least scratch at {differ:?} of {}: {:?}",
                first.len(),
                (&config, shape, isa, &inputs, options.as_ref(), rows)
            );
        }
    }
}
