//! The layer by itself, on made-up inputs: every feature once, and the shapes whose cost is quoted.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;

use mha::{Broadcast, Causal, Config, Dropout, Error, Inputs, Mask, Outputs, Shape};
#[cfg(not(feature = "without-calls"))]
use mha::{MultiHeadAttention, Weights};
use mha_firmware::cases::{Case, LAYER, Numbers};
use mha_firmware::memory::{Arena, Memory};
use mha_firmware::record::Record;
use mha_firmware::{cost, stack};

mha_firmware::program!(run);

static FLOATS: Memory<[f32; 96 * 1024]> = Memory::new([0.0; 96 * 1024]);
static BYTES: Memory<[u8; 4096]> = Memory::new([0; 4096]);

/// The call that is counted: [`MultiHeadAttention::forward`] and nothing else.
#[cfg(not(feature = "without-calls"))]
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_layer(
    layer: &MultiHeadAttention<'_>,
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    layer.forward(shape, inputs, outputs, scratch)
}

/// A layer from its numbers, called; and the stack that the call took.
#[cfg(not(feature = "without-calls"))]
fn forward(
    config: &Config,
    weights: &[f32],
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> (Result<(), Error>, usize) {
    let layer = Weights::from_flat(config, weights)
        .and_then(|weights| MultiHeadAttention::with_isa(*config, weights, mha_firmware::isa()));
    match layer {
        Ok(layer) => stack::gauge(|| measured_layer(&layer, shape, inputs, outputs, scratch)),
        Err(error) => (Err(error), 0),
    }
}

/// The same without the library.
#[cfg(feature = "without-calls")]
fn forward(
    config: &Config,
    weights: &[f32],
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    scratch: &mut [f32],
) -> (Result<(), Error>, usize) {
    black_box((config, weights, shape, inputs, outputs, scratch));
    stack::gauge(|| black_box(Ok(())))
}

fn run() -> i32 {
    // SAFETY: `run` is called once.
    let (floats, bytes) = unsafe { (FLOATS.take(), BYTES.take()) };
    let mut record = Record::new();
    for case in black_box(LAYER) {
        if call(case, Arena::new(floats), bytes, &mut record).is_none() {
            record.console().text("skip ").text(case.name).text(": more memory needed").end();
        }
    }
    #[cfg(feature = "plant-panic")]
    record.console().number(usize::from(bytes[black_box(bytes.len())])).end();
    0
}

/// One case; `None` where it does not fit into memory.
fn call(
    case: &Case<Config>,
    mut arena: Arena<'_>,
    bytes: &mut [u8],
    record: &mut Record,
) -> Option<()> {
    let &Case { name, layer: ref config, shape, options, .. } = case;
    // The same for every case, so that those of one layer and shape can be seen to agree.
    let mut numbers = Numbers::new(1);
    let mut random = |length: usize, factor: f32| {
        let floats = arena.take(length)?;
        numbers.floats(floats, factor);
        Some(&*floats)
    };

    // Weights small enough that a logit stays near 1 for inputs near 1.
    let biases = if case.biases { config.biases_len() } else { 0 };
    let weights = random(config.weights_len() + biases, 0.25)?;
    let keys = shape.batch * shape.kv_len;
    let q = random(shape.batch * shape.q_len * config.dims.q_in, options.amplitude)?;
    let k = random(keys * config.dims.k_in, options.amplitude)?;
    let v = random(keys * config.dims.v_in, options.amplitude)?;
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

    let scratch = options.scratch.len(config.scratch_len(shape), config.min_scratch_len(shape));
    let scores = options.scores.map_or(0, |_| config.scores_len(shape));
    let (y, scores) = (arena.take(config.y_len(shape))?, arena.take(scores)?);
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
    let (result, stack) = forward(config, weights, shape, inputs, outputs, scratch);
    record.case(name, result, [y, scores]);
    record.cost(name, cost::layer(config, shape), scratch_len, stack);
    Some(())
}
