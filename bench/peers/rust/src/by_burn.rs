//! The layer by burn, on its backend for processors.

use burn::backend::NdArray;
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

use crate::case::{Case, Description};
use crate::{Contender, Outputs, Result};

type Numbers<const D: usize> = Tensor<NdArray<f32>, D>;

/// Weights, inputs and the past in burn's tensors.
pub(crate) struct Layer {
    sizes: Description,
    weights: [Numbers<3>; 4],
    inputs: [Numbers<3>; 3],
    past: Option<[Numbers<4>; 2]>,
}

fn tensor<const D: usize>(floats: &[f32], shape: [usize; D]) -> Numbers<D> {
    Tensor::from_data(TensorData::new(floats.to_vec(), shape), &Default::default())
}

impl Layer {
    pub(crate) fn new(case: &Case) -> Self {
        let sizes = case.sizes.clone();
        let Description { q_in, k_in, v_in, qk, v, out, heads, batch, q_len, past, .. } = sizes;
        let weights = [
            tensor(&case.wq, [1, q_in, qk]),
            tensor(&case.wk, [1, k_in, qk]),
            tensor(&case.wv, [1, v_in, v]),
            tensor(&case.wo, [1, v, out]),
        ];
        let keys = case.new_keys();
        let inputs = [
            tensor(&case.q_input, [batch, q_len, q_in]),
            tensor(&case.k_input, [batch, keys, k_in]),
            tensor(&case.v_input, [batch, keys, v_in]),
        ];
        let heads_of = |floats: &[f32], width: usize| -> Numbers<4> {
            tensor(floats, [batch, past, heads, width / heads]).swap_dims(1, 2)
        };
        let past = (past > 0).then(|| [heads_of(&case.past_k, qk), heads_of(&case.past_v, v)]);
        Self { sizes, weights, inputs, past }
    }

    fn forward(&self) -> (Numbers<3>, Numbers<4>) {
        let Description { batch, q_len, heads, v: width, .. } = self.sizes;
        let [wq, wk, wv, wo] = self.weights.clone();
        let [q, k, v] = self.inputs.clone();
        let heads_of = |x: Numbers<3>| {
            let [batch, len, width] = x.dims();
            x.reshape([batch, len, heads, width / heads]).swap_dims(1, 2)
        };
        let (q, mut k, mut v) =
            (heads_of(q.matmul(wq)), heads_of(k.matmul(wk)), heads_of(v.matmul(wv)));
        if let Some([past_k, past_v]) = self.past.clone() {
            k = Tensor::cat(vec![past_k, k], 2);
            v = Tensor::cat(vec![past_v, v], 2);
        }
        let scores = softmax(q.matmul(k.swap_dims(2, 3)), 3);
        let mixed = scores.clone().matmul(v).swap_dims(1, 2).reshape([batch, q_len, width]);
        (mixed.matmul(wo), scores)
    }
}

impl Contender for Layer {
    fn name(&self) -> [&'static str; 3] {
        ["burn", "0.20.1", "ndarray"]
    }

    fn call(&self) -> Result<()> {
        std::hint::black_box(self.forward());
        Ok(())
    }

    fn outputs(&self) -> Result<Outputs> {
        let (y, scores) = self.forward();
        let floats = |data: TensorData| data.to_vec().map_err(|error| format!("{error:?}"));
        let scores = self.sizes.scores.then(|| floats(scores.into_data())).transpose()?;
        Ok((floats(y.into_data())?, scores))
    }
}
