//! Whole calls with every buffer at the edge of memory that nothing may touch, on shapes around every
//! edge of the kernels' tiles, held against doubles: who reads or writes one float too far dies.
//!
//! `src/kernel/tests.rs` does the same to the kernels one by one, where the inside of a buffer has
//! edges too.

#![cfg(unix)]

#[path = "support/guarded.rs"]
mod guarded;
mod support;

use guarded::{Edge, Guarded};
use mha::{
    Cache, CacheConfig, Inputs, Isa, MultiHeadAttention, Outputs, Plain, Weights,
    dot_product_attention,
};
use support::{Call, bits, error, judged};

const SHAPES: u64 = 1000;

/// Room for each buffer of a call.
struct Memory {
    w: [Guarded; 4],
    b: [Guarded; 4],
    q: Guarded,
    k: Guarded,
    v: Guarded,
    bias: Guarded,
    mask: Guarded,
    y: Guarded,
    scores: Guarded,
    scratch: Guarded,
    keys: Guarded,
    values: Guarded,
}

impl Memory {
    fn new() -> Self {
        let room = || Guarded::new(1 << 20);
        Self {
            w: [(); 4].map(|()| room()),
            b: [(); 4].map(|()| room()),
            q: room(),
            k: room(),
            v: room(),
            bias: room(),
            mask: room(),
            y: room(),
            scores: room(),
            scratch: room(),
            keys: room(),
            values: room(),
        }
    }
}

/// A way of computing the same.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// At once, in the scratch of full speed.
    Forward,
    /// At once, in as little as there can be.
    Tight,
    /// From a cache, filled in two pieces.
    Cached,
    /// From a cache, as tightly.
    TightCached,
}

/// Computes a call, everything at an edge.
fn run(
    call: &Call,
    isa: Isa,
    (way, edge, with_scores): (Way, Edge, bool),
    memory: &mut Memory,
) -> (Vec<f32>, Vec<f32>) {
    let (config, shape, dims) = (call.config, call.shape, call.config.dims);
    let mut w = memory.w.each_mut().into_iter().zip(&call.w);
    let mut w = w.by_ref().map(|(memory, w)| &*memory.place(w, edge));
    let mut next = || w.next().unwrap();
    let weights = Weights::new(next(), next(), next(), next());
    let mut b = memory.b.each_mut().into_iter().zip(&call.b);
    let mut b = b.by_ref().map(|(memory, b)| b.as_ref().map(|b| &*memory.place(b, edge)));
    let mut next = || b.next().unwrap();
    let weights = Weights { bq: next(), bk: next(), bv: next(), bo: next(), ..weights };
    let layer = MultiHeadAttention::with_isa(config, weights, isa).unwrap();

    let bias = call.bias.as_ref().map(|(data, _)| &*memory.bias.place(data, edge));
    let mask = call.mask.as_ref().map(|(data, _)| &*memory.mask.place(data, edge));
    let y = memory.y.fill(f32::NAN, config.y_len(shape), edge);
    let scores = memory.scores.fill(f32::NAN, config.scores_len(shape), edge);
    let outputs = Outputs::new(y);
    let outputs = if with_scores { outputs.scores(scores) } else { outputs };
    let q = &*memory.q.place(&call.q, edge);
    let scratch_len = match way {
        Way::Forward => config.scratch_len(shape),
        Way::Tight => config.min_scratch_len(shape),
        Way::Cached => config.cached_scratch_len(shape.q_len),
        Way::TightCached => config.min_cached_scratch_len(),
    };
    let scratch = memory.scratch.fill(f32::NAN, scratch_len, edge);
    if matches!(way, Way::Forward | Way::Tight) {
        let k = &*memory.k.place(&call.k, edge);
        let v = &*memory.v.place(&call.v, edge);
        let inputs = call.restricted(Inputs::new(q, k, v), bias, mask);
        layer.forward(shape, inputs, outputs, scratch).unwrap();
    } else {
        let cache = CacheConfig::linear(shape.kv_len).batch(shape.batch);
        let keys = memory.keys.fill(f32::NAN, cache.keys_len(&config.attention), edge);
        let values = memory.values.fill(f32::NAN, cache.values_len(&config.attention), edge);
        let mut cache = Cache::new(cache, &config.attention, keys, values).unwrap();
        for positions in [0..shape.kv_len / 3, shape.kv_len / 3..shape.kv_len] {
            let piece = |all: &[f32], width: usize| -> Vec<f32> {
                let sequences = all.chunks(shape.kv_len * width);
                sequences
                    .flat_map(|all| &all[positions.start * width..positions.end * width])
                    .copied()
                    .collect()
            };
            let k = memory.k.place(&piece(&call.k, dims.k_in), edge);
            let v = memory.v.place(&piece(&call.v, dims.v_in), edge);
            layer.append(&mut cache, k, v, Plain).unwrap();
        }
        let inputs = call.restricted(Inputs::query(q), bias, mask);
        layer.attend(&cache, shape.q_len, inputs, outputs, scratch).unwrap();
    }
    // They lie where they were placed.
    let y = memory.y.again(config.y_len(shape), edge).to_vec();
    let scores = memory.scores.again(config.scores_len(shape), edge).to_vec();
    (y, scores)
}

