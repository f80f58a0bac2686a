//! The way of the data: project keys and values, then for a block of queries project, attend, project.
//! The calls are checked already; nothing here can fail.

use core::ops::Range;

use crate::cache::{Cache, key_position};
use crate::call::{Inputs, Outputs, Weights};
use crate::dims::{Config, Shape, WeightOrder};
use crate::kernel::{Columns, Kernel, Matrix, MatrixMut, Start, Task};
use crate::options::Rules;
use crate::plan::{Parts, Plan, TileParts, take};
use crate::scores::{Scores, ScoresRest};
use crate::softmax::{BLOCK, query_scale};
use crate::store::{Store, StoreMut, Turn};
use crate::transform::{Features, Side, transform, transforms};
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
        let Shape { kv_len, .. } = call.shape;
        let mut outputs = Rest::new(&call, outputs, kv_len);
        // 1. Sequences.
        for (batch, queries) in sequences(call.shape, all_rows) {
            let mut item = outputs.item(&call, batch, queries);
            // 2. Groups of heads.
            for group in groups(attention.kv_heads, plan.group) {
                let count = group.len();
                let mut store = StoreMut {
                    keys: parts.keys,
                    values: parts.values,
                    key_features: count * attention.head_qk(),
                    value_features: count * attention.head_v(),
                };
                let k = rows(call.inputs.k, batch * kv_len, kv_len, dims.k_in);
                let v = rows(call.inputs.v, batch * kv_len, kv_len, dims.v_in);
                let rules = call.inputs.rules;
                project::<K, R>(
                    call.config,
                    call.weights,
                    &group,
                    k,
                    v,
                    rules,
                    0,
                    (0, 0),
                    &mut store,
                );
                let store = Store {
                    key_features: store.key_features,
                    value_features: store.value_features,
                    keys: parts.keys,
                    values: parts.values,
                    first_head: group.start,
                    turn: Turn::NONE,
                    kv_len,
                };
                item.attend_group::<K>(
                    &group,
                    &store,
                    &plan,
                    parts.queries,
                    parts.mixed,
                    &mut parts.tile,
                );
            }
        }
    }
}

/// Attends over a cache.
pub(crate) struct Attend<'a, 'c, R> {
    pub(crate) call: Call<'a, R>,
    pub(crate) cache: &'a Cache<'c>,
    pub(crate) outputs: Outputs<'a>,
    pub(crate) plan: Plan,
    pub(crate) parts: Parts<'a>,
}

impl<R: Rules> Task for Attend<'_, '_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { call, cache, outputs, plan, mut parts } = self;
        let gone = cache.gone();
        let mut outputs = Rest::new(&call, outputs, cache.stored());
        for (batch, queries) in sequences(call.shape, 0..call.shape.queries()) {
            let mut item = outputs.item(&call, batch, queries);
            item.gone = (gone.start, gone.end);
            for group in groups(call.config.attention.kv_heads, plan.group) {
                let store = cache.store(batch);
                item.attend_group::<K>(
                    &group,
                    &store,
                    &plan,
                    parts.queries,
                    parts.mixed,
                    &mut parts.tile,
                );
            }
        }
    }
}

/// Projects keys and values into a cache.
pub(crate) struct Append<'a, 'c, R> {
    pub(crate) config: &'a Config,
    pub(crate) weights: &'a Weights<'a>,
    pub(crate) cache: &'a mut Cache<'c>,
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) n: usize,
    /// Position of the first one.
    pub(crate) first: usize,
    pub(crate) rules: R,
}

impl<R: Rules> Task for Append<'_, '_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { config, weights, cache, k, v, n, first, rules } = self;
        let Config { dims, attention, .. } = *config;
        for batch in 0..cache.config().batch {
            let mut done = 0;
            while done < n {
                // Positions that lie one after another: up to the turn of a ring.
                let count = (n - done).min(cache.run(first + done));
                let slot = cache.slot(first + done);
                let k = rows(k, batch * n + done, count, dims.k_in);
                let v = rows(v, batch * n + done, count, dims.v_in);
                let mut store = cache.store_mut(batch);
                let all = 0..attention.kv_heads;
                project::<K, R>(
                    config,
                    weights,
                    &all,
                    k,
                    v,
                    rules,
                    slot,
                    (first, done),
                    &mut store,
                );
                done += count;
            }
        }
    }
}

