//! The way forward that keeps what the way back would compute again: queries, keys and values as
//! attention takes them, and what it mixes of them.

use super::gradients::{BackwardError, check_options};
use super::work::{each_head, each_key};
use crate::call::{Inputs, Outputs, Weights};
use crate::dims::{Config, Shape, product};
use crate::error::Argument;
use crate::kernel::{Kernel, Matrix, MatrixMut, Start, Task};
use crate::layer::MultiHeadAttention;
use crate::options::Rules;
use crate::plan::{Parts, Plan, Sizes, exact, take};
use crate::scores::AllScores;
use crate::softmax::{BLOCK, query_scale};
use crate::store::{Store, Turn};
use crate::transform::{Features, Side, transform, transforms};
use crate::visible::Queries;
use crate::work::{Weight, row_major, rows};

/// Floats of what is kept: queries, keys, values, mixed values.
const fn lens(config: &Config, shape: Shape) -> [usize; 4] {
    let (attention, Shape { batch, q_len, kv_len }) = (&config.attention, shape);
    [
        product(batch, q_len, attention.qk),
        product(batch, kv_len, attention.key_features()),
        product(batch, kv_len, attention.value_features()),
        product(batch, q_len, attention.v),
    ]
}

impl Config {
    /// Floats that [`MultiHeadAttention::forward_keeping`] keeps for the way back.
    #[must_use]
    pub const fn kept_len(&self, shape: Shape) -> usize {
        let [queries, keys, values, mixed] = lens(self, shape);
        queries.saturating_add(keys).saturating_add(values).saturating_add(mixed)
    }
}

/// What is kept.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    /// `[batch · q_len, qk]`, rotated and scaled.
    pub(super) queries: &'a [f32],
    /// `[batch · kv_len, key features]`, rotated.
    pub(super) keys: &'a [f32],
    /// `[batch · kv_len, value features]`.
    pub(super) values: &'a [f32],
    /// `[batch · q_len, v]`.
    pub(super) mixed: &'a [f32],
}

impl<'a> Kept<'a> {
    /// Takes apart what is as long as [`Config::kept_len`] says.
    pub(super) fn of(config: &Config, shape: Shape, data: &'a [f32]) -> Self {
        let mut rest = data;
        let [queries, keys, values, mixed] = lens(config, shape).map(|len| {
            let (part, left) = rest.split_at_checked(len).unwrap_or_default();
            rest = left;
            part
        });
        Self { queries, keys, values, mixed }
    }
}

impl MultiHeadAttention<'_> {
    /// [`MultiHeadAttention::forward`], which also keeps what [`MultiHeadAttention::backward`] would
    /// compute again: the same outputs, bit for bit, and with [`Upstream::kept`](crate::Upstream::kept) the
    /// same gradients, both together in about a sixth less time. For machines with plenty of memory.
    ///
    /// `kept` is [`Config::kept_len`] floats; `scratch` as in [`MultiHeadAttention::forward`].
    ///
    /// # Errors
    /// [`BackwardError::Call`] with those of [`MultiHeadAttention::forward`] and
    /// [`Error::Length`](crate::Error::Length) naming [`Argument::Kept`]; [`BackwardError::Option`] for an
    /// option that there is no way back through. Nothing has been written then.
    ///
    /// ```
    /// use mha::{Config, Dims, Gradients, Inputs, MultiHeadAttention, Outputs, Shape, Upstream};
    /// # use mha::Weights;
    ///
    /// const CONFIG: Config = Config::new(Dims::square(2)).heads(1);
    /// const SHAPE: Shape = Shape::new(1, 2, 2);
    /// let identity = [1.0, 0.0, 0.0, 1.0];
    /// let weights = Weights::new(&identity, &identity, &identity, &identity);
    /// let layer = MultiHeadAttention::new(CONFIG, weights)?;
    /// let inputs = Inputs::itself(&[1.0, 0.0, 0.0, 1.0]);
    /// let (mut y, mut kept) = ([0.0; 4], [0.0; CONFIG.kept_len(SHAPE)]);
    /// let mut scratch = [0.0; CONFIG.scratch_len(SHAPE)];
    /// layer.forward_keeping(SHAPE, inputs, Outputs::new(&mut y), &mut kept, &mut scratch)?;
    ///
    /// let mut dq = [0.0; 4];
    /// let mut scratch = [0.0; CONFIG.backward_scratch_len(SHAPE)];
    /// let gradients = Gradients { q: Some(&mut dq), ..Gradients::default() };
    /// layer.backward(SHAPE, inputs, Upstream::new(&y).kept(&kept), gradients, &mut scratch)?;
    /// assert_eq!(dq[0], dq[3]);
    /// # Ok::<(), mha::BackwardError>(())
    /// ```
    pub fn forward_keeping<R: Rules>(
        &self,
        shape: Shape,
        inputs: Inputs<'_, R>,
        outputs: Outputs<'_>,
        mut kept: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), BackwardError> {
        let (config, weights) = (self.config(), self.weights());
        self.check(shape, &(0..shape.queries()), &inputs, &outputs)?;
        check_options(&inputs, false)?;
        exact(Argument::Kept, kept.len(), config.kept_len(shape))?;
        let sizes = Sizes::of_layer(config, shape);
        let plan = Plan::fit(&sizes, scratch.len())?;
        let parts = plan.carve(&sizes, scratch);
        let kept = lens(config, shape).map(|len| take(&mut kept, len));
        self.isa().run(Keeping { config, weights, shape, inputs, outputs, plan, parts, kept });
        Ok(())
    }
}

