//! The way of the data: project keys and values, then for a block of queries project, attend, project.
//! The calls are checked already; nothing here can fail.

use core::ops::Range;

use crate::cache::{Cache, key_position};
use crate::call::{Inputs, Outputs, Weights};
use crate::dims::{Config, Shape, WeightOrder};
use crate::kernel::{Columns, Kernel, Matrix, MatrixMut, Start, Task};
use crate::options::Rules;
use crate::plan::{Parts, Plan, TileParts};
use crate::scores::AllScores;
use crate::softmax::{BLOCK, query_scale};
use crate::store::{Store, StoreMut, Turn};
use crate::transform::{Features, Side, transform, transforms};
use crate::view::CacheView;
use crate::visible::Queries;

/// What all the work of a call has in common, checked.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a, R> {
    pub(crate) config: &'a Config,
    pub(crate) weights: &'a Weights<'a>,
    pub(crate) shape: Shape,
    pub(crate) inputs: Inputs<'a, R>,
    /// Position of the first query where nothing else is said.
    pub(crate) natural: isize,
}

/// Projects everything and attends.
pub(crate) struct Forward<'a, R> {
    pub(crate) call: Call<'a, R>,
    pub(crate) rows: Range<usize>,
    pub(crate) outputs: Outputs<'a>,
    pub(crate) plan: Plan,
    pub(crate) parts: Parts<'a>,
}

impl<R: Rules> Task for Forward<'_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { call, rows: all_rows, outputs, plan, mut parts } = self;
        let Config { dims, attention, .. } = *call.config;
        let Shape { q_len, kv_len, .. } = call.shape;
        let mut results = Results::new(&call, all_rows.clone(), outputs, kv_len);
        // Whether mixed values of all groups wait in y.
        results.gather = plan.gathered > plan.group && dims.out >= dims.v;
        // 1. Sequences, a few at a time.
        let mut next = all_rows.start;
        while next < all_rows.end {
            let first = next / q_len.max(1);
            let end = all_rows.end.min((first + plan.sequences) * q_len);
            let sequences = end.div_ceil(q_len.max(1)) - first;
            // 2. Groups of heads.
            for group in groups(attention.kv_heads, plan.group) {
                let (key_features, value_features) =
                    (width(&group) * attention.head_qk(), width(&group) * attention.head_v());
                let keys_len = kv_len.div_ceil(BLOCK) * BLOCK * key_features;
                let values_len = kv_len * value_features;
                let mut store = StoreMut {
                    keys: parts.keys,
                    values: parts.values,
                    heads: width(&group),
                    together: width(&group),
                    key_features,
                    value_features,
                    keys_len,
                    values_len,
                    turn: Turn::NONE,
                };
                let new = New {
                    k: rows(call.inputs.k, first * kv_len, sequences * kv_len, dims.k_in),
                    v: rows(call.inputs.v, first * kv_len, sequences * kv_len, dims.v_in),
                    n: kv_len,
                    first: 0,
                };
                new.project::<K, R>(
                    call.config,
                    call.weights,
                    &group,
                    call.inputs.rules,
                    &mut store,
                );
                let store = |sequence: usize| {
                    let (keys, values) =
                        ((sequence - first) * keys_len, (sequence - first) * values_len);
                    Store {
                        keys: parts.keys.get(keys..keys + keys_len).unwrap_or(&[]),
                        values: parts.values.get(values..values + values_len).unwrap_or(&[]),
                        together: width(&group),
                        key_features,
                        value_features,
                        keys_len,
                        values_len,
                        first_head: group.start,
                        turn: Turn::NONE,
                        kv_len,
                    }
                };
                let work = Group { call: &call, heads: group.clone(), plan: &plan, gone: (0, 0) };
                let (queries, mixed) = (&mut *parts.queries, &mut *parts.mixed);
                work.attend::<K>(next..end, store, queries, mixed, &mut parts.tile, &mut results);
            }
            if results.gather {
                results.project::<K, R>(&call, next..end, plan.queries, parts.mixed);
            }
            next = end;
        }
    }
}

/// Attends over a cache.
pub(crate) struct Attend<'a, R> {
    pub(crate) call: Call<'a, R>,
    pub(crate) cache: CacheView<'a>,
    pub(crate) outputs: Outputs<'a>,
    pub(crate) plan: Plan,
    pub(crate) parts: Parts<'a>,
}

