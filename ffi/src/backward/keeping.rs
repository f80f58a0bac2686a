//! A way forward that keeps what the way back would compute again.

use crate::buffer::Buffer;
use crate::call::Open;
use crate::convert::{Given, Values, read};
use crate::options::mha_options;
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};
use crate::types::{mha_config, mha_inputs, mha_layer, mha_outputs, mha_shape};

/// Floats that `mha_forward_keeping` keeps.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_kept_len(config: *const mha_config, shape: mha_shape) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().kept_len(shape.get()))
}

/// Computes a layer as `mha_forward_with` does, the same bits, and keeps what `mha_backward` would
/// compute again: with `upstream.kept` it gives the same gradients, and both together take about a sixth
/// less time. For machines with plenty of memory.
///
/// @param layer as in `mha_forward`.
/// @param shape as in `mha_forward`.
/// @param inputs as in `mha_forward`.
/// @param options as in `mha_backward`. NULL: none.
/// @param outputs as in `mha_forward`.
/// @param kept filled in; may overlap nothing else.
/// @param kept_len `mha_kept_len(config, shape)`.
/// @param scratch as in `mha_forward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns; NULL, MISALIGNED, TOO_LARGE, LENGTH or OVERLAP (kept); OPTION
/// (norm, extra, lse) for an option that there is no way back through. Nothing has been written then.
/// `mha_backward_status_message` has words for all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_forward_keeping(
    layer: *const mha_layer,
    shape: mha_shape,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    kept: *mut f32,
    kept_len: usize,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let forward = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made last.
        let given = unsafe { Given::new(options)? };
        if !given.lse.is_empty() {
            return Err(Fault::new(K::Option, A::Lse));
        }
        let kept = Buffer::new(kept, kept_len, A::Kept)?;
        // SAFETY: as above.
        let mut open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, None)? };
        open.written.add(&kept, A::Kept)?;
        // SAFETY: as above.
        let layer = unsafe { read(layer, A::Layer)?.get(&open.written)? };
        let (shape, heads) = (shape.get(), layer.config().attention.heads);
        // SAFETY: as above.
        let inputs = unsafe { open.inputs(shape, heads, Values::Read)? };
        // SAFETY: as above.
        let options = unsafe { given.get(&open.written)? };
        // SAFETY: as above.
        let ((outputs, scratch), kept) = unsafe { (open.written_to(), kept.slice_mut()) };
        let inputs = inputs.options(&options);
        layer.forward_keeping(shape, inputs, outputs, kept, scratch).map_err(super::call::fault)
    };
    status(forward())
}
