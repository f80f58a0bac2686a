//! One call of the library with everything that it needs, owned: what a case or a demo hands to a
//! door.

use crate::family::Family;
use crate::gradients::{Above, Each};
use crate::rotation::Rotation;
use mha::{Attention, Broadcast, Config, Dropout, Inputs, Mask, ScoresAt, Shape};

/// What is computed.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Operation {
    /// The layer with its four projections.
    Layer(Config, Parameters),
    /// Attention alone: queries, keys and values enter as they are.
    DotProduct(Attention),
    /// Rotation alone: the queries are rotated.
    Rotate(Rotation),
}

/// The weights of a layer, owned.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// Query, key, value and output weight, in the order that the configuration says.
    pub weights: [Vec<f32>; 4],
    /// Their biases, where they have one.
    pub biases: [Option<Vec<f32>>; 4],
}

/// An array that is broadcast to `[batch, heads, q_len, kv_len]`.
#[derive(Clone, Debug)]
pub struct Grid<T> {
    /// The elements, row-major.
    pub data: Vec<T>,
    /// The size of each axis, or 1.
    pub extents: [usize; 4],
}

impl<T> Grid<T> {
    pub(crate) fn broadcast(&self) -> Broadcast<'_, T> {
        Broadcast::new(&self.data, self.extents)
    }
}

/// The causal rule, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Causality {
    /// Every query sees every key.
    None,
    /// One offset for the whole batch.
    Offset(isize),
    /// An offset for each sequence.
    PerSequence(Vec<isize>),
}

/// Dropout by its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drop {
    /// The probability.
    pub p: f32,
    /// The seed of the decisions.
    pub seed: u64,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is computed.
    pub operation: Operation,
    /// The lengths.
    pub shape: Shape,
    /// Queries.
    pub q: Vec<f32>,
    /// Keys; none in self-attention.
    pub k: Option<Vec<f32>>,
    /// Values; none where they are the keys.
    pub v: Option<Vec<f32>>,
    /// What is added to the logits.
    pub bias: Option<Grid<f32>>,
    /// Which keys count.
    pub mask: Option<Grid<u8>>,
    /// Which keys come too late.
    pub causal: Causality,
    /// Which scores are dropped.
    pub dropout: Option<Drop>,
    /// Where the scores are taken, where they are wanted.
    pub scores: Option<ScoresAt>,
    /// What the plain layer does not have.
    pub family: Family,
    /// What it goes back from, where gradients are wanted.
    pub above: Option<Above>,
}

/// What a door gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The output, `[batch, q_len, out]`; of rotation alone what has been rotated.
    pub y: Vec<f32>,
    /// The scores, `[batch, heads, q_len, kv_len]`; empty where none were wanted.
    pub scores: Vec<f32>,
    /// What a cache holds after the call, keys and values, `[batch, kv_heads, positions, d]`, where it
    /// was wanted.
    pub present: Option<[Vec<f32>; 2]>,
    /// The gradients that were wanted.
    pub gradients: Each,
}

impl Call {
    /// A call of `operation` on queries alone: self-attention without any option.
    #[must_use]
    pub fn new(operation: Operation, shape: Shape, q: Vec<f32>) -> Self {
        Self {
            operation,
            shape,
            q,
            k: None,
            v: None,
            bias: None,
            mask: None,
            causal: Causality::None,
            dropout: None,
            scores: None,
            family: Family::default(),
            above: None,
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[f32] {
        self.k.as_deref().unwrap_or(&self.q)
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        self.v.as_deref().unwrap_or(self.keys())
    }

    /// The attention inside the operation.
    #[must_use]
    pub fn attention(&self) -> Attention {
        match &self.operation {
            Operation::Layer(config, _) => config.attention,
            Operation::DotProduct(attention) => *attention,
            Operation::Rotate(Rotation { sizes: [_, heads, _, d], .. }) => {
                Attention::new(*heads, heads * d, *heads)
            }
        }
    }

    /// Elements of `y`.
    #[must_use]
    pub fn y_len(&self) -> usize {
        match &self.operation {
            Operation::Layer(config, _) => config.y_len(self.shape),
            Operation::DotProduct(attention) => {
                self.shape.batch.saturating_mul(self.shape.q_len).saturating_mul(attention.v)
            }
            Operation::Rotate(_) => self.q.len(),
        }
    }

    /// Elements of the scores, 0 where none are wanted.
    #[must_use]
    pub fn scores_len(&self) -> usize {
        let kv_len = self.shape.kv_len + self.past_len();
        let shape = Shape { kv_len, ..self.shape };
        self.scores.map_or(0, |_| self.attention().scores_len(shape))
    }

    /// The inputs as the library takes them.
    pub(crate) fn inputs(&self) -> Inputs<'_> {
        self.around(match (&self.k, &self.v) {
            (None, None) => Inputs::itself(&self.q),
            (Some(k), None) => Inputs::cross(&self.q, k),
            _ => Inputs::new(&self.q, self.keys(), self.values()),
        })
    }

    /// What stands around queries, keys and values.
    pub(crate) fn around<'a>(&'a self, mut inputs: Inputs<'a>) -> Inputs<'a> {
        if let Some(bias) = &self.bias {
            inputs = inputs.bias(bias.broadcast());
        }
        if let Some(mask) = &self.mask {
            inputs = inputs.mask(Mask::bytes(&mask.data, mask.extents));
        }
        if let Some(rule) = self.causal.rule() {
            inputs = inputs.causal_from(rule);
        }
        if let Some(Drop { p, seed }) = self.dropout {
            inputs = inputs.dropout(Dropout::new(p, seed));
        }
        inputs
    }
}