impl<R: Rules> Task for Attend<'_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { call, cache, outputs, plan, mut parts } = self;
        let gone = cache.gone();
        let rows = 0..call.shape.queries();
        let mut results = Results::new(&call, rows.clone(), outputs, cache.stored());
        for heads in groups(call.config.attention.kv_heads, plan.group) {
            let work = Group { call: &call, heads, plan: &plan, gone: (gone.start, gone.end) };
            work.attend::<K>(
                rows.clone(),
                |sequence| cache.store(sequence),
                parts.queries,
                parts.mixed,
                &mut parts.tile,
                &mut results,
            );
        }
    }
}

/// Projects keys and values into a cache.
pub(crate) struct Append<'a, 'c, R> {
    pub(crate) config: &'a Config,
    pub(crate) weights: &'a Weights<'a>,
    pub(crate) cache: &'a mut Cache<'c>,
    pub(crate) new: New<'a>,
    pub(crate) rules: R,
}

impl<R: Rules> Task for Append<'_, '_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { config, weights, cache, new, rules } = self;
        let all = 0..config.attention.kv_heads;
        new.project::<K, R>(config, weights, &all, rules, &mut cache.store_mut());
    }
}

/// New positions of some sequences, `n` of each.
#[derive(Clone, Copy)]
pub(crate) struct New<'a> {
    /// `[sequences, n, k_in]`.
    pub(crate) k: &'a [f32],
    /// `[sequences, n, v_in]`.
    pub(crate) v: &'a [f32],
    pub(crate) n: usize,
    /// The position of the first of each.
    pub(crate) first: usize,
}

impl New<'_> {
    /// Projects the keys and values of some heads into a store.
    pub(crate) fn project<K: Kernel, R: Rules>(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        heads: &Range<usize>,
        rules: R,
        store: &mut StoreMut<'_>,
    ) {
        let Config { dims, attention, weight_order: order } = *config;
        let (outputs, v_outputs) = (attention.key_features(), attention.value_features());
        let wk = Weight { data: weights.wk, inputs: dims.k_in, outputs, order };
        let wv = Weight { data: weights.wv, inputs: dims.v_in, outputs: v_outputs, order };
        let rows_in_all = self.k.len() / dims.k_in.max(1);
        let (block, v_block) = (store.key_features, store.value_features);
        // Keys are wanted with positions side by side. They are computed position by position where
        // the values are to lie, and turned from there into their blocks: all parts together where
        // there is room, otherwise part by part, as many features at a time as fit.
        let all = width(heads) / store.together.max(1);
        let at_once = if block <= v_block { all } else { 1 };
        for parts in groups(all, at_once) {
            let first = heads.start + parts.start * store.together;
            let of_parts = first..first + width(&parts) * store.together;
            let (keys, values) =
                (features(&of_parts, attention.head_qk()), features(&of_parts, attention.head_v()));
            let mut row = 0;
            while row < rows_in_all {
                let place = store.place(row, self.n, self.first, rows_in_all);
                let run = place.run;
                let apart = store.values_len;
                let k = row_major(rows(self.k, row, run, dims.k_in), run, dims.k_in);
                let mut done = 0;
                while done < width(&keys) {
                    let fits = v_block.max(1).saturating_mul(width(&parts));
                    let chunk = keys.start + done..keys.end.min(keys.start + done + fits);
                    let bias = weights.bk.and_then(|bias| bias.get(chunk.clone()));
                    let start = bias.map_or(Start::Zero, Start::Columns);
                    let to = store.values(place, parts.start);
                    let mut c = MatrixMut::new(to, run, width(&chunk), v_block);
                    if width(&parts) > 1 {
                        c = c.in_blocks(block, apart);
                    }
                    K::product(k, wk.columns(&chunk), &mut c, start, None);
                    let of_part = done..(done + width(&chunk)).min(block);
                    for part in parts.clone() {
                        turn_into_blocks::<K>(self, row, run, part, of_part.clone(), store);
                    }
                    done += width(&chunk);
                }
                let v = row_major(rows(self.v, row, run, dims.v_in), run, dims.v_in);
                let bias = weights.bv.and_then(|bias| bias.get(values.clone()));
                let start = bias.map_or(Start::Zero, Start::Columns);
                let to = store.values(place, parts.start);
                let c = MatrixMut::new(to, run, width(&values), v_block);
                let mut c = c.in_blocks(v_block, apart);
                K::product(v, wv.columns(&values), &mut c, start, None);
                row += run;
            }
        }
        self.transform(config, heads, rules, store);
    }

    /// Puts the keys and values of some heads into a store that holds one part, as they are.
    pub(crate) fn copy<K: Kernel, R: Rules>(
        &self,
        config: &Config,
        heads: &Range<usize>,
        rules: R,
        store: &mut StoreMut<'_>,
    ) {
        let Config { dims, attention, .. } = *config;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let (keys, values) = (features(heads, d), features(heads, d_v));
        let rows_in_all = self.k.len() / dims.k_in.max(1);
        for row in 0..rows_in_all {
            let place = store.place(row, self.n, self.first, rows_in_all);
            let from = rows(self.v, row, 1, dims.v_in).get(values.clone()).unwrap_or(&[]);
            store.values(place, 0).iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            if !place.slot.is_multiple_of(BLOCK) {
                continue;
            }
            // A block of keys, turned.
            let left = self.n - row % self.n.max(1);
            let from = Matrix {
                data: self.k.get(row * dims.k_in + keys.start..).unwrap_or(&[]),
                rows: BLOCK.min(left),
                columns: width(&keys),
                row_stride: dims.k_in,
            };
            let at = store.key_at(place, 0, 0);
            let to = store.keys.get_mut(at..).unwrap_or_default();
            K::turn(from, &mut MatrixMut::new(to, from.columns, from.rows, BLOCK));
        }
        self.transform(config, heads, rules, store);
    }

    /// Normalises and rotates keys that lie in a store.
    fn transform<R: Rules>(
        &self,
        config: &Config,
        heads: &Range<usize>,
        rules: R,
        store: &mut StoreMut<'_>,
    ) {
        let (dims, attention) = (&config.dims, &config.attention);
        let rows_in_all = self.k.len() / dims.k_in.max(1);
        let block = store.key_features;
        let Some(options) = rules.options().filter(|options| transforms(options)) else { return };
        let d = attention.head_qk();
        for row in 0..rows_in_all {
            let place = store.place(row, self.n, self.first, rows_in_all);
            let position = key_position(options, self.first, row % self.n.max(1));
            for feature in (0..width(heads) * d).step_by(d.max(1)) {
                let (part, inside) = (feature / block.max(1), feature % block.max(1));
                let at = store.key_at(place, part, inside);
                let mut key = Features { data: store.keys, at, stride: BLOCK, count: d };
                transform(options, Side::Key, position, &mut key);
            }
        }
    }
}

