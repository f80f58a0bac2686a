//! Trains the two demo networks from scratch, with nothing but this repository's code.
//!
//! A run is a function of its seed and its settings: the batch is cut into as many parts as there always
//! are, however many threads share them, and their gradients are summed in order; random numbers belong to
//! an item of a step, not to a thread; elementary functions are `libm`'s, and the instructions are
//! [`Isa::PORTABLE`]'s. So the weights have the same bits on every machine.
//!
//! | module | |
//! |---|---|
//! | [`optimise`] | AdamW, schedule, average of the weights, threads |
//! | [`digits`], [`vowels`] | the two trainings: what is learned from, and settings |
//! | `augment`, `strokes`, `forms` | digits that the hand might also have drawn |
//! | `random` | where chance comes from |
#![forbid(unsafe_code)]

mod augment;
pub mod digits;
mod forms;
pub mod optimise;
mod random;
mod strokes;
pub mod vowels;

use anyhow::Result;
use mha::Isa;
use mha_desk::{Digit, Vowel};
use mha_nets::best;
use mha_nets::vowels::Utterance;

/// The instructions that all of it runs on: those whose bits every machine has.
pub const ISA: Isa = Isa::PORTABLE;

/// How many of some digits the weights, flat, get right.
///
/// # Errors
/// Those of the network.
pub fn right_digits<'a>(weights: &[f32], items: impl Iterator<Item = &'a Digit>) -> Result<usize> {
    let network = mha_nets::digits::Digits::from_flat(weights, ISA)?;
    let mut scratch = vec![0.0; mha_nets::digits::Digits::SCRATCH_LEN];
    let mut right = 0;
    for item in items {
        let mut logits = [0.0; mha_nets::digits::CLASSES];
        network.classify(&item.image, &mut logits, None, &mut scratch)?;
        right += usize::from(best(&logits) == usize::from(item.label));
    }
    Ok(right)
}

/// How many of some utterances the weights, flat, get right.
///
/// # Errors
/// Those of the network.
pub fn right_vowels<'a>(weights: &[f32], items: impl Iterator<Item = &'a Vowel>) -> Result<usize> {
    let network = mha_nets::vowels::Vowels::from_flat(weights, ISA)?;
    let mut scratch = vec![0.0; mha_nets::vowels::Vowels::SCRATCH_LEN];
    let mut right = 0;
    for item in items {
        let mut logits = [0.0; mha_nets::vowels::CLASSES];
        let utterance = Utterance::padded(&item.frames, item.len);
        network.classify(utterance, &mut logits, None, &mut scratch)?;
        right += usize::from(best(&logits) == usize::from(item.label));
    }
    Ok(right)
}
