//! The way back under made-up calls, as `main.rs` does it with everything else.
//!
//! Whatever is given, a call must not read or write outside of its buffers, must not panic, must write
//! nothing where it returns an error, and nothing but its gradients where it does not; and with the least
//! scratch they have the same bits, but for sums over blocks of queries (docs/training.md).
#![no_main]

mod made;
mod pool;

use std::ptr;

use libfuzzer_sys::fuzz_target;
use made::{NO_WEIGHTS, NONE, Sizes, inputs, options, product, slice, slice_mut, weights};
use mha_ffi::*;
use pool::{Bytes, Pool, difference};

fuzz_target!(|data: &[u8]| call(&mut Bytes::new(data)));

const UNWANTED: mha_slice_mut = mha_slice_mut { data: ptr::null_mut(), len: 0 };

/// A call of one function or another.
fn call(from: &mut Bytes<'_>) {
    let pool = &mut Pool::default();
    let sizes = Sizes::new(from);
    let Sizes { dims, heads, shape, .. } = sizes;
    let mha_shape { batch, q_len, kv_len } = shape;
    let isa = if from.seldom(64) { from.byte().into() } else { from.below(4) as i32 };
    let function = from.below(4);
    let bare = function == 3;

    let (config, attention) = (sizes.config(from), sizes.attention(from));
    let (kept_k, kept_v) = (sizes.shared(dims.qk), sizes.shared(dims.v));
    let weights = if bare { NO_WEIGHTS } else { weights(from, pool, &sizes) };
    let layer = mha_layer { config, weights, isa };
    let widths = match bare {
        true => [dims.qk, kept_k, kept_v],
        false => [dims.q_in, dims.k_in, dims.v_in],
    };
    let inputs = inputs(from, pool, shape, heads, widths);
    let options = options(from, pool, shape, &sizes);
    // Mostly those that there is a way back through.
    let options = match from.below(8) {
        0..=3 => None,
        4..=6 => Some(mha_options {
            norm: mha_norm { kind: 0, epsilon: 0.0, q_gain: NONE, k_gain: NONE },
            extra: mha_extra { k: NONE, v: NONE },
            lse: UNWANTED,
            scores: 0,
            score_head: 0,
            score_queries_start: 0,
            score_queries_end: 0,
            ..options
        }),
        _ => Some(options),
    };
    let options = options.as_ref().map_or(ptr::null(), ptr::from_ref);

    let out = if bare { dims.v } else { dims.out };
    let dy = slice(pool.buffer(from, product(&[batch, q_len, out]), false));
    let dscores = match from.seldom(3) {
        true => slice(pool.buffer(from, product(&[batch, heads, q_len, kv_len]), false)),
        false => NONE,
    };
    let upstream = mha_upstream { dy, dscores, kept: NONE };
    let mut wanted = |len: usize, seldom: u8| match from.seldom(seldom) {
        true => UNWANTED,
        false => slice_mut(pool.buffer(from, len, true)),
    };
    let [q_rows, kv_rows] = [product(&[batch, q_len]), product(&[batch, kv_len])];
    let [q, k] =
        [wanted(product(&[q_rows, widths[0]]), 3), wanted(product(&[kv_rows, widths[1]]), 3)];
    let v = wanted(product(&[kv_rows, widths[2]]), 3);
    let given = &layer.weights;
    // Where there are none, they are asked for now and then all the same.
    let mut of =
        |weight: &mha_slice, len: usize| wanted(len, if weight.data.is_null() { 1 } else { 3 });
    let wq = of(&given.wq, product(&[dims.q_in, dims.qk]));
    let wk = of(&given.wk, product(&[dims.k_in, kept_k]));
    let wv = of(&given.wv, product(&[dims.v_in, kept_v]));
    let wo = of(&given.wo, product(&[dims.v, dims.out]));
    let [bq, bk] = [of(&given.bq, dims.qk), of(&given.bk, kept_k)];
    let [bv, bo] = [of(&given.bv, kept_v), of(&given.bo, dims.out)];
    let axes = [batch, heads, q_len, kv_len];
    let extents = inputs.bias.extents;
    let of_bias = [0, 1, 2, 3].map(|i| if extents[i] == 0 { axes[i] } else { extents[i] });
    let bias = wanted(product(&of_bias), if inputs.bias.data.is_null() { 1 } else { 3 });
    let accumulate = u32::from(from.seldom(4));
    let mut gradients = mha_gradients { q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias, accumulate };
    if from.seldom(64) {
        gradients.bk = slice_mut(pool.buffer(from, kept_k, true));
    }
    let (i, g) = (&raw const inputs, &raw const gradients);
    let (l, a) = (&raw const layer, &raw const attention);

    // SAFETY: every pointer below is null, misaligned, or good for the length beside it, but for lengths
    // that no call can ask for.
    unsafe {
        let part = match from.seldom(8) {
            true => mha_part {
                sequences_start: from.below(4),
                sequences_end: if from.seldom(8) { usize::MAX } else { from.below(4) },
                kv_heads_start: from.below(5),
                kv_heads_end: from.below(6),
            },
            false => {
                let parts = from.below(5);
                mha_split_backward(&config, shape, from.below(6), parts)
            }
        };
        let (full, least) = match bare {
            true => (
                mha_attention_backward_scratch_len(a, shape),
                mha_attention_min_backward_scratch_len(a, shape),
            ),
            false => (
                mha_backward_scratch_len(&config, shape),
                mha_min_backward_scratch_len(&config, shape),
            ),
        };
        let (scratch, scratch_len) = pool.buffer(from, full, true);
        if std::env::var_os("MHA_FUZZ_SHOW").is_some() {
            eprintln!(
                "function {function}, {part:?}, {shape:?}, {layer:?}, {inputs:?}, {upstream:?}, {gradients:?}"
            );
        }
        let run = |pool: &Pool, upstream: mha_upstream, scratch: *mut f32, scratch_len: usize| {
            let (before, u) = (pool.bits(), &raw const upstream);
            let status = match function {
                0 | 1 => mha_backward(l, shape, i, options, u, g, scratch, scratch_len),
                2 => mha_backward_part(l, shape, part, i, options, u, g, scratch, scratch_len),
                _ => mha_dot_product_attention_backward(
                    a,
                    isa,
                    shape,
                    i,
                    options,
                    u,
                    g,
                    scratch,
                    scratch_len,
                ),
            };
            // A text that lives as long as the program.
            assert!(*mha_backward_status_message(status) != 0, "a status without a text");
            pool.check(&before, status != 0);
            status
        };
        let status = run(pool, upstream, scratch, scratch_len);

        // What is added to something cannot be computed again.
        if status != 0 || accumulate != 0 || pool.is_wild {
            return;
        }
        let all = [q, k, v, wq, wk, wv, wo, bq, gradients.bk, bv, bo, bias];
        let first = all.map(|gradient| pool.at(gradient.data));
        if !bare {
            let y = slice_mut(pool.buffer(from, product(&[batch, q_len, out]), true));
            let scores = mha_slice_mut { data: ptr::null_mut(), len: 0 };
            let outputs = mha_outputs { y, scores, scores_at: 0 };
            let (kept, kept_len) = pool.buffer(from, mha_kept_len(&config, shape), true);
            let mut own = vec![f32::NAN; mha_scratch_len(&config, shape)];
            let (o, own, own_len) = (&raw const outputs, own.as_mut_ptr(), own.len());
            let before = pool.bits();
            let status = mha_forward_keeping(l, shape, i, options, o, kept, kept_len, own, own_len);
            assert!(*mha_backward_status_message(status) != 0, "a status without a text");
            pool.check(&before, status != 0);
            if status == 0 && !pool.is_wild {
                let kept = slice((kept, kept_len));
                let status = run(pool, mha_upstream { kept, ..upstream }, scratch, scratch_len);
                assert_eq!(status, 0, "what was kept is refused");
                for (which, (gradient, first)) in all.iter().zip(&first).enumerate() {
                    let second = pool.at(gradient.data).unwrap_or_default();
                    let differ = difference(first.as_deref().unwrap_or_default(), &second);
                    assert!(differ.is_none(), "gradient {which}: other bits with what was kept");
                }
            }
        }
        let mut small = vec![f32::NAN; least];
        let status = run(pool, upstream, small.as_mut_ptr(), least);
        assert_eq!(status, 0, "the least scratch is too little");
        for (which, (gradient, first)) in all.iter().zip(first).enumerate() {
            // What stands for many queries is summed a block of them at a time: a bias, and what several
            // heads share.
            let of_keys_or_values = matches!(which, 1 | 2 | 4 | 5 | 8 | 9);
            let shared = config.kv_heads != 0 && of_keys_or_values;
            if shared || which + 1 == all.len() && extents[2] == 1 {
                continue;
            }
            let (first, second) =
                (first.unwrap_or_default(), pool.at(gradient.data).unwrap_or_default());
            let differ = difference(&first, &second);
            assert!(
                differ.is_none(),
                "function {function}, gradient {which}: other bits with the least scratch at {differ:?} of {}: {:?}",
                first.len(),
                (&config, shape, part, isa, &inputs, options.as_ref())
            );
        }
    }
}
