//! How much scratch a call takes and how it is carved: one formula for the `const fn` that sizes a
//! static array and for the call that uses it, so the two cannot disagree.
//!
//! A layer works through a few sequences at a time, one group of heads after another and, inside it,
//! through blocks of queries. Scratch holds the group's projected keys and values and one block's
//! queries and mixed values, and a tile of logits: nothing that grows with `q_len · kv_len`.

use crate::dims::{Attention, Config, MAX_ELEMENTS, Shape};
use crate::error::{Argument, Error};
use crate::softmax::BLOCK;

/// Whether the least code and memory are wanted, a query and a head at a time.
pub(crate) const SMALL: bool = cfg!(feature = "size");

/// Whether plain calls take the [driver of little code](crate::compact). Fused vectors sum in another way, and
/// larger machines have memory for the faster one.
pub(crate) const COMPACT: bool = SMALL
    || cfg!(all(
        target_os = "none",
        any(target_arch = "arm", all(target_arch = "riscv32", not(target_feature = "f"))),
        not(feature = "helium")
    ));

/// Queries of its tiles where scratch is plentiful: two tiles of the kernel's.
pub(crate) const COMPACT_ROWS: usize = if SMALL { 1 } else { 8 };

/// Keys of its tiles where scratch is plentiful; a multiple of the block. Where floats are soft there is little
/// to win.
pub(crate) const COMPACT_KEYS: usize =
    if SMALL || cfg!(all(target_os = "none", not(target_abi = "eabihf"))) { BLOCK } else { 64 };

/// Queries that are projected together where scratch is plentiful. Bare-metal targets, whose tiles
/// are small, run at full speed with a few.
pub(crate) const QUERIES: usize = if cfg!(target_os = "none") { 8 } else { 96 };

/// The same where they are those of several sequences, which keep few keys and values: every block
/// goes over all weights, and the larger ones come from far away.
const SHORT_QUERIES: usize = if cfg!(target_os = "none") { 8 } else { 160 };

/// Positions of all sequences together whose keys and values are kept, where it is more than one.
const TOGETHER: usize = 512;

/// Rows of a tile of logits where scratch is plentiful.
pub(crate) const ROWS: usize = if cfg!(target_os = "none") { 8 } else { 48 };

/// Keys of a tile of logits where scratch is plentiful; a multiple of the block.
pub(crate) const KEYS: usize = if cfg!(target_os = "none") { 64 } else { 128 };

/// The same for one query a sequence, which reads keys and values but once: the fewer turns between
/// them the better for memory.
const STEP_KEYS: usize = if cfg!(target_os = "none") { 64 } else { 1024 };

/// Features that a group of heads should have together, so that a product fills its registers and
/// the output is not gone over too often.
const GROUP_FEATURES: usize = if cfg!(target_os = "none") { 64 } else { 128 };

/// The same where more than [`LONG`] positions are kept, whose keys and values would fill memory.
const LONG_GROUP_FEATURES: usize = 64;

/// Positions that count as many.
const LONG: usize = 1024;

/// Whether the mixed values of several groups of heads wait in `y`, where they fit, and are projected
/// once: otherwise every group goes over `y`, which costs more than it seems where memory is slow.
const GATHER: bool = !cfg!(target_os = "none");

/// Floats that a row of a tile needs beside its logits: sixteen partial sums, the running maximum,
/// and the next one.
const STATE: usize = BLOCK + 2;

/// What the scratch of a call depends on.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Key/value heads that can be worked on together: all, or 1.
    kv_heads: usize,
    /// Query heads to each of them.
    sharing: usize,
    head_qk: usize,
    head_v: usize,
    q_len: usize,
    /// Positions of a sequence whose keys and values are projected into scratch; 0 where they lie
    /// elsewhere.
    kept: usize,
    /// Sequences that can be worked on together.
    batch: usize,
}

impl Sizes {
    /// A layer that projects everything.
    pub(crate) const fn of_layer(config: &Config, shape: Shape) -> Self {
        let batch = if shape.batch == 0 { 1 } else { shape.batch };
        Self { kept: shape.kv_len, batch, ..Self::of_cached(config, shape.q_len) }
    }

    /// A layer whose keys and values lie in a cache.
    pub(crate) const fn of_cached(config: &Config, q_len: usize) -> Self {
        let attention = &config.attention;
        Self {
            kv_heads: attention.kv_heads,
            sharing: attention.sharing(),
            ..Self::of_attention(attention, q_len)
        }
    }

    /// Attention alone, a query head at a time.
    pub(crate) const fn of_attention(attention: &Attention, q_len: usize) -> Self {
        Self {
            kv_heads: 1,
            sharing: 1,
            head_qk: attention.head_qk(),
            head_v: attention.head_v(),
            q_len,
            kept: 0,
            batch: 1,
        }
    }

