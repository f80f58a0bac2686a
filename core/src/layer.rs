//! The layer: project keys and values, then for a block of queries project, attend, project.

use core::ops::Range;

use crate::attention::Queries;
use crate::cache::{Cache, Store, StoreMut, Turn, check_keys, key_position, positions};
use crate::call::{Inputs, Outputs, ScoresAt, Weights};
use crate::dims::{Attention, Config, Dims, MAX_ELEMENTS, Shape, WeightOrder};
use crate::error::{Argument, Error};
use crate::kernel::{Columns, Isa, Kernel, Matrix, MatrixMut, Start, Task};
use crate::mask::Causal;
use crate::options::{Options, Rules, Select};
use crate::plan::{Parts, Plan, Sizes, TileParts, exact, take};
use crate::scores::{Scores, ScoresRest};
use crate::softmax::{BLOCK, query_scale};
use crate::transform::{Features, Side, transform, transforms};

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
    /// for each sequence that the rows touch, in order, `[heads, its rows, kv_len]`.
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
        let sizes = Sizes::of_layer(&self.config, shape);
        let plan = Plan::fit(&sizes, scratch.len())?;
        let parts = plan.carve(&sizes, scratch);
        let call = Call { layer: self, shape, inputs, natural: 0 };
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
    /// [`Error::CacheFull`]. Nothing has been written then.
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
        let first = cache.grow(n)?;
        self.isa.run(Append { layer: self, cache, k, v, n, first, rules });
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
        cache: &Cache<'_>,
        q_len: usize,
        inputs: Inputs<'_, R>,
        outputs: Outputs<'_>,
        scratch: &mut [f32],
    ) -> Result<(), Error> {
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
        check_attention(shape, cache.stored(), attention, rows.len(), &inputs, &outputs)?;
        let sizes = Sizes::of_cached(&self.config, q_len);
        if sizes.overflow() {
            return Err(Error::TooLarge { argument: Argument::Shape });
        }
        let plan = Plan::fit(&sizes, scratch.len())?;
        let parts = plan.carve(&sizes, scratch);
        let natural = (cache.len() as isize).saturating_sub_unsigned(q_len);
        let call = Call { layer: self, shape, inputs, natural };
        self.isa.run(Attend { call, cache, outputs, plan, parts });
        Ok(())
    }

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
        let Dims { q_in, k_in, v_in, out, .. } = self.config.dims;
        self.check_packed(q_starts, kv_starts, &inputs, &outputs, scratch.len())?;
        let heads = inputs.rules.options().map_or(Select::All, |options| options.scores);
        let heads = heads.heads(self.config.attention.heads);
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
            let scores_here = take(&mut scores, heads * q.len() * kv.len());
            if with_scores {
                outputs_here = outputs_here.scores(scores_here);
            }
            self.forward(shape, here, outputs_here, scratch)?;
        }
        Ok(())
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
        let Dims { q_in, k_in, v_in, out, .. } = self.config.dims;
        for starts in [q_starts, kv_starts] {
            if let Some(pair) = starts.array_windows().find(|[a, b]| a > b) {
                return Err(Error::Range { argument: Argument::Rows, len: pair[0], end: pair[1] });
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
            let sizes = Sizes::of_layer(&self.config, shape);
            Plan::fit(&sizes, scratch)?;
            if let Some(options) = inputs.rules.options() {
                options.check(&self.config.attention, shape)?;
            }
            all = all.saturating_add(q.len().saturating_mul(kv.len()));
        }
        if let Some(dropout) = &inputs.dropout {
            dropout.check()?;
        }
        if let Some(scores) = outputs.scores.as_deref() {
            let select = inputs.rules.options().map_or(Select::All, |options| options.scores);
            let heads = select.heads(self.config.attention.heads);
            exact(Argument::Scores, scores.len(), all.saturating_mul(heads))?;
        }
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
        check_attention(shape, shape.kv_len, attention, rows.len(), inputs, outputs)?;
        if Sizes::of_layer(&self.config, shape).overflow() {
            return Err(Error::TooLarge { argument: Argument::Shape });
        }
        Ok(())
    }
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
    rows: usize,
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
    let mut heads = attention.heads;
    if let Some(options) = inputs.rules.options() {
        options.check(attention, shape)?;
        heads = options.scores.heads(heads);
        let softmax = outputs.scores_at == ScoresAt::Softmax;
        if outputs.scores.is_some()
            && !softmax
            && (options.scores == Select::Mean || columns != kv_len)
        {
            return Err(Error::Conflict { argument: Argument::Scores, other: Argument::Cache });
        }
    }
    if let Some(scores) = outputs.scores.as_deref() {
        let needed = rows.saturating_mul(heads).saturating_mul(columns);
        exact(Argument::Scores, scores.len(), needed)?;
    }
    Ok(())
}

