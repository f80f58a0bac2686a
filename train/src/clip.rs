//! Gradients that are not too long.

/// Partial sums.
const LANES: usize = 8;

/// Scales `gradients` down to a Euclidean norm of `limit` where theirs is larger (Pascanu, Mikolov,
/// Bengio: *On the difficulty of training recurrent neural networks*, 2013). Returns the norm before.
///
/// Where the norm is NaN or infinite nothing is scaled: the caller sees it, and should leave out the step.
/// Gradients whose squares overflow or vanish are summed on a scale of their own.
///
/// ```
/// let mut gradients = [3.0, -4.0];
/// assert_eq!(mha_train::clip_norm(&mut gradients, 1.0), 5.0);
/// assert_eq!(gradients, [0.6, -0.8]);
/// assert_eq!(mha_train::clip_norm(&mut [3.0, 4.0], 6.0), 5.0);
/// ```
pub fn clip_norm(gradients: &mut [f32], limit: f32) -> f32 {
    let norm = norm(gradients);
    if norm > limit && norm.is_finite() {
        for gradient in gradients {
            *gradient = *gradient / norm * limit;
        }
    }
    norm
}

fn norm(gradients: &[f32]) -> f32 {
    let squares = squares(gradients, 1.0);
    if squares.is_finite() && squares > 1e-30 {
        return libm::sqrtf(squares);
    }
    // Overflowed, vanished, or truly 0 or not a number.
    let largest = gradients.iter().fold(0.0, |largest, gradient| {
        let size = gradient.abs();
        if size > largest || size.is_nan() { size } else { largest }
    });
    if largest == 0.0 || !largest.is_finite() {
        return if squares.is_nan() { f32::NAN } else { largest };
    }
    largest * libm::sqrtf(self::squares(gradients, largest))
}

/// The sum of `(gradient / by)²`: eight partial sums, then from the first to the last.
fn squares(gradients: &[f32], by: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = gradients.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &gradient) in sums.iter_mut().zip(chunk) {
            *sum += (gradient / by) * (gradient / by);
        }
    }
    for (sum, &gradient) in sums.iter_mut().zip(rest) {
        *sum += (gradient / by) * (gradient / by);
    }
    sums.iter().sum()
}
