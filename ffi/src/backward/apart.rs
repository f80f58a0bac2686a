//! Gradients out of one array, and a way back among threads or cores.

use mha::Part;

use super::types::{mha_gradients, mha_part};
use crate::buffer::Buffer;
use crate::convert::read;
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};
use crate::types::{mha_config, mha_shape, mha_slice_mut};

/// Takes one flat array of gradients apart, in the order of `mha_weights_from_flat`.
///
/// @param config read during the call only.
/// @param flat `mha_weights_len(config)` floats, or that plus `mha_biases_len(config)`. It is lent to
/// `gradients`, not copied.
/// @param flat_len how many floats there are.
/// @param gradients its members of weights and, where the array is longer, of their biases are set;
/// the others stay.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return what `mha_weights_from_flat` returns, with the struct's pointer as `MHA_GRADIENT(none)`.
/// Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_gradients_from_flat(
    config: *const mha_config,
    flat: *mut f32,
    flat_len: usize,
    gradients: *mut mha_gradients,
) -> mha_status {
    let split = || {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        let config = unsafe { read(config, A::Config)? };
        let config = config.get()?;
        config.check()?;
        let buffer = Buffer::new(flat, flat_len, A::Weights)?;
        let out = Buffer::new(gradients, 1, A::None).map_err(Fault::of_gradient)?;
        if out.overlaps(&buffer) {
            return Err(Fault::new(K::Overlap, A::None).of_gradient());
        }
        let (weights, biases) = (config.weights_len(), config.biases_len());
        if flat_len != weights && flat_len != weights + biases {
            return Err(Fault::new(K::Length, A::Weights));
        }
        let [wq, wk, wv, wo, bq, bk, bv, bo] = config.part_lens();
        let mut at = flat;
        let mut next = |len: usize| {
            let slice = mha_slice_mut { data: at, len };
            // Inside of the array, whose end is the last one's.
            at = at.wrapping_add(len);
            slice
        };
        // SAFETY: neither null nor misaligned, a struct that is written and that nothing else lies in.
        let gradients = unsafe { &mut *gradients };
        let [wq, wk, wv, wo] = [wq, wk, wv, wo].map(&mut next);
        *gradients = mha_gradients { wq, wk, wv, wo, ..*gradients };
        if flat_len > config.weights_len() {
            let [bq, bk, bv, bo] = [bq, bk, bv, bo].map(&mut next);
            *gradients = mha_gradients { bq, bk, bv, bo, ..*gradients };
        }
        Ok(())
    };
    status(split())
}

/// One part of a way back that is shared by `parts` threads or cores. The parts 0 to parts - 1 together
/// are everything and cost about the same: they share the sequences out, or the heads where those come
/// out more even. There are empty ones where there are too many.
///
/// @param config read during the call only.
/// @param shape that of the whole call.
/// @param part which part, from 0.
/// @param parts how many there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the part; an empty one where config is NULL or misaligned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_split_backward(
    config: *const mha_config,
    shape: mha_shape,
    part: usize,
    parts: usize,
) -> mha_part {
    // SAFETY: a pointer that is not null points to a struct, by this function's contract.
    let config = unsafe { read(config, A::Config) };
    let whole = config.map(|config| config.sizes().split_backward(shape.get(), part, parts));
    let Part { sequences, kv_heads } = whole.unwrap_or(Part { sequences: 0..0, kv_heads: 0..0 });
    mha_part {
        sequences_start: sequences.start,
        sequences_end: sequences.end,
        kv_heads_start: kv_heads.start,
        kv_heads_end: kv_heads.end,
    }
}
