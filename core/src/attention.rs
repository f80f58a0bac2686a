//! Attention of a tile of queries over the keys and values of one head: the tiled, online softmax.
//!
//! Nothing here knows where queries come from or where the result goes; [`work`](crate::work)
//! brings both. The numbers, and why tiling does not change their bits, are in
//! [`softmax`].

use core::f32::consts::LN_2;
use core::ops::Range;

use crate::call::ScoresAt;
use crate::kernel::{Kernel, Matrix, MatrixMut, Start};
use crate::options::{Options, Rules};
use crate::plan::TileParts;
use crate::softmax::{self, BLOCK, LOG2_E, WIDE};
use crate::store::Head;
use crate::visible::{Queries, capped};

/// Attends the rows of a tile to their keys: `mixed[row] = Σ_j weight(row, j) · value(j)`, and writes
/// their scores where they are asked for.
///
/// `queries` is `[rows, d]` and scaled; `mixed` is `[rows, d_v]`; `scores` is `[rows, kv_len]`.
pub(crate) fn attend<K: Kernel, R: Rules>(
    head: &Head<'_>,
    queries: Matrix<'_>,
    see: &Queries<'_, R>,
    mixed: &mut MatrixMut<'_>,
    scratch: &mut TileParts<'_>,
    tile_keys: usize,
    scores: Option<(&mut [f32], ScoresAt)>,
) {
    let (rows, kv_len) = (queries.rows, see.kv_len);
    let visible = see.visible_to_any(rows);
    let first = visible.start / BLOCK * BLOCK;

    // Logits become weights in place: in the caller's scores if those are to be weights, otherwise
    // in scratch. Scores of an earlier stage are copied out on the way.
    let TileParts { logits, sums, maxima, tops } = scratch;
    let (mut tile, mut stage) = match scores {
        Some((scores, ScoresAt::Softmax)) => {
            fill_outside(scores, rows, kv_len, &visible, 0.0);
            (Tile { data: scores, stride: kv_len, resident: true }, None)
        }
        Some((scores, at)) => {
            if matches!(at, ScoresAt::Logits | ScoresAt::Capped) {
                let mut c = MatrixMut::row_major(scores, rows, kv_len, kv_len);
                K::product(queries, head.keys(0, kv_len), &mut c, Start::Zero, Some(LN_2));
                let options = see.options().filter(|_| at == ScoresAt::Capped);
                if let Some(cap) = options.and_then(|options| options.softcap) {
                    scores.iter_mut().for_each(|score| *score = capped(*score, cap));
                }
            } else {
                fill_outside(scores, rows, kv_len, &visible, f32::NEG_INFINITY);
            }
            let masked = (at == ScoresAt::Masked).then_some(scores);
            (Tile { data: logits, stride: tile_keys, resident: false }, masked)
        }
        None => (Tile { data: logits, stride: tile_keys, resident: false }, None),
    };
    maxima.fill(f32::NEG_INFINITY);
    sums.fill([0.0; BLOCK]);
    for row in 0..rows {
        row_of(mixed.data, row, mixed.row_stride, 0..mixed.columns).fill(0.0);
    }

    // 1. Tiles of keys.
    let mut from = first;
    while from < visible.end {
        if R::OPTIONAL && from >= see.gone.0 && from / BLOCK < see.gone.1 / BLOCK {
            from = see.gone.1 / BLOCK * BLOCK;
        }
        let count = tile_keys.min(visible.end - from);
        let count = if R::OPTIONAL { count.min(head.turn.run(from)) } else { count };
        let origin = if tile.resident { 0 } else { from };
        // 2. [logits] = [rows, count]
        let target = tile.data.get_mut(from - origin..).unwrap_or_default();
        let mut c = MatrixMut::row_major(target, rows, count, tile.stride);
        K::product(queries, head.keys(from, count), &mut c, Start::Zero, None);

        // 3. What each row may see, and how far that raises its maximum.
        let mut wide = false;
        for (row, (top, &m)) in tops.iter_mut().zip(maxima.iter()).enumerate().take(rows) {
            let logits = tile.row(row, from - origin, count);
            see.apply(row, from, logits);
            let (mut highest, mut lowest) = K::extremes(logits);
            if highest == f32::NEG_INFINITY && see.raise_overflow(row, from, logits) {
                (highest, lowest) = (f32::MIN, f32::MIN);
            }
            wide |= is_wide(m, softmax::ceil(highest), lowest);
            *top = highest;
            if let Some(scores) = &mut stage {
                let out = row_of(scores, row, kv_len, from..from + count);
                out.iter_mut().zip(&*logits).for_each(|(out, logit)| *out = *logit * LN_2);
            }
        }

        // 4. The whole tile at once or, where weights could vanish on the way, block by block.
        let step = if wide { BLOCK } else { tile_keys };
        let end = from + count;
        while from < end {
            let count = step.min(end - from);
            for (row, ((m, top), sums)) in
                maxima.iter_mut().zip(tops.iter()).zip(sums.iter_mut()).enumerate().take(rows)
            {
                let logits = tile.row(row, from - origin, count);
                let top = if wide { K::extremes(logits).0 } else { *top };
                let raised = softmax::ceil(top);
                if raised > *m {
                    let factor = softmax::shift(*m, raised);
                    *m = raised;
                    sums.iter_mut().for_each(|sum| softmax::shift_weight(sum, factor));
                    K::scale(row_of(mixed.data, row, mixed.row_stride, 0..mixed.columns), factor);
                    if tile.resident {
                        let before = tile.row(row, first, from - first);
                        before.iter_mut().for_each(|weight| softmax::shift_weight(weight, factor));
                    }
                }
                let logits = tile.row(row, from - origin, count);
                weigh::<K>(logits, *m, sums);
                if let Some(dropout) = see.dropout(row) {
                    dropout.apply(from, logits);
                }
            }
            // 5. [mixed] = [rows, d_v]
            let mut keys = from.max(visible.start)..from + count;
            if R::OPTIONAL && keys.start >= see.gone.0 {
                keys.start = keys.start.max(see.gone.1);
            }
            mix::<K, R>(head, see, &tile, origin, rows, keys, mixed);
            from += count;
        }
    }

    // 6. What takes part beside the keys, and one division a row.
    for row in 0..rows {
        let (Some(m), Some(top), Some(sums)) =
            (maxima.get_mut(row), tops.get_mut(row), sums.get_mut(row))
        else {
            return;
        };
        let out = row_of(mixed.data, row, mixed.row_stride, 0..mixed.columns);
        let mut total = softmax::total(sums);
        if let Some(options) = see.options() {
            let beside = beside_keys(options, see, queries, row);
            for (logit, value) in beside.into_iter().flatten() {
                let raised = softmax::ceil(logit);
                if raised > *m {
                    let factor = softmax::shift(*m, raised);
                    *m = raised;
                    softmax::shift_weight(&mut total, factor);
                    K::scale(out, factor);
                    if tile.resident {
                        let all = tile.row(row, first, visible.end.saturating_sub(first));
                        all.iter_mut().for_each(|weight| softmax::shift_weight(weight, factor));
                    }
                }
                let mut one = [logit];
                weigh::<K>(&mut one, *m, &mut [0.0; BLOCK]);
                total += one[0];
                for (out, value) in out.iter_mut().zip(value) {
                    *out += one[0] * value;
                }
            }
            if let Some(lse) = options.lse {
                let at = (see.batch * see.heads + see.head) * see.q_len + see.first + row;
                if let Some(lse) = lse.get(at) {
                    lse.set((*m + libm::log2f(total)) * LN_2);
                }
            }
        }
        let normaliser = softmax::normaliser(total);
        if normaliser == 0.0 {
            out.fill(0.0);
        } else {
            K::scale(out, normaliser);
        }
        if tile.resident {
            K::scale(tile.row(row, visible.start, visible.len()), normaliser);
        }
        *top = normaliser;
    }
}

