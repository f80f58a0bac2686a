//! Stochastic gradient descent.

use crate::error::Error;

/// Stochastic gradient descent with momentum (Polyak, *Some methods of speeding up the convergence of
/// iteration methods*, 1964) and weight decay.
///
/// ```text
/// g = gradient + decay · parameter
/// velocity = momentum · velocity + g
/// parameter -= rate · velocity
/// ```
/// These are PyTorch's formulas: the decay goes through the momentum, and the velocity is not scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// How far a step goes.
    pub rate: f32,
    /// How much of the last step is kept; 0 needs no state.
    pub momentum: f32,
    /// How fast parameters fade.
    pub decay: f32,
}

impl Sgd {
    /// Plain descent.
    #[must_use]
    pub const fn new(rate: f32) -> Self {
        Self { rate, momentum: 0.0, decay: 0.0 }
    }

    /// With momentum, usually 0.9.
    #[must_use]
    pub const fn momentum(self, momentum: f32) -> Self {
        Self { momentum, ..self }
    }

    /// With weight decay.
    #[must_use]
    pub const fn decay(self, decay: f32) -> Self {
        Self { decay, ..self }
    }

    /// One step. `velocity` begins as zeros and is as long as the parameters; without momentum it may be
    /// empty.
    ///
    /// # Errors
    /// [`Error::Length`] for slices of different lengths.
    ///
    /// ```
    /// use mha_train::Sgd;
    ///
    /// let sgd = Sgd::new(0.5).momentum(0.5);
    /// let (mut parameters, mut velocity) = ([4.0], [0.0]);
    /// sgd.step(&mut parameters, &[2.0], &mut velocity)?;
    /// sgd.step(&mut parameters, &[2.0], &mut velocity)?;
    /// assert_eq!((parameters, velocity), ([1.5], [3.0]));
    /// # Ok::<(), mha_train::Error>(())
    /// ```
    pub fn step(
        &self,
        parameters: &mut [f32],
        gradients: &[f32],
        velocity: &mut [f32],
    ) -> Result<(), Error> {
        let needed = parameters.len();
        Error::unless("gradients", needed, gradients.len())?;
        let Self { rate, momentum, decay } = *self;
        if momentum == 0.0 && velocity.is_empty() {
            for (parameter, &gradient) in parameters.iter_mut().zip(gradients) {
                *parameter -= rate * (gradient + decay * *parameter);
            }
            return Ok(());
        }
        Error::unless("velocity", needed, velocity.len())?;
        for ((parameter, &gradient), velocity) in parameters.iter_mut().zip(gradients).zip(velocity)
        {
            *velocity = momentum * *velocity + (gradient + decay * *parameter);
            *parameter -= rate * *velocity;
        }
        Ok(())
    }
}
