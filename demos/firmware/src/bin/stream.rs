//! Who is speaking? An answer after each frame, for ever, in constant memory and time.
//!
//! Frames arrive in an interrupt, which puts them into a lock-free queue of fixed size and does nothing
//! else; the main loop takes them out, appends each to a ring of keys and values and answers. The
//! interrupt is simulated: it is called where the main loop can be interrupted, with a frame or two.

#![cfg_attr(target_os = "none", no_std, no_main)]

use heapless::spsc::{Consumer, Producer, Queue};
use mha::{Error, Isa};
use mha_firmware::console::Digest;
use mha_firmware::host::File;
use mha_firmware::memory::Memory;
use mha_firmware::record::Record;
use mha_firmware::score::Score;
use mha_firmware::stack;
use mha_firmware::utterances::{self, Spoken};
use mha_nets::vowels::{CLASSES, FEATURES, Frame, LONGEST, Listener, Vowels};

mha_firmware::program!(run);

static VOWELS: Vowels<'static> = Vowels::committed(Isa::PORTABLE);
static KEYS: Memory<[f32; Listener::KEYS_LEN]> = Memory::new([0.0; Listener::KEYS_LEN]);
static VALUES: Memory<[f32; Listener::VALUES_LEN]> = Memory::new([0.0; Listener::VALUES_LEN]);
static SCRATCH: Memory<[f32; Listener::SCRATCH_LEN]> = Memory::new([0.0; Listener::SCRATCH_LEN]);
static QUEUE: Memory<Queue<Frame, 4>> = Memory::new(Queue::new());
static ROOM: Memory<[Frame; LONGEST]> = Memory::new([[0.0; FEATURES]; LONGEST]);

/// The call that is counted: from a frame to an answer.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_inference(
    listener: &mut Listener<'_>,
    frame: &Frame,
    logits: &mut [f32; CLASSES],
    scratch: &mut [f32],
) -> Result<(), Error> {
    VOWELS.hear(listener, frame, logits, scratch)
}

/// What the interrupt has: the frames that the sensor will give, and the queue's one end.
struct Sensor<'a> {
    frames: core::slice::Iter<'a, Frame>,
    queue: Producer<'a, Frame>,
    lost: usize,
}

impl Sensor<'_> {
    /// The interrupt: a frame from the sensor into the queue.
    fn interrupt(&mut self) {
        if let Some(frame) = self.frames.next() {
            self.lost += usize::from(self.queue.enqueue(*frame).is_err());
        }
    }
}

fn run() -> i32 {
    // SAFETY: `run` is called once.
    let (keys, values, scratch) = unsafe { (KEYS.take(), VALUES.take(), SCRATCH.take()) };
    // SAFETY: as above.
    let (queue, room) = unsafe { (QUEUE.take(), ROOM.take()) };
    let mut record = Record::new();
    let Ok(mut listener) = Listener::new(keys, values) else { return 1 };
    let mut score = Score::default();
    for spoken in utterances::in_flash() {
        listener.forget();
        let answer = listen("flash", spoken, queue, &mut listener, scratch, &mut record);
        score.add(spoken.speaker, answer);
    }
    score.print("flash", &mut record);
    // The same without being told where one ends and the next begins: the ring goes round and round.
    listener.forget();
    for spoken in utterances::in_flash() {
        let _ = listen("endless", spoken, queue, &mut listener, scratch, &mut record);
    }
    if let Some(mut file) = File::open(utterances::NAME) {
        let mut score = Score::default();
        while let Some(spoken) = utterances::next(&mut file, room) {
            listener.forget();
            let answer = listen("file", spoken, queue, &mut listener, scratch, &mut record);
            score.add(spoken.speaker, answer);
        }
        score.print("file", &mut record);
    }
    0
}

/// An utterance from its first frame to its last; the last answer.
fn listen(
    source: &str,
    spoken: Spoken<'_>,
    queue: &mut Queue<Frame, 4>,
    listener: &mut Listener<'_>,
    scratch: &mut [f32],
    record: &mut Record,
) -> Option<usize> {
    let (producer, mut consumer) = queue.split();
    let mut sensor = Sensor { frames: spoken.frames.iter(), queue: producer, lost: 0 };
    let (mut answer, mut heard, mut digest) = (None, 0, Digest::new());
    loop {
        // Sometimes one, sometimes two while the main loop was busy.
        sensor.interrupt();
        if heard % 3 == 0 {
            sensor.interrupt();
        }
        let before = heard;
        while let Some(logits) = next(source, &mut consumer, listener, scratch, record) {
            digest = digest.floats(&logits);
            answer = Some(mha_nets::best(&logits));
            heard += 1;
        }
        if heard == before {
            break;
        }
    }
    let line = record.console().text("answer ").text(source).number(heard);
    line.number(answer.unwrap_or(CLASSES)).number(spoken.speaker).number(sensor.lost);
    record.console().hex(digest.word()).end();
    answer
}

/// The main loop's part: a frame out of the queue, if there is one, and the logits after it.
fn next(
    source: &str,
    queue: &mut Consumer<'_, Frame>,
    listener: &mut Listener<'_>,
    scratch: &mut [f32],
    record: &mut Record,
) -> Option<[f32; CLASSES]> {
    let frame = queue.dequeue()?;
    let mut logits = [f32::NAN; CLASSES];
    let call = || measured_inference(listener, &frame, &mut logits, scratch);
    let (result, stack) = stack::gauge(call);
    result.ok()?;
    record.words(&logits);
    // Four projections of a row, and attention to what is remembered.
    let macs = 4 * 32 * 32 + 2 * 32 * listener.remembered();
    record.cost(source, macs, Listener::SCRATCH_LEN, stack);
    Some(logits)
}
