//! The edges of the softmax and of what may be seen, one by one, on numbers that can be followed by
//! hand. Every kernel must agree.

mod support;

use mha::{
    Attention, Broadcast, Causal, Config, Dims, Inputs, Isa, Mask, MultiHeadAttention, Options,
    Outputs, Rules, Shape, Weights, Window, dot_product_attention, reference,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::{bits, floats};

/// One head of width 1 at scale 1: a logit is a query times a key.
const ONE: Attention = Attention::new(1, 1, 1).scale(1.0);

fn attend<R: Rules>(
    isa: Isa,
    attention: Attention,
    shape: Shape,
    inputs: Inputs<'_, R>,
) -> (Vec<f32>, Vec<f32>) {
    let mut y = vec![f32::NAN; shape.batch * shape.q_len * attention.v];
    let mut scores = vec![f32::NAN; attention.scores_len(shape)];
    let mut scratch = vec![f32::NAN; attention.scratch_len(shape)];
    let outputs = Outputs::new(&mut y).scores(&mut scores);
    dot_product_attention(attention, isa, shape, inputs, outputs, &mut scratch).unwrap();
    (y, scores)
}

#[test]
fn a_query_that_sees_nothing_is_zero_beside_one_that_sees_nan() {
    let (shape, mut v) = (Shape::new(1, 2, 20), [1.0; 20]);
    v[3] = f32::NAN;
    let mask: Vec<bool> = (0..40).map(|i| i >= 20).collect();
    let inputs = Inputs::new(&[1.0; 2], &[1.0; 20], &v).mask(Mask::bools(&mask, [1, 1, 2, 20]));
    for isa in Isa::available() {
        let (y, scores) = attend(isa, ONE, shape, inputs);
        assert_eq!(y[0], 0.0, "{}", isa.name());
        assert!(y[1].is_nan());
        assert_eq!(scores[..20], [0.0; 20]);
    }
}

#[test]
fn nan_beside_plus_infinity_shows() {
    let bias = [f32::INFINITY, f32::NAN, 0.0];
    let inputs =
        Inputs::new(&[1.0], &[1.0; 3], &[1.0; 3]).bias(Broadcast::new(&bias, [1, 1, 1, 3]));
    for isa in Isa::available() {
        let (y, _) = attend(isa, ONE, Shape::new(1, 1, 3), inputs);
        assert!(y[0].is_nan(), "{}: {y:?}", isa.name());
    }
}

#[test]
fn a_large_finite_bias_is_not_infinite() {
    for (bias, k, expected) in [
        // Too large in units of log2, and still below +∞.
        ([f32::INFINITY, 3e38], [0.0, 0.0], [1.0, 0.0]),
        // Too low either way: as low as a logit can be, and visible.
        ([f32::MIN, f32::MIN], [0.0, -2e38], [0.5, 0.5]),
        ([f32::MIN, f32::NEG_INFINITY], [0.0, 0.0], [1.0, 0.0]),
    ] {
        let inputs = Inputs::new(&[1.0], &k, &[1.0; 2]).bias(Broadcast::new(&bias, [1, 1, 1, 2]));
        for isa in Isa::available() {
            let (_, scores) = attend(isa, ONE, Shape::new(1, 1, 2), inputs);
            assert_eq!(scores, expected, "{bias:?} on {}", isa.name());
        }
    }
}

#[test]
fn a_mask_that_excludes_holds_for_all_keys_at_once() {
    let mask = Mask::bools(&[true, false], [1, 1, 2, 1]).excluding();
    let inputs = Inputs::new(&[1.0; 2], &[1.0; 4], &[3.0; 4]).mask(mask);
    for isa in Isa::available() {
        let (y, scores) = attend(isa, ONE, Shape::new(1, 2, 4), inputs);
        assert_eq!(y, [0.0, 3.0], "{}", isa.name());
        assert_eq!(scores, [0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25]);
    }
}

/// The window begins inside a block; what lies before it in the block may be anything.
#[test]
fn a_window_has_its_keys_and_no_others() {
    const KEYS: usize = 40;
    for (position, left) in [(20, 3), (20, 0), (0, 3), (35, 19), (39, 7)] {
        let first = usize::saturating_sub(position, left);
        let count = position + 1 - first;
        let sees = |j: usize| (first..=position).contains(&j);
        let v: Vec<f32> = (0..KEYS).map(|j| if sees(j) { 2.0 } else { f32::NAN }).collect();
        let options = Options::new().window(Window::left(left));
        let inputs = Inputs::new(&[0.0], &[1.0; KEYS], &v)
            .causal_from(Causal::Offset(position as isize))
            .options(&options);
        for isa in Isa::available() {
            let (y, scores) = attend(isa, ONE, Shape::new(1, 1, KEYS), inputs);
            assert!((y[0] - 2.0).abs() < 1e-6, "{position}, {left}: {y:?}");
            for (j, score) in scores.iter().enumerate() {
                let expected = if sees(j) { 1.0 / count as f32 } else { 0.0 };
                assert!((score - expected).abs() < 1e-6, "{position}, {left}: {j} has {score}");
            }
        }
    }
}

/// A maximum that leaps by more than a float's exponents, in two steps that do not: taken at once,
/// the early keys would be gone before their values, large enough to show, were weighed.
#[test]
fn two_steps_of_the_maximum_are_not_taken_as_one() {
    let config = Config::new(Dims::square(1)).heads(1).scale(core::f32::consts::LN_2);
    let shape = Shape::new(1, 1, 128);
    let at = |early: f32, step: f32, late: f32| -> Vec<f32> {
        (0..128).map(|j| [early, early, early, early, step, late, late, late][j / 16]).collect()
    };
    let (k, v) = (at(-129.0, -59.0, 0.0), at(1e30, 0.0, 0.0));
    let inputs = Inputs::new(&[1.0], &k, &v);
    let weights = Weights::new(&[1.0], &[1.0], &[1.0], &[1.0]);
    let textbook = {
        let layer = MultiHeadAttention::with_isa(config, weights, Isa::PORTABLE).unwrap();
        let mut workspace = vec![0.0; reference::workspace_len(&layer, shape)];
        let mut y = [f32::NAN];
        reference::forward(&layer, shape, inputs, Outputs::new(&mut y), &mut workspace).unwrap();
        y[0]
    };
    assert!(textbook > 0.0);
    for isa in Isa::available() {
        let layer = MultiHeadAttention::with_isa(config, weights, isa).unwrap();
        for len in [config.scratch_len(shape), config.min_scratch_len(shape)] {
            let (mut y, mut scratch) = ([f32::NAN], vec![0.0; len]);
            layer.forward(shape, inputs, Outputs::new(&mut y), &mut scratch).unwrap();
            assert!((y[0] / textbook - 1.0).abs() < 1e-4, "{}: {y:?}, {textbook}", isa.name());
        }
    }
}

/// A group's key/value head stands for as many as the group has.
#[test]
fn shared_heads_equal_repeated_ones() {
    const D: usize = 3;
    const D_V: usize = 2;
    for (heads, kv_heads) in [(4, 2), (6, 2), (6, 3), (5, 1), (3, 3)] {
        let rng = &mut StdRng::seed_from_u64(heads as u64);
        let shape = Shape::new(2, 5, 9);
        let inputs = (4, 5, 3);
        let config = Config::new(Dims::new(inputs, (heads * D, heads * D_V), 4)).heads(heads);
        let grouped = config.kv_heads(kv_heads);
        let repeat = |x: &[f32], d: usize| -> Vec<f32> {
            let kv_head = |h: usize| h / (heads / kv_heads);
            x.chunks(kv_heads * d)
                .flat_map(|row| (0..heads * d).map(move |i| row[kv_head(i / d) * d + i % d]))
                .collect()
        };
        let (wq, wo) = (floats(rng, config.wq_len(), 1.0), floats(rng, config.wo_len(), 1.0));
        let (wk, wv) = (floats(rng, grouped.wk_len(), 1.0), floats(rng, grouped.wv_len(), 1.0));
        let (q, k) = (floats(rng, 10 * inputs.0, 1.0), floats(rng, 18 * inputs.1, 1.0));
        let v = floats(rng, 18 * inputs.2, 1.0);
        let forward = |config: Config, wk: &[f32], wv: &[f32]| {
            let layer = MultiHeadAttention::new(config, Weights::new(&wq, wk, wv, &wo)).unwrap();
            let mut y = vec![f32::NAN; config.y_len(shape)];
            let mut scratch = vec![f32::NAN; config.scratch_len(shape)];
            let outputs = Outputs::new(&mut y);
            layer.forward(shape, Inputs::new(&q, &k, &v), outputs, &mut scratch).unwrap();
            y
        };
        let expected = forward(config, &repeat(&wk, D), &repeat(&wv, D_V));
        assert_eq!(bits(&forward(grouped, &wk, &wv)), bits(&expected), "{heads} on {kv_heads}");

        // And without projections.
        let (q, k) = (floats(rng, 10 * heads * D, 1.0), floats(rng, 18 * kv_heads * D, 1.0));
        let v = floats(rng, 18 * kv_heads * D_V, 1.0);
        let (all_k, all_v) = (repeat(&k, D), repeat(&v, D_V));
        let isa = Isa::detect();
        let got = attend(isa, grouped.attention, shape, Inputs::new(&q, &k, &v));
        let expected = attend(isa, config.attention, shape, Inputs::new(&q, &all_k, &all_v));
        assert_eq!((bits(&got.0), bits(&got.1)), (bits(&expected.0), bits(&expected.1)));
    }
}
