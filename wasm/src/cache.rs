//! Keys and values that outlive a call.

use alloc::vec::Vec;

use mha::{Argument, Attention, Cache, CacheConfig, CacheState, CacheView, Error, Options, Shape};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::call::{Call, MOST, room};
use crate::door::{doors, frees, keep};
use crate::failure::{Failure, Problem};
use crate::layer::Layer;

/// A key/value cache with arrays of its own.
#[derive(Debug)]
pub(crate) struct Store {
    config: CacheConfig,
    attention: Attention,
    state: CacheState,
    keys: Vec<f32>,
    values: Vec<f32>,
    problem: Problem,
}

/// An empty cache without room yet. `pinned`: none for a linear one.
#[wasm_bindgen]
#[must_use]
pub fn store_new(
    heads: usize,
    kv_heads: usize,
    qk: usize,
    v: usize,
    batch: usize,
    capacity: usize,
    pinned: Option<usize>,
) -> usize {
    keep(Store::new(heads, kv_heads, qk, v, batch, capacity, pinned))
}

doors! {
    /// Makes room for everything that it can hold, and checks it.
    fn store_reserve[store: Store]() -> i32 = Store::reserve;
    /// Takes over the state of a cache that was saved; its arrays are copied by the caller.
    fn store_resume[store: Store](len: usize, oldest: usize) -> i32 = Store::resume;
    /// Appends the keys and values of a call, which are projected already.
    fn store_append[store: Store, call: Call]() -> i32 = Store::append;
    /// Forgets the positions from `len` on.
    fn store_rollback[store: Store](len: usize) -> i32 = Store::rollback;
    /// Forgets everything.
    fn store_reset[store: Store]() = Store::reset;
    /// Positions appended so far, less those rolled back.
    fn store_len[store: Store]() -> usize = Store::len;
    /// The first position after the pinned ones that has not been overwritten.
    fn store_oldest[store: Store]() -> usize = Store::oldest;
    /// Positions that can still be attended to.
    fn store_stored[store: Store]() -> usize = Store::stored;
    /// Where the keys lie.
    fn store_keys[store: Store]() -> *mut f32 = Store::keys;
    /// Where the values lie.
    fn store_values[store: Store]() -> *mut f32 = Store::values;
    /// Elements of the keys.
    fn store_keys_len[store: Store]() -> usize = Store::keys_len;
    /// Elements of the values.
    fn store_values_len[store: Store]() -> usize = Store::values_len;
    /// Where it says what is wrong.
    fn store_problem[store: Store]() -> *const usize = Store::problem;
    /// Projects the keys and values of a call and appends them to a cache.
    fn layer_append[layer: Layer, call: Call, store: Store]() -> i32 = Layer::append;
    /// Makes room for [`layer_attend`].
    fn layer_reserve_attend[layer: Layer, call: Call, store: Store]() -> i32 =
        Layer::reserve_attend;
    /// Attends over a cache.
    fn layer_attend[layer: Layer, call: Call, store: Store]() -> i32 = Layer::attend;
    /// Makes room for keys and values that are to be appended.
    fn call_reserve_append[call: Call]() -> i32 = Call::reserve_append;
}

frees! {
    /// Frees a cache.
    fn store_free[Store];
}

