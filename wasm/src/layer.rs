//! The layer, with weights of its own.

use alloc::string::String;
use alloc::vec::Vec;

use mha::{Argument, Config, Dims, Error, Isa, MultiHeadAttention, WeightOrder, Weights};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::cache::Store;
use crate::call::{Call, room};
use crate::failure::Failure;

/// A layer and its copy of the weights.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Layer {
    config: Config,
    /// `wq wk wv wo`, then the biases there are.
    data: Vec<f32>,
    lens: [Option<usize>; 8],
    isa: Isa,
    failure: Option<Failure>,
}

#[wasm_bindgen]
impl Layer {
    /// A layer without weights yet. `scale`: none is the default; `out_in`: the weights' order.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(
        q_in: usize,
        k_in: usize,
        v_in: usize,
        qk: usize,
        v: usize,
        out: usize,
        heads: usize,
        kv_heads: usize,
        scale: Option<f32>,
        out_in: bool,
    ) -> Self {
        let order = if out_in { WeightOrder::OutIn } else { WeightOrder::InOut };
        let dims = Dims::new((q_in, k_in, v_in), (qk, v), out);
        let mut config = Config::new(dims).heads(heads).kv_heads(kv_heads).weight_order(order);
        config.attention.scale = scale;
        Self { config, data: Vec::new(), lens: [None; 8], isa: Isa::detect(), failure: None }
    }

    /// Checks the configuration and the lengths of the weights, and makes room for them, one after
    /// the other from [`Layer::data`] on.
    pub fn weights(
        &mut self,
        wq: usize,
        wk: usize,
        wv: usize,
        wo: usize,
        bq: Option<usize>,
        bk: Option<usize>,
        bv: Option<usize>,
        bo: Option<usize>,
    ) -> i32 {
        self.lens = [Some(wq), Some(wk), Some(wv), Some(wo), bq, bk, bv, bo];
        let result = self.make_room();
        self.failure = result.err();
        Failure::code(result)
    }

    /// As [`Layer::weights`], for one flat array: `wq wk wv wo`, then none or all of the biases.
    pub fn flat_weights(&mut self, len: usize) -> i32 {
        let result = self.make_flat_room(len);
        self.failure = result.err();
        Failure::code(result)
    }

    /// Where the weights lie.
    pub fn data(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }

    /// Makes room for a call that is described.
    pub fn reserve(&self, call: &mut Call) -> i32 {
        let shape = call.shape();
        let y = self.config.y_len(shape);
        let scores = call.scores_of_shape(&self.config.attention, shape);
        call.make_room(y, scores, self.config.scratch_len(shape))
    }

    /// Makes room for [`Layer::forward_packed`]: the lengths that the call says are those of the
    /// longest sequence, `queries` and `scores` those of all.
    pub fn reserve_packed(&self, call: &mut Call, queries: usize, scores: usize) -> i32 {
        let y = queries.saturating_mul(self.config.dims.out);
        call.make_room(y, scores, self.config.scratch_len(call.shape()))
    }

    /// Computes packed sequences.
    pub fn forward_packed(&self, call: &mut Call) -> i32 {
        let [q_starts, kv_starts] = call.packed_starts();
        call.run(|_, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            self.layer()?.forward_packed(&q_starts, &kv_starts, inputs, outputs, scratch)
        })
    }

    /// Projects the keys and values of a call and appends them to a cache.
    pub fn append(&self, call: &mut Call, store: &mut Store) -> i32 {
        call.append_to(store, |cache, k, v, options| self.layer()?.append(cache, k, v, options))
    }

    /// Makes room for [`Layer::attend`].
    pub fn reserve_attend(&self, call: &mut Call, store: &Store) -> i32 {
        let stored = call.over(store);
        let scores = call.scores_of_shape(&self.config.attention, stored);
        let scratch = self.config.cached_scratch_len(stored.q_len);
        call.make_room(self.config.y_len(stored), scores, scratch)
    }

    /// Attends over a cache.
    pub fn attend(&self, call: &mut Call, store: &Store) -> i32 {
        call.run(|shape, inputs, arrays| {
            let (cache, (outputs, scratch)) = (store.view()?, arrays.outputs());
            self.layer()?.attend(&cache, shape.q_len, inputs, outputs, scratch)
        })
    }

    /// Computes a call that has room.
    pub fn forward(&self, call: &mut Call) -> i32 {
        call.run(|shape, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            self.layer()?.forward(shape, inputs, outputs, scratch)
        })
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

impl Layer {
    fn make_room(&mut self) -> Result<(), Failure> {
        self.config.check()?;
        let total = self.lens.iter().flatten().try_fold(0usize, |sum, len| sum.checked_add(*len));
        let total = total.ok_or(Error::TooLarge { argument: Argument::Weights })?;
        room(&mut self.data, total, Argument::Weights)?;
        self.layer()?;
        Ok(())
    }

    #[cfg(feature = "training")]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Elements of the weights and biases, 0 for those that there are not.
    #[cfg(feature = "training")]
    pub(crate) fn lens(&self) -> [usize; 8] {
        self.lens.map(Option::unwrap_or_default)
    }

    fn make_flat_room(&mut self, len: usize) -> Result<(), Failure> {
        self.config.check()?;
        room(&mut self.data, len, Argument::Weights)?;
        let weights = Weights::from_flat(&self.config, self.data.get(..len).unwrap_or(&[]))?;
        let biases = [weights.bq, weights.bk, weights.bv, weights.bo];
        let matrices = [weights.wq, weights.wk, weights.wv, weights.wo].map(|w| Some(w.len()));
        let (first, last) = self.lens.split_at_mut(4);
        first.copy_from_slice(&matrices);
        last.copy_from_slice(&biases.map(|bias| bias.map(<[f32]>::len)));
        Ok(())
    }

