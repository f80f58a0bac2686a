//! The options of a call. JavaScript describes them in a row of words, one meaning each, and copies
//! what arrays they have into room that is made for it.
//!
//! A word that is 0 asks for nothing. Lengths are one more than they are, so that an empty array is
//! something else than none.

use alloc::vec::Vec;
use core::cell::Cell;

use mha::{
    Alibi, Angles, Argument, Attention, Causal, Extra, Norm, NormKind, Options, Rope, Segments,
    Select, Shape, Window,
};

use crate::call::{Call, room};
use crate::door::doors;
use crate::failure::Failure;
use crate::layer::Layer;

/// The places of the words; `wasm/npm/src/family.ts` has the same.
#[derive(Clone, Copy)]
enum Word {
    /// 0: no position is said. 1: one. 2: one for each sequence.
    Offset,
    OffsetBy,
    OffsetsLen,
    HasLeft,
    Left,
    HasRight,
    Right,
    LensLen,
    HasSoftcap,
    Softcap,
    /// 1: the usual slopes. 2: given ones.
    Alibi,
    SlopesLen,
    /// 1: a base. 2: tables.
    Rope,
    RopeInterleaved,
    RopeBase,
    RopeDims,
    HasRopeQ,
    RopeQ,
    HasRopeK,
    RopeK,
    CosLen,
    SinLen,
    SinksLen,
    /// 1: RMS. 2: L2.
    Norm,
    NormEpsilon,
    QGainLen,
    KGainLen,
    SegmentsQLen,
    SegmentsKvLen,
    ExtraKLen,
    ExtraVLen,
    /// 1: of one head. 2: the mean.
    Scores,
    ScoreHead,
    HasScoreQueries,
    ScoreQueriesStart,
    ScoreQueriesEnd,
    LseLen,
    /// How many starts of packed sequences there are, of queries and of keys each.
    StartsLen,
}

/// How many words there are.
pub(crate) const WORDS: usize = Word::StartsLen as usize + 1;

/// The lengths whose arrays lie one after another among the floats, in this order.
const FLOATS: [Word; 9] = [
    Word::SlopesLen,
    Word::CosLen,
    Word::SinLen,
    Word::SinksLen,
    Word::QGainLen,
    Word::KGainLen,
    Word::ExtraKLen,
    Word::ExtraVLen,
    Word::LseLen,
];

/// The row of words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words(pub(crate) [u32; WORDS]);

impl Words {
    /// No options.
    pub(crate) const NONE: Self = Self([0; WORDS]);

    fn get(&self, word: Word) -> usize {
        self.0[word as usize] as usize
    }

    /// The length behind a word; none for 0.
    fn len(&self, word: Word) -> Option<usize> {
        self.get(word).checked_sub(1)
    }

    /// A number behind a flag.
    fn flagged(&self, flag: Word, value: Word) -> Option<usize> {
        (self.get(flag) != 0).then(|| self.get(value))
    }

    fn float(&self, word: Word) -> f32 {
        f32::from_bits(self.0[word as usize])
    }
}

/// The options of a call, and room for their arrays.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) words: Words,
    /// The arrays of [`FLOATS`], one after another.
    pub(crate) floats: Vec<f32>,
    /// Lengths.
    pub(crate) lens: Vec<usize>,
    /// Positions of the first queries.
    pub(crate) offsets: Vec<isize>,
    /// Documents of the queries, then of the keys.
    pub(crate) segments: Vec<u32>,
    /// Where packed sequences begin, queries and then keys.
    pub(crate) starts: Vec<usize>,
}

