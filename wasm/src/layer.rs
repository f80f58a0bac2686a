//! The layer, with weights of its own.

use alloc::vec::Vec;

use mha::{Argument, Config, Dims, Error, Isa, MultiHeadAttention, WeightOrder, Weights};

use crate::call::{Call, MOST, room};
use crate::failure::{Failure, Problem};

/// A layer and its copy of the weights.
#[derive(Debug)]
pub(crate) struct Layer {
    config: Config,
    /// `wq wk wv wo`, then the biases there are.
    data: Vec<f32>,
    /// Their lengths, one more than they are; 0 for what there is not.
    lens: [usize; 8],
    isa: Isa,
    problem: Problem,
}

impl Layer {
    /// A layer without weights yet. `scale`: none is the default; `out_in`: the weights' order.
    pub(crate) fn new(
        inputs: (usize, usize, usize),
        projected: (usize, usize),
        out: usize,
        heads: usize,
        kv_heads: usize,
        scale: Option<f32>,
        out_in: bool,
    ) -> Self {
        let order = if out_in { WeightOrder::OutIn } else { WeightOrder::InOut };
        let dims = Dims::new(inputs, projected, out);
        let mut config = Config::new(dims).heads(heads).kv_heads(kv_heads).weight_order(order);
        config.attention.scale = scale;
        let (isa, problem) = (Isa::detect(), Problem::NONE);
        Self { config, data: Vec::new(), lens: [0; 8], isa, problem }
    }

    /// Checks the configuration and the lengths of the weights, and makes room for them, one after
    /// the other from [`Layer::data`] on. Lengths are one more than they are, 0 for what there is not; `wq`
    /// alone: all of them in one array.
    pub(crate) fn weights(
        &mut self,
        wq: usize,
        wk: usize,
        wv: usize,
        wo: usize,
        bq: usize,
        bk: usize,
        bv: usize,
        bo: usize,
    ) -> i32 {
        let result = self.make_room([wq, wk, wv, wo, bq, bk, bv, bo]);
        self.problem.settle(result)
    }

    /// Where the weights lie.
    pub(crate) fn data(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }

    /// Makes room for a call that is described.
    pub(crate) fn reserve(&self, call: &mut Call) -> i32 {
        let shape = call.shape();
        #[cfg(feature = "family")]
        let scores = call.scores_of_shape(&self.config.attention, shape);
        #[cfg(not(feature = "family"))]
        let scores = self.config.scores_len(shape);
        call.make_room(self.config.y_len(shape), scores, self.config.scratch_len(shape))
    }

    /// Computes a call that has room.
    pub(crate) fn forward(&self, call: &mut Call) -> i32 {
        call.run(|shape, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            self.layer()?.forward(shape, inputs, outputs, scratch)
        })
    }

    /// Where it says what is wrong.
    pub(crate) fn problem(&self) -> *const usize {
        (&raw const self.problem).cast()
    }
}

impl Layer {
    fn make_room(&mut self, given: [usize; 8]) -> Result<(), Failure> {
        self.config.check()?;
        self.lens = given;
        let [flat, wk, ..] = given;
        if wk == 0 {
            // 1. What there is in the one array.
            let Config { dims, attention, .. } = &self.config;
            let matrices = [
                self.config.wq_len(),
                self.config.wk_len(),
                self.config.wv_len(),
                self.config.wo_len(),
            ];
            let biases = [dims.qk, attention.key_features(), attention.value_features(), dims.out];
            let needed = matrices.iter().fold(0, |sum: usize, len| sum.saturating_add(*len));
            let (got, more) = (flat.saturating_sub(1), biases.iter().sum::<usize>());
            if got != needed && got != needed.saturating_add(more) {
                return Err(Error::Length { argument: Argument::Weights, needed, got }.into());
            }
            let there = usize::from(got != needed);
            let lens = matrices.into_iter().map(|len| len + 1);
            let lens = lens.chain(biases.map(|len| (len + 1) * there));
            self.lens.iter_mut().zip(lens).for_each(|(to, len)| *to = len);
        }
        // 2. Room for it.
        let lens = self.lens.iter().map(|len| len.saturating_sub(1));
        let total = lens.fold(0, usize::saturating_add);
        if total > MOST {
            return Err(Error::TooLarge { argument: Argument::Weights }.into());
        }
        room(&mut self.data, total, Argument::Weights)?;
        self.layer()?;
        Ok(())
    }