#[test]
fn no_call_touches_what_is_not_its_own() {
    let memory = &mut Memory::new();
    let mut worst = [0.0f64; 8];
    for seed in 0..SHAPES {
        let call = judged(Call::around_tiles(seed));
        let doubles = call.doubles();
        for (isa, worst) in Isa::available().zip(&mut worst) {
            let mut first = None;
            for (way, edge, with_scores) in [
                (Way::Forward, Edge::End, true),
                (Way::Forward, Edge::Start, false),
                (Way::Tight, Edge::End, false),
                (Way::Tight, Edge::Start, true),
                (Way::Cached, Edge::End, false),
                (Way::Cached, Edge::Start, true),
                (Way::TightCached, Edge::End, true),
            ] {
                let what = format!("call {seed} on {}, {way:?} at the {edge:?}", isa.name());
                let (y, scores) = run(&call, isa, (way, edge, with_scores), memory);
                let first = first.get_or_insert_with(|| (bits(&y), bits(&scores)));
                assert_eq!(bits(&y), first.0, "y of {what}");
                if with_scores {
                    assert_eq!(bits(&scores), first.1, "scores of {what}");
                    *worst = worst.max(error(&call, &doubles, &y, &scores, &what));
                }
            }
        }
    }
    for (isa, worst) in Isa::available().zip(worst) {
        println!("{}: worst error {worst:.2} of its bound", isa.name());
        // A bound that is never nearly met would prove little.
        assert!(worst > 0.02);
    }
}

/// The same without projections, whose operands are the caller's buffers themselves.
#[test]
fn attention_alone_touches_nothing_else() {
    let memory = &mut Memory::new();
    for seed in 0..SHAPES {
        let call = judged(Call::around_tiles(seed));
        let (attention, shape) = (call.config.attention, call.shape);
        let noise = |len: usize| call.q.iter().cycle().take(len).copied().collect::<Vec<f32>>();
        let q = noise(shape.batch * shape.q_len * attention.qk);
        let k = noise(shape.batch * shape.kv_len * attention.qk);
        let v = noise(shape.batch * shape.kv_len * attention.v);
        let mut families = [const { None }; 2];
        for isa in Isa::available() {
            for edge in [Edge::End, Edge::Start] {
                let y_len = shape.batch * shape.q_len * attention.v;
                let scores_len = attention.scores_len(shape);
                let y = memory.y.fill(f32::NAN, y_len, edge);
                let scores = memory.scores.fill(f32::NAN, scores_len, edge);
                let len = if edge == Edge::End {
                    attention.scratch_len(shape)
                } else {
                    attention.min_scratch_len()
                };
                let scratch = memory.scratch.fill(f32::NAN, len, edge);
                let inputs = Inputs::new(
                    memory.q.place(&q, edge),
                    memory.k.place(&k, edge),
                    memory.v.place(&v, edge),
                );
                let outputs = Outputs::new(y).scores(scores);
                dot_product_attention(attention, isa, shape, inputs, outputs, scratch).unwrap();
                let got = (
                    bits(memory.y.again(y_len, edge)),
                    bits(memory.scores.again(scores_len, edge)),
                );
                let family = &mut families[usize::from(isa.is_fused())];
                assert_eq!(got, *family.get_or_insert_with(|| got.clone()), "call {seed}");
            }
        }
    }
}

/// That the pages are forbidden: a program that goes one float too far dies.
#[test]
fn one_float_too_far_is_death() {
    let test = "one_float_too_far_is_death";
    match std::env::var("MHA_TOO_FAR").as_deref() {
        Ok(edge) => {
            let mut memory = Guarded::new(100);
            let edge = if edge == "end" { Edge::End } else { Edge::Start };
            let here = memory.place(&[1.0f32; 3], edge).as_ptr();
            let beside =
                if edge == Edge::End { here.wrapping_add(3) } else { here.wrapping_sub(1) };
            // SAFETY: there is none. This is what must not survive.
            println!("survived {}", unsafe { beside.read_volatile() });
        }
        Err(_) => {
            for edge in ["end", "start"] {
                let program = std::env::current_exe().unwrap();
                let mut child = std::process::Command::new(program);
                child.args(["--exact", test, "--nocapture"]).env("MHA_TOO_FAR", edge);
                let output = child.output().unwrap();
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(!output.status.success() && !said.contains("survived"), "{edge}: {said}");
            }
        }
    }
}
