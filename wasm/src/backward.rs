//! The way back: gradients of a call.

use alloc::vec::Vec;

use mha::{Argument, BackwardError, Error, Gradients, Shape, Upstream};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::bare::bare;
use crate::call::{Call, Given, room};
use crate::door::{doors, frees, keep};
use crate::failure::{Failure, Problem};
use crate::layer::Layer;

/// How many gradients there can be: of q, k, v, wq, wk, wv, wo, bq, bk, bv, bo and bias, in this order.
const COUNT: usize = 12;

/// What comes from above, which gradients are wanted, and room for all of them.
#[derive(Debug)]
pub(crate) struct Back {
    dy: usize,
    dscores: Option<usize>,
    /// How long the caller's own array is of what the way forward keeps, or has kept.
    kept: Option<usize>,
    accumulate: bool,
    /// What is wanted, and how long it is where the caller has said so.
    wanted: [Option<Option<usize>>; COUNT],
    /// The lengths of the parts of `floats`: dy, dscores, the gradients, what is kept, scratch.
    parts: [usize; SCRATCH + 1],
    floats: Vec<f32>,
    problem: Problem,
}

/// The parts after the gradients.
const KEPT: usize = COUNT + 2;
const SCRATCH: usize = COUNT + 3;

/// Nothing, without room.
#[wasm_bindgen]
#[must_use]
pub fn back_new() -> usize {
    keep(Back::new())
}

doors! {
    /// Begins to describe a way back. The room stays.
    fn back_begin[back: Back](
        dy: usize, dscores: Option<usize>, kept: Option<usize>, accumulate: bool
    ) = Back::begin;
    /// Asks for a gradient, and says how long the caller's own array is, if there is one.
    fn back_want[back: Back](which: usize, len: Option<usize>) = Back::want;
    /// Where the gradient with respect to the output goes.
    fn back_dy[back: Back]() -> *mut f32 = Back::dy;
    /// Where the gradient with respect to the scores goes.
    fn back_dscores[back: Back]() -> *mut f32 = Back::dscores;
    /// Where a gradient comes; what is added to stands there before.
    fn back_gradient[back: Back](which: usize) -> *mut f32 = Back::gradient;
    /// Elements of a gradient; 0 where it is not wanted.
    fn back_gradient_len[back: Back](which: usize) -> usize = Back::gradient_len;
    /// Where what is kept lies.
    fn back_kept[back: Back]() -> *mut f32 = Back::kept;
    /// Elements of what is kept.
    fn back_kept_len[back: Back]() -> usize = Back::kept_len;
    /// Where it says what is wrong.
    fn back_problem[back: Back]() -> *const usize = Back::problem;
    /// Makes room for [`call_attend_backward`].
    fn call_reserve_backward[call: Call, back: Back](
        heads: usize, kv_heads: usize, qk: usize, v: usize, scale: Option<f32>
    ) -> i32 = Call::reserve_backward;
    /// The way back of attention without projections.
    fn call_attend_backward[call: Call, back: Back](
        heads: usize, kv_heads: usize, qk: usize, v: usize, scale: Option<f32>
    ) -> i32 = Call::attend_backward;
    /// Makes room for [`layer_backward`].
    fn layer_reserve_backward[layer: Layer, call: Call, back: Back]() -> i32 =
        Layer::reserve_backward;
    /// The way back of a call that has room.
    fn layer_backward[layer: Layer, call: Call, back: Back]() -> i32 = Layer::backward;
    /// Makes room for what [`layer_forward_keeping`] keeps, once the call has room; how long the caller's own
    /// array for it is, if there is one.
    fn layer_reserve_kept[layer: Layer, call: Call, back: Back](kept: Option<usize>) -> i32 =
        Layer::reserve_kept;
    /// The way forward of a call that has room, which keeps what the way back would compute again.
    fn layer_forward_keeping[layer: Layer, call: Call, back: Back]() -> i32 = Layer::forward_keeping;
    /// Elements of all weights, biases included.
    fn layer_data_len[layer: Layer]() -> usize = Layer::data_len;
}

frees! {
    /// Frees a way back.
    fn back_free[Back];
}

