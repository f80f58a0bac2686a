//! The layer by candle, on the processor.

use candle_core::{Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::case::{Case, Description};
use crate::{Contender, Outputs, Result};

/// Weights, inputs and the past in candle's tensors.
pub(crate) struct Layer {
    sizes: Description,
    weights: [Tensor; 4],
    inputs: [Tensor; 3],
    /// Keys `[batch, heads, d, past]`, and values `[batch, heads, past, d_v]`.
    past: Option<[Tensor; 2]>,
}

fn tensor<const D: usize>(floats: &[f32], shape: [usize; D]) -> candle_core::Result<Tensor> {
    Tensor::from_slice(floats, &shape[..], &Device::Cpu)
}

impl Layer {
    pub(crate) fn new(case: &Case) -> Result<Self> {
        let sizes = case.sizes.clone();
        let Description { q_in, k_in, v_in, qk, v, out, heads, batch, q_len, past, .. } = sizes;
        let weights = [
            tensor(&case.wq, [q_in, qk])?,
            tensor(&case.wk, [k_in, qk])?,
            tensor(&case.wv, [v_in, v])?,
            tensor(&case.wo, [v, out])?,
        ];
        // Rows of all sequences below each other: one product for all.
        let keys = case.new_keys();
        let inputs = [
            tensor(&case.q_input, [batch * q_len, q_in])?,
            tensor(&case.k_input, [batch * keys, k_in])?,
            tensor(&case.v_input, [batch * keys, v_in])?,
        ];
        let heads_of = |floats: &[f32], width: usize| {
            tensor(floats, [batch, past, heads, width / heads])?.transpose(1, 2)?.contiguous()
        };
        let past = if past > 0 {
            Some([heads_of(&case.past_k, qk)?.t()?, heads_of(&case.past_v, v)?])
        } else {
            None
        };
        Ok(Self { sizes, weights, inputs, past })
    }

    fn forward(&self) -> candle_core::Result<(Tensor, Tensor)> {
        let Description { batch, q_len, kv_len, heads, v: width, past: len, .. } = self.sizes;
        let [wq, wk, wv, wo] = &self.weights;
        let [q, k, v] = &self.inputs;
        let heads_of = |x: Tensor| {
            let (rows, width) = x.dims2()?;
            x.reshape((batch, rows / batch, heads, width / heads))?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) =
            (heads_of(q.matmul(wq)?)?, heads_of(k.matmul(wk)?)?, heads_of(v.matmul(wv)?)?);
        let k = k.t()?;
        // Logits are put together, not keys: the past is long and stays where it is.
        let (mixed, scores) = match &self.past {
            None => {
                let scores = softmax_last_dim(&q.matmul(&k)?)?;
                (scores.matmul(&v)?, scores)
            }
            Some([past_k, past_v]) => {
                let logits = Tensor::cat(&[q.matmul(past_k)?, q.matmul(&k)?], 3)?;
                let scores = softmax_last_dim(&logits)?;
                let part = |start, len| scores.narrow(3, start, len)?.contiguous();
                let before = part(0, len)?.matmul(past_v)?;
                ((before + part(len, kv_len - len)?.matmul(&v)?)?, scores)
            }
        };
        let y = mixed.transpose(1, 2)?.reshape((batch * q_len, width))?.matmul(wo)?;
        Ok((y, scores))
    }
}

impl Contender for Layer {
    fn name(&self) -> [&'static str; 3] {
        ["candle", "0.11.1", "gemm"]
    }

    fn call(&self) -> Result<()> {
        std::hint::black_box(self.forward()?);
        Ok(())
    }

    fn outputs(&self) -> Result<Outputs> {
        let (y, scores) = self.forward()?;
        let floats = |tensor: &Tensor| tensor.flatten_all()?.to_vec1();
        let scores = self.sizes.scores.then(|| floats(&scores)).transpose()?;
        Ok((floats(&y)?, scores))
    }
}
