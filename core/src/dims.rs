//! The sizes of a layer and of a call: widths, heads, lengths, and every length that follows from
//! them as a `const fn`, so that a caller can put it in the bound of a static array.
//!
//! Sizes saturate at `usize::MAX` instead of wrapping: as an array bound that fails to compile, and
//! at run time the call is refused with [`Error::TooLarge`].

use crate::error::{Argument, Error};

/// The widths of a layer: `(q_in, k_in, v_in) => (qk, v) => out`.
///
/// Flux writes this argument in four forms; each has a constructor.
///
/// | Flux | here |
/// |---|---|
/// | `(q_in, k_in, v_in) => (qk, v) => out` | [`Dims::new`] |
/// | `n` | [`Dims::square`] |
/// | `in => (qk, v) => out` | [`Dims::shared`] |
/// | `in => qkv => out` | [`Dims::uniform`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Features of a query input.
    pub q_in: usize,
    /// Features of a key input.
    pub k_in: usize,
    /// Features of a value input.
    pub v_in: usize,
    /// Features of the projected queries and keys, all heads together.
    pub qk: usize,
    /// Features of the projected values, all heads together.
    pub v: usize,
    /// Features of the output.
    pub out: usize,
}

impl Dims {
    /// `(q_in, k_in, v_in) => (qk, v) => out`: every width on its own.
    #[must_use]
    pub const fn new(inputs: (usize, usize, usize), (qk, v): (usize, usize), out: usize) -> Self {
        let (q_in, k_in, v_in) = inputs;
        Self { q_in, k_in, v_in, qk, v, out }
    }

    /// `n`: one width for everything.
    #[must_use]
    pub const fn square(n: usize) -> Self {
        Self::uniform(n, n, n)
    }

    /// `in => (qk, v) => out`: queries, keys and values come in with one width.
    #[must_use]
    pub const fn shared(input: usize, (qk, v): (usize, usize), out: usize) -> Self {
        Self::new((input, input, input), (qk, v), out)
    }

    /// `in => qkv => out`: one width in, one inside, one out.
    #[must_use]
    pub const fn uniform(input: usize, qkv: usize, out: usize) -> Self {
        Self::shared(input, (qkv, qkv), out)
    }
}

/// The order in which the two axes of a weight lie in memory. Both are used as they are, without a
/// copy, and give the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightOrder {
    /// `[in, out]` row-major: Flux's `Dense` as stored (column-major `(out, in)`), Keras, Flax,
    /// ONNX `MatMul`.
    #[default]
    InOut,
    /// `[out, in]` row-major: PyTorch, Hugging Face.
    OutIn,
}

/// Attention between projected queries, keys and values: how wide they are, how many heads share
/// them, and the factor on their products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Number of heads; divides `qk` and `v`. Head `h` owns the features `h·d .. (h+1)·d`.
    pub heads: usize,
    /// Number of key/value heads; divides `heads`. Query head `h` reads key/value head
    /// `h / (heads / kv_heads)` (grouped-query attention; 1 is multi-query attention). Keys then have
    /// `kv_heads · qk / heads` features and values `kv_heads · v / heads`.
    pub kv_heads: usize,
    /// Features of queries, all heads together.
    pub qk: usize,
    /// Features of mixed values, all heads together.
    pub v: usize,
    /// Factor on `q·kᵀ`; `None` is `1/√(qk/heads)`. (NNlib's and Lux's keyword of this name is a
    /// denominator; this one multiplies, as in PyTorch and ONNX.)
    pub scale: Option<f32>,
}

impl Attention {
    /// Attention with the given total widths, split over `heads` heads.
    #[must_use]
    pub const fn new(heads: usize, qk: usize, v: usize) -> Self {
        Self { heads, kv_heads: heads, qk, v, scale: None }
    }

