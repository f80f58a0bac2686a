//! Attention without projections: queries, keys and values enter as they are.

use crate::attention::{Head, Queries, attend};
use crate::call::{Inputs, Outputs, ScoresAt};
use crate::dims::{Attention, Shape};
use crate::error::{Argument, Error};
use crate::kernel::{Columns, Isa, Kernel, Matrix, MatrixMut, Task};
use crate::layer::{check_attention, check_rows, sequences};
use crate::plan::{Parts, Plan, Sizes, exact, take};
use crate::softmax::query_scale;

/// Attention of queries over keys and values that are projected already: NNlib's
/// `dot_product_attention`.
///
/// Queries `[batch, q_len, qk]`, keys `[batch, kv_len, qk]`, values `[batch, kv_len, v]`; `y`
/// `[batch, q_len, v]`; scores, if asked for, `[batch, heads, q_len, kv_len]`. Heads split the
/// features: head `h` owns the features `h·d .. (h+1)·d` of queries and keys, likewise of values and
/// of `y`, which is NNlib's `split_heads` and `join_heads` without moving anything.
///
/// `scratch` needs [`Attention::scratch_len`] floats for full speed and works down to
/// [`Attention::min_scratch_len`], which does not depend on the shape.
///
/// # Errors
/// Those of [`Attention::check`] and of
/// [`MultiHeadAttention::forward`](crate::MultiHeadAttention::forward). Nothing has been written
/// then.
///
/// ```
/// use mha::{Attention, Inputs, Isa, Outputs, Shape};
///
/// const ATTENTION: Attention = Attention::new(1, 2, 1);
/// const SHAPE: Shape = Shape::new(1, 1, 2);
/// let (q, k, v) = ([0.0, 1.0], [1.0, 0.0, -1.0, 0.0], [2.0, 4.0]);
/// let mut y = [0.0];
/// let mut scratch = [0.0; ATTENTION.scratch_len(SHAPE)];
/// let (inputs, outputs) = (Inputs::new(&q, &k, &v), Outputs::new(&mut y));
/// mha::dot_product_attention(ATTENTION, Isa::detect(), SHAPE, inputs, outputs, &mut scratch)?;
/// assert_eq!(y, [3.0]);
/// # Ok::<(), mha::Error>(())
/// ```
pub fn dot_product_attention(
    attention: Attention,
    isa: Isa,
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    attention.check()?;
    let rows = shape.queries();
    check_rows(shape, &(0..rows))?;
    exact(Argument::Q, inputs.q.len(), rows.saturating_mul(attention.qk))?;
    exact(Argument::K, inputs.k.len(), shape.keys().saturating_mul(attention.qk))?;
    exact(Argument::V, inputs.v.len(), shape.keys().saturating_mul(attention.v))?;
    exact(Argument::Y, outputs.y.len(), rows.saturating_mul(attention.v))?;
    check_attention(shape, attention.heads, rows, &inputs, outputs.scores.as_deref())?;
    let sizes = Sizes::of_attention(&attention, shape);
    let plan = Plan::fit(&sizes, scratch.len())?;
    let parts = plan.carve(&sizes, scratch);
    isa.run(DotProduct { attention, shape, inputs, outputs, plan, parts });
    Ok(())
}

