//! The way back: gradients of everything that goes into the layer, by computing its inside again.
//!
//! [`gradients`] is what callers see, [`work`] the way of the data, [`attention`] one
//! block of one head, [`plan`] the memory, [`keeping`] a way forward after which less is computed again.

mod attention;
mod gradients;
mod keeping;
mod plan;
mod work;

pub use gradients::{BackwardError, Gradients, Part, Upstream};

use crate::call::{Inputs, Outputs, Weights};
use crate::dims::{Attention, Config, Dims, MAX_ELEMENTS, Shape};
use crate::dropout::Dropout;
use crate::error::{Argument, Error};
use crate::kernel::Isa;
use crate::layer::{MultiHeadAttention, check_attention, check_rotation};
use crate::mask::Broadcast;
use crate::options::Rules;
use crate::plan::exact;
use gradients::check_options;
use keeping::Kept;
use plan::{Plan, Sizes};
use work::Backward;

impl MultiHeadAttention<'_> {
    /// Computes the gradients of a loss with respect to the inputs, the weights and the additive bias,
    /// from those with respect to `y` and, where they matter, to the scores.
    ///
    /// `inputs` are those of [`MultiHeadAttention::forward`], dropout included: its decisions are made
    /// again. Nothing of the way forward needs to be kept: scores are computed again, a block of queries
    /// at a time, so scratch does not grow with `q_len · kv_len`. (What is kept all the same, by
    /// [`MultiHeadAttention::forward_keeping`], saves time.) It needs
    /// [`Config::backward_scratch_len`] floats for full speed and works down to
    /// [`Config::min_backward_scratch_len`].
    ///
    /// A key that nobody may see, and a query that sees nothing, gets a gradient of 0 and gives none,
    /// whatever it holds.
    ///
    /// # Errors
    /// [`BackwardError::Call`] with what [`MultiHeadAttention::forward`] would say;
    /// [`BackwardError::Gradient`] naming what a gradient does not fit; [`BackwardError::Absent`] for
    /// one of a bias that there is not; [`BackwardError::Option`] for an option that there is no way back
    /// through ([`Options::norm`](crate::Options::norm), [`Options::extra`](crate::Options::extra)) or
    /// that asks for another output. Nothing has been written then.
    ///
    /// ```
    /// use mha::{Config, Dims, Gradients, Inputs, MultiHeadAttention, Shape, Upstream, Weights};
    ///
    /// const CONFIG: Config = Config::new(Dims::square(2)).heads(1);
    /// const SHAPE: Shape = Shape::new(1, 1, 2);
    /// let identity = [1.0, 0.0, 0.0, 1.0];
    /// let weights = Weights::new(&identity, &identity, &identity, &identity);
    /// let layer = MultiHeadAttention::new(CONFIG, weights)?;
    ///
    /// // Both keys count alike, so each value gets half of what comes from above.
    /// let (q, k, v) = ([0.0, 1.0], [1.0, 0.0, -1.0, 0.0], [2.0, 4.0, 4.0, 8.0]);
    /// let (dy, mut dv) = ([1.0, -2.0], [0.0; 4]);
    /// let mut scratch = [0.0; CONFIG.backward_scratch_len(SHAPE)];
    /// let gradients = Gradients { v: Some(&mut dv), ..Gradients::default() };
    /// let inputs = Inputs::new(&q, &k, &v);
    /// layer.backward(SHAPE, inputs, Upstream::new(&dy), gradients, &mut scratch)?;
    /// assert_eq!(dv, [0.5, -1.0, 0.5, -1.0]);
    /// # Ok::<(), mha::BackwardError>(())
    /// ```
    pub fn backward<R: Rules>(
        &self,
        shape: Shape,
        inputs: Inputs<'_, R>,
        upstream: Upstream<'_>,
        gradients: Gradients<'_>,
        scratch: &mut [f32],
    ) -> Result<(), BackwardError> {
        let part = Part::whole(&self.config().attention, shape);
        self.backward_part(shape, part, inputs, upstream, gradients, scratch)
    }

    /// Computes what some heads of some sequences add to the gradients. Threads or cores can share a way
    /// back so, each with scratch and gradients of its own: the sum of all parts' gradients is that of
    /// [`MultiHeadAttention::backward`], up to the rounding of that sum. See [`Config::split_backward`].
    ///
    /// Inputs and gradients are those of the whole call; where gradients are overwritten, what the part
    /// does not touch becomes 0.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::backward`], and [`Error::Range`] for a part that there is not.
    pub fn backward_part<R: Rules>(
        &self,
        shape: Shape,
        part: Part,
        inputs: Inputs<'_, R>,
        upstream: Upstream<'_>,
        mut gradients: Gradients<'_>,
        scratch: &mut [f32],
    ) -> Result<(), BackwardError> {
        let (config, weights) = (self.config(), self.weights());
        let bias = |bias: Option<&[f32]>| bias.map(<[f32]>::len);
        let lengths = [
            (Argument::Q, Some(inputs.q.len())),
            (Argument::K, Some(inputs.k.len())),
            (Argument::V, Some(inputs.v.len())),
            (Argument::Wq, Some(weights.wq.len())),
            (Argument::Wk, Some(weights.wk.len())),
            (Argument::Wv, Some(weights.wv.len())),
            (Argument::Wo, Some(weights.wo.len())),
            (Argument::Bq, bias(weights.bq)),
            (Argument::Bk, bias(weights.bk)),
            (Argument::Bv, bias(weights.bv)),
            (Argument::Bo, bias(weights.bo)),
            (Argument::Bias, inputs.bias.as_ref().map(Broadcast::len)),
        ];
        check(config, shape, &part, &inputs, &upstream, &mut gradients, &lengths)?;
        run(self.isa(), config, Some(weights), shape, part, inputs, upstream, gradients, scratch)
    }
}

