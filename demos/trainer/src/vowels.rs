//! Training the vowels: which of nine speakers says this /ae/?

use anyhow::Result;
use mha_desk::Vowel;
use mha_nets::learning::Tensor;
use mha_nets::vowels::{CLASSES, FEATURES, Frame, LONGEST, Net};
use mha_train::{Target, cross_entropy, smooth};

use crate::ISA;
use crate::optimise::{Item, Settings, Task};
use crate::random::Random;

/// How it is trained.
pub const SETTINGS: Settings = Settings {
    steps: 4000,
    batch: 64,
    rate: 3e-3,
    left: 0.0,
    decay: 0.3,
    drop: 0.1,
    smoothing: 0.05,
    average: 0.999,
    seed: 0,
};

/// What the model's file says of itself.
pub const ABOUT: &str = r#"{"model": "vowels", "token": 12, "tokens": 29, "width": 32, "hidden": 64, "blocks": 1, "heads": 4, "classes": 9, "position": true, "parameters": 10177, "norm": "rms", "epsilon": 1e-05, "activation": "relu", "pooling": "mean", "weights": "in_out", "input": "tokens are frames, (frame - input.mean) / input.deviation, at most 29", "data": "Japanese Vowels, doi 10.24432/C5NS47, CC-BY-4.0"}"#;

/// Fewest frames of an utterance that is cut and squeezed.
const FEWEST: f32 = 6.0;

/// Utterances, normalised.
pub struct Vowels {
    spoken: Vec<(Vec<Frame>, u8)>,
}

/// The mean and the deviation of every feature over all frames, one after the other.
#[must_use]
pub fn moments(items: &[&Vowel]) -> [Frame; 2] {
    let mut sums = [[0.0f64; FEATURES]; 2];
    let mut count = 0.0;
    for frame in items.iter().flat_map(|item| &item.frames[..item.len]) {
        count += 1.0;
        for (sum, &x) in sums[0].iter_mut().zip(frame) {
            *sum += f64::from(x);
        }
    }
    let mean = sums[0].map(|sum| sum / count);
    for frame in items.iter().flat_map(|item| &item.frames[..item.len]) {
        for ((sum, &x), mean) in sums[1].iter_mut().zip(frame).zip(mean) {
            *sum += (f64::from(x) - mean) * (f64::from(x) - mean);
        }
    }
    [mean.map(|x| x as f32), sums[1].map(|sum| (sum / count).sqrt() as f32)]
}

impl Vowels {
    /// From some utterances.
    #[must_use]
    pub fn new(items: &[&Vowel], [mean, deviation]: &[Frame; 2]) -> Self {
        let normal = |frame: &Frame| std::array::from_fn(|i| (frame[i] - mean[i]) / deviation[i]);
        let frames = |item: &Vowel| item.frames[..item.len].iter().map(normal).collect();
        Self { spoken: items.iter().map(|item| (frames(item), item.label)).collect() }
    }
}

/// An utterance as the same speaker might have said it on another day, and how many frames it has.
///
/// The test utterances were recorded on other occasions than the training ones. A cepstrum turns a change
/// of channel or loudness into an added constant, hence the shift; the rest is speaking faster, slower, cut
/// off.
fn another_day(frames: &[Frame], random: &mut Random) -> ([Frame; LONGEST], usize) {
    // Cut up to 15 % off each end, stretch by about 15 %, resample linearly.
    let (low, high) = (0.15 * random.unit(), 1.0 - 0.15 * random.unit());
    let stretch = libm::expf(random.normal(0.15));
    let length = frames.len() as f32;
    let n = (length * (high - low) * stretch).round_ties_even().clamp(FEWEST, LONGEST as f32);
    let (last, count) = (length - 1.0, n as usize);
    let step = (high - low) * last / (n - 1.0);
    let shift: Frame = std::array::from_fn(|_| random.normal(0.25));
    let scale: Frame = std::array::from_fn(|_| libm::expf(random.normal(0.1)));
    let drift: Frame = std::array::from_fn(|_| random.normal(0.15));
    let mut out = [[0.0; FEATURES]; LONGEST];
    for (i, out) in out.iter_mut().take(count).enumerate() {
        let at = (low * last + step * i as f32).clamp(0.0, last);
        let before = (at as usize).min(frames.len().saturating_sub(2));
        let f = at - before as f32;
        let (before, after) = (&frames[before], &frames[(before + 1).min(frames.len() - 1)]);
        // From −1 to 1 over the utterance.
        let time = (2.0 * i as f32 / (LONGEST - 1) as f32 - 1.0) * LONGEST as f32 / n;
        for (c, out) in out.iter_mut().enumerate() {
            let x = before[c] * (1.0 - f) + after[c] * f;
            *out = (x + shift[c]) * scale[c] + time * drift[c] + random.normal(0.2);
        }
    }
    (out, count)
}

impl Task for Vowels {
    fn tensors(&self) -> &'static [Tensor] {
        &Net::TENSORS
    }

    fn learn(&self, mut item: Item<'_>) -> Result<f32> {
        let (frames, label) = &self.spoken[item.random.below(self.spoken.len())];
        let (tokens, count) = another_day(frames, &mut item.random);
        let mut targets = [0.0; CLASSES];
        smooth((*label).into(), item.smoothing, &mut targets)?;
        item.scratch.resize(Net::learn_scratch_len(LONGEST, true), 0.0);
        let loss = |logits: &[f32; CLASSES], gradient: &mut [f32; CLASSES]| {
            cross_entropy(logits, Target::Soft(&targets), gradient).unwrap_or(f32::NAN)
        };
        let mut gradients = Net::gradients(item.gradients)?;
        let network = Net::from_flat(item.weights)?;
        let tokens = &tokens[..count];
        Ok(network.learn(ISA, tokens, item.dropout, loss, &mut gradients, item.scratch)?)
    }
}

/// Which fold of a validation inside the training split each of its utterances belongs to: six successive
/// ones of a speaker are held out together, since neighbours were recorded together, and would tell on each
/// other.
#[must_use]
pub fn folds(count: usize) -> Vec<usize> {
    (0..count).map(|i| i % 30 / 6).collect()
}
