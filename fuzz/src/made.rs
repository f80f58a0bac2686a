//! What made-up calls are made of: widths, shapes, inputs, options and weights.

use std::ptr;

use mha_ffi::*;

use crate::pool::{Bytes, Pool};

pub fn slice((data, len): (*mut f32, usize)) -> mha_slice {
    mha_slice { data, len }
}

pub fn slice_mut((data, len): (*mut f32, usize)) -> mha_slice_mut {
    mha_slice_mut { data, len }
}

pub const NONE: mha_slice = mha_slice { data: ptr::null(), len: 0 };
pub const NO_WEIGHTS: mha_weights =
    mha_weights { wq: NONE, wk: NONE, wv: NONE, wo: NONE, bq: NONE, bk: NONE, bv: NONE, bo: NONE };
const NO_CAUSAL: mha_causal =
    mha_causal { mode: 0, offset: 0, offsets: ptr::null(), offsets_len: 0 };

/// An extent of a mask or bias: usually 1 or the whole axis.
fn extent(from: &mut Bytes<'_>, axis: usize) -> usize {
    match from.byte() % 16 {
        0..=5 => 1,
        6..=12 => axis,
        13 => 0,
        14 => usize::MAX,
        _ => axis.wrapping_add(1),
    }
}

fn causal(from: &mut Bytes<'_>, pool: &mut Pool, batch: usize) -> mha_causal {
    let offset = from.below(16) as isize - 8;
    let mut causal = mha_causal { mode: from.below(4) as i32, offset, ..NO_CAUSAL };
    if from.seldom(64) {
        causal.offset = [isize::MIN, isize::MAX, isize::MIN + 1, 1 << 40][from.below(4)];
    }
    if causal.mode == 3 || from.seldom(16) {
        let offsets: Vec<isize> =
            (0..batch + from.below(2)).map(|_| from.below(16) as isize - 8).collect();
        pool.offsets.push(offsets.into());
        let kept = &pool.offsets[pool.offsets.len() - 1];
        (causal.offsets, causal.offsets_len) = (kept.as_ptr(), kept.len());
    }
    if from.seldom(64) {
        causal.mode = from.byte().into();
    }
    causal
}

/// The widths that buffers are made for.
pub struct Sizes {
    pub dims: mha_dims,
    pub heads: usize,
    kv_heads: usize,
    pub shape: mha_shape,
}

impl Sizes {
    pub fn new(from: &mut Bytes<'_>) -> Self {
        let heads = from.below(5) + usize::from(!from.seldom(16));
        let shares = from.seldom(4) && heads % 2 == 0;
        let kv_heads = if shares { heads / 2 } else { heads };
        let mut dims = mha_dims {
            q_in: from.below(9) + 1,
            k_in: from.below(9) + 1,
            v_in: from.below(9) + 1,
            qk: heads * (from.below(6) + 1),
            v: heads * (from.below(6) + 1),
            out: from.below(9) + 1,
        };
        if from.seldom(2) {
            (dims.k_in, dims.v_in) = (dims.q_in, dims.q_in);
        }
        if from.seldom(32) {
            dims.qk += 1;
        }
        if from.seldom(64) {
            dims.out = [0, usize::MAX, 1 << 60, 1 << 33][from.below(4)];
        }
        let mut shape =
            mha_shape { batch: from.below(4), q_len: from.below(20), kv_len: from.below(40) };
        if from.seldom(64) {
            shape.kv_len = [usize::MAX, usize::MAX - 14, 1 << 62, 1 << 32][from.below(4)];
        }
        Self { dims, heads, kv_heads, shape }
    }

    pub fn config(&self, from: &mut Bytes<'_>) -> mha_config {
        let kv_heads = if self.kv_heads == self.heads { 0 } else { self.kv_heads };
        let scale = [0.0, 0.5, -1.0, f32::NAN][from.below(4)];
        mha_config {
            dims: self.dims,
            heads: self.heads,
            weight_order: if from.seldom(64) { 7 } else { from.below(2) as i32 },
            has_scale: u32::from(from.seldom(8)),
            scale,
            kv_heads,
        }
    }

