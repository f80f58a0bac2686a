//! The layer and attention: checks, then the crate.

use core::ops::Range;

use mha::{Attention, Inputs, Outputs, Shape, Weights};

use crate::buffer::{Buffer, Written};
use crate::convert::{OutputBuffers, Values, read};
use crate::isa::isa;
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};
use crate::types::*;

/// Checks the widths, heads, scale and weight order of a configuration.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL or MISALIGNED (config), ZERO (dims, heads), HEADS (heads), TOO_LARGE
/// (dims), VALUE (scale, weight_order).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_config_check(config: *const mha_config) -> mha_status {
    let check = || {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        let config = unsafe { read(config, A::Config)? };
        Ok(config.get()?.check()?)
    };
    status(check())
}

/// Checks the widths, heads and scale of attention without projections.
///
/// @param attention read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL or MISALIGNED (attention), ZERO (dims, heads), HEADS (heads), VALUE
/// (scale).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attention_check(attention: *const mha_attention) -> mha_status {
    let check = || {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        let attention = unsafe { read(attention, A::Attention)? };
        Ok(attention.get().check()?)
    };
    status(check())
}

/// Checks a layer: its configuration, and every weight against it. Once a layer has passed, a call
/// fails only for what belongs to the call.
///
/// @param layer read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; what `mha_config_check` returns; NULL or MISALIGNED (layer, wq to bo), LENGTH or
/// TOO_LARGE (wq to bo), VALUE (isa).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_layer_check(layer: *const mha_layer) -> mha_status {
    let check = || {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        let layer = unsafe { read(layer, A::Layer)? };
        // SAFETY: its pointers are as good as their lengths, by the same contract.
        unsafe { layer.get(&Written::NOTHING)? };
        Ok(())
    };
    status(check())
}

/// Takes one flat array of weights apart: wq wk wv wo and, where the array is longer, bq bk bv bo.
///
/// @param config read during the call only.
/// @param flat the array, `mha_weights_len(config)` floats, or that plus `mha_biases_len(config)`.
/// It is borrowed by `weights`, not copied.
/// @param flat_len how many floats there are.
/// @param weights filled in.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; what `mha_config_check` returns; NULL or MISALIGNED (config, weights), LENGTH or
/// TOO_LARGE (weights) for an array of another length, OVERLAP (weights) for a struct that lies in
/// the array. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_weights_from_flat(
    config: *const mha_config,
    flat: *const f32,
    flat_len: usize,
    weights: *mut mha_weights,
) -> mha_status {
    let split = || {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        let config = unsafe { read(config, A::Config)? };
        let config = config.get()?;
        let flat = Buffer::new(flat, flat_len, A::Weights)?;
        let out = Buffer::new(weights, 1, A::Weights)?;
        if out.overlaps(&flat) {
            return Err(Fault::new(K::Overlap, A::Weights));
        }
        // SAFETY: there are as many floats as it says, by the same contract.
        let Weights { wq, wk, wv, wo, bq, bk, bv, bo } =
            Weights::from_flat(&config, unsafe { flat.slice() })?;
        let slice = |part: &[f32]| mha_slice { data: part.as_ptr(), len: part.len() };
        let bias = |part: Option<&[f32]>| {
            part.map_or(mha_slice { data: core::ptr::null(), len: 0 }, slice)
        };
        let parts = mha_weights {
            wq: slice(wq),
            wk: slice(wk),
            wv: slice(wv),
            wo: slice(wo),
            bq: bias(bq),
            bk: bias(bk),
            bv: bias(bv),
            bo: bias(bo),
        };
        // SAFETY: neither null nor misaligned, and a struct is there to be written, by the same
        // contract.
        unsafe { weights.write(parts) };
        Ok(())
    };
    status(split())
}

