//! One query over the keys of one head.

use core::f32::consts::LN_2;

use crate::call::{Inputs, ScoresAt};
use crate::dropout::DropoutRow;
use crate::kernel::{Dense, Start, weigh};
use crate::options::Rules;
use crate::softmax::{self, BLOCK};
use crate::visible::biased;

/// Keys and values of one head of a sequence: where the first ones begin, and how far apart they are.
pub(super) struct Head<'a> {
    pub(super) keys: &'a [f32],
    pub(super) key_stride: usize,
    pub(super) values: &'a [f32],
    pub(super) value_stride: usize,
}

/// A query, and everything that it works with.
pub(super) struct Row<'a, R> {
    pub(super) inputs: &'a Inputs<'a, R>,
    pub(super) kv_len: usize,
    /// The query, projected and scaled.
    pub(super) query: &'a mut [f32],
    sums: &'a mut [f32; BLOCK],
    logits: &'a mut [f32],
    /// Running maximum.
    m: f32,
    /// Keys from here on are hidden.
    end: usize,
    /// Where the query's row of the bias begins, and how far apart its elements are.
    bias: (usize, usize),
    /// The same of the mask.
    mask: (usize, usize),
    dropout: Option<DropoutRow>,
}

impl<'a, R: Rules> Row<'a, R> {
    /// `None` where scratch does not hold the sums.
    pub(super) fn new(
        inputs: &'a Inputs<'a, R>,
        kv_len: usize,
        query: &'a mut [f32],
        scratch: &'a mut [f32],
    ) -> Option<Self> {
        let (sums, logits) = scratch.split_first_chunk_mut()?;
        let (bias, mask) = ((0, 0), (0, 0));
        Some(Self {
            inputs,
            kv_len,
            query,
            sums,
            logits,
            m: 0.0,
            end: 0,
            bias,
            mask,
            dropout: None,
        })
    }

    /// What the query may see.
    #[inline(never)]
    pub(super) fn look(&mut self, batch: usize, head: usize, query: usize) {
        let inputs = self.inputs;
        self.end = self.kv_len;
        if let Some(causal) = inputs.causal {
            let last = causal.offset(batch, 0).saturating_add_unsigned(query);
            self.end = self.end.min(last.saturating_add(1).max(0).unsigned_abs());
        }
        if let Some(bias) = &inputs.bias {
            self.bias = bias.place(batch, head, query);
        }
        if let Some(mask) = &inputs.mask {
            self.mask = mask.place(batch, head, query);
        }
        self.dropout = inputs.dropout.and_then(|dropout| dropout.row(batch, head, query));
    }

    /// Leaves the mixed values, normalised, and the scores where they are asked for.
    #[inline(never)]
    pub(super) fn attend(
        &mut self,
        head: &Head<'_>,
        mixed: &mut [f32],
        scores: &mut [f32],
        at: ScoresAt,
    ) {
        fill(scores, 0.0);
        if at != ScoresAt::Softmax {
            self.products(head, 0, scores);
            if at == ScoresAt::Masked {
                let (seen, hidden) = scores.split_at_mut_checked(self.end).unwrap_or_default();
                self.see(0, seen);
                fill(hidden, f32::NEG_INFINITY);
            }
            scale(scores, LN_2);
        }
        fill(mixed, 0.0);
        fill(self.sums, 0.0);
        self.m = f32::NEG_INFINITY;
        // Weights stay where they are to be scores; elsewhere a block at a time is enough.
        let resident = at == ScoresAt::Softmax && !scores.is_empty();
        let logits = core::mem::take(&mut self.logits);
        let mut from = 0;
        while from < self.end {
            let (before, tile) = if resident {
                scores.split_at_mut_checked(from).unwrap_or_default()
            } else {
                (&mut [][..], &mut *logits)
            };
            let count = BLOCK.min(self.end - from);
            let tile = tile.get_mut(..count).unwrap_or_default();
            self.products(head, from, tile);
            let raised = softmax::ceil(self.see(from, tile));
            if raised > self.m {
                let factor = softmax::shift(self.m, raised);
                self.m = raised;
                shift(before, factor);
                shift(self.sums, factor);
                scale(mixed, factor);
            }
            self.weigh(from, tile);
            mix(head, from, tile, mixed);
            from += BLOCK;
        }
        self.logits = logits;
        softmax::add_up(self.sums);
        let normaliser = softmax::normaliser(self.sums[0]);
        scale(mixed, normaliser);
        if resident {
            scale(scores, normaliser);
        }
    }

    /// Logits of the keys from `from` on, as many as there is room for.
    #[inline(never)]
    fn products(&self, head: &Head<'_>, from: usize, logits: &mut [f32]) {
        let (count, across) = (logits.len(), head.key_stride);
        let b = head.keys.get(from * across..).unwrap_or(&[]);
        let (a, start) = (&*self.query, Start::Zero);
        Dense { a, depth: a.len(), b, along: 1, across, start }.run(logits, count);
    }

    /// Turns a block of logits into weights, and adds them to the sums.
    #[inline(never)]
    fn weigh(&mut self, from: usize, tile: &mut [f32]) {
        weigh(tile, self.m, self.sums);
        if let Some(dropout) = &self.dropout {
            dropout.apply(from, tile);
        }
    }

    /// Adds the bias and puts −∞ where a key may not be seen, and nowhere else; the largest logit, or
    /// the running maximum where that is larger.
    #[inline(never)]
    fn see(&self, from: usize, logits: &mut [f32]) -> f32 {
        let Inputs { bias, mask, .. } = self.inputs;
        if let Some(bias) = bias {
            let (at, step) = self.bias;
            for (key, logit) in (from..).zip(&mut *logits) {
                *logit = biased(*logit, bias.at(at + key * step).unwrap_or(0.0));
            }
        } else {
            // What has overflowed is not hidden.
            logits.iter_mut().for_each(|l| *l = if *l < f32::MIN { f32::MIN } else { *l });
        }
        if let Some(mask) = mask {
            let (at, step) = self.mask;
            for (key, logit) in (from..).zip(&mut *logits) {
                if mask.hides_at(at + key * step) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        logits.iter().fold(self.m, |top, &logit| if logit > top { logit } else { top })
    }
}

/// Adds weights times values. A key without weight is not read: its value may be anything.
#[inline(never)]
fn mix(head: &Head<'_>, from: usize, weights: &[f32], mixed: &mut [f32]) {
    let mut from = from * head.value_stride;
    for weights in weights.split_inclusive(|&weight| weight == 0.0) {
        let weighted = match weights {
            [weighted @ .., 0.0] => weighted,
            all => all,
        };
        let b = head.values.get(from..).unwrap_or(&[]);
        let (along, start) = (head.value_stride, Start::Keep);
        let columns = mixed.len();
        Dense { a: weighted, depth: weighted.len(), b, along, across: 1, start }
            .run(mixed, columns);
        from += weights.len() * along;
    }
}

#[inline(never)]
pub(super) fn fill(xs: &mut [f32], value: f32) {
    xs.iter_mut().for_each(|x| *x = value);
}

#[inline(never)]
pub(super) fn scale(xs: &mut [f32], factor: f32) {
    xs.iter_mut().for_each(|x| *x *= factor);
}

#[inline(never)]
fn shift(xs: &mut [f32], factor: f32) {
    xs.iter_mut().for_each(|x| softmax::shift_weight(x, factor));
}