/// What all the work of a call has in common, checked.
#[derive(Clone, Copy)]
struct Call<'a, R> {
    layer: &'a MultiHeadAttention<'a>,
    shape: Shape,
    inputs: Inputs<'a, R>,
    /// Position of the first query where nothing else is said.
    natural: isize,
}

/// Projects everything and attends.
struct Forward<'a, R> {
    call: Call<'a, R>,
    rows: Range<usize>,
    outputs: Outputs<'a>,
    plan: Plan,
    parts: Parts<'a>,
}

impl<R: Rules> Task for Forward<'_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { call, rows: all_rows, outputs, plan, mut parts } = self;
        let Config { dims, attention, .. } = call.layer.config;
        let Shape { kv_len, .. } = call.shape;
        let mut outputs = Rest::new(&call, outputs, kv_len);
        // 1. Sequences.
        for (batch, queries) in sequences(call.shape, all_rows) {
            let mut item = outputs.item(&call, batch, queries);
            // 2. Groups of heads.
            for group in groups(attention.kv_heads, plan.group) {
                let count = group.len();
                let mut store = StoreMut {
                    keys: parts.keys,
                    values: parts.values,
                    key_features: count * attention.head_qk(),
                    value_features: count * attention.head_v(),
                };
                let k = rows(call.inputs.k, batch * kv_len, kv_len, dims.k_in);
                let v = rows(call.inputs.v, batch * kv_len, kv_len, dims.v_in);
                let rules = call.inputs.rules;
                project::<K, R>(call.layer, &group, k, v, rules, 0, 0, &mut store);
                let store = Store {
                    key_features: store.key_features,
                    value_features: store.value_features,
                    keys: parts.keys,
                    values: parts.values,
                    first_head: group.start,
                    turn: Turn::NONE,
                    kv_len,
                };
                item.attend_group::<K>(
                    &group,
                    &store,
                    &plan,
                    parts.queries,
                    parts.mixed,
                    &mut parts.tile,
                );
            }
        }
    }
}

/// Attends over a cache.
struct Attend<'a, 'c, R> {
    call: Call<'a, R>,
    cache: &'a Cache<'c>,
    outputs: Outputs<'a>,
    plan: Plan,
    parts: Parts<'a>,
}

impl<R: Rules> Task for Attend<'_, '_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { call, cache, outputs, plan, mut parts } = self;
        let gone = cache.gone();
        let mut outputs = Rest::new(&call, outputs, cache.stored());
        for (batch, queries) in sequences(call.shape, 0..call.shape.queries()) {
            let mut item = outputs.item(&call, batch, queries);
            item.gone = (gone.start, gone.end);
            for group in groups(call.layer.config.attention.kv_heads, plan.group) {
                let store = cache.store(batch);
                item.attend_group::<K>(
                    &group,
                    &store,
                    &plan,
                    parts.queries,
                    parts.mixed,
                    &mut parts.tile,
                );
            }
        }
    }
}

/// Projects keys and values into a cache.
struct Append<'a, 'c, R> {
    layer: &'a MultiHeadAttention<'a>,
    cache: &'a mut Cache<'c>,
    k: &'a [f32],
    v: &'a [f32],
    n: usize,
    /// Position of the first one.
    first: usize,
    rules: R,
}

