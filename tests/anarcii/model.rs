//! The encoder and the decoder. Attention is the library's; the rest is [`crate::net`]'s.

use anyhow::Result;
use mha::{
    Cache, CacheConfig, Config, Dims, Inputs, Isa, Mask, MultiHeadAttention, Options, Outputs,
    Plain, Rules, Shape, WeightOrder, Weights,
};
use mha_nets::best;

use crate::net::{Embedding, FeedForward, Linear, Norm, Tensors};

/// Features of a token.
const WIDTH: usize = 128;

/// Features between the maps of a feed-forward.
const INNER: usize = 512;

/// Words of the decoder.
const WORDS: usize = 136;

/// The token of padding.
const PADDING: usize = 0;

/// The token that ends a sequence.
const END: usize = 2;

/// Both halves.
pub(crate) struct Model {
    on: On,
    encoder: Side,
    decoder: Side,
    logits: Linear,
}

/// How a layer is built, and the instructions it runs on.
#[derive(Clone, Copy)]
struct On {
    config: Config,
    isa: Isa,
}

/// What a source is decoded to.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// From the first token to the one that ends.
    pub(crate) tokens: Vec<usize>,
    /// The logit that won each token but the first.
    pub(crate) logits: Vec<f32>,
}

struct Side {
    embedding: Embedding,
    layers: Vec<Layer>,
}

struct Layer {
    itself: (Parameters, Norm),
    /// Over the encoder's output; the decoder alone has it.
    cross: Option<(Parameters, Norm)>,
    feed_forward: (FeedForward, Norm),
}

/// The weights of attention as PyTorch packs them.
struct Parameters {
    /// Queries, keys and values, one below the other: `[3 · WIDTH, WIDTH]`.
    packed: Vec<f32>,
    packed_bias: Vec<f32>,
    out: Vec<f32>,
    out_bias: Vec<f32>,
}

impl Parameters {
    fn read(tensors: &Tensors<'_>) -> Result<Self> {
        let tensors = tensors.at("multihead_attn");
        Ok(Self {
            packed: tensors.floats("in_proj_weight", WIDTH)?,
            packed_bias: tensors.floats("in_proj_bias", 3 * WIDTH)?,
            out: tensors.floats("out_proj.weight", WIDTH)?,
            out_bias: tensors.floats("out_proj.bias", WIDTH)?,
        })
    }

    /// The library's layer over them; it checks their sizes.
    fn layer(&self, on: On) -> Result<MultiHeadAttention<'_>> {
        let (wq, rest) = self.packed.split_at(self.packed.len() / 3);
        let (wk, wv) = rest.split_at(rest.len() / 2);
        let (bq, rest) = self.packed_bias.split_at(self.packed_bias.len() / 3);
        let (bk, bv) = rest.split_at(rest.len() / 2);
        let weights = Weights::new(wq, wk, wv, &self.out).biases(bq, bk, bv, &self.out_bias);
        Ok(MultiHeadAttention::with_isa(on.config, weights, on.isa)?)
    }

    /// A whole call.
    fn forward<R: Rules>(&self, on: On, shape: Shape, inputs: Inputs<'_, R>) -> Result<Vec<f32>> {
        let mut y = vec![0.0; on.config.y_len(shape)];
        let mut scratch = vec![0.0; on.config.scratch_len(shape)];
        self.layer(on)?.forward(shape, inputs, Outputs::new(&mut y), &mut scratch)?;
        Ok(y)
    }

    /// One query of each sequence over a cache.
    fn attend<R: Rules>(
        &self,
        on: On,
        cache: &Cache<'_>,
        inputs: Inputs<'_, R>,
    ) -> Result<Vec<f32>> {
        let mut y = vec![0.0; cache.config().batch * WIDTH];
        let mut scratch = vec![0.0; on.config.cached_scratch_len(1)];
        self.layer(on)?.attend(cache, 1, inputs, Outputs::new(&mut y), &mut scratch)?;
        Ok(y)
    }
}