/// A checked call.
struct Keeping<'a, R> {
    config: &'a Config,
    weights: &'a Weights<'a>,
    shape: Shape,
    inputs: Inputs<'a, R>,
    outputs: Outputs<'a>,
    plan: Plan,
    parts: Parts<'a>,
    kept: [&'a mut [f32]; 4],
}

impl<R: Rules> Task for Keeping<'_, R> {
    type Output = ();

    fn run<K: Kernel>(mut self) {
        // 1. [queries] = [batch · q_len, qk], [keys] and [values] of [batch · kv_len]
        self.project_queries::<K>();
        self.project_keys::<K>();
        // 2. [mixed] = [batch · q_len, v]
        self.attend::<K>();
        // 3. [y] = [batch · q_len, out]
        let Config { dims, weight_order: order, .. } = *self.config;
        let wo = Weight { data: self.weights.wo, inputs: dims.v, outputs: dims.out, order };
        let mixed = &*self.kept[3];
        project::<K>(mixed, wo, self.weights.bo, None, self.outputs.y, self.plan.queries);
    }
}

impl<R: Rules> Keeping<'_, R> {
    fn project_queries<K: Kernel>(&mut self) {
        let Config { dims, attention, weight_order: order } = *self.config;
        let d = attention.head_qk();
        let scale = query_scale(attention.scale, d);
        let options = self.inputs.rules.options().filter(|options| transforms(options));
        let wq = Weight { data: self.weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let after = if options.is_some() { None } else { Some(scale) };
        let queries = &mut *self.kept[0];
        let block = self.plan.queries;
        project::<K>(self.inputs.q, wq, self.weights.bq, after, queries, block);
        let Some(options) = options else { return };
        let all = 0..self.shape.queries();
        each_head(&self.inputs, options, self.shape, &all, dims.qk, d, |position, at| {
            let mut head = Features { data: queries, at, stride: 1, count: d };
            transform(options, Side::Query, position, &mut head);
        });
        queries.iter_mut().for_each(|q| *q *= scale);
    }

    fn project_keys<K: Kernel>(&mut self) {
        let Config { dims, attention, weight_order: order } = *self.config;
        let (weights, block) = (self.weights, self.plan.queries);
        let outputs = attention.value_features();
        let wv = Weight { data: weights.wv, inputs: dims.v_in, outputs, order };
        project::<K>(self.inputs.v, wv, weights.bv, None, self.kept[2], block);
        let outputs = attention.key_features();
        let wk = Weight { data: weights.wk, inputs: dims.k_in, outputs, order };
        let keys = &mut *self.kept[1];
        project::<K>(self.inputs.k, wk, weights.bk, None, keys, block);
        let options = self.inputs.rules.options().filter(|options| transforms(options));
        let Some(options) = options else { return };
        let (d, all) = (attention.head_qk(), (self.shape.keys(), self.shape.kv_len));
        each_key(options, all, outputs, d, |position, at| {
            let mut head = Features { data: keys, at, stride: 1, count: d };
            transform(options, Side::Key, position, &mut head);
        });
    }

    fn attend<K: Kernel>(&mut self) {
        let Self { shape, plan, ref inputs, .. } = *self;
        let attention = &self.config.attention;
        let (d, d_v, sharing) = (attention.head_qk(), attention.head_v(), attention.sharing());
        let (key_features, value_features) = (attention.key_features(), attention.value_features());
        let Shape { batch: sequences, q_len, kv_len } = shape;
        let [queries, keys, values, mixed] = &mut self.kept;
        let (scores, at) = (self.outputs.scores.take(), self.outputs.scores_at);
        let mut all_scores = AllScores::new(scores, at, inputs, attention.heads, kv_len);
        for batch in 0..sequences {
            let mut scores = all_scores.of(shape, &(0..shape.queries()), batch);
            for head in 0..attention.heads {
                let kv_head = head / sharing.max(1);
                if kv_head * sharing == head {
                    let at = batch * kv_len * key_features + kv_head * d;
                    let keys = keys.get(at..).unwrap_or(&[]);
                    into_blocks::<K>(keys, key_features, kv_len, d, self.parts.keys);
                }
                let values_at = batch * kv_len * value_features + kv_head * d_v;
                let store = Store {
                    keys: self.parts.keys,
                    values: values.get(values_at..).unwrap_or(&[]),
                    together: 1,
                    key_features: d,
                    value_features,
                    keys_len: 0,
                    values_len: 0,
                    first_head: kv_head,
                    turn: Turn::NONE,
                    kv_len,
                };
                for first in (0..q_len).step_by(plan.rows.max(1)) {
                    let count = plan.rows.min(q_len - first);
                    let see = Queries {
                        inputs,
                        heads: attention.heads,
                        batch,
                        head,
                        kv_head,
                        q_len,
                        first,
                        kv_len,
                        natural: 0,
                        gone: (0, 0),
                    };
                    let row = batch * q_len + first;
                    let (query_at, mixed_at) =
                        (row * attention.qk + head * d, row * attention.v + head * d_v);
                    let data = queries.get(query_at..).unwrap_or(&[]);
                    let tile = Matrix { data, rows: count, columns: d, row_stride: attention.qk };
                    let mixed = mixed.get_mut(mixed_at..).unwrap_or_default();
                    let mut mixed = MatrixMut::new(mixed, count, d_v, attention.v);
                    scores.attend::<K, R>(
                        &store.head(kv_head, d, d_v),
                        tile,
                        &see,
                        &mut mixed,
                        &mut self.parts.tile,
                        plan.keys,
                    );
                }
            }
        }
    }
}

