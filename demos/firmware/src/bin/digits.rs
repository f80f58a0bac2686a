//! Which of ten digits is this image of 8×8 blocks? The trained model, its weights in flash, on images in
//! flash and then on all that the machine it hangs on has in a file. It runs in 16 KiB of RAM.

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
use mha_firmware::images::{self, Labelled};
use mha_firmware::memory::Memory;
use mha_firmware::record::Record;
use mha_firmware::score::Score;
use mha_firmware::stack;
use mha_nets::digits::{CLASSES, Digits, Image};

mha_firmware::program!(run);

static DIGITS: Digits<'static> = Digits::committed(Isa::PORTABLE);
static SCRATCH: Memory<[f32; Digits::SCRATCH_LEN]> = Memory::new([0.0; Digits::SCRATCH_LEN]);

/// The layer inside of the network, counted by itself.
#[cfg(not(feature = "without-calls"))]
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_layer(call: Call<'_>) -> Result<(), Error> {
    call.run(Isa::PORTABLE)
}

/// The call that is counted: from blocks to logits.
#[cfg(not(feature = "without-calls"))]
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_inference(
    image: &Image,
    logits: &mut [f32; CLASSES],
    macs: &mut usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let layer = |call: Call<'_>| {
        *macs = cost::layer(&call.config, call.shape);
        measured_layer(call)
    };
    DIGITS.classify_with(image, logits, None, scratch, layer)
}

/// The same without library and network; their weights stay.
#[cfg(feature = "without-calls")]
fn measured_inference(
    image: &Image,
    logits: &mut [f32; CLASSES],
    macs: &mut usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    black_box((&DIGITS, image, logits, macs, scratch));
    black_box(Ok(()))
}

fn run() -> i32 {
    // SAFETY: `run` is called once.
    let scratch = unsafe { SCRATCH.take() };
    let mut record = Record::new();
    let mut score = Score::default();
    for labelled in images::in_flash() {
        score.add(labelled.label, classify("flash", &labelled, scratch, &mut record));
    }
    score.print("flash", &mut record);
    if let Some(mut file) = File::open(images::NAME) {
        let mut score = Score::default();
        while let Some(labelled) = images::next(&mut file) {
            score.add(labelled.label, classify("file", &labelled, scratch, &mut record));
        }
        score.print("file", &mut record);
    }
    0
}

/// `answer <source> <blocks> <answer> <label> <digest>`, and the logits to the file; the answer.
fn classify(
    source: &str,
    labelled: &Labelled,
    scratch: &mut [f32],
    record: &mut Record,
) -> Option<usize> {
    let mut logits = [f32::NAN; CLASSES];
    let mut macs = 0;
    let call = || measured_inference(&labelled.image, &mut logits, &mut macs, scratch);
    let (result, stack) = stack::gauge(call);
    if result.is_err() {
        record.console().text("refused ").text(source).end();
        return None;
    }
    let answer = mha_nets::best(&logits);
    let line = record.console().text("answer ").text(source).number(labelled.image.len());
    line.number(answer).number(labelled.label).hex(Digest::new().floats(&logits).word()).end();
    record.words(&logits);
    record.cost(source, macs, Digits::SCRATCH_LEN, stack);
    Some(answer)
}
