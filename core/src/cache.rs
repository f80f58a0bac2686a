//! Keys and values that outlive a call: a cache over the caller's two slices.
//!
//! What a head attends to lies side by side: keys in blocks of sixteen positions,
//! `[batch, kv_heads, capacity / 16, qk / heads, 16]`, values position by position,
//! `[batch, kv_heads, capacity, v / heads]`. A cache is linear, and full when it is
//! full, or a ring that overwrites its oldest positions, except for the first few if they are pinned.
//! Positions are absolute in both, so windows, ALiBi and rotation stay right however often a ring has
//! gone round.

use crate::dims::{Attention, MAX_ELEMENTS, Shape};
use crate::error::{Argument, Error};
use crate::options::{Options, Rules};
use crate::plan::exact;
use crate::softmax::BLOCK;
use crate::store::StoreMut;
use crate::transform::{Features, Side, check_key_angles, transform, transforms};
use crate::view::{CacheView, Frame, ReadCache, sealed};

/// How a cache is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Sequences that grow side by side.
    pub batch: usize,
    /// Positions that each can hold.
    pub capacity: usize,
    /// `Some(pinned)` makes it a ring: beyond `capacity` the oldest positions are overwritten, but
    /// never the first `pinned` (attention sinks; Xiao, Tian, Chen, Han, Lewis: *Efficient streaming
    /// language models with attention sinks*, 2024). Both must be multiples of 16 then.
    pub ring: Option<usize>,
}

impl CacheConfig {
    /// A linear cache for one sequence.
    #[must_use]
    pub const fn linear(capacity: usize) -> Self {
        Self { batch: 1, capacity, ring: None }
    }

    /// A ring for one sequence, with nothing pinned.
    #[must_use]
    pub const fn ring(capacity: usize) -> Self {
        Self { batch: 1, capacity, ring: Some(0) }
    }

    /// Replaces the number of sequences.
    #[must_use]
    pub const fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Pins the first positions of a ring.
    #[must_use]
    pub const fn pinned(self, pinned: usize) -> Self {
        Self { ring: Some(pinned), ..self }
    }

    /// Floats of the slice for keys.
    #[must_use]
    pub const fn keys_len(&self, attention: &Attention) -> usize {
        let positions = self.capacity.div_ceil(BLOCK).saturating_mul(BLOCK);
        self.batch.saturating_mul(positions).saturating_mul(attention.key_features())
    }

    /// Floats of the slice for values.
    #[must_use]
    pub const fn values_len(&self, attention: &Attention) -> usize {
        self.batch.saturating_mul(self.capacity).saturating_mul(attention.value_features())
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = Err(Error::Value { argument: Argument::Cache });
        match self.ring {
            Some(pinned)
                if !pinned.is_multiple_of(BLOCK)
                    || !self.capacity.is_multiple_of(BLOCK)
                    || pinned >= self.capacity =>
            {
                wrong
            }
            _ if self.capacity > MAX_ELEMENTS => Err(Error::TooLarge { argument: Argument::Cache }),
            _ => Ok(()),
        }
    }
}

/// What of a cache is not in its slices; save it with them to go on after power was off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// Positions appended so far, less those rolled back.
    pub len: usize,
    /// The first position after the pinned ones that has not been overwritten.
    pub oldest: usize,
}

