//! Holding an answer against what a case expects.

use std::fmt;

use crate::call::{Answer, Operation};
use crate::case::{Case, Tolerance};
use crate::gradients::NAMES;

/// How one output compares.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The name of the tensor: `y`, `scores`, `present_k`, `present_v`, `rotated`, or that of a gradient.
    pub output: &'static str,
    /// Elements that differ by more than the case allows.
    pub failed: usize,
    /// Elements in all.
    pub elements: usize,
    /// The element that is furthest off; of those that fail, where any does.
    pub worst: Worst,
    /// The largest finite magnitude expected.
    pub largest: f64,
}

/// One element of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worst {
    /// Its index, row-major.
    pub index: usize,
    /// What was expected.
    pub expected: f32,
    /// What came.
    pub got: f32,
    /// How far off that is; infinite where one of the two is not finite and they differ.
    pub error: f64,
    /// How far off it may be.
    pub allowed: f64,
}

impl Case {
    /// Compares every output that the case expects.
    #[must_use]
    pub fn compare(&self, answer: &Answer) -> Vec<Comparison> {
        let name = match self.call.operation {
            Operation::Rotate(_) => "rotated",
            _ => "y",
        };
        let y = self.y.as_ref().map(|y| Comparison::new(name, y, &answer.y, self.y_tol));
        let scores = self.scores.as_ref();
        let scores = scores.map(|s| Comparison::new("scores", s, &answer.scores, self.scores_tol));
        let none = [Vec::new(), Vec::new()];
        let held = answer.present.as_ref().unwrap_or(&none);
        let present = ["present_k", "present_v"].into_iter().zip(&self.present).zip(held);
        let present = present.filter_map(|((name, expected), held)| {
            Some(Comparison::new(name, expected.as_ref()?, held, self.y_tol))
        });
        let gradients = NAMES.iter().zip(&self.gradients).enumerate();
        let gradients = gradients.filter_map(|(i, (name, expected))| {
            let got = self.call.added(i, &answer.gradients);
            Some(Comparison::new(name, expected.as_ref()?, &got, self.grad_tol))
        });
        y.into_iter().chain(scores).chain(present).chain(gradients).collect()
    }
}

impl Comparison {
    fn new(output: &'static str, expected: &[f32], got: &[f32], tolerance: Tolerance) -> Self {
        let mut all = Self {
            output,
            // An answer of the wrong length fails as a whole.
            failed: expected.len().abs_diff(got.len()),
            elements: expected.len(),
            worst: Worst::default(),
            largest: 0.0,
        };
        let mut worst_fails = false;
        for (index, (&expected, &got)) in expected.iter().zip(got).enumerate() {
            let error = difference(got, expected);
            let allowed = tolerance.allowed(expected);
            let fails = !same(got, expected) && (error > allowed || error.is_infinite());
            all.failed += usize::from(fails);
            if (fails, error) > (worst_fails, all.worst.error) || index == 0 {
                all.worst = Worst { index, expected, got, error, allowed };
                worst_fails = fails;
            }
            if expected.is_finite() {
                all.largest = all.largest.max(f64::from(expected.abs()));
            }
        }
        all
    }

    /// Whether every element is near enough.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Worst { index, expected, got, error, allowed } = self.worst;
        write!(f, "{} {error:.1e} ({allowed:.1e} allowed)", self.output)?;
        if self.failed > 0 {
            write!(f, ", {} of {} elements fail", self.failed, self.elements)?;
            write!(f, ", worst at {index}: {got} for {expected}")?;
        }
        Ok(())
    }
}

/// Both the same number, or both not a number.
fn same(got: f32, expected: f32) -> bool {
    got == expected || (got.is_nan() && expected.is_nan())
}

fn difference(got: f32, expected: f32) -> f64 {
    if same(got, expected) {
        0.0
    } else if got.is_finite() && expected.is_finite() {
        (f64::from(got) - f64::from(expected)).abs()
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::Comparison;
    use crate::case::Tolerance;

    const TOLERANCE: Tolerance = Tolerance { absolute: 0.5, relative: 0.25 };

    fn failed(expected: &[f32], got: &[f32]) -> usize {
        Comparison::new("y", expected, got, TOLERANCE).failed
    }

    #[test]
    fn an_element_may_be_off_by_the_sum_of_both_allowances() {
        assert_eq!(failed(&[2.0, -2.0], &[3.0, -1.0]), 0);
        assert_eq!(failed(&[2.0, -2.0], &[3.001, -0.999]), 2);
    }

    #[test]
    fn what_is_not_finite_must_be_the_same() {
        const INF: f32 = f32::INFINITY;
        const NAN: f32 = f32::NAN;
        assert_eq!(failed(&[INF, -INF, NAN], &[INF, -INF, NAN]), 0);
        assert_eq!(failed(&[INF, INF, NAN, 0.0, 0.0], &[-INF, 1.0, 0.0, NAN, INF]), 5);
    }

    #[test]
    fn an_answer_of_the_wrong_length_fails() {
        assert_eq!(failed(&[0.0, 0.0], &[0.0]), 1);
        assert_eq!(failed(&[], &[0.0]), 1);
    }

    #[test]
    fn the_worst_element_is_one_that_fails() {
        let comparison = Comparison::new("y", &[100.0, 0.0], &[110.0, 1.0], TOLERANCE);
        assert_eq!((comparison.failed, comparison.worst.index), (1, 1));
        assert_eq!(comparison.largest, 100.0);
    }
}
