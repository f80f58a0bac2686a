//! The structs of the interface.
//!
//! Every struct can be a `static const` with designated initialisers. A member left out is zero, and
//! zero is the default, except for widths and heads: those must be said, so that a struct that
//! nobody filled in is an error. How each becomes its twin in Rust is in `convert`.

/// The widths of a layer: `(q_in, k_in, v_in) => (qk, v) => out`. None may be zero.
///
/// `MHA_DIMS`, `MHA_DIMS_UNIFORM` and `MHA_DIMS_SHARED` are initialisers for the short forms.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_dims {
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

/// The order in which the two axes of a weight lie in memory. Both are used as they are, without a
/// copy, and give the same bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_weight_order {
    /// `[in][out]`: Flux's `Dense` as stored (column-major `(out, in)`), Keras, Flax, ONNX MatMul.
    InOut = 0,
    /// `[out][in]`: PyTorch, Hugging Face.
    OutIn = 1,
}

/// Everything about a layer but its weights. `MHA_CONFIG(n, heads)` is an initialiser.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_config {
    /// The widths.
    pub dims: mha_dims,
    /// Number of heads, at least 1; divides `dims.qk` and `dims.v`. Head h owns the features
    /// h * d to (h + 1) * d of queries, keys and values.
    pub heads: usize,
    /// How the weights lie in memory: one of `enum mha_weight_order`. Zero: `[in][out]`.
    pub weight_order: i32,
    /// Nonzero: `scale` counts. Zero: the factor is 1 / sqrt(qk / heads), and `scale` is not looked
    /// at.
    pub has_scale: u32,
    /// Factor on q * k^T, finite. (Flux's and NNlib's argument of that name is a denominator.)
    pub scale: f32,
    /// Number of key/value heads; divides `heads`. Head h reads key/value head h / (heads /
    /// kv_heads): grouped-query attention, 1 is multi-query attention. Keys are then projected to
    /// kv_heads * qk / heads features, values to kv_heads * v / heads. Zero: as many as `heads`.
    pub kv_heads: usize,
}

/// Floats that are read. Either both members are zero (there is no such buffer), or `data` points to
/// `len` floats, aligned to 4 bytes, that stay as they are during a call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_slice {
    /// The first float. Not looked at where `len` is zero.
    pub data: *const f32,
    /// How many floats there are.
    pub len: usize,
}

/// Floats that are written. Either both members are zero (there is no such buffer), or `data` points
/// to `len` floats, aligned to 4 bytes, that nobody else touches during a call. What they hold
/// before does not matter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_slice_mut {
    /// The first float. Not looked at where `len` is zero.
    pub data: *mut f32,
    /// How many floats there are.
    pub len: usize,
}

/// The weights of a layer, in the shapes below; with grouped heads (`kv_heads`), qk and v stand for
/// the features of keys and of values in wk, wv, bk and bv. They are borrowed and only read: they can stay in flash, and must live as
/// long as the layer is used.
///
/// A length of zero beside a pointer means that nobody counted: the length is then taken from the
/// configuration. `MHA_SLICE(array)` counts, and a wrong count is an error.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_weights {
    /// Query projection, `[q_in][qk]` or `[qk][q_in]`.
    pub wq: mha_slice,
    /// Key projection, `[k_in][qk]` or `[qk][k_in]`.
    pub wk: mha_slice,
    /// Value projection, `[v_in][v]` or `[v][v_in]`.
    pub wv: mha_slice,
    /// Output projection, `[v][out]` or `[out][v]`.
    pub wo: mha_slice,
    /// Bias of the query projection, `[qk]`. Zero: none.
    pub bq: mha_slice,
    /// Bias of the key projection, `[qk]`. Zero: none.
    pub bk: mha_slice,
    /// Bias of the value projection, `[v]`. Zero: none.
    pub bv: mha_slice,
    /// Bias of the output projection, `[out]`. Zero: none.
    pub bo: mha_slice,
}

/// Multi-head attention with its four projections: Flux's `MultiHeadAttention`.
///
/// It can be a `static const` in flash, weights and all. Nothing is ever written to it, so any
/// number of threads, tasks and interrupts may use one at the same time, each with outputs and
/// scratch of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_layer {
    /// Widths, heads, scale, order of the weights.
    pub config: mha_config,
    /// The weights.
    pub weights: mha_weights,
    /// The instructions to run on: one of `enum mha_isa`. Zero: the fastest that the machine has.
    pub isa: i32,
}