impl Store {
    /// An empty cache without room yet. `pinned`: none for a linear one.
    pub(crate) fn new(
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
            problem: Problem::NONE,
        }
    }

    /// Makes room for everything that it can hold, and checks it.
    pub(crate) fn reserve(&mut self) -> i32 {
        let result = self.try_reserve();
        self.problem.settle(result)
    }

    /// Takes over the state of a cache that was saved; its arrays are copied by the caller.
    pub(crate) fn resume(&mut self, len: usize, oldest: usize) -> i32 {
        let before = self.state;
        self.state = CacheState { len, oldest };
        let result = self.change(|_| Ok(()));
        if result.is_err() {
            self.state = before;
        }
        self.problem.settle(result)
    }

    /// Appends the keys and values of a call, which are projected already.
    pub(crate) fn append(&mut self, call: &mut Call) -> i32 {
        call.append_to(self, |cache, k, v, options| cache.append(k, v, options))
    }

    /// Forgets the positions from `len` on.
    pub(crate) fn rollback(&mut self, len: usize) -> i32 {
        let result = self.change(|cache| cache.rollback(len));
        self.problem.settle(result)
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        self.state = CacheState { len: 0, oldest: self.config.ring.unwrap_or(0) };
    }

    /// Positions appended so far, less those rolled back.
    pub(crate) fn len(&self) -> usize {
        self.state.len
    }

    /// The first position after the pinned ones that has not been overwritten.
    pub(crate) fn oldest(&self) -> usize {
        self.state.oldest
    }

    /// Positions that can still be attended to.
    pub(crate) fn stored(&self) -> usize {
        self.view().map_or(0, |view| view.stored())
    }

    /// Where the keys lie.
    pub(crate) fn keys(&mut self) -> *mut f32 {
        self.keys.as_mut_ptr()
    }

    /// Where the values lie.
    pub(crate) fn values(&mut self) -> *mut f32 {
        self.values.as_mut_ptr()
    }

    /// Elements of the keys.
    pub(crate) fn keys_len(&self) -> usize {
        self.keys.len()
    }

    /// Elements of the values.
    pub(crate) fn values_len(&self) -> usize {
        self.values.len()
    }

    /// Where it says what is wrong.
    pub(crate) fn problem(&self) -> *const usize {
        (&raw const self.problem).cast()
    }
}

impl Store {
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

impl Layer {
    /// Projects the keys and values of a call and appends them to a cache.
    pub(crate) fn append(&self, call: &mut Call, store: &mut Store) -> i32 {
        call.append_to(store, |cache, k, v, options| self.layer()?.append(cache, k, v, options))
    }

    /// Makes room for [`Layer::attend`].
    pub(crate) fn reserve_attend(&self, call: &mut Call, store: &Store) -> i32 {
        let (stored, config) = (call.over(store), self.config());
        let scores = call.scores_of_shape(&config.attention, stored);
        let scratch = config.cached_scratch_len(stored.q_len);
        call.make_room(config.y_len(stored), scores, scratch)
    }

    /// Attends over a cache.
    pub(crate) fn attend(&self, call: &mut Call, store: &Store) -> i32 {
        call.run(|shape, inputs, arrays| {
            let (cache, (outputs, scratch)) = (store.view()?, arrays.outputs());
            self.layer()?.attend(&cache, shape.q_len, inputs, outputs, scratch)
        })
    }
}

impl Call {
    /// Makes room for keys and values that are to be appended.
    fn reserve_append(&mut self) -> i32 {
        self.make_room(0, 0, 0)
    }

    /// The shape of a call over what a cache has stored.
    pub(crate) fn over(&self, store: &Store) -> Shape {
        Shape { batch: store.batch(), kv_len: store.stored(), ..self.shape() }
    }

    /// Appends keys and values to a cache.
    fn append_to(
        &mut self,
        store: &mut Store,
        append: impl FnOnce(&mut Cache<'_>, &[f32], &[f32], &Options<'_>) -> Result<(), Error>,
    ) -> i32 {
        let [q, k_len, v_len, ..] = self.parts;
        let (has_k, has_v) = (self.words.k > 0, self.words.v > 0);
        let floats = self.floats.as_slice();
        let part = |at: usize, len: usize| floats.get(at..at.saturating_add(len)).unwrap_or(&[]);
        let k = if has_k { part(q, k_len) } else { part(0, q) };
        let v = if has_v { part(q.saturating_add(k_len), v_len) } else { k };
        let options = self.family.options();
        let result = store.change(|cache| append(cache, k, v, &options));
        self.problem.settle(result)
    }
}