/// Projects the keys and values of some heads into a store, the first of them at `slot`. It is key
/// `index` of those that the call brings, whose first has the position `first`.
fn project<K: Kernel, R: Rules>(
    config: &Config,
    weights: &Weights<'_>,
    heads: &Range<usize>,
    k: &[f32],
    v: &[f32],
    rules: R,
    slot: usize,
    (first, index): (usize, usize),
    store: &mut StoreMut<'_>,
) {
    let Config { dims, attention, weight_order: order } = *config;
    let d = attention.head_qk();
    let n = k.len() / dims.k_in.max(1);

    // Keys are wanted with positions side by side: the transposed product, Wkᵀ · kᵀ. A first block
    // that is begun already is filled by itself, so that the others start with theirs.
    let mine = features(heads, d);
    let outputs = attention.key_features();
    let wk = Weight { data: weights.wk, inputs: dims.k_in, outputs, order };
    let bias = weights.bk.and_then(|bias| bias.get(mine.clone()));
    let mut done = 0;
    while done < n {
        let (block, place) = ((slot + done) / BLOCK, (slot + done) % BLOCK);
        let count = if place == 0 { n - done } else { (n - done).min(BLOCK - place) };
        let at = block * store.key_features * BLOCK + place;
        let mut keys = MatrixMut {
            data: store.keys.get_mut(at..).unwrap_or_default(),
            rows: mine.len(),
            columns: count,
            row_stride: BLOCK,
            block_stride: store.key_features * BLOCK,
        };
        let k = Columns::strided(rows(k, done, count, dims.k_in), dims.k_in, count, 1, dims.k_in);
        let start = bias.map_or(Start::Zero, Start::Rows);
        K::product(wk.transposed(&mine), k, &mut keys, start, None);
        done += count;
    }
    if let Some(options) = rules.options().filter(|options| transforms(options)) {
        for i in 0..n {
            let (block, place) = ((slot + i) / BLOCK, (slot + i) % BLOCK);
            for head in 0..heads.len() {
                let at = (block * store.key_features + head * d) * BLOCK + place;
                let mut key = Features { data: store.keys, at, stride: BLOCK, count: d };
                transform(options, Side::Key, key_position(options, first, index + i), &mut key);
            }
        }
    }

    let mine = features(heads, attention.head_v());
    let outputs = attention.value_features();
    let wv = Weight { data: weights.wv, inputs: dims.v_in, outputs, order };
    let bias = weights.bv.and_then(|bias| bias.get(mine.clone()));
    let data = store.values.get_mut(slot * store.value_features..).unwrap_or_default();
    let mut values = MatrixMut::row_major(data, n, mine.len(), store.value_features);
    let start = bias.map_or(Start::Zero, Start::Columns);
    let v = row_major(v, n, dims.v_in);
    K::product(v, wv.columns(0..dims.v_in, &mine), &mut values, start, None);
}

/// Outputs of which sequences are cut off one after another.
struct Rest<'a> {
    y: &'a mut [f32],
    scores: ScoresRest<'a>,
}

impl<'a> Rest<'a> {
    fn new<R: Rules>(call: &Call<'_, R>, outputs: Outputs<'a>, columns: usize) -> Self {
        let heads = call.config.attention.heads;
        Self {
            y: outputs.y,
            scores: ScoresRest::new(
                outputs.scores,
                outputs.scores_at,
                &call.inputs,
                heads,
                columns,
            ),
        }
    }

    /// The queries of one sequence, and where their results go.
    fn item<'b, R: Rules>(
        &mut self,
        call: &'b Call<'b, R>,
        batch: usize,
        queries: Range<usize>,
    ) -> Item<'b, R>
    where
        'a: 'b,
    {
        let y = take(&mut self.y, queries.len() * call.config.dims.out);
        let scores = self.scores.take(&queries);
        Item { call, batch, y, scores, queries, gone: (0, 0) }
    }
}

/// The queries of one sequence, and where their results go.
struct Item<'a, R> {
    call: &'a Call<'a, R>,
    batch: usize,
    queries: Range<usize>,
    y: &'a mut [f32],
    scores: Scores<'a>,
    /// First and last of the positions that a ring has overwritten.
    gone: (usize, usize),
}