/// Attention between queries, keys and values that are projected already.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_attention {
    /// Number of heads, at least 1; divides `qk` and `v`.
    pub heads: usize,
    /// Features of queries and keys, all heads together, at least 1.
    pub qk: usize,
    /// Features of values, all heads together, at least 1.
    pub v: usize,
    /// Nonzero: `scale` counts. Zero: the factor is 1 / sqrt(qk / heads).
    pub has_scale: u32,
    /// Factor on q * k^T, finite.
    pub scale: f32,
    /// Number of key/value heads, as in `mha_config`. Zero: as many as `heads`.
    pub kv_heads: usize,
}

/// The lengths of one call. Any may be zero: an empty batch or no queries writes nothing; without
/// keys, attention is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_shape {
    /// Independent sequences.
    pub batch: usize,
    /// Queries of each.
    pub q_len: usize,
    /// Keys and values of each.
    pub kv_len: usize,
}

/// A boolean mask: which keys a query may attend to, with or without the causal rule. Zero: no mask.
///
/// Nonzero attends, as in Flux and ONNX, unless `excluding` says otherwise.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_mask {
    /// A byte each, row-major `[batch][heads][q_len][kv_len]` after the extents below. An array of
    /// `bool` will do with a cast.
    pub data: *const u8,
    /// How many bytes there are: the product of the extents.
    pub len: usize,
    /// For each of the axes batch, heads, q_len, kv_len: 1 where the mask is the same all along it,
    /// otherwise the axis's size. Zero stands for the axis's size. A mask of padded keys, say, is
    /// `{ 0, 1, 1, 0 }`, `[batch][kv_len]`.
    pub extents: [usize; 4],
    /// Nonzero: the opposite sense, a nonzero byte is excluded, as in PyTorch's
    /// `nn.MultiheadAttention` and in Burn.
    pub excluding: u32,
}

/// A bias that is added to the logits, before the softmax. Zero: no bias.
///
/// Minus infinity excludes a key as a mask does; keys whose logit is plus infinity share the row.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_bias {
    /// A float each, row-major `[batch][heads][q_len][kv_len]` after the extents below.
    pub data: *const f32,
    /// How many floats there are: the product of the extents.
    pub len: usize,
    /// For each of the axes batch, heads, q_len, kv_len: 1 where the bias is the same all along it,
    /// otherwise the axis's size. Zero stands for the axis's size.
    pub extents: [usize; 4],
}

/// Which causal rule a call follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_causal_mode {
    /// None: a query may attend to every key.
    None = 0,
    /// One offset for the whole batch.
    Offset = 1,
    /// An offset for each sequence of the batch.
    PerSequence = 2,
    /// As it comes naturally: the first query is at the first key or, with a cache, the last query at
    /// the last position.
    Natural = 3,
}

/// The causal rule: query i may attend to key j when j <= i + offset. No array is needed for it, and
/// keys that it hides cost nothing. Zero: no rule. `MHA_CAUSAL` is an initialiser for the usual one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_causal {
    /// One of `enum mha_causal_mode`. Zero: no rule.
    pub mode: i32,
    /// For `MHA_CAUSAL_MODE_OFFSET`. 0 aligns the first query with the first key (Flux, PyTorch,
    /// Keras); `kv_len - q_len` aligns the last with the last. A negative offset leaves the first
    /// queries without any key.
    pub offset: isize,
    /// For `MHA_CAUSAL_MODE_PER_SEQUENCE`: the offsets, `[batch]`.
    pub offsets: *const isize,
    /// How many offsets there are.
    pub offsets_len: usize,
}

/// Dropout on the scores, for training. Zero: none.
///
/// The same seed, batch, head, query and key give the same decision on every machine.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_dropout {
    /// Probability of dropping a score, 0 <= p < 1; those that stay are multiplied by 1 / (1 - p).
    pub p: f32,
    /// Seed of the decisions.
    pub seed: u64,
}

/// The inputs of one call. Zero is the default for all of it but `q`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_inputs {
    /// Queries, `[batch][q_len][q_in]`.
    pub q: mha_slice,
    /// Keys, `[batch][kv_len][k_in]`. Zero: the queries (self-attention), unless kv_len is zero.
    /// Functions that take a cache do not look at keys and values.
    pub k: mha_slice,
    /// Values, `[batch][kv_len][v_in]`. Zero: the keys, unless kv_len is zero.
    pub v: mha_slice,
    /// Additive bias.
    pub bias: mha_bias,
    /// Boolean mask.
    pub mask: mha_mask,
    /// Causal rule.
    pub causal: mha_causal,
    /// Dropout.
    pub dropout: mha_dropout,
}