    pub fn attention(&self, from: &mut Bytes<'_>) -> mha_attention {
        let mha_config { heads, has_scale, scale, kv_heads, .. } = self.config(from);
        mha_attention { heads, qk: self.dims.qk, v: self.dims.v, has_scale, scale, kv_heads }
    }

    /// Widths of the projected keys and values.
    pub fn shared(&self, width: usize) -> usize {
        width.checked_div(self.heads).unwrap_or(0).wrapping_mul(self.kv_heads)
    }
}

pub fn product(factors: &[usize]) -> usize {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

/// Inputs whose rows have these widths.
pub fn inputs(
    from: &mut Bytes<'_>,
    pool: &mut Pool,
    shape: mha_shape,
    heads: usize,
    [q, k, v]: [usize; 3],
) -> mha_inputs {
    let mha_shape { batch, q_len, kv_len } = shape;
    let form = from.below(4);
    let mut inputs = mha_inputs {
        q: slice(pool.buffer(from, product(&[batch, q_len, q]), false)),
        k: if form == 0 {
            NONE
        } else {
            slice(pool.buffer(from, product(&[batch, kv_len, k]), false))
        },
        v: if form <= 1 {
            NONE
        } else {
            slice(pool.buffer(from, product(&[batch, kv_len, v]), false))
        },
        bias: mha_bias { data: ptr::null(), len: 0, extents: [0; 4] },
        mask: mha_mask { data: ptr::null(), len: 0, extents: [0; 4], excluding: 0 },
        causal: if from.seldom(3) { causal(from, pool, batch) } else { NO_CAUSAL },
        dropout: mha_dropout { p: 0.0, seed: from.byte().into() },
    };
    let axes = [batch, heads, q_len, kv_len];
    if from.seldom(3) {
        let extents = axes.map(|axis| extent(from, axis));
        let real = [0, 1, 2, 3].map(|i| if extents[i] == 0 { axes[i] } else { extents[i] });
        let (data, len) = pool.buffer(from, product(&real), false);
        inputs.bias = mha_bias { data, len, extents };
    }
    if from.seldom(3) {
        let extents = axes.map(|axis| extent(from, axis));
        let real = [0, 1, 2, 3].map(|i| if extents[i] == 0 { axes[i] } else { extents[i] });
        let length = product(&real).min(1 << 14);
        let pattern = from.byte();
        pool.bytes.push((0..length).map(|i| pattern.rotate_left(i as u32) & 3).collect());
        let data = pool.bytes[pool.bytes.len() - 1].as_ptr();
        let len = if from.seldom(16) { length + 1 } else { length };
        // One more than there is would be read only where the extents say as many.
        let data = if from.seldom(32) { ptr::null() } else { data };
        inputs.mask = mha_mask { data, len, extents, excluding: u32::from(from.seldom(2)) };
        if len > length && product(&real) == len {
            inputs.mask.len = length;
        }
    }
    if from.seldom(8) {
        inputs.dropout.p = [0.5, 0.999, 1.0, -0.5, f32::NAN, 1e-30][from.below(6)];
    }
    inputs
}

pub fn options(
    from: &mut Bytes<'_>,
    pool: &mut Pool,
    shape: mha_shape,
    sizes: &Sizes,
) -> mha_options {
    let mha_shape { batch, q_len, kv_len } = shape;
    let (heads, qk) = (sizes.heads, sizes.dims.qk.checked_div(sizes.heads).unwrap_or(0));
    let some = |from: &mut Bytes<'_>, pool: &mut Pool, length: usize, seldom: u8| {
        if from.seldom(seldom) { slice(pool.buffer(from, length, false)) } else { NONE }
    };
    let offset = if from.seldom(4) { causal(from, pool, batch) } else { NO_CAUSAL };
    let window = mha_window {
        has_left: u32::from(from.seldom(4)),
        has_right: u32::from(from.seldom(6)),
        left: from.below(20),
        right: from.below(20),
    };
    let (mut lens, mut lens_len) = (ptr::null(), 0);
    if from.seldom(4) {
        let values = (0..batch).map(|_| from.below(42)).collect();
        pool.sizes.push(values);
        let kept = &pool.sizes[pool.sizes.len() - 1];
        (lens, lens_len) = (kept.as_ptr(), if from.seldom(16) { batch / 2 } else { batch });
    }
    let alibi = mha_alibi { kind: from.below(4) as i32, slopes: some(from, pool, heads, 4) };
    let positions = from.below(64);
    let dims = from.below(4) * 2;
    let angles = if dims == 0 { qk / 2 } else { dims / 2 };
    let rope = mha_rope {
        kind: if from.seldom(3) { from.below(4) as i32 } else { 0 },
        interleaved: u32::from(from.seldom(2)),
        base: [10000.0, 2.0, 0.0, f32::NAN][from.below(4)],
        has_q_offset: u32::from(from.seldom(4)),
        has_k_offset: u32::from(from.seldom(4)),
        dims,
        q_offset: from.below(70),
        k_offset: if from.seldom(32) { usize::MAX } else { from.below(70) },
        cos: some(from, pool, positions * angles, 3),
        sin: some(from, pool, positions * angles, 3),
    };
    let sinks = some(from, pool, heads, 4);
    let norm = mha_norm {
        kind: if from.seldom(4) { from.below(5) as i32 } else { 0 },
        epsilon: [0.0, 1e-5, -1.0, f32::INFINITY][from.below(4)],
        q_gain: some(from, pool, qk, 3),
        k_gain: some(from, pool, qk, 3),
    };
    let mut segments = mha_segments { q: ptr::null(), q_len: 0, kv: ptr::null(), kv_len: 0 };
    if from.seldom(6) {
        for length in [batch * q_len, product(&[batch, kv_len]).min(1 << 12)] {
            pool.words.push((0..length).map(|_| from.below(3) as u32).collect());
        }
        let [.., q, kv] = &pool.words[..] else { unreachable!() };
        segments =
            mha_segments { q: q.as_ptr(), q_len: q.len(), kv: kv.as_ptr(), kv_len: kv.len() };
    }
    let extra_k = some(from, pool, sizes.shared(sizes.dims.qk), 8);
    let extra = mha_extra { k: extra_k, v: some(from, pool, sizes.shared(sizes.dims.v), 4) };
    let lse = match from.seldom(4) {
        true => slice_mut(pool.buffer(from, product(&[batch, heads, q_len]), true)),
        false => mha_slice_mut { data: ptr::null_mut(), len: 0 },
    };
    mha_options {
        offset,
        window,
        lens,
        lens_len,
        alibi,
        rope,
        sinks,
        norm,
        segments,
        extra,
        lse,
        softcap: [0.0, 0.0, 0.0, 30.0, -1.0, f32::NAN][from.below(6)],
        scores: if from.seldom(6) { from.below(4) as i32 } else { 0 },
        score_head: from.below(6),
        score_queries_start: if from.seldom(6) { from.below(20) } else { 0 },
        score_queries_end: if from.seldom(6) { from.below(22) } else { 0 },
    }
}

/// Weights of the right lengths, but for the pool's mistakes, and some of the biases.
pub fn weights(from: &mut Bytes<'_>, pool: &mut Pool, sizes: &Sizes) -> mha_weights {
    let dims = &sizes.dims;
    let (k, v) = (sizes.shared(dims.qk), sizes.shared(dims.v));
    let mut weight = |a, b| slice(pool.buffer(from, product(&[a, b]), false));
    let [wq, wk] = [weight(dims.q_in, dims.qk), weight(dims.k_in, k)];
    let [wv, wo] = [weight(dims.v_in, v), weight(dims.v, dims.out)];
    let mut bias = |len| {
        if from.seldom(2) { slice(pool.buffer(from, len, false)) } else { NONE }
    };
    let [bq, bk, bv, bo] = [bias(dims.qk), bias(k), bias(v), bias(dims.out)];
    mha_weights { wq, wk, wv, wo, bq, bk, bv, bo }
}
