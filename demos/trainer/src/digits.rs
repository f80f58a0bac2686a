//! Training the digits: which of ten is this image of 8×8 blocks?

use anyhow::Result;
use mha_desk::Digit;
use mha_nets::digits::{CLASSES, Image, Net, TOKENS, tokens};
use mha_nets::learning::Tensor;
use mha_train::{Target, cross_entropy, smooth};

use crate::optimise::{Item, Settings, Task};
use crate::random::Random;
use crate::{ISA, augment, strokes};

/// Distorted copies of every image.
const COPIES: usize = 100;
/// Drawings of every digit.
const DRAWN: usize = 2000;

/// How it is trained.
pub const SETTINGS: Settings = Settings {
    steps: 20_000,
    batch: 128,
    rate: 3e-3,
    left: 0.1,
    decay: 0.05,
    drop: 0.0,
    smoothing: 0.1,
    average: 0.9995,
    seed: 1,
};

/// What the model's file says of itself.
pub const ABOUT: &str = r#"{"model": "digits", "token": 4, "tokens": 16, "width": 24, "hidden": 48, "blocks": 1, "heads": 4, "classes": 10, "position": true, "parameters": 5602, "norm": "rms", "epsilon": 1e-05, "activation": "relu", "pooling": "mean", "weights": "in_out", "input": "tokens are 2x2 patches in reading order, pixels/16", "data": "UCI Optical Recognition of Handwritten Digits, doi 10.24432/C50P49, CC-BY-4.0"}"#;

/// A drawing of a digit by the trainer's pen, such as it learns from.
#[must_use]
pub fn drawing(digit: usize, which: usize) -> Image {
    let made = (digit * DRAWN + which % DRAWN) as u64;
    strokes::draw(digit, &mut Random::at(SETTINGS.seed, [u64::MAX, made]))
}

/// Images, distorted copies of them, and drawings.
pub struct Digits {
    pool: Vec<(Image, u8)>,
}

impl Digits {
    /// From some images, made by as many threads as are given.
    pub fn new<'a>(items: impl Iterator<Item = &'a Digit>, seed: u64, threads: usize) -> Self {
        let mut pool: Vec<(Image, u8)> = items.map(|item| (item.image, item.label)).collect();
        let given = pool.len();
        let made = given * COPIES + CLASSES * DRAWN;
        let make = |i: usize| {
            let mut random = Random::at(seed, [u64::MAX, 1 + i as u64]);
            match i.checked_sub(given * COPIES) {
                None => {
                    let (image, label) = &pool[i / COPIES];
                    (augment::distort(image, &mut random), *label)
                }
                Some(i) => {
                    let digit = i / DRAWN;
                    (strokes::draw(digit, &mut random), digit as u8)
                }
            }
        };
        let mut more = vec![([0; 64], 0); made];
        let each = made.div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            for (t, share) in more.chunks_mut(each).enumerate() {
                let make = &make;
                scope.spawn(move || {
                    for (i, item) in share.iter_mut().enumerate() {
                        *item = make(t * each + i);
                    }
                });
            }
        });
        pool.extend(more);
        Self { pool }
    }
}

impl Task for Digits {
    fn tensors(&self) -> &'static [Tensor] {
        &Net::TENSORS
    }

    fn learn(&self, mut item: Item<'_>) -> Result<f32> {
        let (image, label) = &self.pool[item.random.below(self.pool.len())];
        let mut targets = [0.0; CLASSES];
        smooth((*label).into(), item.smoothing, &mut targets)?;
        item.scratch.resize(Net::learn_scratch_len(TOKENS, true), 0.0);
        let loss = |logits: &[f32; CLASSES], gradient: &mut [f32; CLASSES]| {
            cross_entropy(logits, Target::Soft(&targets), gradient).unwrap_or(f32::NAN)
        };
        let mut gradients = Net::gradients(item.gradients)?;
        let network = Net::from_flat(item.weights)?;
        let tokens = tokens(image);
        Ok(network.learn(ISA, &tokens, item.dropout, loss, &mut gradients, item.scratch)?)
    }
}

/// Which fold of a validation inside the training split each of its images belongs to.
#[must_use]
pub fn folds(count: usize, folds: usize) -> Vec<usize> {
    let mut of: Vec<usize> = (0..count).map(|i| i % folds).collect();
    Random::at(7, [u64::MAX, 0]).shuffle(&mut of);
    of
}