    /// Floats of the projected keys of one head of a sequence: whole blocks of sixteen positions.
    pub(crate) const fn keys_len(&self) -> usize {
        self.kept.div_ceil(BLOCK).saturating_mul(BLOCK).saturating_mul(self.head_qk)
    }

    /// Whether the scratch of full speed could not be addressed.
    pub(crate) const fn overflow(&self) -> bool {
        Plan::recommended(self).len(self) > MAX_ELEMENTS
    }

    /// Floats of the projected values of one head of a sequence.
    pub(crate) const fn values_len(&self) -> usize {
        self.kept.saturating_mul(self.head_v)
    }
}

/// How a call goes through its work, and with that how its scratch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Sequences that are worked on together.
    pub(crate) sequences: usize,
    /// Key/value heads that are worked on together.
    pub(crate) group: usize,
    /// Key/value heads whose mixed values go into the output projection together: those of a group, or
    /// all, which wait in `y` for the last group.
    pub(crate) gathered: usize,
    /// Queries that are projected together.
    pub(crate) queries: usize,
    /// Rows of a tile of logits.
    pub(crate) rows: usize,
    /// Keys of a tile of logits, a multiple of the block.
    pub(crate) keys: usize,
}

impl Plan {
    /// The plan of full speed.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    pub(crate) const fn recommended(sizes: &Sizes) -> Self {
        if SMALL {
            return Self::minimum();
        }
        let wide = if sizes.head_qk > sizes.head_v { sizes.head_qk } else { sizes.head_v };
        let wide = if wide == 0 { 1 } else { wide };
        let features = if sizes.kept > LONG { LONG_GROUP_FEATURES } else { GROUP_FEATURES };
        let fill = features / wide;
        let group = if fill < 1 {
            1
        } else if fill > sizes.kv_heads {
            sizes.kv_heads
        } else {
            fill
        };
        // Short sequences share a block of queries, so that weights are gone over once for many.
        let short = if sizes.q_len == 0 { 1 } else { sizes.q_len };
        let kept = if sizes.kept == 0 { 1 } else { sizes.kept };
        let fill = if SHORT_QUERIES / short < TOGETHER / kept {
            SHORT_QUERIES / short
        } else {
            TOGETHER / kept
        };
        let together = if fill < sizes.batch { fill } else { sizes.batch };
        let sequences = if together < 1 { 1 } else { together };
        let most = if sequences > 1 { SHORT_QUERIES } else { QUERIES };
        let queries = sizes.q_len.saturating_mul(sequences);
        Self {
            sequences,
            group,
            gathered: if GATHER && sizes.kept > 0 { sizes.kv_heads } else { group },
            queries: if queries < most { queries } else { most },
            rows: if sizes.q_len < ROWS { sizes.q_len } else { ROWS },
            keys: if sizes.q_len == 1 { STEP_KEYS } else { KEYS },
        }
    }

    /// The plan of least scratch.
    pub(crate) const fn minimum() -> Self {
        Self { sequences: 1, group: 1, gathered: 1, queries: 1, rows: 1, keys: BLOCK }
    }

    /// Floats of scratch that this plan takes.
    #[cfg_attr(any(target_os = "none", target_arch = "wasm32"), inline(never))]
    pub(crate) const fn len(&self, sizes: &Sizes) -> usize {
        let kept = sizes.keys_len().saturating_add(sizes.values_len());
        let kept = kept.saturating_mul(self.sequences).saturating_mul(self.group);
        let queries = self.group.saturating_mul(sizes.head_qk);
        let row = queries.saturating_add(self.gathered.saturating_mul(sizes.head_v));
        let block = self.queries.saturating_mul(sizes.sharing).saturating_mul(row);
        let tile = self.rows.saturating_mul(self.keys + STATE);
        kept.saturating_add(block).saturating_add(tile)
    }

    /// The fastest plan that fits into `available` floats.
    pub(crate) fn fit(sizes: &Sizes, available: usize) -> Result<Self, Error> {
        let best = Self::recommended(sizes);
        if SMALL {
            let needed = best.len(sizes);
            let wrong = Error::Length { argument: Argument::Scratch, needed, got: available };
            return if needed > available { Err(wrong) } else { Ok(best) };
        }
        let queries = if QUERIES < sizes.q_len { QUERIES } else { sizes.q_len };
        let one = Self { sequences: 1, queries, ..best };
        let apart = Self { gathered: one.group, ..one };
        for plan in [best, one, apart, Self { keys: KEYS, ..apart }] {
            if plan.len(sizes) <= available {
                return Ok(plan);
            }
        }
        let single = Self { group: 1, gathered: 1, ..apart };
        for candidate in [apart, single, Self { keys: BLOCK, ..single }] {
            // Four rows fill the smallest machine's tile.
            let mut rows = candidate.rows;
            while rows >= 4 {
                let plan = Self { rows, queries: rows, ..candidate };
                if plan.len(sizes) <= available {
                    return Ok(plan);
                }
                rows -= 4;
            }
        }
        let mut plan = Self::minimum();
        let needed = plan.len(sizes);
        if needed > available {
            return Err(Error::Length { argument: Argument::Scratch, needed, got: available });
        }
        for rows in [2, 3] {
            let more = Self { rows, queries: rows, ..plan };
            if more.len(sizes) <= available {
                plan = more;
            }
        }
        Ok(plan)
    }

    /// Divides `scratch`, which is at least [`Plan::len`] long.
    pub(crate) fn carve<'a>(&self, sizes: &Sizes, mut scratch: &'a mut [f32]) -> Parts<'a> {
        let rest = &mut scratch;
        let keys = take(rest, self.sequences * self.group * sizes.keys_len());
        let values = take(rest, self.sequences * self.group * sizes.values_len());
        let queries = take(rest, self.group * sizes.sharing * self.queries * sizes.head_qk);
        let mixed = take(rest, self.gathered * sizes.sharing * self.queries * sizes.head_v);
        let tile = TileParts {
            logits: take(rest, self.rows * self.keys),
            sums: take(rest, self.rows * BLOCK).as_chunks_mut().0,
            maxima: take(rest, self.rows),
            tops: take(rest, self.rows),
        };
        Parts { keys, values, queries, mixed, tile }
    }
}