/// At which point of the way from products to probabilities the scores are taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_scores_at {
    /// Probabilities, after softmax and dropout. Keys that a query may not see have 0.
    Softmax = 0,
    /// scale * q * k^T, for every key, whether the query may see it or not.
    Logits = 1,
    /// Capped logits plus bias, and minus infinity where the query may not see the key.
    Masked = 2,
    /// Logits after the softcap of the options, for every key; the same as logits without one.
    Capped = 3,
}

/// The outputs of one call: overwritten, and never read before that. They may overlap nothing else
/// in the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_outputs {
    /// The output, `[batch][q_len][out]`.
    pub y: mha_slice_mut,
    /// The scores of every head, `[batch][heads][q_len][kv_len]`. Zero: not wanted, and then they
    /// cost nothing. `y` has the same bits either way.
    pub scores: mha_slice_mut,
    /// Which scores: one of `enum mha_scores_at`. Zero: probabilities.
    pub scores_at: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::{mha_rng, mha_truncated_normal};
    use core::mem::{align_of, offset_of};

    /// Sizes in words of the machine, and bytes that are the same on all: what docs/abi.md lists.
    #[test]
    fn structs_have_the_documented_layout() {
        const WORD: usize = size_of::<usize>();
        // Members of four bytes fill whole words.
        let tail = |members: usize| (members * 4).next_multiple_of(WORD);
        assert_eq!(size_of::<mha_dims>(), 6 * WORD);
        assert_eq!(size_of::<mha_config>(), 8 * WORD + tail(3));
        assert_eq!(offset_of!(mha_config, heads), 6 * WORD);
        assert_eq!(offset_of!(mha_config, weight_order), 7 * WORD);
        assert_eq!(offset_of!(mha_config, has_scale), 7 * WORD + 4);
        assert_eq!(offset_of!(mha_config, scale), 7 * WORD + 8);
        assert_eq!(size_of::<mha_slice>(), 2 * WORD);
        assert_eq!(size_of::<mha_slice_mut>(), 2 * WORD);
        assert_eq!(size_of::<mha_weights>(), 16 * WORD);
        assert_eq!(size_of::<mha_layer>(), size_of::<mha_config>() + 16 * WORD + tail(1));
        assert_eq!(offset_of!(mha_layer, weights), size_of::<mha_config>());
        assert_eq!(offset_of!(mha_layer, isa), size_of::<mha_config>() + 16 * WORD);
        assert_eq!(offset_of!(mha_config, kv_heads), 7 * WORD + tail(3));
        assert_eq!(size_of::<mha_attention>(), 4 * WORD + tail(2));
        assert_eq!(offset_of!(mha_attention, kv_heads), 3 * WORD + tail(2));
        assert_eq!(size_of::<mha_shape>(), 3 * WORD);
        assert_eq!(size_of::<mha_mask>(), 7 * WORD);
        assert_eq!(offset_of!(mha_mask, excluding), 6 * WORD);
        assert_eq!(size_of::<mha_bias>(), 6 * WORD);
        assert_eq!(size_of::<mha_causal>(), 4 * WORD);
        assert_eq!(offset_of!(mha_causal, offset), WORD);
        assert_eq!(offset_of!(mha_dropout, seed), align_of::<u64>());
        assert_eq!(size_of::<mha_dropout>(), 8 + align_of::<u64>());
        assert_eq!(offset_of!(mha_inputs, bias), 6 * WORD);
        assert_eq!(offset_of!(mha_inputs, mask), 12 * WORD);
        assert_eq!(offset_of!(mha_inputs, causal), 19 * WORD);
        let dropout = (23 * WORD).next_multiple_of(align_of::<u64>());
        assert_eq!(offset_of!(mha_inputs, dropout), dropout);
        assert_eq!(size_of::<mha_inputs>(), dropout + size_of::<mha_dropout>());
        assert_eq!(size_of::<mha_outputs>(), 4 * WORD + tail(1));
        assert_eq!((size_of::<mha_rng>(), size_of::<mha_truncated_normal>()), (8, 16));
        assert!(size_of::<f32>() == 4 && align_of::<f32>() == 4);
    }
}
