//! A tile of queries over the keys of one head.

use core::f32::consts::LN_2;

use super::{LOOKS_FAR, Scratch, part};
use crate::call::{Inputs, ScoresAt};
use crate::kernel::{Dense, Extent, Spread, Start, bounds, fill, scale, total, weigh};
use crate::options::Rules;
use crate::softmax::{self, BLOCK};
use crate::visible::biased;

/// Keys and values of one head of a sequence: where the first ones begin, and how far apart they are.
pub(super) struct Head<'a> {
    /// Features of a key.
    pub(super) d: usize,
    pub(super) keys: &'a [f32],
    pub(super) key_stride: usize,
    pub(super) values: &'a [f32],
    pub(super) value_stride: usize,
}

/// Which queries a tile holds, and everything that they work with.
pub(super) struct Tile<'a, R> {
    pub(super) inputs: &'a Inputs<'a, R>,
    pub(super) kv_len: usize,
    pub(super) scratch: Scratch<'a>,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The first query.
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// Where the values that a tile mixes go: row i begins at `i · stride`.
pub(super) struct Mixed<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) columns: usize,
}

impl Mixed<'_> {
    #[inline(never)]
    fn row(&mut self, row: usize) -> &mut [f32] {
        part(self.data, row * self.stride, self.columns)
    }
}