/// The way back of [`dot_product_attention`](crate::dot_product_attention): gradients of queries, keys,
/// values and the additive bias. Rotary positions are allowed here: keys are rotated in scratch.
///
/// # Errors
/// Those of [`Attention::check`] and of [`MultiHeadAttention::backward`]; gradients of weights are
/// [`BackwardError::Absent`].
pub fn dot_product_attention_backward<R: Rules>(
    attention: Attention,
    isa: Isa,
    shape: Shape,
    inputs: Inputs<'_, R>,
    upstream: Upstream<'_>,
    mut gradients: Gradients<'_>,
    scratch: &mut [f32],
) -> Result<(), BackwardError> {
    attention.check()?;
    let (qk, v) = (attention.qk, attention.v);
    let (k_in, v_in) = (attention.key_features(), attention.value_features());
    let config = Config { attention, ..Config::new(Dims::new((qk, k_in, v_in), (qk, v), v)) };
    let lengths = [
        (Argument::Q, Some(inputs.q.len())),
        (Argument::K, Some(inputs.k.len())),
        (Argument::V, Some(inputs.v.len())),
        (Argument::Bias, inputs.bias.as_ref().map(Broadcast::len)),
    ];
    let part = Part::whole(&attention, shape);
    check(&config, shape, &part, &inputs, &upstream, &mut gradients, &lengths)?;
    run(isa, &config, None, shape, part, inputs, upstream, gradients, scratch)
}

/// Checks everything but the scratch.
fn check<R: Rules>(
    config: &Config,
    shape: Shape,
    part: &Part,
    inputs: &Inputs<'_, R>,
    upstream: &Upstream<'_>,
    gradients: &mut Gradients<'_>,
    lengths: &[(Argument, Option<usize>)],
) -> Result<(), BackwardError> {
    let Dims { q_in, k_in, v_in, out, .. } = config.dims;
    let attention = &config.attention;
    exact(Argument::Q, inputs.q.len(), shape.queries().saturating_mul(q_in))?;
    exact(Argument::K, inputs.k.len(), shape.keys().saturating_mul(k_in))?;
    exact(Argument::V, inputs.v.len(), shape.keys().saturating_mul(v_in))?;
    let rows = 0..shape.queries();
    check_attention(shape, shape.kv_len, attention, &rows, inputs, &Outputs::new(&mut []))?;
    check_rotation(inputs, attention, shape)?;
    if config.backward_scratch_len(shape) > MAX_ELEMENTS {
        return Err(Error::TooLarge { argument: Argument::Shape }.into());
    }
    if let Some(kept) = upstream.kept {
        exact(Argument::Kept, kept.len(), config.kept_len(shape))?;
    }
    part.check(attention, shape)?;
    check_options(inputs, upstream.scores.is_some())?;
    let y = shape.queries().saturating_mul(out);
    let upstreams = [
        (Argument::Y, Some(upstream.dy), y),
        (Argument::Scores, upstream.scores, attention.scores_len(shape)),
    ];
    for (of, given, needed) in upstreams {
        let got = given.map_or(needed, <[f32]>::len);
        if got != needed {
            return Err(BackwardError::Gradient { of, needed, got });
        }
    }
    gradients.check(lengths)
}

/// Does a call that is checked but for its scratch.
fn run<R: Rules>(
    isa: Isa,
    config: &Config,
    weights: Option<&Weights<'_>>,
    shape: Shape,
    part: Part,
    inputs: Inputs<'_, R>,
    upstream: Upstream<'_>,
    mut gradients: Gradients<'_>,
    scratch: &mut [f32],
) -> Result<(), BackwardError> {
    let sizes = Sizes::new(&config.attention, shape);
    let plan = Plan::fit(&sizes, scratch.len())?;
    let parts = plan.carve(&sizes, scratch);
    // A probability of 0 drops nothing, and then scores need not be computed again.
    let dropout = inputs.dropout.filter(Dropout::drops);
    let inputs = Inputs { dropout, ..inputs };
    gradients.start();
    let kept = upstream.kept.map(|kept| Kept::of(config, shape, kept));
    isa.run(Backward {
        config,
        weights,
        shape,
        part,
        inputs,
        upstream,
        kept,
        gradients,
        plan,
        parts,
    });
    Ok(())
}
