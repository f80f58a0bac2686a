//! What goes into the way back and what comes out of it: gradients, and what can be wrong with them.

use core::fmt;
use core::ops::Range;

use crate::call::Inputs;
use crate::dims::{Attention, Config, Shape};
use crate::error::{Argument, Error};
use crate::options::Rules;

/// The gradient of a loss with respect to what the layer returned.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    pub(super) dy: &'a [f32],
    pub(super) scores: Option<&'a [f32]>,
    pub(super) kept: Option<&'a [f32]>,
}

impl<'a> Upstream<'a> {
    /// With respect to the output, `[batch, q_len, out]`.
    #[must_use]
    pub const fn new(dy: &'a [f32]) -> Self {
        Self { dy, scores: None, kept: None }
    }

    /// Also with respect to the scores, `[batch, heads, q_len, kv_len]`: those after the softmax and
    /// after dropout.
    #[must_use]
    pub const fn scores(self, scores: &'a [f32]) -> Self {
        Self { scores: Some(scores), ..self }
    }

    /// What [`MultiHeadAttention::forward_keeping`](crate::MultiHeadAttention::forward_keeping) has kept of
    /// the same inputs, [`Config::kept_len`] floats: it is not computed again. The gradients have the same
    /// bits. (On instructions of another family than those of the way forward they are as good.)
    #[must_use]
    pub const fn kept(self, kept: &'a [f32]) -> Self {
        Self { kept: Some(kept), ..self }
    }
}

/// Where the gradients go: those that are wanted. What is not wanted is not computed.
///
/// Each has the shape and the order of what it is the gradient of. Where the same array is handed to a
/// layer twice (self-attention), its gradient is the sum of both.
///
/// ```
/// use mha::Gradients;
///
/// let mut dq = [0.0; 4];
/// let gradients = Gradients { q: Some(&mut dq), ..Gradients::default() };
/// assert!(!gradients.accumulate);
/// ```
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the query input, `[batch, q_len, q_in]`.
    pub q: Option<&'a mut [f32]>,
    /// Of the key input, `[batch, kv_len, k_in]`.
    pub k: Option<&'a mut [f32]>,
    /// Of the value input, `[batch, kv_len, v_in]`.
    pub v: Option<&'a mut [f32]>,
    /// Of the query projection.
    pub wq: Option<&'a mut [f32]>,
    /// Of the key projection.
    pub wk: Option<&'a mut [f32]>,
    /// Of the value projection.
    pub wv: Option<&'a mut [f32]>,
    /// Of the output projection.
    pub wo: Option<&'a mut [f32]>,
    /// Of the bias of the query projection.
    pub bq: Option<&'a mut [f32]>,
    /// Of the bias of the key projection.
    pub bk: Option<&'a mut [f32]>,
    /// Of the bias of the value projection.
    pub bv: Option<&'a mut [f32]>,
    /// Of the bias of the output projection.
    pub bo: Option<&'a mut [f32]>,
    /// Of the additive bias on the logits, in the extents that the call gave it: summed where it stands
    /// for several. Over queries it is summed a block at a time, so that its last bits depend on the
    /// scratch where it stands for several of them.
    pub bias: Option<&'a mut [f32]>,
    /// Adds to what is there instead of overwriting it.
    pub accumulate: bool,
}

