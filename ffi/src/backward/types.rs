//! What the way back takes and gives beside what the way forward does.

use crate::types::{mha_slice, mha_slice_mut};

/// The gradient of a loss with respect to what the layer returned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_upstream {
    /// With respect to y, `[batch][q_len][out]`.
    pub dy: mha_slice,
    /// With respect to the scores (after the softmax and after dropout),
    /// `[batch][heads][q_len][kv_len]`; left out where the loss does not look at them.
    pub dscores: mha_slice,
    /// What `mha_forward_keeping` has kept of the same call; left out where it is to be computed again.
    pub kept: mha_slice,
}

/// Where gradients go: those that are wanted, the others left out. What is left out is not computed.
/// Each has the shape and the order of what it is the gradient of; none may overlap anything else of
/// the call. Where an input was left out (self-attention), its gradient is that of the array that took
/// its place, and is added to that one's by the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_gradients {
    /// Of the query input, `[batch][q_len][q_in]`.
    pub q: mha_slice_mut,
    /// Of the key input, `[batch][kv_len][k_in]`.
    pub k: mha_slice_mut,
    /// Of the value input, `[batch][kv_len][v_in]`.
    pub v: mha_slice_mut,
    /// Of the query projection.
    pub wq: mha_slice_mut,
    /// Of the key projection.
    pub wk: mha_slice_mut,
    /// Of the value projection.
    pub wv: mha_slice_mut,
    /// Of the output projection.
    pub wo: mha_slice_mut,
    /// Of the bias of the query projection.
    pub bq: mha_slice_mut,
    /// Of the bias of the key projection.
    pub bk: mha_slice_mut,
    /// Of the bias of the value projection.
    pub bv: mha_slice_mut,
    /// Of the bias of the output projection.
    pub bo: mha_slice_mut,
    /// Of the additive bias on the logits, in its extents: summed where it stands for several.
    pub bias: mha_slice_mut,
    /// Nonzero: gradients are added to what is there. Zero: they overwrite it.
    pub accumulate: u32,
}

/// What one thread or core does of a way back that several share: some key/value heads (and the query
/// heads that read them) of some sequences. `mha_split_backward` makes one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_part {
    /// The first sequence of the batch.
    pub sequences_start: usize,
    /// One past the last sequence.
    pub sequences_end: usize,
    /// The first key/value head.
    pub kv_heads_start: usize,
    /// One past the last key/value head.
    pub kv_heads_end: usize,
}
