//! Attention without projections, on made-up inputs: the shape on which other libraries were measured,
//! and what differs from the layer.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;

use mha::{Attention, Broadcast, Causal, Dropout, Error, Inputs, Mask, Outputs, Shape};
use mha_firmware::cases::{ATTENTION, Case, Numbers};
use mha_firmware::memory::{Arena, Memory};
use mha_firmware::record::Record;
use mha_firmware::{cost, stack};

mha_firmware::program!(run);

static FLOATS: Memory<[f32; 96 * 1024]> = Memory::new([0.0; 96 * 1024]);
static BYTES: Memory<[u8; 4096]> = Memory::new([0; 4096]);

/// The call that is counted: [`mha::dot_product_attention`] and nothing else.
#[cfg(not(feature = "without-calls"))]
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_attention(
    attention: Attention,
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    mha::dot_product_attention(attention, mha_firmware::isa(), shape, inputs, outputs, scratch)
}

/// The same without the library.
#[cfg(feature = "without-calls")]
fn measured_attention(
    attention: Attention,
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    black_box((attention, shape, inputs, outputs, scratch));
    black_box(Ok(()))
}

fn run() -> i32 {
    // SAFETY: `run` is called once.
    let (floats, bytes) = unsafe { (FLOATS.take(), BYTES.take()) };
    let mut record = Record::new();
    for case in black_box(ATTENTION) {
        if call(case, Arena::new(floats), bytes, &mut record).is_none() {
            record.console().text("skip ").text(case.name).text(": more memory needed").end();
        }
    }
    0
}

/// One case; `None` where it does not fit into memory.
fn call(
    case: &Case<Attention>,
    mut arena: Arena<'_>,
    bytes: &mut [u8],
    record: &mut Record,
) -> Option<()> {
    let &Case { name, layer: attention, shape, options, .. } = case;
    // The same for every case, so that those of one layer and shape can be seen to agree.
    let mut numbers = Numbers::new(1);
    let mut random = |length: usize, factor: f32| {
        let floats = arena.take(length)?;
        numbers.floats(floats, factor);
        Some(&*floats)
    };

    let keys = shape.batch * shape.kv_len;
    let q = random(shape.batch * shape.q_len * attention.qk, options.amplitude)?;
    let k = random(keys * attention.qk, options.amplitude)?;
    let v = random(keys * attention.v, options.amplitude)?;
    let mut inputs = Inputs::new(q, k, v);
    if let Some(extents) = options.bias {
        inputs = inputs.bias(Broadcast::new(random(extents.iter().product(), 4.0)?, extents));
    }
    if let Some(extents) = options.mask {
        let mask = bytes.get_mut(..extents.iter().product())?;
        numbers.bytes(mask, options.attends);
        inputs = inputs.mask(Mask::bytes(mask, extents));
    }
    if let Some(offset) = options.causal {
        inputs = inputs.causal_from(Causal::Offset(offset));
    }
    if let Some(p) = options.dropout {
        inputs = inputs.dropout(Dropout::new(p, 7));
    }

    let scratch = options.scratch.len(attention.scratch_len(shape), attention.min_scratch_len());
    let scores = options.scores.map_or(0, |_| attention.scores_len(shape));
    let (y, scores) = (arena.take(shape.batch * shape.q_len * attention.v)?, arena.take(scores)?);
    let scratch = arena.take(scratch)?;
    // What lies in a buffer before the call must not matter.
    for buffer in [&mut *y, &mut *scores, &mut *scratch] {
        buffer.fill(f32::NAN);
    }
    let mut outputs = Outputs::new(&mut *y);
    if let Some(at) = options.scores {
        outputs = outputs.scores(&mut *scores).scores_at(at);
    }

    let scratch_len = scratch.len();
    let call = || measured_attention(attention, shape, inputs, outputs, scratch);
    let (result, stack) = stack::gauge(call);
    record.case(name, result, [y, scores]);
    record.cost(name, cost::attention(&attention, shape), scratch_len, stack);
    Some(())
}
