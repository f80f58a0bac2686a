//! The way back through the network: gradients of all of its parameters, or of those that shall learn.
//!
//! [`Network::learn`] goes forward through one sequence, hands the logits to the caller's loss, and goes
//! back from the gradient that it gets. What is after the layer is computed a second time on the way back,
//! a token at a time, so that nothing but three rows a token is kept, and of what nobody wants a gradient
//! of, nothing is computed.

use mha::{
    Argument, BackwardError, Config, Error, Inputs, Isa, MultiHeadAttention, Outputs, Shape,
    Upstream,
};

use crate::arithmetic::{add, affine, affine_back, outer, relu, rms_norm, rms_norm_back};
use crate::network::Network;

/// Dropout while learning: of scores, and of what the layer and the feed-forward add to a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// How likely a number is dropped.
    pub p: f32,
    /// What decides which: another one for every sequence.
    pub seed: u64,
}

impl Dropout {
    /// Drops elements of a token's row after one of the branches and scales the others.
    fn apply(self, branch: u64, token: usize, row: &mut [f32]) {
        let threshold = (self.p * 16_777_216.0) as u32;
        let survivor = 1.0 / (1.0 - self.p);
        for (i, x) in row.iter_mut().enumerate() {
            let at = branch << 32 | (token as u64) << 16 | i as u64;
            let word = mix(self.seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            *x = if ((word >> 40) as u32) < threshold { 0.0 } else { *x * survivor };
        }
    }
}

/// SplitMix64's output (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, 2014).
fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Numbers of the branches.
const LAYER: u64 = 1;
const FEED: u64 = 2;

/// Where the gradients go: those that are wanted, each in the form of its parameter. They are added to
/// what is there.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the parameters of the network, by their names")]
pub struct Gradients<'g, const WIDTH: usize, const HIDDEN: usize, const CLASSES: usize> {
    pub embed: Option<&'g mut [[f32; WIDTH]]>,
    pub embed_bias: Option<&'g mut [f32; WIDTH]>,
    pub position: Option<&'g mut [[f32; WIDTH]]>,
    pub norm1: Option<&'g mut [f32; WIDTH]>,
    /// Those of the layer's inputs are not the caller's to ask for, and `accumulate` is always meant.
    pub layer: mha::Gradients<'g>,
    pub norm2: Option<&'g mut [f32; WIDTH]>,
    pub feed1: Option<&'g mut [[f32; HIDDEN]]>,
    pub feed1_bias: Option<&'g mut [f32; HIDDEN]>,
    pub feed2: Option<&'g mut [[f32; WIDTH]]>,
    pub feed2_bias: Option<&'g mut [f32; WIDTH]>,
    pub norm: Option<&'g mut [f32; WIDTH]>,
    pub classifier: Option<&'g mut [[f32; CLASSES]]>,
    pub classifier_bias: Option<&'g mut [f32; CLASSES]>,
}

impl<const WIDTH: usize, const HIDDEN: usize, const CLASSES: usize>
    Gradients<'_, WIDTH, HIDDEN, CLASSES>
{
    /// Whether something under the layer is wanted, so that the way back goes through its inputs.
    fn below(&self) -> bool {
        self.embed.is_some()
            || self.embed_bias.is_some()
            || self.position.is_some()
            || self.norm1.is_some()
    }

    /// Whether something of the layer or under it is wanted.
    fn layer_or_below(&self) -> bool {
        let layer = &self.layer;
        let matrices = [&layer.wq, &layer.wk, &layer.wv, &layer.wo];
        let biases = [&layer.bq, &layer.bk, &layer.bv, &layer.bo];
        self.below() || matrices.into_iter().chain(biases).any(Option::is_some)
    }
}

/// A parameter of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the model's file.
    pub name: &'static str,
    /// Rows of a matrix; none where it is a vector.
    pub rows: Option<usize>,
    /// Elements of a row, or of the vector.
    pub columns: usize,
}

impl Tensor {
    const fn matrix(name: &'static str, rows: usize, columns: usize) -> Self {
        Self { name, rows: Some(rows), columns }
    }

    const fn vector(name: &'static str, columns: usize) -> Self {
        Self { name, rows: None, columns }
    }

