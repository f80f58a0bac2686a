//! The two networks against what their weights compute in float64, on every item and every kernel.

use std::path::{Path, PathBuf};

use mha::{Argument, Error, Isa};
use mha_desk::{Digit, File, Vowel};
use mha_nets::best;
use mha_nets::digits::{self, Digits};
use mha_nets::vowels::{self, Utterance, Vowels};

/// What a logit may differ by from float64: about ten times the largest seen.
const LOGIT: f32 = 1e-4;
/// What a score may.
const SCORE: f32 = 1e-5;

fn demos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(model: &str) -> File {
    File::open(&demos().join(format!("models/{model}_golden.safetensors"))).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // NaN counts as infinitely far.
    let far = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(far).fold(0.0, f32::max)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn digit_logits(network: &Digits<'_>, digit: &Digit) -> [f32; 10] {
    let (mut logits, mut scratch) = ([f32::NAN; 10], [f32::NAN; Digits::SCRATCH_LEN]);
    network.classify(&digit.image, &mut logits, None, &mut scratch).unwrap();
    logits
}

fn vowel_logits(network: &Vowels<'_>, utterance: Utterance<'_>) -> [f32; 9] {
    let (mut logits, mut scratch) = ([f32::NAN; 9], [f32::NAN; Vowels::SCRATCH_LEN]);
    network.classify(utterance, &mut logits, None, &mut scratch).unwrap();
    logits
}

fn utterance(vowel: &Vowel) -> Utterance<'_> {
    Utterance::padded(&vowel.frames, vowel.len)
}

#[test]
fn digits_are_those_of_float64() {
    let (items, golden) = (mha_desk::digits(&demos()).unwrap(), golden("digits"));
    let expected = golden.f32s("logits").unwrap();
    for isa in Isa::available() {
        let network = Digits::committed(isa);
        let (mut worst, mut right, mut held_out) = (0.0, 0, 0);
        for (item, expected) in items.iter().zip(expected.chunks(10)) {
            let logits = digit_logits(&network, item);
            worst = f32::max(worst, largest_difference(&logits, expected));
            assert_eq!(best(&logits), best(expected));
            if item.held_out {
                held_out += 1;
                right += usize::from(best(&logits) == usize::from(item.label));
            }
        }
        println!("digits, {}: {right} of {held_out}, off by {worst:e} at most", isa.name());
        assert!(worst <= LOGIT);
        assert_eq!(held_out, 450);
        assert!(right * 100 >= held_out * 98);
    }
}

#[test]
fn vowels_are_those_of_float64() {
    let (items, golden) = (mha_desk::vowels(&demos()).unwrap(), golden("vowels"));
    let expected = golden.f32s("logits").unwrap();
    let expected_unmasked = golden.f32s("logits_unmasked").unwrap();
    for isa in Isa::available() {
        let network = Vowels::committed(isa);
        let (mut worst, mut right, mut right_unmasked, mut held_out) = (0.0, 0, 0, 0);
        let expected = expected.chunks(9).zip(expected_unmasked.chunks(9));
        for (item, (expected, expected_unmasked)) in items.iter().zip(expected) {
            let logits = vowel_logits(&network, utterance(item));
            let unmasked = vowel_logits(&network, utterance(item).unmasked());
            worst = f32::max(worst, largest_difference(&logits, expected));
            worst = f32::max(worst, largest_difference(&unmasked, expected_unmasked));
            assert_eq!(best(&logits), best(expected));
            if item.held_out {
                held_out += 1;
                right += usize::from(best(&logits) == usize::from(item.label));
                right_unmasked += usize::from(best(&unmasked) == usize::from(item.label));
            }
        }
        println!(
            "vowels, {}: {right} of {held_out}, {right_unmasked} without the mask, off by {worst:e} at most",
            isa.name()
        );
        assert!(worst <= LOGIT);
        assert_eq!(held_out, 370);
        assert!(right * 100 >= held_out * 98);
        // What the mask is for.
        assert!(right_unmasked * 100 < held_out * 90);
    }
}

