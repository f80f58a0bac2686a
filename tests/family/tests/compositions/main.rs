//! Random compositions of everything that a call can ask for, held against the oracle.
//!
//! A failure prints its seed and the smallest composition that still fails; with
//! `COMPOSITION=<seed>` the test runs that one alone.

mod data;
mod run;
mod spec;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mha::Error;

use data::Data;
use run::{expected, library};
use spec::Spec;

/// How many are drawn.
const COUNT: u64 = 4_000;

/// What an element may be off by: absolute, and for its size.
const TOLERANCE: (f64, f64) = (2e-5, 2e-5);

/// How far the worst element is off as a part of what it may be, or what is wrong.
fn check(spec: &Spec) -> Result<f64, String> {
    let run = || {
        let data = Data::of(spec);
        match library(spec, &data) {
            Err(Error::Conflict { .. }) if spec.excluded() => Ok(0.0),
            Err(error) => Err(format!("refused: {error}")),
            Ok(_) if spec.excluded() => Err("not refused".into()),
            Ok(got) => {
                let mut worst = 0.0_f64;
                let expected = expected(spec, &data);
                for ((name, got), expected) in ["y", "scores", "lse"].iter().zip(got).zip(expected)
                {
                    worst = worst.max(compare(&got, &expected).map_err(|e| format!("{name} {e}"))?);
                }
                Ok(worst)
            }
        }
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("panicked".into()))
}

fn compare(got: &[f32], expected: &[f64]) -> Result<f64, String> {
    if got.len() != expected.len() {
        return Err(format!("has {} elements, not {}", got.len(), expected.len()));
    }
    let mut worst = 0.0_f64;
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        if f64::from(got) == expected {
            continue;
        }
        let share =
            (f64::from(got) - expected).abs() / (TOLERANCE.0 + TOLERANCE.1 * expected.abs());
        // What is not a number is no more than 1 either.
        if !matches!(share.partial_cmp(&1.0), Some(core::cmp::Ordering::Less)) {
            return Err(format!("at {i} is {got}, not {expected}"));
        }
        worst = worst.max(share);
    }
    Ok(worst)
}

/// The smallest composition found that fails, by steps each of which fails.
fn shrink(mut spec: Spec) -> Spec {
    while let Some(smaller) = spec.smaller().into_iter().find(|spec| check(spec).is_err()) {
        spec = smaller;
    }
    spec
}

#[test]
fn random_compositions_agree_with_the_oracle() {
    let one = std::env::var("COMPOSITION").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = one.map_or(0..COUNT, |seed| seed..seed + 1);
    let (mut failures, mut worst, mut excluded) = (Vec::new(), 0.0_f64, 0u64);
    let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for seed in seeds {
        let spec = Spec::random(seed);
        match check(&spec) {
            Ok(share) => worst = worst.max(share),
            Err(error) => failures.push((spec.clone(), error)),
        }
        if spec.excluded() {
            excluded += 1;
            continue;
        }
        let features = spec.features();
        for (i, a) in features.iter().enumerate() {
            features[i..].iter().for_each(|b| *pairs.entry((*a, *b)).or_default() += 1);
        }
    }
    if let Some((first, error)) = failures.first() {
        let least = shrink(first.clone());
        let now = check(&least).unwrap_err();
        panic!(
            "{} of {COUNT} compositions fail; the first is COMPOSITION={}: {error}\n\
             the smallest that still fails: {now}\n{least:#?}",
            failures.len(),
            first.seed
        );
    }
    println!("{excluded} excluded; the worst element used {worst:.2} of what is allowed");
    if one.is_none() {
        assert!(COUNT - excluded >= 3_000, "only {} compositions ran", COUNT - excluded);
        every_pair_has_met(&pairs);
    }
}

/// Pairs that cannot meet: stages are alternatives, means are of the last stage, a ring that has gone
/// round has no earlier ones, and products with what is not a number are not asked for.
fn cannot_meet(a: &str, b: &str) -> bool {
    let stages = ["logits", "capped", "masked", "softmax"];
    let early = &stages[..3];
    let both = |x: &[&str], y: &[&str]| {
        (x.contains(&a) && y.contains(&b)) || (x.contains(&b) && y.contains(&a))
    };
    (both(&stages, &stages) && a != b)
        || both(early, &["mean", "ring gone round"])
        || both(&["one head"], &["mean"])
        || both(&["poison"], &stages[..2])
}

fn every_pair_has_met(pairs: &BTreeMap<(&str, &str), usize>) {
    let features: Vec<&str> = pairs.keys().filter(|(a, b)| a == b).map(|(a, _)| *a).collect();
    assert_eq!(features.len(), 29, "{features:?}");
    for (i, a) in features.iter().enumerate() {
        for b in &features[i + 1..] {
            let met = pairs.contains_key(&(*a, *b)) || pairs.contains_key(&(*b, *a));
            assert!(met != cannot_meet(a, b), "{a} with {b}: {met}");
        }
    }
}
