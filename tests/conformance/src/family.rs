//! What a call asks for beyond the layer of 2017, owned: the options of a case, and the past that it
//! goes on from.

use mha::{Alibi, Causal, Options, Rope, Window};

use crate::call::{Call, Causality, Operation};

/// Slopes of ALiBi.
#[derive(Clone, Debug, PartialEq)]
pub enum Slopes {
    /// The usual ones.
    Standard,
    /// One for each head.
    Given(Vec<f32>),
}

/// Keys and values of earlier positions, as a cache takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Positions of each sequence.
    pub len: usize,
    /// `[batch, len, key features]`, rotated already.
    pub k: Vec<f32>,
    /// `[batch, len, value features]`.
    pub v: Vec<f32>,
}

/// Everything of a call that the plain layer does not have; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// Position of the first query where the causal rule does not say it.
    pub offset: Option<Causality>,
    /// How far a query sees.
    pub window: Window,
    /// How many keys of each sequence are real, those of the past among them.
    pub lens: Option<Vec<usize>>,
    /// The logits' cap.
    pub softcap: Option<f32>,
    /// Penalties on distance.
    pub alibi: Option<Slopes>,
    /// Rotation, with both its offsets said.
    pub rope: Option<Rope<'static>>,
    /// A logit for each head that has no value.
    pub sinks: Option<Vec<f32>>,
    /// What a cache holds already.
    pub past: Option<Past>,
    /// Whether what the cache holds in the end is wanted.
    pub present: bool,
}

impl Family {
    /// The options as the library takes them; none where nothing is asked for.
    pub(crate) fn options(&self) -> Option<Options<'_>> {
        let options = Options {
            offset: self.offset.as_ref().and_then(Causality::rule),
            window: self.window,
            lens: self.lens.as_deref(),
            softcap: self.softcap,
            alibi: self.alibi.as_ref().map(|slopes| match slopes {
                Slopes::Standard => Alibi::Standard,
                Slopes::Given(slopes) => Alibi::Slopes(slopes),
            }),
            rope: self.rope,
            sinks: self.sinks.as_deref(),
            ..Options::new()
        };
        let any = options.offset.is_some()
            || options.window != Window::default()
            || options.lens.is_some()
            || options.softcap.is_some()
            || options.alibi.is_some()
            || options.rope.is_some()
            || options.sinks.is_some();
        any.then_some(options)
    }
}

impl Causality {
    /// The rule as the library takes it.
    pub(crate) fn rule(&self) -> Option<Causal<'_>> {
        match self {
            Self::None => None,
            Self::Offset(offset) => Some(Causal::Offset(*offset)),
            Self::PerSequence(offsets) => Some(Causal::PerSequence(offsets)),
        }
    }
}

impl Call {
    /// Positions of the past.
    #[must_use]
    pub fn past_len(&self) -> usize {
        self.family.past.as_ref().map_or(0, |past| past.len)
    }

    /// Whether it takes a cache: to go on from a past, to look at what is held in the end, or to
    /// rotate keys that no projection has written anew.
    #[must_use]
    pub fn takes_a_cache(&self) -> bool {
        let bare = matches!(self.operation, Operation::DotProduct(_));
        let family = &self.family;
        family.past.is_some() || family.present || (bare && family.rope.is_some())
    }

    /// Elements of the keys and of the values that a cache holds in the end.
    #[must_use]
    pub fn present_lens(&self) -> [usize; 2] {
        let attention = self.attention();
        let positions = self.shape.batch * (self.past_len() + self.shape.kv_len);
        [positions * attention.key_features(), positions * attention.value_features()]
    }
}
