//! What a call may ask for beyond the plain layer: the structs, each zero for nothing.

use crate::types::{mha_causal, mha_slice, mha_slice_mut};

/// How far to both sides of its own position a query may see. Zero: without bounds.
///
/// A window of w keys in the sense of Mistral and Keras is the causal rule with `has_left` set and
/// `left` w - 1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_window {
    /// Nonzero: `left` counts.
    pub has_left: u32,
    /// Nonzero: `right` counts.
    pub has_right: u32,
    /// Keys before the query's own position that it sees.
    pub left: usize,
    /// Keys after it that it sees.
    pub right: usize,
}

/// Which slopes ALiBi has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_alibi_kind {
    /// No penalty on distance.
    None = 0,
    /// The usual slopes: 2^(-8 (h + 1) / n) for n heads, a power of two; for other counts those of
    /// the next lower power of two, then every other one of the next higher.
    Standard = 1,
    /// Those that are given.
    Slopes = 2,
}

/// Attention with linear biases: a query at position p and a key at j have -slope * |p - j| added to
/// their logit. Zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_alibi {
    /// One of `enum mha_alibi_kind`.
    pub kind: i32,
    /// For `MHA_ALIBI_KIND_SLOPES`: a slope for each head, `[heads]`.
    pub slopes: mha_slice,
}

/// Where the angles of a rotation come from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_rope_kind {
    /// Nothing is rotated.
    None = 0,
    /// position * base^(-2 i / dims), computed in doubles: exact, and slow without a
    /// double-precision unit.
    Base = 1,
    /// Tables of cosines and sines: a lookup, for any scaling of the frequencies.
    Table = 2,
}

/// Rotary positions: pairs of features of queries and keys are rotated by an angle that grows with
/// the position. Keys lie rotated in a cache. Zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_rope {
    /// One of `enum mha_rope_kind`.
    pub kind: i32,
    /// Zero: pairs are (i, i + dims / 2), as in NeoX and Hugging Face's Llama. Nonzero: (2 i,
    /// 2 i + 1), as in GPT-J and ONNX with interleaved = 1.
    pub interleaved: u32,
    /// For `MHA_ROPE_KIND_BASE`: the base, usually 10000; finite, above zero.
    pub base: f32,
    /// Nonzero: `q_offset` counts. Zero: the first query is rotated by its position.
    pub has_q_offset: u32,
    /// Nonzero: `k_offset` counts. Zero: the first new key is rotated by 0, or by the length of the
    /// cache that it is appended to.
    pub has_k_offset: u32,
    /// Features of each head that are rotated, from the first on; even. Zero: all of them.
    pub dims: usize,
    /// Position by which the first query is rotated.
    pub q_offset: usize,
    /// Position by which the first new key is rotated.
    pub k_offset: usize,
    /// For `MHA_ROPE_KIND_TABLE`: cosines, `[positions][dims / 2]`. A position past the end is refused,
    /// RANGE (rope).
    pub cos: mha_slice,
    /// For `MHA_ROPE_KIND_TABLE`: sines, likewise.
    pub sin: mha_slice,
}

/// By what a head of queries or keys is divided.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_norm_kind {
    /// By nothing.
    None = 0,
    /// sqrt(mean x^2 + epsilon).
    Rms = 1,
    /// sqrt(sum x^2 + epsilon).
    L2 = 2,
}

/// Normalises each head of queries and keys before it is rotated (Gemma 3, Qwen 3). Keys lie
/// normalised in a cache. Zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_norm {
    /// One of `enum mha_norm_kind`.
    pub kind: i32,
    /// Added under the square root; finite, not below zero.
    pub epsilon: f32,
    /// Factor on each feature of a query's head, `[qk / heads]`. Zero: 1.
    pub q_gain: mha_slice,
    /// Factor on each feature of a key's head, `[qk / heads]`. Zero: 1.
    pub k_gain: mha_slice,
}

/// Documents in one row: a query sees keys of its own document only. Zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_segments {
    /// The document of each query, `[batch][q_len]`.
    pub q: *const u32,
    /// How many there are.
    pub q_len: usize,
    /// The document of each key, `[batch][kv_len]`.
    pub kv: *const u32,
    /// How many there are.
    pub kv_len: usize,
}

/// One more key and value that every query sees: PyTorch's `add_bias_kv`. It has no column in the
/// scores. Zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_extra {
    /// The key, projected, `[kv_heads * qk / heads]`.
    pub k: mha_slice,
    /// The value, projected, `[kv_heads * v / heads]`.
    pub v: mha_slice,
}

/// Which scores are written.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_select {
    /// Those of every head, `[batch][heads][q_len][kv_len]`.
    All = 0,
    /// Those of one head, `[batch][q_len][kv_len]`.
    Head = 1,
    /// Their mean over the heads, `[batch][q_len][kv_len]`: PyTorch's default.
    Mean = 2,
}

/// Every option of a call; zero is none. Plain data: it can be a `static const`, and is read during
/// a call only, with everything it points to.
///
/// The order in which they act is ONNX's: normalise queries and keys, rotate them, scale * q * k^T,
/// softcap, bias and ALiBi, visibility (mask, causal rule, window, lens, segments: all must agree),
/// softmax with sinks in its denominator. Any of them may be combined, but where a function says
/// otherwise.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_options {
    /// Position of the first query among the keys, for windows, ALiBi and rotation, in the terms of a
    /// causal rule. Zero: that of the causal rule if there is one, else the one that a cache implies,
    /// else 0.
    pub offset: mha_causal,
    /// How far a query may see. Keys outside cost nothing.
    pub window: mha_window,
    /// How many keys of each sequence are real, `[batch]`, each at most kv_len: padding. Zero: all.
    pub lens: *const usize,
    /// How many lengths there are.
    pub lens_len: usize,
    /// A penalty on the distance between query and key.
    pub alibi: mha_alibi,
    /// Rotary positions.
    pub rope: mha_rope,
    /// A logit for each head, `[heads]`, that takes part in the softmax's denominator and has no
    /// value. Zero: none. An array of zeros is the quiet softmax, and PyTorch's `add_zero_attn`.
    pub sinks: mha_slice,
    /// Normalisation of queries and keys.
    pub norm: mha_norm,
    /// Documents in one row.
    pub segments: mha_segments,
    /// One more key and value.
    pub extra: mha_extra,
    /// Filled in with the log-sum-exp of each row in natural units, `[batch][heads][q_len]`; minus
    /// infinity for a row that sees nothing. `mha_merge` takes it. Zero: not wanted. It may overlap
    /// nothing else in the call.
    pub lse: mha_slice_mut,
    /// Above zero, c: logits become c * tanh(logits / c). Zero: they stay as they are.
    pub softcap: f32,
    /// Which scores are written, where they are asked for: one of `enum mha_select`. Zero: those of
    /// every head.
    pub scores: i32,
    /// For `MHA_SELECT_HEAD`: the head.
    pub score_head: usize,
    /// The first query of each sequence whose scores are written.
    pub score_queries_start: usize,
    /// One past the last of them: the scores have that many rows in place of q_len. Both zero: all.
    pub score_queries_end: usize,
}