    /// Replaces the factor on `q·kᵀ`. It must be finite; zero makes every visible key count alike.
    #[must_use]
    pub const fn scale(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// Lets groups of query heads share a key/value head.
    #[must_use]
    pub const fn kv_heads(self, kv_heads: usize) -> Self {
        Self { kv_heads, ..self }
    }

    /// Features of keys, all key/value heads together.
    #[must_use]
    pub const fn key_features(&self) -> usize {
        product(self.kv_heads, self.head_qk(), 1)
    }

    /// Features of values, all key/value heads together.
    #[must_use]
    pub const fn value_features(&self) -> usize {
        product(self.kv_heads, self.head_v(), 1)
    }

    /// Query heads that share a key/value head.
    pub(crate) const fn sharing(&self) -> usize {
        share(self.heads, self.kv_heads)
    }

    /// Features of one head of queries and keys.
    pub(crate) const fn head_qk(&self) -> usize {
        share(self.qk, self.heads)
    }

    /// Features of one head of values.
    pub(crate) const fn head_v(&self) -> usize {
        share(self.v, self.heads)
    }

    /// Checks what does not depend on the shape of a call.
    ///
    /// # Errors
    /// [`Error::Zero`] for a zero head count or width, [`Error::Heads`] where the heads do not
    /// divide a width, [`Error::Value`] for a scale that is not finite.
    pub const fn check(&self) -> Result<(), Error> {
        if self.heads == 0 {
            return Err(Error::Zero { argument: Argument::Heads });
        }
        if self.kv_heads == 0 {
            return Err(Error::Zero { argument: Argument::KvHeads });
        }
        if self.qk == 0 || self.v == 0 {
            return Err(Error::Zero { argument: Argument::Dims });
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::Value { argument: Argument::KvHeads });
        }
        if !self.qk.is_multiple_of(self.heads) {
            return Err(Error::Heads { heads: self.heads, width: self.qk });
        }
        if !self.v.is_multiple_of(self.heads) {
            return Err(Error::Heads { heads: self.heads, width: self.v });
        }
        if let Some(scale) = self.scale
            && !scale.is_finite()
        {
            return Err(Error::Value { argument: Argument::Scale });
        }
        Ok(())
    }
}

/// Everything about a layer but its weights.
///
/// ```
/// use mha::{Config, Dims, Shape};
///
/// const CONFIG: Config = Config::new(Dims::square(64)).heads(4);
/// const SHAPE: Shape = Shape { batch: 1, q_len: 10, kv_len: 20 };
/// static SCRATCH: [f32; CONFIG.scratch_len(SHAPE)] = [0.0; CONFIG.scratch_len(SHAPE)];
/// assert_eq!(CONFIG.scores_len(SHAPE), 4 * 10 * 20);
/// # let _ = SCRATCH[0];
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The widths.
    pub dims: Dims,
    /// The heads and the scale. Its widths repeat `dims.qk` and `dims.v`.
    pub attention: Attention,
    /// How the weights lie in memory.
    pub weight_order: WeightOrder,
}

impl Config {
    /// A layer of these widths with 8 heads (Flux's default) and weights in `[in, out]` order.
    #[must_use]
    pub const fn new(dims: Dims) -> Self {
        let attention = Attention::new(8, dims.qk, dims.v);
        Self { dims, attention, weight_order: WeightOrder::InOut }
    }

    /// Replaces the number of heads.
    #[must_use]
    pub const fn heads(self, heads: usize) -> Self {
        Self { attention: Attention { heads, kv_heads: heads, ..self.attention }, ..self }
    }

    /// Lets groups of query heads share a key/value head; after [`Config::heads`].
    #[must_use]
    pub const fn kv_heads(self, kv_heads: usize) -> Self {
        Self { attention: self.attention.kv_heads(kv_heads), ..self }
    }

    /// Replaces the factor on `q·kᵀ`, as [`Attention::scale`] does.
    #[must_use]
    pub const fn scale(self, scale: f32) -> Self {
        Self { attention: self.attention.scale(scale), ..self }
    }

    /// Says in which order the weights lie in memory.
    #[must_use]
    pub const fn weight_order(self, weight_order: WeightOrder) -> Self {
        Self { weight_order, ..self }
    }

    /// Elements of `wq`.
    #[must_use]
    pub const fn wq_len(&self) -> usize {
        product(self.dims.q_in, self.dims.qk, 1)
    }

    /// Elements of `wk`.
    #[must_use]
    pub const fn wk_len(&self) -> usize {
        product(self.dims.k_in, self.attention.key_features(), 1)
    }

    /// Elements of `wv`.
    #[must_use]
    pub const fn wv_len(&self) -> usize {
        product(self.dims.v_in, self.attention.value_features(), 1)
    }

