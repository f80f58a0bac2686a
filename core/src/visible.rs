//! What each query of a tile may see: as a range of keys, and key by key inside it.

use core::f32::consts::LN_2;
use core::ops::Range;

use crate::call::Inputs;
use crate::dropout::DropoutRow;
use crate::options::{Options, Rules, Segments};
use crate::softmax::LOG2_E;

/// Which queries of which head a tile holds, and what they may see.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a, R> {
    pub(crate) inputs: &'a Inputs<'a, R>,
    pub(crate) heads: usize,
    pub(crate) batch: usize,
    pub(crate) head: usize,
    /// The key/value head that it reads.
    pub(crate) kv_head: usize,
    pub(crate) q_len: usize,
    /// The tile's first query.
    pub(crate) first: usize,
    pub(crate) kv_len: usize,
    /// Position of the first query where nothing else is said.
    pub(crate) natural: isize,
    /// First and last of the positions that a ring has overwritten.
    pub(crate) gone: (usize, usize),
}

impl<R: Rules> Queries<'_, R> {
    pub(crate) fn options(&self) -> Option<&Options<'_>> {
        self.inputs.rules.options()
    }

    /// The position of a row among the keys.
    pub(crate) fn position(&self, row: usize) -> isize {
        let said = match &self.inputs.causal {
            Some(causal) => Some(causal),
            None => self.options().and_then(|options| options.offset.as_ref()),
        };
        let offset = said.map_or(self.natural, |said| said.offset(self.batch, self.natural));
        offset.saturating_add_unsigned(self.first + row)
    }

    /// The position by which a row is rotated.
    pub(crate) fn rotary_position(&self, options: &Options<'_>, row: usize) -> usize {
        match options.rope.and_then(|rope| rope.q_offset) {
            Some(offset) => offset.saturating_add(self.first + row),
            None => self.position(row).max(0).unsigned_abs(),
        }
    }

    /// The keys that the causal rule, the window and the lengths leave to row `row` of the tile.
    pub(crate) fn visible(&self, row: usize) -> Range<usize> {
        let (mut start, mut end) = (0, self.kv_len);
        if self.inputs.causal.is_some() {
            end = end.min(self.after(row, 0));
        }
        if let Some(options) = self.options() {
            if let Some(left) = options.window.left {
                // The first key is position - left, which is one after position - left - 1.
                let before = self.position(row).saturating_sub_unsigned(left).saturating_sub(1);
                start = before.saturating_add(1).max(0).unsigned_abs();
            }
            if let Some(right) = options.window.right {
                end = end.min(self.after(row, right));
            }
            if let Some(lens) = options.lens {
                end = end.min(lens.get(self.batch).copied().unwrap_or(0));
            }
            if start >= self.gone.0 && start < self.gone.1 {
                start = self.gone.1;
            }
            if end > self.gone.0 && end <= self.gone.1 {
                end = self.gone.0;
            }
        }
        if start < end { start..end } else { 0..0 }
    }

    /// One past the key that lies `right` after a row's position.
    fn after(&self, row: usize, right: usize) -> usize {
        let end = self.position(row).saturating_add_unsigned(right).saturating_add(1);
        end.max(0).unsigned_abs()
    }

    /// The keys that any of the tile's rows may see.
    pub(crate) fn visible_to_any(&self, rows: usize) -> Range<usize> {
        let all = (0..rows).map(|row| self.visible(row)).filter(|keys| !keys.is_empty());
        all.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }

    /// Whether the logits of a tile are the row's as they come from the product: nothing is added to
    /// them, and every row of the tile sees every one of these keys.
    pub(crate) fn leaves_alone(&self, rows: usize, keys: &Range<usize>) -> bool {
        let touched = self.options().is_some_and(|options| {
            let cap_or_slope = options.softcap.is_some() || options.alibi.is_some();
            cap_or_slope || (self.gone.0 < keys.end && keys.start < self.gone.1)
        });
        // Ranges only ever move on from row to row: what the first and the last see, all see.
        let seen_by = |row: usize| {
            let visible = self.visible(row);
            visible.start <= keys.start && keys.end <= visible.end
        };
        !touched && !self.has_holes() && seen_by(0) && seen_by(rows.saturating_sub(1))
    }

    /// Whether single keys inside a row's range may be invisible.
    pub(crate) fn has_holes(&self) -> bool {
        let segments = self.options().is_some_and(|options| options.segments.is_some());
        self.inputs.mask.is_some() || self.inputs.bias.is_some() || segments
    }

    /// The dropout decisions of a row, where there are any.
    pub(crate) fn dropout(&self, row: usize) -> Option<DropoutRow> {
        self.inputs.dropout?.row(self.batch, self.head, self.first + row)
    }

    /// Whether a query and a key are of one document.
    fn together(&self, segments: &Segments<'_>, row: usize, key: usize) -> bool {
        let q = segments.q.get(self.batch * self.q_len + self.first + row);
        q == segments.kv.get(self.batch * self.kv_len + key)
    }

    /// Whether the row may see a key.
    fn sees(&self, row: usize, key: usize) -> bool {
        let query = self.first + row;
        let masked = self.inputs.mask.is_some_and(|mask| {
            let (bytes, step) = mask.row(self.batch, self.head, query);
            bytes.get(key * step).is_some_and(|&byte| mask.hides(byte))
        });
        let excluded = self.inputs.bias.is_some_and(|bias| {
            let (bias, step) = bias.row(self.batch, self.head, query);
            bias.get(key * step) == Some(&f32::NEG_INFINITY)
        });
        let mut apart = false;
        if let Some(options) = self.options() {
            let segments = options.segments.as_ref();
            apart = segments.is_some_and(|segments| !self.together(segments, row, key))
                || (self.gone.0..self.gone.1).contains(&key);
        }
        self.visible(row).contains(&key) && !masked && !excluded && !apart
    }

    /// Visible keys of a row that has none above −∞ have overflowed: they get the lowest logit
    /// there is, so that they share the row. Whether there are any.
    pub(crate) fn raise_overflow(&self, row: usize, from: usize, logits: &mut [f32]) -> bool {
        let mut any = false;
        for (i, logit) in logits.iter_mut().enumerate() {
            if *logit == f32::NEG_INFINITY && self.sees(row, from + i) {
                *logit = f32::MIN;
                any = true;
            }
        }
        any
    }

    /// Caps a row's logits and adds the penalty on distance; logits are in units of log2.
    fn cap_and_slope(&self, options: &Options<'_>, row: usize, from: usize, logits: &mut [f32]) {
        if let Some(cap) = options.softcap {
            logits.iter_mut().for_each(|logit| *logit = capped(*logit * LN_2, cap) * LOG2_E);
        }
        if let Some(alibi) = &options.alibi {
            let slope = alibi.slope(self.head, self.heads) * LOG2_E;
            let position = self.position(row);
            for (i, logit) in logits.iter_mut().enumerate() {
                let distance = position.saturating_sub_unsigned(from + i).unsigned_abs();
                *logit -= slope * distance as f32;
            }
        }
    }

    /// Caps a row's logits, adds the bias, and puts −∞ where the row may not see the key. The first
    /// logit is that of key `from`.
    pub(crate) fn apply(&self, row: usize, from: usize, logits: &mut [f32]) {
        let query = self.first + row;
        if let Some(options) = self.options() {
            self.cap_and_slope(options, row, from, logits);
        }
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
            let (bytes, step) = mask.row(self.batch, self.head, query);
            let bytes = bytes.get(from * step..).unwrap_or(&[]);
            if step == 0 {
                if bytes.first().is_some_and(|&byte| mask.hides(byte)) {
                    logits.fill(f32::NEG_INFINITY);
                }
            } else {
                for (logit, &byte) in logits.iter_mut().zip(bytes) {
                    *logit = if mask.hides(byte) { f32::NEG_INFINITY } else { *logit };
                }
            }
        }
        let visible = self.visible(row);
        hide(logits, from, 0..visible.start);
        hide(logits, from, visible.end..usize::MAX);
        if let Some(options) = self.options() {
            hide(logits, from, self.gone.0..self.gone.1);
            if let Some(segments) = &options.segments {
                for (i, logit) in logits.iter_mut().enumerate() {
                    if !self.together(segments, row, from + i) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// Hides some keys of a row whose first logit is that of key `from`.
fn hide(logits: &mut [f32], from: usize, keys: Range<usize>) {
    let end = keys.end.saturating_sub(from).min(logits.len());
    if let Some(hidden) = logits.get_mut(keys.start.saturating_sub(from)..end) {
        hidden.fill(f32::NEG_INFINITY);
    }
}

/// A logit in natural units under a softcap.
pub(crate) fn capped(logit: f32, cap: f32) -> f32 {
    cap * libm::tanhf(logit / cap)
}

/// A logit plus a bias in natural units. −∞ hides the key whatever its logit; a finite bias never
/// does, however large: a sum that overflows stays the largest float.
#[inline(always)]
pub(crate) fn biased(logit: f32, bias: f32) -> f32 {
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
