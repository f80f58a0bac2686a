//! Where projected keys and values lie: in scratch or in a cache, in one run or going round.
//!
//! Heads lie in parts: in scratch those of a group together, so that they are computed together; in a
//! cache each by itself, so that what a head attends to lies side by side. Keys lie in blocks of
//! sixteen positions, values position by position.

use crate::kernel::Columns;
use crate::softmax::BLOCK;

/// How positions go round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Positions that stay where they are.
    pub(crate) pinned: usize,
    /// Positions of one turn; 0 where positions do not go round.
    pub(crate) len: usize,
}

impl Turn {
    pub(crate) const NONE: Self = Self { pinned: 0, len: 0 };

    /// Where a position lies.
    pub(crate) fn slot(self, position: usize) -> usize {
        match position.checked_sub(self.pinned).and_then(|p| p.checked_rem(self.len)) {
            Some(place) => self.pinned + place,
            None => position,
        }
    }

    /// Positions from this one on that lie one after another.
    pub(crate) fn run(self, position: usize) -> usize {
        if self.len == 0 {
            usize::MAX
        } else if position < self.pinned {
            self.pinned - position
        } else {
            self.pinned + self.len - self.slot(position)
        }
    }
}

/// Keys and values of some sequences, to be filled.
pub(crate) struct StoreMut<'a> {
    /// `[sequences, parts, positions / 16, key_features, 16]`.
    pub(crate) keys: &'a mut [f32],
    /// `[sequences, parts, positions, value_features]`.
    pub(crate) values: &'a mut [f32],
    /// Key/value heads of a sequence.
    pub(crate) heads: usize,
    /// Those of a part.
    pub(crate) together: usize,
    /// Features of a part.
    pub(crate) key_features: usize,
    pub(crate) value_features: usize,
    /// Floats of a part's keys.
    pub(crate) keys_len: usize,
    /// Floats of a part's values.
    pub(crate) values_len: usize,
    pub(crate) turn: Turn,
}

/// A new position's place.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) sequence: usize,
    pub(crate) slot: usize,
    /// New positions from here on whose values lie one after another.
    pub(crate) run: usize,
}

impl StoreMut<'_> {
    /// Where row `i` of new positions goes, of which each sequence has `n`, from `first` on.
    pub(crate) fn place(&self, i: usize, n: usize, first: usize, rows: usize) -> Place {
        let (sequence, index) = (i / n.max(1), i % n.max(1));
        let slot = self.turn.slot(first + index);
        let alone = self.together == self.heads;
        let dense = alone && slot == index && self.values_len == n * self.value_features;
        let left = if dense { rows - i } else { n - index };
        Place { sequence, slot, run: left.min(self.turn.run(first + index)) }
    }

    /// Which part of all a sequence's part is.
    fn part(&self, sequence: usize, part: usize) -> usize {
        sequence * (self.heads / self.together.max(1)) + part
    }

    /// Where a part's values for a place lie.
    pub(crate) fn value_at(&self, place: Place, part: usize) -> usize {
        self.part(place.sequence, part) * self.values_len + place.slot * self.value_features
    }

    /// A part's values from a place on.
    pub(crate) fn values(&mut self, place: Place, part: usize) -> &mut [f32] {
        let at = self.value_at(place, part);
        self.values.get_mut(at..).unwrap_or_default()
    }

    /// Where a feature of a part's key for a place lies; the next feature lies sixteen floats on.
    pub(crate) fn key_at(&self, place: Place, part: usize, feature: usize) -> usize {
        let (block, inside) = (place.slot / BLOCK, place.slot % BLOCK);
        let part = self.part(place.sequence, part) * self.keys_len;
        part + (block * self.key_features + feature) * BLOCK + inside
    }
}

/// Keys and values of one sequence: some or all of its heads.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a> {
    /// `[parts, positions / 16, key_features, 16]`.
    pub(crate) keys: &'a [f32],
    /// `[parts, positions, value_features]`.
    pub(crate) values: &'a [f32],
    /// Key/value heads of a part.
    pub(crate) together: usize,
    /// Features of a part.
    pub(crate) key_features: usize,
    pub(crate) value_features: usize,
    /// Floats of a part's keys.
    pub(crate) keys_len: usize,
    /// Floats of a part's values.
    pub(crate) values_len: usize,
    /// The key/value head that comes first.
    pub(crate) first_head: usize,
    pub(crate) turn: Turn,
    pub(crate) kv_len: usize,
}

impl<'a> Store<'a> {
    /// One key/value head.
    pub(crate) fn head(&self, kv_head: usize, d: usize, d_v: usize) -> Head<'a> {
        let head = kv_head - self.first_head;
        let together = self.together.max(1);
        let (part, inside) = (head / together, head % together);
        let keys = self.keys.get(part * self.keys_len + inside * d * BLOCK..).unwrap_or(&[]);
        let values = self.values.get(part * self.values_len + inside * d_v..).unwrap_or(&[]);
        Head {
            keys: Columns {
                data: keys,
                rows: d,
                columns: self.kv_len,
                row_stride: BLOCK,
                block_stride: self.key_features * BLOCK,
                column_stride: 1,
            },
            values: Columns::strided(values, self.kv_len, d_v, self.value_features, 1),
            turn: self.turn,
        }
    }
}

/// Projected keys and values of one head.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// `[d, kv_len]`.
    pub(crate) keys: Columns<'a>,
    /// `[kv_len, d_v]`.
    pub(crate) values: Columns<'a>,
    /// How positions go round in memory, if they do.
    pub(crate) turn: Turn,
}

impl<'a> Head<'a> {
    /// The keys `from .. from + count`, `from` a multiple of the block, in one run.
    pub(crate) fn keys(&self, from: usize, count: usize) -> Columns<'a> {
        let block = self.turn.slot(from) / BLOCK;
        let data = self.keys.data.get(block * self.keys.block_stride..).unwrap_or(&[]);
        Columns { data, columns: count, ..self.keys }
    }

    /// The values `from .. from + count`, in one run.
    pub(crate) fn values(&self, from: usize, count: usize) -> Columns<'a> {
        let row = self.turn.slot(from);
        let data = self.values.data.get(row * self.values.row_stride..).unwrap_or(&[]);
        Columns { data, rows: count, ..self.values }
    }
}