impl Back {
    fn new() -> Self {
        Self {
            dy: 0,
            dscores: None,
            kept: None,
            accumulate: false,
            wanted: [None; COUNT],
            parts: [0; SCRATCH + 1],
            floats: Vec::new(),
            problem: Problem::NONE,
        }
    }

    /// Begins to describe a way back. The room stays.
    fn begin(&mut self, dy: usize, dscores: Option<usize>, kept: Option<usize>, accumulate: bool) {
        (self.dy, self.dscores, self.kept, self.accumulate) = (dy, dscores, kept, accumulate);
        self.wanted = [None; COUNT];
    }

    /// Asks for a gradient, and says how long the caller's own array is, if there is one.
    fn want(&mut self, which: usize, len: Option<usize>) {
        if let Some(wanted) = self.wanted.get_mut(which) {
            *wanted = Some(len);
        }
    }

    /// Where the gradient with respect to the output goes.
    fn dy(&mut self) -> *mut f32 {
        self.float(0)
    }

    /// Where the gradient with respect to the scores goes.
    fn dscores(&mut self) -> *mut f32 {
        self.float(1)
    }

    /// Where a gradient comes; what is added to stands there before.
    fn gradient(&mut self, which: usize) -> *mut f32 {
        self.float(2 + which.min(COUNT))
    }

    /// Elements of a gradient; 0 where it is not wanted.
    fn gradient_len(&self, which: usize) -> usize {
        self.parts.get(2 + which).copied().filter(|_| which < COUNT).unwrap_or(0)
    }

    /// Where what is kept lies.
    fn kept(&mut self) -> *mut f32 {
        self.float(KEPT)
    }

    /// Elements of what is kept.
    fn kept_len(&self) -> usize {
        self.parts[KEPT]
    }

    /// Where it says what is wrong.
    fn problem(&self) -> *const usize {
        (&raw const self.problem).cast()
    }
}

impl Back {
    /// Where a part of `floats` begins; the end where it has none.
    fn float(&mut self, part: usize) -> *mut f32 {
        let at = self.parts.iter().take(part).sum::<usize>().min(self.floats.len());
        self.floats.get_mut(at..).unwrap_or_default().as_mut_ptr()
    }

    /// Makes room; gradients whose lengths the caller has not said get these.
    pub(crate) fn make_room(
        &mut self,
        call: &mut Call,
        weights: [usize; 8],
        scratch: usize,
    ) -> i32 {
        let result = self.try_make_room(call, weights, scratch);
        self.problem.settle(result)
    }

    fn try_make_room(
        &mut self,
        call: &mut Call,
        weights: [usize; 8],
        scratch: usize,
    ) -> Result<(), Failure> {
        call.try_make_room(0, 0, 0)?;
        let [q, k, v, bias, ..] = call.parts;
        let k = if call.words.k > 0 { k } else { q };
        let lens = [q, k, if call.words.v > 0 { v } else { k }, bias];
        let own = lens[..3].iter().chain(&weights).chain(&lens[3..]);
        self.parts = [0; SCRATCH + 1];
        self.parts[0] = self.dy;
        self.parts[1] = self.dscores.unwrap_or(0);
        for ((part, wanted), len) in self.parts[2..].iter_mut().zip(self.wanted).zip(own) {
            *part = wanted.map_or(0, |given| given.unwrap_or(*len));
        }
        self.parts[KEPT] = self.kept.unwrap_or(0);
        self.parts[SCRATCH] = scratch;
        self.take_room()
    }

    /// Room for all parts.
    fn take_room(&mut self) -> Result<(), Failure> {
        let sum = self.parts.iter().try_fold(0usize, |sum, len| sum.checked_add(*len));
        let total = sum.filter(|&sum| sum <= isize::MAX as usize / size_of::<f32>());
        let total = total.ok_or(Error::TooLarge { argument: Argument::Shape })?;
        room(&mut self.floats, total, Argument::Shape)
    }