    /// How many numbers it is.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub const fn len(&self) -> usize {
        match self.rows {
            Some(rows) => rows * self.columns,
            None => self.columns,
        }
    }
}

/// A message for a gradient of the wrong length.
const fn check(needed: usize, got: Option<usize>) -> Result<(), BackwardError> {
    match got {
        Some(got) if got != needed => {
            Err(BackwardError::Gradient { of: Argument::Weights, needed, got })
        }
        _ => Ok(()),
    }
}

impl<
    'w,
    const TOKEN: usize,
    const TOKENS: usize,
    const WIDTH: usize,
    const HEADS: usize,
    const HIDDEN: usize,
    const CLASSES: usize,
> Network<'w, TOKEN, TOKENS, WIDTH, HEADS, HIDDEN, CLASSES>
{
    /// The parameters in the order of [`Network::from_flat`].
    pub const TENSORS: [Tensor; 20] = [
        Tensor::matrix("embed.weight", TOKEN, WIDTH),
        Tensor::vector("embed.bias", WIDTH),
        Tensor::matrix("position", TOKENS, WIDTH),
        Tensor::vector("block0.norm1.gain", WIDTH),
        Tensor::matrix("block0.attention.wq", WIDTH, WIDTH),
        Tensor::matrix("block0.attention.wk", WIDTH, WIDTH),
        Tensor::matrix("block0.attention.wv", WIDTH, WIDTH),
        Tensor::matrix("block0.attention.wo", WIDTH, WIDTH),
        Tensor::vector("block0.attention.bq", WIDTH),
        Tensor::vector("block0.attention.bk", WIDTH),
        Tensor::vector("block0.attention.bv", WIDTH),
        Tensor::vector("block0.attention.bo", WIDTH),
        Tensor::vector("block0.norm2.gain", WIDTH),
        Tensor::matrix("block0.feed1.weight", WIDTH, HIDDEN),
        Tensor::vector("block0.feed1.bias", HIDDEN),
        Tensor::matrix("block0.feed2.weight", HIDDEN, WIDTH),
        Tensor::vector("block0.feed2.bias", WIDTH),
        Tensor::vector("norm.gain", WIDTH),
        Tensor::matrix("classifier.weight", WIDTH, CLASSES),
        Tensor::vector("classifier.bias", CLASSES),
    ];

    /// Floats of scratch with which [`Network::learn`] runs at full speed on `tokens` tokens; `below` says
    /// whether something under the layer learns (embedding, positions, the first gain).
    #[must_use]
    pub const fn learn_scratch_len(tokens: usize, below: bool) -> usize {
        let (shape, config) = (Shape::new(1, tokens, tokens), Self::CONFIG);
        let (forward, back) = (config.scratch_len(shape), config.backward_scratch_len(shape));
        let layer = if forward > back { forward } else { back };
        Self::own_learn_len(tokens, below).saturating_add(layer)
    }

    /// The least floats of scratch that [`Network::learn`] needs on `tokens` tokens.
    #[must_use]
    pub const fn min_learn_scratch_len(tokens: usize, below: bool) -> usize {
        let (shape, config) = (Shape::new(1, tokens, tokens), Self::CONFIG);
        let forward = config.min_scratch_len(shape);
        let back = config.min_backward_scratch_len(shape);
        let layer = if forward > back { forward } else { back };
        Self::own_learn_len(tokens, below).saturating_add(layer)
    }

    /// The network's part of it.
    const fn own_learn_len(tokens: usize, below: bool) -> usize {
        let rows = if below { 6 } else { 3 };
        tokens.saturating_mul(rows * WIDTH).saturating_add(2 * HIDDEN)
    }

    /// Gradients of everything, in a flat slice in the order of [`Network::from_flat`].
    ///
    /// # Errors
    /// [`Error::Length`] naming [`Argument::Weights`] for another length.
    pub fn gradients(flat: &mut [f32]) -> Result<Gradients<'_, WIDTH, HIDDEN, CLASSES>, Error> {
        let got = flat.len();
        let wrong = Error::Length { argument: Argument::Weights, needed: Self::PARAMETERS, got };
        if got != Self::PARAMETERS {
            return Err(wrong);
        }
        let mut rest = flat;
        let layer_len = Self::CONFIG.weights_len() + Self::CONFIG.biases_len();
        Ok(Gradients {
            embed: rows(&mut rest, TOKEN),
            embed_bias: row(&mut rest),
            position: rows(&mut rest, TOKENS),
            norm1: row(&mut rest),
            layer: match cut(&mut rest, layer_len) {
                Some(layer) => mha::Gradients::from_flat(&Self::CONFIG, layer)?,
                None => return Err(wrong),
            },
            norm2: row(&mut rest),
            feed1: rows(&mut rest, WIDTH),
            feed1_bias: row(&mut rest),
            feed2: rows(&mut rest, HIDDEN),
            feed2_bias: row(&mut rest),
            norm: row(&mut rest),
            classifier: rows(&mut rest, WIDTH),
            classifier_bias: row(&mut rest),
        })
    }

    /// Goes forward through a sequence, calls `loss` with the logits for the loss and its gradient with
    /// respect to them, goes back, and adds to the gradients that are wanted. Returns the loss.
    ///
    /// # Errors
    /// [`Error::Range`] for a sequence without a token or with too many; [`Error::Length`] for scratch
    /// below [`Network::min_learn_scratch_len`]; [`BackwardError::Gradient`] for a gradient of another
    /// length than its parameter; those of [`MultiHeadAttention::backward`]. Gradients are untouched then.
    pub fn learn(
        &self,
        isa: Isa,
        tokens: &[[f32; TOKEN]],
        dropout: Option<Dropout>,
        loss: impl FnOnce(&[f32; CLASSES], &mut [f32; CLASSES]) -> f32,
        gradients: &mut Gradients<'_, WIDTH, HIDDEN, CLASSES>,
        scratch: &mut [f32],
    ) -> Result<f32, BackwardError> {
        let n = tokens.len();
        if n == 0 || n > TOKENS {
            return Err(Error::Range { argument: Argument::Shape, len: TOKENS, end: n }.into());
        }
        Self::check(gradients)?;
        let below = gradients.below();
        let (got, needed) = (scratch.len(), Self::min_learn_scratch_len(n, below));
        if got < needed {
            return Err(Error::Length { argument: Argument::Scratch, needed, got }.into());
        }
        let mut rest = scratch;
        let mut next = |len| cut(&mut rest, len).unwrap_or_default();
        let each = n * WIDTH;
        let (xs, normed, ys) = (next(each), next(each), next(each));
        let inputs = if below { each } else { 0 };
        let (dq, dk, dv) = (next(inputs), next(inputs), next(inputs));
        let (hidden, d_hidden) = (next(HIDDEN), next(HIDDEN));
        let (Some(hidden), Some(d_hidden)) = (hidden.first_chunk_mut(), d_hidden.first_chunk_mut())
        else {
            return Err(Error::Length { argument: Argument::Scratch, needed, got }.into());
        };
        let scratch = rest;
        let xs = xs.as_chunks_mut::<WIDTH>().0;

        // 1. [x] = [n, WIDTH], [normed] = the same
        let rows = normed.as_chunks_mut::<WIDTH>().0;
        for (i, ((x, normed), token)) in xs.iter_mut().zip(rows).zip(tokens).enumerate() {
            self.embedded(i, token, x);
            rms_norm(x, self.norm1, normed);
        }

        // 2. [y] = [n, WIDTH], [x] += [y]
        let layer = MultiHeadAttention::with_isa(Self::CONFIG, self.layer, isa)?;
        let shape = Shape::new(1, n, n);
        let mut asked = Inputs::cross(normed, normed);
        if let Some(Dropout { p, seed }) = dropout {
            asked = asked.dropout(mha::Dropout::new(p, seed));
        }
        layer.forward(shape, asked, Outputs::new(ys), scratch)?;
        let ys = ys.as_chunks_mut::<WIDTH>().0;
        for (i, (x, y)) in xs.iter_mut().zip(&mut *ys).enumerate() {
            if let Some(dropout) = dropout {
                dropout.apply(LAYER, i, y);
            }
            add(x, y);
        }

        // 3. [pooled] = [WIDTH], [logits] = [CLASSES]
        let mut pooled = [0.0; WIDTH];
        for (i, x) in xs.iter().enumerate() {
            let after = self.after(i, x, dropout, hidden);
            add(&mut pooled, &after.out);
        }
        let count = n as f32;
        for pooled in &mut pooled {
            *pooled /= count;
        }
        let (mut logits, mut d_logits) = ([0.0; CLASSES], [0.0; CLASSES]);
        affine(&pooled, self.classifier, self.classifier_bias, &mut logits);
        let loss = loss(&logits, &mut d_logits);

        // 4. Back to a token's share of the mean.
        if let Some(gradient) = &mut gradients.classifier_bias {
            add(gradient, &d_logits);
        }
        if let Some(gradient) = &mut gradients.classifier {
            outer(&pooled, &d_logits, gradient);
        }
        let mut d_out = [0.0; WIDTH];
        affine_back(self.classifier, &d_logits, &mut d_out);
        for d in &mut d_out {
            *d /= count;
        }

        // 5. Back through the feed-forward, a token at a time: [x] becomes its gradient, and so does [y].
        for (i, (x, y)) in xs.iter_mut().zip(&mut *ys).enumerate() {
            let After { normed, x: x2, .. } = self.after(i, x, dropout, hidden);
            let mut dx = [0.0; WIDTH];
            rms_norm_back(&x2, self.norm, &d_out, &mut dx, gradients.norm.as_deref_mut());
            let mut d_feed = dx;
            if let Some(dropout) = dropout {
                dropout.apply(FEED, i, &mut d_feed);
            }
            if let Some(gradient) = &mut gradients.feed2_bias {
                add(gradient, &d_feed);
            }
            if let Some(gradient) = &mut gradients.feed2 {
                outer(hidden, &d_feed, gradient);
            }
            affine_back(self.feed2, &d_feed, d_hidden);
            for (d, &hidden) in d_hidden.iter_mut().zip(&*hidden) {
                *d = if hidden > 0.0 { *d } else { 0.0 };
            }
            if let Some(gradient) = &mut gradients.feed1_bias {
                add(gradient, d_hidden);
            }
            if let Some(gradient) = &mut gradients.feed1 {
                outer(&normed, d_hidden, gradient);
            }
            let mut d_normed = [0.0; WIDTH];
            affine_back(self.feed1, d_hidden, &mut d_normed);
            rms_norm_back(x, self.norm2, &d_normed, &mut dx, gradients.norm2.as_deref_mut());
            *x = dx;
            *y = dx;
            if let Some(dropout) = dropout {
                dropout.apply(LAYER, i, y);
            }
        }
        if !gradients.layer_or_below() {
            return Ok(loss);
        }

        // 6. Back through the layer: [dq] = [dk] = [dv] = [n, WIDTH], added to nothing.
        for gradient in [&mut *dq, &mut *dk, &mut *dv] {
            gradient.fill(0.0);
        }
        let of = &mut gradients.layer;
        let wanted = mha::Gradients {
            q: below.then_some(&mut *dq),
            k: below.then_some(&mut *dk),
            v: below.then_some(&mut *dv),
            wq: of.wq.as_deref_mut(),
            wk: of.wk.as_deref_mut(),
            wv: of.wv.as_deref_mut(),
            wo: of.wo.as_deref_mut(),
            bq: of.bq.as_deref_mut(),
            bk: of.bk.as_deref_mut(),
            bv: of.bv.as_deref_mut(),
            bo: of.bo.as_deref_mut(),
            accumulate: true,
            ..mha::Gradients::default()
        };
        layer.backward(shape, asked, Upstream::new(ys.as_flattened()), wanted, scratch)?;
        if !below {
            return Ok(loss);
        }

        // 7. Back to the tokens. What went into the norm is computed again.
        let rows = dq.as_chunks::<WIDTH>().0.iter().zip(dk.as_chunks().0).zip(dv.as_chunks().0);
        for (i, ((dx, token), ((dq, dk), dv))) in xs.iter_mut().zip(tokens).zip(rows).enumerate() {
            let (mut x, mut d_normed) = ([0.0; WIDTH], *dq);
            self.embedded(i, token, &mut x);
            add(&mut d_normed, dk);
            add(&mut d_normed, dv);
            rms_norm_back(&x, self.norm1, &d_normed, dx, gradients.norm1.as_deref_mut());
            if let Some(row) = gradients.position.as_deref_mut().and_then(|rows| rows.get_mut(i)) {
                add(row, dx);
            }
            if let Some(gradient) = &mut gradients.embed_bias {
                add(gradient, dx);
            }
            if let Some(gradient) = &mut gradients.embed {
                outer(token, dx, gradient);
            }
        }
        Ok(loss)
    }

    /// A token as it enters the block.
    fn embedded(&self, i: usize, token: &[f32; TOKEN], x: &mut [f32; WIDTH]) {
        affine(token, self.embed, self.embed_bias, x);
        if let Some(position) = self.position.get(i) {
            add(x, position);
        }
    }

    /// What comes after the layer for one token; `hidden` is left as the feed-forward has it inside.
    fn after(
        &self,
        i: usize,
        x: &[f32; WIDTH],
        dropout: Option<Dropout>,
        hidden: &mut [f32; HIDDEN],
    ) -> After<WIDTH> {
        let mut after = After { normed: [0.0; WIDTH], x: *x, out: [0.0; WIDTH] };
        rms_norm(x, self.norm2, &mut after.normed);
        affine(&after.normed, self.feed1, self.feed1_bias, hidden);
        relu(hidden);
        let mut fed = [0.0; WIDTH];
        affine(hidden, self.feed2, self.feed2_bias, &mut fed);
        if let Some(dropout) = dropout {
            dropout.apply(FEED, i, &mut fed);
        }
        add(&mut after.x, &fed);
        rms_norm(&after.x, self.norm, &mut after.out);
        after
    }

    /// Checks what the types leave open.
    fn check(gradients: &Gradients<'_, WIDTH, HIDDEN, CLASSES>) -> Result<(), BackwardError> {
        fn len<const N: usize>(rows: &Option<&mut [[f32; N]]>) -> Option<usize> {
            rows.as_ref().map(|rows| rows.len())
        }
        fn flat(gradient: &Option<&mut [f32]>) -> Option<usize> {
            gradient.as_ref().map(|gradient| gradient.len())
        }
        let (config, layer): (Config, _) = (Self::CONFIG, &gradients.layer);
        check(TOKEN, len(&gradients.embed))?;
        check(TOKENS, len(&gradients.position))?;
        check(WIDTH, len(&gradients.feed1))?;
        check(HIDDEN, len(&gradients.feed2))?;
        check(WIDTH, len(&gradients.classifier))?;
        check(config.wq_len(), flat(&layer.wq))?;
        check(config.wk_len(), flat(&layer.wk))?;
        check(config.wv_len(), flat(&layer.wv))?;
        check(config.wo_len(), flat(&layer.wo))?;
        for bias in [&layer.bq, &layer.bk, &layer.bv, &layer.bo] {
            check(WIDTH, flat(bias))?;
        }
        Ok(())
    }
}

/// A token after the layer.
struct After<const WIDTH: usize> {
    /// What the feed-forward is given.
    normed: [f32; WIDTH],
    /// With what the feed-forward added.
    x: [f32; WIDTH],
    /// What is pooled.
    out: [f32; WIDTH],
}

/// Cuts `len` off the front.
fn cut<'g>(rest: &mut &'g mut [f32], len: usize) -> Option<&'g mut [f32]> {
    let (front, back) = core::mem::take(rest).split_at_mut_checked(len)?;
    *rest = back;
    Some(front)
}

/// Cuts a row off the front.
fn row<'g, const N: usize>(rest: &mut &'g mut [f32]) -> Option<&'g mut [f32; N]> {
    cut(rest, N)?.first_chunk_mut()
}

/// Cuts `count` rows off the front.
fn rows<'g, const N: usize>(rest: &mut &'g mut [f32], count: usize) -> Option<&'g mut [[f32; N]]> {
    Some(cut(rest, count * N)?.as_chunks_mut().0)
}