impl<R: Rules> Task for Append<'_, '_, R> {
    type Output = ();

    fn run<K: Kernel>(self) {
        let Self { layer, cache, k, v, n, first, rules } = self;
        let Config { dims, attention, .. } = layer.config;
        for batch in 0..cache.config().batch {
            let mut done = 0;
            while done < n {
                // Positions that lie one after another: up to the turn of a ring.
                let count = (n - done).min(cache.run(first + done));
                let slot = cache.slot(first + done);
                let k = rows(k, batch * n + done, count, dims.k_in);
                let v = rows(v, batch * n + done, count, dims.v_in);
                let mut store = cache.store_mut(batch);
                let all = 0..attention.kv_heads;
                project::<K, R>(layer, &all, k, v, rules, slot, first + done, &mut store);
                done += count;
            }
        }
    }
}

/// Projects the keys and values of some heads into a store, the first of them at `slot`; its
/// position is `position`.
fn project<K: Kernel, R: Rules>(
    layer: &MultiHeadAttention<'_>,
    heads: &Range<usize>,
    k: &[f32],
    v: &[f32],
    rules: R,
    slot: usize,
    position: usize,
    store: &mut StoreMut<'_>,
) {
    let MultiHeadAttention { config, weights, .. } = layer;
    let Config { dims, attention, weight_order: order } = *config;
    let d = attention.head_qk();
    let n = k.len() / dims.k_in.max(1);

    // Keys are wanted with positions side by side: the transposed product, Wkᵀ · kᵀ. A first block
    // that is begun already is filled by itself, so that the others start with theirs.
    let mine = features(heads, d);
    let outputs = attention.key_features();
    let wk = Weight { data: weights.wk, inputs: dims.k_in, outputs, order };
    let bias = weights.bk.and_then(|bias| bias.get(mine.clone()));
    let mut done = 0;
    while done < n {
        let (block, place) = ((slot + done) / BLOCK, (slot + done) % BLOCK);
        let count = if place == 0 { n - done } else { (n - done).min(BLOCK - place) };
        let at = block * store.key_features * BLOCK + place;
        let mut keys = MatrixMut {
            data: store.keys.get_mut(at..).unwrap_or_default(),
            rows: mine.len(),
            columns: count,
            row_stride: BLOCK,
            block_stride: store.key_features * BLOCK,
        };
        let k = Columns::strided(rows(k, done, count, dims.k_in), dims.k_in, count, 1, dims.k_in);
        let start = bias.map_or(Start::Zero, Start::Rows);
        K::product(wk.transposed(&mine), k, &mut keys, start, None);
        done += count;
    }
    if let Some(options) = rules.options().filter(|options| transforms(options)) {
        for i in 0..n {
            let (block, place) = ((slot + i) / BLOCK, (slot + i) % BLOCK);
            for head in 0..heads.len() {
                let at = (block * store.key_features + head * d) * BLOCK + place;
                let mut key = Features { data: store.keys, at, stride: BLOCK, count: d };
                transform(options, Side::Key, key_position(options, position, i), &mut key);
            }
        }
    }

    let mine = features(heads, attention.head_v());
    let outputs = attention.value_features();
    let wv = Weight { data: weights.wv, inputs: dims.v_in, outputs, order };
    let bias = weights.bv.and_then(|bias| bias.get(mine.clone()));
    let data = store.values.get_mut(slot * store.value_features..).unwrap_or_default();
    let mut values = MatrixMut::row_major(data, n, mine.len(), store.value_features);
    let start = bias.map_or(Start::Zero, Start::Columns);
    let v = row_major(v, n, dims.v_in);
    K::product(v, wv.columns(0..dims.v_in, &mine), &mut values, start, None);
}

/// Outputs of which sequences are cut off one after another.
struct Rest<'a> {
    y: &'a mut [f32],
    scores: ScoresRest<'a>,
}