impl<R: Rules> Item<'_, R> {
    /// Adds the group's part to `y`; its first group starts it.
    fn attend_group<K: Kernel>(
        &mut self,
        group: &Range<usize>,
        store: &Store<'_>,
        plan: &Plan,
        queries: &mut [f32],
        mixed: &mut [f32],
        tile: &mut TileParts<'_>,
    ) {
        let Call { config, weights, .. } = *self.call;
        let Config { dims, attention, weight_order: order } = *config;
        let Call { shape, inputs, natural, .. } = self.call;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let sharing = attention.sharing();
        let heads = group.start * sharing..group.end * sharing;
        let (qk, v) = (features(&heads, d), features(&heads, d_v));
        let wq = Weight { data: weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let wo = Weight { data: weights.wo, inputs: dims.v, outputs: dims.out, order };
        let bq = weights.bq.and_then(|bias| bias.get(qk.clone()));
        let scale = query_scale(attention.scale, d);
        let options = inputs.rules.options();
        let transformed = options.filter(|options| transforms(options));

        // 3. Blocks of queries.
        let mut done = 0;
        while done < self.queries.len() {
            let count = plan.queries.min(self.queries.len() - done);
            let query = self.queries.start + done;
            let first = self.batch * shape.q_len + query;
            let see = Queries {
                inputs,
                heads: attention.heads,
                batch: self.batch,
                head: 0,
                kv_head: 0,
                q_len: shape.q_len,
                first: query,
                kv_len: shape.kv_len,
                natural: *natural,
                gone: self.gone,
            };
            // 4. [queries] = [count, group · d], scaled
            let q = row_major(rows(inputs.q, first, count, dims.q_in), count, dims.q_in);
            let mut c = MatrixMut::row_major(queries, count, qk.len(), qk.len());
            let start = bq.map_or(Start::Zero, Start::Columns);
            let after = transformed.map_or(Some(scale), |_| None);
            K::product(q, wq.columns(0..dims.q_in, &qk), &mut c, start, after);
            if let Some(options) = transformed {
                for (row, queries) in queries.chunks_mut(qk.len().max(1)).enumerate().take(count) {
                    let position = see.rotary_position(options, row);
                    for at in (0..qk.len()).step_by(d.max(1)) {
                        let mut head = Features { data: queries, at, stride: 1, count: d };
                        transform(options, Side::Query, position, &mut head);
                    }
                    K::scale(queries, scale);
                }
            }

            // 5. [mixed] = [count, group · d_v], a head and a tile of rows at a time
            for head in heads.clone() {
                let in_group = head - heads.start;
                let kv_head = head / sharing.max(1);
                let keys_and_values = store.head(kv_head, d, d_v);
                let mut row = 0;
                while row < count {
                    let tile_rows = plan.rows.min(count - row);
                    let queries = Matrix {
                        data: queries.get(row * qk.len() + in_group * d..).unwrap_or(&[]),
                        rows: tile_rows,
                        columns: d,
                        row_stride: qk.len(),
                        column_stride: 1,
                    };
                    let mixed = mixed.get_mut(row * v.len() + in_group * d_v..).unwrap_or_default();
                    let mut mixed = MatrixMut::row_major(mixed, tile_rows, d_v, v.len());
                    let see = Queries { head, kv_head, first: query + row, ..see };
                    self.scores.attend::<K, R>(
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

            // 6. [y] = [count, out], the group's features added in their order
            let mixed = row_major(mixed, count, v.len());
            let y = self.y.get_mut(done * dims.out..).unwrap_or_default();
            let mut y = MatrixMut::row_major(y, count, dims.out, dims.out);
            let start = match weights.bo {
                _ if group.start > 0 => Start::Keep,
                Some(bias) => Start::Columns(bias),
                None => Start::Zero,
            };
            K::product(mixed, wo.columns(v.clone(), &(0..dims.out)), &mut y, start, None);
            done += count;
        }
    }
}

/// A weight, whichever way it lies in memory.
struct Weight<'a> {
    data: &'a [f32],
    inputs: usize,
    outputs: usize,
    order: WeightOrder,
}

impl<'a> Weight<'a> {
    /// From one input to the next, and from one output to the next.
    fn strides(&self) -> (usize, usize) {
        match self.order {
            WeightOrder::InOut => (self.outputs, 1),
            WeightOrder::OutIn => (1, self.inputs),
        }
    }

    /// Some inputs and some outputs as a right operand, `[inputs, outputs]`.
    fn columns(&self, inputs: Range<usize>, outputs: &Range<usize>) -> Columns<'a> {
        let (input, output) = self.strides();
        let data = self.data.get(inputs.start * input + outputs.start * output..).unwrap_or(&[]);
        Columns::strided(data, inputs.len(), outputs.len(), input, output)
    }

    /// All inputs and some outputs as a left operand, `[outputs, inputs]`.
    fn transposed(&self, outputs: &Range<usize>) -> Matrix<'a> {
        let (input, output) = self.strides();
        Matrix {
            data: self.data.get(outputs.start * output..).unwrap_or(&[]),
            rows: outputs.len(),
            columns: self.inputs,
            row_stride: output,
            column_stride: input,
        }
    }
}

/// The features that a group of heads owns.
fn features(group: &Range<usize>, each: usize) -> Range<usize> {
    group.start * each..group.end * each
}

/// `count` rows of a row-major matrix.
pub(crate) fn rows(data: &[f32], first: usize, count: usize, width: usize) -> &[f32] {
    data.get(first * width..(first + count) * width).unwrap_or(&[])
}

fn row_major(data: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix { data, rows, columns, row_stride: columns, column_stride: 1 }
}

/// Ranges of `each` heads, the last one shorter.
fn groups(heads: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    (0..heads.div_ceil(each)).map(move |i| i * each..heads.min((i + 1) * each))
}

/// Cuts a range of query rows at the sequences of the batch.
pub(crate) fn sequences(
    shape: Shape,
    rows: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let q_len = shape.q_len.max(1);
    let mut next = rows.start;
    core::iter::from_fn(move || {
        if next >= rows.end {
            return None;
        }
        let batch = next / q_len;
        let end = rows.end.min((batch + 1) * q_len);
        let queries = next - batch * q_len..end - batch * q_len;
        next = end;
        Some((batch, queries))
    })
}
