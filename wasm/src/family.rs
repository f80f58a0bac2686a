//! The options of a call. JavaScript describes them in a row of words, one meaning each, and copies
//! what arrays they have into room that is made for it.
//!
//! A word that is 0 asks for nothing. Lengths are one more than they are, so that an empty array is
//! something else than none.

use alloc::vec::Vec;
use core::cell::Cell;

use mha::{
    Alibi, Angles, Argument, Causal, Extra, Norm, NormKind, Options, Rope, Segments, Select, Window,
};

use crate::call::room;
use crate::failure::Failure;

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
}

/// How many words there are.
pub(crate) const WORDS: usize = Word::LseLen as usize + 1;

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
        room(&mut self.segments, segments, Argument::Segments)
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