    /// Goes back over a call that has room.
    pub(crate) fn run(
        &mut self,
        call: &mut Call,
        back: impl FnOnce(
            Shape,
            Given<'_>,
            Upstream<'_>,
            Gradients<'_>,
            &mut [f32],
        ) -> Result<(), BackwardError>,
    ) -> i32 {
        let mut rest = self.floats.as_mut_slice();
        let mut next = |len: usize| {
            let (part, left) =
                core::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            rest = left;
            part
        };
        let [dy, dscores] = [self.parts[0], self.parts[1]].map(&mut next);
        let mut each = self.wanted.iter().zip(&self.parts[2..]);
        let mut gradient = || {
            let (wanted, len) = each.next()?;
            let part = next(*len);
            wanted.is_some().then_some(part)
        };
        let gradients = Gradients {
            q: gradient(),
            k: gradient(),
            v: gradient(),
            wq: gradient(),
            wk: gradient(),
            wv: gradient(),
            wo: gradient(),
            bq: gradient(),
            bk: gradient(),
            bv: gradient(),
            bo: gradient(),
            bias: gradient(),
            accumulate: self.accumulate,
        };
        let [kept, scratch] = [KEPT, SCRATCH].map(|part| next(self.parts[part]));
        let mut upstream = Upstream::new(dy);
        if self.kept.is_some() {
            upstream = upstream.kept(kept);
        }
        if self.dscores.is_some() {
            upstream = upstream.scores(dscores);
        }
        let mut result = Ok(());
        let mut all = Some((back, gradients, scratch));
        call.with(&mut |shape, inputs, _| {
            if let Some((back, gradients, scratch)) = all.take() {
                result = back(shape, inputs, upstream, gradients, scratch);
            }
        });
        self.problem.settle_back(result)
    }
}

impl Call {
    /// Makes room for [`Call::attend_backward`].
    fn reserve_backward(
        &mut self,
        back: &mut Back,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let scratch = bare(heads, kv_heads, qk, v, scale).backward_scratch_len(self.shape());
        back.make_room(self, [0; 8], scratch)
    }

    /// The way back of attention without projections.
    fn attend_backward(
        &mut self,
        back: &mut Back,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, v, scale), self.isa);
        back.run(self, |shape, inputs, upstream, gradients, scratch| {
            mha::dot_product_attention_backward(
                attention, isa, shape, inputs, upstream, gradients, scratch,
            )
        })
    }
}

impl Layer {
    /// Makes room for [`Layer::backward`].
    fn reserve_backward(&self, call: &mut Call, back: &mut Back) -> i32 {
        let scratch = self.config().backward_scratch_len(call.shape());
        back.make_room(call, self.lens(), scratch)
    }

    /// The way back of a call that has room.
    fn backward(&self, call: &mut Call, back: &mut Back) -> i32 {
        back.run(call, |shape, inputs, upstream, gradients, scratch| {
            self.layer()?.backward(shape, inputs, upstream, gradients, scratch)
        })
    }

    /// Makes room for what [`Layer::forward_keeping`] keeps.
    fn reserve_kept(&self, call: &mut Call, back: &mut Back, kept: Option<usize>) -> i32 {
        back.parts = [0; SCRATCH + 1];
        back.parts[KEPT] = kept.unwrap_or_else(|| self.config().kept_len(call.shape()));
        let result = back.take_room();
        back.problem.settle(result)
    }

