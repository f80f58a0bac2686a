//! The loss of a classifier.

use crate::error::Error;

/// What a classifier should say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// This class, and no other.
    Class(usize),
    /// A probability for each class; they sum to 1. [`smooth`] makes some.
    Soft(&'a [f32]),
}

impl Target<'_> {
    fn check(self, classes: usize) -> Result<(), Error> {
        match self {
            Self::Class(class) if class >= classes => Err(Error::Class { classes, got: class }),
            Self::Class(_) => Ok(()),
            Self::Soft(targets) => Error::unless("targets", classes, targets.len()),
        }
    }

    fn probability(self, class: usize) -> f32 {
        match self {
            Self::Class(target) => f32::from(u8::from(target == class)),
            Self::Soft(targets) => targets.get(class).copied().unwrap_or(0.0),
        }
    }
}

/// The cross-entropy of `softmax(logits)` against the target, `−Σ target · ln softmax(logits)`, and its
/// gradient with respect to the logits, `softmax(logits) · Σ target − target`.
///
/// The maximum is subtracted first, so that logits of any finite size do. Without classes it is 0.
///
/// # Errors
/// [`Error::Class`] for a class that there is not, [`Error::Length`] for soft targets or a gradient of
/// another length than the logits.
///
/// ```
/// use mha_train::{Target, cross_entropy};
///
/// let mut gradient = [0.0; 2];
/// let loss = cross_entropy(&[1000.0, 1000.0], Target::Class(0), &mut gradient)?;
/// assert!((loss - 0.6931472).abs() < 1e-6);
/// assert_eq!(gradient, [-0.5, 0.5]);
/// # Ok::<(), mha_train::Error>(())
/// ```
pub fn cross_entropy(
    logits: &[f32],
    target: Target<'_>,
    gradient: &mut [f32],
) -> Result<f32, Error> {
    target.check(logits.len())?;
    Error::unless("gradient", logits.len(), gradient.len())?;
    let top = logits.iter().fold(f32::NEG_INFINITY, |top, &logit| top.max(logit));
    let mut sum = 0.0;
    for (gradient, &logit) in gradient.iter_mut().zip(logits) {
        *gradient = libm::expf(logit - top);
        sum += *gradient;
    }
    let log_sum = libm::logf(sum);
    let (mut loss, mut all) = (0.0, 0.0);
    for (class, &logit) in logits.iter().enumerate() {
        let probability = target.probability(class);
        // A class that is not wanted costs nothing, however unlikely it is.
        if probability != 0.0 {
            loss += probability * (log_sum - (logit - top));
        }
        all += probability;
    }
    for (class, gradient) in gradient.iter_mut().enumerate() {
        *gradient = *gradient / sum * all - target.probability(class);
    }
    Ok(loss)
}

/// Targets with label smoothing (Szegedy and others: *Rethinking the inception architecture for computer
/// vision*, 2016): `1 − amount` for the class, and `amount` spread evenly over all.
///
/// # Errors
/// [`Error::Class`] for a class that there is not.
///
/// ```
/// let mut targets = [0.0; 4];
/// mha_train::smooth(2, 0.5, &mut targets)?;
/// assert_eq!(targets, [0.125, 0.125, 0.625, 0.125]);
/// # Ok::<(), mha_train::Error>(())
/// ```
pub fn smooth(class: usize, amount: f32, targets: &mut [f32]) -> Result<(), Error> {
    let classes = targets.len();
    if class >= classes {
        return Err(Error::Class { classes, got: class });
    }
    let each = amount / classes as f32;
    for (i, target) in targets.iter_mut().enumerate() {
        *target = each + if i == class { 1.0 - amount } else { 0.0 };
    }
    Ok(())
}
