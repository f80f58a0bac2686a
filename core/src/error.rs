//! What can be wrong with a call, and which argument is at fault.
//!
//! Every error is found before the first output is written, so a caller that sees one finds its
//! buffers as it left them.

use core::fmt;

/// An argument of a call, by the name that it has in Rust, C and TypeScript alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Argument {
    /// The widths of the layer, [`Dims`](crate::Dims).
    Dims,
    /// The number of heads.
    Heads,
    /// The factor on `q·kᵀ`.
    Scale,
    /// [`Shape`](crate::Shape).
    Shape,
    /// The query input.
    Q,
    /// The key input.
    K,
    /// The value input.
    V,
    /// The weight of the query projection.
    Wq,
    /// The weight of the key projection.
    Wk,
    /// The weight of the value projection.
    Wv,
    /// The weight of the output projection.
    Wo,
    /// The bias of the query projection.
    Bq,
    /// The bias of the key projection.
    Bk,
    /// The bias of the value projection.
    Bv,
    /// The bias of the output projection.
    Bo,
    /// The additive bias on the logits.
    Bias,
    /// The boolean mask.
    Mask,
    /// The offset of the causal mask.
    Causal,
    /// The dropout on the scores.
    Dropout,
    /// The range of query rows.
    Rows,
    /// The output.
    Y,
    /// The scores output.
    Scores,
    /// The working memory.
    Scratch,
    /// A flat slice of weights.
    Weights,
    /// The real lengths of the sequences.
    Lens,
    /// The cap of the logits.
    Softcap,
    /// The slopes of ALiBi.
    Alibi,
    /// The rotary positions.
    Rope,
    /// The logits of the sinks.
    Sinks,
    /// The normalisation of q and k.
    Norm,
    /// The documents of queries and keys.
    Segments,
    /// The extra key and value.
    Extra,
    /// The log-sum-exp output.
    Lse,
    /// The key/value cache.
    Cache,
    /// The number of key/value heads.
    KvHeads,
    /// The point at which scores are taken.
    ScoresAt,
    /// What the way forward keeps for the way back.
    Kept,
}

impl Argument {
    /// The argument's name, as the documentation of every language spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dims => "dims",
            Self::Heads => "heads",
            Self::Scale => "scale",
            Self::Shape => "shape",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Wq => "wq",
            Self::Wk => "wk",
            Self::Wv => "wv",
            Self::Wo => "wo",
            Self::Bq => "bq",
            Self::Bk => "bk",
            Self::Bv => "bv",
            Self::Bo => "bo",
            Self::Bias => "bias",
            Self::Mask => "mask",
            Self::Causal => "causal",
            Self::Dropout => "dropout",
            Self::Rows => "rows",
            Self::Y => "y",
            Self::Scores => "scores",
            Self::Scratch => "scratch",
            Self::Weights => "weights",
            Self::Lens => "lens",
            Self::Softcap => "softcap",
            Self::Alibi => "alibi",
            Self::Rope => "rope",
            Self::Sinks => "sinks",
            Self::Norm => "norm",
            Self::Segments => "segments",
            Self::Extra => "extra",
            Self::Lse => "lse",
            Self::Cache => "cache",
            Self::KvHeads => "kv_heads",
            Self::ScoresAt => "scores_at",
            Self::Kept => "kept",
        }
    }
}

/// Why a call was refused. Nothing has been written when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A dimension is zero that must not be.
    Zero {
        /// Where it stands.
        argument: Argument,
    },
    /// The number of heads does not divide a width that is split into heads.
    Heads {
        /// The number of heads.
        heads: usize,
        /// The width (`qk` or `v`) that it does not divide.
        width: usize,
    },
    /// A size of this call does not fit the address space.
    TooLarge {
        /// What is too large.
        argument: Argument,
    },
    /// A slice has the wrong length. For [`Argument::Scratch`] the length needed is a minimum, for
    /// every other argument it is exact.
    Length {
        /// The slice.
        argument: Argument,
        /// The length, in elements, that the call needs.
        needed: usize,
        /// The length that was given.
        got: usize,
    },
    /// An extent of a broadcast array is neither 1 nor the size of its axis.
    Broadcast {
        /// The array.
        argument: Argument,
        /// The axis, counted in `[batch, heads, q_len, kv_len]`.
        axis: usize,
        /// The size of that axis.
        needed: usize,
        /// The extent that was given.
        got: usize,
    },
    /// A value lies outside its domain: a scale that is not finite, a probability outside `[0, 1)`.
    Value {
        /// The value.
        argument: Argument,
    },
    /// Two options that exclude each other.
    Conflict {
        /// One.
        argument: Argument,
        /// The other.
        other: Argument,
    },
    /// A cache has no room for what is to be appended.
    CacheFull {
        /// Positions that it can hold.
        capacity: usize,
        /// Positions that it would have to hold.
        needed: usize,
    },
    /// A range does not lie inside what it selects from.
    Range {
        /// The range.
        argument: Argument,
        /// One past the last element that could be selected.
        len: usize,
        /// The end of the range that was given.
        end: usize,
    },
}

impl Error {
    /// The argument at fault.
    #[must_use]
    pub const fn argument(&self) -> Argument {
        match *self {
            Self::Heads { .. } => Argument::Heads,
            Self::CacheFull { .. } => Argument::Cache,
            Self::Zero { argument }
            | Self::TooLarge { argument }
            | Self::Length { argument, .. }
            | Self::Broadcast { argument, .. }
            | Self::Value { argument }
            | Self::Conflict { argument, .. }
            | Self::Range { argument, .. } => argument,
        }
    }

    /// A stable number for this kind of error, the same in C and JavaScript and never reused.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Zero { .. } => 1,
            Self::Heads { .. } => 2,
            Self::TooLarge { .. } => 3,
            Self::Length { .. } => 4,
            Self::Broadcast { .. } => 5,
            Self::Value { .. } => 6,
            Self::Range { .. } => 7,
            Self::Conflict { .. } => 8,
            Self::CacheFull { .. } => 9,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.argument().name();
        match *self {
            Self::Zero { .. } => write!(f, "{name}: a size is zero"),
            Self::Heads { heads, width } => {
                write!(f, "{name}: {heads} heads do not divide a width of {width}")
            }
            Self::TooLarge { .. } => write!(f, "{name}: the size overflows"),
            Self::Length { argument: Argument::Scratch, needed, got } => {
                write!(f, "{name}: at least {needed} elements needed, {got} given")
            }
            Self::Length { needed, got, .. } => {
                write!(f, "{name}: {needed} elements needed, {got} given")
            }
            Self::Broadcast { axis, needed, got, .. } => {
                write!(f, "{name}: extent {got} of axis {axis} is neither 1 nor {needed}")
            }
            Self::Value { .. } => write!(f, "{name}: the value is outside its domain"),
            Self::Conflict { other, .. } => write!(f, "{name}: excludes {}", other.name()),
            Self::CacheFull { capacity, needed } => {
                write!(f, "{name}: {needed} positions needed, {capacity} there")
            }
            Self::Range { len, end, .. } => {
                write!(f, "{name}: the range ends at {end}, past {len}")
            }
        }
    }
}

impl core::error::Error for Error {}
