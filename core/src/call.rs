//! What a caller hands over for one call: weights, inputs, outputs. Slices and small values only.

use crate::dims::Config;
use crate::dropout::Dropout;
use crate::error::{Argument, Error};
use crate::mask::{Broadcast, Causal, Mask};
use crate::options::{Options, Plain, Rules};

/// The weights of a layer, borrowed: they can stay in flash.
///
/// Each weight has two axes in the order that [`Config::weight_order`] says. Each projection may
/// have a bias of its own; Flux's `bias = true` is all four.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'w> {
    /// Query projection, `[q_in, qk]` or `[qk, q_in]`.
    pub wq: &'w [f32],
    /// Key projection, `[k_in, qk]` or `[qk, k_in]`; with grouped heads `qk` counts
    /// [`Attention::key_features`](crate::Attention::key_features).
    pub wk: &'w [f32],
    /// Value projection, `[v_in, v]` or `[v, v_in]`; with grouped heads `v` counts
    /// [`Attention::value_features`](crate::Attention::value_features).
    pub wv: &'w [f32],
    /// Output projection, `[v, out]` or `[out, v]`.
    pub wo: &'w [f32],
    /// Bias of the query projection, `[qk]`.
    pub bq: Option<&'w [f32]>,
    /// Bias of the key projection, `[qk]`.
    pub bk: Option<&'w [f32]>,
    /// Bias of the value projection, `[v]`.
    pub bv: Option<&'w [f32]>,
    /// Bias of the output projection, `[out]`.
    pub bo: Option<&'w [f32]>,
}

impl<'w> Weights<'w> {
    /// Four weights without biases.
    #[must_use]
    pub const fn new(wq: &'w [f32], wk: &'w [f32], wv: &'w [f32], wo: &'w [f32]) -> Self {
        Self { wq, wk, wv, wo, bq: None, bk: None, bv: None, bo: None }
    }

    /// Adds a bias to every projection.
    #[must_use]
    pub const fn biases(self, bq: &'w [f32], bk: &'w [f32], bv: &'w [f32], bo: &'w [f32]) -> Self {
        Self { bq: Some(bq), bk: Some(bk), bv: Some(bv), bo: Some(bo), ..self }
    }

    /// Takes one flat slice apart: `wq wk wv wo`, then, where there are biases, `bq bk bv bo`.
    ///
    /// # Errors
    /// Those of [`Config::check`], and [`Error::Length`] naming [`Argument::Weights`] for a slice
    /// that is neither [`Config::weights_len`] long nor that plus [`Config::biases_len`].
    pub const fn from_flat(config: &Config, flat: &'w [f32]) -> Result<Self, Error> {
        if let Err(error) = config.check() {
            return Err(error);
        }
        let wrong = Error::Length {
            argument: Argument::Weights,
            needed: config.weights_len(),
            got: flat.len(),
        };
        let lens = config.part_lens();
        let (mut parts, mut rest, mut i) = ([None; 8], flat, 0);
        while i < lens.len() && !(i == 4 && rest.is_empty()) {
            let Some((part, more)) = rest.split_at_checked(lens[i]) else { return Err(wrong) };
            (parts[i], rest) = (Some(part), more);
            i += 1;
        }
        if rest.is_empty() { Ok(Self::from_parts(parts)) } else { Err(wrong) }
    }

    /// From `wq wk wv wo bq bk bv bo`.
    const fn from_parts(parts: [Option<&'w [f32]>; 8]) -> Self {
        const fn weight(part: Option<&[f32]>) -> &[f32] {
            match part {
                Some(part) => part,
                None => &[],
            }
        }
        let [wq, wk, wv, wo, bq, bk, bv, bo] = parts;
        Self { bq, bk, bv, bo, ..Self::new(weight(wq), weight(wk), weight(wv), weight(wo)) }
    }

    /// Checks every length against the configuration.
    pub(crate) const fn check(&self, config: &Config) -> Result<(), Error> {
        const ARGUMENTS: [Argument; 8] = {
            use Argument::{Bk, Bo, Bq, Bv, Wk, Wo, Wq, Wv};
            [Wq, Wk, Wv, Wo, Bq, Bk, Bv, Bo]
        };
        let Self { wq, wk, wv, wo, bq, bk, bv, bo } = *self;
        let parts = [Some(wq), Some(wk), Some(wv), Some(wo), bq, bk, bv, bo];
        let lens = config.part_lens();
        let mut i = 0;
        while i < lens.len() {
            if let Some(part) = parts[i]
                && part.len() != lens[i]
            {
                let (argument, needed) = (ARGUMENTS[i], lens[i]);
                return Err(Error::Length { argument, needed, got: part.len() });
            }
            i += 1;
        }
        Ok(())
    }
}

/// The inputs of one call, all borrowed.
///
/// ```
/// use mha::{Inputs, Mask};
///
/// let tokens = [0.5; 3 * 8];
/// let padding = [true, true, false];
/// // Self-attention, causal, with the third key padded away for every query of every head.
/// let inputs = Inputs::itself(&tokens).causal().mask(Mask::bools(&padding, [1, 1, 1, 3]));
/// # let _ = inputs;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, R = Plain> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) bias: Option<Broadcast<'a, f32>>,
    pub(crate) mask: Option<Mask<'a>>,
    pub(crate) causal: Option<Causal<'a>>,
    pub(crate) dropout: Option<Dropout>,
    pub(crate) rules: R,
}