    #[cfg(feature = "family")]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Elements of the weights and biases, 0 for those that there are not.
    #[cfg(feature = "training")]
    pub(crate) fn lens(&self) -> [usize; 8] {
        self.lens.map(|len| len.saturating_sub(1))
    }

    /// The core's layer over the weights. Making it checks every length again, which takes a few
    /// nanoseconds and spares a pointer into ourselves.
    pub(crate) fn layer(&self) -> Result<MultiHeadAttention<'_>, Error> {
        let mut rest = self.data.as_slice();
        let mut part = |len: usize| {
            let (part, left) = rest.split_at_checked(len.checked_sub(1)?)?;
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
    use crate::call::Words;

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
        let mut layer = Layer::new((3, 4, 5), (6, 8), 7, 2, 2, None, false);
        assert_eq!(
            layer.weights(wq.len() + 1, wk.len() + 1, wv.len() + 1, wo.len() + 1, 0, 0, 9, 0),
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
            call.words = Words {
                batch: 2,
                q_len: 3,
                kv_len: 5,
                q: q.len() + 1,
                k: k.len() + 1,
                v: v.len() + 1,
                mask: 6,
                mask_extents: [1, 1, 1, 5],
                causal: 2,
                causal_by: 1,
                scores: 1,
                ..Words::NONE
            };
            assert_eq!(layer.reserve(&mut call), 0);
            let places = call.places;
            copy(&q, places.q);
            copy(&k, places.k);
            copy(&v, places.v);
            // SAFETY: the room for the mask was made.
            unsafe { places.mask.copy_from_nonoverlapping(mask.as_ptr(), mask.len()) };
            assert_eq!(layer.forward(&mut call), 0);
            assert_eq!((places.y_len, places.scores_len), (y.len(), scores.len()));
            // SAFETY: the outputs are as long as the call says.
            let found = unsafe {
                let y = core::slice::from_raw_parts(places.y, places.y_len).to_vec();
                (y, core::slice::from_raw_parts(places.scores, places.scores_len).to_vec())
            };
            assert_eq!(found, (y.clone(), scores.clone()));
        }
    }

    const ONE: Words = Words { batch: 1, q_len: 1, kv_len: 1, q: 5, ..Words::NONE };

    #[test]
    fn what_is_wrong_is_told_in_numbers() {
        let mut layer = Layer::new((4, 4, 4), (4, 4), 4, 2, 2, None, false);
        assert_eq!(layer.weights(17, 16, 17, 17, 0, 0, 0, 0), 4);
        assert_eq!(layer.problem.said(), ("wk", [16, 15, 0]));
        assert_eq!(layer.weights(64 + 2, 0, 0, 0, 0, 0, 0, 0), 4);
        assert_eq!(layer.problem.said(), ("weights", [64, 65, 0]));
        // Without biases, and with all of them.
        assert_eq!(layer.weights(64 + 1, 0, 0, 0, 0, 0, 0, 0), 0);
        assert_eq!(layer.weights(64 + 16 + 1, 0, 0, 0, 0, 0, 0, 0), 0);

        let mut call = Call::new();
        call.words = Words { q: 4, ..ONE };
        assert_eq!(layer.reserve(&mut call), 0);
        assert_eq!(layer.forward(&mut call), 4);
        assert_eq!(call.problem.said(), ("q", [4, 3, 0]));
    }

    /// What is described after room was made has none, and is refused instead of computed.
    #[test]
    fn a_call_without_room_is_refused() {
        let mut layer = Layer::new((4, 4, 4), (4, 4), 4, 2, 2, None, false);
        assert_eq!(layer.weights(65, 0, 0, 0, 0, 0, 0, 0), 0);
        let mut call = Call::new();
        call.words = ONE;
        assert_eq!(layer.forward(&mut call), 4);
        assert_eq!(layer.reserve(&mut call), 0);
        assert_eq!(layer.forward(&mut call), 0);
        call.words = Words { mask: 1001, mask_extents: [1, 1, 1, 1000], ..ONE };
        assert_ne!(layer.forward(&mut call), 0);
        call.words = Words { q_len: 1000, kv_len: 1000, q: 4001, ..ONE };
        assert_ne!(layer.forward(&mut call), 0);
    }
}
