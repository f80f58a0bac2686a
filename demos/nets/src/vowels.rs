//! Which of nine speakers says this /ae/? One token for each frame of twelve cepstrum coefficients.

use mha::{Argument, BackwardError, Cache, CacheConfig, Config, Error, Isa};

use crate::learning::Gradients;
use crate::network::{Call, Extent, Network};
use crate::weights;

/// Features of a frame.
pub const FEATURES: usize = 12;

/// Frames of the longest utterance that the network knows positions for.
pub const LONGEST: usize = 29;

/// A frame as recorded, not normalised.
pub type Frame = [f32; FEATURES];

/// The classes: nine speakers.
pub const CLASSES: usize = 9;

/// Heads of the layer.
pub const HEADS: usize = 4;

/// The network under its own sizes, for frames that are normalised.
pub type Net<'w> = Network<'w, FEATURES, LONGEST, 32, HEADS, 64, CLASSES>;

/// Where the gradients of the network for vowels go.
pub type VowelGradients<'g> = Gradients<'g, 32, 64, CLASSES>;

/// The network for vowels.
#[derive(Clone, Copy, Debug)]
pub struct Vowels<'w> {
    mean: &'w Frame,
    deviation: &'w Frame,
    network: Net<'w>,
    isa: Isa,
}

/// An utterance: its frames, and which of them are real.
#[derive(Clone, Copy, Debug)]
pub struct Utterance<'a> {
    frames: &'a [Frame],
    len: usize,
    masked: bool,
}

impl<'a> Utterance<'a> {
    /// Frames that are all real.
    #[must_use]
    pub const fn new(frames: &'a [Frame]) -> Self {
        Self { frames, len: frames.len(), masked: true }
    }

    /// The first `len` frames are real, the rest is padding, and masked: it is neither attended to
    /// nor pooled, so the logits are those of the real frames alone, bit for bit.
    #[must_use]
    pub const fn padded(frames: &'a [Frame], len: usize) -> Self {
        Self { frames, len, masked: true }
    }

    /// Forgets the mask: the padding is attended to and pooled as if it had been spoken. It is here
    /// to show what that does.
    #[must_use]
    pub const fn unmasked(self) -> Self {
        Self { masked: false, ..self }
    }

    /// Frames that ask: the queries of the layer.
    #[must_use]
    pub const fn queries(&self) -> usize {
        if self.masked { self.len } else { self.frames.len() }
    }

    /// Floats of the scores, `[HEADS, queries, frames]`.
    #[must_use]
    pub const fn scores_len(&self) -> usize {
        HEADS.saturating_mul(self.queries()).saturating_mul(self.frames.len())
    }
}

impl Vowels<'static> {
    /// The network with the committed weights. In a `static` it lies in flash.
    #[must_use]
    pub const fn committed(isa: Isa) -> Self {
        const NETWORK: Vowels<'static> = match Vowels::from_flat(&weights::VOWELS, Isa::PORTABLE) {
            Ok(network) => network,
            Err(_) => panic!("the committed weights have another length"), // while compiling
        };
        Self { isa, ..NETWORK }
    }
}

/// Frames that a [`Listener`] remembers.
pub const RECENT: usize = 16;

/// Hears frames one by one, for ever, in constant memory: a ring of keys and values, and a ring of what
/// came out for each of the last frames.
#[derive(Debug)]
pub struct Listener<'a> {
    cache: Cache<'a>,
    heard: usize,
    rows: [[f32; 32]; RECENT],
}

impl<'a> Listener<'a> {
    const RING: CacheConfig = CacheConfig::ring(RECENT);
    const CONFIG: Config = Net::CONFIG;
    /// Floats of the keys.
    pub const KEYS_LEN: usize = Self::RING.keys_len(&Self::CONFIG.attention);
    /// Floats of the values.
    pub const VALUES_LEN: usize = Self::RING.values_len(&Self::CONFIG.attention);
    /// Floats of scratch.
    pub const SCRATCH_LEN: usize = Self::CONFIG.cached_scratch_len(1);

    /// One that has heard nothing yet.
    ///
    /// # Errors
    /// [`Error::Length`] for other lengths than [`Listener::KEYS_LEN`] and [`Listener::VALUES_LEN`].
    pub fn new(keys: &'a mut [f32], values: &'a mut [f32]) -> Result<Self, Error> {
        let cache = Cache::new(Self::RING, &Self::CONFIG.attention, keys, values)?;
        Ok(Self { cache, heard: 0, rows: [[0.0; 32]; RECENT] })
    }

    /// Forgets what it has heard: somebody else begins to speak.
    pub fn forget(&mut self) {
        self.cache.reset();
        self.heard = 0;
    }

    /// Frames that it remembers.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.heard.min(RECENT)
    }
}

impl<'w> Vowels<'w> {
    /// One more frame: who is speaking, as far as the last [`RECENT`] frames tell.
    ///
    /// # Errors
    /// [`Error::Length`] for scratch that is too short; nothing is heard then.
    pub fn hear(
        &self,
        listener: &mut Listener<'_>,
        frame: &Frame,
        logits: &mut [f32; CLASSES],
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        let Listener { cache, heard, rows } = listener;
        let position = (*heard).min(LONGEST - 1);
        let mut row = [0.0; 32];
        self.network.step(self.isa, cache, &self.normal(frame), position, &mut row, scratch)?;
        if let Some(place) = rows.get_mut(*heard % RECENT) {
            *place = row;
        }
        *heard += 1;
        let rows = rows.get(..(*heard).min(RECENT)).unwrap_or(&[]);
        self.network.classify_rows(rows, logits);
        Ok(())
    }

