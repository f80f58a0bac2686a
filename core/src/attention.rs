//! Attention of a tile of queries over the keys and values of one head: the tiled, online softmax.
//!
//! Nothing here knows where queries come from or where the result goes; [`work`](crate::work)
//! brings both. The numbers, and why tiling does not change their bits, are in
//! [`softmax`].

use core::f32::consts::LN_2;
use core::ops::Range;

use crate::call::ScoresAt;
use crate::kernel::{Kernel, Matrix, MatrixMut, Spread, Start};
use crate::options::{Options, Rules};
use crate::plan::{SMALL, TileParts};
use crate::softmax::{self, BLOCK, LOG2_E};
use crate::store::Head;
use crate::visible::{Queries, capped};
use crate::work::{runs, width};

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
                let mut c = MatrixMut::new(scores, rows, kv_len, kv_len);
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
    let mut started = false;

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
        let mut logits = tile.part(rows, from - origin, count);
        K::product(queries, head.keys(from, count), &mut logits, Start::Zero, None);

        // 3. What each row may see, and how far that raises its maximum.
        if !see.leaves_alone(rows, &(from..from + count)) {
            for row in 0..rows {
                see.apply(row, from, logits.row_mut(row));
            }
        }
        let spread = K::tops(&logits, maxima, tops);
        let mut wide = !SMALL && spread == Spread::Wide;
        let near = !SMALL && spread == Spread::Near;
        for (row, (top, &m)) in tops.iter_mut().zip(maxima.iter()).enumerate().take(rows) {
            if *top == f32::NEG_INFINITY && see.raise_overflow(row, from, logits.row_mut(row)) {
                *top = f32::MIN;
                wide |= !SMALL && softmax::is_wide(m, f32::MIN, f32::MIN);
            }
        }
        if let Some(scores) = &mut stage {
            for row in 0..rows {
                let out = row_of(scores, row, kv_len, from..from + count);
                out.iter_mut().zip(logits.row(row)).for_each(|(out, logit)| *out = *logit * LN_2);
            }
        }

        // The common case: there is but this tile, and nothing beside the keys takes part.
        let alone = !SMALL && from == first && from + count == visible.end && !wide;
        if alone && see.options().is_none_or(Options::is_keys_alone) {
            K::settle(&mut logits, tops, maxima, near);
            for row in 0..rows {
                let Some(dropout) = see.dropout(row) else { break };
                dropout.apply(from, logits.row_mut(row));
            }
            if see.has_holes() {
                clear(mixed);
            }
            let keys = mixed_keys::<R>(see, &visible, from, count);
            mix::<K, R>(head, see, &tile, origin, rows, keys, mixed, see.has_holes());
            K::scale_rows(mixed, tops);
            if tile.resident {
                K::scale_rows(&mut tile.part(rows, visible.start, visible.len()), tops);
            }
            return;
        }

        if !started {
            sums.fill([0.0; BLOCK]);
        }
        // 4. The whole tile at once or, where weights could vanish on the way, block by block.
        let step = if wide { BLOCK } else { tile_keys };
        let end = from + count;
        while from < end {
            let count = step.min(end - from);
            if wide {
                K::tops(&tile.part(rows, from - origin, count), maxima, tops);
            }
            if tile.resident && started {
                for (row, (&m, &top)) in maxima.iter().zip(tops.iter()).enumerate().take(rows) {
                    let raised = softmax::ceil(top);
                    if raised > m {
                        let factor = softmax::shift(m, raised);
                        let mut before = tile.part(rows, first, from - first);
                        let before = before.row_mut(row).iter_mut();
                        before.for_each(|weight| softmax::shift_weight(weight, factor));
                    }
                }
            }
            let mut logits = tile.part(rows, from - origin, count);
            let so_far = if started { Some(&mut *mixed) } else { None };
            K::advance(&mut logits, tops, maxima, sums, so_far, near && !wide);
            for row in 0..rows {
                let Some(dropout) = see.dropout(row) else { break };
                dropout.apply(from, logits.row_mut(row));
            }
            // 5. [mixed] = [rows, d_v]
            let keys = mixed_keys::<R>(see, &visible, from, count);
            if !started && see.has_holes() {
                clear(mixed);
                started = true;
            }
            mix::<K, R>(head, see, &tile, origin, rows, keys, mixed, started);
            started = true;
            from += count;
        }
    }
    if !started {
        sums.fill([0.0; BLOCK]);
        clear(mixed);
    }

    // 6. What takes part beside the keys, and one division a row.
    for row in 0..rows {
        let (Some(m), Some(top), Some(sums)) =
            (maxima.get_mut(row), tops.get_mut(row), sums.get_mut(row))
        else {
            return;
        };
        let mut total = softmax::total(sums);
        if let Some(options) = see.options() {
            let beside = beside_keys(options, see, queries, row);
            for (logit, value) in beside.into_iter().flatten() {
                let raised = softmax::ceil(logit);
                let out = mixed.row_mut(row);
                if raised > *m {
                    let factor = softmax::shift(*m, raised);
                    *m = raised;
                    softmax::shift_weight(&mut total, factor);
                    out.iter_mut().for_each(|out| softmax::shift_mixed(out, factor));
                    if tile.resident {
                        let mut all = tile.part(rows, first, visible.end.saturating_sub(first));
                        let all = all.row_mut(row).iter_mut();
                        all.for_each(|weight| softmax::shift_weight(weight, factor));
                    }
                }
                let weight = weight::<K>(logit, *m);
                total += weight;
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
            }
            if let Some(lse) = options.lse {
                let at = (see.batch * see.heads + see.head) * see.q_len + see.first + row;
                if let Some(lse) = lse.get(at) {
                    lse.set((*m + libm::log2f(total)) * LN_2);
                }
            }
        }
        *top = softmax::normaliser(total);
    }
    K::scale_rows(mixed, tops);
    if tile.resident {
        K::scale_rows(&mut tile.part(rows, visible.start, visible.len()), tops);
    }
}

