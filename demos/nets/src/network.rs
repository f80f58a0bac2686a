//! The network, generic over its sizes.
//!
//! A list of tokens goes through
//! ```text
//! x = tokens · embed + embed_bias + position            [n, WIDTH]
//! x = x + layer(rms_norm(x))                            mha's MultiHeadAttention
//! x = x + relu(rms_norm(x) · feed1 + …) · feed2 + …     [n, HIDDEN] in between, a row at a time
//! logits = mean of rms_norm(x) over the tokens · classifier + …
//! ```
//! Three buffers of `n · WIDTH` floats and one hidden row are all that the network needs beside the
//! layer's own scratch.

use mha::{
    Argument, Cache, Config, Dims, Error, Inputs, Isa, Mask, MultiHeadAttention, Outputs, Plain,
    Shape,
};

use crate::arithmetic::{add, affine, relu, rms_norm};

/// The attention in a forward pass, as an order to whoever computes it: this library by default
/// ([`Call::run`]), or one of its other doors.
#[derive(Debug)]
pub struct Call<'a> {
    /// Widths, heads, weight order.
    pub config: Config,
    /// Weights and biases of the four projections.
    pub weights: mha::Weights<'a>,
    /// One sequence; `q_len` is the number of valid tokens, `kv_len` of all.
    pub shape: Shape,
    /// The queries, `[q_len, WIDTH]`.
    pub q: &'a [f32],
    /// Keys and values, `[kv_len, WIDTH]`.
    pub kv: &'a [f32],
    /// Which keys are real, `[kv_len]`; none where all are.
    pub mask: Option<&'a [bool]>,
    /// The output, `[q_len, WIDTH]`.
    pub y: &'a mut [f32],
    /// The scores, `[HEADS, q_len, kv_len]`, where the caller wants them.
    pub scores: Option<&'a mut [f32]>,
    /// At least [`Config::min_scratch_len`] floats.
    pub scratch: &'a mut [f32],
}

impl Call<'_> {
    /// Computes it with this library.
    ///
    /// # Errors
    /// Those of [`MultiHeadAttention::forward`].
    pub fn run(self, isa: Isa) -> Result<(), Error> {
        let layer = MultiHeadAttention::with_isa(self.config, self.weights, isa)?;
        let mut inputs = Inputs::cross(self.q, self.kv);
        if let Some(mask) = self.mask {
            inputs = inputs.mask(Mask::bools(mask, [1, 1, 1, self.shape.kv_len]));
        }
        let mut outputs = Outputs::new(self.y);
        if let Some(scores) = self.scores {
            outputs = outputs.scores(scores);
        }
        layer.forward(self.shape, inputs, outputs, self.scratch)
    }
}

/// How many of a sequence's tokens there are, and how many of them are real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Tokens that keys and values are made of.
    pub(crate) tokens: usize,
    /// The leading tokens that ask, and that are pooled.
    pub(crate) valid: usize,
}

/// A network of one block with borrowed weights. `TOKEN` features a token, at most `TOKENS` tokens.
#[derive(Clone, Copy, Debug)]
pub struct Network<
    'w,
    const TOKEN: usize,
    const TOKENS: usize,
    const WIDTH: usize,
    const HEADS: usize,
    const HIDDEN: usize,
    const CLASSES: usize,
> {
    pub(crate) embed: &'w [[f32; WIDTH]],
    pub(crate) embed_bias: &'w [f32; WIDTH],
    pub(crate) position: &'w [[f32; WIDTH]],
    pub(crate) norm1: &'w [f32; WIDTH],
    pub(crate) layer: mha::Weights<'w>,
    pub(crate) norm2: &'w [f32; WIDTH],
    pub(crate) feed1: &'w [[f32; HIDDEN]],
    pub(crate) feed1_bias: &'w [f32; HIDDEN],
    pub(crate) feed2: &'w [[f32; WIDTH]],
    pub(crate) feed2_bias: &'w [f32; WIDTH],
    pub(crate) norm: &'w [f32; WIDTH],
    pub(crate) classifier: &'w [[f32; CLASSES]],
    pub(crate) classifier_bias: &'w [f32; CLASSES],
}

/// Cuts a row off the front.
const fn row<const N: usize>(flat: &[f32]) -> Option<(&[f32; N], &[f32])> {
    flat.split_first_chunk()
}

