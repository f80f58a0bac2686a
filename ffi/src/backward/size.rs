//! Lengths of the scratch that a way back takes.

use crate::convert::read;
use crate::status::mha_argument as A;
use crate::types::{mha_attention, mha_config, mha_shape};

/// Floats of scratch for full speed on `mha_backward`. More is no faster; less works down to
/// `mha_min_backward_scratch_len`.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_backward_scratch_len(
    config: *const mha_config,
    shape: mha_shape,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().backward_scratch_len(shape.get()))
}

/// The least floats of scratch with which `mha_backward` works.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_min_backward_scratch_len(
    config: *const mha_config,
    shape: mha_shape,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().min_backward_scratch_len(shape.get()))
}

/// Floats of scratch for full speed on `mha_dot_product_attention_backward`.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or attention is NULL or
/// misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attention_backward_scratch_len(
    attention: *const mha_attention,
    shape: mha_shape,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let attention = unsafe { read(attention, A::Attention) };
    attention.map_or(usize::MAX, |attention| attention.get().backward_scratch_len(shape.get()))
}

/// The least floats of scratch with which `mha_dot_product_attention_backward` works.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or attention is NULL or
/// misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attention_min_backward_scratch_len(
    attention: *const mha_attention,
    shape: mha_shape,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let attention = unsafe { read(attention, A::Attention) };
    attention.map_or(usize::MAX, |attention| attention.get().min_backward_scratch_len(shape.get()))
}