/// Turns `run` keys, some features of which lie where their values are to go, into their blocks.
fn turn_into_blocks<K: Kernel>(
    new: &New<'_>,
    row: usize,
    run: usize,
    part: usize,
    features: Range<usize>,
    store: &mut StoreMut<'_>,
) {
    let mut done = 0;
    while done < run {
        let place = store.place(row + done, new.n, new.first, row + run);
        // Up to the end of the block, and of the sequence.
        let left = new.n - (row + done) % new.n.max(1);
        let count = place.run.min(left).min(BLOCK - place.slot % BLOCK);
        let at = store.key_at(place, part, features.start);
        let row_stride = store.value_features;
        let from = store.value_at(place, part);
        let from = Matrix {
            data: store.values.get(from..).unwrap_or(&[]),
            rows: count,
            columns: width(&features),
            row_stride,
        };
        let to = store.keys.get_mut(at..).unwrap_or_default();
        K::turn(from, &mut MatrixMut::new(to, width(&features), count, BLOCK));
        done += count;
    }
}

/// Where the results of a call go.
struct Results<'a> {
    /// The rows that the call computes.
    rows: Range<usize>,
    y: &'a mut [f32],
    scores: AllScores<'a>,
    /// Whether rows of `y` hold mixed values until all groups have been there.
    gather: bool,
}

impl<'a> Results<'a> {
    fn new<R: Rules>(
        call: &Call<'_, R>,
        rows: Range<usize>,
        outputs: Outputs<'a>,
        columns: usize,
    ) -> Self {
        let heads = call.config.attention.heads;
        let Outputs { y, scores, scores_at } = outputs;
        let scores = AllScores::new(scores, scores_at, &call.inputs, heads, columns);
        Self { rows, y, scores, gather: false }
    }

    /// Projects rows whose mixed values stand in `y`, a block at a time.
    fn project<K: Kernel, R: Rules>(
        &mut self,
        call: &Call<'_, R>,
        rows: Range<usize>,
        block: usize,
        mixed: &mut [f32],
    ) {
        let (Config { dims, weight_order: order, .. }, weights) = (*call.config, call.weights);
        let wo = Weight { data: weights.wo, inputs: dims.v, outputs: dims.out, order };
        let mut next = rows.start;
        while next < rows.end {
            let count = block.min(rows.end - next);
            let y = self.y.get_mut((next - self.rows.start) * dims.out..).unwrap_or_default();
            let waiting = y.chunks(dims.out.max(1)).take(count);
            for (to, from) in mixed.chunks_mut(dims.v.max(1)).zip(waiting) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
            let mixed = row_major(mixed, count, dims.v);
            let mut y = MatrixMut::new(y, count, dims.out, dims.out);
            let start = weights.bo.map_or(Start::Zero, Start::Columns);
            K::product(mixed, wo.rows(&(0..dims.v)), &mut y, start, None);
            next += count;
        }
    }
}

