//! Sequences of different lengths in one call, without padding.

use core::ops::Range;

use crate::call::{Inputs, Outputs};
use crate::dims::{Dims, Shape};
use crate::error::{Argument, Error};
use crate::layer::{MultiHeadAttention, check_rotation};
use crate::mask::Causal;
use crate::options::Rules;
use crate::plan::{Plan, Sizes, exact, take};
use crate::work::rows;

impl MultiHeadAttention<'_> {
    /// Computes sequences of different lengths that lie one after another without padding: sequence
    /// i has the queries `q_starts[i] .. q_starts[i + 1]` and the keys
    /// `kv_starts[i] .. kv_starts[i + 1]` (`cu_seqlens` elsewhere). `y` is `[queries, out]`; scores,
    /// if asked for, are for each sequence in order `[heads, its queries, its keys]`.
    ///
    /// The causal rule and the options apply to each sequence by itself. `scratch` is that of the
    /// longest sequence as a batch of one.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::forward`]; [`Error::Range`] naming [`Argument::Rows`] for
    /// starts that fall or end past the inputs; [`Error::Conflict`] for what is given per batch:
    /// a mask, a bias, lengths, segments or offsets per sequence.
    pub fn forward_packed<R: Rules>(
        &self,
        q_starts: &[usize],
        kv_starts: &[usize],
        inputs: Inputs<'_, R>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        let Dims { q_in, k_in, v_in, out, .. } = self.config().dims;
        self.check_packed(q_starts, kv_starts, &inputs, &outputs, scratch.len())?;
        let with_scores = outputs.scores.is_some();
        let (mut y, mut scores) = (outputs.y, outputs.scores.unwrap_or_default());
        for (q, kv) in windows(q_starts).zip(windows(kv_starts)) {
            let shape = Shape::new(1, q.len(), kv.len());
            let here = Inputs {
                q: rows(inputs.q, q.start, q.len(), q_in),
                k: rows(inputs.k, kv.start, kv.len(), k_in),
                v: rows(inputs.v, kv.start, kv.len(), v_in),
                ..inputs
            };
            let mut outputs_here =
                Outputs::new(take(&mut y, q.len() * out)).scores_at(outputs.scores_at);
            let scores_here = take(&mut scores, self.scores_of(shape, &inputs));
            if with_scores {
                outputs_here = outputs_here.scores(scores_here);
            }
            self.forward(shape, here, outputs_here, scratch)?;
        }
        Ok(())
    }

    /// Elements of the scores of one sequence.
    fn scores_of<R: Rules>(&self, shape: Shape, inputs: &Inputs<'_, R>) -> usize {
        let attention = &self.config().attention;
        match inputs.rules.options() {
            Some(options) => options.scores_len(attention, shape),
            None => attention.scores_len(shape),
        }
    }

    fn check_packed<R: Rules>(
        &self,
        q_starts: &[usize],
        kv_starts: &[usize],
        inputs: &Inputs<'_, R>,
        outputs: &Outputs<'_>,
        scratch: usize,
    ) -> Result<(), Error> {
        let conflict = |other| Err(Error::Conflict { argument: Argument::Rows, other });
        if inputs.mask.is_some() {
            return conflict(Argument::Mask);
        }
        if inputs.bias.is_some() {
            return conflict(Argument::Bias);
        }
        if matches!(inputs.causal, Some(Causal::PerSequence(_))) {
            return conflict(Argument::Causal);
        }
        if let Some(options) = inputs.rules.options() {
            if options.lens.is_some() {
                return conflict(Argument::Lens);
            }
            if options.segments.is_some() {
                return conflict(Argument::Segments);
            }
            if options.lse.is_some() {
                return conflict(Argument::Lse);
            }
            if matches!(options.offset, Some(Causal::PerSequence(_))) {
                return conflict(Argument::Causal);
            }
        }
        let count = q_starts.len();
        if kv_starts.len() != count {
            let got = kv_starts.len();
            return Err(Error::Length { argument: Argument::Rows, needed: count, got });
        }
        let Dims { q_in, k_in, v_in, out, .. } = self.config().dims;
        for starts in [q_starts, kv_starts] {
            if let Some(pair) = windows(starts).find(|here| here.start > here.end) {
                return Err(Error::Range {
                    argument: Argument::Rows,
                    len: pair.start,
                    end: pair.end,
                });
            }
        }
        let last = |starts: &[usize]| starts.last().copied().unwrap_or(0);
        let queries = last(q_starts) - q_starts.first().copied().unwrap_or(0);
        exact(Argument::Q, inputs.q.len(), last(q_starts).saturating_mul(q_in))?;
        exact(Argument::K, inputs.k.len(), last(kv_starts).saturating_mul(k_in))?;
        exact(Argument::V, inputs.v.len(), last(kv_starts).saturating_mul(v_in))?;
        exact(Argument::Y, outputs.y.len(), queries.saturating_mul(out))?;
        let mut all = 0usize;
        for (q, kv) in windows(q_starts).zip(windows(kv_starts)) {
            let shape = Shape::new(1, q.len(), kv.len());
            let sizes = Sizes::of_layer(self.config(), shape);
            Plan::fit(&sizes, scratch)?;
            if let Some(options) = inputs.rules.options() {
                options.check(&self.config().attention, shape)?;
            }
            check_rotation(inputs, &self.config().attention, shape)?;
            all = all.saturating_add(self.scores_of(shape, inputs));
        }
        if let Some(dropout) = &inputs.dropout {
            dropout.check()?;
        }
        if let Some(scores) = outputs.scores.as_deref() {
            exact(Argument::Scores, scores.len(), all)?;
        }
        Ok(())
    }
}

/// The ranges between starts.
fn windows(starts: &[usize]) -> impl Iterator<Item = Range<usize>> {
    starts.iter().zip(starts.iter().skip(1)).map(|(&start, &end)| start..end)
}