impl<R: Rules> Tile<'_, R> {
    /// Goes on to other queries.
    pub(super) fn look(&mut self, batch: usize, head: usize, first: usize, rows: usize) {
        (self.batch, self.head, self.first, self.rows) = (batch, head, first, rows);
    }

    /// Leaves the mixed values, normalised, and the scores where they are asked for, `[rows, kv_len]`.
    #[inline(never)]
    pub(super) fn attend(
        &mut self,
        head: &Head<'_>,
        mixed: &mut Mixed<'_>,
        scores: &mut [f32],
        at: ScoresAt,
    ) {
        let (rows, kv_len) = (self.rows, self.kv_len);
        fill(scores, 0.0);
        if at != ScoresAt::Softmax && !scores.is_empty() {
            self.show(head, scores, at);
        }
        let end = self.end(rows.saturating_sub(1));
        if end == 0 || self.has_holes() {
            for row in 0..rows {
                fill(mixed.row(row), 0.0);
            }
        }
        fill(self.scratch.sums.as_flattened_mut(), 0.0);
        fill(self.scratch.maxima, f32::NEG_INFINITY);
        // Weights stay where they are to be scores; elsewhere a block at a time is enough.
        let resident = at == ScoresAt::Softmax && !scores.is_empty();
        let logits = core::mem::take(&mut self.scratch.logits);
        let (keys, stride) = (self.scratch.keys, if resident { kv_len } else { self.scratch.keys });
        let mut from = 0;
        while from < end {
            let extent = Extent { rows, columns: keys.min(end - from), row: stride };
            let (origin, all) = if resident { (0, &mut *scores) } else { (from, &mut *logits) };
            let tile = all.get_mut(from - origin..).unwrap_or_default();
            products(self.scratch.queries, head, from, tile, extent);
            let mut spread = if LOOKS_FAR { Spread::Near } else { Spread::Far };
            for row in 0..rows {
                let seen = self.end(row).saturating_sub(from).min(extent.columns);
                let logits = part(all, row * stride + from - origin, extent.columns);
                let (logits, hidden) = logits.split_at_mut_checked(seen).unwrap_or_default();
                fill(hidden, 0.0);
                let of_row = self.see(row, from, logits);
                if LOOKS_FAR {
                    spread = widest(spread, of_row);
                }
            }
            // All of it at once or, where weights could vanish on the way, block by block.
            let last = from + extent.columns;
            while from < last {
                let alone = !LOOKS_FAR || spread == Spread::Wide;
                let columns = if alone { BLOCK.min(last - from) } else { last - from };
                for row in 0..rows {
                    let before = part(all, row * stride, from - origin + columns);
                    let seen = self.end(row).saturating_sub(from);
                    self.weigh(row, from, before, from - origin, seen, spread, mixed);
                }
                let tile = all.get(from - origin..).unwrap_or_default();
                self.mix(head, from, tile, Extent { columns, ..extent }, mixed);
                from += columns;
            }
        }
        self.scratch.logits = logits;
        for row in 0..rows {
            let Some(sums) = self.scratch.sums.get_mut(row) else { return };
            let normaliser = softmax::normaliser(total(sums));
            if normaliser == 0.0 {
                fill(mixed.row(row), 0.0);
            }
            scale(mixed.row(row), normaliser);
            if resident {
                scale(part(scores, row * kv_len, kv_len), normaliser);
            }
        }
    }

    /// One past the last key that a query may see by the causal rule.
    #[inline(never)]
    fn end(&self, row: usize) -> usize {
        let Some(causal) = self.inputs.causal else { return self.kv_len };
        let last = causal.offset(self.batch, 0).saturating_add_unsigned(self.first + row);
        self.kv_len.min(last.saturating_add(1).max(0).unsigned_abs())
    }

    /// The scores of an earlier stage.
    #[inline(never)]
    fn show(&mut self, head: &Head<'_>, scores: &mut [f32], at: ScoresAt) {
        let (rows, kv_len) = (self.rows, self.kv_len);
        let extent = Extent { rows, columns: kv_len, row: kv_len };
        products(self.scratch.queries, head, 0, scores, extent);
        if at == ScoresAt::Masked {
            for row in 0..rows {
                let scores = part(scores, row * kv_len, kv_len);
                let (seen, hidden) = scores.split_at_mut_checked(self.end(row)).unwrap_or_default();
                bound(seen);
                self.see(row, 0, seen);
                fill(hidden, f32::NEG_INFINITY);
            }
        }
        scale(scores, LN_2);
    }

    /// Takes a row's logits of some blocks into its softmax. They lie at the end of what of the row there is,
    /// from `before` on; as many as are `seen` get weights.
    #[inline(never)]
    fn weigh(
        &mut self,
        row: usize,
        from: usize,
        all: &mut [f32],
        before: usize,
        seen: usize,
        spread: Spread,
        mixed: &mut Mixed<'_>,
    ) {
        let (before, logits) = all.split_at_mut_checked(before).unwrap_or_default();
        let seen = seen.min(logits.len());
        let logits = logits.get_mut(..seen).unwrap_or_default();
        let Scratch { maxima, tops, sums, .. } = &mut self.scratch;
        let (Some(m), Some(&top), Some(sums)) =
            (maxima.get_mut(row), tops.get(row), sums.get_mut(row))
        else {
            return;
        };
        let wide = LOOKS_FAR && spread == Spread::Wide;
        let raised = softmax::ceil(if wide { bounds(*m, logits).0 } else { top });
        if raised > *m {
            if *m > f32::NEG_INFINITY {
                let factor = softmax::shift(*m, raised);
                shift(before, factor);
                shift(sums, factor);
                let mixed = mixed.row(row).iter_mut();
                mixed.for_each(|x| softmax::shift_mixed(x, factor));
            } else if from > 0 {
                // No weight times what another query sees, which may be anything.
                fill(mixed.row(row), 0.0);
            }
            *m = raised;
        }
        weigh(logits, *m, sums, spread == Spread::Near);
        let dropout = self.inputs.dropout.as_ref();
        let row = dropout.and_then(|dropout| dropout.row(self.batch, self.head, self.first + row));
        if let Some(row) = row {
            row.apply(from, logits);
        }
    }

    /// Adds the bias and puts −∞ where a key may not be seen, and nowhere else. Leaves the largest logit, or
    /// the running maximum where that is larger; how far they lie apart.
    #[inline(never)]
    fn see(&mut self, row: usize, from: usize, logits: &mut [f32]) -> Spread {
        let Inputs { bias, mask, .. } = self.inputs;
        let (batch, head, query) = (self.batch, self.head, self.first + row);
        if let Some(bias) = bias {
            let (at, step) = bias.place(batch, head, query);
            for (key, logit) in (from..).zip(&mut *logits) {
                *logit = biased(*logit, bias.at(at + key * step).unwrap_or(0.0));
            }
        }
        let m = self.scratch.maxima.get(row).copied().unwrap_or(0.0);
        let mut extremes = bounds(m, logits);
        // What has overflowed is not hidden: it matters where nothing is higher.
        if bias.is_none() && (mask.is_some() || extremes.0 <= f32::MIN) {
            bound(logits);
            extremes = bounds(m, logits);
        }
        if let Some(mask) = mask {
            let (at, step) = mask.place(batch, head, query);
            for (key, logit) in (from..).zip(&mut *logits) {
                if mask.hides_at(at + key * step) {
                    *logit = f32::NEG_INFINITY;
                }
            }
            extremes = bounds(m, logits);
        }
        let (top, lowest, ordered) = extremes;
        if let Some(to) = self.scratch.tops.get_mut(row) {
            *to = top;
        }
        if !LOOKS_FAR {
            return Spread::Far;
        }
        if logits.len() > BLOCK && softmax::is_wide(m, top, lowest) {
            return Spread::Wide;
        }
        // The maximum is at most the next integer.
        if ordered && top + 1.0 - lowest < softmax::WIDE { Spread::Near } else { Spread::Far }
    }

    /// Whether single keys may be hidden.
    fn has_holes(&self) -> bool {
        self.inputs.bias.is_some() || self.inputs.mask.is_some()
    }

    /// Adds weights times values.
    #[inline(never)]
    fn mix(
        &self,
        head: &Head<'_>,
        from: usize,
        weights: &[f32],
        extent: Extent,
        mixed: &mut Mixed<'_>,
    ) {
        let holes = self.has_holes();
        let start = if from == 0 && !holes { Start::Zero } else { Start::Keep };
        // Where single keys may be hidden, one that no row gives weight to is not read: its value may be
        // anything.
        let unused = |key: usize| holes && is_unused(weights.get(key..).unwrap_or(&[]), extent);
        let mut next = 0;
        while next < extent.columns {
            let first = next;
            while next < extent.columns && !unused(next) {
                next += 1;
            }
            if next > first {
                let values = (from + first) * head.value_stride;
                let product = Dense {
                    a: weights.get(first..).unwrap_or(&[]),
                    a_row: extent.row,
                    depth: next - first,
                    b: head.values.get(values..).unwrap_or(&[]),
                    along: head.value_stride,
                    across: 1,
                    start,
                };
                let Mixed { columns, stride: row, .. } = *mixed;
                product.run(mixed.data, Extent { rows: extent.rows, columns, row });
            }
            next += 1;
        }
    }
}

