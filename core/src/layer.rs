//! The layer: project keys and values, then for a block of queries project, attend, project.

use core::ops::Range;

use crate::attention::{Head, Queries, attend};
use crate::call::{Inputs, Outputs, ScoresAt, Weights};
use crate::dims::{Config, MAX_ELEMENTS, Shape, WeightOrder};
use crate::error::{Argument, Error};
use crate::kernel::{Columns, Isa, Kernel, Matrix, MatrixMut, Start, Task};
use crate::plan::{Parts, Plan, Sizes, exact, take};
use crate::softmax::{BLOCK, query_scale};

/// Multi-head attention with its four projections: Flux's `MultiHeadAttention`.
///
/// It borrows its weights and is as small as their pointers; copies are cheap. Every call is a pure
/// function of its arguments, so one layer can be used from any number of threads or interrupts,
/// each with scratch of its own.
#[derive(Clone, Copy, Debug)]
pub struct MultiHeadAttention<'w> {
    config: Config,
    weights: Weights<'w>,
    isa: Isa,
}

impl<'w> MultiHeadAttention<'w> {
    /// A layer on the fastest instructions that this machine has.
    ///
    /// # Errors
    /// Those of [`Config::check`], and [`Error::Length`] naming the weight that does not fit it.
    pub fn new(config: Config, weights: Weights<'w>) -> Result<Self, Error> {
        Self::with_isa(config, weights, Isa::detect())
    }

    /// A layer on given instructions. As a `const fn`, with [`Isa::PORTABLE`], it makes a layer that
    /// lies in flash.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::new`].
    pub const fn with_isa(config: Config, weights: Weights<'w>, isa: Isa) -> Result<Self, Error> {
        if let Err(error) = config.check() {
            return Err(error);
        }
        if let Err(error) = weights.check(&config) {
            return Err(error);
        }
        Ok(Self { config, weights, isa })
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The weights.
    #[must_use]
    pub const fn weights(&self) -> &Weights<'w> {
        &self.weights
    }

    /// The instructions that it runs on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Computes the layer.
    ///
    /// Queries `[batch, q_len, q_in]`, keys `[batch, kv_len, k_in]`, values `[batch, kv_len, v_in]`;
    /// `y` `[batch, q_len, out]`; scores, if asked for, `[batch, heads, q_len, kv_len]`. `scratch`
    /// needs [`Config::scratch_len`] floats for full speed and works down to
    /// [`Config::min_scratch_len`]; what it holds before does not matter.
    ///
    /// A query that may not see any key gets scores of 0 and an attention output of 0, so its `y`
    /// is the output bias. (Flux gives NaN there.)
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Broadcast`] naming the argument that does not fit the shape,
    /// [`Error::Value`] for a dropout probability outside `[0, 1)`, [`Error::TooLarge`] for a shape
    /// whose sizes overflow. Nothing has been written then.
    ///
    /// ```
    /// use mha::{Config, Dims, Inputs, MultiHeadAttention, Outputs, Shape, Weights};
    ///
    /// const CONFIG: Config = Config::new(Dims::square(2)).heads(1);
    /// const SHAPE: Shape = Shape::new(1, 1, 2);
    /// let identity = [1.0, 0.0, 0.0, 1.0];
    /// let weights = Weights::new(&identity, &identity, &identity, &identity);
    /// let layer = MultiHeadAttention::new(CONFIG, weights)?;
    ///
    /// // One query that is equally far from two keys: the output is the mean of their values.
    /// let (q, k, v) = ([0.0, 1.0], [1.0, 0.0, -1.0, 0.0], [2.0, 4.0, 4.0, 8.0]);
    /// let (mut y, mut scores) = ([0.0; 2], [0.0; 2]);
    /// let mut scratch = [0.0; CONFIG.scratch_len(SHAPE)];
    /// let outputs = Outputs::new(&mut y).scores(&mut scores);
    /// layer.forward(SHAPE, Inputs::new(&q, &k, &v), outputs, &mut scratch)?;
    /// assert_eq!(scores, [0.5, 0.5]);
    /// assert_eq!(y, [3.0, 6.0]);
    /// # Ok::<(), mha::Error>(())
    /// ```
    pub fn forward(
        &self,
        shape: Shape,
        inputs: Inputs<'_>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        self.forward_rows(shape, 0..shape.queries(), inputs, outputs, scratch)
    }

    /// Computes some rows of the layer: the queries `rows` of the `batch · q_len` there are, with
    /// the bits that [`MultiHeadAttention::forward`] gives them. Threads or cores can share a call
    /// so, each with scratch of its own.
    ///
    /// The inputs are those of the whole call. `y` holds the rows alone, `[rows, out]`; scores hold,
    /// for each sequence that the rows touch, in order, `[heads, its rows, kv_len]`.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::forward`], and [`Error::Range`] for rows that there are not.
    pub fn forward_rows(
        &self,
        shape: Shape,
        rows: Range<usize>,
        inputs: Inputs<'_>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        self.check(shape, &rows, &inputs, &outputs)?;
        let sizes = Sizes::of_layer(&self.config, shape);
        let plan = Plan::fit(&sizes, scratch.len())?;
        let parts = plan.carve(&sizes, scratch);
        let Self { config, weights, isa } = *self;
        isa.run(Forward { config, weights, shape, rows, inputs, outputs, plan, parts });
        Ok(())
    }