/// The keys of a tile that are mixed: from the first visible one on, past what a ring has
/// overwritten.
fn mixed_keys<R: Rules>(
    see: &Queries<'_, R>,
    visible: &Range<usize>,
    from: usize,
    count: usize,
) -> Range<usize> {
    let start = from.max(visible.start);
    let overwritten = R::OPTIONAL && start >= see.gone.0;
    (if overwritten { start.max(see.gone.1) } else { start })..from + count
}

/// The weight of one logit against a maximum.
fn weight<K: Kernel>(logit: f32, m: f32) -> f32 {
    let mut one = [logit];
    let mut tile = MatrixMut::new(&mut one, 1, 1, 1);
    K::advance(&mut tile, &[f32::NEG_INFINITY], &mut [m], &mut [[0.0; BLOCK]], None, false);
    one[0]
}

/// Zeros in every row, whatever stands there.
fn clear(rows: &mut MatrixMut<'_>) {
    for row in 0..rows.rows {
        rows.row_mut(row).fill(0.0);
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
        let mut c = MatrixMut::new(logits, rows, count, tile_keys);
        K::product(queries, head.keys(from, count), &mut c, Start::Zero, None);
        for (row, (&m, &normaliser)) in maxima.iter().zip(tops.iter()).enumerate().take(rows) {
            let weights = row_of(logits, row, tile_keys, 0..count);
            see.apply(row, from, weights);
            let (mut m, mut top) = ([m], [0.0]);
            let mut one = MatrixMut::new(weights, 1, count, count);
            K::tops(&one, &m, &mut top);
            if top[0] == f32::NEG_INFINITY {
                see.raise_overflow(row, from, one.row_mut(0));
            }
            K::advance(&mut one, &top, &mut m, &mut [[0.0; BLOCK]], None, false);
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
    /// Some columns of all rows.
    fn part(&mut self, rows: usize, from: usize, count: usize) -> MatrixMut<'_> {
        let data = self.data.get_mut(from..).unwrap_or_default();
        MatrixMut::new(data, rows, count, self.stride)
    }
}

/// Adds weights times values, `[rows, keys] · [keys, d_v]`, to what is there if anything is `started`.
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
    started: bool,
) {
    let weighted = |key: usize| {
        let column = tile.data.get(key - origin..).unwrap_or(&[]);
        column.iter().step_by(tile.stride.max(1)).take(rows).any(|&weight| weight != 0.0)
    };
    let holes = see.has_holes();
    for run in runs(keys, |key| !holes || weighted(key)) {
        let weights = Matrix {
            data: tile.data.get(run.start - origin..).unwrap_or(&[]),
            rows,
            columns: width(&run),
            row_stride: tile.stride,
        };
        let start = if started { Start::Keep } else { Start::Zero };
        K::product(weights, head.values(run.start, width(&run)), mixed, start, None);
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