/// A group of key/value heads, and what is the same for all of its work.
struct Group<'a, R> {
    call: &'a Call<'a, R>,
    heads: Range<usize>,
    plan: &'a Plan,
    /// First and last of the positions that a ring has overwritten.
    gone: (usize, usize),
}

impl<R: Rules> Group<'_, R> {
    /// Adds the group's part of some rows to `y`; the first group starts it.
    fn attend<'s, K: Kernel>(
        &self,
        rows_of_call: Range<usize>,
        store: impl Fn(usize) -> Store<'s>,
        queries: &mut [f32],
        mixed: &mut [f32],
        tile: &mut TileParts<'_>,
        results: &mut Results<'_>,
    ) {
        let Self { call, plan, gone, .. } = *self;
        let Call { shape, inputs, natural, config, weights } = call;
        let Config { dims, attention, weight_order: order } = **config;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let sharing = attention.sharing();
        let heads = self.heads.start * sharing..self.heads.end * sharing;
        let (qk, v) = (features(&heads, d), features(&heads, d_v));
        let wq = Weight { data: weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let wo = Weight { data: weights.wo, inputs: dims.v, outputs: dims.out, order };
        let bq = weights.bq.and_then(|bias| bias.get(qk.clone()));
        let scale = query_scale(attention.scale, d);
        let options = inputs.rules.options();
        let transformed = options.filter(|options| transforms(options));

        // 3. Blocks of queries.
        let mut to = rows_of_call.start;
        while to < rows_of_call.end {
            let next = to;
            let count = plan.queries.min(rows_of_call.end - next);
            to += count;
            // 4. [queries] = [count, group · d], scaled
            let q = row_major(rows(inputs.q, next, count, dims.q_in), count, dims.q_in);
            let mut c = MatrixMut::new(queries, count, width(&qk), width(&qk));
            let start = bq.map_or(Start::Zero, Start::Columns);
            let after = transformed.map_or(Some(scale), |_| None);
            K::product(q, wq.columns(&qk), &mut c, start, after);

            // 5. [mixed] = [count, group · d_v]: a sequence, a head and a tile of rows at a time
            for (batch, of_sequence) in sequences(*shape, next..next + count) {
                let done = batch * shape.q_len + of_sequence.start - next;
                let store = store(batch);
                let see = Queries {
                    inputs,
                    heads: attention.heads,
                    batch,
                    head: 0,
                    kv_head: 0,
                    q_len: shape.q_len,
                    first: of_sequence.start,
                    kv_len: shape.kv_len,
                    natural: *natural,
                    gone,
                };
                if let Some(options) = transformed {
                    for row in 0..of_sequence.len() {
                        let position = see.rotary_position(options, row);
                        let at = (done + row) * width(&qk);
                        for at in (at..at + width(&qk)).step_by(d.max(1)) {
                            let mut head = Features { data: queries, at, stride: 1, count: d };
                            transform(options, Side::Query, position, &mut head);
                        }
                        let row = queries.get_mut(at..at + width(&qk)).unwrap_or_default();
                        row.iter_mut().for_each(|q| *q *= scale);
                    }
                }
                let mut scores = results.scores.of(*shape, &results.rows, batch);
                for head in heads.clone() {
                    let in_group = head - heads.start;
                    let kv_head = head / sharing.max(1);
                    let keys_and_values = store.head(kv_head, d, d_v);
                    let mut row = 0;
                    while row < width(&of_sequence) {
                        let tile_rows = plan.rows.min(width(&of_sequence) - row);
                        let at = (done + row) * width(&qk) + in_group * d;
                        let queries = Matrix {
                            data: queries.get(at..).unwrap_or(&[]),
                            rows: tile_rows,
                            columns: d,
                            row_stride: width(&qk),
                        };
                        let (mixed, at, stride) = if results.gather {
                            let at = next - results.rows.start + done + row;
                            (&mut *results.y, at * dims.out + v.start, dims.out)
                        } else {
                            (&mut *mixed, (done + row) * width(&v), width(&v))
                        };
                        let mixed = mixed.get_mut(at + in_group * d_v..).unwrap_or_default();
                        let mut mixed = MatrixMut::new(mixed, tile_rows, d_v, stride);
                        let see = Queries { head, kv_head, first: see.first + row, ..see };
                        scores.attend::<K, R>(
                            &keys_and_values,
                            queries,
                            &see,
                            &mut mixed,
                            tile,
                            plan.keys,
                        );
                        row += tile_rows;
                    }
                }
            }

            // 6. [y] = [count, out], the group's features added in their order
            if results.gather {
                continue;
            }
            let mixed = row_major(mixed, count, width(&v));
            let y = results.y.get_mut((next - results.rows.start) * dims.out..).unwrap_or_default();
            let mut y = MatrixMut::new(y, count, dims.out, dims.out);
            let start = match weights.bo {
                _ if heads.start > 0 => Start::Keep,
                Some(bias) => Start::Columns(bias),
                None => Start::Zero,
            };
            K::product(mixed, wo.rows(&v), &mut y, start, None);
        }
    }
}