    /// The core's layer over the weights. Making it checks every length again, which takes a few
    /// nanoseconds and spares a pointer into ourselves.
    pub(crate) fn layer(&self) -> Result<MultiHeadAttention<'_>, Error> {
        let mut rest = self.data.as_slice();
        let mut part = |len: Option<usize>| {
            let (part, left) = rest.split_at_checked(len?)?;
            rest = left;
            Some(part)
        };
        let [wq, wk, wv, wo, bq, bk, bv, bo] = self.lens.map(&mut part);
        let [wq, wk, wv, wo] = [wq, wk, wv, wo].map(Option::unwrap_or_default);
        let weights = Weights { wq, wk, wv, wo, bq, bk, bv, bo };
        MultiHeadAttention::with_isa(self.config, weights, self.isa)
    }
}

#[cfg(test)]
mod tests {
    use mha::{Causal, Inputs, Mask, Outputs, Shape};

    use super::*;

    const SHAPE: Shape = Shape::new(2, 3, 5);

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// As JavaScript does it.
    fn copy(from: &[f32], to: *mut f32) {
        // SAFETY: the room for these was made before.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    /// Describes, makes room, copies in, computes and copies out, and holds the result against the
    /// core's. Twice, the second time in the room of the first.
    #[test]
    fn a_call_step_by_step_is_the_core_s_call() {
        let config = Config::new(Dims::new((3, 4, 5), (6, 8), 7)).heads(2);
        let [wq, wk, wv, wo] =
            [config.wq_len(), config.wk_len(), config.wv_len(), config.wo_len()].map(numbers);
        let bv = numbers(8);
        let mut layer = Layer::new(3, 4, 5, 6, 8, 7, 2, 2, None, false);
        assert_eq!(
            layer.weights(wq.len(), wk.len(), wv.len(), wo.len(), None, None, Some(8), None),
            0
        );
        copy(&[&wq[..], &wk, &wv, &wo, &bv].concat(), layer.data());

        let (q, k, v) = (numbers(2 * 3 * 3), numbers(2 * 5 * 4), numbers(2 * 5 * 5));
        let mask = [1, 0, 1, 1, 1];
        let weights = Weights { bv: Some(&bv), ..Weights::new(&wq, &wk, &wv, &wo) };
        let core = MultiHeadAttention::new(config, weights).unwrap();
        let mut y = vec![0.0; config.y_len(SHAPE)];
        let mut scores = vec![0.0; config.scores_len(SHAPE)];
        let mut scratch = vec![0.0; config.scratch_len(SHAPE)];
        let inputs = Inputs::new(&q, &k, &v)
            .mask(Mask::bytes(&mask, [1, 1, 1, 5]))
            .causal_from(Causal::Offset(1));
        let outputs = Outputs::new(&mut y).scores(&mut scores);
        core.forward(SHAPE, inputs, outputs, &mut scratch).unwrap();

        let mut call = Call::new();
        for _ in 0..2 {
            call.begin(2, 3, 5, q.len(), Some(k.len()), Some(v.len()));
            call.mask(5, 1, 1, 1, 5);
            call.causal(1);
            call.scores_of(0, None);
            assert_eq!(layer.reserve(&mut call), 0);
            copy(&q, call.q());
            copy(&k, call.k());
            copy(&v, call.v());
            // SAFETY: the room for the mask was made.
            unsafe { call.mask_data().copy_from_nonoverlapping(mask.as_ptr(), mask.len()) };
            assert_eq!(layer.forward(&mut call), 0);
            assert_eq!((call.y_len(), call.scores_len()), (y.len(), scores.len()));
            // SAFETY: the outputs are as long as the call says.
            let found = unsafe {
                let y = core::slice::from_raw_parts(call.y(), call.y_len()).to_vec();
                (y, core::slice::from_raw_parts(call.scores(), call.scores_len()).to_vec())
            };
            assert_eq!(found, (y.clone(), scores.clone()));
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_core_s_words() {
        let mut layer = Layer::new(4, 4, 4, 4, 4, 4, 2, 2, None, false);
        assert_eq!(layer.weights(16, 15, 16, 16, None, None, None, None), 4);
        assert_eq!(layer.argument(), "wk");
        assert_eq!(layer.message(), "wk: 16 elements needed, 15 given");
        assert_eq!(layer.flat_weights(64 + 1), 4);
        assert_eq!(layer.argument(), "weights");
        assert_eq!(layer.flat_weights(64), 0);
        assert_eq!(layer.message(), "");

        let mut call = Call::new();
        call.begin(1, 1, 1, 3, None, None);
        assert_eq!(layer.reserve(&mut call), 0);
        assert_eq!(layer.forward(&mut call), 4);
        assert_eq!(call.message(), "q: 4 elements needed, 3 given");
    }

    /// What is described after room was made has none, and is refused instead of computed.
    #[test]
    fn a_call_without_room_is_refused() {
        let mut layer = Layer::new(4, 4, 4, 4, 4, 4, 2, 2, None, false);
        assert_eq!(layer.flat_weights(64), 0);
        let mut call = Call::new();
        call.begin(1, 1, 1, 4, None, None);
        assert_eq!(layer.forward(&mut call), 4);
        assert_eq!(layer.reserve(&mut call), 0);
        assert_eq!(layer.forward(&mut call), 0);
        call.mask(1000, 1, 1, 1, 1000);
        assert_ne!(layer.forward(&mut call), 0);
        call.begin(1, 1000, 1000, 4000, None, None);
        assert_ne!(layer.forward(&mut call), 0);
    }
}
