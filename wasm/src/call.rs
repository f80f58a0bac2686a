//! The arrays of a call, and attention without projections over them.

use alloc::string::String;
use alloc::vec::Vec;

use mha::{
    Argument, Attention, Broadcast, Cache, Causal, Dropout, Error, Inputs, Isa, Mask, Options,
    Outputs, ScoresAt, Shape,
};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::cache::Store;
use crate::failure::Failure;
use crate::family::{Family, Words};

/// A call: its description, and room for its arrays.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Call {
    shape: Shape,
    q: usize,
    /// None: the keys are the queries.
    k: Option<usize>,
    /// None: the values are the keys.
    v: Option<usize>,
    bias: Option<(usize, [usize; 4])>,
    mask: Option<(usize, [usize; 4])>,
    /// Whether the mask is of the opposite sense.
    excluding: bool,
    causal: Rule,
    dropout: Option<Dropout>,
    y: Option<usize>,
    scores: Option<usize>,
    wants_scores: bool,
    scores_at: ScoresAt,
    scratch: usize,
    /// `q k v bias y scores scratch`, one after the other; as long as the largest call was.
    floats: Vec<f32>,
    mask_data: Vec<u8>,
    offsets: Vec<isize>,
    /// Where packed sequences begin, queries and then keys, and how many there are of each.
    starts: Vec<usize>,
    starts_len: usize,
    family: Family,
    isa: Isa,
    failure: Option<Failure>,
}

/// The causal rule of a call.
#[derive(Clone, Copy, Debug)]
enum Rule {
    None,
    Natural,
    Offset(isize),
    /// So many offsets.
    PerSequence(usize),
}

