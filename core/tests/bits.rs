//! Bits are a property of the layer: every kernel, tiling, range and thread of a family agrees, and
//! the unfused family agrees with the textbook.

mod support;

use mha::{Isa, MultiHeadAttention, Outputs, reference};
use support::{Call, bits};

const CALLS: u64 = 1500;

struct Result {
    y: Vec<f32>,
    scores: Vec<f32>,
}

fn run(call: &Call, isa: Isa, scratch_len: usize, with_scores: bool) -> Result {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), isa).unwrap();
    let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
    let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
    let mut scratch = vec![f32::NAN; scratch_len];
    let mut outputs = Outputs::new(&mut y);
    if with_scores {
        outputs = outputs.scores(&mut scores);
    }
    layer.forward(call.shape, call.inputs(), outputs, &mut scratch).unwrap();
    Result { y, scores }
}

fn textbook(call: &Call) -> Result {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), Isa::PORTABLE).unwrap();
    let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
    let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
    let mut workspace = vec![f32::NAN; reference::workspace_len(&layer, call.shape)];
    let outputs = Outputs::new(&mut y).scores(&mut scores);
    reference::forward(&layer, call.shape, call.inputs(), outputs, &mut workspace).unwrap();
    Result { y, scores }
}

#[test]
fn every_kernel_and_every_scratch_gives_the_bits_of_its_family() {
    for seed in 0..CALLS {
        let call = Call::random(seed);
        let (most, least) =
            (call.config.scratch_len(call.shape), call.config.min_scratch_len(call.shape));
        let mut fused: Option<Result> = None;
        for isa in Isa::available() {
            let expected = if isa.is_fused() {
                fused.get_or_insert_with(|| run(&call, isa, most, true))
            } else {
                &textbook(&call)
            };
            for len in [most, least, (most + 3 * least) / 4, least + 40] {
                for with_scores in [false, true] {
                    let got = run(&call, isa, len, with_scores);
                    let name = isa.name();
                    assert_eq!(
                        bits(&got.y),
                        bits(&expected.y),
                        "y of call {seed} on {name}, {len}"
                    );
                    if with_scores {
                        let (got, expected) = (bits(&got.scores), bits(&expected.scores));
                        assert_eq!(got, expected, "scores of call {seed} on {name}, {len}");
                    }
                }
            }
        }
    }
}

/// A plan that takes one float more than there is would leave a part of the scratch out.
#[test]
fn every_length_of_scratch_gives_the_same_bits() {
    let mut calls = 0;
    for seed in 0.. {
        let call = Call::random(seed);
        let (most, least) =
            (call.config.scratch_len(call.shape), call.config.min_scratch_len(call.shape));
        let rows = call.shape.batch * call.shape.q_len;
        if rows < 5 || call.shape.kv_len < 5 || most > 3000 {
            continue;
        }
        let expected = run(&call, Isa::detect(), most, true);
        for len in least..most {
            let got = run(&call, Isa::detect(), len, true);
            assert_eq!(bits(&got.y), bits(&expected.y), "y of call {seed} in {len}");
            assert_eq!(bits(&got.scores), bits(&expected.scores), "scores of call {seed} in {len}");
        }
        calls += 1;
        if calls == 5 {
            break;
        }
    }
}

#[test]
fn threads_that_share_a_call_give_the_bits_of_one() {
    for seed in 0..300 {
        let call = Call::random(seed);
        let rows = call.shape.batch * call.shape.q_len;
        let layer = MultiHeadAttention::new(call.config, call.weights()).unwrap();
        let whole = run(&call, layer.isa(), call.config.scratch_len(call.shape), false);
        let mut y = vec![f32::NAN; whole.y.len()];
        let cut = rows * 2 / 3;
        let (first, second) = y.split_at_mut(cut * call.config.dims.out);
        std::thread::scope(|scope| {
            for (rows, y) in [(0..cut, first), (cut..rows, second)] {
                let (call, layer) = (&call, &layer);
                scope.spawn(move || {
                    let mut scratch = vec![0.0; call.config.scratch_len(call.shape)];
                    layer
                        .forward_rows(
                            call.shape,
                            rows,
                            call.inputs(),
                            Outputs::new(y),
                            &mut scratch,
                        )
                        .unwrap();
                });
            }
        });
        assert_eq!(bits(&y), bits(&whole.y), "call {seed}");
    }
}
