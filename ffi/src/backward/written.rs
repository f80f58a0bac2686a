//! What a way back writes: twelve gradients at most, and scratch. All of it lies apart, which is found out
//! from pointers, before anything is a slice.

use mha::Gradients;

use super::types::mha_gradients;
use crate::buffer::{Buffer, Written};
use crate::status::{Fault, mha_argument as A, mha_kind as K};

/// What is written, before it is slices.
pub(super) struct Buffers {
    gradients: [Option<Buffer<f32>>; GRADIENTS.len()],
    accumulate: bool,
    scratch: Buffer<f32>,
}

/// What there are gradients of, in the order of `mha_gradients`.
pub(super) const GRADIENTS: [A; 12] =
    [A::Q, A::K, A::V, A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias];

impl Buffers {
    pub(super) fn new(from: &mha_gradients, scratch: Buffer<f32>) -> Result<Self, Fault> {
        let mha_gradients { q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias, accumulate } = from;
        let each = [q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias];
        let mut gradients = [const { None }; GRADIENTS.len()];
        for ((to, from), argument) in gradients.iter_mut().zip(each).zip(GRADIENTS) {
            if from.is_absent() {
                continue;
            }
            let buffer = from.buffer(argument).map_err(Fault::of_gradient)?;
            if buffer.overlaps(&scratch) {
                return Err(Fault::new(K::Overlap, argument).of_gradient());
            }
            *to = Some(buffer);
        }
        for (i, argument) in GRADIENTS.into_iter().enumerate() {
            let before = gradients.iter().take(i).flatten();
            let here = gradients.get(i).and_then(Option::as_ref);
            if here.is_some_and(|here| before.into_iter().any(|other| here.overlaps(other))) {
                return Err(Fault::new(K::Overlap, argument).of_gradient());
            }
        }
        Ok(Self { gradients, accumulate: *accumulate != 0, scratch })
    }

    /// Everything that is written, three gradients and scratch at a time.
    pub(super) fn lists(&self) -> impl Iterator<Item = Written> {
        let threes = self.gradients.chunks(3).zip(GRADIENTS.chunks(3));
        threes.map(|(buffers, arguments)| {
            let mut written = Written::NOTHING;
            let each = buffers.iter().zip(arguments);
            let known = each.filter_map(|(buffer, argument)| Some((buffer.as_ref()?, *argument)));
            for (buffer, argument) in known.chain([(&self.scratch, A::Scratch)]) {
                // They have been found to lie apart.
                written.add(buffer, argument).unwrap_or_default();
            }
            written
        })
    }

    /// The crate's gradients, and scratch.
    ///
    /// # Safety
    /// The buffers are as long as they say, and nobody else touches them during `'a`.
    pub(super) unsafe fn get<'a>(self) -> (Gradients<'a>, &'a mut [f32]) {
        // SAFETY: the caller's promise, for each of them.
        let each = self.gradients.map(|buffer| buffer.map(|b| unsafe { b.slice_mut() }));
        let [q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias] = each;
        let accumulate = self.accumulate;
        let gradients = Gradients { q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias, accumulate };
        // SAFETY: as above.
        (gradients, unsafe { self.scratch.slice_mut() })
    }
}
