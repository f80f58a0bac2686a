//! What must hold for every layer, whatever its numbers.

mod support;

use mha::{
    Config, Dims, Inputs, Isa, Mask, MultiHeadAttention, Outputs, ScoresAt, Shape, WeightOrder,
    Weights,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use support::{Call, bits, floats};

const CALLS: u64 = 300;

fn forward(call: &Call, inputs: Inputs<'_>, at: ScoresAt) -> (Vec<f32>, Vec<f32>) {
    forward_on(Isa::detect(), call, inputs, at)
}

fn forward_on(isa: Isa, call: &Call, inputs: Inputs<'_>, at: ScoresAt) -> (Vec<f32>, Vec<f32>) {
    let layer = MultiHeadAttention::with_isa(call.config, call.weights(), isa).unwrap();
    let mut y = vec![f32::NAN; call.config.y_len(call.shape)];
    let mut scores = vec![f32::NAN; call.config.scores_len(call.shape)];
    let mut scratch = vec![f32::NAN; call.config.scratch_len(call.shape)];
    let outputs = Outputs::new(&mut y).scores(&mut scores).scores_at(at);
    layer.forward(call.shape, inputs, outputs, &mut scratch).unwrap();
    (y, scores)
}

/// A random call without what ties keys to their places.
fn plain(seed: u64) -> Call {
    let mut call = Call::random(seed);
    (call.bias, call.mask, call.causal, call.dropout) = (None, None, None, None);
    call
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], bound: f32, what: &str) {
    let size = expected.iter().fold(1.0f32, |size, x| size.max(x.abs()));
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= bound * size, "{what}: {g} for {e}");
    }
}

#[test]
fn permuting_keys_and_values_together_changes_nothing() {
    for seed in 0..CALLS {
        let call = plain(seed);
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..call.shape.kv_len).collect();
        order.shuffle(rng);
        let permute = |x: &[f32], width: usize| -> Vec<f32> {
            x.chunks((call.shape.kv_len * width).max(1))
                .flat_map(|item| {
                    order.iter().flat_map(move |&j| item[j * width..][..width].to_vec())
                })
                .collect()
        };
        let mut permuted = call.clone();
        permuted.k = permute(&call.k, call.config.dims.k_in);
        permuted.v = permute(&call.v, call.config.dims.v_in);
        let (y, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        let (other, _) = forward(&permuted, permuted.inputs(), ScoresAt::Softmax);
        assert_close(&other, &y, 1e-5, &format!("call {seed}"));
    }
}

