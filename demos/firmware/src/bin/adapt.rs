//! A trained model gets another microphone, and learns it on the chip: its weights stay in flash, those of
//! the output projection and of the classifier are copied to RAM and trained there on 27 utterances.

#![cfg_attr(target_os = "none", no_std, no_main)]

use mha::{BackwardError, Isa};
use mha_firmware::console::Digest;
use mha_firmware::host::File;
use mha_firmware::lessons::{self, LESSONS, other_microphone};
use mha_firmware::memory::Memory;
use mha_firmware::record::Record;
use mha_firmware::stack;
use mha_firmware::utterances::{self, Spoken};
use mha_nets::vowels::{CLASSES, FEATURES, Frame, LONGEST, Net, Utterance, VowelGradients, Vowels};
use mha_train::{Adam, Target, clip_norm, cross_entropy};

mha_firmware::program!(run);

const WIDTH: usize = 32;
/// What learns: output projection and bias, classifier and bias.
const LEARNING: usize = WIDTH * WIDTH + WIDTH + WIDTH * CLASSES + CLASSES;
/// Scratch for learning is less than for classifying at full speed, which is not needed here.
const SCRATCH_LEN: usize = {
    let (learn, classify) = (Net::min_learn_scratch_len(LONGEST, false), Vowels::MIN_SCRATCH_LEN);
    if learn > classify { learn } else { classify }
};
/// How often the lessons are gone through.
const ROUNDS: usize = 10;
const ADAM: Adam = Adam::new(5e-3);
/// One of as many utterances of the file is asked.
const SPARSE: usize = 4;

static VOWELS: Vowels<'static> = Vowels::committed(Isa::PORTABLE);

/// All RAM but the stack.
struct Ram {
    weights: [f32; LEARNING],
    gradients: [f32; LEARNING],
    means: [f32; LEARNING],
    squares: [f32; LEARNING],
    scratch: [f32; SCRATCH_LEN],
    frames: [Frame; LONGEST],
}

static RAM: Memory<Ram> = Memory::new(Ram {
    weights: [0.0; LEARNING],
    gradients: [0.0; LEARNING],
    means: [0.0; LEARNING],
    squares: [0.0; LEARNING],
    scratch: [0.0; SCRATCH_LEN],
    frames: [[0.0; FEATURES]; LONGEST],
});

/// The model with what it has learned.
fn learned(weights: &[f32; LEARNING]) -> Option<Vowels<'_>> {
    let (wo, rest) = weights.split_at_checked(WIDTH * WIDTH)?;
    let (bo, rest) = rest.split_first_chunk()?;
    let (classifier, bias) = rest.split_at_checked(WIDTH * CLASSES)?;
    let classifier = classifier.as_chunks().0.first_chunk()?;
    Some(VOWELS.with_head(wo, bo, classifier, bias.first_chunk()?))
}

/// Where its gradients go.
fn gradients(flat: &mut [f32; LEARNING]) -> Option<VowelGradients<'_>> {
    let (wo, rest) = flat.split_at_mut_checked(WIDTH * WIDTH)?;
    let (bo, rest) = rest.split_at_mut_checked(WIDTH)?;
    let (classifier, bias) = rest.split_at_mut_checked(WIDTH * CLASSES)?;
    let mut gradients = VowelGradients::default();
    (gradients.layer.wo, gradients.layer.bo) = (Some(wo), Some(bo));
    gradients.classifier = Some(classifier.as_chunks_mut().0);
    gradients.classifier_bias = bias.first_chunk_mut();
    Some(gradients)
}

/// The call that is counted: forward and back through one utterance, and a step.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_step(
    t: u32,
    frames: &[Frame],
    speaker: usize,
    weights: &mut [f32; LEARNING],
    of: &mut [f32; LEARNING],
    means: &mut [f32; LEARNING],
    squares: &mut [f32; LEARNING],
    scratch: &mut [f32],
) -> Option<f32> {
    of.fill(0.0);
    let loss = |logits: &[f32; CLASSES], d: &mut [f32; CLASSES]| {
        cross_entropy(logits, Target::Class(speaker), d).unwrap_or(f32::NAN)
    };
    let model = learned(weights)?;
    let result: Result<f32, BackwardError> =
        model.learn(frames, loss, &mut gradients(of)?, scratch);
    let loss = result.ok()?;
    clip_norm(of, 1.0);
    ADAM.step(t, weights, of, means, squares).ok()?;
    Some(loss)
}

