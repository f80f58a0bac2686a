//! Attention without projections: queries, keys and values enter as they are.

use crate::call::{Inputs, Outputs};
use crate::compact;
use crate::dims::{Attention, Shape};
use crate::error::{Argument, Error};
use crate::kernel::{Columns, Isa, Kernel, Matrix, MatrixMut, Task};
use crate::layer::{check_attention, check_rows};
use crate::options::{Options, Rules};
use crate::plan::{COMPACT, Parts, Plan, Sizes, exact};
use crate::scores::AllScores;
use crate::softmax::query_scale;
use crate::store::{Head, Turn};
use crate::transform::{Features, Side, check_query_angles, transform, transforms};
use crate::view::{CacheView, ReadCache};
use crate::visible::Queries;

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
pub fn dot_product_attention<R: Rules>(
    attention: Attention,
    isa: Isa,
    shape: Shape,
    inputs: Inputs<'_, R>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    attention.check()?;
    check_keys(&attention, shape, &inputs)?;
    let rows = shape.queries();
    exact(Argument::V, inputs.v.len(), shape.keys().saturating_mul(attention.value_features()))?;
    exact(Argument::Y, outputs.y.len(), rows.saturating_mul(attention.v))?;
    run(attention, isa, shape, inputs, outputs, scratch)
}

/// Attention of queries over a cache, without projections: queries `[batch, q_len, qk]`; `y`
/// `[batch, q_len, v]`; scores, if asked for, `[batch, heads, q_len, stored]`. See
/// [`MultiHeadAttention::attend`](crate::MultiHeadAttention::attend) for positions.
///
/// # Errors
/// Those of [`dot_product_attention`], and [`Error::Value`] for a cache of other sizes.
pub fn dot_product_attention_cached<R: Rules>(
    attention: Attention,
    isa: Isa,
    cache: &impl ReadCache,
    q_len: usize,
    inputs: Inputs<'_, R>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    attention.check()?;
    let cache = cache.view();
    cache.check_fits(&attention)?;
    let none = Options::new();
    let inputs = inputs.options(inputs.rules.options().unwrap_or(&none));
    let shape = Shape::new(cache.config().batch, q_len, cache.len());
    let rows = 0..shape.queries();
    check_rows(shape, &rows)?;
    exact(Argument::Q, inputs.q.len(), rows.len().saturating_mul(attention.qk))?;
    exact(Argument::Y, outputs.y.len(), rows.len().saturating_mul(attention.v))?;
    check_attention(shape, cache.stored(), &attention, &rows, &inputs, &outputs)?;
    let natural = (cache.len() as isize).saturating_sub_unsigned(q_len);
    check_query_angles(&inputs, attention.head_qk(), shape, natural)?;
    let sizes = Sizes::of_attention(&attention, q_len);
    let plan = Plan::fit(&sizes, scratch.len())?;
    let parts = plan.carve(&sizes, scratch);
    isa.run(DotProduct { attention, shape, inputs, outputs, plan, parts, cache: Some(cache) });
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
pub fn dot_product_attention_scores<R: Rules>(
    attention: Attention,
    isa: Isa,
    shape: Shape,
    inputs: Inputs<'_, R>,
    scores: &mut [f32],
    scratch: &mut [f32],
) -> Result<(), Error> {
    // Values of no width: nothing is mixed.
    Attention { v: attention.heads, ..attention }.check()?;
    let attention = Attention { v: 0, ..attention };
    check_keys(&attention, shape, &inputs)?;
    let inputs = Inputs { v: &[], ..inputs };
    run(attention, isa, shape, inputs, Outputs::new(&mut []).scores(scores), scratch)
}

/// Checks the queries and keys of a call.
fn check_keys<R: Rules>(
    attention: &Attention,
    shape: Shape,
    inputs: &Inputs<'_, R>,
) -> Result<(), Error> {
    let rows = shape.queries();
    check_rows(shape, &(0..rows))?;
    exact(Argument::Q, inputs.q.len(), rows.saturating_mul(attention.qk))?;
    exact(Argument::K, inputs.k.len(), shape.keys().saturating_mul(attention.key_features()))
}

/// Checks the rest of a call and does it.
fn run<R: Rules>(
    attention: Attention,
    isa: Isa,
    shape: Shape,
    inputs: Inputs<'_, R>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    check_attention(shape, shape.kv_len, &attention, &(0..shape.queries()), &inputs, &outputs)?;
    // Keys are read where they lie, so there is no place for changed ones; a cache has one.
    if let Some(options) = inputs.rules.options() {
        let other = Argument::K;
        if options.rope.is_some() {
            return Err(Error::Conflict { argument: Argument::Rope, other });
        }
        if options.norm.is_some() {
            return Err(Error::Conflict { argument: Argument::Norm, other });
        }
    }
    if COMPACT && !R::OPTIONAL {
        let mut outputs = outputs;
        return compact::dot_product(&attention, shape, &inputs, &mut outputs, scratch);
    }
    let sizes = Sizes::of_attention(&attention, shape.q_len);
    let plan = Plan::fit(&sizes, scratch.len())?;
    let parts = plan.carve(&sizes, scratch);
    isa.run(DotProduct { attention, shape, inputs, outputs, plan, parts, cache: None });
    Ok(())
}

/// A checked call.
struct DotProduct<'a, R> {
    attention: Attention,
    shape: Shape,
    inputs: Inputs<'a, R>,
    outputs: Outputs<'a>,
    plan: Plan,
    parts: Parts<'a>,
    /// Where keys and values are, if not among the inputs.
    cache: Option<CacheView<'a>>,
}

