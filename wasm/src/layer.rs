//! The layer, with weights of its own.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mha::{Argument, Config, Dims, Error, Isa, MultiHeadAttention, WeightOrder, Weights};
use wasm_bindgen::prelude::wasm_bindgen;

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
        scale: Option<f32>,
        out_in: bool,
    ) -> Self {
        let order = if out_in { WeightOrder::OutIn } else { WeightOrder::InOut };
        let dims = Dims::new((q_in, k_in, v_in), (qk, v), out);
        let mut config = Config::new(dims).heads(heads).weight_order(order);
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
        let scores = self.config.scores_len(shape);
        call.make_room(y, scores, self.config.scratch_len(shape))
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
        self.failure.map(|failure| failure.argument().name().into()).unwrap_or_default()
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> String {
        self.failure.map(|failure| failure.to_string()).unwrap_or_default()
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
    fn layer(&self) -> Result<MultiHeadAttention<'_>, Error> {
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