    /// Everything that can be wrong with a call but its scratch.
    pub(crate) fn check(
        &self,
        shape: Shape,
        rows: &Range<usize>,
        inputs: &Inputs<'_>,
        outputs: &Outputs<'_>,
    ) -> Result<(), Error> {
        let dims = &self.config.dims;
        exact(Argument::Q, inputs.q.len(), shape.queries().saturating_mul(dims.q_in))?;
        exact(Argument::K, inputs.k.len(), shape.keys().saturating_mul(dims.k_in))?;
        exact(Argument::V, inputs.v.len(), shape.keys().saturating_mul(dims.v_in))?;
        check_rows(shape, rows)?;
        exact(Argument::Y, outputs.y.len(), rows.len().saturating_mul(dims.out))?;
        let heads = self.config.attention.heads;
        check_attention(shape, heads, rows.len(), inputs, outputs.scores.as_deref())?;
        if Sizes::of_layer(&self.config, shape).overflow() {
            return Err(Error::TooLarge { argument: Argument::Shape });
        }
        Ok(())
    }
}

/// Checks that there are such rows.
pub(crate) fn check_rows(shape: Shape, rows: &Range<usize>) -> Result<(), Error> {
    let len = shape.queries();
    if len > MAX_ELEMENTS {
        return Err(Error::TooLarge { argument: Argument::Shape });
    }
    if rows.start > rows.end || rows.end > len {
        return Err(Error::Range { argument: Argument::Rows, len, end: rows.end });
    }
    Ok(())
}

/// Checks what a call with and without projections has in common.
pub(crate) fn check_attention(
    shape: Shape,
    heads: usize,
    rows: usize,
    inputs: &Inputs<'_>,
    scores: Option<&[f32]>,
) -> Result<(), Error> {
    let Shape { batch, q_len, kv_len } = shape;
    let sizes = [batch, heads, q_len, kv_len];
    if let Some(bias) = &inputs.bias {
        bias.check(Argument::Bias, sizes)?;
    }
    if let Some(mask) = &inputs.mask {
        mask.check(sizes)?;
    }
    if let Some(causal) = &inputs.causal {
        causal.check(shape)?;
    }
    if let Some(dropout) = &inputs.dropout {
        dropout.check()?;
    }
    if let Some(scores) = scores {
        let needed = rows.saturating_mul(heads).saturating_mul(kv_len);
        exact(Argument::Scores, scores.len(), needed)?;
    }
    Ok(())
}

/// A checked call.
struct Forward<'a> {
    config: Config,
    weights: Weights<'a>,
    shape: Shape,
    rows: Range<usize>,
    inputs: Inputs<'a>,
    outputs: Outputs<'a>,
    plan: Plan,
    parts: Parts<'a>,
}

impl Task for Forward<'_> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { config, weights, shape, rows, inputs, outputs, plan, mut parts } = self;
        let heads = config.attention.heads;
        let (mut y, mut scores) = (outputs.y, outputs.scores.unwrap_or_default());
        // 1. Sequences.
        for (batch, queries) in sequences(shape, rows) {
            let y_here = take(&mut y, queries.len() * config.dims.out);
            let scores_here = take(&mut scores, heads * queries.len() * shape.kv_len);
            let item = Item {
                config: &config,
                weights: &weights,
                inputs: &inputs,
                shape,
                batch,
                queries,
                scores_at: outputs.scores_at,
            };
            // 2. Groups of heads.
            let mut head = 0;
            while head < heads {
                let group = head..heads.min(head + plan.group);
                item.project_keys_and_values::<K>(&group, &mut parts);
                item.attend_group::<K>(&group, &plan, &mut parts, y_here, scores_here);
                head = group.end;
            }
        }
    }
}

/// The queries of one sequence.
struct Item<'a> {
    config: &'a Config,
    weights: &'a Weights<'a>,
    inputs: &'a Inputs<'a>,
    shape: Shape,
    batch: usize,
    queries: Range<usize>,
    scores_at: ScoresAt,
}