/// A key/value cache over two slices of the caller's.
///
/// ```
/// use mha::{Cache, CacheConfig, Config, Dims, Inputs, MultiHeadAttention, Outputs, Plain, Shape, Weights};
///
/// const CONFIG: Config = Config::new(Dims::square(8)).heads(2);
/// const STREAM: CacheConfig = CacheConfig::ring(16);
/// let weights = [0.1; CONFIG.weights_len()];
/// let layer = MultiHeadAttention::new(CONFIG, Weights::from_flat(&CONFIG, &weights)?)?;
///
/// let mut keys = [0.0; STREAM.keys_len(&CONFIG.attention)];
/// let mut values = [0.0; STREAM.values_len(&CONFIG.attention)];
/// let mut cache = Cache::new(STREAM, &CONFIG.attention, &mut keys, &mut values)?;
/// let mut scratch = [0.0; CONFIG.cached_scratch_len(1)];
/// let mut y = [0.0; 8];
/// // An endless stream in constant memory.
/// for t in 0..100 {
///     let frame = [t as f32; 8];
///     layer.append(&mut cache, &frame, &frame, Plain)?;
///     layer.attend(&cache, 1, Inputs::query(&frame).causal(), Outputs::new(&mut y), &mut scratch)?;
/// }
/// assert_eq!(cache.len(), 100);
/// # Ok::<(), mha::Error>(())
/// ```
#[derive(Debug)]
pub struct Cache<'c> {
    frame: Frame,
    keys: &'c mut [f32],
    values: &'c mut [f32],
}

impl<'c> Cache<'c> {
    /// An empty cache. What the slices hold does not matter.
    ///
    /// # Errors
    /// [`Error::Length`] naming [`Argument::Cache`] for a slice that is not
    /// [`CacheConfig::keys_len`] or [`CacheConfig::values_len`] long, [`Error::Value`] for a ring
    /// whose capacity or pinned positions are no multiple of 16, and those of [`Attention::check`].
    pub fn new(
        config: CacheConfig,
        attention: &Attention,
        keys: &'c mut [f32],
        values: &'c mut [f32],
    ) -> Result<Self, Error> {
        let state = CacheState { len: 0, oldest: config.ring.unwrap_or(0) };
        Self::resume(config, attention, keys, values, state)
    }

    /// A cache that goes on from saved slices and their state.
    ///
    /// # Errors
    /// Those of [`Cache::new`], and [`Error::Range`] for a state that such a cache cannot have.
    pub fn resume(
        config: CacheConfig,
        attention: &Attention,
        keys: &'c mut [f32],
        values: &'c mut [f32],
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
        self.frame.state.len == 0
    }

    /// How it was built.
    #[must_use]
    pub const fn config(&self) -> &CacheConfig {
        &self.frame.config
    }

    /// What to save beside the slices.
    #[must_use]
    pub const fn state(&self) -> CacheState {
        self.frame.state
    }