#[test]
fn scores_are_those_of_float64() {
    let (items, golden_file) = (mha_desk::digits(&demos()).unwrap(), golden("digits"));
    let expected = golden_file.f32s("scores").unwrap();
    let indices = golden_file.indices("items").unwrap();
    assert_eq!(expected.len(), indices.len() * Digits::SCORES_LEN);
    for isa in Isa::available() {
        let network = Digits::committed(isa);
        for (&index, expected) in indices.iter().zip(expected.chunks(Digits::SCORES_LEN)) {
            let (mut logits, mut scratch) = ([0.0; 10], [0.0; Digits::SCRATCH_LEN]);
            let mut scores = [f32::NAN; Digits::SCORES_LEN];
            let item = &items[index];
            network.classify(&item.image, &mut logits, Some(&mut scores), &mut scratch).unwrap();
            assert!(largest_difference(&scores, expected) <= SCORE);
            assert_eq!(bits(&logits), bits(&digit_logits(&network, item)), "scores change nothing");
        }
    }

    let (items, golden_file) = (mha_desk::vowels(&demos()).unwrap(), golden("vowels"));
    let indices = golden_file.indices("items").unwrap();
    for (name, masked) in [("scores", true), ("scores_unmasked", false)] {
        let expected = golden_file.f32s(name).unwrap();
        for (&index, expected) in indices.iter().zip(expected.chunks(Vowels::MAX_SCORES_LEN)) {
            let item = &items[index];
            let network = Vowels::committed(Isa::detect());
            let spoken = if masked { utterance(item) } else { utterance(item).unmasked() };
            let (mut logits, mut scratch) = ([0.0; 9], [0.0; Vowels::SCRATCH_LEN]);
            let mut scores = vec![f32::NAN; spoken.scores_len()];
            network.classify(spoken, &mut logits, Some(&mut scores), &mut scratch).unwrap();
            let expected: Vec<f32> = expected
                .chunks(vowels::LONGEST * vowels::LONGEST)
                .flat_map(|head| &head[..spoken.queries() * vowels::LONGEST])
                .copied()
                .collect();
            assert!(largest_difference(&scores, &expected) <= SCORE);
        }
    }
}

#[test]
fn padding_is_as_if_it_were_not_there() {
    for isa in Isa::available() {
        let network = Vowels::committed(isa);
        for item in mha_desk::vowels(&demos()).unwrap() {
            let alone = vowel_logits(&network, Utterance::new(&item.frames[..item.len]));
            let padded = vowel_logits(&network, utterance(&item));
            assert_eq!(bits(&alone), bits(&padded));
            let mut frames = item.frames;
            frames[item.len..].as_flattened_mut().fill(f32::NAN);
            let rubbish = vowel_logits(&network, Utterance::padded(&frames, item.len));
            assert_eq!(bits(&alone), bits(&rubbish));
        }
    }
}

#[test]
fn little_scratch_gives_the_same_bits() {
    let items = mha_desk::digits(&demos()).unwrap();
    let vowels = mha_desk::vowels(&demos()).unwrap();
    for isa in Isa::available() {
        let network = Digits::committed(isa);
        for item in items.iter().step_by(100) {
            let (mut logits, mut scratch) = ([0.0; 10], [0.0; Digits::MIN_SCRATCH_LEN]);
            network.classify(&item.image, &mut logits, None, &mut scratch).unwrap();
            assert_eq!(bits(&logits), bits(&digit_logits(&network, item)));
        }
        let network = Vowels::committed(isa);
        for item in vowels.iter().step_by(50) {
            let (mut logits, mut scratch) = ([0.0; 9], [0.0; Vowels::MIN_SCRATCH_LEN]);
            network.classify(utterance(item), &mut logits, None, &mut scratch).unwrap();
            assert_eq!(bits(&logits), bits(&vowel_logits(&network, utterance(item))));
        }
    }
}

#[test]
fn another_door_sees_the_whole_call() {
    let item = &mha_desk::vowels(&demos()).unwrap()[300];
    let network = Vowels::committed(Isa::PORTABLE);
    let (mut logits, mut scratch) = ([0.0; 9], [0.0; Vowels::SCRATCH_LEN]);
    let attend = |call: mha_nets::Call<'_>| {
        assert_eq!(call.shape, mha::Shape::new(1, item.len, 29));
        assert_eq!(call.mask.unwrap().iter().filter(|&&seen| seen).count(), item.len);
        assert_eq!(call.q, &call.kv[..item.len * 32]);
        assert_eq!(call.weights.wq, network.layer().wq);
        call.run(Isa::PORTABLE)
    };
    network.classify_with(utterance(item), &mut logits, None, &mut scratch, attend).unwrap();
    assert_eq!(bits(&logits), bits(&vowel_logits(&network, utterance(item))));
}

