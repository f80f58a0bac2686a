//! Keys and values that outlive a call: a struct over the caller's two arrays.

use mha::{Cache, CacheConfig, CacheState, CacheView};

use crate::buffer::{Buffer, Written};
use crate::convert::{Given, read};
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};
use crate::types::{mha_attention, mha_slice, mha_slice_mut};

/// How a cache is built.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_cache_config {
    /// Sequences that grow side by side. Zero: 1.
    pub batch: usize,
    /// Positions that each can hold. RAM: `MHA_CACHE_KEYS_LEN` and `MHA_CACHE_VALUES_LEN` floats.
    pub capacity: usize,
    /// For a ring: the first positions, which are never overwritten (attention sinks). A multiple of
    /// 16, less than `capacity`. Zero: none.
    pub pinned: usize,
    /// Zero: the cache is full when it is full. Nonzero: it is a ring that overwrites its oldest
    /// positions, and `capacity` is a multiple of 16. Positions count on, so windows, ALiBi and
    /// rotation stay right however often it has gone round.
    pub ring: u32,
}

/// What of a cache changes beside its arrays. Zero: it is empty.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_cache_state {
    /// Positions appended so far, less those rolled back; a ring counts on past its capacity.
    pub len: usize,
    /// The first position after the pinned ones that has not been overwritten.
    pub oldest: usize,
}

/// Keys and values between calls. The caller owns the struct and both arrays: they can be static,
/// and lie in different memories. A struct whose `state` is zero is an empty cache; what the arrays
/// hold then does not matter.
///
/// To go on after power was off, save `state` and both arrays with `memcpy`, and copy them back. A
/// struct that makes no sense, because a copy went wrong, is an error of every function that takes
/// one, as long as its two pointers are good for their lengths.
///
/// Functions that append, reset or roll back need the cache for themselves; any number of calls may
/// attend over one at the same time, in interrupts too, while nobody changes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_cache {
    /// Heads and widths of what it holds: those of the layer. `scale` does not matter.
    pub attention: mha_attention,
    /// How it is built.
    pub config: mha_cache_config,
    /// Room for keys: `mha_cache_keys_len` floats.
    pub keys: mha_slice_mut,
    /// Room for values: `mha_cache_values_len` floats.
    pub values: mha_slice_mut,
    /// What changes. Set by the functions.
    pub state: mha_cache_state,
}

impl mha_cache_config {
    /// The crate's configuration, unchecked but for what it cannot say.
    fn get(&self) -> Result<CacheConfig, Fault> {
        if self.ring == 0 && self.pinned != 0 {
            return Err(Fault::new(K::Value, A::Cache));
        }
        Ok(self.sizes())
    }

    /// The crate's configuration as far as sizes depend on it.
    pub(crate) fn sizes(&self) -> CacheConfig {
        CacheConfig {
            batch: self.batch.max(1),
            capacity: self.capacity,
            ring: (self.ring != 0).then_some(self.pinned),
        }
    }
}

impl mha_cache {
    /// The crate's state: zero stands for a new one.
    fn state(&self, config: &CacheConfig) -> CacheState {
        let mha_cache_state { len, oldest } = self.state;
        if len == 0 { empty(config) } else { CacheState { len, oldest } }
    }

    /// The cache to be read, apart from what the call writes.
    ///
    /// # Safety
    /// Arrays whose pointers pass the checks are as long as they say, and nobody writes them during
    /// `'a`.
    pub(crate) unsafe fn view<'a>(&self, written: &Written) -> Result<CacheView<'a>, Fault> {
        let config = self.config.get()?;
        // SAFETY: the caller's promise.
        let slice =
            |s: &mha_slice_mut| unsafe { written.read(s.data.cast_const(), s.len, A::Cache) };
        let (keys, values) = (slice(&self.keys)?, slice(&self.values)?);
        let state = self.state(&config);
        Ok(CacheView::new(config, &self.attention.get(), keys, values, state)?)
    }
}

