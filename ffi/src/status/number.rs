//! The numbers of what can be wrong, and with what. They are stable and never reused.

use mha::Argument;

/// What can be wrong with a call. The numbers are stable and never reused; those below 32 are the
/// same in Rust and JavaScript.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_kind {
    /// Nothing is wrong.
    Ok = 0,
    /// A width or the number of heads is zero.
    Zero = 1,
    /// The number of heads does not divide `qk` or `v`.
    Heads = 2,
    /// A size does not fit the address space.
    TooLarge = 3,
    /// A buffer has the wrong length. Scratch may be longer than needed, nothing else may.
    Length = 4,
    /// An extent of a mask or bias is neither 1 nor the size of its axis.
    Broadcast = 5,
    /// A value lies outside its domain: a scale that is not finite, a probability outside [0, 1),
    /// a word that its enumeration does not have.
    Value = 6,
    /// A range of rows ends before it starts, or past the last row.
    Range = 7,
    /// Two options that exclude each other.
    Conflict = 8,
    /// A cache has no room for what is to be appended.
    CacheFull = 9,
    /// The gradient of something is wanted that the call does not have.
    Absent = 10,
    /// There is no way back through an option.
    Option = 11,
    /// A pointer is NULL that must not be.
    Null = 32,
    /// A pointer is not aligned for what it points to.
    Misaligned = 33,
    /// A buffer that is written overlaps another one.
    Overlap = 34,
}

/// The argument at fault. The numbers are stable and never reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_argument {
    /// No argument: success.
    None = 0,
    /// The widths of the layer.
    Dims = 1,
    /// The number of heads.
    Heads = 2,
    /// The factor on the products of queries and keys.
    Scale = 3,
    /// The lengths of the call.
    Shape = 4,
    /// The query input.
    Q = 5,
    /// The key input.
    K = 6,
    /// The value input.
    V = 7,
    /// The weight of the query projection.
    Wq = 8,
    /// The weight of the key projection.
    Wk = 9,
    /// The weight of the value projection.
    Wv = 10,
    /// The weight of the output projection.
    Wo = 11,
    /// The bias of the query projection.
    Bq = 12,
    /// The bias of the key projection.
    Bk = 13,
    /// The bias of the value projection.
    Bv = 14,
    /// The bias of the output projection.
    Bo = 15,
    /// The additive bias on the logits.
    Bias = 16,
    /// The boolean mask.
    Mask = 17,
    /// The causal rule.
    Causal = 18,
    /// The dropout on the scores.
    Dropout = 19,
    /// The range of query rows.
    Rows = 20,
    /// The output.
    Y = 21,
    /// The scores output.
    Scores = 22,
    /// The working memory.
    Scratch = 23,
    /// The weights of a layer: one flat array of them, or the struct.
    Weights = 24,
    /// The real lengths of the sequences.
    Lens = 25,
    /// The cap of the logits.
    Softcap = 26,
    /// The slopes of ALiBi.
    Alibi = 27,
    /// The rotary positions.
    Rope = 28,
    /// The logits of the sinks.
    Sinks = 29,
    /// The normalisation of q and k.
    Norm = 30,
    /// The documents of queries and keys.
    Segments = 31,
    /// The extra key and value.
    Extra = 32,
    /// The log-sum-exp output.
    Lse = 33,
    /// The key/value cache.
    Cache = 34,
    /// The number of key/value heads.
    KvHeads = 35,
    /// The point at which scores are taken.
    ScoresAt = 36,
    /// What the way forward keeps for the way back.
    Kept = 37,
    /// The layer.
    Layer = 64,
    /// The configuration.
    Config = 65,
    /// The attention without projections.
    Attention = 66,
    /// The struct of the inputs.
    Inputs = 67,
    /// The struct of the outputs.
    Outputs = 68,
    /// The instructions to run on.
    Isa = 69,
    /// The order of the weights in memory.
    WeightOrder = 70,
    /// The weight that an initialiser fills.
    Weight = 72,
    /// The random generator.
    Rng = 73,
    /// A gain, or the parameters of a distribution.
    Parameters = 74,
    /// The struct of the options.
    Options = 75,
    /// An argument that this version of the interface has no number for.
    Other = 255,
}

impl From<Argument> for mha_argument {
    fn from(of: Argument) -> Self {
        argument(of)
    }
}

/// The number of an argument of the crate.
pub(super) const fn argument(argument: Argument) -> mha_argument {
    match argument {
        Argument::Dims => mha_argument::Dims,
        Argument::Heads => mha_argument::Heads,
        Argument::Scale => mha_argument::Scale,
        Argument::Shape => mha_argument::Shape,
        Argument::Q => mha_argument::Q,
        Argument::K => mha_argument::K,
        Argument::V => mha_argument::V,
        Argument::Wq => mha_argument::Wq,
        Argument::Wk => mha_argument::Wk,
        Argument::Wv => mha_argument::Wv,
        Argument::Wo => mha_argument::Wo,
        Argument::Bq => mha_argument::Bq,
        Argument::Bk => mha_argument::Bk,
        Argument::Bv => mha_argument::Bv,
        Argument::Bo => mha_argument::Bo,
        Argument::Bias => mha_argument::Bias,
        Argument::Mask => mha_argument::Mask,
        Argument::Causal => mha_argument::Causal,
        Argument::Dropout => mha_argument::Dropout,
        Argument::Rows => mha_argument::Rows,
        Argument::Y => mha_argument::Y,
        Argument::Scores => mha_argument::Scores,
        Argument::Scratch => mha_argument::Scratch,
        Argument::Weights => mha_argument::Weights,
        Argument::Lens => mha_argument::Lens,
        Argument::Softcap => mha_argument::Softcap,
        Argument::Alibi => mha_argument::Alibi,
        Argument::Rope => mha_argument::Rope,
        Argument::Sinks => mha_argument::Sinks,
        Argument::Norm => mha_argument::Norm,
        Argument::Segments => mha_argument::Segments,
        Argument::Extra => mha_argument::Extra,
        Argument::Lse => mha_argument::Lse,
        Argument::Cache => mha_argument::Cache,
        Argument::KvHeads => mha_argument::KvHeads,
        Argument::ScoresAt => mha_argument::ScoresAt,
        Argument::Kept => mha_argument::Kept,
        // The crate's enumeration may grow; a test fails when it has.
        _ => mha_argument::Other,
    }
}