impl Item<'_> {
    /// `[keys] = [kv_len / 16, group · d, 16]`, `[values] = [kv_len, group · d_v]`.
    fn project_keys_and_values<K: Kernel>(&self, group: &Range<usize>, parts: &mut Parts<'_>) {
        let Config { dims, attention, .. } = self.config;
        let kv_len = self.shape.kv_len;
        let first = self.batch * kv_len;

        // Keys are wanted with positions side by side: the transposed product, Wkᵀ · kᵀ.
        let features = features(group, attention.head_qk());
        let count = features.len();
        let wk = Weight {
            data: self.weights.wk,
            inputs: dims.k_in,
            outputs: dims.qk,
            order: self.config.weight_order,
        };
        let k = rows(self.inputs.k, first, kv_len, dims.k_in);
        let k = Columns::strided(k, dims.k_in, kv_len, 1, dims.k_in);
        let bias = self.weights.bk.and_then(|bias| bias.get(features.clone()));
        let mut keys = MatrixMut {
            data: parts.keys,
            rows: count,
            columns: kv_len,
            row_stride: BLOCK,
            block_stride: count * BLOCK,
        };
        K::product(
            wk.transposed(&features),
            k,
            &mut keys,
            bias.map_or(Start::Zero, Start::Rows),
            None,
        );

        let features = self::features(group, attention.head_v());
        let count = features.len();
        let wv = Weight {
            data: self.weights.wv,
            inputs: dims.v_in,
            outputs: dims.v,
            order: self.config.weight_order,
        };
        let v = row_major(rows(self.inputs.v, first, kv_len, dims.v_in), kv_len, dims.v_in);
        let bias = self.weights.bv.and_then(|bias| bias.get(features.clone()));
        let mut values = MatrixMut::row_major(parts.values, kv_len, count, count);
        K::product(
            v,
            wv.columns(0..dims.v_in, &features),
            &mut values,
            bias.map_or(Start::Zero, Start::Columns),
            None,
        );
    }

    /// Adds the group's part to `y`; its first group starts it.
    fn attend_group<K: Kernel>(
        &self,
        group: &Range<usize>,
        plan: &Plan,
        parts: &mut Parts<'_>,
        y: &mut [f32],
        scores: &mut [f32],
    ) {
        let Config { dims, attention, weight_order: order } = *self.config;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let (qk, v) = (features(group, d), features(group, d_v));
        let kv_len = self.shape.kv_len;
        let wq = Weight { data: self.weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let wo = Weight { data: self.weights.wo, inputs: dims.v, outputs: dims.out, order };
        let bq = self.weights.bq.and_then(|bias| bias.get(qk.clone()));
        let scale = query_scale(attention.scale, d);

        // 3. Blocks of queries.
        let mut done = 0;
        while done < self.queries.len() {
            let count = plan.queries.min(self.queries.len() - done);
            let query = self.queries.start + done;
            let first = self.batch * self.shape.q_len + query;
            // 4. [queries] = [count, group · d], scaled
            let q = row_major(rows(self.inputs.q, first, count, dims.q_in), count, dims.q_in);
            let mut queries = MatrixMut::row_major(parts.queries, count, qk.len(), qk.len());
            K::product(
                q,
                wq.columns(0..dims.q_in, &qk),
                &mut queries,
                bq.map_or(Start::Zero, Start::Columns),
                Some(scale),
            );

            // 5. [mixed] = [count, group · d_v], a head and a tile of rows at a time
            for head in group.clone() {
                let in_group = head - group.start;
                let keys_and_values = Head {
                    keys: Columns {
                        data: parts.keys.get(in_group * d * BLOCK..).unwrap_or(&[]),
                        rows: d,
                        columns: kv_len,
                        row_stride: BLOCK,
                        block_stride: qk.len() * BLOCK,
                        column_stride: 1,
                    },
                    values: Columns::strided(
                        parts.values.get(in_group * d_v..).unwrap_or(&[]),
                        kv_len,
                        d_v,
                        v.len(),
                        1,
                    ),
                };
                let mut row = 0;
                while row < count {
                    let tile_rows = plan.rows.min(count - row);
                    let queries = Matrix {
                        data: parts.queries.get(row * qk.len() + in_group * d..).unwrap_or(&[]),
                        rows: tile_rows,
                        columns: d,
                        row_stride: qk.len(),
                        column_stride: 1,
                    };
                    let mixed =
                        parts.mixed.get_mut(row * v.len() + in_group * d_v..).unwrap_or_default();
                    let mut mixed = MatrixMut::row_major(mixed, tile_rows, d_v, v.len());
                    let see = Queries {
                        inputs: self.inputs,
                        batch: self.batch,
                        head,
                        first: query + row,
                        kv_len,
                    };
                    let at = (head * self.queries.len() + done + row) * kv_len;
                    let scores = scores.get_mut(at..at + tile_rows * kv_len);
                    let scores =
                        scores.filter(|scores| !scores.is_empty()).map(|s| (s, self.scores_at));
                    attend::<K>(
                        &keys_and_values,
                        queries,
                        &see,
                        &mut mixed,
                        &mut parts.tile,
                        plan.keys,
                        scores,
                    );
                    row += tile_rows;
                }
            }

            // 6. [y] = [count, out], the group's features added in their order
            let mixed = row_major(parts.mixed, count, v.len());
            let y = y.get_mut(done * dims.out..).unwrap_or_default();
            let mut y = MatrixMut::row_major(y, count, dims.out, dims.out);
            let start = match self.weights.bo {
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
fn rows(data: &[f32], first: usize, count: usize, width: usize) -> &[f32] {
    data.get(first * width..(first + count) * width).unwrap_or(&[])
}

fn row_major(data: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix { data, rows, columns, row_stride: columns, column_stride: 1 }
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
