//! Keys and values that outlive a call.

use alloc::string::String;
use alloc::vec::Vec;

use mha::{Argument, Attention, Cache, CacheConfig, CacheState, CacheView, Error};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::call::{Call, room};
use crate::failure::Failure;

/// A key/value cache with arrays of its own.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Store {
    config: CacheConfig,
    attention: Attention,
    state: CacheState,
    keys: Vec<f32>,
    values: Vec<f32>,
    failure: Option<Failure>,
}

#[wasm_bindgen]
impl Store {
    /// An empty cache without room yet. `pinned`: none for a linear one.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        batch: usize,
        capacity: usize,
        pinned: Option<usize>,
    ) -> Self {
        Self {
            config: CacheConfig { batch, capacity, ring: pinned },
            attention: Attention::new(heads, qk, v).kv_heads(kv_heads),
            state: CacheState { len: 0, oldest: pinned.unwrap_or(0) },
            keys: Vec::new(),
            values: Vec::new(),
            failure: None,
        }
    }

    /// Makes room for everything that it can hold, and checks it.
    pub fn reserve(&mut self) -> i32 {
        let result = self.try_reserve();
        self.settle(result)
    }

    /// Takes over the state of a cache that was saved; its arrays are copied by the caller.
    pub fn resume(&mut self, len: usize, oldest: usize) -> i32 {
        let before = self.state;
        self.state = CacheState { len, oldest };
        let result = self.change(|_| Ok(()));
        if result.is_err() {
            self.state = before;
        }
        self.settle(result)
    }

    /// Appends the keys and values of a call, which are projected already.
    pub fn append(&mut self, call: &mut Call) -> i32 {
        call.append_to(self, |cache, k, v, options| cache.append(k, v, options))
    }

    /// Forgets the positions from `len` on.
    pub fn rollback(&mut self, len: usize) -> i32 {
        let result = self.change(|cache| cache.rollback(len));
        self.settle(result)
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.state = CacheState { len: 0, oldest: self.config.ring.unwrap_or(0) };
    }

    /// Positions appended so far, less those rolled back.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.len
    }

    /// The first position after the pinned ones that has not been overwritten.
    #[must_use]
    pub fn oldest(&self) -> usize {
        self.state.oldest
    }

    /// Whether nothing has been appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.len == 0
    }

    /// Positions that can still be attended to.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.view().map_or(0, |view| view.stored())
    }

    /// Where the keys lie.
    pub fn keys(&mut self) -> *mut f32 {
        self.keys.as_mut_ptr()
    }

    /// Where the values lie.
    pub fn values(&mut self) -> *mut f32 {
        self.values.as_mut_ptr()
    }

    /// Elements of the keys.
    #[must_use]
    pub fn keys_len(&self) -> usize {
        self.keys.len()
    }

    /// Elements of the values.
    #[must_use]
    pub fn values_len(&self) -> usize {
        self.values.len()
    }

    /// The name of the argument at fault.
    #[must_use]
    pub fn argument(&self) -> String {
        Failure::argument_of(self.failure)
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> String {
        Failure::message_of(self.failure)
    }
}

impl Store {
    fn settle(&mut self, result: Result<(), Failure>) -> i32 {
        self.failure = result.err();
        Failure::code(result)
    }

    fn try_reserve(&mut self) -> Result<(), Failure> {
        self.attention.check()?;
        let (keys, values) =
            (self.config.keys_len(&self.attention), self.config.values_len(&self.attention));
        if keys > MOST || values > MOST {
            return Err(Error::TooLarge { argument: Argument::Cache }.into());
        }
        room(&mut self.keys, keys, Argument::Cache)?;
        room(&mut self.values, values, Argument::Cache)?;
        self.view()?;
        Ok(())
    }

    /// The core's cache over the arrays, to be read.
    pub(crate) fn view(&self) -> Result<CacheView<'_>, Error> {
        CacheView::new(self.config, &self.attention, &self.keys, &self.values, self.state)
    }

    /// Lets the core change the cache.
    pub(crate) fn change(
        &mut self,
        with: impl FnOnce(&mut Cache<'_>) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let (keys, values) = (&mut self.keys, &mut self.values);
        let mut cache = Cache::resume(self.config, &self.attention, keys, values, self.state)?;
        with(&mut cache)?;
        self.state = cache.state();
        Ok(())
    }

    pub(crate) fn batch(&self) -> usize {
        self.config.batch
    }
}

/// The most floats that one slice can hold.
const MOST: usize = isize::MAX as usize / size_of::<f32>();
