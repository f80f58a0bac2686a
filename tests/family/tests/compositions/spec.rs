//! What a composition is: sizes and switches, drawn by a seed, made consistent, and made smaller.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Sizes and switches of one call. The numbers come from the seed and the sizes alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) seed: u64,
    pub(crate) batch: usize,
    pub(crate) q_len: usize,
    pub(crate) kv_len: usize,
    pub(crate) past: usize,
    pub(crate) kv_heads: usize,
    /// Query heads to each of them.
    pub(crate) sharing: usize,
    pub(crate) d: usize,
    pub(crate) d_v: usize,
    pub(crate) layer: Option<Layer>,
    pub(crate) scale: Option<f32>,
    pub(crate) cache: Option<Kind>,
    pub(crate) causal: Option<Position>,
    pub(crate) offset: Option<Position>,
    pub(crate) window: (Option<usize>, Option<usize>),
    pub(crate) lens: bool,
    pub(crate) softcap: Option<f32>,
    pub(crate) alibi: Option<Slopes>,
    pub(crate) rope: Option<Rotary>,
    pub(crate) sinks: bool,
    pub(crate) norm: Option<Normal>,
    /// Which axes are not broadcast.
    pub(crate) bias: Option<[bool; 4]>,
    pub(crate) infinite: bool,
    pub(crate) mask: Option<[bool; 4]>,
    pub(crate) excluding: bool,
    pub(crate) segments: bool,
    pub(crate) extra: bool,
    pub(crate) scores: Option<(Stage, Which)>,
    /// First and one past the last query that has scores; `None`: all.
    pub(crate) part: Option<[usize; 2]>,
    pub(crate) lse: bool,
    /// Keys and values that no query may see are not numbers.
    pub(crate) poison: bool,
    pub(crate) least_scratch: bool,
    pub(crate) isa: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layer {
    /// Features of queries, keys, values, and of the output.
    pub(crate) widths: [usize; 4],
    pub(crate) out_in: bool,
    pub(crate) biases: [bool; 4],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kind {
    /// New positions are appended so many at a time.
    pub(crate) piece: usize,
    /// Positions of a ring beside the pinned ones, and how many are pinned.
    pub(crate) ring: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Position {
    Natural,
    Offset(isize),
    PerSequence,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Slopes {
    Standard,
    Given,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// 0 for the whole head.
    pub(crate) dims: usize,
    pub(crate) interleaved: bool,
    pub(crate) table: bool,
    pub(crate) base: f32,
    pub(crate) q_offset: Option<usize>,
    pub(crate) k_offset: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Normal {
    pub(crate) sum: bool,
    pub(crate) epsilon: f32,
    pub(crate) gains: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stage {
    Logits,
    Capped,
    Masked,
    Softmax,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Which {
    All,
    Head(usize),
    Mean,
}

impl Spec {
    pub(crate) fn heads(&self) -> usize {
        self.kv_heads * self.sharing
    }

    /// Keys of a sequence, those of the past among them.
    pub(crate) fn keys(&self) -> usize {
        self.past + self.kv_len
    }

    /// Positions that a ring has overwritten.
    pub(crate) fn gone(&self) -> std::ops::Range<usize> {
        match self.cache {
            Some(Kind { ring: Some((turn, pinned)), .. }) => {
                pinned..self.keys().saturating_sub(turn).max(pinned)
            }
            _ => 0..0,
        }
    }

    pub(crate) fn random(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let lens = [0, 1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 33, 47, 49, 63, 65, 97, 130];
        let widths = [1, 2, 3, 4, 6, 8, 10, 15, 16, 17, 18, 32];
        let mut len = |most: usize| loop {
            let len = lens[rng.random_range(0..lens.len())];
            if len <= most {
                break len;
            }
        };
        let (q_len, kv_len, past) = (len(65), len(130), len(97));
        let mut width = || widths[rng.random_range(0..widths.len())];
        let (d, d_v) = (width(), width());
        let layer_widths = [width(), width(), width(), width()];
        let odds = |rng: &mut StdRng, p| rng.random_bool(p);
        let axes = |rng: &mut StdRng| [(); 4].map(|()| rng.random());
        let position = |rng: &mut StdRng| match rng.random_range(0..4) {
            0 => Position::PerSequence,
            1 => Position::Offset(rng.random_range(-5..140i32) as isize),
            _ => Position::Natural,
        };
        let side = |rng: &mut StdRng| odds(rng, 0.6).then(|| rng.random_range(0..40));
        let offset = |rng: &mut StdRng| odds(rng, 0.4).then(|| rng.random_range(0..300));
        let (kv_heads, sharing) = (rng.random_range(1..=3), rng.random_range(1..=4));
        let stages = [Stage::Softmax, Stage::Softmax, Stage::Logits, Stage::Capped, Stage::Masked];
        let spec = Self {
            seed,
            batch: [0, 1, 1, 2, 3][rng.random_range(0..5)],
            q_len,
            kv_len,
            past,
            kv_heads,
            sharing,
            d,
            d_v,
            layer: odds(rng, 0.6).then(|| Layer {
                widths: layer_widths,
                out_in: rng.random(),
                biases: axes(rng),
            }),
            scale: odds(rng, 0.3).then(|| rng.random_range(-0.3..0.8)),
            cache: odds(rng, 0.6).then(|| Kind {
                piece: rng.random_range(1..=40),
                ring: odds(rng, 0.4)
                    .then(|| (16 * rng.random_range(1..=4), 16 * rng.random_range(0..=1))),
            }),
            causal: odds(rng, 0.4).then(|| position(rng)),
            offset: odds(rng, 0.3).then(|| position(rng)),
            window: if odds(rng, 0.4) { (side(rng), side(rng)) } else { (None, None) },
            lens: odds(rng, 0.3),
            softcap: odds(rng, 0.3).then(|| rng.random_range(0.5..20.0)),
            alibi: match rng.random_range(0..6) {
                0 => Some(Slopes::Standard),
                1 => Some(Slopes::Given),
                _ => None,
            },
            rope: odds(rng, 0.4).then(|| Rotary {
                dims: if rng.random() { 0 } else { 2 * rng.random_range(1..=8) },
                interleaved: rng.random(),
                table: rng.random(),
                base: [100.0, 10_000.0, 500_000.0][rng.random_range(0..3)],
                q_offset: offset(rng),
                k_offset: offset(rng),
            }),
            sinks: odds(rng, 0.3),
            norm: odds(rng, 0.3).then(|| Normal {
                sum: rng.random(),
                epsilon: rng.random_range(0.01..1.0),
                gains: [rng.random(), rng.random()],
            }),
            bias: odds(rng, 0.3).then(|| axes(rng)),
            infinite: odds(rng, 0.2),
            mask: odds(rng, 0.3).then(|| axes(rng)),
            excluding: rng.random(),
            segments: odds(rng, 0.3),
            extra: odds(rng, 0.3),
            scores: odds(rng, 0.7).then(|| {
                let which = match rng.random_range(0..4) {
                    0 => Which::Head(rng.random_range(0..kv_heads * sharing)),
                    1 => Which::Mean,
                    _ => Which::All,
                };
                (stages[rng.random_range(0..stages.len())], which)
            }),
            lse: odds(rng, 0.5),
            poison: odds(rng, 0.3),
            least_scratch: odds(rng, 0.3),
            isa: rng.random_range(0..8),
            part: odds(rng, 0.4)
                .then(|| [rng.random_range(0..=q_len), rng.random_range(0..=q_len)]),
        };
        spec.consistent()
    }

    /// Takes back what cannot be together, or means nothing.
    fn consistent(mut self) -> Self {
        match self.cache {
            None => self.past = 0,
            // A cache of no sequences cannot know how many positions were appended to them.
            Some(_) => self.batch = self.batch.max(1),
        }
        let late = self.cache.is_some() && self.q_len > self.keys();
        if let Some(rope) = &mut self.rope {
            rope.dims = if rope.dims > self.d { 0 } else { rope.dims };
            // Every pair of a head is rotated, or some of them.
            if rope.dims == 0 && !self.d.is_multiple_of(2) {
                rope.dims = self.d - 1;
            }
            // A position in front of the first is no angle.
            let negative = |position| matches!(position, Some(Position::Offset(p)) if p < 0);
            let early =
                negative(self.causal) || (self.causal.is_none() && negative(self.offset)) || late;
            if early {
                rope.q_offset.get_or_insert(7);
            }
        }
        if self.d == 1 {
            self.rope = None;
        }
        if let Some((stage, which)) = &mut self.scores {
            if let Which::Head(head) = which {
                *head %= self.kv_heads * self.sharing;
            }
            // Products with what is not a number are not numbers.
            self.poison &= matches!(stage, Stage::Masked | Stage::Softmax);
        }
        self.part = self.part.filter(|_| self.scores.is_some()).map(|[a, b]| {
            let (a, b) = (a.min(self.q_len), b.min(self.q_len));
            [a.min(b), a.max(b)]
        });
        self.infinite &= self.bias.is_some();
        self.excluding &= self.mask.is_some();
        self
    }

    /// The queries that have scores.
    pub(crate) fn scored(&self) -> std::ops::Range<usize> {
        self.part.map_or(0..self.q_len, |[start, end]| start..end)
    }

    /// Whether the library says that these exclude one another.
    pub(crate) fn excluded(&self) -> bool {
        let changed = self.rope.is_some() || self.norm.is_some();
        let early = |(stage, which)| {
            stage != Stage::Softmax && (which == Which::Mean || !self.gone().is_empty())
        };
        (self.layer.is_none() && self.cache.is_none() && changed) || self.scores.is_some_and(early)
    }

    /// The features that it has, by name.
    pub(crate) fn features(&self) -> Vec<&'static str> {
        let at = |stage| self.scores.is_some_and(|(at, _)| at == stage);
        [
            ("layer", self.layer.is_some()),
            ("cache", self.cache.is_some()),
            ("past", self.past > 0),
            ("ring gone round", !self.gone().is_empty()),
            ("kv_heads", self.sharing > 1),
            ("scale", self.scale.is_some()),
            ("causal", self.causal.is_some()),
            ("offset", self.offset.is_some()),
            ("window", self.window != (None, None)),
            ("lens", self.lens),
            ("softcap", self.softcap.is_some()),
            ("alibi", self.alibi.is_some()),
            ("rope", self.rope.is_some()),
            ("sinks", self.sinks),
            ("norm", self.norm.is_some()),
            ("bias", self.bias.is_some()),
            ("infinite bias", self.infinite),
            ("mask", self.mask.is_some()),
            ("segments", self.segments),
            ("extra", self.extra),
            ("logits", at(Stage::Logits)),
            ("capped", at(Stage::Capped)),
            ("masked", at(Stage::Masked)),
            ("softmax", at(Stage::Softmax)),
            ("one head", matches!(self.scores, Some((_, Which::Head(_))))),
            ("mean", matches!(self.scores, Some((_, Which::Mean)))),
            ("score_queries", self.part.is_some()),
            ("lse", self.lse),
            ("poison", self.poison),
        ]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .collect()
    }

    /// One step smaller or simpler, in every way there is.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut spec = self.clone();
            change(&mut spec);
            let spec = spec.consistent();
            if spec != *self {
                all.push(spec);
            }
        };
        with(&|s| s.layer = None);
        with(&|s| s.cache = None);
        with(&|s| s.cache.iter_mut().for_each(|cache| cache.ring = None));
        with(&|s| s.cache.iter_mut().for_each(|cache| cache.piece = 64));
        with(&|s| s.scale = None);
        with(&|s| s.causal = None);
        with(&|s| s.offset = None);
        with(&|s| s.window.0 = None);
        with(&|s| s.window.1 = None);
        with(&|s| s.lens = false);
        with(&|s| s.softcap = None);
        with(&|s| s.alibi = None);
        with(&|s| s.rope = None);
        with(&|s| s.rope.iter_mut().for_each(|rope| rope.table = false));
        with(&|s| s.sinks = false);
        with(&|s| s.norm = None);
        with(&|s| s.bias = None);
        with(&|s| s.infinite = false);
        with(&|s| s.mask = None);
        with(&|s| s.excluding = false);
        with(&|s| s.segments = false);
        with(&|s| s.extra = false);
        with(&|s| s.scores = None);
        with(&|s| s.scores.iter_mut().for_each(|scores| scores.1 = Which::All));
        with(&|s| s.part = None);
        with(&|s| s.lse = false);
        with(&|s| s.poison = false);
        with(&|s| s.least_scratch = false);
        with(&|s| s.isa = 0);
        with(&|s| s.layer.iter_mut().for_each(|layer| layer.widths = [1; 4]));
        with(&|s| s.layer.iter_mut().for_each(|layer| layer.biases = [false; 4]));
        let sizes: [fn(&mut Self) -> &mut usize; 8] = [
            |s| &mut s.batch,
            |s| &mut s.q_len,
            |s| &mut s.kv_len,
            |s| &mut s.past,
            |s| &mut s.kv_heads,
            |s| &mut s.sharing,
            |s| &mut s.d,
            |s| &mut s.d_v,
        ];
        for (i, size) in sizes.into_iter().enumerate() {
            // A past may be empty; the others say more with one of them.
            let least = usize::from(i != 3);
            for shrink in [|_| 0, |n| n / 2, |n: usize| n.saturating_sub(1)] {
                with(&|s| *size(s) = shrink(*size(s)).max(least).min(*size(s)));
            }
        }
        all
    }
}
