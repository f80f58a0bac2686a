//! Attention of a tile of queries over the keys and values of one head: the tiled, online softmax.
//!
//! Nothing here knows where queries come from or where the result goes; [`layer`](crate::layer)
//! brings both. The numbers, and why tiling does not change their bits, are in
//! [`softmax`](crate::softmax).

use core::f32::consts::LN_2;
use core::ops::Range;

use crate::call::{Inputs, ScoresAt};
use crate::dropout::DropoutRow;
use crate::kernel::{Columns, Kernel, Matrix, MatrixMut, Start};
use crate::plan::TileParts;
use crate::softmax::{self, BLOCK, LOG2_E, WIDE};

/// Projected keys and values of one head.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// `[d, kv_len]`.
    pub(crate) keys: Columns<'a>,
    /// `[kv_len, d_v]`.
    pub(crate) values: Columns<'a>,
}

impl<'a> Head<'a> {
    /// The keys `from .. from + count`, `from` a multiple of the block.
    fn keys(&self, from: usize, count: usize) -> Columns<'a> {
        let data = self.keys.data.get(from / BLOCK * self.keys.block_stride..).unwrap_or(&[]);
        Columns { data, columns: count, ..self.keys }
    }

    /// The values `from .. from + count`.
    fn values(&self, from: usize, count: usize) -> Columns<'a> {
        let data = self.values.data.get(from * self.values.row_stride..).unwrap_or(&[]);
        Columns { data, rows: count, ..self.values }
    }
}

/// Which queries of which head a tile holds, and what they may see.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub(crate) inputs: &'a Inputs<'a>,
    pub(crate) batch: usize,
    pub(crate) head: usize,
    /// The tile's first query.
    pub(crate) first: usize,
    pub(crate) kv_len: usize,
}

impl Queries<'_> {
    /// The keys that the causal rule and the lengths leave to row `row` of the tile.
    fn visible(&self, row: usize) -> Range<usize> {
        match &self.inputs.causal {
            Some(causal) => causal.visible(self.batch, self.first + row, self.kv_len),
            None => 0..self.kv_len,
        }
    }

    /// The keys that any of the tile's rows may see.
    fn visible_to_any(&self, rows: usize) -> Range<usize> {
        let all = (0..rows).map(|row| self.visible(row)).filter(|keys| !keys.is_empty());
        all.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    /// Whether single keys inside a row's range may be invisible.
    fn has_holes(&self) -> bool {
        self.inputs.mask.is_some() || self.inputs.bias.is_some()
    }

    /// The dropout decisions of a row, where there are any.
    fn dropout(&self, row: usize) -> Option<DropoutRow> {
        self.inputs.dropout?.row(self.batch, self.head, self.first + row)
    }

    /// Whether the row may see a key.
    fn sees(&self, row: usize, key: usize) -> bool {
        let query = self.first + row;
        let masked = self.inputs.mask.is_some_and(|mask| {
            let (mask, step) = mask.row(self.batch, self.head, query);
            mask.get(key * step) == Some(&0)
        });
        let excluded = self.inputs.bias.is_some_and(|bias| {
            let (bias, step) = bias.row(self.batch, self.head, query);
            bias.get(key * step) == Some(&f32::NEG_INFINITY)
        });
        self.visible(row).contains(&key) && !masked && !excluded
    }

    /// Visible keys of a row that has none above −∞ have overflowed: they get the lowest logit
    /// there is, so that they share the row. Whether there are any.
    fn raise_overflow(&self, row: usize, from: usize, logits: &mut [f32]) -> bool {
        let mut any = false;
        for (i, logit) in logits.iter_mut().enumerate() {
            if *logit == f32::NEG_INFINITY && self.sees(row, from + i) {
                *logit = f32::MIN;
                any = true;
            }
        }
        any
    }

    /// Adds the bias to a row's logits, the first of which is key `from`, and puts −∞ where the row
    /// may not see the key.
    fn apply(&self, row: usize, from: usize, logits: &mut [f32]) {
        let query = self.first + row;
        if let Some(bias) = &self.inputs.bias {
            let (bias, step) = bias.row(self.batch, self.head, query);
            let bias = bias.get(from * step..).unwrap_or(&[]);
            if step == 0 {
                let one = bias.first().copied().unwrap_or(0.0);
                logits.iter_mut().for_each(|logit| *logit = biased(*logit, one));
            } else {
                logits.iter_mut().zip(bias).for_each(|(logit, &b)| *logit = biased(*logit, b));
            }
        }
        if let Some(mask) = &self.inputs.mask {
            let (mask, step) = mask.row(self.batch, self.head, query);
            let mask = mask.get(from * step..).unwrap_or(&[]);
            if step == 0 {
                if mask.first() == Some(&0) {
                    logits.fill(f32::NEG_INFINITY);
                }
            } else {
                for (logit, &attend) in logits.iter_mut().zip(mask) {
                    *logit = if attend == 0 { f32::NEG_INFINITY } else { *logit };
                }
            }
        }
        let visible = self.visible(row);
        for keys in [0..visible.start, visible.end..usize::MAX] {
            let (start, end) = (keys.start.saturating_sub(from), keys.end.saturating_sub(from));
            let end = end.min(logits.len());
            if let Some(hidden) = logits.get_mut(start..end) {
                hidden.fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// A logit plus a bias in natural units. −∞ hides the key whatever its logit; a finite bias never
/// does, however large: a sum that overflows stays the largest float.
#[inline(always)]
fn biased(logit: f32, bias: f32) -> f32 {
    let sum = logit + (bias * LOG2_E).clamp(f32::MIN, f32::MAX);
    if bias == f32::NEG_INFINITY {
        f32::NEG_INFINITY
    } else if bias == f32::INFINITY {
        bias + logit
    } else if sum == f32::NEG_INFINITY {
        f32::MIN
    } else {
        sum
    }
}

/// Attends the rows of a tile to their keys: `mixed[row] = Σ_j weight(row, j) · value(j)`, and writes
/// their scores where they are asked for.
///
/// `queries` is `[rows, d]` and scaled; `mixed` is `[rows, d_v]`; `scores` is `[rows, kv_len]`.
pub(crate) fn attend<K: Kernel>(
    head: &Head<'_>,
    queries: Matrix<'_>,
    see: &Queries<'_>,
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
            if at == ScoresAt::Logits {
                let mut c = MatrixMut::row_major(scores, rows, kv_len, kv_len);
                K::product(queries, head.keys(0, kv_len), &mut c, Start::Zero, Some(LN_2));
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
        let count = tile_keys.min(visible.end - from);
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
            mix::<K>(head, see, &tile, origin, rows, from..from + count, mixed);
            from += count;
        }
    }

    // 6. One division a row.
    for (row, sums) in sums.iter().enumerate().take(rows) {
        let normaliser = softmax::normaliser(softmax::total(sums));
        let mixed = row_of(mixed.data, row, mixed.row_stride, 0..mixed.columns);
        if normaliser == 0.0 {
            mixed.fill(0.0);
        } else {
            K::scale(mixed, normaliser);
        }
        if tile.resident {
            K::scale(tile.row(row, visible.start, visible.len()), normaliser);
        }
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
fn mix<K: Kernel>(
    head: &Head<'_>,
    see: &Queries<'_>,
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