/// How far the logits of a tile lie apart, some of whose rows do so and others so.
fn widest(one: Spread, other: Spread) -> Spread {
    match (one, other) {
        (Spread::Wide, _) | (_, Spread::Wide) => Spread::Wide,
        (Spread::Near, Spread::Near) => Spread::Near,
        _ => Spread::Far,
    }
}

/// Whether the first column of a tile is 0.
#[inline(never)]
fn is_unused(mut tile: &[f32], extent: Extent) -> bool {
    for _ in 0..extent.rows {
        if tile.first().is_some_and(|&weight| weight != 0.0) {
            return false;
        }
        tile = tile.get(extent.row..).unwrap_or(&[]);
    }
    true
}

/// Logits of the keys from `from` on.
#[inline(never)]
fn products(queries: &[f32], head: &Head<'_>, from: usize, logits: &mut [f32], extent: Extent) {
    let (across, depth) = (head.key_stride, head.d);
    let b = head.keys.get(from * across..).unwrap_or(&[]);
    Dense { a: queries, a_row: depth, depth, b, along: 1, across, start: Start::Zero }
        .run(logits, extent);
}

/// Takes −∞ for the lowest number.
#[inline(never)]
fn bound(logits: &mut [f32]) {
    logits.iter_mut().for_each(|l| *l = if *l < f32::MIN { f32::MIN } else { *l });
}

#[inline(never)]
fn shift(xs: &mut [f32], factor: f32) {
    xs.iter_mut().for_each(|x| softmax::shift_weight(x, factor));
}
