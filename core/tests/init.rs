//! The initialisers draw from the distributions that Flux documents.

use mha::init::{
    SplitMix, glorot_normal, glorot_uniform, identity, kaiming_normal, kaiming_uniform, ones,
    orthogonal, truncated_normal, zeros,
};
use rand_core::{Rng, SeedableRng, TryRng};

const N: usize = 200_000;

fn drawn(fill: impl FnOnce(&mut [f32], &mut SplitMix)) -> Vec<f32> {
    let mut weight = vec![f32::NAN; N];
    fill(&mut weight, &mut SplitMix::seed_from_u64(42));
    weight
}

/// Mean and standard deviation, each of which must be within five standard errors.
#[track_caller]
fn assert_moments(weight: &[f32], mean: f64, deviation: f64) {
    let n = weight.len() as f64;
    let got = weight.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
    let square = weight.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / n;
    assert!((got - mean).abs() < 5.0 * deviation / n.sqrt(), "mean {got}");
    assert!(
        (square.sqrt() / deviation - 1.0).abs() < 5.0 / n.sqrt(),
        "deviation {}",
        square.sqrt()
    );
}

/// Kolmogorov and Smirnov's distance to a distribution function; 1.95/√n is exceeded once in a
/// thousand times.
#[track_caller]
fn assert_distribution(weight: &[f32], cdf: impl Fn(f64) -> f64) {
    let mut sorted = weight.to_vec();
    sorted.sort_by(f32::total_cmp);
    let n = sorted.len() as f64;
    let distance = sorted
        .iter()
        .enumerate()
        .map(|(i, &w)| ((i as f64 + 0.5) / n - cdf(f64::from(w))).abs())
        .fold(0.0, f64::max);
    assert!(distance < 1.95 / n.sqrt(), "distance {distance}");
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / core::f64::consts::SQRT_2)
}

#[test]
fn uniform_initialisers() {
    for (weight, bound) in [
        (drawn(|w, rng| glorot_uniform(w, 30, 70, rng)), (6.0f64 / 100.0).sqrt()),
        (drawn(|w, rng| kaiming_uniform(w, 30, rng)), (6.0f64 / 30.0).sqrt()),
    ] {
        assert!(weight.iter().all(|&w| f64::from(w).abs() <= bound * 1.000_001));
        assert_moments(&weight, 0.0, bound / 3f64.sqrt());
        assert_distribution(&weight, |x| (x / bound + 1.0) / 2.0);
    }
}

#[test]
fn normal_initialisers() {
    for (weight, deviation) in [
        (drawn(|w, rng| glorot_normal(w, 30, 70, rng)), (2.0f64 / 100.0).sqrt()),
        (drawn(|w, rng| kaiming_normal(w, 30, rng)), (2.0f64 / 30.0).sqrt()),
    ] {
        assert_moments(&weight, 0.0, deviation);
        assert_distribution(&weight, |x| normal_cdf(x / deviation));
    }
}

#[test]
fn truncated_normals_stay_inside_and_keep_their_shape() {
    let weight = drawn(|w, rng| truncated_normal(w, 0.5, 2.0, -1.5, 3.0, rng));
    assert!(weight.iter().all(|w| (-1.5..=3.0).contains(w)));
    let (low, high) = (normal_cdf(-1.0), normal_cdf(1.25));
    assert_distribution(&weight, |x| (normal_cdf((x - 0.5) / 2.0) - low) / (high - low));
    // Nothing to hit: the nearest point.
    let mut weight = [f32::NAN; 4];
    truncated_normal(&mut weight, 0.0, 1.0, 50.0, 60.0, &mut SplitMix::seed_from_u64(1));
    assert_eq!(weight, [50.0; 4]);
}

#[test]
fn fixed_initialisers() {
    let mut weight = [f32::NAN; 6];
    zeros(&mut weight);
    assert_eq!(weight, [0.0; 6]);
    ones(&mut weight);
    assert_eq!(weight, [1.0; 6]);
    identity(&mut weight, 3, 2.0);
    assert_eq!(weight, [2.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    identity(&mut weight, 2, 1.0);
    assert_eq!(weight, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn orthogonal_rows_or_columns() {
    for (rows, columns) in [(8, 8), (5, 32), (32, 5), (1, 7), (7, 1), (40, 41)] {
        let mut weight = vec![f32::NAN; rows * columns];
        orthogonal(&mut weight, columns, 3.0, &mut SplitMix::seed_from_u64(9));
        let at = |i: usize, e: usize| {
            f64::from(if rows <= columns {
                weight[i * columns + e]
            } else {
                weight[e * columns + i]
            })
        };
        let (count, len) = (rows.min(columns), rows.max(columns));
        for i in 0..count {
            for j in 0..=i {
                let dot: f64 = (0..len).map(|e| at(i, e) * at(j, e)).sum();
                let expected = if i == j { 9.0 } else { 0.0 };
                assert!((dot - expected).abs() < 1e-4, "{rows}×{columns}: {i}·{j} = {dot}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let one = drawn(|w, rng| glorot_uniform(w, 8, 8, rng));
    let two = drawn(|w, rng| glorot_uniform(w, 8, 8, rng));
    assert_eq!(one, two);
    assert_ne!(one[..8], one[8..16]);
}

/// Seeds are written into programs, so what they stand for must stay: the outputs that the reference
/// implementation of SplitMix64 gives for seed 0, its high halves, and its bytes from the lowest on.
#[test]
fn the_generator_gives_the_published_numbers() {
    let published = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
    let (mut words, mut halves) = (SplitMix::seed_from_u64(0), SplitMix::from_seed([0; 8]));
    for expected in published {
        assert_eq!(words.next_u64(), expected);
        assert_eq!(u64::from(halves.next_u32()), expected >> 32);
    }
    let mut bytes = [0; 11];
    SplitMix::seed_from_u64(0).fill_bytes(&mut bytes);
    assert_eq!(bytes[..8], 0xe220_a839_7b1d_cdafu64.to_le_bytes());
    assert_eq!(bytes[8..], 0x6e78_9e6a_a1b9_65f4u64.to_le_bytes()[..3]);
}

/// Draws one number for ever.
struct Stuck(u32);

impl TryRng for Stuck {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from(self.0) << 32 | u64::from(self.0))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(self.0 as u8);
        Ok(())
    }
}

/// The rarest draws are still numbers: the logarithm never meets 0.
#[test]
fn the_ends_of_the_generator_give_finite_normals() {
    for end in [0, 1, u32::MAX - 1, u32::MAX] {
        let mut weight = [f32::NAN; 4];
        glorot_normal(&mut weight, 1, 1, &mut Stuck(end));
        assert!(weight.iter().all(|w| w.abs() < 6.0), "{end}: {weight:?}");
    }
}

/// Once through Gram and Schmidt would leave a large square matrix visibly askew.
#[test]
fn large_squares_are_orthogonal_too() {
    const SIDE: usize = 150;
    for seed in 0..8 {
        let mut weight = vec![f32::NAN; SIDE * SIDE];
        orthogonal(&mut weight, SIDE, 1.0, &mut SplitMix::seed_from_u64(seed));
        for i in 0..SIDE {
            for j in 0..i {
                let (a, b) = (&weight[i * SIDE..][..SIDE], &weight[j * SIDE..][..SIDE]);
                let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
                assert!(dot.abs() < 2e-6, "seed {seed}: {i}·{j} = {dot:e}");
            }
        }
    }
}
