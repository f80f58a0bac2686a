//! This driver against the other one, whose bits the tests of the crate compare with the reference.

use std::vec;
use std::vec::Vec;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Call, dot_product, forward};
use crate::{Config, Isa, MultiHeadAttention, Outputs, ScoresAt, dot_product_attention};

#[path = "../../tests/support/mod.rs"]
mod support;

/// Where scores are taken, if they are.
const STAGES: [Option<ScoresAt>; 4] =
    [None, Some(ScoresAt::Softmax), Some(ScoresAt::Masked), Some(ScoresAt::Logits)];

/// NaN wherever nothing is written.
fn outputs(config: &Config, call: &support::Call, stage: Option<ScoresAt>) -> [Vec<f32>; 2] {
    let scores = stage.map_or(0, |_| config.scores_len(call.shape));
    [vec![f32::NAN; config.y_len(call.shape)], vec![f32::NAN; scores]]
}

fn given<'a>([y, scores]: &'a mut [Vec<f32>; 2], stage: Option<ScoresAt>) -> Outputs<'a> {
    match stage {
        Some(at) => Outputs::new(y).scores(scores).scores_at(at),
        None => Outputs::new(y),
    }
}

/// Calls of all kinds, those around the edges of tiles among them.
fn calls() -> impl Iterator<Item = (u64, support::Call)> {
    (0..if cfg!(miri) { 4 } else { 400 }).map(|seed| {
        (
            seed,
            if seed % 2 == 0 {
                support::Call::random(seed)
            } else {
                support::Call::around_tiles(seed)
            },
        )
    })
}

#[test]
fn layers_have_the_bits_of_the_other_driver_in_every_scratch() {
    for (seed, call) in calls() {
        let (config, shape) = (&call.config, call.shape);
        let layer = MultiHeadAttention::with_isa(*config, call.weights(), Isa::PORTABLE).unwrap();
        let stage = STAGES[seed as usize / 2 % STAGES.len()];
        let mut expected = outputs(config, &call, stage);
        let most = config.scratch_len(shape);
        let results = given(&mut expected, stage);
        layer.forward(shape, call.inputs(), results, &mut vec![f32::NAN; most]).unwrap();

        let least = config.min_scratch_len(shape);
        let a_row = config.attention.head_qk() + config.attention.head_v() + super::ROW;
        let rng = &mut StdRng::seed_from_u64(seed);
        for len in
            [least, least + 3 * a_row, least + 7 * a_row, rng.random_range(least..=2 * least + 999)]
        {
            let mut got = outputs(config, &call, stage);
            let (weights, inputs) = (&call.weights(), &call.inputs());
            let here = Call { config, weights, shape, inputs };
            let mut results = given(&mut got, stage);
            forward(&here, 0..shape.queries(), &mut results, &mut vec![f32::NAN; len]).unwrap();
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!(
                    support::bits(got),
                    support::bits(expected),
                    "call {seed}, {len}, {stage:?}"
                );
            }
        }
    }
}

#[test]
fn attention_alone_has_the_bits_of_the_other_driver() {
    for (seed, mut call) in calls() {
        let (attention, shape) = (call.config.attention, call.shape);
        let rng = &mut StdRng::seed_from_u64(seed);
        call.q = support::floats(rng, shape.queries() * attention.qk, 2.0);
        call.k = support::floats(rng, shape.keys() * attention.key_features(), 2.0);
        call.v = support::floats(rng, shape.keys() * attention.value_features(), 2.0);
        let mut expected = vec![f32::NAN; shape.queries() * attention.v];
        let mut got = expected.clone();
        let mut scratch = vec![f32::NAN; attention.scratch_len(shape)];
        let results = Outputs::new(&mut expected);
        let isa = Isa::PORTABLE;
        dot_product_attention(attention, isa, shape, call.inputs(), results, &mut scratch).unwrap();
        for len in [attention.min_scratch_len(), 2 * attention.min_scratch_len() + 999] {
            got.fill(f32::NAN);
            let (mut scratch, mut results) = (vec![f32::NAN; len], Outputs::new(&mut got));
            dot_product(&attention, shape, &call.inputs(), &mut results, &mut scratch).unwrap();
            assert_eq!(support::bits(&got), support::bits(&expected), "call {seed}, {len}");
        }
    }
}
