//! The layer as a textbook would write it: plain loops, no tiles, no kernels. Read this first.
//!
//! It is the oracle of the library's bits. Every kernel of the unfused family, on every machine and
//! for every tiling, gives exactly what stands here, because the order of every sum is fixed here:
//! products over the depth in order, starting from the bias; the softmax by the law in
//! `softmax.rs`, key blocks of sixteen with an integer running maximum in units of log2.
//!
//! It needs much working memory, is slow, and indexes slices as a textbook does, so it has no place
//! in a product. Shapes in comments are `[rows, columns]`; d is the width of a head.

use crate::call::{Inputs, Outputs, ScoresAt};
use crate::dims::{Shape, WeightOrder};
use crate::error::{Argument, Error};
use crate::layer::MultiHeadAttention;
use crate::softmax::{self, BLOCK, EXP2, LOG2_E};

/// Floats of working memory that [`forward`] needs for one sequence: its projected queries, keys and
/// values, its mixed values, and one row of logits.
#[must_use]
pub const fn workspace_len(layer: &MultiHeadAttention<'_>, shape: Shape) -> usize {
    let dims = &layer.config().dims;
    let queries = shape.q_len.saturating_mul(dims.qk.saturating_add(dims.v));
    let keys = shape.kv_len.saturating_mul(dims.qk.saturating_add(dims.v));
    queries.saturating_add(keys).saturating_add(shape.kv_len)
}

/// Computes what [`MultiHeadAttention::forward`] computes, with the bits of the unfused family.
///
/// # Errors
/// Those of [`MultiHeadAttention::forward`], with [`workspace_len`] in place of the scratch.
pub fn forward(
    layer: &MultiHeadAttention<'_>,
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    workspace: &mut [f32],
) -> Result<(), Error> {
    layer.check(shape, &(0..shape.queries()), &inputs, &outputs)?;
    let needed = workspace_len(layer, shape);
    if workspace.len() < needed {
        return Err(Error::Length { argument: Argument::Scratch, needed, got: workspace.len() });
    }
    let (config, weights) = (layer.config(), layer.weights());
    let dims = &config.dims;
    let Shape { batch, q_len, kv_len } = shape;
    let (heads, order) = (config.attention.heads, config.weight_order);
    let (d, d_v) = (dims.qk / heads, dims.v / heads);
    let scale = softmax::query_scale(config.attention.scale, d);
    let at = outputs.scores_at;
    let mut scores = outputs.scores;

    let (q, rest) = workspace.split_at_mut(q_len * dims.qk);
    let (k, rest) = rest.split_at_mut(kv_len * dims.qk);
    let (v, rest) = rest.split_at_mut(kv_len * dims.v);
    let (x, rest) = rest.split_at_mut(q_len * dims.v);
    let logits = &mut rest[..kv_len];

    for b in 0..batch {
        // 1. Project: [q] = [q_len, qk], [k] = [kv_len, qk], [v] = [kv_len, v].
        dense(sequence(inputs.q, b, q_len * dims.q_in), weights.wq, order, weights.bq, q, dims.qk);
        dense(sequence(inputs.k, b, kv_len * dims.k_in), weights.wk, order, weights.bk, k, dims.qk);
        dense(sequence(inputs.v, b, kv_len * dims.v_in), weights.wv, order, weights.bv, v, dims.v);
        // The scale, and the change to units of log2, go into the queries.
        q.iter_mut().for_each(|q| *q *= scale);

        for h in 0..heads {
            for i in 0..q_len {
                let q = &q[i * dims.qk + h * d..][..d];
                let x = &mut x[i * dims.v + h * d_v..][..d_v];
                let row = ((b * heads + h) * q_len + i) * kv_len;
                let mut scores = scores.as_deref_mut().map(|scores| &mut scores[row..row + kv_len]);

                // 2. Logits: q · kᵀ, plus the bias, −∞ where the query may not see the key.
                for (j, logit) in logits.iter_mut().enumerate() {
                    let k = &k[j * dims.qk + h * d..][..d];
                    *logit = q.iter().zip(k).fold(0.0, |sum, (q, k)| q * k + sum);
                }
                if let (Some(scores), ScoresAt::Logits) = (&mut scores, at) {
                    natural(logits, scores);
                }
                see(&inputs, b, h, i, logits);
                if let (Some(scores), ScoresAt::Masked) = (&mut scores, at) {
                    natural(logits, scores);
                }

                // 3. Softmax and the mixing of the values, a block of sixteen keys at a time.
                let mut m = f32::NEG_INFINITY;
                let mut sums = [0.0; BLOCK];
                x.fill(0.0);
                for first in (0..kv_len).step_by(BLOCK) {
                    let last = kv_len.min(first + BLOCK);
                    let raised = logits[first..last]
                        .iter()
                        .fold(m, |m, &l| if softmax::ceil(l) > m { softmax::ceil(l) } else { m });
                    let shift = softmax::shift(m, raised);
                    sums.iter_mut().for_each(|sum| softmax::shift_weight(sum, shift));
                    logits[..first].iter_mut().for_each(|w| softmax::shift_weight(w, shift));
                    if m < raised {
                        x.iter_mut().for_each(|x| softmax::shift_mixed(x, shift));
                    }
                    m = raised;
                    for (logit, sum) in logits[first..last].iter_mut().zip(&mut sums) {
                        *logit = weight(*logit, m);
                        *sum += *logit;
                    }
                    let row = inputs.dropout.and_then(|dropout| dropout.row(b, h, i));
                    if let Some(row) = row {
                        row.apply(first, &mut logits[first..last]);
                    }
                    for j in first..last {
                        // A key without weight is not read: its value may be anything.
                        if logits[j] != 0.0 {
                            let v = &v[j * dims.v + h * d_v..][..d_v];
                            x.iter_mut().zip(v).for_each(|(x, v)| *x += logits[j] * v);
                        }
                    }
                }
                let normaliser = softmax::normaliser(softmax::total(&sums));
                x.iter_mut()
                    .for_each(|x| *x = if normaliser == 0.0 { 0.0 } else { *x * normaliser });
                if let (Some(scores), ScoresAt::Softmax) = (&mut scores, at) {
                    scores.iter_mut().zip(&*logits).for_each(|(s, w)| *s = w * normaliser);
                }
            }
        }

        // 4. Project: [y] = [q_len, out].
        let y = &mut outputs.y[b * q_len * dims.out..][..q_len * dims.out];
        dense(x, weights.wo, order, weights.bo, y, dims.out);
    }
    Ok(())
}

