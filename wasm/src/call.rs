//! The arrays of a call.

use alloc::vec::Vec;

#[cfg(feature = "family")]
use mha::Isa;
use mha::{Argument, Broadcast, Causal, Dropout, Error, Inputs, Mask, Outputs, ScoresAt, Shape};

use crate::failure::{Failure, Problem};
#[cfg(feature = "family")]
use crate::family::Family;

/// What a call is handed over with: without the feature `family` there is nothing to choose.
#[cfg(feature = "family")]
pub(crate) type Given<'a> = Inputs<'a, &'a mha::Options<'a>>;
/// See above.
#[cfg(not(feature = "family"))]
pub(crate) type Given<'a> = Inputs<'a>;

/// A call as JavaScript describes it, a word each; `wasm/npm/src/run.ts` writes them in this order. Lengths are
/// one more than they are, 0 for what there is not.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub(crate) batch: usize,
    pub(crate) q_len: usize,
    pub(crate) kv_len: usize,
    pub(crate) q: usize,
    /// 0: the keys are the queries.
    pub(crate) k: usize,
    /// 0: the values are the keys.
    pub(crate) v: usize,
    pub(crate) bias: usize,
    pub(crate) bias_extents: [usize; 4],
    pub(crate) mask: usize,
    pub(crate) mask_extents: [usize; 4],
    /// 1: the mask is of the opposite sense.
    pub(crate) excluding: usize,
    /// 0: none. 1: as it comes naturally. 2: with an offset. 3: with one for each sequence.
    pub(crate) causal: usize,
    /// The offset, or how many there are.
    pub(crate) causal_by: usize,
    /// 1: there is dropout.
    pub(crate) dropout: usize,
    /// The bits of its probability.
    pub(crate) dropout_p: u32,
    /// The two halves of its seed, the lower first.
    pub(crate) dropout_seed: [u32; 2],
    /// The caller's own array of outputs.
    pub(crate) y: usize,
    /// 0: none are wanted. 1: in an array that is not there yet. Otherwise its length and two.
    pub(crate) scores: usize,
    /// 0: after the softmax. 1: logits. 2: masked. 3: capped logits.
    pub(crate) scores_at: usize,
}

impl Words {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        batch: 0,
        q_len: 0,
        kv_len: 0,
        q: 0,
        k: 0,
        v: 0,
        bias: 0,
        bias_extents: [0; 4],
        mask: 0,
        mask_extents: [0; 4],
        excluding: 0,
        causal: 0,
        causal_by: 0,
        dropout: 0,
        dropout_p: 0,
        dropout_seed: [0; 2],
        y: 0,
        scores: 0,
        scores_at: 0,
    };
}

/// Where the arrays of a call lie once there is room, and how long its outputs are; `wasm/npm/src/run.ts` reads
/// them in this order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) q: *mut f32,
    pub(crate) k: *mut f32,
    pub(crate) v: *mut f32,
    pub(crate) bias: *mut f32,
    pub(crate) y: *mut f32,
    pub(crate) scores: *mut f32,
    pub(crate) mask: *mut u8,
    pub(crate) offsets: *mut isize,
    pub(crate) y_len: usize,
    pub(crate) scores_len: usize,
}

impl Places {
    /// Nowhere.
    const NONE: Self = {
        let floats = core::ptr::null_mut();
        Self {
            q: floats,
            k: floats,
            v: floats,
            bias: floats,
            y: floats,
            scores: floats,
            mask: core::ptr::null_mut(),
            offsets: core::ptr::null_mut(),
            y_len: 0,
            scores_len: 0,
        }
    };
}

/// A call: its description, and room for its arrays.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) words: Words,
    pub(crate) places: Places,
    pub(crate) problem: Problem,
    /// The lengths of the parts of `floats`: `q k v bias y scores scratch`, one after the other.
    pub(crate) parts: [usize; 7],
    /// As long as the largest call was.
    pub(crate) floats: Vec<f32>,
    mask_data: Vec<u8>,
    offsets: Vec<isize>,
    #[cfg(feature = "family")]
    pub(crate) family: Family,
    #[cfg(feature = "family")]
    pub(crate) isa: Isa,
}

