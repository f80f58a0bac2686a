//! Calls of the layer that every machine must answer with the same bits: each feature, sizes around
//! the tiles, little scratch, and the shapes whose cost is quoted.
//!
//! The inputs come from a counter, so that every machine makes the same ones, exactly.

use mha::{Attention, Config, Dims, ScoresAt, Shape, WeightOrder};

/// How much scratch a call is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// What full speed needs.
    Full,
    /// The least that works.
    Least,
    /// Half way between the two.
    Between,
    /// One float less than works: the call must be refused.
    Short,
}

impl Scratch {
    /// The length, given that of full speed and the least.
    #[must_use]
    pub const fn len(self, full: usize, least: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Least => least,
            Self::Between => least + full.saturating_sub(least) / 2,
            Self::Short => least - 1,
        }
    }
}

/// What a call has beside its layer and its shape.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Extents of the boolean mask.
    pub mask: Option<[usize; 4]>,
    /// How many of a mask's bytes are true, of 256.
    pub attends: u32,
    /// Extents of the additive bias.
    pub bias: Option<[usize; 4]>,
    /// Offset of the causal rule.
    pub causal: Option<isize>,
    /// Probability of dropout.
    pub dropout: Option<f32>,
    /// Where scores are taken.
    pub scores: Option<ScoresAt>,
    /// The scratch.
    pub scratch: Scratch,
    /// Factor on the inputs; large ones make peaked rows.
    pub amplitude: f32,
}

impl Options {
    const NONE: Self = Self {
        mask: None,
        attends: 176,
        bias: None,
        causal: None,
        dropout: None,
        scores: None,
        scratch: Scratch::Full,
        amplitude: 1.0,
    };
}

/// A call of something: of a layer with its projections, or of attention alone.
#[derive(Clone, Copy, Debug)]
pub struct Case<L> {
    /// A word to find it by.
    pub name: &'static str,
    /// What is called.
    pub layer: L,
    /// Whether its projections have biases.
    pub biases: bool,
    /// The lengths.
    pub shape: Shape,
    /// The rest.
    pub options: Options,
}

impl<L: Copy> Case<L> {
    const fn new(
        name: &'static str,
        layer: L,
        (batch, q_len, kv_len): (usize, usize, usize),
    ) -> Self {
        let shape = Shape::new(batch, q_len, kv_len);
        Self { name, layer, biases: false, shape, options: Options::NONE }
    }

    const fn biases(self) -> Self {
        Self { biases: true, ..self }
    }

    const fn mask(self, extents: [usize; 4]) -> Self {
        Self { options: Options { mask: Some(extents), ..self.options }, ..self }
    }

    const fn attends(self, attends: u32) -> Self {
        Self { options: Options { attends, ..self.options }, ..self }
    }

    const fn bias(self, extents: [usize; 4]) -> Self {
        Self { options: Options { bias: Some(extents), ..self.options }, ..self }
    }

    const fn causal(self, offset: isize) -> Self {
        Self { options: Options { causal: Some(offset), ..self.options }, ..self }
    }

    const fn dropout(self, p: f32) -> Self {
        Self { options: Options { dropout: Some(p), ..self.options }, ..self }
    }

    const fn scores(self, at: ScoresAt) -> Self {
        Self { options: Options { scores: Some(at), ..self.options }, ..self }
    }

    const fn scratch(self, scratch: Scratch) -> Self {
        Self { options: Options { scratch, ..self.options }, ..self }
    }

    const fn amplitude(self, amplitude: f32) -> Self {
        Self { options: Options { amplitude, ..self.options }, ..self }
    }
}

/// Shape S9 of the benchmarks: a microcontroller's.
const SMALL: Config = Config::new(Dims::square(32)).heads(4);
/// Shape S3 of the benchmarks: a transformer that spots keywords.
const KEYWORDS: Config = Config::new(Dims::square(64)).heads(1);
/// Every width different, none a multiple of a register.
const PRIMES: Config = Config::new(Dims::new((5, 7, 11), (6, 9), 13)).heads(3);
/// Widths that end in one, two and three columns beyond the fours.
const RAGGED: Config = Config::new(Dims::new((3, 6, 5), (14, 22), 15)).heads(2);
const TINY: Config = Config::new(Dims::square(1)).heads(1);
const OUT_IN: Config = SMALL.weight_order(WeightOrder::OutIn);