/// The scores of attention alone, `[batch, heads, q_len, kv_len]`: NNlib's
/// `dot_product_attention_scores`. The values of `inputs` are not looked at.
///
/// # Errors
/// Those of [`dot_product_attention`].
///
/// ```
/// use mha::{Attention, Inputs, Isa, Shape};
///
/// let attention = Attention::new(1, 2, 2);
/// let (q, k) = ([0.0, 1.0], [1.0, 0.0, -1.0, 0.0]);
/// let (mut scores, mut scratch) = ([0.0; 2], [0.0; 64]);
/// let (inputs, shape) = (Inputs::cross(&q, &k), Shape::new(1, 1, 2));
/// mha::dot_product_attention_scores(attention, Isa::detect(), shape, inputs, &mut scores, &mut scratch)?;
/// assert_eq!(scores, [0.5, 0.5]);
/// # Ok::<(), mha::Error>(())
/// ```
pub fn dot_product_attention_scores(
    attention: Attention,
    isa: Isa,
    shape: Shape,
    inputs: Inputs<'_>,
    scores: &mut [f32],
    scratch: &mut [f32],
) -> Result<(), Error> {
    // Values of no width: nothing is mixed.
    let attention = Attention { v: attention.heads, ..attention };
    attention.check()?;
    let attention = Attention { v: 0, ..attention };
    let rows = shape.queries();
    check_rows(shape, &(0..rows))?;
    exact(Argument::Q, inputs.q.len(), rows.saturating_mul(attention.qk))?;
    exact(Argument::K, inputs.k.len(), shape.keys().saturating_mul(attention.qk))?;
    check_attention(shape, attention.heads, rows, &inputs, Some(scores))?;
    let sizes = Sizes::of_attention(&attention, shape);
    let plan = Plan::fit(&sizes, scratch.len())?;
    let parts = plan.carve(&sizes, scratch);
    let inputs = Inputs { v: &[], ..inputs };
    let outputs = Outputs::new(&mut []).scores(scores);
    isa.run(DotProduct { attention, shape, inputs, outputs, plan, parts });
    Ok(())
}

/// A checked call.
struct DotProduct<'a> {
    attention: Attention,
    shape: Shape,
    inputs: Inputs<'a>,
    outputs: Outputs<'a>,
    plan: Plan,
    parts: Parts<'a>,
}

impl Task for DotProduct<'_> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { attention, shape, inputs, outputs, plan, mut parts } = self;
        let Attention { heads, qk, v, .. } = attention;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let Shape { q_len, kv_len, .. } = shape;
        let scale = query_scale(attention.scale, d);
        let (mut y, mut scores) = (outputs.y, outputs.scores.unwrap_or_default());
        for (batch, queries) in sequences(shape, 0..shape.queries()) {
            let y = take(&mut y, queries.len() * v);
            let scores = take(&mut scores, heads * queries.len() * kv_len);
            for head in 0..heads {
                let keys = inputs.k.get(batch * kv_len * qk + head * d..).unwrap_or(&[]);
                let values = inputs.v.get(batch * kv_len * v + head * d_v..).unwrap_or(&[]);
                let keys_and_values = Head {
                    keys: Columns::strided(keys, d, kv_len, 1, qk),
                    values: Columns::strided(values, kv_len, d_v, v, 1),
                };
                let mut first = 0;
                while first < q_len {
                    let rows = plan.rows.min(q_len - first);
                    // The scaled queries of the tile.
                    for row in 0..rows {
                        let at = ((batch * q_len) + first + row) * qk + head * d;
                        let from = inputs.q.get(at..at + d).unwrap_or(&[]);
                        let to = parts.queries.get_mut(row * d..(row + 1) * d).unwrap_or_default();
                        to.iter_mut().zip(from).for_each(|(to, q)| *to = *q * scale);
                    }
                    let tile = Matrix {
                        data: parts.queries,
                        rows,
                        columns: d,
                        row_stride: d,
                        column_stride: 1,
                    };
                    let mixed = y.get_mut(first * v + head * d_v..).unwrap_or_default();
                    let mut mixed = MatrixMut::row_major(mixed, rows, d_v, v);
                    let see = Queries { inputs: &inputs, batch, head, first, kv_len };
                    let at = (head * q_len + first) * kv_len;
                    let scores: Option<&mut [f32]> = scores.get_mut(at..at + rows * kv_len);
                    let scores = scores
                        .filter(|scores| !scores.is_empty())
                        .map(|scores| (scores, outputs.scores_at));
                    let stage: Option<(&mut [f32], ScoresAt)> = scores;
                    attend::<K>(
                        &keys_and_values,
                        tile,
                        &see,
                        &mut mixed,
                        &mut parts.tile,
                        plan.keys,
                        stage,
                    );
                    first += rows;
                }
            }
        }
    }
}