impl<'a> Gradients<'a> {
    /// Of all weights, and of all biases where `flat` has room for them, in the order of
    /// [`Weights::from_flat`](crate::Weights::from_flat).
    ///
    /// # Errors
    /// Those of [`Weights::from_flat`](crate::Weights::from_flat).
    pub fn from_flat(config: &Config, flat: &'a mut [f32]) -> Result<Self, Error> {
        config.check()?;
        let (weights, biases) = (config.weights_len(), config.biases_len());
        let got = flat.len();
        if got != weights && got != weights + biases {
            let argument = Argument::Weights;
            return Err(Error::Length { argument, needed: weights, got });
        }
        let mut rest = flat;
        let [wq, wk, wv, wo, bq, bk, bv, bo] = config.part_lens();
        let mut next = |len| Some(crate::plan::take(&mut rest, len));
        let [wq, wk, wv, wo] = [wq, wk, wv, wo].map(&mut next);
        let mut gradients = Self { wq, wk, wv, wo, ..Self::default() };
        if got > weights {
            let [bq, bk, bv, bo] = [bq, bk, bv, bo].map(next);
            gradients = Self { bq, bk, bv, bo, ..gradients };
        }
        Ok(gradients)
    }

    /// All of them, with what they are the gradients of.
    pub(super) fn each(&mut self) -> [(Argument, &mut Option<&'a mut [f32]>); 12] {
        [
            (Argument::Q, &mut self.q),
            (Argument::K, &mut self.k),
            (Argument::V, &mut self.v),
            (Argument::Wq, &mut self.wq),
            (Argument::Wk, &mut self.wk),
            (Argument::Wv, &mut self.wv),
            (Argument::Wo, &mut self.wo),
            (Argument::Bq, &mut self.bq),
            (Argument::Bk, &mut self.bk),
            (Argument::Bv, &mut self.bv),
            (Argument::Bo, &mut self.bo),
            (Argument::Bias, &mut self.bias),
        ]
    }

    /// Checks each against the length of what it is the gradient of, `None` where there is no such thing.
    pub(super) fn check(
        &mut self,
        lengths: &[(Argument, Option<usize>)],
    ) -> Result<(), BackwardError> {
        for (of, gradient) in self.each() {
            let Some(gradient) = gradient else { continue };
            let known = lengths.iter().find(|(argument, _)| *argument == of);
            let Some((_, Some(needed))) = known else { return Err(BackwardError::Absent { of }) };
            if gradient.len() != *needed {
                let (needed, got) = (*needed, gradient.len());
                return Err(BackwardError::Gradient { of, needed, got });
            }
        }
        Ok(())
    }

    /// Zeros, where nothing is to be added to.
    pub(super) fn start(&mut self) {
        if self.accumulate {
            return;
        }
        for (_, gradient) in self.each() {
            if let Some(gradient) = gradient {
                gradient.fill(0.0);
            }
        }
    }
}

/// What one thread or core does of a way back that several share: some heads of some sequences.
///
/// Every part has gradients of its own; the sum over the parts is that of the whole call. Parts of
/// different heads touch different columns of the weights and all of the inputs, parts of different
/// sequences the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Sequences of the batch.
    pub sequences: Range<usize>,
    /// Key/value heads, and with them the query heads that share them.
    pub kv_heads: Range<usize>,
}

impl Part {
    /// Everything.
    pub(super) const fn whole(attention: &Attention, shape: Shape) -> Self {
        Self { sequences: 0..shape.batch, kv_heads: 0..attention.kv_heads }
    }

    pub(super) fn check(&self, attention: &Attention, shape: Shape) -> Result<(), Error> {
        let inside = |range: &Range<usize>, len, argument| {
            if range.start <= range.end && range.end <= len {
                Ok(())
            } else {
                Err(Error::Range { argument, len, end: range.end })
            }
        };
        inside(&self.sequences, shape.batch, Argument::Rows)?;
        inside(&self.kv_heads, attention.kv_heads, Argument::KvHeads)
    }
}

