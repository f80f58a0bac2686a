//! Forward and backward of the layer by burn, on its backend for processors.

use burn::backend::{Autodiff, NdArray};
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

use crate::case::{Case, Description};
use crate::{Contender, Outputs, Result};

type Numbers<const D: usize> = Tensor<Autodiff<NdArray<f32>>, D>;

/// Inputs, weights, and the gradient from above, in burn's tensors.
pub(crate) struct Layer {
    sizes: Description,
    leaves: [Numbers<2>; 7],
    dy: Numbers<2>,
}

fn tensor(floats: &[f32], shape: [usize; 2]) -> Numbers<2> {
    Tensor::from_data(TensorData::new(floats.to_vec(), shape), &Default::default())
}

impl Layer {
    pub(crate) fn new(case: &Case) -> Self {
        let sizes = case.sizes.clone();
        let Description { q_in, k_in, v_in, qk, v, out, batch, q_len, kv_len, .. } = sizes;
        let leaves = [
            tensor(&case.q_input, [batch * q_len, q_in]),
            tensor(&case.k_input, [batch * kv_len, k_in]),
            tensor(&case.v_input, [batch * kv_len, v_in]),
            tensor(&case.wq, [q_in, qk]),
            tensor(&case.wk, [k_in, qk]),
            tensor(&case.wv, [v_in, v]),
            tensor(&case.wo, [v, out]),
        ];
        let dy = tensor(&case.dy, [batch * q_len, out]);
        Self { sizes, leaves, dy }
    }

    /// y and all gradients.
    fn step(&self) -> Result<Vec<TensorData>> {
        let Description { batch, q_len, heads, v: width, .. } = self.sizes;
        // Leaves of a graph of their own.
        let leaves = self.leaves.clone().map(|leaf| leaf.detach().require_grad());
        let [q, k, v, wq, wk, wv, wo] = leaves.clone();
        let heads_of = |x: Numbers<2>| {
            let [rows, width] = x.dims();
            x.reshape([batch, rows / batch, heads, width / heads]).swap_dims(1, 2)
        };
        let q = heads_of(q.matmul(wq)).mul_scalar(self.sizes.scale());
        let (k, v) = (heads_of(k.matmul(wk)).swap_dims(2, 3), heads_of(v.matmul(wv)));
        let mixed = softmax(q.matmul(k), 3).matmul(v);
        let y = mixed.swap_dims(1, 2).reshape([batch * q_len, width]).matmul(wo);
        let gradients = (y.clone() * self.dy.clone()).sum().backward();
        let mut all = vec![y.into_data()];
        for leaf in &leaves {
            all.push(leaf.grad(&gradients).ok_or("a leaf without a gradient")?.into_data());
        }
        Ok(all)
    }
}

impl Contender for Layer {
    fn name(&self) -> [&'static str; 3] {
        ["burn", "0.20.1", "ndarray"]
    }

    fn call(&self) -> Result<()> {
        std::hint::black_box(self.step()?);
        Ok(())
    }

    fn outputs(&self) -> Result<Outputs> {
        let mut all = Vec::new();
        for data in self.step()? {
            all.extend(data.to_vec::<f32>().map_err(|error| format!("{error:?}"))?);
        }
        Ok((all, None))
    }
}
