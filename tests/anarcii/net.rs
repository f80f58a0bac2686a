//! What stands around attention in a transformer, as plainly as it can be said; sums are in
//! doubles, so that what is off is attention's. Rows are `[rows, width]`.

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors};

/// Under the square root of a layer norm; PyTorch's default.
const EPSILON: f64 = 1e-5;

/// The tensors below a name.
pub(crate) struct Tensors<'data> {
    file: &'data SafeTensors<'data>,
    name: String,
}

impl<'data> Tensors<'data> {
    pub(crate) fn new(file: &'data SafeTensors<'data>, name: &str) -> Self {
        Self { file, name: format!("{name}.") }
    }

    /// Those further below.
    pub(crate) fn at(&self, name: &str) -> Self {
        Self { file: self.file, name: format!("{}{name}.", self.name) }
    }

    /// A tensor, flat, whose last axis must be this long.
    pub(crate) fn floats(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        let name = format!("{}{name}", self.name);
        let view = self.file.tensor(&name).ok().with_context(|| format!("{name}: missing"))?;
        let whole = view.dtype() == Dtype::F32 && view.shape().last() == Some(&width);
        ensure!(whole, "{name}: {:?} of {:?}", view.dtype(), view.shape());
        Ok(view.data().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}

/// `x · weightᵀ + bias`.
pub(crate) struct Linear {
    /// `[out, in]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Linear {
    pub(crate) fn read(tensors: &Tensors<'_>, input: usize, out: usize) -> Result<Self> {
        let (weight, bias) = (tensors.floats("weight", input)?, tensors.floats("bias", out)?);
        ensure!(weight.len() == input * out, "a weight of {}", weight.len());
        Ok(Self { weight, bias })
    }

    pub(crate) fn of(&self, x: &[f32]) -> Vec<f32> {
        let input = self.weight.len() / self.bias.len();
        let row = |x: &[f32]| -> Vec<f32> {
            let rows = self.weight.chunks_exact(input).zip(&self.bias);
            let term = |(w, x): (&f32, &f32)| f64::from(*w) * f64::from(*x);
            let product = |w: &[f32]| w.iter().zip(x).map(term).sum::<f64>();
            rows.map(|(w, b)| (f64::from(*b) + product(w)) as f32).collect()
        };
        x.chunks_exact(input).flat_map(row).collect()
    }
}

/// A layer norm.
pub(crate) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Norm {
    pub(crate) fn read(tensors: &Tensors<'_>, width: usize) -> Result<Self> {
        let (weight, bias) = (tensors.floats("weight", width)?, tensors.floats("bias", width)?);
        Ok(Self { weight, bias })
    }

    /// `norm(x + y)`, in place of x.
    pub(crate) fn add(&self, x: &mut [f32], y: &[f32]) {
        let width = self.weight.len();
        for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let squares = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
            let factor = 1.0 / (squares / width as f64 + EPSILON).sqrt();
            for ((x, &weight), &bias) in x.iter_mut().zip(&self.weight).zip(&self.bias) {
                let normal = (f64::from(*x) - mean) * factor;
                *x = (normal * f64::from(weight) + f64::from(bias)) as f32;
            }
        }
    }
}

/// Two linear maps with a rectifier between them.
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    pub(crate) fn read(tensors: &Tensors<'_>, width: usize, inner: usize) -> Result<Self> {
        let up = Linear::read(&tensors.at("fc_1"), width, inner)?;
        Ok(Self { up, down: Linear::read(&tensors.at("fc_2"), inner, width)? })
    }

    pub(crate) fn of(&self, x: &[f32]) -> Vec<f32> {
        let mut inner = self.up.of(x);
        inner.iter_mut().for_each(|x| *x = x.max(0.0));
        self.down.of(&inner)
    }
}

/// Tokens and their positions as rows.
pub(crate) struct Embedding {
    width: usize,
    tokens: Vec<f32>,
    positions: Vec<f32>,
}

impl Embedding {
    pub(crate) fn read(tensors: &Tensors<'_>, width: usize) -> Result<Self> {
        let tokens = tensors.floats("tok_embedding.weight", width)?;
        let positions = tensors.floats("pos_embedding.weight", width)?;
        Ok(Self { width, tokens, positions })
    }

    /// Appends the row of a token at a position: `token · √width + position`.
    pub(crate) fn append(&self, token: usize, position: usize, x: &mut Vec<f32>) -> Result<()> {
        let row = |table: &'_ [f32], i: usize| -> Result<Vec<f32>> {
            let row = table.chunks_exact(self.width).nth(i).context("beyond the embedding")?;
            Ok(row.to_vec())
        };
        let factor = (self.width as f32).sqrt();
        let (token, position) = (row(&self.tokens, token)?, row(&self.positions, position)?);
        x.extend(token.iter().zip(&position).map(|(t, p)| t * factor + p));
        Ok(())
    }
}