/// Scratch, divided.
pub(crate) struct Parts<'a> {
    /// Projected keys of the group, `[sequences, kv_len / 16, group · d, 16]`.
    pub(crate) keys: &'a mut [f32],
    /// Projected values of the group, `[sequences, kv_len, group · d_v]`.
    pub(crate) values: &'a mut [f32],
    /// Projected queries of a block, `[queries, group · d]`.
    pub(crate) queries: &'a mut [f32],
    /// Mixed values of a block, `[queries, gathered · d_v]`.
    pub(crate) mixed: &'a mut [f32],
    /// What one tile of logits needs.
    pub(crate) tile: TileParts<'a>,
}

/// The part of scratch that holds a tile of logits and the state of its rows.
pub(crate) struct TileParts<'a> {
    /// `[rows, keys]`.
    pub(crate) logits: &'a mut [f32],
    /// Sixteen partial sums a row.
    pub(crate) sums: &'a mut [[f32; BLOCK]],
    /// Running maximum of each row.
    pub(crate) maxima: &'a mut [f32],
    /// Largest logit of each row in this tile.
    pub(crate) tops: &'a mut [f32],
}

/// Cuts the first `len` elements off; none where there are not as many.
#[cfg_attr(any(feature = "size", target_os = "none"), inline(never))]
pub(crate) fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (part, left) = core::mem::take(rest).split_at_mut_checked(len).unwrap_or_default();
    *rest = left;
    part
}

impl Config {
    /// Floats of scratch for full speed on a call of this shape. A longer slice is no faster; a
    /// shorter one works down to [`Config::min_scratch_len`], with the same bits.
    #[must_use]
    pub const fn scratch_len(&self, shape: Shape) -> usize {
        let sizes = Sizes::of_layer(self, shape);
        Plan::recommended(&sizes).len(&sizes)
    }

    /// The least floats of scratch that a call of this shape needs.
    #[must_use]
    pub const fn min_scratch_len(&self, shape: Shape) -> usize {
        Plan::minimum().len(&Sizes::of_layer(self, shape))
    }

    /// Floats of scratch for full speed when `q_len` queries a sequence attend over a cache,
    /// whatever it holds.
    #[must_use]
    pub const fn cached_scratch_len(&self, q_len: usize) -> usize {
        let sizes = Sizes::of_cached(self, q_len);
        Plan::recommended(&sizes).len(&sizes)
    }

    /// The least floats of scratch that attending over a cache needs.
    #[must_use]
    pub const fn min_cached_scratch_len(&self) -> usize {
        Plan::minimum().len(&Sizes::of_cached(self, 1))
    }
}

impl Attention {
    /// Floats of scratch for full speed on a call of this shape. A longer slice is no faster; a
    /// shorter one works down to [`Attention::min_scratch_len`], with the same bits.
    #[must_use]
    pub const fn scratch_len(&self, shape: Shape) -> usize {
        let sizes = Sizes::of_attention(self, shape.q_len);
        Plan::recommended(&sizes).len(&sizes)
    }

    /// The least floats of scratch that a call needs, whatever its shape.
    #[must_use]
    pub const fn min_scratch_len(&self) -> usize {
        Plan::minimum().len(&Sizes::of_attention(self, 1))
    }
}

/// Checks one slice against the length that the call needs.
#[cfg_attr(any(feature = "size", target_os = "none"), inline(never))]
pub(crate) fn exact(argument: Argument, got: usize, needed: usize) -> Result<(), Error> {
    if needed > MAX_ELEMENTS {
        Err(Error::TooLarge { argument })
    } else if got != needed {
        Err(Error::Length { argument, needed, got })
    } else {
        Ok(())
    }
}
