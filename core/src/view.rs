//! A cache as attending sees it: what it is but for its slices, and the slices to be read.

use core::ops::Range;

#[cfg(doc)]
use crate::cache::Cache;
use crate::cache::{CacheConfig, CacheState};
use crate::dims::{Attention, MAX_ELEMENTS};
use crate::error::{Argument, Error};
use crate::plan::exact;
use crate::softmax::BLOCK;
use crate::store::{Store, Turn};

/// What a cache is but for its slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) config: CacheConfig,
    pub(crate) attention: Attention,
    pub(crate) state: CacheState,
}

impl Frame {
    /// Checks all of it, and the lengths of the slices.
    pub(crate) fn check(&self, keys: usize, values: usize) -> Result<(), Error> {
        let Self { config, attention, state } = self;
        attention.check()?;
        config.check()?;
        exact(Argument::Cache, keys, config.keys_len(attention))?;
        exact(Argument::Cache, values, config.values_len(attention))?;
        let held = match config.ring {
            // Nothing has ever been overwritten.
            None => state.oldest == 0 && state.len <= config.capacity,
            Some(pinned) => {
                state.oldest >= pinned
                    && state.len.saturating_sub(state.oldest) <= config.capacity - pinned
            }
        };
        if !held || state.len > MAX_ELEMENTS {
            return Err(Error::Range {
                argument: Argument::Cache,
                len: config.capacity,
                end: state.len,
            });
        }
        Ok(())
    }

    /// Checks that attention of these sizes can use it.
    pub(crate) fn check_fits(&self, attention: &Attention) -> Result<(), Error> {
        let widths = |a: &Attention| (a.kv_heads, a.head_qk(), a.head_v());
        if widths(attention) == widths(&self.attention) {
            Ok(())
        } else {
            Err(Error::Value { argument: Argument::Cache })
        }
    }

    /// Where positions are overwritten; 0 for a linear cache.
    pub(crate) const fn pinned(&self) -> usize {
        match self.config.ring {
            Some(pinned) => pinned,
            None => 0,
        }
    }

    /// Positions that have been overwritten.
    pub(crate) fn gone(&self) -> Range<usize> {
        match self.config.ring {
            Some(pinned) => pinned.min(self.state.len)..self.state.oldest.min(self.state.len),
            None => 0..0,
        }
    }

    /// Positions that can still be attended to.
    pub(crate) fn stored(&self) -> usize {
        self.state.len - self.gone().len()
    }

    pub(crate) const fn turn(&self) -> Turn {
        match self.config.ring {
            Some(pinned) => Turn { pinned, len: self.config.capacity - pinned },
            None => Turn::NONE,
        }
    }

    /// Floats of one head's keys.
    pub(crate) const fn keys_of_head(&self) -> usize {
        self.config.capacity.div_ceil(BLOCK) * BLOCK * self.attention.head_qk()
    }

    /// Floats of one head's values.
    pub(crate) const fn values_of_head(&self) -> usize {
        self.config.capacity * self.attention.head_v()
    }

    /// Where one sequence's part of a slice of this length lies.
    pub(crate) fn part(&self, len: usize, batch: usize) -> Range<usize> {
        let each = len.checked_div(self.config.batch).unwrap_or(0);
        batch * each..(batch + 1) * each
    }
}

/// A cache that is only read: what attending needs of one. Copies are cheap, and any number of them
/// can be attended to at the same time, by threads, by layers that share a prefix.
#[derive(Clone, Copy, Debug)]
pub struct CacheView<'c> {
    pub(crate) frame: Frame,
    pub(crate) keys: &'c [f32],
    pub(crate) values: &'c [f32],
}

impl<'c> CacheView<'c> {
    /// A view of saved slices and their state.
    ///
    /// # Errors
    /// Those of [`Cache::resume`].
    pub fn new(
        config: CacheConfig,
        attention: &Attention,
        keys: &'c [f32],
        values: &'c [f32],
        state: CacheState,
    ) -> Result<Self, Error> {
        let frame = Frame { config, attention: *attention, state };
        frame.check(keys.len(), values.len())?;
        Ok(Self { frame, keys, values })
    }

    /// Positions appended so far, less those rolled back; a ring counts on past its capacity.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frame.state.len
    }

    /// Whether nothing has been appended.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How it was built.
    #[must_use]
    pub const fn config(&self) -> &CacheConfig {
        &self.frame.config
    }

    /// Positions that can still be attended to, as [`Cache::stored`].
    #[must_use]
    pub fn stored(&self) -> usize {
        self.frame.stored()
    }

    /// Positions that have been overwritten.
    pub(crate) fn gone(&self) -> Range<usize> {
        self.frame.gone()
    }

    /// Checks that attention of these sizes can use it.
    pub(crate) fn check_fits(&self, attention: &Attention) -> Result<(), Error> {
        self.frame.check_fits(attention)
    }

    /// One sequence's keys and values.
    pub(crate) fn store(&self, batch: usize) -> Store<'c> {
        let Self { frame, keys, values } = *self;
        let attention = &frame.attention;
        Store {
            keys: keys.get(frame.part(keys.len(), batch)).unwrap_or(&[]),
            values: values.get(frame.part(values.len(), batch)).unwrap_or(&[]),
            together: 1,
            key_features: attention.head_qk(),
            value_features: attention.head_v(),
            keys_len: frame.keys_of_head(),
            values_len: frame.values_of_head(),
            first_head: 0,
            turn: frame.turn(),
            kv_len: frame.state.len,
        }
    }
}

/// What can be attended to: a [`Cache`], or a [`CacheView`].
pub trait ReadCache: sealed::Sealed {
    /// It, to be read.
    fn view(&self) -> CacheView<'_>;
}

impl ReadCache for CacheView<'_> {
    fn view(&self) -> CacheView<'_> {
        *self
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for super::CacheView<'_> {}
}