#[wasm_bindgen]
impl Call {
    /// A call without room.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            shape: Shape::new(0, 0, 0),
            q: 0,
            k: None,
            v: None,
            bias: None,
            mask: None,
            excluding: false,
            causal: Rule::None,
            dropout: None,
            y: None,
            scores: None,
            wants_scores: false,
            scores_at: ScoresAt::Softmax,
            scratch: 0,
            floats: Vec::new(),
            mask_data: Vec::new(),
            offsets: Vec::new(),
            starts: Vec::new(),
            starts_len: 0,
            family: Family::new(),
            isa: Isa::detect(),
            failure: None,
        }
    }

    /// Begins to describe a call with its shape and the lengths of its inputs. The room stays.
    pub fn begin(
        &mut self,
        batch: usize,
        q_len: usize,
        kv_len: usize,
        q: usize,
        k: Option<usize>,
        v: Option<usize>,
    ) {
        self.shape = Shape::new(batch, q_len, kv_len);
        (self.q, self.k, self.v) = (q, k, v);
        (self.bias, self.mask, self.causal, self.dropout) = (None, None, Rule::None, None);
        (self.y, self.scores, self.wants_scores) = (None, None, false);
        (self.excluding, self.starts_len) = (false, 0);
        self.family.words = Words::NONE;
    }

    /// Where the words of the options go.
    pub fn words(&mut self) -> *mut u32 {
        self.family.words.0.as_mut_ptr()
    }

    /// Reads the mask in the opposite sense.
    pub fn excluding(&mut self) {
        self.excluding = true;
    }

    /// Adds the causal rule as it comes naturally.
    pub fn causal_natural(&mut self) {
        self.causal = Rule::Natural;
    }

    /// Says how many starts of packed sequences there are, of queries and of keys each.
    pub fn packed(&mut self, starts: usize) {
        self.starts_len = starts;
    }

    /// Where the floats of the options go.
    pub fn option_floats(&mut self) -> *mut f32 {
        self.family.floats.as_mut_ptr()
    }

    /// Where the lengths go.
    pub fn lens(&mut self) -> *mut usize {
        self.family.lens.as_mut_ptr()
    }

    /// Where the positions of the first queries go.
    pub fn positions(&mut self) -> *mut isize {
        self.family.offsets.as_mut_ptr()
    }

    /// Where the documents go.
    pub fn segments(&mut self) -> *mut u32 {
        self.family.segments.as_mut_ptr()
    }

    /// Where the starts of packed sequences go.
    pub fn starts(&mut self) -> *mut usize {
        self.starts.as_mut_ptr()
    }

    /// Where the log-sum-exps come.
    pub fn lse(&mut self) -> *mut f32 {
        let at = self.family.lse_at();
        self.family.floats.get_mut(at..).unwrap_or_default().as_mut_ptr()
    }

    /// Adds an additive bias: its length and extents.
    pub fn bias(&mut self, len: usize, batch: usize, heads: usize, q_len: usize, kv_len: usize) {
        self.bias = Some((len, [batch, heads, q_len, kv_len]));
    }

    /// Adds a boolean mask: its length and extents.
    pub fn mask(&mut self, len: usize, batch: usize, heads: usize, q_len: usize, kv_len: usize) {
        self.mask = Some((len, [batch, heads, q_len, kv_len]));
    }

    /// Adds the causal rule with one offset.
    pub fn causal(&mut self, offset: isize) {
        self.causal = Rule::Offset(offset);
    }

    /// Adds the causal rule with an offset for each sequence.
    pub fn causal_per_sequence(&mut self, len: usize) {
        self.causal = Rule::PerSequence(len);
    }

    /// Adds dropout; the seed in two halves.
    pub fn dropout(&mut self, p: f32, seed_low: u32, seed_high: u32) {
        self.dropout = Some(Dropout::new(p, u64::from(seed_high) << 32 | u64::from(seed_low)));
    }

    /// Says how long the caller's own y is, to be checked.
    pub fn y_of(&mut self, len: usize) {
        self.y = Some(len);
    }

    /// Asks for scores (0: after the softmax, 1: logits, 2: masked, 3: capped logits) and says how long the
    /// caller's own array is, if there is one.
    pub fn scores_of(&mut self, at: u32, len: Option<usize>) {
        self.wants_scores = true;
        self.scores = len;
        self.scores_at = match at {
            1 => ScoresAt::Logits,
            2 => ScoresAt::Masked,
            3 => ScoresAt::Capped,
            _ => ScoresAt::Softmax,
        };
    }

    /// Makes room for [`Call::attend`].
    pub fn reserve(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let attention = bare(heads, kv_heads, qk, v, scale);
        let (shape, scores) = (self.shape, self.scores_of_shape(&attention, self.shape));
        let y = shape.batch.saturating_mul(shape.q_len).saturating_mul(v);
        self.make_room(y, scores, attention.scratch_len(shape))
    }

    /// Attention without projections.
    pub fn attend(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, v, scale), self.isa);
        self.run(|shape, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            mha::dot_product_attention(attention, isa, shape, inputs, outputs, scratch)
        })
    }

    /// Makes room for [`Call::attend_scores`].
    pub fn reserve_scores(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        scale: Option<f32>,
    ) -> i32 {
        // What values there were would be as wide as the keys; they take no room.
        let attention = bare(heads, kv_heads, qk, qk, scale);
        let (shape, scores) = (self.shape, self.scores_of_shape(&attention, self.shape));
        self.make_room(0, scores, attention.scratch_len(shape))
    }

    /// The scores of attention alone.
    pub fn attend_scores(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        scale: Option<f32>,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, qk, scale), self.isa);
        self.run(|shape, inputs, Arrays { scores, scratch, .. }| {
            let scores = scores.unwrap_or_default();
            mha::dot_product_attention_scores(attention, isa, shape, inputs, scores, scratch)
        })
    }

    /// Makes room for [`Call::attend_cached`].
    pub fn reserve_cached(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
        store: &Store,
    ) -> i32 {
        let attention = bare(heads, kv_heads, qk, v, scale);
        let stored = self.over(store);
        let y = stored.batch.saturating_mul(stored.q_len).saturating_mul(v);
        let scores = self.scores_of_shape(&attention, stored);
        self.make_room(y, scores, attention.scratch_len(stored))
    }

    /// Attention without projections over a cache.
    pub fn attend_cached(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
        store: &Store,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, v, scale), self.isa);
        self.run(|shape, inputs, arrays| {
            let (cache, (outputs, scratch)) = (store.view()?, arrays.outputs());
            let q_len = shape.q_len;
            mha::dot_product_attention_cached(
                attention, isa, &cache, q_len, inputs, outputs, scratch,
            )
        })
    }

    /// Makes room for keys and values that are to be appended.
    pub fn reserve_append(&mut self) -> i32 {
        self.make_room(0, 0, 0)
    }

    /// Merges: q is y, k its log-sum-exps, v the other y, the bias the other log-sum-exps. The results
    /// stand where q and k stood.
    pub fn merge(&mut self, heads: usize, v: usize) -> i32 {
        let [q, k, other_y, other_lse, ..] = self.parts();
        let mut rest = self.floats.as_mut_slice();
        let [y, lse, other_y, other_lse] = [q, k, other_y, other_lse].map(|len| {
            let (part, left) =
                core::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            rest = left;
            part
        });
        let attention = Attention::new(heads, heads, v);
        let result = mha::merge(&attention, y, lse, other_y, other_lse).map_err(Failure::from);
        self.failure = result.err();
        Failure::code(result)
    }

    /// Where the queries go.
    pub fn q(&mut self) -> *mut f32 {
        self.float(0)
    }

    /// Where the keys go, if they are not the queries.
    pub fn k(&mut self) -> *mut f32 {
        self.float(1)
    }

    /// Where the values go, if they are not the keys.
    pub fn v(&mut self) -> *mut f32 {
        self.float(2)
    }

    /// Where the additive bias goes.
    pub fn bias_data(&mut self) -> *mut f32 {
        self.float(3)
    }

    /// Where the output comes.
    pub fn y(&mut self) -> *mut f32 {
        self.float(4)
    }

    /// Where the scores come.
    pub fn scores(&mut self) -> *mut f32 {
        self.float(5)
    }

    /// Where the mask goes.
    pub fn mask_data(&mut self) -> *mut u8 {
        self.mask_data.as_mut_ptr()
    }

    /// Where the causal offsets go.
    pub fn offsets(&mut self) -> *mut isize {
        self.offsets.as_mut_ptr()
    }

    /// Elements of the output.
    #[must_use]
    pub fn y_len(&self) -> usize {
        self.y.unwrap_or_default()
    }

    /// Elements of the scores.
    #[must_use]
    pub fn scores_len(&self) -> usize {
        self.scores.unwrap_or_default()
    }

    /// The name of the argument at fault.
    #[must_use]
    pub fn argument(&self) -> String {
        Failure::argument_of(self.failure)
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> String {
        Failure::message_of(self.failure)
    }
}

