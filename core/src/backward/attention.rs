//! The way back through the attention of one head: a block of queries over the keys and values of a
//! sequence.
//!
//! With P the scores, D what dropout makes of them, and G the gradient of what was mixed:
//!
//! ```text
//! x = D(P)·V         dV = D(P)ᵀ·G        dP = D(G·Vᵀ + dscores)
//! δ = Σ P∘dP         dS = P ∘ (dP − δ)   dQ = dS·K      dK = dSᵀ·Q
//! ```
//!
//! Of the way forward nothing is kept but each row's maximum and normaliser, and the scores of a block
//! where they are few: Dao, Fu, Ermon, Rudra, Ré: *FlashAttention*, 2022.

use core::f32::consts::LN_2;
use core::ops::Range;

use super::plan::{MOST_QUERIES, Tile};
use crate::attention::attend;
use crate::call::ScoresAt;
use crate::kernel::{Columns, Kernel, Matrix, MatrixMut, Start};
use crate::mask::Broadcast;
use crate::options::Rules;
use crate::plan::TileParts;
use crate::softmax::{self, BLOCK};
use crate::store::Head;
use crate::visible::Queries;
use crate::work::{runs, width};

/// One head of a sequence: its keys and values, and where their gradients go.
pub(super) struct Sequence<'a> {
    pub(super) head: Head<'a>,
    /// The keys once more, `[kv_len, d]`.
    pub(super) keys: Columns<'a>,
    /// `[kv_len, d]`, in units of log2.
    pub(super) d_keys: MatrixMut<'a>,
    /// `[kv_len, d_v]`.
    pub(super) d_values: MatrixMut<'a>,
}

/// One head of a block of queries.
pub(super) struct Block<'a> {
    /// `[rows, d]`, scaled; a query without a visible key is cleared.
    pub(super) queries: MatrixMut<'a>,
    /// `[rows, d]`, before the scale.
    pub(super) d_queries: MatrixMut<'a>,
    /// `[rows, d_v]`.
    pub(super) mixed: MatrixMut<'a>,
    /// Whether they are known before.
    pub(super) is_mixed: bool,
    pub(super) d_mixed: Matrix<'a>,
    /// What comes from the scores, `[rows, kv_len]`.
    pub(super) from_scores: Option<Matrix<'a>>,
}

/// Which gradients are wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) queries: bool,
    pub(super) keys: bool,
    pub(super) values: bool,
    pub(super) bias: bool,
}

