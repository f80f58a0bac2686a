//! The attention family: what a call may ask for beyond the layer of 2017.
//!
//! Options are data. A call without them is compiled without them: [`Inputs`](crate::Inputs) carries
//! its rules in its type, [`Plain`] by default, and a program that never names [`Options`] does not
//! contain their code.

use core::cell::Cell;

use crate::dims::{Attention, Shape};
use crate::error::{Argument, Error};
use crate::mask::Causal;
use crate::select::Select;

/// Every option of a call; [`Options::new`] has none.
///
/// The order in which they act is ONNX's: normalise q and k, rotate them, `scale · q·kᵀ`, softcap,
/// bias and ALiBi, visibility (mask, causal, window, lengths, segments: all must agree), softmax with
/// sinks in its denominator.
///
/// ```
/// use mha::{Alibi, Options, Window};
///
/// // What a small decoder might want: the last 64 keys, distance penalties, capped logits.
/// let options = Options { softcap: Some(30.0), ..Options::new() }
///     .window(Window::left(63))
///     .alibi(Alibi::Standard);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Position of the first query among the keys, for windows, ALiBi and rotation. `None`: that of
    /// the causal rule if there is one, else the one that a cache implies, else 0.
    pub offset: Option<Causal<'a>>,
    /// How far to both sides of its own position a query may see.
    pub window: Window,
    /// How many keys of each sequence are real, `[batch]`, each at most `kv_len`.
    pub lens: Option<&'a [usize]>,
    /// `c > 0`: logits become `c · tanh(logits / c)`.
    pub softcap: Option<f32>,
    /// A penalty on the distance between query and key.
    pub alibi: Option<Alibi<'a>>,
    /// Rotary positions.
    pub rope: Option<Rope<'a>>,
    /// A logit for each head, `[heads]`, that takes part in the softmax's denominator and has no
    /// value. 0 for all heads is the quiet softmax, and PyTorch's `add_zero_attn`.
    pub sinks: Option<&'a [f32]>,
    /// Normalises each head of q and k before they are rotated.
    pub norm: Option<Norm<'a>>,
    /// Documents in one row: a query sees keys of its own document only.
    pub segments: Option<Segments<'a>>,
    /// One more key and value that every query sees: PyTorch's `add_bias_kv`. It has no column in
    /// the scores.
    pub extra: Option<Extra<'a>>,
    /// Of which heads scores are written.
    pub scores: Select,
    /// Of which queries of each sequence scores are written: the first one and one past the last.
    /// The scores then have that many rows in place of `q_len`, see [`Options::scores_len`]; `y` has
    /// the same bits. `None`: all.
    pub score_queries: Option<[usize; 2]>,
    /// Receives the log-sum-exp of each row in natural units, `[batch, heads, q_len]`; −∞ for a row
    /// without a visible key. Make it of a slice by `Cell::from_mut(lse).as_slice_of_cells()`.
    pub lse: Option<&'a [Cell<f32>]>,
}

