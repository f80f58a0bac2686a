//! Attention without projections: keys and values are read where the caller has them.

use super::row::{Head, Row};
use super::{ROW, check_scratch, part};
use crate::call::{Inputs, Outputs};
use crate::dims::{Attention, Shape};
use crate::error::Error;
use crate::options::Rules;
use crate::plan::take;
use crate::softmax::query_scale;

/// Computes attention. The call is checked but for its scratch.
pub(crate) fn dot_product<R: Rules>(
    attention: &Attention,
    shape: Shape,
    inputs: &Inputs<'_, R>,
    outputs: &mut Outputs<'_>,
    mut scratch: &mut [f32],
) -> Result<(), Error> {
    let (d, d_v) = (attention.head_qk(), attention.head_v());
    // What Plan::minimum takes: here the mixed values lie in y.
    check_scratch(d + d_v + ROW, scratch.len())?;
    let Shape { batch, q_len, kv_len } = shape;
    let query = take(&mut scratch, d);
    let Some(mut row) = Row::new(inputs, kv_len, query, scratch) else { return Ok(()) };
    let factor = query_scale(attention.scale, d);
    let (key_stride, value_stride) = (attention.key_features(), attention.value_features());
    let mut scores_before = 0;
    for batch in 0..batch {
        for head in 0..attention.heads {
            let kv_head = head / attention.sharing().max(1);
            let first = batch * kv_len;
            let keys = inputs.k.get(first * key_stride + kv_head * d..).unwrap_or(&[]);
            let values = inputs.v.get(first * value_stride + kv_head * d_v..).unwrap_or(&[]);
            let kept = Head { keys, key_stride, values, value_stride };
            for query in 0..q_len {
                let at = batch * q_len + query;
                let q = inputs.q.get(at * attention.qk + head * d..).unwrap_or(&[]);
                row.query.iter_mut().zip(q).for_each(|(to, q)| *to = q * factor);
                row.look(batch, head, query);
                let scores = outputs.scores.as_deref_mut().unwrap_or_default();
                let scores = part(scores, scores_before, kv_len);
                scores_before += kv_len;
                let y = part(outputs.y, at * attention.v + head * d_v, d_v);
                row.attend(&kept, y, scores, outputs.scores_at);
            }
        }
    }
    Ok(())
}
