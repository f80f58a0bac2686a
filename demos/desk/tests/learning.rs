//! Learning against JAX in float64: gradients, and a hundred steps from the same weights over the same
//! items; and the way back against the way forward.

use std::path::{Path, PathBuf};

use mha::{Argument, BackwardError, Error, Isa};
use mha_desk::File;
use mha_nets::digits::{self, Digits};
use mha_nets::learning::{Dropout, Tensor};
use mha_nets::vowels::{self, Utterance, Vowels};
use mha_train::{Adam, Target, clip_norm, cross_entropy, smooth};

/// What a gradient of the first step may differ by from float64, relative to the largest of its tensor.
const GRADIENT: f32 = 1e-5;
/// What a loss of the hundred may, relative.
const LOSS: f32 = 2e-6;

fn demos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A network with the items that it learns from.
trait Learner {
    const NAME: &'static str;
    const CLASSES: usize;
    fn tensors() -> Vec<Tensor>;
    /// Adds what an item gives to `gradients`; the loss. The logits go to `logits`.
    fn learn(&self, item: usize, at: &mut At<'_>) -> f32;
}

/// Where something is learned.
struct At<'a> {
    isa: Isa,
    weights: &'a [f32],
    dropout: Option<Dropout>,
    gradients: &'a mut [f32],
    logits: &'a mut Vec<f32>,
}

/// The loss of the trainers.
fn loss(label: u8, logits: &[f32], gradient: &mut [f32]) -> f32 {
    let mut targets = vec![0.0; logits.len()];
    smooth(label.into(), 0.1, &mut targets).unwrap();
    cross_entropy(logits, Target::Soft(&targets), gradient).unwrap()
}

macro_rules! learner {
    ($name:ident, $module:ident, $text:literal, $item:ty, $tokens:expr) => {
        struct $name(Vec<$item>);

        impl Learner for $name {
            const NAME: &'static str = $text;
            const CLASSES: usize = $module::CLASSES;

            fn tensors() -> Vec<Tensor> {
                $module::Net::TENSORS.to_vec()
            }

            fn learn(&self, item: usize, at: &mut At<'_>) -> f32 {
                let item = &self.0[item];
                let net = $module::Net::from_flat(at.weights).unwrap();
                let mut gradients = $module::Net::gradients(at.gradients).unwrap();
                let tokens = $tokens(item);
                let mut scratch =
                    vec![f32::NAN; $module::Net::learn_scratch_len(tokens.len(), true)];
                let loss = |logits: &[f32; Self::CLASSES], d: &mut [f32; Self::CLASSES]| {
                    *at.logits = logits.to_vec();
                    loss(item.label, logits, d)
                };
                net.learn(at.isa, &tokens, at.dropout, loss, &mut gradients, &mut scratch).unwrap()
            }
        }
    };
}

/// Frames as the network's inside takes them.
fn normal(item: &mha_desk::Vowel) -> Vec<[f32; 12]> {
    let flat = mha_desk::flat_weights(&demos(), "vowels").unwrap();
    let normal = |frame: &[f32; 12]| std::array::from_fn(|i| (frame[i] - flat[i]) / flat[12 + i]);
    item.frames[..item.len].iter().map(normal).collect()
}

learner!(
    DigitsLearner,
    digits,
    "digits",
    mha_desk::Digit,
    |item: &mha_desk::Digit| digits::tokens(&item.image)
);
learner!(VowelsLearner, vowels, "vowels", mha_desk::Vowel, normal);

fn digits_learner() -> DigitsLearner {
    DigitsLearner(mha_desk::digits(&demos()).unwrap())
}

fn vowels_learner() -> VowelsLearner {
    VowelsLearner(mha_desk::vowels(&demos()).unwrap())
}

