//! Utterances of the test split: some in flash, all from a file.
//!
//! Those in flash are cut out of `demos/data/vowels.safetensors` while compiling, so that only they
//! end up in the image. The test `utterances` compares them with the file as a proper reader reads
//! it.

use mha_nets::vowels::{CLASSES, FEATURES, Frame, LONGEST};

use crate::host::File;

const FILE: &[u8] = include_bytes!("../../data/vowels.safetensors");

/// Utterances in the file.
const COUNT: usize = 640;
/// Bytes of one utterance, padded to the longest.
const STRIDE: usize = LONGEST * FEATURES * 4;
/// Utterances of each speaker in flash.
const EACH: usize = 2;
/// Utterances in flash.
pub const IN_FLASH: usize = EACH * CLASSES;

/// Where the tensors lie: frames `[640, 29, 12]` as floats, then speakers, lengths and split (1 is
/// test), a byte each.
const FRAMES: usize = {
    let (header, _) = FILE.as_chunks::<8>();
    8 + u64::from_le_bytes(header[0]) as usize
};
const SPEAKERS: usize = FRAMES + COUNT * STRIDE;
const LENGTHS: usize = SPEAKERS + COUNT;
const SPLIT: usize = LENGTHS + COUNT;
const _: () = assert!(FILE.len() == SPLIT + COUNT, "the data file has another form");

/// The first utterances of each speaker in the test split, by their place in the file.
const CHOSEN: [usize; IN_FLASH] = {
    let (mut chosen, mut count, mut of_speaker) = ([0; IN_FLASH], 0, [0; CLASSES]);
    let mut i = 0;
    while i < COUNT {
        let speaker = FILE[SPEAKERS + i] as usize;
        if FILE[SPLIT + i] == 1 && of_speaker[speaker] < EACH {
            chosen[count] = i;
            count += 1;
            of_speaker[speaker] += 1;
        }
        i += 1;
    }
    assert!(count == IN_FLASH, "a speaker has too few utterances");
    chosen
};

/// Frames of all that were chosen.
const CHOSEN_FRAMES: usize = {
    let (mut sum, mut i) = (0, 0);
    while i < IN_FLASH {
        sum += FILE[LENGTHS + CHOSEN[i]] as usize;
        i += 1;
    }
    sum
};

/// Their frames, one utterance after the other.
static FLASH_FRAMES: [Frame; CHOSEN_FRAMES] = {
    let (mut frames, mut at, mut i) = ([[0.0; FEATURES]; CHOSEN_FRAMES], 0, 0);
    while i < IN_FLASH {
        let length = FILE[LENGTHS + CHOSEN[i]] as usize;
        let mut frame = 0;
        while frame < length {
            let mut feature = 0;
            while feature < FEATURES {
                let byte = FRAMES + CHOSEN[i] * STRIDE + (frame * FEATURES + feature) * 4;
                let word = [FILE[byte], FILE[byte + 1], FILE[byte + 2], FILE[byte + 3]];
                frames[at][feature] = f32::from_le_bytes(word);
                feature += 1;
            }
            at += 1;
            frame += 1;
        }
        i += 1;
    }
    frames
};

/// How many frames each has, and who speaks.
static FLASH_UTTERANCES: [(u8, u8); IN_FLASH] = {
    let (mut table, mut i) = ([(0, 0); IN_FLASH], 0);
    while i < IN_FLASH {
        table[i] = (FILE[LENGTHS + CHOSEN[i]], FILE[SPEAKERS + CHOSEN[i]]);
        i += 1;
    }
    table
};

/// An utterance with its speaker.
#[derive(Clone, Copy, Debug)]
pub struct Spoken<'a> {
    /// As many as were spoken, no padding.
    pub frames: &'a [Frame],
    /// The speaker, 0 to 8.
    pub speaker: usize,
}

/// The utterances in flash.
pub fn in_flash() -> impl Iterator<Item = Spoken<'static>> {
    let mut rest: &[Frame] = &FLASH_FRAMES;
    FLASH_UTTERANCES.iter().map(move |&(length, speaker)| {
        let (frames, after) = rest.split_at_checked(length.into()).unwrap_or_default();
        rest = after;
        Spoken { frames, speaker: speaker.into() }
    })
}

/// The name of the file that more utterances are read from. For each: speaker and number of frames
/// as 32-bit words, then the frames, all little-endian.
pub const NAME: &core::ffi::CStr = c"utterances.bin";

/// Reads the next utterance that `room` holds into it; `None` at the end.
pub fn next<'a>(file: &mut File, room: &'a mut [Frame]) -> Option<Spoken<'a>> {
    loop {
        let mut header = [[0; 4]; 2];
        if !file.read(header.as_flattened_mut()) {
            return None;
        }
        let [speaker, length] = header.map(|word| u32::from_le_bytes(word) as usize);
        for i in 0..length {
            let mut bytes = [[0; 4]; FEATURES];
            if !file.read(bytes.as_flattened_mut()) {
                return None;
            }
            if let Some(frame) = room.get_mut(i) {
                *frame = bytes.map(f32::from_le_bytes);
            }
        }
        if length <= room.len() {
            return Some(Spoken { frames: room.get(..length)?, speaker });
        }
    }
}