impl Family {
    /// No options.
    pub(crate) const fn new() -> Self {
        Self {
            words: Words::NONE,
            floats: Vec::new(),
            lens: Vec::new(),
            offsets: Vec::new(),
            segments: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// Makes room for the arrays.
    pub(crate) fn make_room(&mut self) -> Result<(), Failure> {
        let words = self.words;
        let floats = FLOATS.iter().filter_map(|word| words.len(*word));
        let floats = floats.fold(0usize, usize::saturating_add);
        room(&mut self.floats, floats, Argument::Shape)?;
        let lens = words.len(Word::LensLen).unwrap_or(0);
        room(&mut self.lens, lens, Argument::Lens)?;
        let offsets = words.get(Word::OffsetsLen);
        room(&mut self.offsets, offsets, Argument::Causal)?;
        let [q, kv] = [Word::SegmentsQLen, Word::SegmentsKvLen].map(|word| words.len(word));
        let segments = q.unwrap_or(0).saturating_add(kv.unwrap_or(0));
        room(&mut self.segments, segments, Argument::Segments)?;
        room(&mut self.starts, words.get(Word::StartsLen).saturating_mul(2), Argument::Rows)
    }

    /// Where packed sequences begin, queries and keys.
    pub(crate) fn packed_starts(&self) -> [Vec<usize>; 2] {
        let (len, starts) = (self.words.get(Word::StartsLen), self.starts.as_slice());
        [starts.get(..len), starts.get(len..len.saturating_mul(2))]
            .map(|starts| starts.unwrap_or(&[]).to_vec())
    }

    /// Where the log-sum-exps lie among the floats.
    pub(crate) fn lse_at(&self) -> usize {
        FLOATS.iter().take(8).filter_map(|word| self.words.len(*word)).sum()
    }

    /// The options, for as long as the room is there.
    pub(crate) fn options(&mut self) -> Options<'_> {
        let words = self.words;
        let lens = FLOATS.map(|word| words.len(word));
        let mut rest = self.floats.as_mut_slice();
        let floats = lens.map(|len| {
            // What has no room comes out empty, and the core says that its length is wrong.
            let len = len?;
            let (part, left) =
                core::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            rest = left;
            Some(part)
        });
        let [slopes, cos, sin, sinks, q_gain, k_gain, extra_k, extra_v, lse] = floats;
        let [slopes, cos, sin, sinks, q_gain, k_gain, extra_k, extra_v] =
            [slopes, cos, sin, sinks, q_gain, k_gain, extra_k, extra_v]
                .map(|part| part.map(|part| &*part));
        let offset = match words.get(Word::Offset) {
            0 => None,
            1 => Some(Causal::Offset(words.get(Word::OffsetBy) as isize)),
            _ => {
                let len = words.get(Word::OffsetsLen);
                Some(Causal::PerSequence(self.offsets.get(..len).unwrap_or(&[])))
            }
        };
        let alibi = match words.get(Word::Alibi) {
            0 => None,
            1 => Some(Alibi::Standard),
            _ => Some(Alibi::Slopes(slopes.unwrap_or(&[]))),
        };
        let rope = (words.get(Word::Rope) != 0).then(|| Rope {
            dims: words.get(Word::RopeDims),
            interleaved: words.get(Word::RopeInterleaved) != 0,
            angles: match words.get(Word::Rope) {
                1 => Angles::Base(words.float(Word::RopeBase)),
                _ => Angles::Table { cos: cos.unwrap_or(&[]), sin: sin.unwrap_or(&[]) },
            },
            q_offset: words.flagged(Word::HasRopeQ, Word::RopeQ),
            k_offset: words.flagged(Word::HasRopeK, Word::RopeK),
        });
        let norm = (words.get(Word::Norm) != 0).then(|| Norm {
            kind: if words.get(Word::Norm) == 1 { NormKind::Rms } else { NormKind::L2 },
            epsilon: words.float(Word::NormEpsilon),
            q_gain,
            k_gain,
        });
        let documents = words.len(Word::SegmentsQLen).zip(words.len(Word::SegmentsKvLen));
        let segments = documents.map(|(q, kv)| Segments {
            q: self.segments.get(..q).unwrap_or(&[]),
            kv: self.segments.get(q..q.saturating_add(kv)).unwrap_or(&[]),
        });
        Options {
            offset,
            window: Window {
                left: words.flagged(Word::HasLeft, Word::Left),
                right: words.flagged(Word::HasRight, Word::Right),
            },
            lens: words.len(Word::LensLen).map(|len| self.lens.get(..len).unwrap_or(&[])),
            softcap: (words.get(Word::HasSoftcap) != 0).then(|| words.float(Word::Softcap)),
            alibi,
            rope,
            sinks,
            norm,
            segments,
            extra: extra_k.zip(extra_v).map(|(k, v)| Extra { k, v }),
            scores: match words.get(Word::Scores) {
                0 => Select::All,
                1 => Select::Head(words.get(Word::ScoreHead)),
                _ => Select::Mean,
            },
            score_queries: (words.get(Word::HasScoreQueries) != 0)
                .then(|| [words.get(Word::ScoreQueriesStart), words.get(Word::ScoreQueriesEnd)]),
            lse: lse.map(|lse| Cell::from_mut(lse).as_slice_of_cells()),
        }
    }
}

doors! {
    /// Where the words of the options go.
    fn call_option_words[call: Call]() -> *mut u32 = Call::option_words;
    /// Where the floats of the options go.
    fn call_option_floats[call: Call]() -> *mut f32 = Call::option_floats;
    /// Where the lengths go.
    fn call_lens[call: Call]() -> *mut usize = Call::lens;
    /// Where the positions of the first queries go.
    fn call_positions[call: Call]() -> *mut isize = Call::positions;
    /// Where the documents go.
    fn call_segments[call: Call]() -> *mut u32 = Call::segments;
    /// Where the starts of packed sequences go.
    fn call_starts[call: Call]() -> *mut usize = Call::starts;
    /// Where the log-sum-exps come.
    fn call_lse[call: Call]() -> *mut f32 = Call::lse;
    /// Makes room for [`layer_forward_packed`]: the lengths that the call says are those of the longest
    /// sequence, `queries` and `scores` those of all.
    fn layer_reserve_packed[layer: Layer, call: Call](queries: usize, scores: usize) -> i32 =
        Layer::reserve_packed;
    /// Computes packed sequences.
    fn layer_forward_packed[layer: Layer, call: Call]() -> i32 = Layer::forward_packed;
}

impl Call {
    /// Where the words of the options go.
    pub(crate) fn option_words(&mut self) -> *mut u32 {
        self.family.words.0.as_mut_ptr()
    }

