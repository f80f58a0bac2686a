//! Adam and AdamW.

use crate::error::Error;

/// Adam (Kingma, Ba: *Adam: a method for stochastic optimization*, 2015), with the decoupled decay of
/// AdamW (Loshchilov, Hutter: *Decoupled weight decay regularization*, 2019) where there is one.
///
/// ```text
/// mean   = β₁ · mean   + (1 − β₁) · g
/// square = β₂ · square + (1 − β₂) · g²
/// parameter -= rate · (mean / (1 − β₁ᵗ) / (√(square / (1 − β₂ᵗ)) + ε) + decay · parameter)
/// ```
/// As in PyTorch the decay is times the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// How far a step goes.
    pub rate: f32,
    /// How much of the mean gradient is kept: β₁.
    pub beta1: f32,
    /// How much of the mean squared gradient is kept: β₂.
    pub beta2: f32,
    /// What keeps the division from nothing: ε.
    pub epsilon: f32,
    /// How fast parameters fade; 0 is Adam, anything else AdamW.
    pub decay: f32,
}

impl Adam {
    /// With the paper's β₁ = 0.9, β₂ = 0.999, ε = 1e-8, and no decay.
    #[must_use]
    pub const fn new(rate: f32) -> Self {
        Self { rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.0 }
    }

    /// With other means.
    #[must_use]
    pub const fn betas(self, beta1: f32, beta2: f32) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// With decoupled decay: AdamW.
    #[must_use]
    pub const fn decay(self, decay: f32) -> Self {
        Self { decay, ..self }
    }

    /// Step number `t`, counted from 1. `means` and `squares` begin as zeros and are as long as the
    /// parameters.
    ///
    /// # Errors
    /// [`Error::Step`] for step 0, [`Error::Length`] for slices of different lengths.
    ///
    /// ```
    /// use mha_train::Adam;
    ///
    /// // The first step goes as far as the rate says, whatever the gradient's size.
    /// let (mut parameters, mut means, mut squares) = ([1.0, 1.0], [0.0; 2], [0.0; 2]);
    /// Adam::new(0.25).step(1, &mut parameters, &[1e-3, -1e3], &mut means, &mut squares)?;
    /// assert!((parameters[0] - 0.75).abs() < 1e-5 && (parameters[1] - 1.25).abs() < 1e-5);
    /// # Ok::<(), mha_train::Error>(())
    /// ```
    pub fn step(
        &self,
        t: u32,
        parameters: &mut [f32],
        gradients: &[f32],
        means: &mut [f32],
        squares: &mut [f32],
    ) -> Result<(), Error> {
        if t == 0 {
            return Err(Error::Step);
        }
        let needed = parameters.len();
        Error::unless("gradients", needed, gradients.len())?;
        Error::unless("means", needed, means.len())?;
        Error::unless("squares", needed, squares.len())?;
        let Self { rate, beta1, beta2, epsilon, decay } = *self;
        // The same for all parameters.
        let from_mean = rate / corrected(beta1, t);
        let from_square = 1.0 / corrected(beta2, t);
        let fade = rate * decay;
        let state = means.iter_mut().zip(squares);
        for ((parameter, &gradient), (mean, square)) in
            parameters.iter_mut().zip(gradients).zip(state)
        {
            *mean = beta1 * *mean + (1.0 - beta1) * gradient;
            *square = beta2 * *square + (1.0 - beta2) * (gradient * gradient);
            let root = libm::sqrtf(*square * from_square);
            *parameter -= from_mean * *mean / (root + epsilon) + fade * *parameter;
        }
        Ok(())
    }
}

/// `1 − betaᵗ`, by squaring `beta`. What is kept of each power is how far it is from 1, or else the first
/// steps would lose half of their digits to the subtraction.
fn corrected(beta: f32, mut t: u32) -> f32 {
    let (mut result, mut square) = (0.0, 1.0 - beta);
    while t > 0 {
        if t & 1 == 1 {
            result += square - result * square;
        }
        square *= 2.0 - square;
        t >>= 1;
    }
    result
}