/// What the other microphone makes of an utterance.
fn heard<'a>(spoken: Spoken<'_>, room: &'a mut [Frame; LONGEST]) -> &'a [Frame] {
    for (to, from) in room.iter_mut().zip(spoken.frames) {
        *to = other_microphone(from, VOWELS.deviation());
    }
    room.get(..spoken.frames.len()).unwrap_or_default()
}

/// How many of an iterator's utterances are heard right, and how many there are.
#[derive(Clone, Copy, Default)]
struct Score {
    right: usize,
    all: usize,
}

impl Score {
    fn ask(
        &mut self,
        model: &Vowels<'_>,
        spoken: Spoken<'_>,
        room: &mut [Frame; LONGEST],
        scratch: &mut [f32],
        record: &mut Record,
    ) {
        let frames = heard(spoken, room);
        let mut logits = [f32::NAN; CLASSES];
        let asked = model.classify(Utterance::new(frames), &mut logits, None, scratch);
        record.words(&logits);
        self.all += 1;
        self.right += usize::from(asked.is_ok() && mha_nets::best(&logits) == spoken.speaker);
    }
}

/// `before|after flash|file <right> <all>`.
fn scores(
    when: &str,
    model: &Vowels<'_>,
    room: &mut [Frame; LONGEST],
    scratch: &mut [f32],
    record: &mut Record,
) {
    let mut score = Score::default();
    for spoken in utterances::in_flash() {
        score.ask(model, spoken, room, scratch, record);
    }
    record.console().text(when).text(" flash").number(score.right).number(score.all).end();
    if let Some(mut file) = File::open(utterances::NAME) {
        let (mut score, mut i) = (Score::default(), 0);
        let mut read = [[0.0; FEATURES]; LONGEST];
        while let Some(spoken) = utterances::next(&mut file, &mut read) {
            if i % SPARSE == 0 {
                score.ask(model, spoken, room, scratch, record);
            }
            i += 1;
        }
        record.console().text(when).text(" file").number(score.right).number(score.all).end();
    }
}

fn run() -> i32 {
    // SAFETY: `run` is called once.
    let Ram { weights, gradients, means, squares, scratch, frames } = unsafe { RAM.take() };
    let mut record = Record::new();
    record.console().text("ram ").text("bytes").number(size_of::<Ram>()).end();
    let start = VOWELS.head();
    let copied = start.into_iter().flatten();
    for (to, from) in weights.iter_mut().zip(copied) {
        *to = *from;
    }
    scores("before", &VOWELS, frames, scratch, &mut record);
    let mut t = 0;
    for round in 0..ROUNDS {
        let mut sum = 0.0;
        for spoken in lessons::all() {
            t += 1;
            let lesson = heard(spoken, frames);
            let step = || {
                let (moments, of) = ((&mut *means, &mut *squares), &mut *gradients);
                let (means, squares) = moments;
                measured_step(t, lesson, spoken.speaker, weights, of, means, squares, scratch)
            };
            let (loss, stack) = stack::gauge(step);
            let Some(loss) = loss else {
                record.console().text("refused ").text("step").end();
                return 1;
            };
            sum += loss;
            if round == 0 {
                record.cost("step", lesson.len(), SCRATCH_LEN, stack);
            }
        }
        let digest = Digest::new().floats(weights).word();
        let millis = (1000.0 * sum / LESSONS as f32) as usize;
        record.console().text("round ").text("loss/1000").number(millis).hex(digest).end();
    }
    record.words(weights);
    let Some(model) = learned(weights) else { return 1 };
    scores("after", &model, frames, scratch, &mut record);
    0
}