impl Default for Call {
    fn default() -> Self {
        Self::new()
    }
}

impl Call {
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The shape of a call over what a cache has stored.
    pub(crate) fn over(&self, store: &Store) -> Shape {
        Shape { batch: store.batch(), kv_len: store.stored(), ..self.shape }
    }

    /// Elements of the scores of a call of this shape.
    pub(crate) fn scores_of_shape(&mut self, attention: &Attention, shape: Shape) -> usize {
        self.family.options().scores_len(attention, shape)
    }

    /// Where packed sequences begin, queries and keys.
    pub(crate) fn packed_starts(&self) -> [Vec<usize>; 2] {
        let (len, starts) = (self.starts_len, self.starts.as_slice());
        [starts.get(..len), starts.get(len..2 * len)].map(|starts| starts.unwrap_or(&[]).to_vec())
    }

    /// Appends keys and values to a cache.
    pub(crate) fn append_to(
        &mut self,
        store: &mut Store,
        append: impl FnOnce(&mut Cache<'_>, &[f32], &[f32], &Options<'_>) -> Result<(), Error>,
    ) -> i32 {
        let [q, k_len, v_len, ..] = self.parts();
        let (has_k, has_v) = (self.k.is_some(), self.v.is_some());
        let floats = self.floats.as_slice();
        let part = |at: usize, len: usize| floats.get(at..at.saturating_add(len)).unwrap_or(&[]);
        let k = if has_k { part(q, k_len) } else { part(0, q) };
        let v = if has_v { part(q.saturating_add(k_len), v_len) } else { k };
        let options = self.family.options();
        let result = store.change(|cache| append(cache, k, v, &options));
        self.failure = result.err();
        Failure::code(result)
    }

    /// The lengths of the parts of `floats`.
    fn parts(&self) -> [usize; 7] {
        let [k, v, y, scores] =
            [self.k, self.v, self.y, self.scores].map(Option::unwrap_or_default);
        let bias = self.bias.map_or(0, |bias| bias.0);
        [self.q, k, v, bias, y, scores, self.scratch]
    }

    /// Where a part of `floats` begins; the end where it has none.
    fn float(&mut self, part: usize) -> *mut f32 {
        let at = self.parts().iter().take(part).sum::<usize>().min(self.floats.len());
        self.floats.get_mut(at..).unwrap_or_default().as_mut_ptr()
    }

    /// Makes room for the description; outputs whose lengths the caller has not said get these.
    pub(crate) fn make_room(&mut self, y: usize, scores: usize, scratch: usize) -> i32 {
        let result = self.try_make_room(y, scores, scratch);
        self.failure = result.err();
        Failure::code(result)
    }