impl<'a> Options<'a> {
    /// No option.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            offset: None,
            window: Window { left: None, right: None },
            lens: None,
            softcap: None,
            alibi: None,
            rope: None,
            sinks: None,
            norm: None,
            segments: None,
            extra: None,
            scores: Select::All,
            score_queries: None,
            lse: None,
        }
    }

    /// Sets [`Options::window`].
    #[must_use]
    pub const fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Sets [`Options::lens`].
    #[must_use]
    pub const fn lens(self, lens: &'a [usize]) -> Self {
        Self { lens: Some(lens), ..self }
    }

    /// Sets [`Options::softcap`].
    #[must_use]
    pub const fn softcap(self, softcap: f32) -> Self {
        Self { softcap: Some(softcap), ..self }
    }

    /// Sets [`Options::alibi`].
    #[must_use]
    pub const fn alibi(self, alibi: Alibi<'a>) -> Self {
        Self { alibi: Some(alibi), ..self }
    }

    /// Sets [`Options::rope`].
    #[must_use]
    pub const fn rope(self, rope: Rope<'a>) -> Self {
        Self { rope: Some(rope), ..self }
    }

    /// Sets [`Options::sinks`].
    #[must_use]
    pub const fn sinks(self, sinks: &'a [f32]) -> Self {
        Self { sinks: Some(sinks), ..self }
    }

    /// Sets [`Options::norm`].
    #[must_use]
    pub const fn norm(self, norm: Norm<'a>) -> Self {
        Self { norm: Some(norm), ..self }
    }

    /// Sets [`Options::segments`].
    #[must_use]
    pub const fn segments(self, segments: Segments<'a>) -> Self {
        Self { segments: Some(segments), ..self }
    }

    /// Sets [`Options::offset`].
    #[must_use]
    pub const fn offset(self, offset: Causal<'a>) -> Self {
        Self { offset: Some(offset), ..self }
    }

    /// Whether nothing but keys takes part in a row's softmax, and nobody asks for its sum.
    pub(crate) fn is_keys_alone(&self) -> bool {
        self.sinks.is_none() && self.extra.is_none() && self.lse.is_none()
    }

    /// Whether scores are not those of all heads and queries.
    pub(crate) fn selects_scores(&self) -> bool {
        self.scores != Select::All || self.score_queries.is_some()
    }

    /// Checks every option against a call.
    pub(crate) fn check(&self, attention: &Attention, shape: Shape) -> Result<(), Error> {
        let exact = |argument, got, needed| {
            if got == needed { Ok(()) } else { Err(Error::Length { argument, needed, got }) }
        };
        let (batch, d) = (shape.batch, attention.head_qk());
        if let Some(offset) = &self.offset {
            offset.check(shape)?;
        }
        if let Some(lens) = self.lens {
            exact(Argument::Lens, lens.len(), batch)?;
            if let Some(&end) = lens.iter().find(|&&len| len > shape.kv_len) {
                return Err(Error::Range { argument: Argument::Lens, len: shape.kv_len, end });
            }
        }
        if let Some(cap) = self.softcap
            && !(cap > 0.0 && cap.is_finite())
        {
            return Err(Error::Value { argument: Argument::Softcap });
        }
        if let Some(Alibi::Slopes(slopes)) = self.alibi {
            exact(Argument::Alibi, slopes.len(), attention.heads)?;
        }
        if let Some(sinks) = self.sinks {
            exact(Argument::Sinks, sinks.len(), attention.heads)?;
        }
        if let Some(rope) = &self.rope {
            rope.check(d)?;
        }
        if let Some(norm) = &self.norm {
            for gain in [norm.q_gain, norm.k_gain].into_iter().flatten() {
                exact(Argument::Norm, gain.len(), d)?;
            }
            if !(norm.epsilon >= 0.0 && norm.epsilon.is_finite()) {
                return Err(Error::Value { argument: Argument::Norm });
            }
        }
        if let Some(segments) = &self.segments {
            exact(Argument::Segments, segments.q.len(), shape.queries())?;
            exact(Argument::Segments, segments.kv.len(), shape.keys())?;
        }
        if let Some(extra) = &self.extra {
            exact(Argument::Extra, extra.k.len(), attention.key_features())?;
            exact(Argument::Extra, extra.v.len(), attention.value_features())?;
        }
        self.check_scores(attention, shape)?;
        if let Some(lse) = self.lse {
            exact(Argument::Lse, lse.len(), shape.queries().saturating_mul(attention.heads))?;
        }
        Ok(())
    }
}

/// How far a query at position p may see: keys `p - left ..= p + right`, each bound inclusive and
/// `None` for no bound.
///
/// A window of w keys in the sense of Mistral and Keras is causal with `left = w - 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Keys before the query's position.
    pub left: Option<usize>,
    /// Keys after it.
    pub right: Option<usize>,
}

impl Window {
    /// At most `left` keys before the query's own position, without a bound after it.
    #[must_use]
    pub const fn left(left: usize) -> Self {
        Self { left: Some(left), right: None }
    }

    /// Bounds on both sides.
    #[must_use]
    pub const fn both(left: usize, right: usize) -> Self {
        Self { left: Some(left), right: Some(right) }
    }
}

/// Attention with linear biases: a query at position p and a key at j have `-slope · |p - j|` added
/// to their logit. Press, Smith, Lewis: *Train short, test long*, 2022; the symmetrical form is
/// FlashAttention's, and equal under a causal rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alibi<'a> {
    /// The usual slopes: `2^(-8 (h+1) / n)` for n heads, a power of two; for other counts those of
    /// the next lower power of two, then every other one of the next higher.
    Standard,
    /// A slope for each head, `[heads]`.
    Slopes(&'a [f32]),
}

impl Alibi<'_> {
    /// The slope of a head.
    pub(crate) fn slope(&self, head: usize, heads: usize) -> f32 {
        match self {
            Self::Slopes(slopes) => slopes.get(head).copied().unwrap_or(0.0),
            Self::Standard => {
                let power = 1usize << heads.max(1).ilog2();
                let (step, exponent) = if head < power {
                    (8.0 / power as f32, head + 1)
                } else {
                    (4.0 / power as f32, 2 * (head - power) + 1)
                };
                libm::exp2f(-step * exponent as f32)
            }
        }
    }
}

/// Rotary positions: pairs of features are rotated by an angle that grows with the position. Su, Lu,
/// Pan, Murtadha, Wen, Liu: *RoFormer*, 2021.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope<'a> {
    /// Features of each head that are rotated, from the first on; even, 0 for all.
    pub dims: usize,
    /// Pairs are `(2i, 2i+1)` (GPT-J, ONNX `interleaved = 1`) instead of `(i, i + dims/2)` (NeoX,
    /// Llama as Hugging Face stores it, ONNX's default).
    pub interleaved: bool,
    /// The angles.
    pub angles: Angles<'a>,
    /// Position of the first query. `None`: [`Options::offset`] or what stands in for it.
    pub q_offset: Option<usize>,
    /// Position of the first new key. `None`: 0, or the length of the cache that it is added to.
    pub k_offset: Option<usize>,
}