/// A weight, whichever way it lies in memory.
#[derive(Clone, Copy)]
pub(crate) struct Weight<D> {
    pub(crate) data: D,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) order: WeightOrder,
}

impl<D> Weight<D> {
    /// From one input to the next, and from one output to the next.
    pub(crate) fn strides(&self) -> (usize, usize) {
        match self.order {
            WeightOrder::InOut => (self.outputs, 1),
            WeightOrder::OutIn => (1, self.inputs),
        }
    }

    /// How it lies, without what lies there.
    pub(crate) fn place(&self) -> Weight<()> {
        let Self { inputs, outputs, order, .. } = *self;
        Weight { data: (), inputs, outputs, order }
    }
}

impl<'a> Weight<&'a [f32]> {
    /// All inputs and some outputs as a right operand, `[inputs, outputs]`.
    pub(crate) fn columns(&self, outputs: &Range<usize>) -> Columns<'a> {
        let (input, output) = self.strides();
        let data = self.data.get(outputs.start * output..).unwrap_or(&[]);
        Columns::strided(data, self.inputs, width(outputs), input, output)
    }

    /// Some inputs and all outputs as a right operand, `[inputs, outputs]`.
    fn rows(&self, inputs: &Range<usize>) -> Columns<'a> {
        let (input, output) = self.strides();
        let data = self.data.get(inputs.start * input..).unwrap_or(&[]);
        Columns::strided(data, width(inputs), self.outputs, input, output)
    }

    /// Some inputs and some outputs for the way back, `[outputs, inputs]`.
    pub(crate) fn back(&self, inputs: &Range<usize>, outputs: &Range<usize>) -> Columns<'a> {
        let (input, output) = self.strides();
        let data = self.data.get(inputs.start * input + outputs.start * output..).unwrap_or(&[]);
        Columns::strided(data, width(outputs), width(inputs), output, input)
    }
}

/// The features that a group of heads owns.
pub(crate) fn features(group: &Range<usize>, each: usize) -> Range<usize> {
    group.start * each..group.end * each
}

/// How many there are. (`Range::len` asserts what it has computed, which not every build can drop.)
pub(crate) fn width(range: &Range<usize>) -> usize {
    range.end.saturating_sub(range.start)
}

/// The parts of a range that are in use, each as long as it goes.
pub(crate) fn runs(
    all: Range<usize>,
    used: impl Fn(usize) -> bool,
) -> impl Iterator<Item = Range<usize>> {
    let mut next = all.start;
    core::iter::from_fn(move || {
        let start = (next..all.end).find(|&i| used(i))?;
        next = (start..all.end).find(|&i| !used(i)).unwrap_or(all.end);
        Some(start..next)
    })
}

/// `count` rows of a row-major matrix.
pub(crate) fn rows(data: &[f32], first: usize, count: usize, width: usize) -> &[f32] {
    data.get(first * width..(first + count) * width).unwrap_or(&[])
}

pub(crate) fn row_major(data: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix { data, rows, columns, row_stride: columns }
}

/// Ranges of `each` heads, the last one shorter.
pub(crate) fn groups(heads: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    (0..heads.div_ceil(each)).map(move |i| i * each..heads.min((i + 1) * each))
}

/// Cuts a range of query rows at the sequences of the batch.
pub(crate) fn sequences(
    shape: Shape,
    rows: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let q_len = shape.q_len;
    let mut next = rows.start;
    core::iter::from_fn(move || {
        if next >= rows.end {
            return None;
        }
        let batch = next.checked_div(q_len)?;
        let end = rows.end.min((batch + 1) * q_len);
        let queries = next - batch * q_len..end - batch * q_len;
        next = end;
        Some((batch, queries))
    })
}