impl Call {
    /// A call without room.
    pub(crate) fn new() -> Self {
        Self {
            words: Words::NONE,
            places: Places::NONE,
            problem: Problem::NONE,
            parts: [0; 7],
            floats: Vec::new(),
            mask_data: Vec::new(),
            offsets: Vec::new(),
            #[cfg(feature = "family")]
            family: Family::new(),
            #[cfg(feature = "family")]
            isa: Isa::detect(),
        }
    }

    /// Where the description goes.
    pub(crate) fn words(&mut self) -> *mut usize {
        (&raw mut self.words).cast()
    }

    /// Where it says where the arrays lie.
    pub(crate) fn places(&self) -> *const usize {
        (&raw const self.places).cast()
    }

    /// Where it says what is wrong.
    pub(crate) fn problem(&self) -> *const usize {
        (&raw const self.problem).cast()
    }
}

impl Call {
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(self.words.batch, self.words.q_len, self.words.kv_len)
    }

    /// Makes room for the description; outputs whose lengths the caller has not said get these.
    pub(crate) fn make_room(&mut self, y: usize, scores: usize, scratch: usize) -> i32 {
        let result = self.try_make_room(y, scores, scratch);
        self.problem.settle(result)
    }

    /// As [`Call::make_room`].
    pub(crate) fn try_make_room(
        &mut self,
        y: usize,
        scores: usize,
        scratch: usize,
    ) -> Result<(), Failure> {
        let words = &self.words;
        let own = |len: usize| len.saturating_sub(1);
        let y = if words.y > 0 { words.y - 1 } else { y };
        let scores = match words.scores {
            0 => 0,
            1 => scores,
            len => len - 2,
        };
        let parts = [own(words.q), own(words.k), own(words.v), own(words.bias), y, scores, scratch];
        let names = [
            Argument::Q,
            Argument::K,
            Argument::V,
            Argument::Bias,
            Argument::Y,
            Argument::Scores,
            Argument::Shape,
        ];
        // Without room there is nothing.
        self.parts = [0; 7];
        let mut total = 0;
        for (len, argument) in parts.into_iter().zip(names) {
            if len > MOST {
                return Err(Error::TooLarge { argument }.into());
            }
            // Seven of them do not wrap.
            total += len;
        }
        if total > MOST {
            return Err(Failure::Memory(Argument::Shape));
        }
        let (mask, offsets) = (own(words.mask), self.offsets_len());
        room(&mut self.floats, total, Argument::Shape)?;
        room(&mut self.mask_data, mask, Argument::Mask)?;
        room(&mut self.offsets, offsets, Argument::Causal)?;
        #[cfg(feature = "family")]
        self.family.make_room()?;
        self.parts = parts;
        let mut at = self.floats.as_mut_ptr();
        let [q, k, v, bias, y_at, scores_at, _] = parts.map(|len| {
            let place = at;
            at = at.wrapping_add(len);
            place
        });
        self.places = Places {
            q,
            k,
            v,
            bias,
            y: y_at,
            scores: scores_at,
            mask: self.mask_data.as_mut_ptr(),
            offsets: self.offsets.as_mut_ptr(),
            y_len: y,
            scores_len: scores,
        };
        Ok(())
    }

    /// How many causal offsets there are.
    fn offsets_len(&self) -> usize {
        if self.words.causal == 3 { self.words.causal_by } else { 0 }
    }

    /// Hands the arrays over to the core.
    pub(crate) fn run(
        &mut self,
        call: impl FnOnce(Shape, Given<'_>, Arrays<'_>) -> Result<(), Error>,
    ) -> i32 {
        let mut result = Ok(());
        let mut call = Some(call);
        self.with(&mut |shape, inputs, arrays| {
            if let Some(call) = call.take() {
                result = call(shape, inputs, arrays);
            }
        });
        self.problem.settle(result.map_err(Failure::from))
    }

    /// Makes slices of the arrays, and hands them to somebody; there once for all kinds of calls.
    pub(crate) fn with(&mut self, call: &mut Compute<'_>) {
        let (words, shape, offsets) = (self.words, self.shape(), self.offsets_len());
        let mut rest = self.floats.as_mut_slice();
        let [q, k, v, bias, y, scores, scratch] = self.parts.map(|len| {
            // What has no room comes out empty, and the core says that its length is wrong.
            let (part, left) =
                core::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            rest = left;
            part
        });
        let q = &*q;
        let k = if words.k > 0 { &*k } else { q };
        let v = if words.v > 0 { &*v } else { k };
        let mut inputs = Inputs::new(q, k, v);
        if words.bias > 0 {
            inputs = inputs.bias(Broadcast::new(bias, words.bias_extents));
        }
        if words.mask > 0 {
            let data = self.mask_data.get(..words.mask - 1).unwrap_or(&[]);
            let mask = Mask::bytes(data, words.mask_extents);
            inputs = inputs.mask(if words.excluding > 0 { mask.excluding() } else { mask });
        }
        match words.causal {
            0 => {}
            1 => inputs = inputs.causal(),
            2 => inputs = inputs.causal_from(Causal::Offset(words.causal_by as isize)),
            _ => {
                let offsets = self.offsets.get(..offsets).unwrap_or(&[]);
                inputs = inputs.causal_from(Causal::PerSequence(offsets));
            }
        }
        if words.dropout > 0 {
            let [low, high] = words.dropout_seed.map(u64::from);
            inputs =
                inputs.dropout(Dropout::new(f32::from_bits(words.dropout_p), high << 32 | low));
        }
        let scores = (words.scores > 0).then_some(scores);
        let scores_at = match words.scores_at {
            1 => ScoresAt::Logits,
            2 => ScoresAt::Masked,
            3 => ScoresAt::Capped,
            _ => ScoresAt::Softmax,
        };
        let arrays = Arrays { y, scores, scores_at, scratch };
        // Always with options, if with none, so that the driver is there once.
        #[cfg(feature = "family")]
        let options = self.family.options();
        #[cfg(feature = "family")]
        let inputs = inputs.options(&options);
        call(shape, inputs, arrays);
    }
}

