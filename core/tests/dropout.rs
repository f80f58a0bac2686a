//! Whether dropout decides as if by chance: how often, whether one decision tells about another, and what
//! the mean of many calls comes to.

use mha::{Attention, Dropout, Inputs, Isa, Outputs, Shape};

const ATTENTION: Attention = Attention::new(4, 4, 4);

/// The decisions of one call, `[batch, heads, q_len, kv_len]`: with the same logit everywhere, what became
/// of a score tells.
fn decisions(shape: Shape, p: f32, seed: u64) -> Vec<bool> {
    let (q, k) =
        (vec![0.0; shape.batch * shape.q_len * 4], vec![0.0; shape.batch * shape.kv_len * 4]);
    let mut scores = vec![0.0; ATTENTION.scores_len(shape)];
    let mut scratch = vec![0.0; ATTENTION.scratch_len(shape)];
    let inputs = Inputs::new(&q, &k, &k).dropout(Dropout::new(p, seed));
    let isa = Isa::detect();
    mha::dot_product_attention_scores(ATTENTION, isa, shape, inputs, &mut scores, &mut scratch)
        .unwrap();
    scores.iter().map(|&score| score == 0.0).collect()
}

/// Standard deviations that a count of `successes` in `trials` is off its expectation.
fn deviations(successes: usize, trials: usize, p: f64) -> f64 {
    let n = trials as f64;
    (successes as f64 - n * p) / (n * p * (1.0 - p)).sqrt()
}

#[test]
fn as_many_are_dropped_as_should_be_in_every_slice() {
    let shape = Shape::new(4, 64, 64);
    for (p, seed) in [(0.1, 1), (0.25, 2), (0.5, 3), (0.9, 4), (0.5, u64::MAX)] {
        let all = decisions(shape, p, seed);
        let p = f64::from(p);
        let whole = deviations(all.iter().filter(|d| **d).count(), all.len(), p);
        assert!(whole.abs() < 4.0, "p {p}: {whole:.1} deviations");
        // The same along each axis: batch, heads, queries, keys. The sum of squared deviations of n slices
        // has the chi-square distribution, of mean n and variance 2n.
        let sizes = [4, 4, 64, 64];
        for (axis, &size) in sizes.iter().enumerate() {
            let stride: usize = sizes[axis + 1..].iter().product();
            let mut dropped = vec![0; size];
            for (at, _) in all.iter().enumerate().filter(|(_, d)| **d) {
                dropped[at / stride % size] += 1;
            }
            let chi: f64 =
                dropped.iter().map(|&n| deviations(n, all.len() / size, p).powi(2)).sum();
            let off = (chi - size as f64) / (2.0 * size as f64).sqrt();
            assert!(off.abs() < 5.0, "p {p}, axis {axis}: chi-square {chi:.1} of {size}");
        }
    }
}

#[test]
fn one_decision_says_nothing_about_another() {
    let shape = Shape::new(4, 64, 64);
    let first = decisions(shape, 0.5, 77);
    let agree = |a: &[bool], b: &[bool]| {
        let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
        deviations(same, a.len().min(b.len()), 0.5)
    };
    // The neighbour along each axis, the words of one draw of the generator and of the next, other seeds.
    let strides = [1, 2, 3, 4, 5, 64, 128, 64 * 64, 2 * 64 * 64, 4 * 64 * 64];
    for stride in strides {
        let off = agree(&first, &first[stride..]);
        assert!(off.abs() < 4.5, "{stride} apart: {off:.1} deviations");
    }
    for seed in [78, 77 ^ 1 << 31, 77 ^ 1 << 32, 77 ^ 1 << 63, 0] {
        let off = agree(&first, &decisions(shape, 0.5, seed));
        assert!(off.abs() < 4.5, "seed {seed}: {off:.1} deviations");
    }
}

#[test]
fn the_mean_of_many_calls_approaches_the_plain_one_at_the_right_rate() {
    let shape = Shape::new(1, 8, 40);
    let numbers = |len: usize, by: usize| -> Vec<f32> {
        (0..len).map(|i| ((i * by + 11) % 101) as f32 / 50.0 - 1.0).collect()
    };
    let (q, k, v) = (numbers(8 * 4, 37), numbers(40 * 4, 53), numbers(40 * 4, 29));
    let mut scratch = vec![0.0; ATTENTION.scratch_len(shape)];
    let mut run = |inputs: Inputs<'_>| {
        let mut y = vec![0.0; 8 * 4];
        let outputs = Outputs::new(&mut y);
        mha::dot_product_attention(ATTENTION, Isa::detect(), shape, inputs, outputs, &mut scratch)
            .unwrap();
        y
    };
    let plain = run(Inputs::new(&q, &k, &v));
    let mut sum = vec![0.0f64; plain.len()];
    let mut errors = Vec::new();
    for call in 1..=6400u64 {
        let y = run(Inputs::new(&q, &k, &v).dropout(Dropout::new(0.4, call)));
        sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += f64::from(y));
        if call == 100 || call == 6400 {
            let off = sum.iter().zip(&plain).map(|(sum, y)| sum / call as f64 - f64::from(*y));
            errors.push((off.map(|e| e * e).sum::<f64>() / plain.len() as f64).sqrt());
        }
    }
    // Sixty-four times as many calls, an eighth of the error, give or take what 32 numbers leave open.
    let ratio = errors[0] / errors[1];
    assert!((4.0..16.0).contains(&ratio), "{errors:?}: {ratio:.1}");
}