    fn try_make_room(&mut self, y: usize, scores: usize, scratch: usize) -> Result<(), Failure> {
        self.y.get_or_insert(y);
        if self.wants_scores {
            self.scores.get_or_insert(scores);
        }
        self.scratch = scratch;
        let names = [
            Argument::Q,
            Argument::K,
            Argument::V,
            Argument::Bias,
            Argument::Y,
            Argument::Scores,
            Argument::Shape,
        ];
        let mut total = 0;
        for (len, argument) in self.parts().into_iter().zip(names) {
            if len > MOST {
                return Err(Error::TooLarge { argument }.into());
            }
            // Seven of them do not wrap.
            total += len;
        }
        if total > MOST {
            return Err(Failure::Memory(Argument::Shape));
        }
        room(&mut self.floats, total, Argument::Shape)?;
        if let Some((len, _)) = self.mask {
            room(&mut self.mask_data, len, Argument::Mask)?;
        }
        if let Rule::PerSequence(len) = self.causal {
            room(&mut self.offsets, len, Argument::Causal)?;
        }
        room(&mut self.starts, self.starts_len.saturating_mul(2), Argument::Rows)?;
        self.family.make_room()
    }

    /// Hands the arrays over to the core.
    pub(crate) fn run(
        &mut self,
        call: impl FnOnce(Shape, Inputs<'_, &Options<'_>>, Arrays<'_>) -> Result<(), Error>,
    ) -> i32 {
        let mut result = Ok(());
        let mut call = Some(call);
        self.with(&mut |shape, inputs, arrays| {
            if let Some(call) = call.take() {
                result = call(shape, inputs, arrays);
            }
        });
        let result = result.map_err(Failure::from);
        self.failure = result.err();
        Failure::code(result)
    }

    /// Makes slices of the arrays, and hands them to somebody; there once for all kinds of calls.
    pub(crate) fn with(&mut self, call: &mut Compute<'_>) {
        let parts = self.parts();
        let mut rest = self.floats.as_mut_slice();
        let [q, k, v, bias, y, scores, scratch] = parts.map(|len| {
            // What has no room comes out empty, and the core says that its length is wrong.
            let (part, left) =
                core::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            rest = left;
            part
        });
        let q = &*q;
        let k = if self.k.is_some() { &*k } else { q };
        let v = if self.v.is_some() { &*v } else { k };
        let mut inputs = Inputs::new(q, k, v);
        if let Some((_, extents)) = self.bias {
            inputs = inputs.bias(Broadcast::new(bias, extents));
        }
        if let Some((len, extents)) = self.mask {
            let mask = Mask::bytes(self.mask_data.get(..len).unwrap_or(&[]), extents);
            inputs = inputs.mask(if self.excluding { mask.excluding() } else { mask });
        }
        match self.causal {
            Rule::None => {}
            Rule::Natural => inputs = inputs.causal(),
            Rule::Offset(offset) => inputs = inputs.causal_from(Causal::Offset(offset)),
            Rule::PerSequence(len) => {
                let offsets = self.offsets.get(..len).unwrap_or(&[]);
                inputs = inputs.causal_from(Causal::PerSequence(offsets));
            }
        }
        if let Some(dropout) = self.dropout {
            inputs = inputs.dropout(dropout);
        }
        let scores = self.wants_scores.then_some(scores);
        let arrays = Arrays { y, scores, scores_at: self.scores_at, scratch };
        // Always with options, if with none, so that the driver is there once.
        let options = self.family.options();
        call(self.shape, inputs.options(&options), arrays);
    }
}

#[cfg(feature = "training")]
impl Call {
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Makes room for the inputs alone.
    pub(crate) fn try_room(&mut self) -> Result<(), Failure> {
        self.try_make_room(0, 0, 0)
    }

    /// Elements of q, k, v and the bias as the core gets them.
    pub(crate) fn input_lens(&self) -> [usize; 4] {
        let k = self.k.unwrap_or(self.q);
        [self.q, k, self.v.unwrap_or(k), self.bias.map_or(0, |bias| bias.0)]
    }
}

/// Attention without projections.
pub(crate) fn bare(
    heads: usize,
    kv_heads: usize,
    qk: usize,
    v: usize,
    scale: Option<f32>,
) -> Attention {
    Attention { scale, ..Attention::new(heads, qk, v).kv_heads(kv_heads) }
}

/// What computes a call whose arrays have been handed over.
pub(crate) type Compute<'f> = dyn FnMut(Shape, Inputs<'_, &Options<'_>>, Arrays<'_>) + 'f;

/// What a call writes to.
pub(crate) struct Arrays<'a> {
    y: &'a mut [f32],
    scores: Option<&'a mut [f32]>,
    scores_at: ScoresAt,
    scratch: &'a mut [f32],
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
const MOST: usize = isize::MAX as usize / size_of::<f32>();

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