    /// Positions that can still be attended to, in the order in which scores list them: the pinned
    /// ones and those from [`CacheState::oldest`] on.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.frame.stored()
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.frame.state = CacheState { len: 0, oldest: self.frame.pinned() };
    }

    /// Forgets the positions from `len` on, as when a speculation failed.
    ///
    /// # Errors
    /// [`Error::Range`] where there are not as many positions, or a ring has overwritten what would
    /// come before.
    pub fn rollback(&mut self, len: usize) -> Result<(), Error> {
        let gone = self.frame.gone();
        let state = &mut self.frame.state;
        let overwritten = !gone.is_empty() && len < state.oldest;
        if len > state.len || overwritten {
            return Err(Error::Range { argument: Argument::Cache, len: state.len, end: len });
        }
        state.len = len;
        Ok(())
    }

    /// Appends keys and values that are projected already: `[batch, n, key features]` and
    /// `[batch, n, value features]`. `rules` is [`Plain`](crate::Plain), or
    /// [`&Options`](crate::Options) where keys are to be normalised or rotated.
    ///
    /// # Errors
    /// [`Error::Length`] naming `k` or `v`, [`Error::CacheFull`], [`Error::Range`] for a position that a
    /// table of angles does not have. Nothing has been written then.
    pub fn append<R: Rules>(&mut self, k: &[f32], v: &[f32], rules: R) -> Result<(), Error> {
        let Frame { config, attention, .. } = self.frame;
        let (features, width) = (attention.key_features(), attention.value_features());
        let (batches, heads) = (config.batch, attention.kv_heads);
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let n = positions(k.len(), batches, features)?;
        exact(Argument::V, v.len(), (batches * n).saturating_mul(width))?;
        check_keys(rules, &attention, batches, n)?;
        check_key_angles(rules, d, self.len(), n)?;
        let first = self.grow(n)?;
        let mut store = self.store_mut();
        for (row, head) in (0..batches * n).flat_map(|row| (0..heads).map(move |head| (row, head)))
        {
            let place = store.place(row, n, first, batches * n);
            let at = store.key_at(place, head, 0);
            let from = row * features + head * d;
            let from = k.get(from..from + d).unwrap_or(&[]);
            let to = store.keys.get_mut(at..).unwrap_or_default();
            to.iter_mut().step_by(BLOCK).zip(from).for_each(|(to, from)| *to = *from);
            if let Some(options) = rules.options().filter(|options| transforms(options)) {
                let position = key_position(options, first, row % n.max(1));
                let mut key = Features { data: to, at: 0, stride: BLOCK, count: d };
                transform(options, Side::Key, position, &mut key);
            }
            let from = row * width + head * d_v;
            let from = v.get(from..from + d_v).unwrap_or(&[]);
            store.values(place, head).iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    /// Makes room for `n` positions and counts them; the first one's position.
    pub(crate) fn grow(&mut self, n: usize) -> Result<usize, Error> {
        let Frame { config: CacheConfig { capacity, ring, .. }, state, .. } = self.frame;
        let (first, needed) = (state.len, state.len.saturating_add(n));
        let turn = capacity - self.frame.pinned();
        let fits = match ring {
            None => needed <= capacity,
            Some(_) => n <= turn && needed <= MAX_ELEMENTS,
        };
        if !fits {
            return Err(Error::CacheFull { capacity, needed });
        }
        // What a linear cache holds, it never overwrites: its oldest stays 0.
        let oldest = state.oldest.max(needed.saturating_sub(turn));
        self.frame.state = CacheState { len: needed, oldest };
        Ok(first)
    }

    /// Checks that attention of these sizes can use it.
    pub(crate) fn check_fits(&self, attention: &Attention) -> Result<(), Error> {
        self.frame.check_fits(attention)
    }

    /// All that it holds, to be filled.
    pub(crate) fn store_mut(&mut self) -> StoreMut<'_> {
        let Self { frame, keys, values } = self;
        StoreMut {
            heads: frame.attention.kv_heads,
            together: 1,
            key_features: frame.attention.head_qk(),
            value_features: frame.attention.head_v(),
            keys_len: frame.keys_of_head(),
            values_len: frame.values_of_head(),
            turn: frame.turn(),
            keys,
            values,
        }
    }
}

impl ReadCache for Cache<'_> {
    fn view(&self) -> CacheView<'_> {
        CacheView { frame: self.frame, keys: self.keys, values: self.values }
    }
}

impl sealed::Sealed for Cache<'_> {}

/// Checks the options that matter to keys on their way into a cache; lengths, segments and the like
/// belong to the attending.
pub(crate) fn check_keys<R: Rules>(
    rules: R,
    attention: &Attention,
    batch: usize,
    n: usize,
) -> Result<(), Error> {
    let Some(options) = rules.options() else { return Ok(()) };
    let options = Options { norm: options.norm, rope: options.rope, ..Options::new() };
    options.check(attention, Shape::new(batch, 0, n))
}

/// The position by which the i-th new key is rotated; the first one stands at `first`.
pub(crate) fn key_position(options: &Options<'_>, first: usize, i: usize) -> usize {
    options.rope.and_then(|rope| rope.k_offset).unwrap_or(first).saturating_add(i)
}

/// How many positions a slice of keys holds.
pub(crate) fn positions(len: usize, batch: usize, width: usize) -> Result<usize, Error> {
    let each = batch.saturating_mul(width);
    match len.checked_div(each) {
        None if len == 0 => Ok(0),
        Some(n) if n.saturating_mul(each) == len => Ok(n),
        n => {
            let needed = n.unwrap_or(0).saturating_add(1).saturating_mul(each);
            Err(Error::Length { argument: Argument::K, needed, got: len })
        }
    }
}