    /// Where the floats of the options go.
    pub(crate) fn option_floats(&mut self) -> *mut f32 {
        self.family.floats.as_mut_ptr()
    }

    /// Where the lengths go.
    pub(crate) fn lens(&mut self) -> *mut usize {
        self.family.lens.as_mut_ptr()
    }

    /// Where the positions of the first queries go.
    pub(crate) fn positions(&mut self) -> *mut isize {
        self.family.offsets.as_mut_ptr()
    }

    /// Where the documents go.
    pub(crate) fn segments(&mut self) -> *mut u32 {
        self.family.segments.as_mut_ptr()
    }

    /// Where the starts of packed sequences go.
    pub(crate) fn starts(&mut self) -> *mut usize {
        self.family.starts.as_mut_ptr()
    }

    /// Where the log-sum-exps come.
    pub(crate) fn lse(&mut self) -> *mut f32 {
        let at = self.family.lse_at();
        self.family.floats.get_mut(at..).unwrap_or_default().as_mut_ptr()
    }
}

impl Call {
    /// Elements of the scores of a call of this shape.
    pub(crate) fn scores_of_shape(&mut self, attention: &Attention, shape: Shape) -> usize {
        self.family.options().scores_len(attention, shape)
    }
}

impl Layer {
    /// Makes room for [`Layer::forward_packed`]: the lengths that the call says are those of the
    /// longest sequence, `queries` and `scores` those of all.
    pub(crate) fn reserve_packed(&self, call: &mut Call, queries: usize, scores: usize) -> i32 {
        let y = queries.saturating_mul(self.config().dims.out);
        call.make_room(y, scores, self.config().scratch_len(call.shape()))
    }

    /// Computes packed sequences.
    pub(crate) fn forward_packed(&self, call: &mut Call) -> i32 {
        let [q_starts, kv_starts] = call.family.packed_starts();
        call.run(|_, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            self.layer()?.forward_packed(&q_starts, &kv_starts, inputs, outputs, scratch)
        })
    }
}