    /// How many parameters there are, with the mean and deviation of every feature.
    pub const PARAMETERS: usize = Net::PARAMETERS + 2 * FEATURES;
    /// Floats of scratch for full speed on the longest utterance.
    pub const SCRATCH_LEN: usize = Net::scratch_len(LONGEST);
    /// The least floats of scratch for the longest utterance; the logits have the same bits.
    pub const MIN_SCRATCH_LEN: usize = Net::min_scratch_len(LONGEST);
    /// The least floats of scratch for utterances of so many frames at most.
    #[must_use]
    pub const fn min_scratch_len(frames: usize) -> usize {
        Net::min_scratch_len(frames)
    }
    /// The most floats that the scores can be.
    pub const MAX_SCORES_LEN: usize = HEADS * LONGEST * LONGEST;

    /// The network with other weights: the mean and the deviation of every feature, then the rest,
    /// flat as [`Network::from_flat`] takes it.
    ///
    /// # Errors
    /// [`Error::Length`] for another length than [`Vowels::PARAMETERS`].
    pub const fn from_flat(flat: &'w [f32], isa: Isa) -> Result<Self, Error> {
        let (needed, got) = (Self::PARAMETERS, flat.len());
        let wrong = Error::Length { argument: Argument::Weights, needed, got };
        let Some((mean, flat)) = flat.split_first_chunk() else { return Err(wrong) };
        let Some((deviation, flat)) = flat.split_first_chunk() else { return Err(wrong) };
        match Net::from_flat(flat) {
            Ok(network) => Ok(Self { mean, deviation, network, isa }),
            Err(_) => Err(wrong),
        }
    }

    /// The weights of the layer at the centre.
    #[must_use]
    pub const fn layer(&self) -> &mha::Weights<'w> {
        self.network.layer()
    }

    /// What every feature is divided by: its deviation over the training split.
    #[must_use]
    pub const fn deviation(&self) -> &'w Frame {
        self.deviation
    }

    /// The output projection and its bias, the classifier and its bias.
    #[must_use]
    pub fn head(&self) -> [&'w [f32]; 4] {
        let network = &self.network;
        [
            network.layer.wo,
            network.layer.bo.unwrap_or_default(),
            network.classifier.as_flattened(),
            network.classifier_bias,
        ]
    }

    /// The same network with other weights in the place of [`Vowels::head`]'s: those that learn can lie in
    /// RAM while all others stay in flash.
    #[must_use]
    pub const fn with_head<'a>(
        &self,
        wo: &'a [f32],
        bo: &'a [f32; 32],
        classifier: &'a [[f32; CLASSES]; 32],
        classifier_bias: &'a [f32; CLASSES],
    ) -> Vowels<'a>
    where
        'w: 'a,
    {
        let layer = mha::Weights { wo, bo: Some(bo), ..self.network.layer };
        let network = Network { layer, classifier, classifier_bias, ..self.network };
        Vowels { mean: self.mean, deviation: self.deviation, network, isa: self.isa }
    }

    /// Logits of an utterance and, if asked for, the scores of every head,
    /// `[HEADS, queries, frames]`.
    ///
    /// # Errors
    /// [`Error::Range`] for an utterance without a real frame, with more real frames than frames, or
    /// longer than [`LONGEST`]; [`Error::Length`] for scores that are not
    /// [`Utterance::scores_len`] long or scratch that is too short. Logits and scores are untouched
    /// then.
    pub fn classify(
        &self,
        utterance: Utterance<'_>,
        logits: &mut [f32; CLASSES],
        scores: Option<&mut [f32]>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        self.classify_with(utterance, logits, scores, scratch, |call| call.run(self.isa))
    }

    /// As [`Vowels::classify`], with the layer computed by `attend`.
    ///
    /// # Errors
    /// Those of [`Vowels::classify`] and of `attend`.
    pub fn classify_with(
        &self,
        utterance: Utterance<'_>,
        logits: &mut [f32; CLASSES],
        scores: Option<&mut [f32]>,
        scratch: &mut [f32],
        attend: impl FnOnce(Call<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Utterance { frames, len, .. } = utterance;
        let tokens = frames.len();
        if len > tokens {
            return Err(Error::Range { argument: Argument::Shape, len: tokens, end: len });
        }
        let extent = Extent { tokens, valid: utterance.queries() };
        let token = |i: usize| self.normal(frames.get(i).unwrap_or(&[0.0; FEATURES]));
        self.network.forward(extent, token, logits, scores, scratch, attend)
    }

    /// As [`Network::learn`], on an utterance's frames as recorded, all of them real.
    ///
    /// # Errors
    /// Those of [`Network::learn`].
    pub fn learn(
        &self,
        frames: &[Frame],
        loss: impl FnOnce(&[f32; CLASSES], &mut [f32; CLASSES]) -> f32,
        gradients: &mut VowelGradients<'_>,
        scratch: &mut [f32],
    ) -> Result<f32, BackwardError> {
        let mut tokens = [[0.0; FEATURES]; LONGEST];
        let Some(tokens) = tokens.get_mut(..frames.len()) else {
            let (argument, end) = (Argument::Shape, frames.len());
            return Err(Error::Range { argument, len: LONGEST, end }.into());
        };
        for (token, frame) in tokens.iter_mut().zip(frames) {
            *token = self.normal(frame);
        }
        self.network.learn(self.isa, tokens, None, loss, gradients, scratch)
    }

    /// `(frame − mean) / deviation`.
    fn normal(&self, frame: &Frame) -> Frame {
        let mut out = *frame;
        for ((out, mean), deviation) in out.iter_mut().zip(self.mean).zip(self.deviation) {
            *out = (*out - mean) / deviation;
        }
        out
    }
}