/// What takes part in a row's softmax beside its keys: the extra key with its value, and the sink,
/// which has none. Logits are in units of log2.
fn beside_keys<'o, R: Rules>(
    options: &Options<'o>,
    see: &Queries<'_, R>,
    queries: Matrix<'_>,
    row: usize,
) -> [Option<(f32, &'o [f32])>; 2] {
    let extra = options.extra.map(|extra| {
        let (d, d_v) = (queries.columns, extra.v.len() * queries.columns / extra.k.len().max(1));
        let q = queries.data.get(row * queries.row_stride..).unwrap_or(&[]);
        let k = extra.k.get(see.kv_head * d..(see.kv_head + 1) * d).unwrap_or(&[]);
        let logit = q.iter().zip(k).fold(0.0, |sum, (q, k)| sum + q * k);
        let v = extra.v.get(see.kv_head * d_v..(see.kv_head + 1) * d_v).unwrap_or(&[]);
        let logit = options.softcap.map_or(logit, |cap| capped(logit * LN_2, cap) * LOG2_E);
        (logit, v)
    });
    let sink = options.sinks.and_then(|sinks| sinks.get(see.head));
    [extra, sink.map(|sink| (sink * LOG2_E, &[][..]))]
}

/// Adds a head's scores to their mean over the heads, or writes those of a ring, whose places in
/// memory are not those in the row: a second pass over the keys, after [`attend`] has left each
/// row's maximum and normaliser in `scratch`.
///
/// `scores` is `[rows, stored]`, where `stored` leaves out what a ring has overwritten.
pub(crate) fn add_scores<K: Kernel, R: Rules>(
    head: &Head<'_>,
    queries: Matrix<'_>,
    see: &Queries<'_, R>,
    scratch: &mut TileParts<'_>,
    tile_keys: usize,
    scores: &mut [f32],
    factor: f32,
) {
    let rows = queries.rows;
    let stored = see.kv_len - (see.gone.1 - see.gone.0);
    let visible = see.visible_to_any(rows);
    let TileParts { logits, maxima, tops, .. } = scratch;
    let mut from = visible.start / BLOCK * BLOCK;
    while from < visible.end {
        if from >= see.gone.0 && from / BLOCK < see.gone.1 / BLOCK {
            from = see.gone.1 / BLOCK * BLOCK;
        }
        let count = tile_keys.min(visible.end - from).min(head.turn.run(from));
        let mut c = MatrixMut::row_major(logits, rows, count, tile_keys);
        K::product(queries, head.keys(from, count), &mut c, Start::Zero, None);
        for (row, (&m, &normaliser)) in maxima.iter().zip(tops.iter()).enumerate().take(rows) {
            let weights = row_of(logits, row, tile_keys, 0..count);
            see.apply(row, from, weights);
            if K::extremes(weights).0 == f32::NEG_INFINITY {
                see.raise_overflow(row, from, weights);
            }
            weigh::<K>(weights, m, &mut [0.0; BLOCK]);
            if let Some(dropout) = see.dropout(row) {
                dropout.apply(from, weights);
            }
            let out = row_of(scores, row, stored, 0..stored);
            for (i, &weight) in weights.iter().enumerate() {
                let key = from + i;
                let column = if key < see.gone.0 {
                    Some(key)
                } else {
                    key.checked_sub(see.gone.1).map(|after| see.gone.0 + after)
                };
                if let Some(out) = column.and_then(|column| out.get_mut(column)) {
                    *out += weight * normaliser * factor;
                }
            }
        }
        from += count;
    }
}

/// Where the logits of a tile lie, and the weights that they become.
struct Tile<'a> {
    data: &'a mut [f32],
    stride: usize,
    /// Whether all keys of a row have a place (the caller's scores), or only those of one tile.
    resident: bool,
}