/// Where the angles of a rotation come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Angles<'a> {
    /// `position · base^(-2i / dims)`, computed in doubles: exact, and slow without a double-precision
    /// unit.
    Base(f32),
    /// Tables `[positions, dims / 2]` of cosines and sines, as ONNX has them; frequencies can be
    /// scaled so. A position past the table's end is [`Error::Range`] naming [`Argument::Rope`].
    Table {
        /// Cosines.
        cos: &'a [f32],
        /// Sines.
        sin: &'a [f32],
    },
}

impl<'a> Rope<'a> {
    /// Half-split pairs over all features, angles from a base.
    #[must_use]
    pub const fn new(base: f32) -> Self {
        let angles = Angles::Base(base);
        Self { dims: 0, interleaved: false, angles, q_offset: None, k_offset: None }
    }

    /// Half-split pairs over all features, angles from tables.
    #[must_use]
    pub const fn table(cos: &'a [f32], sin: &'a [f32]) -> Self {
        Self { angles: Angles::Table { cos, sin }, ..Self::new(0.0) }
    }

    /// Pairs of features that are rotated.
    pub(crate) fn pairs(&self, d: usize) -> usize {
        if self.dims == 0 { d / 2 } else { self.dims / 2 }
    }

    fn check(&self, d: usize) -> Result<(), Error> {
        let wrong = Err(Error::Value { argument: Argument::Rope });
        let dims = if self.dims == 0 { d } else { self.dims };
        if dims > d || !dims.is_multiple_of(2) {
            return wrong;
        }
        match self.angles {
            Angles::Base(base) if base > 0.0 && base.is_finite() => Ok(()),
            Angles::Table { cos, sin }
                if cos.len() == sin.len()
                    && !cos.is_empty()
                    && cos.len().is_multiple_of((dims / 2).max(1)) =>
            {
                Ok(())
            }
            _ => wrong,
        }
    }

    /// Cosine and sine of pair `i` at a position.
    pub(crate) fn angle(&self, position: usize, i: usize, pairs: usize) -> (f32, f32) {
        match self.angles {
            Angles::Base(base) => {
                let frequency = libm::pow(f64::from(base), -(i as f64) / pairs.max(1) as f64);
                let (sin, cos) = libm::sincos(position as f64 * frequency);
                (cos as f32, sin as f32)
            }
            Angles::Table { cos, sin } => {
                let rows = cos.len().checked_div(pairs).unwrap_or(0);
                // The position has been checked.
                let at = position.min(rows.saturating_sub(1)) * pairs + i;
                (cos.get(at).copied().unwrap_or(1.0), sin.get(at).copied().unwrap_or(0.0))
            }
        }
    }
}

/// How each head of q and k is normalised before it is rotated (Gemma 3, Qwen 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm<'a> {
    /// By what a head is divided.
    pub kind: NormKind,
    /// Added under the square root.
    pub epsilon: f32,
    /// Factor on each feature of a query's head, `[d]`.
    pub q_gain: Option<&'a [f32]>,
    /// Factor on each feature of a key's head, `[d]`.
    pub k_gain: Option<&'a [f32]>,
}

/// By what a head is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormKind {
    /// `√(mean x² + ε)`.
    #[default]
    Rms,
    /// `√(Σ x² + ε)`.
    L2,
}

/// Documents in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments<'a> {
    /// The document of each query, `[batch, q_len]`.
    pub q: &'a [u32],
    /// The document of each key, `[batch, kv_len]`.
    pub kv: &'a [u32],
}

/// One more key and value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extra<'a> {
    /// The key, projected, `[kv_heads · d]`.
    pub k: &'a [f32],
    /// The value, projected, `[kv_heads · d_v]`.
    pub v: &'a [f32],
}

/// What decides which options a call has: [`Plain`], or [`Options`] by reference.
pub trait Rules: Copy + sealed::Sealed {
    /// Whether a call can have options at all.
    #[doc(hidden)]
    const OPTIONAL: bool;

    /// The options, if the call can have any.
    fn options(&self) -> Option<&Options<'_>>;
}

/// No options, and no code for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Rules for Plain {
    const OPTIONAL: bool = false;

    #[inline(always)]
    fn options(&self) -> Option<&Options<'_>> {
        None
    }
}

impl Rules for &Options<'_> {
    const OPTIONAL: bool = true;

    #[inline(always)]
    fn options(&self) -> Option<&Options<'_>> {
        Some(self)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Plain {}
    impl Sealed for &super::Options<'_> {}
}
