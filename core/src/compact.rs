//! The plain layer in the least code and memory: the way of [`work`](crate::work) for one query and one
//! head at a time, for builds with the feature `size`.
//!
//! ```text
//!   for each sequence, for each key/value head
//!       project its keys and values            [kv_len, d], [kv_len, d_v]
//!       for each query head that shares them, for each query
//!           project the query                  [d]
//!           for each block of sixteen keys     logits, what may be seen, weights, mixed values
//!           add the head's part to y           [out]
//! ```
//!
//! This is the order in which [`reference`](crate::reference) sums, so the bits are the same.

use core::f32::consts::LN_2;
use core::ops::Range;

use crate::call::{Inputs, Outputs, ScoresAt, Weights};
use crate::dims::{Config, MAX_ELEMENTS, Shape};
use crate::dropout::DropoutRow;
use crate::error::{Argument, Error};
use crate::kernel::{Dense, Start, weight};
use crate::options::Rules;
use crate::plan::take;
use crate::softmax::{self, BLOCK, query_scale};
use crate::visible::biased;
use crate::work::{Weight, rows};

/// Floats of scratch that [`forward`] needs: those of [`Plan::minimum`](crate::plan::Plan::minimum).
const fn scratch_len(config: &Config, shape: Shape) -> usize {
    let (d, d_v) = (config.attention.head_qk(), config.attention.head_v());
    // Divisions have shown that these fit their inputs, and those fit memory: nothing wraps.
    let row = config.attention.sharing() * (d + d_v);
    let keys = shape.kv_len.div_ceil(BLOCK).saturating_mul(BLOCK);
    let kept = keys.saturating_mul(d).saturating_add(shape.kv_len.saturating_mul(d_v));
    kept.saturating_add(row + 2 * BLOCK + 2)
}

/// What a call is given: all of it lies where the caller has it.
pub(crate) struct Call<'a, R> {
    pub(crate) config: &'a Config,
    pub(crate) weights: &'a Weights<'a>,
    pub(crate) shape: Shape,
    pub(crate) inputs: &'a Inputs<'a, R>,
}

/// Computes some rows of a layer. The call is checked but for its scratch.
pub(crate) fn forward<R: Rules>(
    call: &Call<'_, R>,
    of_call: Range<usize>,
    outputs: &mut Outputs<'_>,
    mut scratch: &mut [f32],
) -> Result<(), Error> {
    let Call { config, shape, .. } = *call;
    let needed = scratch_len(config, shape);
    if needed > MAX_ELEMENTS {
        return Err(Error::TooLarge { argument: Argument::Shape });
    }
    if needed > scratch.len() {
        return Err(Error::Length { argument: Argument::Scratch, needed, got: scratch.len() });
    }
    let Config { attention, .. } = config;
    let (d, d_v) = (attention.head_qk(), attention.head_v());
    let keys = take(&mut scratch, shape.kv_len * d);
    let values = take(&mut scratch, shape.kv_len * d_v);
    let query = take(&mut scratch, d);
    let mixed = take(&mut scratch, d_v);
    let Some((sums, logits)) = scratch.split_first_chunk_mut() else { return Ok(()) };
    let mut row = Row {
        call,
        scale: query_scale(attention.scale, d),
        keys,
        values,
        query,
        mixed,
        sums,
        logits,
        m: 0.0,
        end: 0,
        bias: (0, 0),
        mask: (0, 0),
        dropout: None,
    };
    let mut next = of_call.start;
    let mut scores_before = 0;
    while next < of_call.end {
        let batch = next / shape.q_len.max(1);
        let (start, end) = (next, of_call.end.min((batch + 1) * shape.q_len));
        next = end;
        for head in 0..attention.heads {
            row.project_keys(batch, head);
            for query in start..end {
                row.project_query(query, head);
                row.look(batch, head, query - batch * shape.q_len);
                let scores = outputs.scores.as_deref_mut().unwrap_or_default();
                let scores = scores.get_mut(scores_before..).unwrap_or_default();
                scores_before += shape.kv_len;
                row.attend(scores.get_mut(..shape.kv_len).unwrap_or_default(), outputs.scores_at);
                let out = config.dims.out;
                let y = outputs.y.get_mut((query - of_call.start) * out..).unwrap_or_default();
                row.add_to(y.get_mut(..out).unwrap_or_default(), head);
            }
        }
    }
    Ok(())
}

impl Weight<&[f32]> {
    /// `out = (start + x · W) · factor` for `depth` inputs and `columns` outputs, from the given ones on.
    #[inline(never)]
    fn run(
        &self,
        x: &[f32],
        depth: usize,
        (input, output): (usize, usize),
        start: Start<'_>,
        factor: f32,
        out: &mut [f32],
        columns: usize,
    ) {
        let (along, across) = self.strides();
        let b = self.data.get(input * along + output * across..).unwrap_or(&[]);
        Dense { a: x, depth, b, along, across, start, factor }.run(out, columns);
    }
}