/// Computes a layer: y = Wo (heads of attention (Wq q, Wk k, Wv v)).
///
/// A query that may not see any key gets scores of 0 and an attention output of 0, so its y is the
/// output bias. (Flux gives NaN there.)
///
/// @param layer read during the call only; may be `const` and in flash.
/// @param shape batch, q_len, kv_len.
/// @param inputs read during the call only, with everything it points to.
/// @param outputs where to write; the struct itself is only read. What the buffers hold before does
/// not matter. They may not overlap each other, scratch, the inputs or the weights.
/// @param scratch working memory. `mha_scratch_len` floats give full speed; less works down to
/// `mha_min_scratch_len`, with the same bits. What it holds before and after does not matter.
/// @param scratch_len how many floats of scratch there are.
///
/// Nothing else is read or written, and nothing is kept: calls with outputs and scratch of their own
/// may run at the same time, in interrupts too.
///
/// @return MHA_OK; what `mha_layer_check` returns; NULL or MISALIGNED (inputs, outputs, or any
/// buffer), LENGTH (any buffer), TOO_LARGE (shape, or any buffer), BROADCAST (mask, bias), VALUE
/// (causal, dropout, scores_at), OVERLAP (y, scores, scratch). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_forward(
    layer: *const mha_layer,
    shape: mha_shape,
    inputs: *const mha_inputs,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    status(unsafe { forward(layer, shape, None, inputs, outputs, scratch, scratch_len) })
}

/// Computes some rows of a layer: the queries from `rows_start` up to, not including, `rows_end` of
/// the batch * q_len there are, with the bits that `mha_forward` gives them. Threads or cores can
/// share a call so, each with outputs and scratch of its own.
///
/// @param layer as in `mha_forward`.
/// @param shape that of the whole call.
/// @param rows_start the first row.
/// @param rows_end one past the last row.
/// @param inputs those of the whole call.
/// @param outputs y holds the rows alone, `[rows][out]`; scores hold, for each sequence that the
/// rows touch, in order, `[heads][its rows][kv_len]`.
/// @param scratch as in `mha_forward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward` returns, and RANGE (rows) for rows that there are not. Nothing has
/// been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_forward_rows(
    layer: *const mha_layer,
    shape: mha_shape,
    rows_start: usize,
    rows_end: usize,
    inputs: *const mha_inputs,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let rows = Some(rows_start..rows_end);
    // SAFETY: this function's contract is that one's.
    status(unsafe { forward(layer, shape, rows, inputs, outputs, scratch, scratch_len) })
}

/// What the calls with inputs, outputs and scratch have in common, checked; no slice to be written
/// exists before [`Open::written_to`].
pub(crate) struct Open<'a> {
    inputs: &'a mha_inputs,
    outputs: OutputBuffers,
    scratch: Buffer<f32>,
    pub(crate) written: Written,
}

impl<'a> Open<'a> {
    /// Checks the structs' pointers and what is written.
    ///
    /// # Safety
    /// The structs are there where their pointers pass the checks, and nobody writes to them during
    /// `'a`.
    #[inline(always)]
    pub(crate) unsafe fn new(
        inputs: *const mha_inputs,
        outputs: *const mha_outputs,
        scratch: *mut f32,
        scratch_len: usize,
        lse: Option<&Buffer<f32>>,
    ) -> Result<Self, Fault> {
        // SAFETY: the caller's promise.
        let (inputs, outputs) = unsafe { (read(inputs, A::Inputs)?, read(outputs, A::Outputs)?) };
        let outputs = outputs.buffers()?;
        let scratch = Buffer::new(scratch, scratch_len, A::Scratch)?;
        let mut written = Written::new(&outputs.y, &outputs.scores, &scratch)?;
        if let Some(lse) = lse {
            written.add(lse, A::Lse)?;
        }
        Ok(Self { inputs, outputs, scratch, written })
    }

    /// The crate's inputs.
    ///
    /// # Safety
    /// That of [`mha_inputs::get`].
    #[inline(always)]
    pub(crate) unsafe fn inputs<'i>(
        &self,
        shape: Shape,
        heads: usize,
        values: Values,
    ) -> Result<Inputs<'i>, Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.inputs.get(shape, heads, values, &self.written) }
    }

    /// The crate's outputs, and scratch.
    ///
    /// # Safety
    /// They are as long as they say, and nobody else touches them during `'o`.
    #[inline(always)]
    pub(crate) unsafe fn written_to<'o>(self) -> (Outputs<'o>, &'o mut [f32]) {
        // SAFETY: the caller's promise.
        unsafe { (self.outputs.get(), self.scratch.slice_mut()) }
    }
}

