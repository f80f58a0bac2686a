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
    weights: [Numbers<2>; 4],
    inputs: [Numbers<2>; 3],
    /// Keys `[batch, heads, d, past]`, and values `[batch, heads, past, d_v]`.
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
            tensor(&case.wq, [q_in, qk]),
            tensor(&case.wk, [k_in, qk]),
            tensor(&case.wv, [v_in, v]),
            tensor(&case.wo, [v, out]),
        ];
        // Rows of all sequences below each other: one product for all.
        let keys = case.new_keys();
        let inputs = [
            tensor(&case.q_input, [batch * q_len, q_in]),
            tensor(&case.k_input, [batch * keys, k_in]),
            tensor(&case.v_input, [batch * keys, v_in]),
        ];
        let heads_of = |floats: &[f32], width: usize| -> Numbers<4> {
            tensor(floats, [batch, past, heads, width / heads]).swap_dims(1, 2)
        };
        // Laid out anew, so that no call has to.
        let laid_out =
            |x: Numbers<4>| -> Numbers<4> { Tensor::from_data(x.into_data(), &Default::default()) };
        let past = (past > 0).then(|| {
            let keys = heads_of(&case.past_k, qk).swap_dims(2, 3);
            [laid_out(keys), laid_out(heads_of(&case.past_v, v))]
        });
        Self { sizes, weights, inputs, past }
    }

    fn forward(&self) -> (Numbers<2>, Numbers<4>) {
        let Description { batch, q_len, kv_len, heads, v: width, past: len, .. } = self.sizes;
        let [wq, wk, wv, wo] = self.weights.clone();
        let [q, k, v] = self.inputs.clone();
        let heads_of = |x: Numbers<2>| {
            let [rows, width] = x.dims();
            x.reshape([batch, rows / batch, heads, width / heads]).swap_dims(1, 2)
        };
        let (q, k, v) = (heads_of(q.matmul(wq)), heads_of(k.matmul(wk)), heads_of(v.matmul(wv)));
        let k = k.swap_dims(2, 3);
        // Logits are put together, not keys: the past is long and stays where it is.
        let (mixed, scores) = match self.past.clone() {
            None => {
                let scores = softmax(q.matmul(k), 3);
                (scores.clone().matmul(v), scores)
            }
            Some([past_k, past_v]) => {
                let logits = Tensor::cat(vec![q.clone().matmul(past_k), q.matmul(k)], 3);
                let scores = softmax(logits, 3);
                let before = scores.clone().narrow(3, 0, len).matmul(past_v);
                (before + scores.clone().narrow(3, len, kv_len - len).matmul(v), scores)
            }
        };
        (mixed.swap_dims(1, 2).reshape([batch * q_len, width]).matmul(wo), scores)
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