impl Config {
    /// One part of a way back that is shared by `parts` threads or cores: what
    /// [`MultiHeadAttention::backward_part`](crate::MultiHeadAttention::backward_part) takes. The parts
    /// `0..parts` together are everything, and cost about the same: they share the sequences out, or the
    /// heads where those come out more even. There are empty ones where there are too many.
    ///
    /// ```
    /// use mha::{Config, Dims, Shape};
    ///
    /// const CONFIG: Config = Config::new(Dims::square(64));
    /// let second = CONFIG.split_backward(Shape::new(1, 100, 100), 1, 2);
    /// assert_eq!((second.sequences, second.kv_heads), (0..1, 4..8));
    /// let second = CONFIG.split_backward(Shape::new(6, 100, 100), 1, 2);
    /// assert_eq!((second.sequences, second.kv_heads), (3..6, 0..8));
    /// ```
    #[must_use]
    pub fn split_backward(&self, shape: Shape, part: usize, parts: usize) -> Part {
        let (batch, heads) = (shape.batch, self.attention.kv_heads);
        // What the largest part has of the whole, times the product of both.
        let largest = |count: usize, others: usize| {
            count.div_ceil(parts.max(1)).saturating_mul(others.max(1))
        };
        if largest(batch, heads) <= largest(heads, batch) {
            Part { sequences: share(batch, part, parts), kv_heads: 0..heads }
        } else {
            Part { sequences: 0..batch, kv_heads: share(heads, part, parts) }
        }
    }
}

/// One of `parts` shares of `count`, which differ by at most one.
fn share(count: usize, part: usize, parts: usize) -> Range<usize> {
    let parts = parts.max(1);
    let (each, more) = (count / parts, count % parts);
    let start = |part: usize| {
        let part = part.min(parts);
        part * each + part.min(more)
    };
    start(part)..start(part.saturating_add(1))
}

/// Why there is no way back for a call.
///
/// A type of its own, so that a program that only goes forward does not contain its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackwardError {
    /// What is wrong with the call itself.
    Call(Error),
    /// The gradient of an argument, or with respect to one ([`Argument::Y`], [`Argument::Scores`]), has
    /// the wrong length.
    Gradient {
        /// The argument.
        of: Argument,
        /// Elements that it needs.
        needed: usize,
        /// Elements that it has.
        got: usize,
    },
    /// The gradient of an argument is wanted that the call does not have.
    Absent {
        /// The argument.
        of: Argument,
    },
    /// There is no way back through an option.
    Option {
        /// The option.
        argument: Argument,
    },
}

impl BackwardError {
    /// The argument at fault, or the one whose gradient is.
    #[must_use]
    pub const fn argument(&self) -> Argument {
        match *self {
            Self::Call(error) => error.argument(),
            Self::Gradient { of, .. } | Self::Absent { of } => of,
            Self::Option { argument } => argument,
        }
    }

    /// A stable number for this kind of error, the same in C and JavaScript and never reused; those of
    /// [`Error::code`] for a call that is wrong itself.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Call(error) => error.code(),
            Self::Gradient { .. } => 4,
            Self::Absent { .. } => 10,
            Self::Option { .. } => 11,
        }
    }
}

impl From<Error> for BackwardError {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for BackwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.argument().name();
        match *self {
            Self::Call(error) => error.fmt(f),
            Self::Gradient { needed, got, .. } => {
                write!(f, "d{name}: {needed} elements needed, {got} given")
            }
            Self::Absent { .. } => write!(f, "d{name}: the call has no {name}"),
            Self::Option { .. } => write!(f, "{name}: there is no way back through it"),
        }
    }
}

impl core::error::Error for BackwardError {}

/// Refuses what there is no way back through.
pub(super) fn check_options<R: Rules>(
    inputs: &Inputs<'_, R>,
    with_scores: bool,
) -> Result<(), BackwardError> {
    let Some(options) = inputs.rules.options() else { return Ok(()) };
    let refused = [
        (options.norm.is_some(), Argument::Norm),
        (options.extra.is_some(), Argument::Extra),
        (options.lse.is_some(), Argument::Lse),
        (with_scores && options.selects_scores(), Argument::Scores),
    ];
    match refused.into_iter().find(|(refused, _)| *refused) {
        Some((_, argument)) => Err(BackwardError::Option { argument }),
        None => Ok(()),
    }
}