#[test]
fn a_causal_prefix_does_not_know_the_future() {
    for seed in 0..CALLS {
        let mut call = plain(seed);
        call.causal = Some(0);
        call.shape.kv_len = call.shape.q_len.max(2);
        call.shape.q_len = call.shape.kv_len;
        call.shape.batch = 1;
        let rng = &mut StdRng::seed_from_u64(seed);
        let Dims { q_in, k_in, v_in, out, .. } = call.config.dims;
        let len = call.shape.q_len;
        (call.q, call.k, call.v) = (
            floats(rng, len * q_in, 1.0),
            floats(rng, len * k_in, 1.0),
            floats(rng, len * v_in, 1.0),
        );
        let (y, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        let cut = rng.random_range(0..len);
        // NaN in the future must not show either.
        call.k[cut * k_in..].fill(f32::NAN);
        call.q[cut * q_in..].fill(7.0);
        let (past, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        assert_eq!(bits(&past[..cut * out]), bits(&y[..cut * out]), "call {seed}");
    }
}

#[test]
fn sequences_of_a_batch_are_independent() {
    for seed in 0..CALLS {
        let mut call = plain(seed);
        let Dims { q_in, k_in, v_in, out, .. } = call.config.dims;
        let Shape { batch, q_len, kv_len } = call.shape;
        let (y, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        let all = (call.q.clone(), call.k.clone(), call.v.clone());
        for b in 0..batch {
            let part = |x: &[f32], width: usize| x[b * width..][..width].to_vec();
            (call.q, call.k, call.v) = (
                part(&all.0, q_len * q_in),
                part(&all.1, kv_len * k_in),
                part(&all.2, kv_len * v_in),
            );
            call.shape.batch = 1;
            let (one, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
            assert_eq!(bits(&one), bits(&y[b * q_len * out..][..q_len * out]), "call {seed}");
        }
    }
}

#[test]
fn the_order_of_the_weights_in_memory_does_not_matter() {
    for seed in 0..CALLS {
        let call = Call::random(seed);
        let Dims { q_in, k_in, v_in, qk, v, out } = call.config.dims;
        let (order, in_out) = match call.config.weight_order {
            WeightOrder::InOut => (WeightOrder::OutIn, true),
            WeightOrder::OutIn => (WeightOrder::InOut, false),
        };
        let mut other = call.clone();
        other.config = call.config.weight_order(order);
        for (w, (inputs, outputs)) in
            other.w.iter_mut().zip([(q_in, qk), (k_in, qk), (v_in, v), (v, out)])
        {
            let (rows, columns) = if in_out { (inputs, outputs) } else { (outputs, inputs) };
            *w = (0..rows * columns).map(|at| w[at % rows * columns + at / rows]).collect();
        }
        for isa in Isa::available() {
            let (y, scores) = forward_on(isa, &call, call.inputs(), ScoresAt::Softmax);
            let (other_y, other_scores) =
                forward_on(isa, &other, other.inputs(), ScoresAt::Softmax);
            assert_eq!(bits(&other_y), bits(&y), "call {seed}");
            assert_eq!(bits(&other_scores), bits(&scores), "call {seed}");
        }
    }
}

#[test]
fn the_scores_of_a_row_sum_to_one_or_are_all_zero() {
    let mut empty = 0;
    for seed in 0..CALLS {
        let mut call = Call::random(seed);
        call.dropout = None;
        let (y, scores) = forward(&call, call.inputs(), ScoresAt::Softmax);
        assert!(y.iter().chain(&scores).all(|x| x.is_finite()));
        for row in scores.chunks(call.shape.kv_len.max(1)) {
            let sum: f64 = row.iter().map(|&s| f64::from(s)).sum();
            assert!(row.iter().all(|&s| (0.0..=1.0 + 1e-6).contains(&s)));
            assert!(
                (sum - 1.0).abs() < 1e-5 || row.iter().all(|&s| s == 0.0),
                "call {seed}: {sum}"
            );
            empty += usize::from(sum == 0.0);
        }
    }
    assert!(empty > 0, "no row without a visible key was met");
}

#[test]
fn a_query_without_a_visible_key_gives_the_output_bias() {
    for seed in 0..CALLS {
        let mut call = plain(seed);
        let Shape { batch, q_len, kv_len } = call.shape;
        call.b[3] = Some(floats(&mut StdRng::seed_from_u64(seed), call.config.dims.out, 1.0));
        call.mask = Some((vec![false; batch * q_len], [batch, 1, q_len, 1]));
        // Nobody sees the keys, so they may be anything.
        call.k.fill(f32::NAN);
        call.v.fill(f32::INFINITY);
        let (y, scores) = forward(&call, call.inputs(), ScoresAt::Softmax);
        for row in y.chunks(call.config.dims.out) {
            assert_eq!(row, call.b[3].as_ref().unwrap(), "call {seed}");
        }
        assert!(scores.iter().all(|&s| s == 0.0));
        assert_eq!(scores.len(), batch * call.config.attention.heads * q_len * kv_len);
    }
}

#[test]
fn keys_that_nobody_may_see_never_influence_anything() {
    for seed in 0..CALLS {
        let mut call = Call::random(seed);
        call.shape.batch = 1;
        call.shape.kv_len = call.shape.kv_len.max(2);
        let Shape { q_len, kv_len, .. } = call.shape;
        let Dims { q_in, k_in, v_in, .. } = call.config.dims;
        let rng = &mut StdRng::seed_from_u64(seed);
        (call.q, call.k, call.v) = (
            floats(rng, q_len * q_in, 1.0),
            floats(rng, kv_len * k_in, 1.0),
            floats(rng, kv_len * v_in, 1.0),
        );
        call.bias = None;
        let hidden: Vec<bool> = (0..kv_len).map(|_| rng.random_bool(0.4)).collect();
        call.mask = Some((hidden.iter().map(|h| !h).collect(), [1, 1, 1, kv_len]));
        let (y, scores) = forward(&call, call.inputs(), ScoresAt::Softmax);
        for (j, _) in hidden.iter().enumerate().filter(|(_, hidden)| **hidden) {
            let poison = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38][j % 4];
            call.k[j * k_in..][..k_in].fill(poison);
            call.v[j * v_in..][..v_in].fill(poison);
        }
        let (other, other_scores) = forward(&call, call.inputs(), ScoresAt::Softmax);
        assert_eq!(bits(&other), bits(&y), "call {seed}");
        assert_eq!(bits(&other_scores), bits(&scores), "call {seed}");
    }
}

#[test]
fn nan_in_a_query_reaches_its_own_row_only() {
    for seed in 0..CALLS {
        let mut call = plain(seed);
        if call.q.is_empty() || call.shape.kv_len == 0 {
            continue;
        }
        let (y, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        let Dims { q_in, out, .. } = call.config.dims;
        let row = seed as usize % (call.q.len() / q_in);
        call.q[row * q_in] = f32::NAN;
        let (other, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        for (i, (row_y, row_other)) in y.chunks(out).zip(other.chunks(out)).enumerate() {
            if i == row {
                assert!(row_other.iter().all(|x| x.is_nan()), "call {seed}");
            } else {
                assert_eq!(bits(row_other), bits(row_y), "call {seed}");
            }
        }
    }
}

#[test]
fn scaling_laws_hold() {
    for seed in 0..CALLS {
        let mut call = Call::random(seed);
        call.b[2] = None;
        call.b[3] = None;
        let (y, scores) = forward(&call, call.inputs(), ScoresAt::Softmax);
        // Values twice as large: y twice as large, bit for bit.
        let mut twice = call.clone();
        twice.v.iter_mut().for_each(|v| *v *= 2.0);
        let (doubled, same) = forward(&twice, twice.inputs(), ScoresAt::Softmax);
        let expected: Vec<f32> = y.iter().map(|y| y * 2.0).collect();
        assert_eq!(bits(&doubled), bits(&expected), "call {seed}");
        assert_eq!(bits(&same), bits(&scores));
        // Queries twice as large at half the scale: the same logits.
        let d = call.config.dims.qk / call.config.attention.heads;
        let scale = call.config.attention.scale.unwrap_or(1.0 / (d as f32).sqrt());
        call.config = call.config.scale(scale);
        let (y, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        call.config = call.config.scale(scale / 2.0);
        call.q.iter_mut().for_each(|q| *q *= 2.0);
        if let Some(bq) = &mut call.b[0] {
            bq.iter_mut().for_each(|b| *b *= 2.0);
        }
        let (same, _) = forward(&call, call.inputs(), ScoresAt::Softmax);
        assert_eq!(bits(&same), bits(&y), "call {seed}");
    }
}

#[test]
fn a_scale_of_zero_counts_every_visible_key_alike() {
    let mut call = plain(11);
    call.config = call.config.scale(0.0);
    call.shape = Shape::new(1, 1, 5);
    let Dims { q_in, k_in, v_in, .. } = call.config.dims;
    (call.q, call.k, call.v) = (vec![3.0; q_in], vec![2.0; 5 * k_in], vec![1.0; 5 * v_in]);
    let mask = [true, false, true, true, true];
    let inputs = call.inputs().mask(Mask::bools(&mask, [1, 1, 1, 5]));
    let (_, scores) = forward(&call, inputs, ScoresAt::Softmax);
    for row in scores.chunks(5) {
        assert_eq!(row, [0.25, 0.0, 0.25, 0.25, 0.25]);
    }
}

#[test]
fn keys_at_plus_infinity_share_the_row() {
    let bias = [f32::INFINITY, 1.0, f32::INFINITY, 2.0];
    let eye = [1.0];
    let config = Config::new(Dims::square(1)).heads(1);
    let layer = MultiHeadAttention::new(config, Weights::new(&eye, &eye, &eye, &eye)).unwrap();
    let shape = Shape::new(1, 1, 4);
    let (mut y, mut scores, mut scratch) = ([0.0], [0.0; 4], vec![0.0; config.scratch_len(shape)]);
    let values = [1.0, 10.0, 3.0, 10.0];
    let inputs =
        Inputs::new(&eye, &[0.5; 4], &values).bias(mha::Broadcast::new(&bias, [1, 1, 1, 4]));
    let outputs = Outputs::new(&mut y).scores(&mut scores);
    layer.forward(shape, inputs, outputs, &mut scratch).unwrap();
    assert_eq!(scores, [0.5, 0.0, 0.5, 0.0]);
    assert_eq!(y, [2.0]);
}

#[test]
fn scores_of_earlier_stages_lead_to_the_later_ones() {
    for seed in 0..CALLS {
        let mut call = Call::random(seed);
        call.dropout = None;
        let (y, scores) = forward(&call, call.inputs(), ScoresAt::Softmax);
        let (y_logits, logits) = forward(&call, call.inputs(), ScoresAt::Logits);
        let (y_masked, masked) = forward(&call, call.inputs(), ScoresAt::Masked);
        assert_eq!(bits(&y), bits(&y_logits), "call {seed}");
        assert_eq!(bits(&y), bits(&y_masked), "call {seed}");
        let Shape { q_len, kv_len, .. } = call.shape;
        let heads = call.config.attention.heads;
        for (row, masked) in masked.chunks(kv_len.max(1)).enumerate() {
            let m = masked.iter().fold(f64::NEG_INFINITY, |m, &l| m.max(f64::from(l)));
            let total: f64 = masked.iter().map(|&l| (f64::from(l) - m).exp()).sum();
            for (j, &l) in masked.iter().enumerate() {
                let at = row * kv_len + j;
                let (b, h, i) = (row / q_len / heads, row / q_len % heads, row % q_len);
                match call.sees(b, h, i, j) {
                    None => assert_eq!((l, scores[at]), (f32::NEG_INFINITY, 0.0)),
                    Some(bias) => {
                        let sum = f64::from(logits[at]) + bias;
                        assert!(
                            (sum - f64::from(l)).abs() <= 1e-6 * (1.0 + sum.abs() + bias.abs())
                        );
                        let p = (f64::from(l) - m).exp() / total;
                        let near = 3e-6 * (1.0 + m.abs() / 8.0);
                        assert!((p - f64::from(scores[at])).abs() < near, "call {seed}");
                    }
                }
            }
        }
    }
}