/// Goes forward over the block, then back: computes the mixed values and adds to the gradients that are
/// wanted. `d_bias` is that of the call.
pub(super) fn way_back<K: Kernel, R: Rules>(
    sequence: &mut Sequence<'_>,
    block: &mut Block<'_>,
    see: &Queries<'_, R>,
    wanted: Wanted,
    tile: &mut Tile<'_>,
    (keys, kept): (usize, bool),
    mut d_bias: Option<&mut [f32]>,
) {
    let (rows, kv_len) = (block.queries.rows, see.kv_len);
    // What dropout has left of the scores does not tell what they were.
    let kept = kept && see.inputs.dropout.is_none();
    // 1. Forward.
    let scores = if kept { Some((&mut *tile.scores, ScoresAt::Softmax)) } else { None };
    forward::<K, R>(sequence, block, see, &mut tile.state, keys, scores, tile.d_scores);
    let back = wanted.queries || wanted.keys || wanted.bias;
    if !(back || wanted.values) {
        return;
    }
    let visible = see.visible_to_any(rows);
    let first = visible.start / BLOCK * BLOCK;
    let stride = if kept { kv_len } else { keys };
    let place = |from: usize| if kept { from } else { 0 };
    for (row, &top) in tile.state.tops.iter().enumerate().take(rows) {
        // Who sees nothing gives nothing to anybody, whatever it is.
        if top == 0.0 {
            block.queries.row_mut(row).fill(0.0);
        }
    }

    // 2. [deltas] = [rows]
    for (row, delta) in tile.deltas.iter_mut().enumerate().take(rows) {
        let d_mixed = block.d_mixed.row(row);
        *delta = dot(d_mixed, block.mixed.row(row));
    }
    if let Some(from_scores) = block.from_scores {
        let mut from = first;
        while from < visible.end {
            let count = keys.min(visible.end - from);
            if !kept {
                again::<K, R>(sequence, block, see, tile, from, count, keys);
            }
            for (row, delta) in tile.deltas.iter_mut().enumerate().take(rows) {
                let at = row * stride + place(from);
                let scores = tile.scores.get_mut(at..at + count).unwrap_or_default();
                if let Some(dropout) = see.dropout(row) {
                    dropout.apply(from, scores);
                }
                // A block at a time, so that the tiles do not show.
                let from_scores = from_scores.part(row, from, count).chunks(BLOCK);
                let blocks = from_scores.zip(scores.chunks(BLOCK));
                blocks.for_each(|(from_scores, scores)| *delta += dot(from_scores, scores));
            }
            from += count;
        }
    }

    // 3. Tiles of keys.
    let mut from = first;
    while from < visible.end {
        let count = keys.min(visible.end - from);
        if !kept {
            again::<K, R>(sequence, block, see, tile, from, count, keys);
        }
        let scores = tile.scores.get_mut(place(from)..).unwrap_or_default();
        if back {
            // 4. [d_scores] = [rows, count]
            let mut d_scores = MatrixMut::new(tile.d_scores, rows, count, keys);
            let values = sequence.head.values(from, count);
            let turned = Columns::strided(values.data, values.columns, count, 1, values.row_stride);
            K::product(block.d_mixed, turned, &mut d_scores, Start::Zero, None);
            for row in 0..rows {
                let d_scores = d_scores.row_mut(row);
                if let Some(from_scores) = block.from_scores {
                    let more = from_scores.part(row, from, count);
                    d_scores.iter_mut().zip(more).for_each(|(d, more)| *d += more);
                }
                if let Some(dropout) = see.dropout(row) {
                    dropout.apply(from, d_scores);
                }
            }
            let weights = Matrix { data: scores, rows, columns: count, row_stride: stride };
            K::differentiate(weights, &mut d_scores, tile.deltas);
        }
        if wanted.values {
            for row in 0..rows {
                let Some(dropout) = see.dropout(row) else { break };
                let scores = scores.get_mut(row * stride..row * stride + count);
                dropout.apply(from, scores.unwrap_or_default());
            }
            let weights = Matrix { data: scores, rows, columns: count, row_stride: stride };
            let mut to = rows_of(&mut sequence.d_values, from, count);
            K::product_turned(weights, columns(block.d_mixed), &mut to, Start::Keep, None);
        }
        if back {
            if let (Some(d_bias), Some(bias)) = (&mut d_bias, &see.inputs.bias) {
                for row in 0..rows {
                    let at = row * keys;
                    let gradients = tile.d_scores.get(at..at + count).unwrap_or(&[]);
                    add_to_bias(d_bias, bias, see, row, from, gradients);
                }
            }
            if let Some(cap) = see.options().and_then(|options| options.softcap) {
                let mut logits = MatrixMut::new(scores, rows, count, stride);
                let mut d_scores = MatrixMut::new(tile.d_scores, rows, count, keys);
                let queries = matrix(&block.queries);
                uncap::<K>(sequence, queries, (from, count), &mut logits, &mut d_scores, cap);
            }
            let d_scores = Matrix { data: tile.d_scores, rows, columns: count, row_stride: keys };
            if wanted.keys {
                let mut to = rows_of(&mut sequence.d_keys, from, count);
                let queries = columns(matrix(&block.queries));
                K::product_turned(d_scores, queries, &mut to, Start::Keep, None);
            }
            if wanted.queries {
                let reached = from.max(visible.start)..from + count;
                let to = &mut block.d_queries;
                add_to_queries::<K>(d_scores, sequence, from, reached, see.has_holes(), to);
            }
        }
        from += count;
    }
}

/// The way forward: mixed values, and each row's maximum and normaliser; the scores where they are to be
/// kept, otherwise tiles of logits in `logits`.
fn forward<K: Kernel, R: Rules>(
    sequence: &Sequence<'_>,
    block: &mut Block<'_>,
    see: &Queries<'_, R>,
    state: &mut TileParts<'_>,
    keys: usize,
    scores: Option<(&mut [f32], ScoresAt)>,
    logits: &mut [f32],
) {
    let queries = matrix(&block.queries);
    let mut parts = TileParts {
        logits,
        sums: &mut *state.sums,
        maxima: &mut *state.maxima,
        tops: &mut *state.tops,
    };
    // Where nothing is to be mixed, of values of no width.
    let mut nothing = MatrixMut::new(&mut [], queries.rows, 0, 0);
    let (values, mixed) = if block.is_mixed {
        (Columns { columns: 0, ..sequence.head.values }, &mut nothing)
    } else {
        (sequence.head.values, &mut block.mixed)
    };
    let head = Head { values, ..sequence.head };
    attend::<K, R>(&head, queries, see, mixed, &mut parts, keys, scores);
}

