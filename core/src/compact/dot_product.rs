//! Attention without projections: keys and values are read where the caller has them.

use super::tile::{Head, Mixed, Tile};
use super::{ROW, Scratch, check_scratch, part, rows};
use crate::call::{Inputs, Outputs};
use crate::dims::{Attention, Shape};
use crate::error::Error;
use crate::kernel::scaled;
use crate::options::Rules;
use crate::softmax::query_scale;

/// Computes attention. The call is checked but for its scratch.
pub(crate) fn dot_product<R: Rules>(
    attention: &Attention,
    shape: Shape,
    inputs: &Inputs<'_, R>,
    outputs: &mut Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let (d, d_v) = (attention.head_qk(), attention.head_v());
    let Shape { batch, q_len, kv_len } = shape;
    if q_len == 0 {
        return Ok(());
    }
    // What Plan::minimum takes: here the mixed values lie in y.
    check_scratch(d + d_v + ROW, scratch.len())?;
    let factor = query_scale(attention.scale, d);
    let (key_stride, value_stride) = (attention.key_features(), attention.value_features());
    let rows = rows(q_len, scratch.len(), d + ROW);
    let scratch = Scratch::carve(scratch, rows, d);
    let mut tile = Tile { inputs, kv_len, scratch, batch: 0, head: 0, first: 0, rows };
    let mut scores_before = 0;
    for batch in 0..batch {
        for head in 0..attention.heads {
            let kv_head = head / attention.sharing().max(1);
            let first = batch * kv_len;
            let keys = inputs.k.get(first * key_stride + kv_head * d..).unwrap_or(&[]);
            let values = inputs.v.get(first * value_stride + kv_head * d_v..).unwrap_or(&[]);
            let kept = Head { d, keys, key_stride, values, value_stride };
            let mut next = 0;
            while next < q_len {
                tile.look(batch, head, next, rows.min(q_len - next));
                let at = batch * q_len + next;
                let q = inputs.q.get(at * attention.qk + head * d..).unwrap_or(&[]);
                for row in 0..tile.rows {
                    let q = q.get(row * attention.qk..).and_then(|q| q.get(..d)).unwrap_or(&[]);
                    scaled(part(tile.scratch.queries, row * d, d), q, factor);
                }
                let y = outputs.y.get_mut(at * attention.v + head * d_v..).unwrap_or_default();
                let mut mixed = Mixed { data: y, stride: attention.v, columns: d_v };
                let scores = outputs.scores.as_deref_mut().unwrap_or_default();
                let scores = part(scores, scores_before, tile.rows * kv_len);
                scores_before += tile.rows * kv_len;
                tile.attend(&kept, &mut mixed, scores, outputs.scores_at);
                next += tile.rows.max(1);
            }
        }
    }
    Ok(())
}