impl<'a> Inputs<'a> {
    /// `mha(q, k, v)`: queries `[batch, q_len, q_in]`, keys `[batch, kv_len, k_in]`, values
    /// `[batch, kv_len, v_in]`.
    #[must_use]
    pub const fn new(q: &'a [f32], k: &'a [f32], v: &'a [f32]) -> Self {
        Self { q, k, v, bias: None, mask: None, causal: None, dropout: None, rules: Plain }
    }

    /// `mha(q, kv)`: the values are the keys.
    #[must_use]
    pub const fn cross(q: &'a [f32], kv: &'a [f32]) -> Self {
        Self::new(q, kv, kv)
    }

    /// `mha(q)`: self-attention.
    #[must_use]
    pub const fn itself(q: &'a [f32]) -> Self {
        Self::new(q, q, q)
    }

    /// Queries alone, for keys and values that lie in a cache.
    #[must_use]
    pub const fn query(q: &'a [f32]) -> Self {
        Self::new(q, &[], &[])
    }
}

impl<'a, R: Rules> Inputs<'a, R> {
    /// Asks for more than the plain layer: see [`Options`].
    #[must_use]
    pub const fn options<'o>(self, options: &'o Options<'o>) -> Inputs<'a, &'o Options<'o>> {
        let Self { q, k, v, bias, mask, causal, dropout, .. } = self;
        Inputs { q, k, v, bias, mask, causal, dropout, rules: options }
    }

    /// Adds a bias to the logits, before the softmax. −∞ excludes a key as a mask does; keys with
    /// a logit of +∞ share the row equally.
    #[must_use]
    pub const fn bias(self, bias: Broadcast<'a, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Restricts which keys a query may attend to.
    #[must_use]
    pub const fn mask(self, mask: Mask<'a>) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Lets query `i` attend to keys `0..=i` only, without a mask array; with a cache, to all positions
    /// up to its own.
    #[must_use]
    pub const fn causal(self) -> Self {
        self.causal_from(Causal::Natural)
    }

    /// As [`Inputs::causal`], with the queries shifted against the keys.
    #[must_use]
    pub const fn causal_from(self, causal: Causal<'a>) -> Self {
        Self { causal: Some(causal), ..self }
    }

    /// Drops scores at random, as training wants it. Scores that are returned are those after
    /// dropout.
    #[must_use]
    pub const fn dropout(self, dropout: Dropout) -> Self {
        Self { dropout: Some(dropout), ..self }
    }
}

/// At which point of the way from products to probabilities the scores are taken.
///
/// The names follow ONNX's `qk_matmul_output_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoresAt {
    /// Probabilities, after softmax and dropout. Keys that a query may not see have 0.
    #[default]
    Softmax,
    /// `scale · q·kᵀ`, for every key, whether the query may see it or not.
    Logits,
    /// Logits after the softcap, for every key; the same as logits where there is none.
    Capped,
    /// Capped logits plus bias, and −∞ where the query may not see the key.
    Masked,
}

/// The outputs of one call: slices that are overwritten, and never read before that.
#[derive(Debug)]
pub struct Outputs<'a> {
    pub(crate) y: &'a mut [f32],
    pub(crate) scores: Option<&'a mut [f32]>,
    pub(crate) scores_at: ScoresAt,
}

impl<'a> Outputs<'a> {
    /// The output alone, `[batch, q_len, out]`.
    #[must_use]
    pub const fn new(y: &'a mut [f32]) -> Self {
        Self { y, scores: None, scores_at: ScoresAt::Softmax }
    }

    /// Also writes the scores of every head, `[batch, heads, q_len, kv_len]`, or of those heads and
    /// queries that [`Options`] chooses. `y` has the same bits with and without them.
    #[must_use]
    pub const fn scores(self, scores: &'a mut [f32]) -> Self {
        Self { y: self.y, scores: Some(scores), scores_at: self.scores_at }
    }

    /// Takes the scores at another point.
    #[must_use]
    pub const fn scores_at(self, scores_at: ScoresAt) -> Self {
        Self { y: self.y, scores: self.scores, scores_at }
    }
}
