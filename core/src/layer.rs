//! The layer, as its users see it: what a call is, and everything that can be wrong with one.

use core::ops::Range;

use crate::cache::{Cache, check_keys, positions};
use crate::call::{Inputs, Outputs, ScoresAt, Weights};
use crate::compact;
use crate::dims::{Attention, Config, MAX_ELEMENTS, Shape};
use crate::error::{Argument, Error};
use crate::kernel::Isa;
use crate::options::{Options, Rules};
use crate::plan::{COMPACT, Plan, Sizes, exact};
use crate::select::Select;
use crate::transform::{check_key_angles, check_query_angles};
use crate::view::ReadCache;
use crate::work::{Append, Attend, Call, Forward, New};

/// Multi-head attention with its four projections: Flux's `MultiHeadAttention`.
///
/// It borrows its weights and is as small as their pointers; copies are cheap. Every call is a pure
/// function of its arguments, so one layer can be used from any number of threads or interrupts,
/// each with scratch of its own.
#[derive(Clone, Copy, Debug)]
pub struct MultiHeadAttention<'w> {
    config: Config,
    weights: Weights<'w>,
    isa: Isa,
}

impl<'w> MultiHeadAttention<'w> {
    /// A layer on the fastest instructions that this machine has.
    ///
    /// # Errors
    /// Those of [`Config::check`], and [`Error::Length`] naming the weight that does not fit it.
    pub fn new(config: Config, weights: Weights<'w>) -> Result<Self, Error> {
        Self::with_isa(config, weights, Isa::detect())
    }

    /// A layer on given instructions. As a `const fn`, with [`Isa::PORTABLE`], it makes a layer that
    /// lies in flash.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::new`].
    pub const fn with_isa(config: Config, weights: Weights<'w>, isa: Isa) -> Result<Self, Error> {
        if let Err(error) = config.check() {
            return Err(error);
        }
        if let Err(error) = weights.check(&config) {
            return Err(error);
        }
        Ok(Self { config, weights, isa })
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The weights.
    #[must_use]
    pub const fn weights(&self) -> &Weights<'w> {
        &self.weights
    }

    /// The instructions that it runs on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Computes the layer.
    ///
    /// Queries `[batch, q_len, q_in]`, keys `[batch, kv_len, k_in]`, values `[batch, kv_len, v_in]`;
    /// `y` `[batch, q_len, out]`; scores, if asked for, `[batch, heads, q_len, kv_len]`. `scratch`
    /// needs [`Config::scratch_len`] floats for full speed and works down to
    /// [`Config::min_scratch_len`]; what it holds before does not matter.
    ///
    /// A query that may not see any key gets scores of 0 and an attention output of 0, so its `y`
    /// is the output bias. (Flux gives NaN there.)
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Broadcast`] naming the argument that does not fit the shape,
    /// [`Error::Value`] for a dropout probability outside `[0, 1)`, [`Error::TooLarge`] for a shape
    /// whose sizes overflow. Nothing has been written then.
    ///
    /// ```
    /// use mha::{Config, Dims, Inputs, MultiHeadAttention, Outputs, Shape, Weights};
    ///
    /// const CONFIG: Config = Config::new(Dims::square(2)).heads(1);
    /// const SHAPE: Shape = Shape::new(1, 1, 2);
    /// let identity = [1.0, 0.0, 0.0, 1.0];
    /// let weights = Weights::new(&identity, &identity, &identity, &identity);
    /// let layer = MultiHeadAttention::new(CONFIG, weights)?;
    ///
    /// // One query that is equally far from two keys: the output is the mean of their values.
    /// let (q, k, v) = ([0.0, 1.0], [1.0, 0.0, -1.0, 0.0], [2.0, 4.0, 4.0, 8.0]);
    /// let (mut y, mut scores) = ([0.0; 2], [0.0; 2]);
    /// let mut scratch = [0.0; CONFIG.scratch_len(SHAPE)];
    /// let outputs = Outputs::new(&mut y).scores(&mut scores);
    /// layer.forward(SHAPE, Inputs::new(&q, &k, &v), outputs, &mut scratch)?;
    /// assert_eq!(scores, [0.5, 0.5]);
    /// assert_eq!(y, [3.0, 6.0]);
    /// # Ok::<(), mha::Error>(())
    /// ```
    pub fn forward<R: Rules>(
        &self,
        shape: Shape,
        inputs: Inputs<'_, R>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        self.forward_rows(shape, 0..shape.queries(), inputs, outputs, scratch)
    }