/// `out = (bias + x · W) · after`, some rows at a time.
fn project<K: Kernel>(
    x: &[f32],
    weight: Weight<&[f32]>,
    bias: Option<&[f32]>,
    after: Option<f32>,
    out: &mut [f32],
    block: usize,
) {
    let Weight { inputs, outputs, .. } = weight;
    let start = bias.map_or(Start::Zero, Start::Columns);
    for (i, out) in out.chunks_mut((block * outputs).max(1)).enumerate() {
        let count = out.len() / outputs.max(1);
        let x = row_major(rows(x, i * block, count, inputs), count, inputs);
        let mut out = MatrixMut::new(out, count, outputs, outputs);
        K::product(x, weight.columns(&(0..outputs)), &mut out, start, after);
    }
}

/// Brings `kv_len` keys of `d` features, `stride` apart, into blocks of sixteen positions.
pub(super) fn into_blocks<K: Kernel>(
    keys: &[f32],
    stride: usize,
    kv_len: usize,
    d: usize,
    blocks: &mut [f32],
) {
    for block in (0..kv_len).step_by(BLOCK) {
        let data = keys.get(block * stride..).unwrap_or(&[]);
        let positions = BLOCK.min(kv_len - block);
        let from = Matrix { data, rows: positions, columns: d, row_stride: stride };
        let to = blocks.get_mut(block * d..).unwrap_or_default();
        K::turn(from, &mut MatrixMut::new(to, d, positions, BLOCK));
    }
}
