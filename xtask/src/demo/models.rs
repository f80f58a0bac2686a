//! The two models with their test data.

use anyhow::Result;
use mha::Isa;
use mha_desk::{Digit, Vowel};
use mha_nets::{digits, vowels};

use super::layer::Layer;

/// What a network says of one item.
pub(crate) struct Seen {
    /// One for each class.
    pub(crate) logits: Vec<f32>,
    /// `[heads, queries, keys]`.
    pub(crate) scores: Vec<f32>,
}

impl Seen {
    /// The logits as probabilities.
    pub(crate) fn probabilities(&self) -> Vec<f32> {
        let top = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<_> = self.logits.iter().map(|logit| (logit - top).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }
}

/// A network with test data.
pub(crate) trait Model {
    /// What it is called.
    fn name(&self) -> &'static str;
    /// What it answers.
    fn question(&self) -> &'static str;
    /// Whose data.
    fn origin(&self) -> &'static str;
    /// How large it is.
    fn parameters(&self) -> usize;
    /// Items of test data.
    fn len(&self) -> usize;
    /// The right answer for one.
    fn label(&self, index: usize) -> usize;
    /// The network's answer.
    fn classify(&self, index: usize, layer: &mut Layer) -> Result<Seen>;
    /// The same without something that it should not do without.
    fn without(&self) -> Option<&dyn Model> {
        None
    }
}

/// Handwritten digits.
pub(crate) struct Digits {
    items: Vec<Digit>,
}

impl Digits {
    /// Reads the test data.
    pub(crate) fn read() -> Result<Self> {
        let mut items = mha_desk::digits(&crate::root().join("demos"))?;
        items.retain(|item| item.held_out);
        Ok(Self { items })
    }

    /// One image.
    pub(crate) fn image(&self, index: usize) -> &digits::Image {
        &self.items[index].image
    }
}

impl Model for Digits {
    fn name(&self) -> &'static str {
        "digits"
    }

    fn question(&self) -> &'static str {
        "which of ten digits is this image of 8×8 blocks?"
    }

    fn origin(&self) -> &'static str {
        "UCI Optical Recognition of Handwritten Digits"
    }

    fn parameters(&self) -> usize {
        digits::Digits::PARAMETERS
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn label(&self, index: usize) -> usize {
        self.items[index].label.into()
    }

    fn classify(&self, index: usize, layer: &mut Layer) -> Result<Seen> {
        let mut logits = [0.0; digits::CLASSES];
        let mut scores = vec![0.0; digits::Digits::SCORES_LEN];
        let mut scratch = vec![0.0; digits::Digits::SCRATCH_LEN];
        // Its own choice of instructions is not asked for: the layer is ours.
        let network = digits::Digits::committed(Isa::PORTABLE);
        let result = network.classify_with(
            self.image(index),
            &mut logits,
            Some(&mut scores),
            &mut scratch,
            |call| layer.attend(call),
        );
        layer.result(result)?;
        Ok(Seen { logits: logits.to_vec(), scores })
    }
}

/// Japanese vowels.
pub(crate) struct Vowels {
    items: Vec<Vowel>,
    without: Option<Box<Vowels>>,
}

impl Vowels {
    /// Reads the test data.
    pub(crate) fn read() -> Result<Self> {
        let mut items = mha_desk::vowels(&crate::root().join("demos"))?;
        items.retain(|item| item.held_out);
        let without = Box::new(Self { items: items.clone(), without: None });
        Ok(Self { items, without: Some(without) })
    }

    /// The frames of one utterance, those that are real.
    pub(crate) fn frames(&self, index: usize) -> &[vowels::Frame] {
        let item = &self.items[index];
        &item.frames[..item.len]
    }

    /// All real frames of all utterances.
    pub(crate) fn all_frames(&self) -> impl Iterator<Item = &vowels::Frame> {
        self.items.iter().flat_map(|item| &item.frames[..item.len])
    }

    /// The model without its mask.
    pub(crate) fn unmasked(&self) -> Option<&Self> {
        self.without.as_deref()
    }
}

impl Model for Vowels {
    fn name(&self) -> &'static str {
        if self.without.is_some() { "vowels" } else { "without the padding mask" }
    }

    fn question(&self) -> &'static str {
        "which of nine speakers says this /ae/?"
    }

    fn origin(&self) -> &'static str {
        "UCI Japanese Vowels"
    }

    fn parameters(&self) -> usize {
        vowels::Vowels::PARAMETERS
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn label(&self, index: usize) -> usize {
        self.items[index].label.into()
    }

    fn classify(&self, index: usize, layer: &mut Layer) -> Result<Seen> {
        let item = &self.items[index];
        let mut utterance = vowels::Utterance::padded(&item.frames, item.len);
        if self.without.is_none() {
            utterance = utterance.unmasked();
        }
        let mut logits = [0.0; vowels::CLASSES];
        let mut scores = vec![0.0; utterance.scores_len()];
        let mut scratch = vec![0.0; vowels::Vowels::SCRATCH_LEN];
        let network = vowels::Vowels::committed(Isa::PORTABLE);
        let result = network.classify_with(
            utterance,
            &mut logits,
            Some(&mut scores),
            &mut scratch,
            |call| layer.attend(call),
        );
        layer.result(result)?;
        Ok(Seen { logits: logits.to_vec(), scores })
    }

    fn without(&self) -> Option<&dyn Model> {
        self.unmasked().map(|model| model as &dyn Model)
    }
}