impl Side {
    fn read(tensors: &Tensors<'_>, layers: usize, crosses: bool) -> Result<Self> {
        let layers = (0..layers).map(|i| {
            let tensors = tensors.at(&format!("layers.{i}"));
            let attention = |name, norm| -> Result<_> {
                Ok((Parameters::read(&tensors.at(name))?, Norm::read(&tensors.at(norm), WIDTH)?))
            };
            let cross = crosses.then(|| attention("encoder_attention", "enc_attn_layer_norm"));
            let feed_forward =
                FeedForward::read(&tensors.at("positionwise_feedforward"), WIDTH, INNER)?;
            Ok(Layer {
                itself: attention("self_attention", "self_attn_layer_norm")?,
                cross: cross.transpose()?,
                feed_forward: (feed_forward, Norm::read(&tensors.at("ff_layer_norm"), WIDTH)?),
            })
        });
        Ok(Self {
            embedding: Embedding::read(tensors, WIDTH)?,
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

impl Layer {
    /// The layer around its attentions: `itself` and `cross` compute them.
    fn run(
        &self,
        x: &mut [f32],
        itself: impl FnOnce(&Parameters, &[f32]) -> Result<Vec<f32>>,
        cross: impl FnOnce(&Parameters, &[f32]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let y = itself(&self.itself.0, x)?;
        self.itself.1.add(x, &y);
        if let Some((parameters, norm)) = &self.cross {
            let y = cross(parameters, x)?;
            norm.add(x, &y);
        }
        let y = self.feed_forward.0.of(x);
        self.feed_forward.1.add(x, &y);
        Ok(())
    }
}

/// Buffers of a cache.
struct Buffers {
    config: CacheConfig,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Buffers {
    fn new(config: &Config, batch: usize, capacity: usize) -> Self {
        let cache = CacheConfig::linear(capacity).batch(batch);
        let keys = vec![0.0; cache.keys_len(&config.attention)];
        let values = vec![0.0; cache.values_len(&config.attention)];
        Self { config: cache, keys, values }
    }

    fn cache(&mut self, config: &Config) -> Result<Cache<'_>> {
        Ok(Cache::new(self.config, &config.attention, &mut self.keys, &mut self.values)?)
    }
}

impl Model {
    pub(crate) fn read(
        tensors: &Tensors<'_>,
        layers: usize,
        heads: usize,
        isa: Isa,
    ) -> Result<Self> {
        let config = Config::new(Dims::square(WIDTH)).heads(heads).weight_order(WeightOrder::OutIn);
        let decoder = tensors.at("decoder");
        Ok(Self {
            on: On { config, isa },
            encoder: Side::read(&tensors.at("encoder"), layers, false)?,
            decoder: Side::read(&decoder, layers, true)?,
            logits: Linear::read(&decoder.at("fc_out"), WIDTH, WORDS)?,
        })
    }

    /// The encoder's output `[batch, longest, WIDTH]` for sources that are padded to the longest.
    fn encode(&self, sources: &[&[usize]], longest: usize) -> Result<Vec<f32>> {
        let mut x = Vec::new();
        for source in sources {
            let padding = std::iter::repeat(&PADDING);
            for (position, &token) in source.iter().chain(padding).take(longest).enumerate() {
                self.encoder.embedding.append(token, position, &mut x)?;
            }
        }
        let lens: Vec<_> = sources.iter().map(|source| source.len()).collect();
        let options = Options::new().lens(&lens);
        let shape = Shape::new(sources.len(), longest, longest);
        for layer in &self.encoder.layers {
            let itself = |parameters: &Parameters, x: &[f32]| {
                parameters.forward(self.on, shape, Inputs::itself(x).options(&options))
            };
            layer.run(&mut x, itself, |_, x| Ok(vec![0.0; x.len()]))?;
        }
        Ok(x)
    }

    /// Decodes sources side by side, greedily, one token a step over caches: the decoder's own keys
    /// and values grow by one position a step, those of the encoder's output are projected once.
    pub(crate) fn decode(&self, sources: &[&[usize]]) -> Result<Vec<Decoded>> {
        let (config, batch) = (&self.on.config, sources.len());
        let longest = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        let memory = self.encode(sources, longest)?;
        let lens: Vec<_> = sources.iter().map(|source| source.len()).collect();
        let padded = Options::new().lens(&lens);

        let new = || -> Vec<_> {
            self.decoder.layers.iter().map(|_| Buffers::new(config, batch, longest)).collect()
        };
        let (mut own, mut crossed) = (new(), new());
        let mut own: Vec<_> = own.iter_mut().map(|b| b.cache(config)).collect::<Result<_>>()?;
        let mut crossed: Vec<_> =
            crossed.iter_mut().map(|b| b.cache(config)).collect::<Result<_>>()?;
        for (layer, cache) in self.decoder.layers.iter().zip(&mut crossed) {
            if let Some((parameters, _)) = &layer.cross {
                parameters.layer(self.on)?.append(cache, &memory, &memory, Plain)?;
            }
        }

        // The first token is that of the source.
        let mut decoded: Vec<_> = sources
            .iter()
            .map(|source| Decoded { tokens: source[..1].to_vec(), logits: Vec::new() })
            .collect();
        for step in 0..longest {
            let mut x = Vec::new();
            for row in &decoded {
                self.decoder.embedding.append(row.tokens[step], step, &mut x)?;
            }
            // Positions that were decoded as padding are hidden.
            let real: Vec<_> =
                decoded.iter().flat_map(|row| row.tokens.iter().map(|&t| t != PADDING)).collect();
            let mask = Mask::bools(&real, [batch, 1, 1, step + 1]);
            for (i, layer) in self.decoder.layers.iter().enumerate() {
                let own = &mut own[i];
                let itself = |parameters: &Parameters, x: &[f32]| {
                    parameters.layer(self.on)?.append(own, x, x, Plain)?;
                    parameters.attend(self.on, own, Inputs::query(x).causal().mask(mask))
                };
                let cross = |parameters: &Parameters, x: &[f32]| {
                    parameters.attend(self.on, &crossed[i], Inputs::query(x).options(&padded))
                };
                layer.run(&mut x, itself, cross)?;
            }
            for (row, logits) in decoded.iter_mut().zip(self.logits.of(&x).chunks_exact(WORDS)) {
                row.tokens.push(best(logits));
                row.logits.push(logits[best(logits)]);
            }
        }
        for row in &mut decoded {
            // What comes after the end has no meaning.
            if let Some(end) = row.tokens.iter().position(|&token| token == END) {
                row.tokens.truncate(end + 1);
                row.logits.truncate(end);
            }
        }
        Ok(decoded)
    }

    /// The logits of tokens that are there already, all steps in one causal call: what training
    /// computes.
    pub(crate) fn whole(&self, source: &[usize], tokens: &[usize]) -> Result<Vec<f32>> {
        let memory = self.encode(&[source], source.len())?;
        let steps = tokens.len() - 1;
        let mut x = Vec::new();
        for (position, &token) in tokens[..steps].iter().enumerate() {
            self.decoder.embedding.append(token, position, &mut x)?;
        }
        let real: Vec<_> = tokens[..steps].iter().map(|&token| token != PADDING).collect();
        let mask = Mask::bools(&real, [1, 1, 1, steps]);
        for layer in &self.decoder.layers {
            let shape = |keys| Shape::new(1, steps, keys);
            let itself = |parameters: &Parameters, x: &[f32]| {
                let inputs = Inputs::itself(x).causal().mask(mask);
                parameters.forward(self.on, shape(steps), inputs)
            };
            let cross = |parameters: &Parameters, x: &[f32]| {
                parameters.forward(self.on, shape(source.len()), Inputs::cross(x, &memory))
            };
            layer.run(&mut x, itself, cross)?;
        }
        let logits = self.logits.of(&x);
        Ok(logits.chunks_exact(WORDS).zip(&tokens[1..]).map(|(row, &token)| row[token]).collect())
    }
}
