//! The way of the gradients: from the output through the last projection to what was mixed, through the
//! attention of each head, and through the first projections to the inputs. The calls are checked
//! already; nothing here can fail.

use core::f32::consts::LN_2;
use core::ops::Range;

use super::attention::{Block, Sequence, Wanted, columns, way_back};
use super::gradients::{Gradients, Part, Upstream};
use super::keeping::{Kept, into_blocks};
use super::plan::{Parts, Plan};
use crate::cache::key_position;
use crate::call::{Inputs, Weights};
use crate::dims::{Config, Shape};
use crate::kernel::{Columns, Kernel, Matrix, MatrixMut, Start, Task};
use crate::options::{Options, Rules};
use crate::softmax::{BLOCK, query_scale};
use crate::store::{Store, StoreMut, Turn};
use crate::transform::{Features, Side, rotate_back, transform, transforms};
use crate::visible::Queries;
use crate::work::{New, Weight, features, groups, row_major, rows, runs, sequences, width};

/// A checked call.
pub(super) struct Backward<'a, R> {
    pub(super) config: &'a Config,
    /// `None`: queries, keys and values enter attention as they are.
    pub(super) weights: Option<&'a Weights<'a>>,
    pub(super) shape: Shape,
    pub(super) part: Part,
    pub(super) inputs: Inputs<'a, R>,
    pub(super) upstream: Upstream<'a>,
    /// What need not be computed again.
    pub(super) kept: Option<Kept<'a>>,
    pub(super) gradients: Gradients<'a>,
    pub(super) plan: Plan,
    pub(super) parts: Parts<'a>,
}

impl<R: Rules> Task for Backward<'_, R> {
    type Output = ();

    fn run<K: Kernel>(mut self) {
        let Shape { q_len, kv_len, .. } = self.shape;
        let part = self.part.clone();
        // The output's bias belongs to all heads; the first ones see to it.
        if part.kv_heads.start == 0 && part.kv_heads.end > 0 {
            self.add_output_bias();
        }
        // 1. Sequences, a few at a time.
        for together in groups(width(&part.sequences), self.plan.sequences) {
            let first = part.sequences.start + together.start;
            let group_sequences = first..first + width(&together);
            let all_rows = group_sequences.start * q_len..group_sequences.end * q_len;
            let all_keys = group_sequences.start * kv_len..group_sequences.end * kv_len;
            // 2. Groups of heads.
            for group in groups(width(&part.kv_heads), self.plan.group) {
                let heads = part.kv_heads.start + group.start..part.kv_heads.start + group.end;
                self.project_keys::<K>(&all_keys, &heads);
                // 3. Blocks of queries.
                let mut next = all_rows.start;
                while next < all_rows.end {
                    let end = all_rows.end.min(next + self.plan.queries);
                    self.block::<K>(first, next..end, &heads);
                    next = end;
                }
                self.keys_back::<K>(&all_keys, &heads);
            }
        }
    }
}