impl<R: Rules> Task for DotProduct<'_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { attention, shape, inputs, outputs, plan, mut parts, cache } = self;
        let cache = cache.filter(|_| R::OPTIONAL);
        let Attention { heads, qk, v, .. } = attention;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let (key_features, value_features) = (attention.key_features(), attention.value_features());
        let Shape { q_len, kv_len, .. } = shape;
        let scale = query_scale(attention.scale, d);
        let gone = cache.as_ref().map_or(0..0, CacheView::gone);
        let natural = match cache {
            Some(_) => (kv_len as isize).saturating_sub_unsigned(q_len),
            None => 0,
        };
        let options = inputs.rules.options();
        let transformed = options.filter(|options| transforms(options));
        let columns = cache.as_ref().map_or(kv_len, CacheView::stored);
        let Outputs { y, scores, scores_at } = outputs;
        let mut all_scores = AllScores::new(scores, scores_at, &inputs, heads, columns);
        let all_rows = 0..shape.queries();
        for batch in 0..shape.batch {
            let mut scores = all_scores.of(shape, &all_rows, batch);
            for head in 0..heads {
                let kv_head = head / attention.sharing().max(1);
                let keys_and_values = match cache {
                    Some(cache) => cache.store(batch).head(kv_head, d, d_v),
                    None => {
                        let keys = batch * kv_len * key_features + kv_head * d;
                        let values = batch * kv_len * value_features + kv_head * d_v;
                        let keys = inputs.k.get(keys..).unwrap_or(&[]);
                        let values = inputs.v.get(values..).unwrap_or(&[]);
                        Head {
                            keys: Columns::strided(keys, d, kv_len, 1, key_features),
                            values: Columns::strided(values, kv_len, d_v, value_features, 1),
                            turn: Turn::NONE,
                        }
                    }
                };
                let mut first = 0;
                while first < q_len {
                    let rows = plan.rows.min(q_len - first);
                    let see = Queries {
                        inputs: &inputs,
                        heads,
                        batch,
                        head,
                        kv_head,
                        q_len,
                        first,
                        kv_len,
                        natural,
                        gone: (gone.start, gone.end),
                    };
                    // The scaled queries of the tile.
                    for row in 0..rows {
                        let at = ((batch * q_len) + first + row) * qk + head * d;
                        let from = inputs.q.get(at..at + d).unwrap_or(&[]);
                        let to = parts.queries.get_mut(row * d..(row + 1) * d).unwrap_or_default();
                        if let Some(options) = transformed {
                            to.iter_mut().zip(from).for_each(|(to, q)| *to = *q);
                            let position = see.rotary_position(options, row);
                            let mut q = Features { data: to, at: 0, stride: 1, count: d };
                            transform(options, Side::Query, position, &mut q);
                            to.iter_mut().for_each(|q| *q *= scale);
                        } else {
                            to.iter_mut().zip(from).for_each(|(to, q)| *to = *q * scale);
                        }
                    }
                    let tile = Matrix { data: parts.queries, rows, columns: d, row_stride: d };
                    let at = (batch * q_len + first) * v + head * d_v;
                    let mixed = y.get_mut(at..).unwrap_or_default();
                    let mut mixed = MatrixMut::new(mixed, rows, d_v, v);
                    scores.attend::<K, R>(
                        &keys_and_values,
                        tile,
                        &see,
                        &mut mixed,
                        &mut parts.tile,
                        plan.keys,
                    );
                    first += rows;
                }
            }
        }
    }
}