/// One sequence of a batch.
fn sequence(data: &[f32], b: usize, len: usize) -> &[f32] {
    &data[b * len..][..len]
}

/// `y = x · W + bias`, row by row; each output is the bias and then the products in order.
fn dense(
    x: &[f32],
    w: &[f32],
    order: WeightOrder,
    bias: Option<&[f32]>,
    y: &mut [f32],
    outputs: usize,
) {
    let inputs = w.len() / outputs;
    for (x, y) in x.chunks(inputs).zip(y.chunks_mut(outputs)) {
        for (o, y) in y.iter_mut().enumerate() {
            *y = bias.map_or(0.0, |bias| bias[o]);
            for (i, x) in x.iter().enumerate() {
                *y += x * match order {
                    WeightOrder::InOut => w[i * outputs + o],
                    WeightOrder::OutIn => w[o * inputs + i],
                };
            }
        }
    }
}

/// Adds the bias to a row of logits and hides what the query may not see.
fn see(inputs: &Inputs<'_>, b: usize, h: usize, i: usize, logits: &mut [f32]) {
    for (j, logit) in logits.iter_mut().enumerate() {
        if let Some(bias) = &inputs.bias {
            let (bias, step) = bias.row(b, h, i);
            *logit = match bias[j * step] {
                f32::NEG_INFINITY => f32::NEG_INFINITY,
                f32::INFINITY => *logit + f32::INFINITY,
                // A finite bias hides nothing, even where the sum overflows.
                bias => {
                    let sum = *logit + (bias * LOG2_E).clamp(f32::MIN, f32::MAX);
                    if sum == f32::NEG_INFINITY { f32::MIN } else { sum }
                }
            };
        }
        let masked = inputs.mask.as_ref().is_some_and(|mask| {
            let (bytes, step) = mask.row(b, h, i);
            mask.hides(bytes[j * step])
        });
        let causal = inputs.causal.as_ref();
        let unreachable = causal.is_some_and(|causal| {
            // j <= i + offset
            let position = causal.offset(b, 0).saturating_add_unsigned(i);
            position < 0 || j > position.unsigned_abs()
        });
        let excluded = inputs.bias.as_ref().is_some_and(|bias| {
            let (bias, step) = bias.row(b, h, i);
            bias[j * step] == f32::NEG_INFINITY
        });
        if masked || unreachable || excluded {
            *logit = f32::NEG_INFINITY;
        } else if *logit == f32::NEG_INFINITY {
            // Overflowed, which hides nothing either.
            *logit = f32::MIN;
        }
    }
}

/// The weight of a key against the running maximum: 2^(l − m).
fn weight(l: f32, m: f32) -> f32 {
    if m == f32::INFINITY {
        // Keys at +∞ share the row.
        return if l.is_nan() { l } else { f32::from(u8::from(l == m)) };
    }
    let n = softmax::round(l);
    let f = l - n;
    let p = EXP2.iter().rev().skip(1).fold(EXP2[6], |p, c| p * f + c);
    softmax::scale_by_power(p, n - if m == f32::NEG_INFINITY { 0.0 } else { m })
}

/// Logits in natural units.
fn natural(logits: &[f32], scores: &mut [f32]) {
    scores.iter_mut().zip(logits).for_each(|(s, l)| *s = l * core::f32::consts::LN_2);
}