/// Computes the scores of a tile again, before dropout, from what the way forward has left.
fn again<K: Kernel, R: Rules>(
    sequence: &Sequence<'_>,
    block: &Block<'_>,
    see: &Queries<'_, R>,
    tile: &mut Tile<'_>,
    from: usize,
    count: usize,
    stride: usize,
) {
    let rows = block.queries.rows;
    let TileParts { maxima, tops, sums, .. } = &mut tile.state;
    let mut logits = MatrixMut::new(tile.scores, rows, count, stride);
    let queries = matrix(&block.queries);
    K::product(queries, sequence.head.keys(from, count), &mut logits, Start::Zero, None);
    if !see.leaves_alone(rows, &(from..from + count)) {
        for row in 0..rows {
            let logits = logits.row_mut(row);
            see.apply(row, from, logits);
            let above = |logit: &f32| *logit > f32::NEG_INFINITY;
            if !logits.iter().any(above) {
                see.raise_overflow(row, from, logits);
            }
        }
    }
    // Maxima are final, so no top raises one; the sums are not looked at.
    K::advance(&mut logits, &NO_TOPS, maxima, sums, None, false);
    K::scale_rows(&mut logits, tops);
}

/// Tops of as many rows as there ever are, none of which raises a maximum.
static NO_TOPS: [f32; MOST_QUERIES] = [f32::NEG_INFINITY; MOST_QUERIES];

/// Takes the gradients of a tile back through the softcap: `c · tanh(l / c)` has the derivative
/// `1 − tanh²(l / c)`. The logits are computed once more, where the scores were.
fn uncap<K: Kernel>(
    sequence: &Sequence<'_>,
    queries: Matrix<'_>,
    (from, count): (usize, usize),
    logits: &mut MatrixMut<'_>,
    d_scores: &mut MatrixMut<'_>,
    cap: f32,
) {
    K::product(queries, sequence.head.keys(from, count), logits, Start::Zero, None);
    for row in 0..queries.rows {
        for (gradient, logit) in d_scores.row_mut(row).iter_mut().zip(logits.row(row)) {
            let tanh = libm::tanhf(logit * LN_2 / cap);
            // What has no weight has no gradient, whatever its logit is.
            if *gradient != 0.0 {
                *gradient *= 1.0 - tanh * tanh;
            }
        }
    }
}

/// `d_queries += d_scores · keys` for some keys of the tile that begins at `from`.
///
/// A key that nothing comes from is left out where single keys can be invisible: it may be anything.
fn add_to_queries<K: Kernel>(
    d_scores: Matrix<'_>,
    sequence: &Sequence<'_>,
    from: usize,
    keys: Range<usize>,
    holes: bool,
    d_queries: &mut MatrixMut<'_>,
) {
    let reached = |key: usize| {
        let column = d_scores.data.get(key - from..).unwrap_or(&[]);
        let column = column.iter().step_by(d_scores.row_stride.max(1)).take(d_scores.rows);
        column.into_iter().any(|&gradient| gradient != 0.0)
    };
    let all = sequence.keys;
    for run in runs(keys, |key| !holes || reached(key)) {
        let columns = width(&run);
        let data = d_scores.data.get(run.start - from..).unwrap_or(&[]);
        let part = Matrix { data, columns, ..d_scores };
        let data = all.data.get(run.start * all.row_stride..).unwrap_or(&[]);
        K::product(part, Columns { data, rows: columns, ..all }, d_queries, Start::Keep, None);
    }
}

/// Adds a row's gradients, from key `from` on, to those of the bias.
fn add_to_bias<R: Rules>(
    d_bias: &mut [f32],
    bias: &Broadcast<'_, f32>,
    see: &Queries<'_, R>,
    row: usize,
    from: usize,
    gradients: &[f32],
) {
    let (at, step) = bias.place(see.batch, see.head, see.first + row);
    let d_bias = d_bias.get_mut(at + from * step..).unwrap_or_default();
    if step == 0 {
        if let Some(all) = d_bias.first_mut() {
            gradients.iter().for_each(|gradient| *all += gradient);
        }
    } else {
        d_bias.iter_mut().zip(gradients).for_each(|(d_bias, gradient)| *d_bias += gradient);
    }
}

/// The sum of products, in sixteen partial sums, always in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; BLOCK];
    let (whole_a, rest_a) = a.as_chunks::<BLOCK>();
    let (whole_b, rest_b) = b.as_chunks::<BLOCK>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter_mut().zip(rest_a.iter().zip(rest_b)).for_each(|(sum, (a, b))| *sum += a * b);
    softmax::total(&sums)
}

/// A result, to be read.
fn matrix<'a>(of: &'a MatrixMut<'_>) -> Matrix<'a> {
    Matrix { data: of.data, rows: of.rows, columns: of.columns, row_stride: of.row_stride }
}

/// A left operand as a right one.
pub(super) fn columns(of: Matrix<'_>) -> Columns<'_> {
    Columns::strided(of.data, of.rows, of.columns, of.row_stride, 1)
}

/// Some rows of a result.
fn rows_of<'a>(of: &'a mut MatrixMut<'_>, from: usize, count: usize) -> MatrixMut<'a> {
    let data = of.data.get_mut(from * of.row_stride..).unwrap_or_default();
    MatrixMut::new(data, count, of.columns, of.row_stride)
}