impl<R: Rules> Backward<'_, R> {
    /// `d bo`: the sum of dy over the part's rows.
    fn add_output_bias(&mut self) {
        let Some(bo) = &mut self.gradients.bo else { return };
        let (out, q_len) = (self.config.dims.out, self.shape.q_len);
        let first = self.part.sequences.start * q_len;
        let count = width(&self.part.sequences) * q_len;
        add_rows(row_major(rows(self.upstream.dy, first, count, out), count, out), bo);
    }

    fn wanted(&self) -> Wanted {
        let Gradients { q, k, v, wq, wk, wv, bq, bk, bv, bias, .. } = &self.gradients;
        Wanted {
            queries: q.is_some() || wq.is_some() || bq.is_some(),
            keys: k.is_some() || wk.is_some() || bk.is_some(),
            values: v.is_some() || wv.is_some() || bv.is_some(),
            bias: bias.is_some(),
        }
    }

    /// Projects the keys and values of some heads into scratch, and clears their gradients.
    fn project_keys<K: Kernel>(&mut self, all: &Range<usize>, heads: &Range<usize>) {
        let Config { dims, attention, .. } = *self.config;
        let kv_len = self.shape.kv_len;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let (key_features, value_features) = (width(heads) * d, width(heads) * d_v);
        let keys_len = kv_len.div_ceil(BLOCK) * BLOCK * key_features;
        let count = width(all);
        for (gradients, len) in [
            (&mut *self.parts.d_keys, count * key_features),
            (&mut *self.parts.d_values, count * value_features),
        ] {
            gradients.get_mut(..len).unwrap_or_default().fill(0.0);
        }
        if let Some(Kept { keys, values, .. }) = self.kept {
            let (all_keys, all_values) = (attention.key_features(), attention.value_features());
            let keys = row_major(rows(keys, all.start, count, all_keys), count, all_keys);
            let values = row_major(rows(values, all.start, count, all_values), count, all_values);
            copy_columns(keys, &features(heads, d), self.parts.keys);
            copy_columns(values, &features(heads, d_v), self.parts.values);
            for sequence in 0..count.checked_div(kv_len).unwrap_or(0) {
                let keys = self.parts.keys.get(sequence * kv_len * key_features..);
                let blocks = self.parts.key_blocks.get_mut(sequence * keys_len..);
                let (keys, blocks) = (keys.unwrap_or(&[]), blocks.unwrap_or_default());
                into_blocks::<K>(keys, key_features, kv_len, key_features, blocks);
            }
            return;
        }
        let new = New {
            k: rows(self.inputs.k, all.start, count, dims.k_in),
            v: rows(self.inputs.v, all.start, count, dims.v_in),
            n: kv_len,
            first: 0,
        };
        let mut store = StoreMut {
            keys: self.parts.key_blocks,
            values: self.parts.values,
            heads: width(heads),
            together: width(heads),
            key_features,
            value_features,
            keys_len,
            values_len: kv_len * value_features,
            turn: Turn::NONE,
        };
        let rules = self.inputs.rules;
        match self.weights {
            Some(weights) => {
                new.project::<K, R>(self.config, weights, heads, rules, &mut store);
            }
            None => new.copy::<K, R>(self.config, heads, rules, &mut store),
        }
        // The keys once more, position by position: what goes back to the queries is mixed of them.
        for sequence in 0..count.checked_div(kv_len).unwrap_or(0) {
            for block in (0..kv_len).step_by(BLOCK) {
                let positions = BLOCK.min(kv_len - block);
                let from = sequence * keys_len + block * key_features;
                let from = Matrix {
                    data: self.parts.key_blocks.get(from..).unwrap_or(&[]),
                    rows: key_features,
                    columns: positions,
                    row_stride: BLOCK,
                };
                let to = (sequence * kv_len + block) * key_features;
                let to = self.parts.keys.get_mut(to..).unwrap_or_default();
                K::turn(from, &mut MatrixMut::new(to, positions, key_features, key_features));
            }
        }
    }

    /// Goes forward and back over a block of queries of sequences from `first` on, for some key/value
    /// heads.
    fn block<K: Kernel>(&mut self, first: usize, block: Range<usize>, kv_heads: &Range<usize>) {
        let Config { dims, attention, .. } = *self.config;
        let Shape { q_len, kv_len, .. } = self.shape;
        let (d, d_v, sharing) = (attention.head_qk(), attention.head_v(), attention.sharing());
        let heads = kv_heads.start * sharing..kv_heads.end * sharing;
        let (qk, v) = (features(&heads, d), features(&heads, d_v));
        let (q_width, v_width) = (width(&qk), width(&v));
        let count = width(&block);
        let wanted = self.wanted();

        // 4. [queries] = [count, group · d], scaled; [d_mixed] = [count, group · d_v]
        self.project_queries::<K>(&block, &qk);
        self.output_back::<K>(&block, &v);
        if let Some(kept) = self.kept {
            let kept = rows(kept.mixed, block.start, count, attention.v);
            copy_columns(row_major(kept, count, attention.v), &v, self.parts.mixed);
        }
        let filled = self.parts.d_queries.get_mut(..count * q_width);
        filled.unwrap_or_default().fill(0.0);

        // 5. A sequence and a head at a time.
        let (key_features, value_features) = (width(kv_heads) * d, width(kv_heads) * d_v);
        let keys_len = kv_len.div_ceil(BLOCK) * BLOCK * key_features;
        let parts = &mut self.parts;
        for (batch, of_sequence) in sequences(self.shape, block.clone()) {
            let done = batch * q_len + of_sequence.start - block.start;
            let rows = width(&of_sequence);
            let at = (batch - first) * kv_len;
            let store = Store {
                keys: parts.key_blocks.get((batch - first) * keys_len..).unwrap_or(&[]),
                values: parts.values.get(at * value_features..).unwrap_or(&[]),
                together: width(kv_heads),
                key_features,
                value_features,
                keys_len,
                values_len: kv_len * value_features,
                first_head: kv_heads.start,
                turn: Turn::NONE,
                kv_len,
            };
            for head in heads.clone() {
                let kv_head = head / sharing.max(1);
                let (in_group, in_block) = (kv_head - kv_heads.start, head - heads.start);
                let key_at = at * key_features + in_group * d;
                let value_at = at * value_features + in_group * d_v;
                let d_keys = parts.d_keys.get_mut(key_at..).unwrap_or_default();
                let d_values = parts.d_values.get_mut(value_at..).unwrap_or_default();
                let keys = parts.keys.get(key_at..).unwrap_or(&[]);
                let mut sequence = Sequence {
                    head: store.head(kv_head, d, d_v),
                    keys: Columns::strided(keys, kv_len, d, key_features, 1),
                    d_keys: MatrixMut::new(d_keys, kv_len, d, key_features),
                    d_values: MatrixMut::new(d_values, kv_len, d_v, value_features),
                };
                let query_at = done * q_width + in_block * d;
                let mixed_at = done * v_width + in_block * d_v;
                let queries = parts.queries.get_mut(query_at..).unwrap_or_default();
                let d_queries = parts.d_queries.get_mut(query_at..).unwrap_or_default();
                let mixed = parts.mixed.get_mut(mixed_at..).unwrap_or_default();
                let d_mixed = parts.d_mixed.get(mixed_at..).unwrap_or(&[]);
                let from_scores = self.upstream.scores.map(|scores| {
                    let row = (batch * attention.heads + head) * q_len + of_sequence.start;
                    let data = scores.get(row * kv_len..).unwrap_or(&[]);
                    Matrix { data, rows, columns: kv_len, row_stride: kv_len }
                });
                let mut block = Block {
                    queries: MatrixMut::new(queries, rows, d, q_width),
                    d_queries: MatrixMut::new(d_queries, rows, d, q_width),
                    mixed: MatrixMut::new(mixed, rows, d_v, v_width),
                    is_mixed: self.kept.is_some(),
                    d_mixed: Matrix { data: d_mixed, rows, columns: d_v, row_stride: v_width },
                    from_scores,
                };
                let see = Queries {
                    inputs: &self.inputs,
                    heads: attention.heads,
                    batch,
                    head,
                    kv_head,
                    q_len,
                    first: of_sequence.start,
                    kv_len,
                    natural: 0,
                    gone: (0, 0),
                };
                way_back::<K, R>(
                    &mut sequence,
                    &mut block,
                    &see,
                    wanted,
                    &mut parts.tile,
                    (self.plan.keys, self.plan.kept),
                    self.gradients.bias.as_deref_mut(),
                );
            }
        }

        // 6. What was mixed goes to the output's weight.
        let order = self.config.weight_order;
        let dy = row_major(rows(self.upstream.dy, block.start, count, dims.out), count, dims.out);
        if let Some(wo) = &mut self.gradients.wo {
            let mixed = row_major(self.parts.mixed, count, v_width);
            let place = Weight { data: (), inputs: dims.v, outputs: dims.out, order };
            place.add_gradient::<K>(wo, (mixed, v.start), (dy, 0));
        }
        if wanted.queries {
            self.queries_back::<K>(&block, &qk);
        }
    }

    /// Queries of a block for some features, transformed and scaled.
    fn project_queries<K: Kernel>(&mut self, block: &Range<usize>, qk: &Range<usize>) {
        let Config { dims, attention, weight_order: order, .. } = *self.config;
        let (count, q_width, d) = (width(block), width(qk), attention.head_qk());
        let scale = query_scale(attention.scale, d);
        let q = row_major(rows(self.inputs.q, block.start, count, dims.q_in), count, dims.q_in);
        let transformed = self.inputs.rules.options().filter(|options| transforms(options));
        let queries = &mut *self.parts.queries;
        if let Some(kept) = self.kept {
            let kept = rows(kept.queries, block.start, count, attention.qk);
            copy_columns(row_major(kept, count, attention.qk), qk, queries);
            return;
        }
        if let Some(weights) = self.weights {
            let wq = Weight { data: weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
            let bq = weights.bq.and_then(|bias| bias.get(qk.clone()));
            let start = bq.map_or(Start::Zero, Start::Columns);
            let mut c = MatrixMut::new(queries, count, q_width, q_width);
            let after = if transformed.is_some() { None } else { Some(scale) };
            K::product(q, wq.columns(qk), &mut c, start, after);
        } else {
            copy_columns(q, qk, queries);
        }
        if let Some(options) = transformed {
            each_head(&self.inputs, options, self.shape, block, q_width, d, |position, at| {
                let mut head = Features { data: queries, at, stride: 1, count: d };
                transform(options, Side::Query, position, &mut head);
            });
        }
        if transformed.is_some() || self.weights.is_none() {
            let all = queries.iter_mut().take(count * q_width);
            all.for_each(|q| *q *= scale);
        }
    }

    /// The gradients of what was mixed, for some features of a block.
    fn output_back<K: Kernel>(&mut self, block: &Range<usize>, v: &Range<usize>) {
        let Config { dims, weight_order: order, .. } = *self.config;
        let count = width(block);
        let dy = row_major(rows(self.upstream.dy, block.start, count, dims.out), count, dims.out);
        let d_mixed = &mut *self.parts.d_mixed;
        if let Some(weights) = self.weights {
            let wo = Weight { data: weights.wo, inputs: dims.v, outputs: dims.out, order };
            let mut c = MatrixMut::new(d_mixed, count, width(v), width(v));
            K::product(dy, wo.back(v, &(0..dims.out)), &mut c, Start::Zero, None);
        } else {
            copy_columns(dy, v, d_mixed);
        }
    }

    /// Takes the gradients of a block's queries to the inputs, the weight and the bias.
    fn queries_back<K: Kernel>(&mut self, block: &Range<usize>, qk: &Range<usize>) {
        let Config { dims, attention, weight_order: order, .. } = *self.config;
        let (count, q_width, d) = (width(block), width(qk), attention.head_qk());
        let d_queries = &mut *self.parts.d_queries;
        let scale = attention.scale.unwrap_or_else(|| 1.0 / libm::sqrtf(d as f32));
        d_queries.iter_mut().take(count * q_width).for_each(|q| *q *= scale);
        let options = self.inputs.rules.options();
        if let (Some(options), Some(rope)) = (options, options.and_then(|o| o.rope.as_ref())) {
            each_head(&self.inputs, options, self.shape, block, q_width, d, |position, at| {
                let mut head = Features { data: d_queries, at, stride: 1, count: d };
                rotate_back(rope, position, &mut head);
            });
        }
        let d_queries = row_major(d_queries, count, q_width);
        let q = row_major(rows(self.inputs.q, block.start, count, dims.q_in), count, dims.q_in);
        let wq = self.weights.map(|weights| weights.wq);
        let wq = wq.map(|data| Weight { data, inputs: dims.q_in, outputs: dims.qk, order });
        let Gradients { q: dq, wq: dwq, bq: dbq, .. } = &mut self.gradients;
        let to = Destination { input: dq, weight: dwq, bias: dbq };
        projection_back::<K>(q, d_queries, wq, block.start, qk, to);
    }

    /// Takes the gradients of some keys and values to the inputs, the weights and the biases.
    fn keys_back<K: Kernel>(&mut self, all: &Range<usize>, heads: &Range<usize>) {
        let Config { dims, attention, weight_order: order, .. } = *self.config;
        let wanted = self.wanted();
        let (count, kv_len, d) = (width(all), self.shape.kv_len, attention.head_qk());
        let (key_features, value_features) =
            (features(heads, d), features(heads, attention.head_v()));
        if wanted.keys {
            let (stride, d_keys) = (width(&key_features), &mut *self.parts.d_keys);
            d_keys.iter_mut().take(count * stride).for_each(|k| *k *= LN_2);
            let options = self.inputs.rules.options();
            if let (Some(options), Some(rope)) = (options, options.and_then(|o| o.rope.as_ref())) {
                each_key(options, (count, kv_len), stride, d, |position, at| {
                    let mut head = Features { data: d_keys, at, stride: 1, count: d };
                    rotate_back(rope, position, &mut head);
                });
            }
            let k = row_major(rows(self.inputs.k, all.start, count, dims.k_in), count, dims.k_in);
            let outputs = attention.key_features();
            let wk = self.weights.map(|weights| weights.wk);
            let wk = wk.map(|data| Weight { data, inputs: dims.k_in, outputs, order });
            let Gradients { k: dk, wk: dwk, bk: dbk, .. } = &mut self.gradients;
            let to = Destination { input: dk, weight: dwk, bias: dbk };
            let d_keys = row_major(d_keys, count, stride);
            projection_back::<K>(k, d_keys, wk, all.start, &key_features, to);
        }
        if wanted.values {
            let v = row_major(rows(self.inputs.v, all.start, count, dims.v_in), count, dims.v_in);
            let outputs = attention.value_features();
            let wv = self.weights.map(|weights| weights.wv);
            let wv = wv.map(|data| Weight { data, inputs: dims.v_in, outputs, order });
            let Gradients { v: dv, wv: dwv, bv: dbv, .. } = &mut self.gradients;
            let to = Destination { input: dv, weight: dwv, bias: dbv };
            let d_values = row_major(self.parts.d_values, count, width(&value_features));
            projection_back::<K>(v, d_values, wv, all.start, &value_features, to);
        }
    }
}