/// The state of a cache that holds nothing.
fn empty(config: &CacheConfig) -> CacheState {
    CacheState { len: 0, oldest: config.ring.unwrap_or(0) }
}

/// A cache that a call changes: all of it lies apart from what the call reads.
pub(crate) struct Changed {
    cache: mha_cache,
    at: *mut mha_cache,
    keys: Buffer<f32>,
    values: Buffer<f32>,
    pub(crate) written: Written,
}

impl Changed {
    /// Checks the struct's pointers.
    ///
    /// # Safety
    /// If the pointer is neither null nor misaligned, the struct is there, to be read and written by
    /// nobody else.
    pub(crate) unsafe fn new(cache: *mut mha_cache) -> Result<Self, Fault> {
        // SAFETY: the caller's promise; it is copied, so no reference outlives this line.
        let copy = unsafe { *read(cache, A::Cache)? };
        let (keys, values) = (copy.keys.buffer(A::Cache)?, copy.values.buffer(A::Cache)?);
        let mut written = Written::NOTHING;
        written.add(&Buffer::new(cache, 1, A::Cache)?, A::Cache)?;
        written.add(&keys, A::Cache)?;
        written.add(&values, A::Cache)?;
        Ok(Self { cache: copy, at: cache, keys, values, written })
    }

    /// Changes the crate's cache and, if that succeeds, the struct.
    ///
    /// # Safety
    /// The arrays are as long as they say, and nobody else touches them or the struct meanwhile.
    pub(crate) unsafe fn change(
        self,
        with: impl FnOnce(&mut Cache<'_>) -> Result<(), mha::Error>,
    ) -> Result<(), Fault> {
        let config = self.cache.config.get()?;
        let (attention, state) = (self.cache.attention.get(), self.cache.state(&config));
        // SAFETY: the caller's promise.
        let (keys, values) = unsafe { (self.keys.slice_mut(), self.values.slice_mut()) };
        let mut cache = Cache::resume(config, &attention, keys, values, state)?;
        with(&mut cache)?;
        let CacheState { len, oldest } = cache.state();
        // SAFETY: the struct is there, to be written, by the same promise.
        unsafe { (&raw mut (*self.at).state).write(mha_cache_state { len, oldest }) };
        Ok(())
    }
}

/// Checks a cache: its attention, its configuration, both arrays against them, and its state.
///
/// @param cache read during the call only; the arrays are not looked at.
///
/// Safe to call from anywhere, interrupts included, while nobody changes the cache.
///
/// @return MHA_OK; NULL or MISALIGNED (cache); what `mha_attention_check` returns; VALUE (cache) for
/// a ring whose capacity or pinned positions are no multiple of 16, or pinned positions without a
/// ring; LENGTH or TOO_LARGE (cache) for an array of another length; RANGE (cache) for a state that
/// such a cache cannot have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_check(cache: *const mha_cache) -> mha_status {
    let check = || {
        // SAFETY: this function's contract: a pointer that is not null points to a struct, whose
        // arrays are as long as they say.
        unsafe { read(cache, A::Cache)?.view(&Written::NOTHING)? };
        Ok(())
    };
    status(check())
}

/// Positions of each sequence that can still be attended to: the last axis of the scores. For a ring
/// that has gone round, the pinned ones and those from `state.oldest` on, in that order; otherwise
/// `state.len`.
///
/// @param cache read during the call only.
///
/// Safe to call from anywhere, interrupts included, while nobody changes the cache.
///
/// @return the count; SIZE_MAX for what `mha_cache_check` refuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_stored(cache: *const mha_cache) -> usize {
    // SAFETY: this function's contract: a pointer that is not null points to a struct, whose arrays
    // are as long as they say.
    let view = unsafe { read(cache, A::Cache).and_then(|cache| cache.view(&Written::NOTHING)) };
    view.map_or(usize::MAX, |view| view.stored())
}

