//! Which of nine speakers says this /ae/? The trained model, its weights in flash, on utterances in
//! flash and then on all that the machine it hangs on has in a file.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(feature = "without-calls")]
use core::hint::black_box;

#[cfg(not(feature = "without-calls"))]
use mha_firmware::cost;
#[cfg(not(feature = "without-calls"))]
use mha_nets::network::Call;

use mha::{Error, Isa};
use mha_firmware::console::Digest;
use mha_firmware::host::File;
use mha_firmware::memory::Memory;
use mha_firmware::record::Record;
use mha_firmware::score::Score;
use mha_firmware::stack;
use mha_firmware::utterances::{self, Spoken};
use mha_nets::vowels::{CLASSES, FEATURES, Frame, LONGEST, Utterance, Vowels};

mha_firmware::program!(run);

static VOWELS: Vowels<'static> = Vowels::committed(Isa::PORTABLE);

/// The longest utterance that memory holds, and scratch for it: all at full speed, or on a small board
/// the shorter ones with the least scratch.
const FRAMES: usize = if cfg!(feature = "small") { 20 } else { LONGEST };
const SCRATCH_LEN: usize =
    if cfg!(feature = "small") { Vowels::min_scratch_len(FRAMES) } else { Vowels::SCRATCH_LEN };
static SCRATCH: Memory<[f32; SCRATCH_LEN]> = Memory::new([0.0; SCRATCH_LEN]);
static ROOM: Memory<[Frame; FRAMES]> = Memory::new([[0.0; FEATURES]; FRAMES]);

/// The layer inside of the network, counted by itself.
#[cfg(not(feature = "without-calls"))]
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_layer(call: Call<'_>) -> Result<(), Error> {
    call.run(Isa::PORTABLE)
}

/// The call that is counted: from frames to logits.
#[cfg(not(feature = "without-calls"))]
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_inference(
    utterance: Utterance<'_>,
    logits: &mut [f32; CLASSES],
    macs: &mut usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let layer = |call: Call<'_>| {
        *macs = cost::layer(&call.config, call.shape);
        measured_layer(call)
    };
    VOWELS.classify_with(utterance, logits, None, scratch, layer)
}

/// The same without library and network; their weights stay.
#[cfg(feature = "without-calls")]
fn measured_inference(
    utterance: Utterance<'_>,
    logits: &mut [f32; CLASSES],
    macs: &mut usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    black_box((&VOWELS, utterance, logits, macs, scratch));
    black_box(Ok(()))
}

fn run() -> i32 {
    // SAFETY: `run` is called once.
    let scratch = unsafe { SCRATCH.take() };
    let mut record = Record::new();
    let mut score = Score::default();
    for spoken in utterances::in_flash().filter(|spoken| spoken.frames.len() <= FRAMES) {
        score.add(spoken.speaker, classify("flash", spoken, scratch, &mut record));
    }
    score.print("flash", &mut record);
    if let Some(mut file) = File::open(utterances::NAME) {
        // SAFETY: as above.
        let room = unsafe { ROOM.take() };
        let mut score = Score::default();
        while let Some(spoken) = utterances::next(&mut file, room) {
            score.add(spoken.speaker, classify("file", spoken, scratch, &mut record));
        }
        score.print("file", &mut record);
    }
    0
}

/// `answer <source> <frames> <answer> <speaker> <digest>`, and the logits to the file; the answer.
fn classify(
    source: &str,
    spoken: Spoken<'_>,
    scratch: &mut [f32],
    record: &mut Record,
) -> Option<usize> {
    let mut logits = [f32::NAN; CLASSES];
    let mut macs = 0;
    let utterance = Utterance::new(spoken.frames);
    let call = || measured_inference(utterance, &mut logits, &mut macs, scratch);
    let (result, stack) = stack::gauge(call);
    if result.is_err() {
        record.console().text("refused ").text(source).end();
        return None;
    }
    let answer = mha_nets::best(&logits);
    let line = record.console().text("answer ").text(source).number(spoken.frames.len());
    line.number(answer).number(spoken.speaker).hex(Digest::new().floats(&logits).word()).end();
    record.words(&logits);
    record.cost(source, macs, SCRATCH_LEN, stack);
    Some(answer)
}