/// What computes a call whose arrays have been handed over.
pub(crate) type Compute<'f> = dyn FnMut(Shape, Given<'_>, Arrays<'_>) + 'f;

/// What a call writes to.
pub(crate) struct Arrays<'a> {
    pub(crate) y: &'a mut [f32],
    pub(crate) scores: Option<&'a mut [f32]>,
    pub(crate) scores_at: ScoresAt,
    pub(crate) scratch: &'a mut [f32],
}

impl<'a> Arrays<'a> {
    /// As the core wants them: outputs and scratch.
    pub(crate) fn outputs(self) -> (Outputs<'a>, &'a mut [f32]) {
        let outputs = Outputs::new(self.y).scores_at(self.scores_at);
        let outputs = match self.scores {
            Some(scores) => outputs.scores(scores),
            None => outputs,
        };
        (outputs, self.scratch)
    }
}

/// The most floats that one slice can hold.
pub(crate) const MOST: usize = isize::MAX as usize / size_of::<f32>();

/// Makes a vector at least `len` long. One that is too short is given back first and what it held
/// is lost, so that the heap can join its place with the next.
pub(crate) fn room<T: Clone + Default>(
    data: &mut Vec<T>,
    len: usize,
    argument: Argument,
) -> Result<(), Failure> {
    if data.len() < len {
        *data = Vec::new();
        data.try_reserve_exact(len).map_err(|_| Failure::Memory(argument))?;
        data.resize(len, T::default());
    }
    Ok(())
}