/// The calls of the layer.
pub const LAYER: &[Case<Config>] = &[
    Case::new("s9", SMALL, (1, 16, 16)),
    Case::new("s9_scores", SMALL, (1, 16, 16)).scores(ScoresAt::Softmax),
    Case::new("s9_causal", SMALL, (1, 16, 16)).causal(0),
    Case::new("s9_least", SMALL, (1, 16, 16)).scratch(Scratch::Least),
    Case::new("s9_between", SMALL, (1, 16, 16)).scratch(Scratch::Between),
    Case::new("s9_out_in", OUT_IN, (1, 16, 16)),
    Case::new("s3", KEYWORDS, (1, 99, 99)),
    Case::new("s3_least", KEYWORDS, (1, 99, 99)).scratch(Scratch::Least),
    Case::new("s3_causal_scores", KEYWORDS, (1, 99, 99)).causal(0).scores(ScoresAt::Softmax),
    Case::new("one", TINY, (1, 1, 1)).biases().scores(ScoresAt::Softmax),
    Case::new("primes", PRIMES, (2, 7, 19)).biases().scores(ScoresAt::Softmax),
    Case::new("primes_least", PRIMES, (2, 7, 19)).biases().scratch(Scratch::Least),
    Case::new("primes_logits", PRIMES, (2, 5, 33)).scores(ScoresAt::Logits).causal(3),
    Case::new("primes_masked", PRIMES, (2, 5, 33)).scores(ScoresAt::Masked).mask([2, 1, 5, 33]),
    Case::new("ragged", RAGGED, (2, 6, 18)).biases().scores(ScoresAt::Softmax),
    Case::new("ragged_out_in", RAGGED.weight_order(WeightOrder::OutIn), (2, 6, 18)).biases(),
    Case::new("one_query", SMALL, (1, 1, 61)).biases(),
    Case::new("one_key", SMALL, (3, 17, 1)).biases().scores(ScoresAt::Softmax),
    Case::new("causal_17", SMALL, (1, 17, 17)).causal(0).scores(ScoresAt::Softmax),
    Case::new("causal_last", PRIMES, (1, 5, 23)).causal(18).scores(ScoresAt::Softmax),
    Case::new("causal_none", PRIMES, (1, 5, 23)).biases().causal(-3).scores(ScoresAt::Softmax),
    Case::new("mask_keys", SMALL, (2, 9, 29)).mask([2, 1, 1, 29]).scores(ScoresAt::Softmax),
    Case::new("mask_all_axes", PRIMES, (2, 9, 29)).mask([2, 3, 9, 29]).biases(),
    Case::new("mask_nothing", PRIMES, (1, 4, 20)).mask([1, 1, 4, 20]).attends(0).biases(),
    Case::new("bias_heads", SMALL, (1, 13, 21)).bias([1, 4, 13, 21]).scores(ScoresAt::Softmax),
    Case::new("bias_one", PRIMES, (2, 3, 18)).bias([1, 1, 1, 1]),
    Case::new("bias_mask_causal", PRIMES, (2, 31, 31))
        .biases()
        .bias([1, 3, 31, 1])
        .mask([2, 1, 1, 31])
        .causal(0)
        .scores(ScoresAt::Softmax),
    Case::new("dropout", SMALL, (2, 11, 37)).dropout(0.25).scores(ScoresAt::Softmax),
    Case::new("peaked", SMALL, (1, 16, 65)).amplitude(64.0).scores(ScoresAt::Softmax),
    Case::new("peaked_least", SMALL, (1, 16, 65)).amplitude(64.0).scratch(Scratch::Least),
    Case::new("no_keys", PRIMES, (2, 3, 0)).biases(),
    Case::new("no_queries", PRIMES, (2, 0, 3)).biases(),
    Case::new("short_scratch", SMALL, (1, 16, 16)).scratch(Scratch::Short),
    Case::new("wrong_mask", SMALL, (1, 16, 16)).mask([1, 3, 16, 16]),
    Case::new("wrong_dropout", SMALL, (1, 16, 16)).dropout(1.0),
    Case::new("wrong_heads", SMALL.heads(5), (1, 16, 16)),
];

/// The calls of attention alone. The first is the shape on which other libraries were measured.
pub const ATTENTION: &[Case<Attention>] = &[
    Case::new("a64", Attention::new(1, 32, 32), (1, 64, 64)),
    Case::new("a64_least", Attention::new(1, 32, 32), (1, 64, 64)).scratch(Scratch::Least),
    Case::new("a64_causal", Attention::new(1, 32, 32), (1, 64, 64)).causal(0),
    Case::new("a99", Attention::new(1, 64, 64), (1, 99, 99)),
    Case::new("heads", Attention::new(4, 32, 64), (2, 17, 23)).scores(ScoresAt::Softmax),
    Case::new("mask", Attention::new(3, 15, 9), (2, 5, 35)).mask([2, 1, 5, 35]).biases(),
    Case::new("scale", Attention::new(2, 6, 10).scale(2.5), (1, 7, 40)).scores(ScoresAt::Masked),
    Case::new("dropout", Attention::new(2, 8, 8), (1, 6, 50)).dropout(0.5).bias([1, 2, 1, 50]),
    Case::new("short_scratch", Attention::new(1, 32, 32), (1, 64, 64)).scratch(Scratch::Short),
];

/// Numbers for inputs: the same on every machine, in `[-1, 1)`, times a factor.
#[derive(Clone, Copy, Debug)]
pub struct Numbers(u32);

impl Numbers {
    /// A stream of its own for each seed.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9))
    }

    /// The next word: a counter, mixed (the finaliser of MurmurHash3).
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        let mut x = self.0;
        x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        x ^ (x >> 16)
    }

    /// Fills a slice.
    pub fn floats(&mut self, slice: &mut [f32], factor: f32) {
        for to in slice {
            // 24 bits, so that nothing is rounded but by the factor.
            let steps = (self.word() >> 8) as i32 - 0x80_0000;
            *to = steps as f32 * (1.0 / 8_388_608.0) * factor;
        }
    }

    /// Fills a slice with zeros and ones, about `ones` of 256 of the latter.
    pub fn bytes(&mut self, slice: &mut [u8], ones: u32) {
        for to in slice {
            *to = u8::from(self.word() >> 24 < ones);
        }
    }
}