    /// Elements of `wo`.
    #[must_use]
    pub const fn wo_len(&self) -> usize {
        product(self.dims.v, self.dims.out, 1)
    }

    /// Elements of each part of the weights, in the order of a flat slice: `wq wk wv wo bq bk bv bo`.
    #[must_use]
    pub const fn part_lens(&self) -> [usize; 8] {
        let (keys, values) = (self.attention.key_features(), self.attention.value_features());
        let Dims { q_in, k_in, v_in, qk, v, out } = self.dims;
        let (wk, wv) = (product(k_in, keys, 1), product(v_in, values, 1));
        [product(q_in, qk, 1), wk, wv, product(v, out, 1), qk, keys, values, out]
    }

    /// Elements of all four weights together.
    #[must_use]
    pub const fn weights_len(&self) -> usize {
        let keys = self.wq_len().saturating_add(self.wk_len());
        keys.saturating_add(self.wv_len()).saturating_add(self.wo_len())
    }

    /// Elements of all four biases together.
    #[must_use]
    pub const fn biases_len(&self) -> usize {
        let keys = self.dims.qk.saturating_add(self.attention.key_features());
        keys.saturating_add(self.attention.value_features()).saturating_add(self.dims.out)
    }

    /// Elements of the output, `[batch, q_len, out]`.
    #[must_use]
    pub const fn y_len(&self, shape: Shape) -> usize {
        product(shape.batch, shape.q_len, self.dims.out)
    }

    /// Elements of the scores, `[batch, heads, q_len, kv_len]`.
    #[must_use]
    pub const fn scores_len(&self, shape: Shape) -> usize {
        self.attention.scores_len(shape)
    }

    /// Checks the widths, heads and scale.
    ///
    /// # Errors
    /// Those of [`Attention::check`], [`Error::Zero`] for any zero width, and
    /// [`Error::TooLarge`] where a weight would not fit the address space.
    pub const fn check(&self) -> Result<(), Error> {
        let Dims { q_in, k_in, v_in, qk, v, out } = self.dims;
        if q_in == 0 || k_in == 0 || v_in == 0 || out == 0 || qk == 0 || v == 0 {
            return Err(Error::Zero { argument: Argument::Dims });
        }
        if qk != self.attention.qk || v != self.attention.v {
            return Err(Error::Value { argument: Argument::Dims });
        }
        if self.weights_len() > MAX_ELEMENTS || self.biases_len() > MAX_ELEMENTS {
            return Err(Error::TooLarge { argument: Argument::Dims });
        }
        self.attention.check()
    }
}

/// The lengths of one call. Zero is allowed everywhere: an empty batch or no queries writes nothing,
/// and without keys every score is absent and the attention output is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Independent sequences.
    pub batch: usize,
    /// Queries of each.
    pub q_len: usize,
    /// Keys and values of each.
    pub kv_len: usize,
}

impl Shape {
    /// A batch of `batch`, `q_len` queries and `kv_len` keys each.
    #[must_use]
    pub const fn new(batch: usize, q_len: usize, kv_len: usize) -> Self {
        Self { batch, q_len, kv_len }
    }

    /// Query rows of the whole batch.
    pub(crate) const fn queries(&self) -> usize {
        product(self.batch, self.q_len, 1)
    }

    /// Key rows of the whole batch.
    pub(crate) const fn keys(&self) -> usize {
        product(self.batch, self.kv_len, 1)
    }
}

impl Attention {
    /// Elements of the scores, `[batch, heads, q_len, kv_len]`.
    #[must_use]
    pub const fn scores_len(&self, shape: Shape) -> usize {
        product(self.heads, shape.queries(), shape.kv_len)
    }
}

/// A product that stops at the largest number there is.
#[cfg_attr(any(feature = "size", target_os = "none"), inline(never))]
pub(crate) const fn product(a: usize, b: usize, c: usize) -> usize {
    a.saturating_mul(b).saturating_mul(c)
}

/// Features of one head; 0 where there is no head, which a check refuses.
const fn share(width: usize, heads: usize) -> usize {
    match width.checked_div(heads) {
        Some(features) => features,
        None => 0,
    }
}

/// The most `f32`s that one slice can hold.
pub(crate) const MAX_ELEMENTS: usize = isize::MAX as usize / size_of::<f32>();
