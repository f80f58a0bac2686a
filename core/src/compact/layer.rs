//! The layer: projections around [`Tile`].

use core::ops::Range;

use super::tile::{Head, Mixed, Tile};
use super::{ROW, Scratch, check_scratch, part, rows, sequence};
use crate::call::{Inputs, Outputs, Weights};
use crate::dims::{Config, Shape};
use crate::error::Error;
use crate::kernel::{Dense, Extent, Start, scale};
use crate::options::Rules;
use crate::plan::take;
use crate::softmax::{BLOCK, query_scale};
use crate::work::Weight;

/// Floats of scratch that [`forward`] needs: those of [`Plan::minimum`](crate::plan::Plan::minimum).
const fn scratch_len(config: &Config, shape: Shape) -> usize {
    let (d, d_v) = (config.attention.head_qk(), config.attention.head_v());
    // Divisions have shown that these fit their inputs, and those fit memory: nothing wraps.
    let row = config.attention.sharing() * (d + d_v);
    let keys = shape.kv_len.div_ceil(BLOCK).saturating_mul(BLOCK);
    let kept = keys.saturating_mul(d).saturating_add(shape.kv_len.saturating_mul(d_v));
    kept.saturating_add(row + ROW)
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
    let Call { config, shape, inputs, .. } = *call;
    let needed = scratch_len(config, shape);
    // No query needs none.
    check_scratch(needed, if of_call.is_empty() { needed } else { scratch.len() })?;
    let Config { attention, dims, .. } = config;
    let (d, d_v) = (attention.head_qk(), attention.head_v());
    let keys = take(&mut scratch, shape.kv_len * d);
    let values = take(&mut scratch, shape.kv_len * d_v);
    let rows = rows(shape.q_len, scratch.len(), d + d_v + ROW);
    let mixed = take(&mut scratch, rows * d_v);
    let scratch = Scratch::carve(scratch, rows, d);
    let kv_len = shape.kv_len;
    let mut tile = Tile { inputs, kv_len, scratch, batch: 0, head: 0, first: 0, rows };
    let factor = query_scale(attention.scale, d);
    let mut next = of_call.start;
    let mut scores_before = 0;
    while next < of_call.end {
        let (batch, end) = sequence(shape, next, of_call.end);
        let start = core::mem::replace(&mut next, end);
        for head in 0..attention.heads {
            call.project_keys(batch, head, keys, values);
            let kept = Head { d, keys, key_stride: d, values, value_stride: d_v };
            let mut query = start;
            while query < end {
                tile.look(batch, head, query - batch * shape.q_len, rows.min(end - query));
                let queries = part(tile.scratch.queries, 0, tile.rows * d);
                call.project_queries(query, head, queries);
                scale(queries, factor);
                let scores = outputs.scores.as_deref_mut().unwrap_or_default();
                let scores = part(scores, scores_before, tile.rows * kv_len);
                scores_before += tile.rows * kv_len;
                let mixed = part(mixed, 0, tile.rows * d_v);
                let mut to = Mixed { data: mixed, stride: d_v, columns: d_v };
                tile.attend(&kept, &mut to, scores, outputs.scores_at);
                let y = (query - of_call.start) * dims.out;
                call.add_to(part(outputs.y, y, tile.rows * dims.out), mixed, head);
                query += tile.rows.max(1);
            }
        }
    }
    Ok(())
}

impl Weight<&[f32]> {
    /// `out = start + x · W` for `depth` inputs and `columns` outputs, from the given ones on; as many rows
    /// as `out` has.
    #[inline(never)]
    fn run(
        &self,
        (x, x_row): (&[f32], usize),
        depth: usize,
        (input, output): (usize, usize),
        start: Start<'_>,
        out: &mut [f32],
        columns: usize,
    ) {
        let (along, across) = self.strides();
        let b = self.data.get(input * along + output * across..).unwrap_or(&[]);
        let rows = out.len().checked_div(columns).unwrap_or(0);
        let extent = Extent { rows, columns, row: columns };
        Dense { a: x, a_row: x_row, depth, b, along, across, start }.run(out, extent);
    }
}

/// A bias from an output on.
fn bias(bias: Option<&[f32]>, first: usize) -> Start<'_> {
    match bias.and_then(|bias| bias.get(first..)) {
        Some(bias) => Start::Columns(bias),
        None => Start::Zero,
    }
}

/// A projection into heads.
struct Projection<'a> {
    x: &'a [f32],
    weight: Weight<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl Projection<'_> {
    /// The `d` features of a head, of the rows from `row` on.
    #[inline(never)]
    fn run(&self, row: usize, head: usize, out: &mut [f32], d: usize) {
        let (width, first) = (self.weight.inputs, head * d);
        let x = self.x.get(row * width..).unwrap_or(&[]);
        self.weight.run((x, width), width, (0, first), bias(self.bias, first), out, d);
    }
}

impl<R: Rules> Call<'_, R> {
    /// The keys and values of a head, unless they are those of the one before.
    #[inline(never)]
    fn project_keys(&self, batch: usize, head: usize, keys: &mut [f32], values: &mut [f32]) {
        let Config { dims, attention, weight_order: order } = self.config;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let sharing = attention.sharing().max(1);
        let kv_head = head / sharing;
        if kv_head * sharing != head {
            return;
        }
        let (weights, row) = (self.weights, batch * self.shape.kv_len);
        let (inputs, outputs) = (dims.k_in, attention.kv_heads * d);
        let weight = Weight { data: weights.wk, inputs, outputs, order: *order };
        Projection { x: self.inputs.k, weight, bias: weights.bk }.run(row, kv_head, keys, d);
        let (inputs, outputs) = (dims.v_in, attention.kv_heads * d_v);
        let weight = Weight { data: weights.wv, inputs, outputs, order: *order };
        Projection { x: self.inputs.v, weight, bias: weights.bv }.run(row, kv_head, values, d_v);
    }

    #[inline(never)]
    fn project_queries(&self, row: usize, head: usize, queries: &mut [f32]) {
        let (Config { dims, weight_order: order, .. }, weights) = (*self.config, self.weights);
        let weight = Weight { data: weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let d = self.config.attention.head_qk();
        Projection { x: self.inputs.q, weight, bias: weights.bq }.run(row, head, queries, d);
    }

    /// Adds the head's part to rows of y; the first head starts them.
    #[inline(never)]
    fn add_to(&self, y: &mut [f32], mixed: &[f32], head: usize) {
        let Config { dims, weight_order: order, .. } = *self.config;
        let start = if head > 0 { Start::Keep } else { bias(self.weights.bo, 0) };
        let weight = Weight { data: self.weights.wo, inputs: dims.v, outputs: dims.out, order };
        let d_v = self.config.attention.head_v();
        weight.run((mixed, d_v), d_v, (head * d_v, 0), start, y, dims.out);
    }
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
            }
        }
    }
}