    /// The way forward, which keeps what the way back would compute again.
    fn forward_keeping(&self, call: &mut Call, back: &mut Back) -> i32 {
        let kept = back.floats.get_mut(..back.parts[KEPT]).unwrap_or_default();
        let mut result = Ok(());
        let mut kept = Some(kept);
        call.with(&mut |shape, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            let kept = kept.take().unwrap_or_default();
            result = self
                .layer()
                .map_err(BackwardError::from)
                .and_then(|layer| layer.forward_keeping(shape, inputs, outputs, kept, scratch));
        });
        back.problem.settle_back(result)
    }

    /// Elements of all weights, biases included.
    fn data_len(&self) -> usize {
        self.lens().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use mha::{Config, Dims, Inputs, MultiHeadAttention, Weights};

    use super::*;
    use crate::call::Words;

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// As JavaScript does it.
    fn copy(from: &[f32], to: *mut f32) {
        // SAFETY: the room for these was made before.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    /// Describes, makes room, copies in, computes and copies out, and holds the gradients against the
    /// core's: once overwritten, once added.
    #[test]
    fn a_way_back_step_by_step_is_the_core_s() {
        let config = Config::new(Dims::new((3, 4, 5), (6, 8), 7)).heads(2);
        let shape = Shape::new(2, 3, 5);
        let flat = numbers(config.weights_len());
        let mut layer = Layer::new((3, 4, 5), (6, 8), 7, 2, 2, None, false);
        assert_eq!(layer.weights(flat.len() + 1, 0, 0, 0, 0, 0, 0, 0), 0);
        copy(&flat, layer.data());
        let (q, k, v) = (numbers(2 * 3 * 3), numbers(2 * 5 * 4), numbers(2 * 5 * 5));
        let (dy, dscores) = (numbers(config.y_len(shape)), numbers(config.scores_len(shape)));
        let weights = Weights::from_flat(&config, &flat).unwrap();
        let core = MultiHeadAttention::new(config, weights).unwrap();
        let (mut dq, mut dwo) = (numbers(q.len()), numbers(config.wo_len()));
        let (mut call, mut back) = (Call::new(), Back::new());
        for accumulate in [false, true] {
            call.words = Words {
                batch: 2,
                q_len: 3,
                kv_len: 5,
                q: q.len() + 1,
                k: k.len() + 1,
                v: v.len() + 1,
                ..Words::NONE
            };
            back.begin(dy.len(), Some(dscores.len()), None, accumulate);
            back.want(0, None);
            back.want(6, Some(config.wo_len()));
            assert_eq!(layer.reserve_backward(&mut call, &mut back), 0);
            let places = call.places;
            for (from, to) in [(&q, places.q), (&k, places.k), (&v, places.v), (&dy, back.dy())] {
                copy(from, to);
            }
            copy(&dscores, back.dscores());
            copy(&dq, back.gradient(0));
            copy(&dwo, back.gradient(6));
            assert_eq!(layer.backward(&mut call, &mut back), 0, "{:?}", back.problem.said());
            let mut scratch = alloc::vec![0.0; config.backward_scratch_len(shape)];
            let (q_, wo) = (Some(&mut *dq), Some(&mut *dwo));
            let gradients = Gradients { q: q_, wo, accumulate, ..Gradients::default() };
            let upstream = Upstream::new(&dy).scores(&dscores);
            core.backward(shape, Inputs::new(&q, &k, &v), upstream, gradients, &mut scratch)
                .unwrap();
            for (which, expected) in [(0, &dq), (6, &dwo)] {
                assert_eq!(back.gradient_len(which), expected.len());
                // SAFETY: the gradient is as long as the way back says.
                let found = unsafe {
                    core::slice::from_raw_parts(back.gradient(which), back.gradient_len(which))
                };
                assert_eq!(found, expected, "gradient {which}");
            }
            assert_eq!(back.gradient_len(1), 0);
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_numbers() {
        let mut layer = Layer::new((4, 4, 4), (4, 4), 4, 2, 2, None, false);
        assert_eq!(layer.weights(65, 0, 0, 0, 0, 0, 0, 0), 0);
        let (mut call, mut back) = (Call::new(), Back::new());
        call.words = Words { batch: 1, q_len: 1, kv_len: 1, q: 5, ..Words::NONE };
        back.begin(3, None, None, false);
        assert_eq!(layer.reserve_backward(&mut call, &mut back), 0);
        assert_eq!(layer.backward(&mut call, &mut back), 4);
        assert_eq!(back.problem.said(), ("y", [4, 3, 1]));
        back.begin(4, None, None, false);
        back.want(7, None);
        assert_eq!(layer.reserve_backward(&mut call, &mut back), 0);
        assert_eq!(layer.backward(&mut call, &mut back), 10);
        assert_eq!(back.problem.said(), ("bq", [0, 0, 1]));
        back.begin(4, None, Some(15), false);
        assert_eq!(layer.reserve_backward(&mut call, &mut back), 0);
        assert_eq!(layer.backward(&mut call, &mut back), 4);
        assert_eq!(back.problem.said(), ("kept", [16, 15, 0]));
        assert_eq!(layer.reserve(&mut call), 0);
        assert_eq!(layer.reserve_kept(&mut call, &mut back, Some(15)), 0);
        assert_eq!(layer.forward_keeping(&mut call, &mut back), 4);
        assert_eq!(back.problem.said(), ("kept", [16, 15, 0]));
    }
}
