//! How much scratch the way back takes and how it is carved.
//!
//! It goes through a few sequences at a time, one group of heads after another and, inside it, through
//! blocks of queries. The projected keys and values of the group wait, with their gradients, for all
//! blocks; of a block there are its queries, its mixed values, their gradients, and a tile of scores.

use crate::dims::{Attention, Config, Shape};
use crate::error::{Argument, Error};
use crate::plan::{TileParts, take};
use crate::softmax::BLOCK;

/// Queries of a block where scratch is plentiful: how deep the products are that add to gradients of
/// keys, values and weights.
const QUERIES: usize = if cfg!(target_os = "none") { 8 } else { 128 };

/// The same for the queries of several sequences, which keep few keys and values.
const SHORT_QUERIES: usize = if cfg!(target_os = "none") { 8 } else { 160 };

/// The most queries of a block.
pub(super) const MOST_QUERIES: usize = max(QUERIES, SHORT_QUERIES);

/// Positions of all sequences together whose keys and values are kept, where it is more than one.
const TOGETHER: usize = 512;

/// Keys of a tile of scores where scratch is plentiful.
const KEYS: usize = if cfg!(target_os = "none") { 16 } else { 128 };

/// Features that a group of heads should have together.
const GROUP_FEATURES: usize = if cfg!(target_os = "none") { 16 } else { 128 };

/// The same where there are more than [`LONG`] keys.
const LONG_GROUP_FEATURES: usize = 64;

/// Keys from which on a block's scores are computed again, a tile at a time, instead of being kept.
const LONG: usize = if cfg!(target_os = "none") { 0 } else { 640 };

/// What the scratch of a call depends on.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    kv_heads: usize,
    sharing: usize,
    head_qk: usize,
    head_v: usize,
    shape: Shape,
}

impl Sizes {
    pub(super) const fn new(attention: &Attention, shape: Shape) -> Self {
        Self {
            kv_heads: attention.kv_heads,
            sharing: attention.sharing(),
            head_qk: attention.head_qk(),
            head_v: attention.head_v(),
            shape,
        }
    }

    /// Keys of a sequence, in whole blocks.
    const fn blocks(&self) -> usize {
        self.shape.kv_len.div_ceil(BLOCK).saturating_mul(BLOCK)
    }
}

/// How a call goes through its work, and with that how its scratch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Sequences that are worked on together.
    pub(super) sequences: usize,
    /// Key/value heads that are worked on together.
    pub(super) group: usize,
    /// Queries of a block.
    pub(super) queries: usize,
    /// Keys of a tile, a multiple of the block.
    pub(super) keys: usize,
    /// Whether the scores of a block are kept.
    pub(super) kept: bool,
}

impl Plan {
    /// The plan of full speed.
    pub(super) const fn recommended(sizes: &Sizes) -> Self {
        let Shape { batch, q_len, kv_len } = sizes.shape;
        let wide = max(max(sizes.head_qk, sizes.head_v), 1);
        let features = if kv_len > LONG { LONG_GROUP_FEATURES } else { GROUP_FEATURES };
        let group = max(min(features / wide, sizes.kv_heads), 1);
        let fill = min(SHORT_QUERIES / max(q_len, 1), TOGETHER / max(kv_len, 1));
        let batch = max(batch, 1);
        let together = max(min(fill, batch), 1);
        // As even as they come.
        let together = batch.div_ceil(max(batch.div_ceil(together), 1));
        let queries = if together > 1 {
            q_len.saturating_mul(together)
        } else {
            q_len.div_ceil(max(q_len.div_ceil(QUERIES), 1))
        };
        let keys = min(KEYS, sizes.blocks());
        Self { sequences: together, group, queries, keys, kept: kv_len <= LONG }
    }

    /// The plan of least scratch.
    pub(super) const fn minimum() -> Self {
        Self { sequences: 1, group: 1, queries: 1, keys: BLOCK, kept: false }
    }

    /// Queries of one sequence in a block.
    const fn rows(&self, sizes: &Sizes) -> usize {
        min(self.queries, sizes.shape.q_len)
    }

    /// Floats of a row of scores.
    const fn row(&self, sizes: &Sizes) -> usize {
        if self.kept { max(sizes.shape.kv_len, self.keys) } else { self.keys }
    }

    /// The parts of scratch, in their order.
    const fn lens(&self, sizes: &Sizes) -> [usize; 12] {
        let Sizes { head_qk, head_v, sharing, .. } = *sizes;
        let heads = self.sequences.saturating_mul(self.group);
        let keys = heads.saturating_mul(sizes.shape.kv_len);
        let queries = self.group.saturating_mul(sharing).saturating_mul(self.queries);
        let rows = self.rows(sizes);
        [
            heads.saturating_mul(sizes.blocks()).saturating_mul(head_qk),
            keys.saturating_mul(head_qk),
            keys.saturating_mul(head_qk),
            keys.saturating_mul(head_v),
            keys.saturating_mul(head_v),
            queries.saturating_mul(head_qk),
            queries.saturating_mul(head_qk),
            queries.saturating_mul(head_v),
            queries.saturating_mul(head_v),
            rows.saturating_mul(self.row(sizes)),
            rows.saturating_mul(self.keys),
            rows.saturating_mul(BLOCK + 3),
        ]
    }

