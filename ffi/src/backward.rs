//! The way back: gradients. Functions and messages of their own, so that a program that only goes
//! forward contains nothing of them.

use core::ffi::c_char;

use mha::{BackwardError, Gradients, Inputs, Options, Part, Shape, Upstream};

use crate::buffer::{Buffer, Written};
use crate::convert::{Given, Values, read};
use crate::isa::isa;
use crate::options::mha_options;
use crate::status::{
    Fault, Table, find, mha_argument as A, mha_kind as K, mha_status, mha_status_message, name,
    status,
};
use crate::types::*;

/// The gradient of a loss with respect to what the layer returned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_upstream {
    /// With respect to y, `[batch][q_len][out]`.
    pub dy: mha_slice,
    /// With respect to the scores (after the softmax and after dropout),
    /// `[batch][heads][q_len][kv_len]`; left out where the loss does not look at them.
    pub dscores: mha_slice,
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
/// through. Nothing has been written then. `mha_backward_status_message` has words for all of them.
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

/// What is written, before it is slices.
struct Buffers {
    gradients: [Option<Buffer<f32>>; GRADIENTS.len()],
    accumulate: bool,
    scratch: Buffer<f32>,
}

/// What there are gradients of, in the order of `mha_gradients`.
const GRADIENTS: [A; 12] =
    [A::Q, A::K, A::V, A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias];

impl Buffers {
    fn new(from: &mha_gradients, scratch: Buffer<f32>) -> Result<Self, Fault> {
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
    fn lists(&self) -> impl Iterator<Item = Written> {
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
    unsafe fn get<'a>(self) -> (Gradients<'a>, &'a mut [f32]) {
        // SAFETY: the caller's promise, for each of them.
        let each = self.gradients.map(|buffer| buffer.map(|b| unsafe { b.slice_mut() }));
        let [q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias] = each;
        let accumulate = self.accumulate;
        let gradients = Gradients { q, k, v, wq, wk, wv, wo, bq, bk, bv, bo, bias, accumulate };
        // SAFETY: as above.
        (gradients, unsafe { self.scratch.slice_mut() })
    }
}

/// An error of the way back as a status.
fn fault(error: BackwardError) -> Fault {
    match error {
        BackwardError::Call(error) => Fault::from(error),
        BackwardError::Gradient { of, .. } => Fault::new(K::Length, of.into()).of_gradient(),
        BackwardError::Absent { of } => Fault::new(K::Absent, of.into()).of_gradient(),
        BackwardError::Option { argument } => Fault::new(K::Option, argument.into()),
        _ => Fault::new(K::Option, A::Other),
    }
}

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
        let attention = &config.attention;
        let biases =
            [config.dims.qk, attention.key_features(), attention.value_features(), config.dims.out];
        let weights = [config.wq_len(), config.wk_len(), config.wv_len(), config.wo_len()];
        let mut at = flat;
        let mut next = |len: usize| {
            let slice = mha_slice_mut { data: at, len };
            // Inside of the array, whose end is the last one's.
            at = at.wrapping_add(len);
            slice
        };
        // SAFETY: neither null nor misaligned, a struct that is written and that nothing else lies in.
        let gradients = unsafe { &mut *gradients };
        let [wq, wk, wv, wo] = weights.map(&mut next);
        *gradients = mha_gradients { wq, wk, wv, wo, ..*gradients };
        if flat_len > config.weights_len() {
            let [bq, bk, bv, bo] = biases.map(&mut next);
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

/// What the functions above alone can say, beside what there is a message of already.
const POSSIBLE: [(K, &[A], &str); 8] = {
    /// Everything that has a gradient, or with respect to which there is one.
    const ALL: &[A] = &[
        A::Q,
        A::K,
        A::V,
        A::Wq,
        A::Wk,
        A::Wv,
        A::Wo,
        A::Bq,
        A::Bk,
        A::Bv,
        A::Bo,
        A::Bias,
        A::Y,
        A::Scores,
    ];
    const WRITTEN: &[A] = &GRADIENTS;
    const OPTIONAL: &[A] = &[A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias];
    [
        (K::Null, ALL, "null pointer"),
        (K::Misaligned, ALL, "misaligned pointer"),
        (K::TooLarge, ALL, "too large"),
        (K::Length, ALL, "wrong length"),
        (K::Overlap, WRITTEN, "overlaps another buffer"),
        (K::Absent, OPTIONAL, "the call has none"),
        (K::Null, &[A::None], "null pointer"),
        (K::Misaligned, &[A::None], "misaligned pointer"),
    ]
};

const fn messages<const N: usize>() -> Table<N> {
    let mut out = Table::new();
    let mut i = 0;
    while i < POSSIBLE.len() {
        let (kind, arguments, reason) = POSSIBLE[i];
        let mut j = 0;
        while j < arguments.len() {
            let argument = arguments[j];
            out = out.byte(kind as u8).byte(GRADIENT as u8 | argument as u8);
            let what = if argument as u8 == 0 { "gradients" } else { name(argument) };
            out = if argument as u8 == 0 { out } else { out.text("d") };
            out = out.text(what).text(": ").text(reason).byte(0);
            j += 1;
        }
        i += 1;
    }
    let options = [(A::Norm, "norm"), (A::Extra, "extra"), (A::Lse, "lse"), (A::Scores, "scores")];
    let mut i = 0;
    while i < options.len() {
        let (argument, what) = options[i];
        out = out.byte(K::Option as u8).byte(argument as u8);
        out = out.text(what).text(": no way back through it").byte(0);
        i += 1;
    }
    out = out.byte(K::Range as u8).byte(A::KvHeads as u8).text("kv_heads: out of range").byte(0);
    out
}

/// What a status's argument has beside its number where it is the gradient of that argument.
pub(crate) const GRADIENT: i32 = 128;

static MESSAGES: [u8; messages::<0>().len()] = messages().bytes();

/// What is wrong with which argument: `mha_status_message` for a program that goes back too, such as
/// `"dwq: wrong length"`. The texts take about 2 KiB of flash beside those of that function.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`.
#[unsafe(no_mangle)]
pub extern "C" fn mha_backward_status_message(status: mha_status) -> *const c_char {
    let [kind, argument, ..] = status.to_le_bytes();
    let own = find(&MESSAGES, &[kind, argument]).filter(|_| status != 0);
    own.unwrap_or_else(|| mha_status_message(status))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::ffi::CStr;

    #[test]
    fn every_status_of_the_way_back_has_its_message() {
        let message = |fault| {
            // SAFETY: every text ends in a zero and is static.
            unsafe { CStr::from_ptr(mha_backward_status_message(status(Err(fault)))) }
                .to_str()
                .expect("UTF-8")
        };
        for (kind, arguments, reason) in POSSIBLE {
            for &argument in arguments {
                let said = message(Fault::new(kind, argument).of_gradient());
                assert!(said.ends_with(reason), "{said}");
            }
        }
        assert_eq!(message(Fault::new(K::Length, A::Wq).of_gradient()), "dwq: wrong length");
        assert_eq!(message(Fault::new(K::Null, A::None).of_gradient()), "gradients: null pointer");
        assert_eq!(message(Fault::new(K::Option, A::Norm)), "norm: no way back through it");
        assert_eq!(message(Fault::new(K::Length, A::Scratch)), "scratch: too short");
        assert_eq!(message(Fault::new(K::Range, A::KvHeads)), "kv_heads: out of range");
        assert!(MESSAGES.len() < 2048, "{}: the documentation says 2 KiB", MESSAGES.len());
    }
}