/// A layer, whole or some rows.
///
/// # Safety
/// The contract of `mha_forward`: every pointer that passes the checks is good for its length, and
/// what is written is nobody else's during the call.
unsafe fn forward(
    layer: *const mha_layer,
    shape: mha_shape,
    rows: Option<Range<usize>>,
    inputs: *const mha_inputs,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> Result<(), Fault> {
    // SAFETY: the caller's promise, in every block below. Slices to be written are made last, when
    // nothing else can fail and all of them have been found to lie apart from what is read.
    let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, None)? };
    // SAFETY: as above.
    let layer = unsafe { read(layer, A::Layer)?.get(&open.written) };
    // By reference: a layer that is moved is copied.
    let layer = layer.as_ref().map_err(|fault| *fault)?;
    let (shape, heads) = (shape.get(), layer.config().attention.heads);
    // SAFETY: as above.
    let inputs = unsafe { open.inputs(shape, heads, Values::Read)? };
    // SAFETY: as above.
    let (outputs, scratch) = unsafe { open.written_to() };
    let rows = rows.unwrap_or(0..shape.batch.saturating_mul(shape.q_len));
    Ok(layer.forward_rows(shape, rows, inputs, outputs, scratch)?)
}

/// Attention between queries, keys and values that are projected already: NNlib's
/// `dot_product_attention`.
///
/// Heads split the features: head h owns the features h * d to (h + 1) * d of queries and keys,
/// likewise of values and of y; nothing is moved.
///
/// @param attention read during the call only.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs q `[batch][q_len][qk]`, k `[batch][kv_len][qk]`, v `[batch][kv_len][v]`, and the
/// rest as in `mha_forward`.
/// @param outputs y `[batch][q_len][v]`, scores `[batch][heads][q_len][kv_len]`.
/// @param scratch working memory: `mha_attention_scratch_len` floats give full speed; less works
/// down to `mha_attention_min_scratch_len`, which does not depend on the shape.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return MHA_OK; what `mha_attention_check` returns; VALUE (isa); the rest of `mha_forward`.
/// Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_dot_product_attention(
    attention: *const mha_attention,
    isa: i32,
    shape: mha_shape,
    inputs: *const mha_inputs,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let attend = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let attention = unsafe { read(attention, A::Attention)?.get() };
        let (shape, isa) = (shape.get(), self::isa(isa)?);
        // SAFETY: as above.
        let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, None)? };
        // SAFETY: as above.
        let inputs = unsafe { open.inputs(shape, attention.heads, Values::Read)? };
        // SAFETY: as above.
        let (outputs, scratch) = unsafe { open.written_to() };
        Ok(mha::dot_product_attention(attention, isa, shape, inputs, outputs, scratch)?)
    };
    status(attend())
}

/// The scores of attention alone: NNlib's `dot_product_attention_scores`. The values, and
/// `attention`'s width of them, are not looked at.
///
/// @param attention read during the call only.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs as in `mha_dot_product_attention`, without v.
/// @param scores filled in, `[batch][heads][q_len][kv_len]`; may overlap nothing else.
/// @param scores_len how many floats there are.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention` returns. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_dot_product_attention_scores(
    attention: *const mha_attention,
    isa: i32,
    shape: mha_shape,
    inputs: *const mha_inputs,
    scores: *mut f32,
    scores_len: usize,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let attend = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let (attention, inputs) =
            unsafe { (read(attention, A::Attention)?, read(inputs, A::Inputs)?) };
        let (attention, shape, isa): (Attention, _, _) =
            (attention.get(), shape.get(), self::isa(isa)?);
        let scores = Buffer::new(scores, scores_len, A::Scores)?;
        let scratch = Buffer::new(scratch, scratch_len, A::Scratch)?;
        let written = Written::new(&Buffer::none(), &scores, &scratch)?;
        // SAFETY: as above.
        let inputs = unsafe { inputs.get(shape, attention.heads, Values::Ignored, &written)? };
        // SAFETY: as above.
        let (scores, scratch) = unsafe { (scores.slice_mut(), scratch.slice_mut()) };
        Ok(mha::dot_product_attention_scores(attention, isa, shape, inputs, scores, scratch)?)
    };
    status(attend())
}