    /// Floats of scratch that this plan takes.
    pub(super) const fn len(&self, sizes: &Sizes) -> usize {
        let lens = self.lens(sizes);
        let (mut sum, mut i) = (0usize, 0);
        while i < lens.len() {
            sum = sum.saturating_add(lens[i]);
            i += 1;
        }
        sum
    }

    /// The fastest plan that fits into `available` floats.
    pub(super) fn fit(sizes: &Sizes, available: usize) -> Result<Self, Error> {
        let best = Self::recommended(sizes);
        let q_len = sizes.shape.q_len.max(1);
        let one = Self { sequences: 1, queries: best.queries.min(q_len), ..best };
        let again = Self { kept: false, ..one };
        let single = Self { group: 1, ..again };
        for plan in [best, one, again, single] {
            if plan.len(sizes) <= available {
                return Ok(plan);
            }
        }
        for keys in [single.keys, BLOCK] {
            let mut queries = single.queries;
            while queries > 1 {
                queries = queries.div_ceil(2);
                let plan = Self { queries, keys, ..single };
                if plan.len(sizes) <= available {
                    return Ok(plan);
                }
            }
        }
        let plan = Self::minimum();
        let needed = plan.len(sizes);
        if needed > available {
            return Err(Error::Length { argument: Argument::Scratch, needed, got: available });
        }
        Ok(plan)
    }

    /// Divides `scratch`, which is at least [`Plan::len`] long.
    pub(super) fn carve<'a>(&self, sizes: &Sizes, mut scratch: &'a mut [f32]) -> Parts<'a> {
        let rest = &mut scratch;
        let mut lens = self.lens(sizes).into_iter();
        let mut next = || take(rest, lens.next().unwrap_or(0));
        let (key_blocks, keys, d_keys) = (next(), next(), next());
        let (values, d_values) = (next(), next());
        let (queries, d_queries, mixed, d_mixed) = (next(), next(), next(), next());
        let (scores, d_scores, mut state) = (next(), next(), next());
        let rows = self.rows(sizes);
        let tile = TileParts {
            logits: &mut [],
            sums: take(&mut state, rows * BLOCK).as_chunks_mut().0,
            maxima: take(&mut state, rows),
            tops: take(&mut state, rows),
        };
        let tile = Tile { scores, d_scores, deltas: state, state: tile };
        Parts {
            key_blocks,
            keys,
            d_keys,
            values,
            d_values,
            queries,
            d_queries,
            mixed,
            d_mixed,
            tile,
        }
    }
}

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Scratch, divided. `kv_len` is over all sequences that are worked on together, one after another.
pub(super) struct Parts<'a> {
    /// Keys as the way forward wants them, `[sequences, kv_len / 16, group · d, 16]`.
    pub(super) key_blocks: &'a mut [f32],
    /// The same, `[kv_len, group · d]`.
    pub(super) keys: &'a mut [f32],
    /// Their gradients.
    pub(super) d_keys: &'a mut [f32],
    /// `[kv_len, group · d_v]`.
    pub(super) values: &'a mut [f32],
    /// Their gradients.
    pub(super) d_values: &'a mut [f32],
    /// Scaled queries of a block, `[queries, group · d]`.
    pub(super) queries: &'a mut [f32],
    /// Their gradients.
    pub(super) d_queries: &'a mut [f32],
    /// Mixed values of a block, `[queries, group · d_v]`.
    pub(super) mixed: &'a mut [f32],
    /// Their gradients.
    pub(super) d_mixed: &'a mut [f32],
    /// What one sequence's part of a block needs for one head.
    pub(super) tile: Tile<'a>,
}

/// The part of scratch that holds scores, their gradients, and the state of their rows.
pub(super) struct Tile<'a> {
    /// `[rows, kv_len]` where the scores of a block are kept, otherwise `[rows, keys]`.
    pub(super) scores: &'a mut [f32],
    /// `[rows, keys]`.
    pub(super) d_scores: &'a mut [f32],
    /// Of each row, the sum of its scores times their gradients.
    pub(super) deltas: &'a mut [f32],
    /// What the way forward needs, but its logits.
    pub(super) state: TileParts<'a>,
}

impl Config {
    /// Floats of scratch for full speed on the way back of a call of this shape. A longer slice is no
    /// faster; a shorter one works down to [`Config::min_backward_scratch_len`].
    #[must_use]
    pub const fn backward_scratch_len(&self, shape: Shape) -> usize {
        self.attention.backward_scratch_len(shape)
    }

    /// The least floats of scratch that the way back of a call of this shape needs: those of the keys and
    /// values of one head and their gradients, and a few rows.
    #[must_use]
    pub const fn min_backward_scratch_len(&self, shape: Shape) -> usize {
        self.attention.min_backward_scratch_len(shape)
    }
}

impl Attention {
    /// Floats of scratch for full speed on the way back of a call of this shape. A longer slice is no
    /// faster; a shorter one works down to [`Attention::min_backward_scratch_len`].
    #[must_use]
    pub const fn backward_scratch_len(&self, shape: Shape) -> usize {
        let sizes = Sizes::new(self, shape);
        Plan::recommended(&sizes).len(&sizes)
    }

    /// The least floats of scratch that the way back of a call of this shape needs.
    #[must_use]
    pub const fn min_backward_scratch_len(&self, shape: Shape) -> usize {
        Plan::minimum().len(&Sizes::new(self, shape))
    }
}