/// Forgets everything that a cache holds, whatever its state says. The arrays stay as they are.
///
/// @param cache its state is set.
///
/// Safe to call from anywhere, interrupts included, while nobody else uses the cache.
///
/// @return what `mha_cache_check` returns, but for RANGE; OVERLAP (cache) for arrays that overlap
/// each other or the struct. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_reset(cache: *mut mha_cache) -> mha_status {
    let reset = || {
        // SAFETY: this function's contract: a pointer that is not null points to a struct that nobody
        // else uses, whose arrays are as long as they say.
        unsafe {
            let mut changed = Changed::new(cache)?;
            changed.cache.state.len = 0;
            changed.change(|cache| {
                cache.reset();
                Ok(())
            })
        }
    };
    status(reset())
}

/// Forgets the positions of a cache from `len` on, as when a speculation failed.
///
/// @param cache its state is set.
/// @param len how many positions are to stay.
///
/// Safe to call from anywhere, interrupts included, while nobody else uses the cache.
///
/// @return MHA_OK; what `mha_cache_check` returns; OVERLAP (cache) as in `mha_cache_reset`; RANGE
/// (cache) where there are not as many positions, or a ring has overwritten what would come before.
/// Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_rollback(cache: *mut mha_cache, len: usize) -> mha_status {
    // SAFETY: this function's contract: a pointer that is not null points to a struct that nobody
    // else uses, whose arrays are as long as they say.
    let rollback = || unsafe { Changed::new(cache)?.change(|cache| cache.rollback(len)) };
    status(rollback())
}

/// Appends keys and values that are projected already.
///
/// @param cache its arrays and state are written.
/// @param k keys, `[batch][n][kv_heads * qk / heads]`; n follows from the length. They may overlap
/// nothing of the cache, like everything else that is read.
/// @param k_len how many floats there are.
/// @param v values, `[batch][n][kv_heads * v / heads]`. NULL, and `v_len` zero: the keys.
/// @param v_len how many floats there are.
/// @param options norm and rope, which change the keys on their way into the cache; the other
/// options belong to the attending and are not looked at. NULL: none.
///
/// Nothing else is read or written. Safe to call in interrupts, while nobody else uses the cache.
///
/// @return MHA_OK; what `mha_cache_check` returns; NULL or MISALIGNED (any buffer), LENGTH or
/// TOO_LARGE (any buffer), CACHE_FULL (cache), VALUE (rope, norm), MISALIGNED (options), OVERLAP
/// (cache). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_append(
    cache: *mut mha_cache,
    k: *const f32,
    k_len: usize,
    v: *const f32,
    v_len: usize,
    options: *const crate::options::mha_options,
) -> mha_status {
    let append = || {
        // SAFETY: this function's contract, in every block below: what passes the checks is there,
        // and the cache is nobody else's.
        let changed = unsafe { Changed::new(cache)? };
        // SAFETY: as above.
        let (k, v) = unsafe { positions(k, k_len, v, v_len, &changed.written)? };
        // SAFETY: as above.
        let options = unsafe { Given::new(options)?.for_keys(&changed.written)? };
        // SAFETY: as above.
        unsafe { changed.change(|cache| cache.append(k, v, &options)) }
    };
    status(append())
}

/// The keys and values that are to be appended; values that are left out are the keys.
///
/// # Safety
/// Buffers whose pointers pass the checks are as long as they say, and nobody writes them during
/// `'a`.
pub(crate) unsafe fn positions<'a>(
    k: *const f32,
    k_len: usize,
    v: *const f32,
    v_len: usize,
    written: &Written,
) -> Result<(&'a [f32], &'a [f32]), Fault> {
    let (k, v) = (mha_slice { data: k, len: k_len }, mha_slice { data: v, len: v_len });
    // SAFETY: the caller's promise.
    let k = unsafe { k.get(written, A::K)? };
    // SAFETY: as above.
    let v = if v.is_absent() { k } else { unsafe { v.get(written, A::V)? } };
    Ok((k, v))
}
