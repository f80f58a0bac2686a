//! The weights are a function of the seed: threads, which share every batch, do not show.

use std::path::Path;

use mha_desk::{Digit, Vowel};
use mha_trainer::optimise::{self, Settings, Task};
use mha_trainer::{digits, vowels};

fn demos() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The bits of the weights after some steps, and the losses of the first and the last.
fn trained(task: &dyn Task, settings: &Settings, threads: usize) -> (Vec<u32>, [f32; 2]) {
    let mut losses = Vec::new();
    let weights = optimise::train(task, settings, threads, |_, loss| losses.push(loss)).unwrap();
    let bits = weights.iter().map(|weight| weight.to_bits()).collect();
    (bits, [losses[0], losses[losses.len() - 1]])
}

fn same_on_threads(make: impl Fn(u64, usize) -> Box<dyn Task>, settings: Settings) {
    // Not a multiple of the parts of a batch.
    let settings = Settings { steps: 60, batch: 27, average: 0.5, ..settings };
    let (one, [first, last]) = trained(&*make(1, 1), &settings, 1);
    assert!(last < 0.9 * first, "the loss was {first} and is {last}");
    for threads in [2, 3, 11] {
        let (many, _) = trained(&*make(1, threads), &settings, threads);
        assert!(one == many, "{threads} threads give other weights");
    }
    let (other, _) = trained(&*make(2, 2), &Settings { seed: 2, ..settings }, 2);
    assert!(one != other, "the seed does not matter");
}

#[test]
fn digits_are_the_same_on_any_number_of_threads() {
    let items = mha_desk::digits(&demos()).unwrap();
    let some: Vec<&Digit> = items.iter().filter(|item| !item.held_out).take(20).collect();
    let make = |seed, threads| -> Box<dyn Task> {
        Box::new(digits::Digits::new(some.iter().copied(), seed, threads))
    };
    same_on_threads(make, Settings { seed: 1, ..digits::SETTINGS });
}

#[test]
fn vowels_are_the_same_on_any_number_of_threads() {
    let items = mha_desk::vowels(&demos()).unwrap();
    let all: Vec<&Vowel> = items.iter().filter(|item| !item.held_out).collect();
    let moments = vowels::moments(&all);
    let make = |_, _| -> Box<dyn Task> { Box::new(vowels::Vowels::new(&all, &moments)) };
    same_on_threads(make, Settings { seed: 1, ..vowels::SETTINGS });
}