/// A bias from an output on.
fn bias(bias: Option<&[f32]>, first: usize) -> Start<'_> {
    match bias.and_then(|bias| bias.get(first..)) {
        Some(bias) => Start::Columns(bias),
        None => Start::Zero,
    }
}

/// One query of one head, and everything that it works with. Each step is a function that loads what it
/// needs: inlined, they would keep it all on the stack.
struct Row<'a, R> {
    call: &'a Call<'a, R>,
    scale: f32,
    /// `[kv_len, d]`.
    keys: &'a mut [f32],
    /// `[kv_len, d_v]`.
    values: &'a mut [f32],
    query: &'a mut [f32],
    mixed: &'a mut [f32],
    sums: &'a mut [f32; BLOCK],
    logits: &'a mut [f32],
    /// Running maximum.
    m: f32,
    /// Keys from here on are hidden.
    end: usize,
    /// Where the query's row of the bias begins, and how far apart its elements are.
    bias: (usize, usize),
    /// The same of the mask.
    mask: (usize, usize),
    dropout: Option<DropoutRow>,
}

impl<R: Rules> Row<'_, R> {
    /// The keys and values of a head, unless they are those of the one before.
    #[inline(never)]
    fn project_keys(&mut self, batch: usize, head: usize) {
        let Config { dims, attention, weight_order: order } = self.call.config;
        let (d, d_v) = (self.query.len(), self.mixed.len());
        let sharing = attention.sharing().max(1);
        let kv_head = head / sharing;
        if kv_head * sharing != head {
            return;
        }
        let (weights, n) = (self.call.weights, self.call.shape.kv_len);
        let x = rows(self.call.inputs.k, batch * n, n, dims.k_in);
        let outputs = attention.kv_heads * d;
        let weight = Weight { data: weights.wk, inputs: dims.k_in, outputs, order: *order };
        let first = kv_head * d;
        weight.run(x, dims.k_in, (0, first), bias(weights.bk, first), 1.0, self.keys, d);
        let x = rows(self.call.inputs.v, batch * n, n, dims.v_in);
        let outputs = attention.kv_heads * d_v;
        let weight = Weight { data: weights.wv, inputs: dims.v_in, outputs, order: *order };
        let first = kv_head * d_v;
        weight.run(x, dims.v_in, (0, first), bias(weights.bv, first), 1.0, self.values, d_v);
    }

    /// The query, scaled.
    #[inline(never)]
    fn project_query(&mut self, row: usize, head: usize) {
        let Config { dims, weight_order: order, .. } = *self.call.config;
        let (d, weights) = (self.query.len(), self.call.weights);
        let x = rows(self.call.inputs.q, row, 1, dims.q_in);
        let weight = Weight { data: weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let first = head * d;
        weight.run(x, dims.q_in, (0, first), bias(weights.bq, first), self.scale, self.query, d);
    }

    /// Adds the head's part to a row of y; the first head starts it.
    #[inline(never)]
    fn add_to(&self, y: &mut [f32], head: usize) {
        let Config { dims, weight_order: order, .. } = *self.call.config;
        let start = if head > 0 { Start::Keep } else { bias(self.call.weights.bo, 0) };
        let weight =
            Weight { data: self.call.weights.wo, inputs: dims.v, outputs: dims.out, order };
        let d_v = self.mixed.len();
        weight.run(self.mixed, d_v, (head * d_v, 0), start, 1.0, y, dims.out);
    }

    /// What a query may see.
    #[inline(never)]
    fn look(&mut self, batch: usize, head: usize, query: usize) {
        let inputs = self.call.inputs;
        self.end = self.call.shape.kv_len;
        if let Some(causal) = inputs.causal {
            let last = causal.offset(batch, 0).saturating_add_unsigned(query);
            self.end = self.end.min(last.saturating_add(1).max(0).unsigned_abs());
        }
        if let Some(bias) = &inputs.bias {
            self.bias = bias.place(batch, head, query);
        }
        if let Some(mask) = &inputs.mask {
            self.mask = mask.place(batch, head, query);
        }
        self.dropout = inputs.dropout.and_then(|dropout| dropout.row(batch, head, query));
    }

    /// Leaves the mixed values, normalised, and the scores where they are asked for.
    #[inline(never)]
    fn attend(&mut self, scores: &mut [f32], at: ScoresAt) {
        if at == ScoresAt::Softmax {
            fill(scores, 0.0);
        } else {
            self.products(0, scores);
            if at == ScoresAt::Masked {
                let (seen, hidden) = scores.split_at_mut_checked(self.end).unwrap_or_default();
                self.see(0, seen);
                fill(hidden, f32::NEG_INFINITY);
            }
            scale(scores, LN_2);
        }
        fill(self.mixed, 0.0);
        fill(self.sums, 0.0);
        self.m = f32::NEG_INFINITY;
        // Weights stay where they are to be scores; elsewhere a block at a time is enough.
        let resident = at == ScoresAt::Softmax && !scores.is_empty();
        let logits = core::mem::take(&mut self.logits);
        let mut from = 0;
        while from < self.end {
            let (before, tile) = if resident {
                scores.split_at_mut_checked(from).unwrap_or_default()
            } else {
                (&mut [][..], &mut *logits)
            };
            let count = BLOCK.min(self.end - from);
            self.block(from, before, tile.get_mut(..count).unwrap_or_default());
            from += BLOCK;
        }
        self.logits = logits;
        let normaliser = softmax::normaliser(softmax::total(self.sums));
        scale(self.mixed, normaliser);
        if resident {
            scale(scores, normaliser);
        }
    }

    /// A block of keys by the law in [`softmax`]; `before` are the row's weights so far.
    #[inline(never)]
    fn block(&mut self, from: usize, before: &mut [f32], tile: &mut [f32]) {
        self.products(from, tile);
        let raised = softmax::ceil(self.see(from, tile));
        let factor = softmax::shift(self.m, raised);
        self.m = raised;
        shift(before, factor);
        shift(self.sums, factor);
        scale(self.mixed, factor);
        for (logit, sum) in tile.iter_mut().zip(&mut *self.sums) {
            *logit = weight(*logit, raised);
            *sum += *logit;
        }
        if let Some(dropout) = &self.dropout {
            dropout.apply(from, tile);
        }
        self.mix(from, tile);
    }

    /// Logits of the keys from `from` on, as many as there is room for.
    #[inline(never)]
    fn products(&self, from: usize, logits: &mut [f32]) {
        let (a, depth, count) = (&*self.query, self.query.len(), logits.len());
        let b = self.keys.get(from * depth..).unwrap_or(&[]);
        Dense { a, depth, b, along: 1, across: depth, start: Start::Zero, factor: 1.0 }
            .run(logits, count);
    }

    /// Adds the bias and puts −∞ where a key may not be seen, and nowhere else; the largest logit, or
    /// the running maximum where that is larger.
    #[inline(never)]
    fn see(&self, from: usize, logits: &mut [f32]) -> f32 {
        let mut top = self.m;
        let Inputs { bias, mask, .. } = self.call.inputs;
        for (key, logit) in (from..).zip(logits) {
            let mut seen = true;
            if let Some(bias) = bias {
                let (at, step) = self.bias;
                let bias = bias.at(at + key * step).unwrap_or(0.0);
                *logit = biased(*logit, bias);
                seen = bias != f32::NEG_INFINITY;
            }
            if let Some(mask) = mask {
                let (at, step) = self.mask;
                seen &= !mask.hides_at(at + key * step);
            }
            if !seen {
                *logit = f32::NEG_INFINITY;
            } else if *logit == f32::NEG_INFINITY {
                // Overflowed, which hides nothing.
                *logit = f32::MIN;
            }
            top = if *logit > top { *logit } else { top };
        }
        top
    }

    /// Adds weights times values. A key without weight is not read: its value may be anything.
    #[inline(never)]
    fn mix(&mut self, from: usize, weights: &[f32]) {
        let d_v = self.mixed.len();
        let mut values = self.values.get(from * d_v..).unwrap_or(&[]);
        for &weight in weights {
            let Some((value, rest)) = values.split_at_checked(d_v) else { return };
            values = rest;
            if weight != 0.0 {
                self.mixed.iter_mut().zip(value).for_each(|(x, v)| *x += weight * v);
            }
        }
    }
}

#[inline(never)]
fn fill(xs: &mut [f32], value: f32) {
    xs.iter_mut().for_each(|x| *x = value);
}

#[inline(never)]
fn scale(xs: &mut [f32], factor: f32) {
    xs.iter_mut().for_each(|x| *x *= factor);
}

#[inline(never)]
fn shift(xs: &mut [f32], factor: f32) {
    xs.iter_mut().for_each(|x| softmax::shift_weight(x, factor));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dims::Dims;

    #[test]
    fn scratch_is_what_callers_size_it_by() {
        for (qk, v, heads, kv_heads) in [(8, 8, 2, 1), (12, 24, 3, 3), (64, 32, 8, 2)] {
            for kv_len in [0, 1, 15, 16, 17, 300] {
                let dims = Dims::new((5, 6, 7), (qk, v), 9);
                let config = Config::new(dims).heads(heads).kv_heads(kv_heads);
                let shape = Shape::new(2, 3, kv_len);
                assert_eq!(scratch_len(&config, shape), config.min_scratch_len(shape));
                assert_eq!(config.scratch_len(shape), config.min_scratch_len(shape));
            }
        }
    }
}