/// A hundred steps beside JAX's.
fn as_jax<L: Learner>(learner: &L, isa: Isa) {
    let file = File::open(&demos().join(format!("models/{}_curve.safetensors", L::NAME))).unwrap();
    let (mut weights, order) = (file.f32s("start").unwrap(), file.indices("order").unwrap());
    let (losses, gradient) = (file.f32s("losses").unwrap(), file.f32s("gradient").unwrap());
    let logits = file.f32s("logits").unwrap();
    let batch = order.len() / losses.len();
    let (mut means, mut squares) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
    let mut worst = (0.0, 0.0);
    for (step, (items, &expected)) in order.chunks(batch).zip(&losses).enumerate() {
        let (mut gradients, mut mean) = (vec![0.0; weights.len()], 0.0);
        for (i, &item) in items.iter().enumerate() {
            let mut said = Vec::new();
            let at = &mut At {
                isa,
                weights: &weights,
                dropout: None,
                gradients: &mut gradients,
                logits: &mut said,
            };
            mean += learner.learn(item, at) / batch as f32;
            if step == 0 {
                let expected = &logits[i * L::CLASSES..][..L::CLASSES];
                assert!(said.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
        gradients.iter_mut().for_each(|gradient| *gradient /= batch as f32);
        if step == 0 {
            let mut at = 0;
            for tensor in L::tensors() {
                let range = at..at + tensor.len();
                at = range.end;
                let (ours, theirs) = (&gradients[range.clone()], &gradient[range]);
                // Nothing depends on the bias of keys: of it there is nothing but rounding.
                let scale = theirs.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
                for (ours, theirs) in ours.iter().zip(theirs) {
                    let off = (ours - theirs).abs() / scale;
                    assert!(off <= GRADIENT, "{}: {ours} is not {theirs}", tensor.name);
                    worst.0 = f32::max(worst.0, off);
                }
            }
            assert_eq!(at, gradients.len());
        }
        let off = (mean - expected).abs() / expected;
        assert!(off <= LOSS, "step {step}: {mean} is not {expected}");
        worst.1 = f32::max(worst.1, off);
        clip_norm(&mut gradients, 1.0);
        let mut at = 0;
        for tensor in L::tensors() {
            let range = at..at + tensor.len();
            at = range.end;
            let decays = tensor.rows.is_some() && tensor.name != "position";
            let adam = Adam::new(3e-3).decay(if decays { 0.1 } else { 0.0 });
            let (gradients, weights) = (&gradients[range.clone()], &mut weights[range.clone()]);
            let (means, squares) = (&mut means[range.clone()], &mut squares[range]);
            adam.step(step as u32 + 1, weights, gradients, means, squares).unwrap();
        }
    }
    println!(
        "{}, {}: gradients off by {:e} at most, losses by {:e}",
        L::NAME,
        isa.name(),
        worst.0,
        worst.1
    );
}

#[test]
fn a_hundred_steps_are_those_of_jax() {
    for isa in Isa::available() {
        as_jax(&digits_learner(), isa);
        as_jax(&vowels_learner(), isa);
    }
}

/// The slope along a direction within one tensor, by going there, against the gradients.
fn slopes<L: Learner>(learner: &L, item: usize, dropout: Option<Dropout>) {
    const FAR: f32 = 4e-3;
    let file = File::open(&demos().join(format!("models/{}_curve.safetensors", L::NAME))).unwrap();
    let weights = file.f32s("start").unwrap();
    let loss = |weights: &[f32], gradients: &mut [f32]| {
        let at = &mut At { isa: Isa::PORTABLE, weights, dropout, gradients, logits: &mut vec![] };
        learner.learn(item, at)
    };
    let mut gradients = vec![0.0; weights.len()];
    loss(&weights, &mut gradients);
    let mut at = 0;
    for tensor in L::tensors() {
        let range = at..at + tensor.len();
        at = range.end;
        // Along the gradient itself: no other direction has more to lose.
        let own = &gradients[range.clone()];
        let norm = own.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm < 1e-4 {
            continue;
        }
        let to = |side: f32| {
            let mut weights = weights.clone();
            for (weight, gradient) in weights[range.clone()].iter_mut().zip(own) {
                *weight += side * FAR * gradient / norm;
            }
            loss(&weights, &mut vec![0.0; weights.len()])
        };
        let slope = (to(1.0) - to(-1.0)) / (2.0 * FAR);
        assert!(
            (slope - norm).abs() <= 0.02 * norm + 1e-3,
            "{}, {dropout:?}: slope {slope}, gradient {norm}",
            tensor.name
        );
    }
}

#[test]
fn gradients_are_slopes_with_and_without_dropout() {
    let (digits, vowels) = (digits_learner(), vowels_learner());
    for seed in 0..5 {
        for dropout in [None, Some(Dropout { p: 0.3, seed })] {
            slopes(&digits, 7 * seed as usize, dropout);
            slopes(&vowels, 11 * seed as usize, dropout);
        }
    }
}

#[test]
fn logits_have_the_bits_of_the_way_forward() {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (digits, vowels) = (digits_learner(), vowels_learner());
    let of_digits = mha_desk::flat_weights(&demos(), "digits").unwrap();
    let of_vowels = mha_desk::flat_weights(&demos(), "vowels").unwrap();
    for isa in Isa::available() {
        for item in [0, 5, 100] {
            let mut learned = Vec::new();
            let mut gradients = vec![0.0; Digits::PARAMETERS];
            digits.learn(
                item,
                &mut At {
                    isa,
                    weights: &of_digits,
                    dropout: None,
                    gradients: &mut gradients,
                    logits: &mut learned,
                },
            );
            let (mut logits, mut scratch) = ([0.0; 10], [0.0; Digits::SCRATCH_LEN]);
            let image = &digits.0[item].image;
            Digits::committed(isa).classify(image, &mut logits, None, &mut scratch).unwrap();
            assert_eq!(bits(&learned), bits(&logits));

            let mut gradients = vec![0.0; Vowels::PARAMETERS - 24];
            vowels.learn(
                item,
                &mut At {
                    isa,
                    weights: &of_vowels[24..],
                    dropout: None,
                    gradients: &mut gradients,
                    logits: &mut learned,
                },
            );
            let (mut logits, mut scratch) = ([0.0; 9], [0.0; Vowels::SCRATCH_LEN]);
            let spoken = &vowels.0[item];
            let spoken = Utterance::new(&spoken.frames[..spoken.len]);
            Vowels::committed(isa).classify(spoken, &mut logits, None, &mut scratch).unwrap();
            assert_eq!(bits(&learned), bits(&logits));
        }
    }
}

#[test]
fn part_of_the_gradients_has_the_bits_of_all() {
    let flat = mha_desk::flat_weights(&demos(), "vowels").unwrap();
    let net = Vowels::from_flat(&flat, Isa::PORTABLE).unwrap();
    let item = &mha_desk::vowels(&demos()).unwrap()[3];
    let frames = &item.frames[..item.len];
    let mut all = vec![0.0; vowels::Net::PARAMETERS];
    let mut gradients = vowels::Net::gradients(&mut all).unwrap();
    let mut scratch = vec![f32::NAN; vowels::Net::learn_scratch_len(29, true)];
    let of = |logits: &[f32; 9], d: &mut [f32; 9]| loss(item.label, logits, d);
    let whole = net.learn(frames, of, &mut gradients, &mut scratch).unwrap();

    // The output projection, its bias and the classifier, with the least scratch.
    let (mut wo, mut bo, mut classifier) = ([0.0; 32 * 32], [0.0; 32], [[0.0; 9]; 32]);
    let mut some = vowels::VowelGradients::default();
    some.layer.wo = Some(&mut wo);
    some.layer.bo = Some(&mut bo);
    some.classifier = Some(&mut classifier);
    let mut scratch = vec![f32::NAN; vowels::Net::min_learn_scratch_len(item.len, false)];
    let again = net.learn(frames, of, &mut some, &mut scratch).unwrap();
    assert_eq!(whole.to_bits(), again.to_bits());
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(gradients.layer.wo.as_deref().unwrap()), bits(&wo));
    assert_eq!(bits(gradients.layer.bo.as_deref().unwrap()), bits(&bo));
    let expected = gradients.classifier.as_deref().unwrap().as_flattened();
    assert_eq!(bits(expected), bits(classifier.as_flattened()));

    // A second time adds.
    let mut some = vowels::VowelGradients { classifier: Some(&mut classifier), ..<_>::default() };
    net.learn(frames, of, &mut some, &mut scratch).unwrap();
    let twice: Vec<f32> = expected.iter().map(|x| x + x).collect();
    assert_eq!(bits(&twice), bits(classifier.as_flattened()));
}

#[test]
fn mistakes_are_refused_and_write_nothing() {
    let flat = mha_desk::flat_weights(&demos(), "digits").unwrap();
    let net = digits::Net::from_flat(&flat).unwrap();
    let all = [[0.5; 4]; 17];
    let least = digits::Net::min_learn_scratch_len(16, true);
    let mut gradient = vec![7.0; Digits::PARAMETERS];
    let of = |_: &[f32; 10], _: &mut [f32; 10]| panic!("the loss is not asked for");
    for (tokens, scratch) in [(0, least), (17, 2 * least), (16, least - 1), (1, 0)] {
        let mut gradients = digits::Net::gradients(&mut gradient).unwrap();
        let mut scratch = vec![0.0; scratch];
        let result =
            net.learn(Isa::PORTABLE, &all[..tokens], None, of, &mut gradients, &mut scratch);
        assert!(matches!(
            result,
            Err(BackwardError::Call(Error::Range { .. } | Error::Length { .. }))
        ));
    }
    let (mut short, mut scratch) = ([7.0; 3], vec![0.0; least]);
    let mut gradients = mha_nets::learning::Gradients::default();
    gradients.layer.wo = Some(&mut short);
    let result = net.learn(Isa::PORTABLE, &all[..16], None, of, &mut gradients, &mut scratch);
    let expected = BackwardError::Gradient { of: Argument::Weights, needed: 576, got: 3 };
    assert_eq!(result, Err(expected));
    assert!(gradient.iter().chain(&short).all(|&x| x == 7.0));
    assert!(digits::Net::gradients(&mut gradient[1..]).is_err());
}
