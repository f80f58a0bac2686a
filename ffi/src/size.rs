//! Lengths of buffers, computed by the functions that the calls use. The macros of the header are
//! the same as constant expressions.

use crate::buffer::Written;
use crate::cache::mha_cache_config;
use crate::convert::read;
use crate::status::{Fault, mha_argument as A};
use crate::types::*;

/// Floats of scratch for full speed on a call of a layer. More is no faster; less works, more
/// slowly and with the same bits, down to `mha_min_scratch_len`. `MHA_SCRATCH_LEN` and
/// `MHA_SCRATCH_LEN_DIMS` are the same as constant expressions.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call; the batch does not matter.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_scratch_len(config: *const mha_config, shape: mha_shape) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().scratch_len(shape.get()))
}

/// The least floats of scratch with which a call of a layer works. `MHA_MIN_SCRATCH_LEN` and
/// `MHA_MIN_SCRATCH_LEN_DIMS` are the same as constant expressions.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call; only kv_len matters.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_min_scratch_len(config: *const mha_config, shape: mha_shape) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().min_scratch_len(shape.get()))
}

/// Floats of y, batch * q_len * out.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_y_len(config: *const mha_config, shape: mha_shape) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().y_len(shape.get()))
}

/// Floats of the scores, batch * heads * q_len * kv_len.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_scores_len(config: *const mha_config, shape: mha_shape) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().scores_len(shape.get()))
}

/// Floats of the four weights together.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_weights_len(config: *const mha_config) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().weights_len())
}

/// Floats of the four biases together.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_biases_len(config: *const mha_config) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().biases_len())
}

/// Where a part of a call's rows begins, if threads or cores share them: part i of `parts` has the rows
/// from `mha_split_row(…, i, parts)` up to, not including, `mha_split_row(…, i + 1, parts)`, for
/// `mha_forward_rows`. The parts cost about the same, causal rule and the keys that each of them projects
/// included; there are empty ones where there are more parts than rows.
///
/// @param config read during the call only.
/// @param shape that of the whole call.
/// @param causal the rule of the call, or NULL; read during the call only.
/// @param part which part, from 0; `parts` gives the end of the last one.
/// @param parts how many there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the row; SIZE_MAX where there is none (a pointer is NULL, if it may not be, or misaligned, or
/// the causal rule is not a valid one).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_split_row(
    config: *const mha_config,
    shape: mha_shape,
    causal: *const mha_causal,
    part: usize,
    parts: usize,
) -> usize {
    let split = || {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        let config = unsafe { read(config, A::Config)? };
        let causal = if causal.is_null() {
            None
        } else {
            // SAFETY: as above, and its offsets are as many as it says.
            unsafe { read(causal, A::Causal)?.get(&Written::NOTHING)? }
        };
        Ok::<_, Fault>(config.sizes().split_rows(shape.get(), causal, part, parts).start)
    };
    split().unwrap_or(usize::MAX)
}

/// Floats of scratch for full speed on `mha_dot_product_attention`. `MHA_ATTENTION_SCRATCH_LEN` is
/// the same as a constant expression.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call; only q_len matters.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (attention is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attention_scratch_len(
    attention: *const mha_attention,
    shape: mha_shape,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let attention = unsafe { read(attention, A::Attention) };
    attention.map_or(usize::MAX, |attention| attention.get().scratch_len(shape.get()))
}

/// The least floats of scratch with which `mha_dot_product_attention` works, whatever the shape.
/// `MHA_ATTENTION_MIN_SCRATCH_LEN` is the same as a constant expression.
///
/// @param attention read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (attention is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attention_min_scratch_len(attention: *const mha_attention) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let attention = unsafe { read(attention, A::Attention) };
    attention.map_or(usize::MAX, |attention| attention.get().min_scratch_len())
}

/// Floats of the scores of attention, batch * heads * q_len * kv_len.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or attention is NULL or
/// misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attention_scores_len(
    attention: *const mha_attention,
    shape: mha_shape,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let attention = unsafe { read(attention, A::Attention) };
    attention.map_or(usize::MAX, |attention| attention.get().scores_len(shape.get()))
}

/// Floats of scratch for full speed on `mha_attend`, whatever the cache holds. More is no faster; less
/// works, more slowly and with the same bits, down to `mha_min_cached_scratch_len`.
/// `MHA_CACHED_SCRATCH_LEN` is the same as a constant expression.
///
/// @param config read during the call only.
/// @param q_len queries of each sequence.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cached_scratch_len(config: *const mha_config, q_len: usize) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().cached_scratch_len(q_len))
}

/// The least floats of scratch with which `mha_attend` works, whatever the cache holds and however
/// many queries there are. `MHA_MIN_CACHED_SCRATCH_LEN` is the same as a constant expression.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (config is NULL or misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_min_cached_scratch_len(config: *const mha_config) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    config.map_or(usize::MAX, |config| config.sizes().min_cached_scratch_len())
}

/// Floats of the keys of a cache: for each sequence, whole blocks of sixteen positions.
/// `MHA_CACHE_KEYS_LEN` is the same as a constant expression.
///
/// @param attention read during the call only.
/// @param cache read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or a pointer is NULL or
/// misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_keys_len(
    attention: *const mha_attention,
    cache: *const mha_cache_config,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let (attention, cache) = unsafe { (read(attention, A::Attention), read(cache, A::Cache)) };
    let len = attention.and_then(|a| cache.map(|cache| cache.sizes().keys_len(&a.get())));
    len.unwrap_or(usize::MAX)
}

/// Floats of the values of a cache. `MHA_CACHE_VALUES_LEN` is the same as a constant expression.
///
/// @param attention read during the call only.
/// @param cache read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or a pointer is NULL or
/// misaligned).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_cache_values_len(
    attention: *const mha_attention,
    cache: *const mha_cache_config,
) -> usize {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let (attention, cache) = unsafe { (read(attention, A::Attention), read(cache, A::Cache)) };
    let len = attention.and_then(|a| cache.map(|cache| cache.sizes().values_len(&a.get())));
    len.unwrap_or(usize::MAX)
}
