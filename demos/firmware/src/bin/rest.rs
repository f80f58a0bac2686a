//! What firmware may call of the library beside the layer and attention: the initialisers, scores
//! alone, a call in ranges of rows, and a stream over a cache. That it links says that no panic hides there either.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;

use mha::init::{self, SplitMix};
use mha::{
    Attention, Cache, CacheConfig, Config, Dims, Error, Inputs, Isa, MultiHeadAttention, Outputs,
    Plain, Shape, Weights,
};
use mha_firmware::cases::Numbers;
use mha_firmware::memory::Memory;
use mha_firmware::record::Record;
use mha_firmware::{cost, stack};
use rand_core::SeedableRng;

mha_firmware::program!(run);

/// Seven inputs and thirteen outputs, in rows of thirteen.
const FAN_IN: usize = 7;
const FAN_OUT: usize = 13;

const CONFIG: Config = Config::new(Dims::square(32)).heads(4);
const ATTENTION: Attention = Attention::new(4, 32, 32);
const SHAPE: Shape = Shape::new(1, 16, 16);
const TOKENS: usize = SHAPE.q_len * CONFIG.dims.q_in;

const STREAM: CacheConfig = CacheConfig::linear(SHAPE.kv_len);
const KEYS: usize = STREAM.keys_len(&CONFIG.attention);
const VALUES: usize = STREAM.values_len(&CONFIG.attention);

static WEIGHTS: Memory<[f32; CONFIG.weights_len()]> = Memory::new([0.0; CONFIG.weights_len()]);
static INPUT: Memory<[f32; TOKENS]> = Memory::new([0.0; TOKENS]);
static Y: Memory<[f32; CONFIG.y_len(SHAPE)]> = Memory::new([0.0; CONFIG.y_len(SHAPE)]);
static SCORES: Memory<[f32; CONFIG.scores_len(SHAPE)]> =
    Memory::new([0.0; CONFIG.scores_len(SHAPE)]);
static SCRATCH: Memory<[f32; CONFIG.scratch_len(SHAPE)]> =
    Memory::new([0.0; CONFIG.scratch_len(SHAPE)]);

static CACHE: Memory<([f32; KEYS], [f32; VALUES])> = Memory::new(([0.0; KEYS], [0.0; VALUES]));

/// The call that is counted: [`mha::dot_product_attention_scores`] and nothing else.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_scores(
    attention: Attention,
    shape: Shape,
    inputs: Inputs<'_>,
    scores: &mut [f32],
    scratch: &mut [f32],
) -> Result<(), Error> {
    let isa = Isa::PORTABLE;
    mha::dot_product_attention_scores(attention, isa, shape, inputs, scores, scratch)
}

fn run() -> i32 {
    let mut record = Record::new();
    initialisers(&mut record);

    // SAFETY: `run` is called once.
    let (weights, input) = unsafe { (WEIGHTS.take(), INPUT.take()) };
    // SAFETY: as above.
    let (y, scores, scratch) = unsafe { (Y.take(), SCORES.take(), SCRATCH.take()) };
    let mut numbers = Numbers::new(1);
    numbers.floats(weights, 0.25);
    numbers.floats(input, 1.0);
    let inputs = Inputs::itself(black_box(input));

    let call = || measured_scores(black_box(ATTENTION), black_box(SHAPE), inputs, scores, scratch);
    let (result, stack) = stack::gauge(call);
    record.case("scores_alone", result, [scores, &[]]);
    record.cost("scores_alone", cost::attention(&ATTENTION, SHAPE) / 2, scratch.len(), stack);

    let whole = in_parts(&[SHAPE.q_len], weights, inputs, y, scratch);
    record.case("rows_whole", whole, [y, &[]]);
    y.fill(f32::NAN);
    let parts = in_parts(&[5, 1, 0, 10], weights, inputs, y, scratch);
    record.case("rows_in_parts", parts, [y, &[]]);

    let whole = in_parts(&[SHAPE.q_len], weights, inputs.causal(), y, scratch);
    record.case("causal_whole", whole, [y, &[]]);
    y.fill(f32::NAN);
    // SAFETY: as above.
    let (keys, values) = unsafe { CACHE.take() };
    let streamed = stream(&[1, 1, 5, 1, 8], weights, input, y, [keys, values], scratch);
    record.case("causal_stream", streamed, [y, &[]]);
    0
}

/// Computes the causal layer as a stream, so many tokens at a time.
fn stream(
    steps: &[usize],
    weights: &[f32],
    tokens: &[f32],
    mut y: &mut [f32],
    [keys, values]: [&mut [f32]; 2],
    scratch: &mut [f32],
) -> Result<(), Error> {
    let config = black_box(CONFIG);
    let weights = Weights::from_flat(&config, weights)?;
    let layer = MultiHeadAttention::with_isa(config, weights, mha_firmware::isa())?;
    let mut cache = Cache::new(STREAM, &config.attention, keys, values)?;
    let mut next = tokens;
    for &step in steps {
        let (new, after) = next.split_at_checked(step * CONFIG.dims.q_in).unwrap_or_default();
        let (out, rest) = y.split_at_mut_checked(step * CONFIG.dims.out).unwrap_or_default();
        layer.append(&mut cache, new, new, Plain)?;
        layer.attend(&cache, step, Inputs::query(new).causal(), Outputs::new(out), scratch)?;
        (next, y) = (after, rest);
    }
    Ok(())
}

/// Computes the layer in ranges of so many rows each.
fn in_parts(
    parts: &[usize],
    weights: &[f32],
    inputs: Inputs<'_>,
    y: &mut [f32],
    scratch: &mut [f32],
) -> Result<(), Error> {
    let config = black_box(CONFIG);
    let weights = Weights::from_flat(&config, weights)?;
    let layer = MultiHeadAttention::with_isa(config, weights, mha_firmware::isa())?;
    let (mut first, mut rest) = (0, y);
    for &rows in parts {
        let (y, after) = rest.split_at_mut_checked(rows * CONFIG.dims.out).unwrap_or_default();
        let range = first..first + rows;
        layer.forward_rows(SHAPE, range, inputs, Outputs::new(y), scratch)?;
        (first, rest) = (first + rows, after);
    }
    Ok(())
}

fn initialisers(record: &mut Record) {
    let mut weight = [0.0; FAN_IN * FAN_OUT];
    let mut rng = SplitMix::seed_from_u64(1);
    let mut each = |name: &str, fill: &mut dyn FnMut(&mut [f32], &mut SplitMix)| {
        fill(black_box(&mut weight), &mut rng);
        record.case(name, Ok(()), [&weight, &[]]);
    };
    each("zeros", &mut |weight, _| init::zeros(weight));
    each("ones", &mut |weight, _| init::ones(weight));
    each("identity", &mut |weight, _| init::identity(weight, FAN_OUT, 0.5));
    each("glorot_uniform", &mut |w, rng| init::glorot_uniform(w, FAN_IN, FAN_OUT, rng));
    each("glorot_normal", &mut |w, rng| init::glorot_normal(w, FAN_IN, FAN_OUT, rng));
    each("kaiming_uniform", &mut |w, rng| init::kaiming_uniform(w, FAN_IN, rng));
    each("kaiming_normal", &mut |w, rng| init::kaiming_normal(w, FAN_IN, rng));
    each("truncated_normal", &mut |w, rng| init::truncated_normal(w, 0.0, 1.0, -2.0, 2.0, rng));
    each("orthogonal", &mut |w, rng| init::orthogonal(w, FAN_OUT, 1.0, rng));
}