/// Cuts `count` rows off the front.
const fn rows<const N: usize>(flat: &[f32], count: usize) -> Option<(&[[f32; N]], &[f32])> {
    match flat.split_at_checked(count * N) {
        Some((rows, rest)) => Some((rows.as_chunks().0, rest)),
        None => None,
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
    /// The layer at the centre.
    pub const CONFIG: Config = Config::new(Dims::square(WIDTH)).heads(HEADS);

    /// How many parameters there are.
    pub const PARAMETERS: usize = (TOKEN + 1 + TOKENS) * WIDTH
        + 3 * WIDTH
        + Self::CONFIG.weights_len()
        + Self::CONFIG.biases_len()
        + (WIDTH + 1) * HIDDEN
        + (HIDDEN + 1) * WIDTH
        + (WIDTH + 1) * CLASSES;

    /// Floats of scratch with which the layer runs at full speed on `tokens` tokens.
    #[must_use]
    pub const fn scratch_len(tokens: usize) -> usize {
        let layer = Self::CONFIG.scratch_len(Shape::new(1, tokens, tokens));
        Self::own_len(tokens).saturating_add(layer)
    }

    /// The least floats of scratch that `tokens` tokens need; the bits are the same.
    #[must_use]
    pub const fn min_scratch_len(tokens: usize) -> usize {
        let layer = Self::CONFIG.min_scratch_len(Shape::new(1, tokens, tokens));
        Self::own_len(tokens).saturating_add(layer)
    }

    /// The network's part of it.
    const fn own_len(tokens: usize) -> usize {
        tokens.saturating_mul(3 * WIDTH).saturating_add(HIDDEN)
    }

    /// Takes a flat slice of [`Network::PARAMETERS`] floats apart, in the order: embed weight and
    /// bias, positions, gain 1, `wq wk wv wo bq bk bv bo`, gain 2, feed 1 weight and bias, feed 2
    /// weight and bias, last gain, classifier weight and bias. Matrices are `[in][out]`.
    ///
    /// # Errors
    /// [`Error::Length`] naming [`Argument::Weights`] for another length, and those of
    /// [`Config::check`].
    pub const fn from_flat(flat: &'w [f32]) -> Result<Self, Error> {
        let got = flat.len();
        let wrong = Error::Length { argument: Argument::Weights, needed: Self::PARAMETERS, got };
        if got != Self::PARAMETERS {
            return Err(wrong);
        }
        let Some((embed, flat)) = rows(flat, TOKEN) else { return Err(wrong) };
        let Some((embed_bias, flat)) = row(flat) else { return Err(wrong) };
        let Some((position, flat)) = rows(flat, TOKENS) else { return Err(wrong) };
        let Some((norm1, flat)) = row(flat) else { return Err(wrong) };
        let layer_len = Self::CONFIG.weights_len() + Self::CONFIG.biases_len();
        let Some((layer, flat)) = flat.split_at_checked(layer_len) else { return Err(wrong) };
        let layer = match mha::Weights::from_flat(&Self::CONFIG, layer) {
            Ok(layer) => layer,
            Err(error) => return Err(error),
        };
        let Some((norm2, flat)) = row(flat) else { return Err(wrong) };
        let Some((feed1, flat)) = rows(flat, WIDTH) else { return Err(wrong) };
        let Some((feed1_bias, flat)) = row(flat) else { return Err(wrong) };
        let Some((feed2, flat)) = rows(flat, HIDDEN) else { return Err(wrong) };
        let Some((feed2_bias, flat)) = row(flat) else { return Err(wrong) };
        let Some((norm, flat)) = row(flat) else { return Err(wrong) };
        let Some((classifier, flat)) = rows(flat, WIDTH) else { return Err(wrong) };
        let Some((classifier_bias, _)) = row(flat) else { return Err(wrong) };
        Ok(Self {
            embed,
            embed_bias,
            position,
            norm1,
            layer,
            norm2,
            feed1,
            feed1_bias,
            feed2,
            feed2_bias,
            norm,
            classifier,
            classifier_bias,
        })
    }

    /// The weights of the layer at the centre.
    #[must_use]
    pub const fn layer(&self) -> &mha::Weights<'w> {
        &self.layer
    }

    /// Logits of a sequence whose token `i` is `token(i)`; `attend` computes the layer.
    ///
    /// Where not all tokens are valid, the others are masked: they are keys that nobody may see,
    /// they ask nothing and are not pooled.
    pub(crate) fn forward(
        &self,
        extent: Extent,
        token: impl Fn(usize) -> [f32; TOKEN],
        logits: &mut [f32; CLASSES],
        scores: Option<&mut [f32]>,
        scratch: &mut [f32],
        attend: impl FnOnce(Call<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Extent { tokens, valid } = extent;
        if valid == 0 || valid > tokens || tokens > TOKENS {
            return Err(Error::Range { argument: Argument::Shape, len: TOKENS, end: tokens });
        }
        let got = scratch.len();
        let needed = Self::min_scratch_len(tokens);
        let short = Error::Length { argument: Argument::Scratch, needed, got };
        if got < needed {
            return Err(short);
        }
        let each = tokens * WIDTH;
        let Some((x, scratch)) = scratch.split_at_mut_checked(each) else { return Err(short) };
        let Some((normed, scratch)) = scratch.split_at_mut_checked(each) else { return Err(short) };
        let Some((y, scratch)) = scratch.split_at_mut_checked(valid * WIDTH) else {
            return Err(short);
        };
        let Some((hidden, scratch)) = scratch.split_first_chunk_mut::<HIDDEN>() else {
            return Err(short);
        };
        let x = x.as_chunks_mut::<WIDTH>().0;

        // 1. [x] = [tokens, WIDTH], [normed] = the same
        let rows = normed.as_chunks_mut::<WIDTH>().0;
        for (i, ((x, normed), position)) in x.iter_mut().zip(rows).zip(self.position).enumerate() {
            affine(&token(i), self.embed, self.embed_bias, x);
            add(x, position);
            rms_norm(x, self.norm1, normed);
        }

        // 2. [y] = [valid, WIDTH]
        let mut mask = [false; TOKENS];
        for seen in mask.iter_mut().take(valid) {
            *seen = true;
        }
        attend(Call {
            config: Self::CONFIG,
            weights: self.layer,
            shape: Shape::new(1, valid, tokens),
            q: normed.get(..valid * WIDTH).unwrap_or(&[]),
            kv: normed,
            mask: if valid < tokens { mask.get(..tokens) } else { None },
            y,
            scores,
            scratch,
        })?;

        // 3. Everything after the layer, a token at a time: the feed-forward, the last norm, the sum.
        let mut pooled = [0.0; WIDTH];
        let rows = normed.as_chunks_mut::<WIDTH>().0;
        let ys = y.as_chunks_mut::<WIDTH>().0;
        for ((x, normed), y) in x.iter_mut().zip(rows).zip(ys) {
            add(x, y);
            rms_norm(x, self.norm2, normed);
            affine(normed, self.feed1, self.feed1_bias, hidden);
            relu(hidden);
            affine(hidden, self.feed2, self.feed2_bias, y);
            add(x, y);
            rms_norm(x, self.norm, normed);
            add(&mut pooled, normed);
        }

        // 4. [logits] = [CLASSES]
        let count = valid as f32;
        for pooled in &mut pooled {
            *pooled /= count;
        }
        affine(&pooled, self.classifier, self.classifier_bias, logits);
        Ok(())
    }

    /// The next token of an endless sequence: it attends to what the cache still holds, itself among it,
    /// and what comes out of the network before pooling is written to `out`. The work does not depend on
    /// how many tokens there were, once the cache is full.
    pub(crate) fn step(
        &self,
        isa: Isa,
        cache: &mut Cache<'_>,
        token: &[f32; TOKEN],
        position: usize,
        out: &mut [f32; WIDTH],
        scratch: &mut [f32],
    ) -> Result<(), Error> {
        let (mut x, mut normed, mut y) = ([0.0; WIDTH], [0.0; WIDTH], [0.0; WIDTH]);
        affine(token, self.embed, self.embed_bias, &mut x);
        add(&mut x, self.position.get(position).unwrap_or(&[0.0; WIDTH]));
        rms_norm(&x, self.norm1, &mut normed);

        let layer = MultiHeadAttention::with_isa(Self::CONFIG, self.layer, isa)?;
        layer.append(cache, &normed, &normed, Plain)?;
        let inputs = Inputs::query(&normed).causal();
        layer.attend(&*cache, 1, inputs, Outputs::new(&mut y), scratch)?;

        let mut hidden = [0.0; HIDDEN];
        add(&mut x, &y);
        rms_norm(&x, self.norm2, &mut normed);
        affine(&normed, self.feed1, self.feed1_bias, &mut hidden);
        relu(&mut hidden);
        affine(&hidden, self.feed2, self.feed2_bias, &mut y);
        add(&mut x, &y);
        rms_norm(&x, self.norm, out);
        Ok(())
    }

    /// Logits of the mean of some of [`Network::step`]'s rows.
    pub(crate) fn classify_rows(&self, rows: &[[f32; WIDTH]], logits: &mut [f32; CLASSES]) {
        let mut pooled = [0.0; WIDTH];
        for row in rows {
            add(&mut pooled, row);
        }
        let count = rows.len() as f32;
        for pooled in &mut pooled {
            *pooled /= count;
        }
        affine(&pooled, self.classifier, self.classifier_bias, logits);
    }
}