#[test]
fn the_committed_weights_are_the_models() {
    assert_eq!(
        mha_desk::write_weights(&demos(), true).unwrap(),
        Vec::<PathBuf>::new(),
        "run `cargo run -p mha-desk --bin weights demos`"
    );
    let flat = mha_desk::flat_weights(&demos(), "digits").unwrap();
    assert_eq!(flat.len(), Digits::PARAMETERS);
    const { assert!(Digits::PARAMETERS <= 8000) };
    let read = Digits::from_flat(&flat, Isa::PORTABLE).unwrap();
    let item = &mha_desk::digits(&demos()).unwrap()[0];
    let committed = Digits::committed(Isa::PORTABLE);
    assert_eq!(bits(&digit_logits(&read, item)), bits(&digit_logits(&committed, item)));

    let flat = mha_desk::flat_weights(&demos(), "vowels").unwrap();
    assert_eq!(flat.len(), Vowels::PARAMETERS);
    let read = Vowels::from_flat(&flat, Isa::PORTABLE).unwrap();
    let item = &mha_desk::vowels(&demos()).unwrap()[0];
    let committed = Vowels::committed(Isa::PORTABLE);
    let logits = vowel_logits(&committed, utterance(item));
    assert_eq!(bits(&vowel_logits(&read, utterance(item))), bits(&logits));
}

#[test]
fn mistakes_are_refused_and_write_nothing() {
    const PATTERN: f32 = 12345.0;
    let digit = &mha_desk::digits(&demos()).unwrap()[0];
    let network = Digits::committed(Isa::PORTABLE);
    let refused = |scores: usize, scratch: usize, expected: Error| {
        let mut logits = [PATTERN; digits::CLASSES];
        let (mut scores, mut scratch) = (vec![PATTERN; scores], vec![0.0; scratch]);
        let result = network.classify(&digit.image, &mut logits, Some(&mut scores), &mut scratch);
        assert_eq!(result, Err(expected));
        assert!(logits.iter().chain(&scores).all(|&value| value == PATTERN));
    };
    let (full, least) = (Digits::SCRATCH_LEN, Digits::MIN_SCRATCH_LEN);
    let length = |argument, needed, got| Error::Length { argument, needed, got };
    for got in [0, 1, least - 1] {
        refused(Digits::SCORES_LEN, got, length(Argument::Scratch, least, got));
    }
    for got in [0, Digits::SCORES_LEN - 1, Digits::SCORES_LEN + 1] {
        refused(got, full, length(Argument::Scores, Digits::SCORES_LEN, got));
    }
    let flat = [0.0; Digits::PARAMETERS + 1];
    for got in [0, 1, Digits::PARAMETERS - 1, Digits::PARAMETERS + 1] {
        let result = Digits::from_flat(&flat[..got], Isa::PORTABLE).map(|_| ());
        assert_eq!(result, Err(length(Argument::Weights, Digits::PARAMETERS, got)));
    }
    let flat = [0.0; Vowels::PARAMETERS + 1];
    for got in [0, 13, Vowels::PARAMETERS - 1, Vowels::PARAMETERS + 1] {
        let result = Vowels::from_flat(&flat[..got], Isa::PORTABLE).map(|_| ());
        assert_eq!(result, Err(length(Argument::Weights, Vowels::PARAMETERS, got)));
    }

    let network = Vowels::committed(Isa::PORTABLE);
    let frames = [[0.0; 12]; 31];
    for spoken in [
        Utterance::new(&[]),
        Utterance::new(&frames),
        Utterance::new(&frames).unmasked(),
        Utterance::padded(&frames[..9], 0),
        Utterance::padded(&frames[..9], 10),
        Utterance::padded(&frames[..9], usize::MAX),
        Utterance::padded(&frames[..9], 10).unmasked(),
        Utterance::padded(&frames[..30], 5),
    ] {
        let (mut logits, mut scratch) = ([PATTERN; 9], [0.0; 2 * Vowels::SCRATCH_LEN]);
        let result = network.classify(spoken, &mut logits, None, &mut scratch);
        assert!(matches!(result, Err(Error::Range { argument: Argument::Shape, .. })));
        assert_eq!(logits, [PATTERN; 9]);
    }
}