/// Where the gradients of one of the first three projections go.
struct Destination<'g, 'a> {
    input: &'g mut Option<&'a mut [f32]>,
    weight: &'g mut Option<&'a mut [f32]>,
    bias: &'g mut Option<&'a mut [f32]>,
}

/// Takes gradients of some of a projection's outputs, for rows from `first` on, to its input, weight and
/// bias.
fn projection_back<K: Kernel>(
    input: Matrix<'_>,
    d_outputs: Matrix<'_>,
    weight: Option<Weight<&[f32]>>,
    first: usize,
    outputs: &Range<usize>,
    to: Destination<'_, '_>,
) {
    if let Some(bias) = to.bias {
        add_rows(d_outputs, bias.get_mut(outputs.clone()).unwrap_or_default());
    }
    let d_input =
        to.input.as_deref_mut().map(|all| all.get_mut(first * input.columns..).unwrap_or_default());
    let Some(weight) = weight else {
        // What was copied is added.
        if let Some(d_input) = d_input {
            let rows = d_input.chunks_mut(input.columns.max(1)).take(input.rows);
            for (row, to) in rows.enumerate() {
                let to = to.get_mut(outputs.clone()).unwrap_or_default();
                let from = d_outputs.row(row);
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
        return;
    };
    if let Some(d_input) = d_input {
        let mut c = MatrixMut::new(d_input, input.rows, input.columns, input.columns);
        let back = weight.back(&(0..input.columns), outputs);
        K::product(d_outputs, back, &mut c, Start::Keep, None);
    }
    if let Some(d_weight) = to.weight {
        // A row that nothing comes back to may hold anything.
        let used = |row: usize| d_outputs.row(row).iter().any(|&d| d != 0.0);
        for run in runs(0..input.rows, used) {
            let inputs = (some_rows(input, run.start, run.end), 0);
            let d_outputs = (some_rows(d_outputs, run.start, run.end), outputs.start);
            weight.place().add_gradient::<K>(d_weight, inputs, d_outputs);
        }
    }
}

impl Weight<()> {
    /// Adds the products of some inputs with the gradients of some outputs, over all rows; both with the
    /// number of their first feature.
    fn add_gradient<K: Kernel>(
        &self,
        gradient: &mut [f32],
        (inputs, first_input): (Matrix<'_>, usize),
        (outputs, first_output): (Matrix<'_>, usize),
    ) {
        let (input, output) = self.strides();
        let at = first_input * input + first_output * output;
        let to = gradient.get_mut(at..).unwrap_or_default();
        if output == 1 {
            let mut c = MatrixMut::new(to, inputs.columns, outputs.columns, input);
            K::product_turned(inputs, columns(outputs), &mut c, Start::Keep, None);
        } else {
            let mut c = MatrixMut::new(to, outputs.columns, inputs.columns, output);
            K::product_turned(outputs, columns(inputs), &mut c, Start::Keep, None);
        }
    }
}

/// Copies some columns of a matrix, so that they lie side by side.
fn copy_columns(from: Matrix<'_>, which: &Range<usize>, to: &mut [f32]) {
    for (row, to) in to.chunks_mut(width(which).max(1)).enumerate().take(from.rows) {
        let from = from.row(row).get(which.clone()).unwrap_or(&[]);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// Adds all rows.
fn add_rows(from: Matrix<'_>, to: &mut [f32]) {
    for row in 0..from.rows {
        to.iter_mut().zip(from.row(row)).for_each(|(to, from)| *to += from);
    }
}

/// The rows `from .. end`.
fn some_rows(of: Matrix<'_>, from: usize, end: usize) -> Matrix<'_> {
    let data = of.data.get(from * of.row_stride..).unwrap_or(&[]);
    Matrix { data, rows: end - from, ..of }
}

/// Calls `f` for each head of each of so many keys, `kv_len` a sequence, with the key's rotary position and
/// where the head begins.
pub(super) fn each_key(
    options: &Options<'_>,
    (count, kv_len): (usize, usize),
    row_stride: usize,
    d: usize,
    mut f: impl FnMut(usize, usize),
) {
    for row in 0..count {
        let position = key_position(options, 0, row % kv_len.max(1));
        for at in (row * row_stride..(row + 1) * row_stride).step_by(d.max(1)) {
            f(position, at);
        }
    }
}

/// Calls `f` for each head of each row of a block, with the row's rotary position and where the head
/// begins.
pub(super) fn each_head<R: Rules>(
    inputs: &Inputs<'_, R>,
    options: &Options<'_>,
    shape: Shape,
    block: &Range<usize>,
    row_stride: usize,
    d: usize,
    mut f: impl FnMut(usize, usize),
) {
    for (batch, of_sequence) in sequences(shape, block.clone()) {
        let done = batch * shape.q_len + of_sequence.start - block.start;
        let see = Queries {
            inputs,
            heads: 1,
            batch,
            head: 0,
            kv_head: 0,
            q_len: shape.q_len,
            first: of_sequence.start,
            kv_len: shape.kv_len,
            natural: 0,
            gone: (0, 0),
        };
        for row in 0..width(&of_sequence) {
            let at = (done + row) * row_stride;
            for at in (at..at + row_stride).step_by(d.max(1)) {
                f(see.rotary_position(options, row), at);
            }
        }
    }
}