    /// Computes some rows of the layer: the queries `rows` of the `batch · q_len` there are, with
    /// the bits that [`MultiHeadAttention::forward`] gives them. Threads or cores can share a call
    /// so, each with scratch of its own.
    ///
    /// The inputs are those of the whole call. `y` holds the rows alone, `[rows, out]`; scores hold,
    /// for each sequence that the rows touch, in order, `[heads, its rows, kv_len]`; with
    /// [`Options::score_queries`] those of its rows that are chosen.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::forward`], and [`Error::Range`] for rows that there are not.
    pub fn forward_rows<R: Rules>(
        &self,
        shape: Shape,
        rows: Range<usize>,
        inputs: Inputs<'_, R>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        self.check(shape, &rows, &inputs, &outputs)?;
        if COMPACT && !R::OPTIONAL {
            let (Self { config, weights, .. }, mut outputs) = (self, outputs);
            let call = compact::Call { config, weights, shape, inputs: &inputs };
            return compact::forward(&call, rows, &mut outputs, scratch);
        }
        let sizes = Sizes::of_layer(&self.config, shape);
        let plan = Plan::fit(&sizes, scratch.len())?;
        let parts = plan.carve(&sizes, scratch);
        let call = Call { config: &self.config, weights: &self.weights, shape, inputs, natural: 0 };
        self.isa.run(Forward { call, rows, outputs, plan, parts });
        Ok(())
    }

    /// Projects keys and values and appends them to a cache: keys `[batch, n, k_in]`, values
    /// `[batch, n, v_in]`; n follows from their length. `rules` is [`Plain`](crate::Plain), or
    /// [`&Options`](crate::Options) where keys are to be normalised or rotated.
    ///
    /// Appending n positions at once or one by one leaves the same bits in the cache.
    ///
    /// # Errors
    /// [`Error::Length`] naming `k` or `v`, [`Error::Value`] for a cache of another layer's sizes,
    /// [`Error::CacheFull`], [`Error::Range`] for a position that a table of angles does not have. Nothing
    /// has been written then.
    pub fn append<R: Rules>(
        &self,
        cache: &mut Cache<'_>,
        k: &[f32],
        v: &[f32],
        rules: R,
    ) -> Result<(), Error> {
        cache.check_fits(&self.config.attention)?;
        let (dims, batch) = (&self.config.dims, cache.config().batch);
        let n = positions(k.len(), batch, dims.k_in)?;
        exact(Argument::V, v.len(), (batch * n).saturating_mul(dims.v_in))?;
        check_keys(rules, &self.config.attention, batch, n)?;
        check_key_angles(rules, self.config.attention.head_qk(), cache.len(), n)?;
        let first = cache.grow(n)?;
        let new = New { k, v, n, first };
        self.isa.run(Append { config: &self.config, weights: &self.weights, cache, new, rules });
        Ok(())
    }

    /// Attends `q_len` queries a sequence, `[batch, q_len, q_in]`, over a cache. `y` is
    /// `[batch, q_len, out]`; scores, if asked for, are `[batch, heads, q_len, stored]` with
    /// [`Cache::stored`] columns. Masks and biases count the keys by their positions, up to
    /// [`Cache::len`].
    ///
    /// Where nothing else is said the last query stands at the last position, so a causal call gives
    /// after each append what [`MultiHeadAttention::forward`] gives for the whole, bit for bit.
    /// `scratch` needs [`Config::cached_scratch_len`] floats for full speed and works down to
    /// [`Config::min_cached_scratch_len`], whatever the cache holds.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::forward`], [`Error::Value`] for a cache of another layer's
    /// sizes, [`Error::Conflict`] for scores of an earlier stage from a ring that has gone round.
    pub fn attend<R: Rules>(
        &self,
        cache: &impl ReadCache,
        q_len: usize,
        inputs: Inputs<'_, R>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        let cache = cache.view();
        cache.check_fits(&self.config.attention)?;
        // A cache may be a ring, which the plain driver does not know.
        let none = Options::new();
        let inputs = inputs.options(inputs.rules.options().unwrap_or(&none));
        let (dims, batch) = (&self.config.dims, cache.config().batch);
        let shape = Shape::new(batch, q_len, cache.len());
        let rows = 0..shape.queries();
        check_rows(shape, &rows)?;
        exact(Argument::Q, inputs.q.len(), rows.len().saturating_mul(dims.q_in))?;
        exact(Argument::Y, outputs.y.len(), rows.len().saturating_mul(dims.out))?;
        let attention = &self.config.attention;
        check_attention(shape, cache.stored(), attention, &rows, &inputs, &outputs)?;
        let natural = (cache.len() as isize).saturating_sub_unsigned(q_len);
        check_query_angles(&inputs, attention.head_qk(), shape, natural)?;
        let sizes = Sizes::of_cached(&self.config, q_len);
        if sizes.overflow() {
            return Err(Error::TooLarge { argument: Argument::Shape });
        }
        let plan = Plan::fit(&sizes, scratch.len())?;
        let parts = plan.carve(&sizes, scratch);
        let call = Call { config: &self.config, weights: &self.weights, shape, inputs, natural };
        self.isa.run(Attend { call, cache, outputs, plan, parts });
        Ok(())
    }