impl<'a> Rest<'a> {
    fn new<R: Rules>(call: &Call<'_, R>, outputs: Outputs<'a>, columns: usize) -> Self {
        let heads = call.layer.config.attention.heads;
        Self {
            y: outputs.y,
            scores: ScoresRest::new(
                outputs.scores,
                outputs.scores_at,
                &call.inputs,
                heads,
                columns,
            ),
        }
    }

    /// The queries of one sequence, and where their results go.
    fn item<'b, R: Rules>(
        &mut self,
        call: &'b Call<'b, R>,
        batch: usize,
        queries: Range<usize>,
    ) -> Item<'b, R>
    where
        'a: 'b,
    {
        let y = take(&mut self.y, queries.len() * call.layer.config.dims.out);
        let scores = self.scores.take(queries.len());
        Item { call, batch, y, scores, queries, gone: (0, 0) }
    }
}

/// The queries of one sequence, and where their results go.
struct Item<'a, R> {
    call: &'a Call<'a, R>,
    batch: usize,
    queries: Range<usize>,
    y: &'a mut [f32],
    scores: Scores<'a>,
    /// First and last of the positions that a ring has overwritten.
    gone: (usize, usize),
}

impl<R: Rules> Item<'_, R> {
    /// Adds the group's part to `y`; its first group starts it.
    fn attend_group<K: Kernel>(
        &mut self,
        group: &Range<usize>,
        store: &Store<'_>,
        plan: &Plan,
        queries: &mut [f32],
        mixed: &mut [f32],
        tile: &mut TileParts<'_>,
    ) {
        let MultiHeadAttention { config, weights, .. } = self.call.layer;
        let Config { dims, attention, weight_order: order } = *config;
        let Call { shape, inputs, natural, .. } = self.call;
        let (d, d_v) = (attention.head_qk(), attention.head_v());
        let sharing = attention.sharing();
        let heads = group.start * sharing..group.end * sharing;
        let (qk, v) = (features(&heads, d), features(&heads, d_v));
        let wq = Weight { data: weights.wq, inputs: dims.q_in, outputs: dims.qk, order };
        let wo = Weight { data: weights.wo, inputs: dims.v, outputs: dims.out, order };
        let bq = weights.bq.and_then(|bias| bias.get(qk.clone()));
        let scale = query_scale(attention.scale, d);
        let options = inputs.rules.options();
        let transformed = options.filter(|options| transforms(options));

        // 3. Blocks of queries.
        let mut done = 0;
        while done < self.queries.len() {
            let count = plan.queries.min(self.queries.len() - done);
            let query = self.queries.start + done;
            let first = self.batch * shape.q_len + query;
            let see = Queries {
                inputs,
                heads: attention.heads,
                batch: self.batch,
                head: 0,
                kv_head: 0,
                q_len: shape.q_len,
                first: query,
                kv_len: shape.kv_len,
                natural: *natural,
                gone: self.gone,
            };
            // 4. [queries] = [count, group · d], scaled
            let q = row_major(rows(inputs.q, first, count, dims.q_in), count, dims.q_in);
            let mut c = MatrixMut::row_major(queries, count, qk.len(), qk.len());
            let start = bq.map_or(Start::Zero, Start::Columns);
            let after = transformed.map_or(Some(scale), |_| None);
            K::product(q, wq.columns(0..dims.q_in, &qk), &mut c, start, after);
            if let Some(options) = transformed {
                for (row, queries) in queries.chunks_mut(qk.len().max(1)).enumerate().take(count) {
                    let position = see.rotary_position(options, row);
                    for at in (0..qk.len()).step_by(d.max(1)) {
                        let mut head = Features { data: queries, at, stride: 1, count: d };
                        transform(options, Side::Query, position, &mut head);
                    }
                    K::scale(queries, scale);
                }
            }

            // 5. [mixed] = [count, group · d_v], a head and a tile of rows at a time
            for head in heads.clone() {
                let in_group = head - heads.start;
                let kv_head = head / sharing.max(1);
                let keys_and_values = store.head(kv_head, d, d_v);
                let mut row = 0;
                while row < count {
                    let tile_rows = plan.rows.min(count - row);
                    let queries = Matrix {
                        data: queries.get(row * qk.len() + in_group * d..).unwrap_or(&[]),
                        rows: tile_rows,
                        columns: d,
                        row_stride: qk.len(),
                        column_stride: 1,
                    };
                    let mixed = mixed.get_mut(row * v.len() + in_group * d_v..).unwrap_or_default();
                    let mut mixed = MatrixMut::row_major(mixed, tile_rows, d_v, v.len());
                    let see = Queries { head, kv_head, first: query + row, ..see };
                    self.scores.attend::<K, R>(
                        &keys_and_values,
                        queries,
                        &see,
                        &mut mixed,
                        tile,
                        plan.keys,
                        done + row,
                    );
                    row += tile_rows;
                }
            }

            // 6. [y] = [count, out], the group's features added in their order
            let mixed = row_major(mixed, count, v.len());
            let y = self.y.get_mut(done * dims.out..).unwrap_or_default();
            let mut y = MatrixMut::row_major(y, count, dims.out, dims.out);
            let start = match weights.bo {
                _ if group.start > 0 => Start::Keep,
                Some(bias) => Start::Columns(bias),
                None => Start::Zero,
            };
            K::product(mixed, wo.columns(v.clone(), &(0..dims.out)), &mut y, start, None);
            done += count;
        }
    }
}

