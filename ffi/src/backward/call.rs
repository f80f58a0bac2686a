//! The gradients of the layer and of attention. A call checks what C can get wrong, then hands over to the
//! crate.

use mha::{BackwardError, Inputs, Options, Part, Shape, Upstream};

use super::types::{mha_gradients, mha_part, mha_upstream};
use super::written::Buffers;
use crate::buffer::{Buffer, Written};
use crate::convert::{Given, Values, read};
use crate::isa::isa;
use crate::options::mha_options;
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};
use crate::types::{mha_attention, mha_inputs, mha_layer, mha_shape};

/// Computes the gradients of a loss with respect to the inputs, the weights and the additive bias of
/// `mha_forward`, from those with respect to y and, where they matter, to the scores.
///
/// Nothing of the way forward has to be kept: scores are computed again, a block of queries at a time,
/// and dropout decides again what it decided. A key that nobody may see, and a query that sees nothing,
/// gets a gradient of zero and gives none.
///
/// @param layer as in `mha_forward`.
/// @param shape as in `mha_forward`.
/// @param inputs those of the way forward.
/// @param options as in `mha_forward_with`, without norm, extra and lse, and with dscores without a
/// choice of scores. NULL: none.
/// @param upstream read during the call only, with everything it points to.
/// @param gradients where to write; the struct itself is only read.
/// @param scratch working memory. `mha_backward_scratch_len` floats give full speed; less works down
/// to `mha_min_backward_scratch_len`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns, y and scores apart; with `MHA_GRADIENT(argument)` in place
/// of the argument, NULL, MISALIGNED, TOO_LARGE, LENGTH or OVERLAP for a gradient (dy and dscores:
/// y, scores; the structs upstream: y, gradients: none), ABSENT for the gradient of something that the
/// call does not have; OPTION (norm, extra, lse, scores) for an option that there is no way back
/// through; NULL, MISALIGNED, TOO_LARGE or LENGTH (kept). Nothing has been written then.
/// `mha_backward_status_message` has words for all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_backward(
    layer: *const mha_layer,
    shape: mha_shape,
    inputs: *const mha_inputs,
    options: *const mha_options,
    upstream: *const mha_upstream,
    gradients: *const mha_gradients,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let back = || {
        let call = Call { inputs, options, upstream, gradients, scratch, scratch_len };
        // SAFETY: this function's contract is that one's.
        unsafe { backward(layer, shape, None, &call) }
    };
    status(back())
}

/// Computes what a part of a call adds to its gradients. Threads or cores can share a way back so, each
/// with scratch and gradients of its own: the sum of all parts' gradients is what `mha_backward`
/// computes, up to the rounding of that sum.
///
/// @param layer as in `mha_forward`.
/// @param shape that of the whole call.
/// @param part which heads of which sequences.
/// @param inputs those of the whole call.
/// @param options those of the whole call.
/// @param upstream that of the whole call.
/// @param gradients as in `mha_backward`, each as long as for the whole call.
/// @param scratch as in `mha_backward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_backward` returns, and RANGE (rows, kv_heads) for a part that there is not.
/// Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_backward_part(
    layer: *const mha_layer,
    shape: mha_shape,
    part: mha_part,
    inputs: *const mha_inputs,
    options: *const mha_options,
    upstream: *const mha_upstream,
    gradients: *const mha_gradients,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let part = Part {
        sequences: part.sequences_start..part.sequences_end,
        kv_heads: part.kv_heads_start..part.kv_heads_end,
    };
    let back = || {
        let call = Call { inputs, options, upstream, gradients, scratch, scratch_len };
        // SAFETY: this function's contract is that one's.
        unsafe { backward(layer, shape, Some(part), &call) }
    };
    status(back())
}

/// Computes the gradients of `mha_dot_product_attention`: of queries, keys, values and the additive
/// bias. Rotary positions are allowed here: keys are rotated in scratch.
///
/// @param attention as in `mha_dot_product_attention`.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs those of the way forward.
/// @param options as in `mha_backward`.
/// @param upstream as in `mha_backward`; dy is `[batch][q_len][v]`.
/// @param gradients as in `mha_backward`, those of weights and their biases left out.
/// @param scratch working memory. `mha_attention_backward_scratch_len` floats give full speed; less
/// works down to `mha_attention_min_backward_scratch_len`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention_with` returns, y and scores apart; the rest of
/// `mha_backward`. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_dot_product_attention_backward(
    attention: *const mha_attention,
    isa: i32,
    shape: mha_shape,
    inputs: *const mha_inputs,
    options: *const mha_options,
    upstream: *const mha_upstream,
    gradients: *const mha_gradients,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let back = || {
        let call = Call { inputs, options, upstream, gradients, scratch, scratch_len };
        // SAFETY: this function's contract, in every block below; what is written becomes a slice
        // last.
        let attention = unsafe { read(attention, A::Attention)?.get() };
        let (shape, isa) = (shape.get(), self::isa(isa)?);
        // SAFETY: as above.
        let open = unsafe { call.open(shape, attention.heads, |_| Ok(()))? };
        let (inputs, options) = (open.inputs, open.options);
        // SAFETY: as above.
        let (gradients, scratch) = unsafe { open.written.get() };
        mha::dot_product_attention_backward(
            attention,
            isa,
            shape,
            inputs.options(&options),
            open.upstream,
            gradients,
            scratch,
        )
        .map_err(fault)
    };
    status(back())
}

