//! Utterances to learn from: a few of each speaker's training split, in flash, and a microphone that
//! changes what they sound like.

use mha_nets::vowels::{CLASSES, FEATURES, Frame, LONGEST};

use crate::utterances::Spoken;

const FILE: &[u8] = include_bytes!("../../data/vowels.safetensors");
const COUNT: usize = 640;
const STRIDE: usize = LONGEST * FEATURES * 4;
/// Utterances of each speaker.
pub const EACH: usize = 3;
/// Utterances in all.
pub const LESSONS: usize = EACH * CLASSES;

/// Where the tensors lie, as in `utterances`.
const FRAMES: usize = {
    let (header, _) = FILE.as_chunks::<8>();
    8 + u64::from_le_bytes(header[0]) as usize
};
const SPEAKERS: usize = FRAMES + COUNT * STRIDE;
const LENGTHS: usize = SPEAKERS + COUNT;
const SPLIT: usize = LENGTHS + COUNT;

/// The first utterances of each speaker in the training split, a round of all speakers after another.
static LESSON: [([Frame; LONGEST], u8, u8); LESSONS] = {
    let mut lessons = [([[0.0; FEATURES]; LONGEST], 0, 0); LESSONS];
    let (mut of_speaker, mut i) = ([0; CLASSES], 0);
    while i < COUNT {
        let speaker = FILE[SPEAKERS + i] as usize;
        if FILE[SPLIT + i] == 0 && of_speaker[speaker] < EACH {
            let lesson = &mut lessons[of_speaker[speaker] * CLASSES + speaker];
            (lesson.1, lesson.2) = (FILE[LENGTHS + i], FILE[SPEAKERS + i]);
            let mut at = 0;
            while at < LONGEST * FEATURES {
                let byte = FRAMES + i * STRIDE + at * 4;
                let word = [FILE[byte], FILE[byte + 1], FILE[byte + 2], FILE[byte + 3]];
                lesson.0[at / FEATURES][at % FEATURES] = f32::from_le_bytes(word);
                at += 1;
            }
            of_speaker[speaker] += 1;
        }
        i += 1;
    }
    lessons
};

/// The lessons.
pub fn all() -> impl Iterator<Item = Spoken<'static>> {
    LESSON.iter().map(|(frames, length, speaker)| Spoken {
        frames: frames.get(..usize::from(*length)).unwrap_or_default(),
        speaker: (*speaker).into(),
    })
}

/// Another microphone: every feature scaled by 1.1 or 0.9 and shifted by 0.75 of its deviation over the
/// training split, up or down. A cepstrum turns another channel into an added constant; these are as large
/// as three usual days. The signs were written down before anything was run, and nothing was chosen by
/// what the test split says.
pub fn other_microphone(frame: &Frame, deviation: &Frame) -> Frame {
    const UP: [bool; FEATURES] =
        [true, false, true, true, false, false, true, false, true, false, false, true];
    let mut out = *frame;
    for ((x, deviation), up) in out.iter_mut().zip(deviation).zip(UP) {
        let (scale, shift) = if up { (1.1, 0.75) } else { (0.9, -0.75) };
        *x = *x * scale + shift * deviation;
    }
    out
}