/// A weight, whichever way it lies in memory.
struct Weight<'a> {
    data: &'a [f32],
    inputs: usize,
    outputs: usize,
    order: WeightOrder,
}

impl<'a> Weight<'a> {
    /// From one input to the next, and from one output to the next.
    fn strides(&self) -> (usize, usize) {
        match self.order {
            WeightOrder::InOut => (self.outputs, 1),
            WeightOrder::OutIn => (1, self.inputs),
        }
    }

    /// Some inputs and some outputs as a right operand, `[inputs, outputs]`.
    fn columns(&self, inputs: Range<usize>, outputs: &Range<usize>) -> Columns<'a> {
        let (input, output) = self.strides();
        let data = self.data.get(inputs.start * input + outputs.start * output..).unwrap_or(&[]);
        Columns::strided(data, inputs.len(), outputs.len(), input, output)
    }

    /// All inputs and some outputs as a left operand, `[outputs, inputs]`.
    fn transposed(&self, outputs: &Range<usize>) -> Matrix<'a> {
        let (input, output) = self.strides();
        Matrix {
            data: self.data.get(outputs.start * output..).unwrap_or(&[]),
            rows: outputs.len(),
            columns: self.inputs,
            row_stride: output,
            column_stride: input,
        }
    }
}

/// The features that a group of heads owns.
fn features(group: &Range<usize>, each: usize) -> Range<usize> {
    group.start * each..group.end * each
}

/// `count` rows of a row-major matrix.
fn rows(data: &[f32], first: usize, count: usize, width: usize) -> &[f32] {
    data.get(first * width..(first + count) * width).unwrap_or(&[])
}

fn row_major(data: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix { data, rows, columns, row_stride: columns, column_stride: 1 }
}

/// Ranges of `each` heads, the last one shorter.
fn groups(heads: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    (0..heads.div_ceil(each)).map(move |i| i * each..heads.min((i + 1) * each))
}

/// The ranges between starts.
fn windows(starts: &[usize]) -> impl Iterator<Item = Range<usize>> {
    starts.array_windows().map(|&[start, end]| start..end)
}

/// Cuts a range of query rows at the sequences of the batch.
pub(crate) fn sequences(
    shape: Shape,
    rows: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let q_len = shape.q_len.max(1);
    let mut next = rows.start;
    core::iter::from_fn(move || {
        if next >= rows.end {
            return None;
        }
        let batch = next / q_len;
        let end = rows.end.min((batch + 1) * q_len);
        let queries = next - batch * q_len..end - batch * q_len;
        next = end;
        Some((batch, queries))
    })
}