impl Tile<'_> {
    fn row(&mut self, row: usize, from: usize, count: usize) -> &mut [f32] {
        row_of(self.data, row, self.stride, from..from + count)
    }
}

/// Whether a tile must be taken block by block: it raises the maximum from `m` to `raised` so far
/// above what the row holds, or above its smallest logit, that something might vanish too early.
fn is_wide(m: f32, raised: f32, lowest: f32) -> bool {
    raised > m && (raised - lowest > WIDE || (m > f32::NEG_INFINITY && raised - m > WIDE))
}

/// [`Kernel::weights`], for any maximum.
fn weigh<K: Kernel>(logits: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    let mut m = m;
    if m == f32::INFINITY {
        // Keys at +∞ share the row; NaN stays NaN.
        for logit in logits.iter_mut() {
            *logit = if *logit == f32::INFINITY {
                0.0
            } else if logit.is_nan() {
                *logit
            } else {
                f32::NEG_INFINITY
            };
        }
        m = 0.0;
    } else if m == f32::NEG_INFINITY {
        m = 0.0;
    }
    K::weights(logits, m, sums);
}

/// Adds weights times values, `[rows, keys] · [keys, d_v]`.
///
/// A key that no row of the tile gives weight to is left out where single keys can be invisible:
/// its value may be anything, even NaN.
fn mix<K: Kernel, R: Rules>(
    head: &Head<'_>,
    see: &Queries<'_, R>,
    tile: &Tile<'_>,
    origin: usize,
    rows: usize,
    keys: Range<usize>,
    mixed: &mut MatrixMut<'_>,
) {
    let weighted = |key: usize| {
        let column = tile.data.get(key - origin..).unwrap_or(&[]);
        column.iter().step_by(tile.stride.max(1)).take(rows).any(|&weight| weight != 0.0)
    };
    let mut from = keys.start;
    while from < keys.end {
        let mut to = keys.end;
        if see.has_holes() {
            while from < to && !weighted(from) {
                from += 1;
            }
            to = (from..to).find(|&key| !weighted(key)).unwrap_or(to);
        }
        let weights = Matrix {
            data: tile.data.get(from - origin..).unwrap_or(&[]),
            rows,
            columns: to - from,
            row_stride: tile.stride,
            column_stride: 1,
        };
        K::product(weights, head.values(from, to - from), mixed, Start::Keep, None);
        from = to;
    }
}

/// Fills the scores of keys that no row of the tile may see.
fn fill_outside(
    scores: &mut [f32],
    rows: usize,
    kv_len: usize,
    visible: &Range<usize>,
    value: f32,
) {
    for row in 0..rows {
        row_of(scores, row, kv_len, 0..visible.start).fill(value);
        row_of(scores, row, kv_len, visible.end..kv_len).fill(value);
    }
}

/// Some columns of a row of a matrix.
fn row_of(data: &mut [f32], row: usize, stride: usize, columns: Range<usize>) -> &mut [f32] {
    let at = row * stride;
    let part = data.get_mut(at + columns.start..at + columns.end);
    debug_assert!(part.is_some(), "a row must lie inside its matrix");
    part.unwrap_or_default()
}