/// A layer's way back, whole or a part.
///
/// # Safety
/// The contract of `mha_backward`.
unsafe fn backward(
    layer: *const mha_layer,
    shape: mha_shape,
    part: Option<Part>,
    call: &Call,
) -> Result<(), Fault> {
    // SAFETY: the caller's promise, in every block below. Slices to be written are made last.
    let layer = unsafe { read(layer, A::Layer)? };
    let config = layer.config.get()?;
    config.check()?;
    let shape = shape.get();
    let heads = config.attention.heads;
    // SAFETY: as above.
    let open = unsafe { call.open(shape, heads, |written| layer.get(written))? };
    // SAFETY: as above.
    let (gradients, scratch) = unsafe { open.written.get() };
    let inputs = open.inputs.options(&open.options);
    let whole = Part { sequences: 0..shape.batch, kv_heads: 0..config.attention.kv_heads };
    let part = part.unwrap_or(whole);
    open.layer.backward_part(shape, part, inputs, open.upstream, gradients, scratch).map_err(fault)
}

/// What the calls have in common, as C hands it over.
struct Call {
    inputs: *const mha_inputs,
    options: *const mha_options,
    upstream: *const mha_upstream,
    gradients: *const mha_gradients,
    scratch: *mut f32,
    scratch_len: usize,
}

/// The same, checked.
struct Open<'a, L> {
    layer: L,
    inputs: Inputs<'a>,
    options: Options<'a>,
    upstream: Upstream<'a>,
    written: Buffers,
}

impl Call {
    /// Checks every pointer, and that what is written lies apart from everything else.
    ///
    /// # Safety
    /// Every pointer that passes the checks is good for its length, and what is written is nobody
    /// else's during the call.
    unsafe fn open<'a, L>(
        &self,
        shape: Shape,
        heads: usize,
        layer: impl Fn(&Written) -> Result<L, Fault>,
    ) -> Result<Open<'a, L>, Fault> {
        // SAFETY: the caller's promise, in every block below.
        let inputs: &mha_inputs = unsafe { read(self.inputs, A::Inputs)? };
        // SAFETY: as above.
        let upstream = unsafe { read(self.upstream, A::Y) }.map_err(Fault::of_gradient)?;
        // SAFETY: as above.
        let gradients = unsafe { read(self.gradients, A::None) }.map_err(Fault::of_gradient)?;
        let scratch = Buffer::new(self.scratch, self.scratch_len, A::Scratch)?;
        // What this would be written to is never made a slice.
        // SAFETY: as above.
        let options = (!self.options.is_null()).then(|| unsafe { read(self.options, A::Options) });
        if options.transpose()?.is_some_and(|options| !options.lse.is_absent()) {
            return Err(Fault::new(K::Option, A::Lse));
        }
        let buffers = Buffers::new(gradients, scratch)?;
        let mut result = None;
        // What is written is more than one list of it holds, so everything is read against several.
        for written in buffers.lists() {
            let layer = layer(&written).map_err(overlap)?;
            // SAFETY: as above.
            let inputs = unsafe { inputs.get(shape, heads, Values::Read, &written) };
            // SAFETY: as above.
            let options = unsafe { Given::new(self.options).and_then(|all| all.get(&written)) };
            // SAFETY: as above.
            let dy = unsafe { upstream.dy.get(&written, A::Y) };
            let dy = dy.map_err(Fault::of_gradient)?;
            let mut above = Upstream::new(dy);
            let dscores = &upstream.dscores;
            if !(dscores.data.is_null() && dscores.len == 0) {
                // SAFETY: as above.
                let dscores = unsafe { dscores.get(&written, A::Scores) };
                above = above.scores(dscores.map_err(Fault::of_gradient)?);
            }
            let kept = &upstream.kept;
            if !kept.is_absent() {
                // SAFETY: as above.
                above = above.kept(unsafe { kept.get(&written, A::Kept) }.map_err(overlap)?);
            }
            let (inputs, options) = (inputs.map_err(overlap)?, options.map_err(overlap)?);
            result = Some((layer, inputs, options, above));
        }
        // There is a list at least.
        let Some((layer, inputs, options, upstream)) = result else {
            return Err(Fault::new(K::Null, A::Scratch));
        };
        Ok(Open { layer, inputs, options, upstream, written: buffers })
    }
}

/// An overlap with something written is that of a gradient, unless it is scratch's.
fn overlap(fault: Fault) -> Fault {
    if fault.is(K::Overlap) && fault != Fault::new(K::Overlap, A::Scratch) {
        fault.of_gradient()
    } else {
        fault
    }
}

/// An error of the way back as a status.
pub(super) fn fault(error: BackwardError) -> Fault {
    match error {
        BackwardError::Call(error) => Fault::from(error),
        BackwardError::Gradient { of, .. } => Fault::new(K::Length, of.into()).of_gradient(),
        BackwardError::Absent { of } => Fault::new(K::Absent, of.into()).of_gradient(),
        BackwardError::Option { argument } => Fault::new(K::Option, argument.into()),
        _ => Fault::new(K::Option, A::Other),
    }
}