    /// Everything that can be wrong with a call but its scratch.
    pub(crate) fn check<R: Rules>(
        &self,
        shape: Shape,
        rows: &Range<usize>,
        inputs: &Inputs<'_, R>,
        outputs: &Outputs<'_>,
    ) -> Result<(), Error> {
        let dims = &self.config.dims;
        exact(Argument::Q, inputs.q.len(), shape.queries().saturating_mul(dims.q_in))?;
        exact(Argument::K, inputs.k.len(), shape.keys().saturating_mul(dims.k_in))?;
        exact(Argument::V, inputs.v.len(), shape.keys().saturating_mul(dims.v_in))?;
        check_rows(shape, rows)?;
        exact(Argument::Y, outputs.y.len(), rows.len().saturating_mul(dims.out))?;
        let attention = &self.config.attention;
        check_attention(shape, shape.kv_len, attention, rows, inputs, outputs)?;
        check_rotation(inputs, attention, shape)?;
        // The driver of little code looks at its scratch itself.
        if (R::OPTIONAL || !COMPACT) && Sizes::of_layer(&self.config, shape).overflow() {
            return Err(Error::TooLarge { argument: Argument::Shape });
        }
        Ok(())
    }
}

/// Checks that a call without a cache can rotate its queries and keys.
pub(crate) fn check_rotation<R: Rules>(
    inputs: &Inputs<'_, R>,
    attention: &Attention,
    shape: Shape,
) -> Result<(), Error> {
    if shape.batch == 0 {
        return Ok(());
    }
    let d = attention.head_qk();
    check_key_angles(inputs.rules, d, 0, shape.kv_len)?;
    check_query_angles(inputs, d, shape, 0)
}

/// Checks that there are such rows.
pub(crate) fn check_rows(shape: Shape, rows: &Range<usize>) -> Result<(), Error> {
    let len = shape.queries();
    if len > MAX_ELEMENTS {
        return Err(Error::TooLarge { argument: Argument::Shape });
    }
    if rows.start > rows.end || rows.end > len {
        return Err(Error::Range { argument: Argument::Rows, len, end: rows.end });
    }
    Ok(())
}

/// Checks what a call with and without projections has in common. `columns` is the last axis of the
/// scores.
pub(crate) fn check_attention<R: Rules>(
    shape: Shape,
    columns: usize,
    attention: &Attention,
    rows: &Range<usize>,
    inputs: &Inputs<'_, R>,
    outputs: &Outputs<'_>,
) -> Result<(), Error> {
    let Shape { batch, q_len, kv_len } = shape;
    let sizes = [batch, attention.heads, q_len, kv_len];
    if let Some(bias) = &inputs.bias {
        bias.check(Argument::Bias, sizes)?;
    }
    if let Some(mask) = &inputs.mask {
        mask.check(sizes)?;
    }
    if let Some(causal) = &inputs.causal {
        causal.check(shape)?;
    }
    if let Some(dropout) = &inputs.dropout {
        dropout.check()?;
    }
    let (mut heads, mut queries) = (attention.heads, rows.len());
    if let Some(options) = inputs.rules.options() {
        options.check(attention, shape)?;
        heads = options.scores.heads(heads);
        queries = options.scored(shape, rows);
        if outputs.scores.is_some() && outputs.scores_at != ScoresAt::Softmax {
            let conflict = |other| Err(Error::Conflict { argument: Argument::ScoresAt, other });
            if options.scores == Select::Mean {
                return conflict(Argument::Scores);
            }
            if columns != kv_len {
                return conflict(Argument::Cache);
            }
        }
    }
    if let Some(scores) = outputs.scores.as_deref() {
        let needed = queries.saturating_mul(heads).saturating_mul(columns);
        exact(Argument::Scores, scores.len(), needed)?;
    }
    Ok(())
}
