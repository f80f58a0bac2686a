//! The Rust door's way through a cache: the past goes in as it is, then the new keys and values with
//! their options, then the queries attend.

use anyhow::Result;
use mha::{
    Attention, Cache, CacheConfig, Config, Inputs, Isa, MultiHeadAttention, Outputs, Plain,
    dot_product_attention_cached,
};

use crate::call::{Answer, Call, Operation};
use crate::door::{Scratch, buffer, weights};
use crate::rotation::key;

/// Carries out a call that takes a cache.
pub(crate) fn run(call: &Call, isa: Isa, scratch: Scratch) -> Result<Answer> {
    let attention = call.attention();
    let (batch, q_len) = (call.shape.batch, call.shape.q_len);
    let capacity = call.past_len() + call.shape.kv_len;
    let config = CacheConfig::linear(capacity).batch(batch);
    let mut keys = buffer(config.keys_len(&attention))?;
    let mut values = buffer(config.values_len(&attention))?;
    let mut cache = Cache::new(config, &attention, &mut keys, &mut values)?;
    let (mut y, mut scores) = (buffer(call.y_len())?, buffer(call.scores_len())?);
    let mut outputs = Outputs::new(&mut y);
    if let Some(at) = call.scores {
        outputs = outputs.scores(&mut scores).scores_at(at);
    }
    if let Some(past) = &call.family.past {
        cache.append(&past.k, &past.v, Plain)?;
    }
    let options = call.family.options().unwrap_or_default();
    let inputs = call.around(Inputs::query(&call.q)).options(&options);
    match &call.operation {
        Operation::Layer(config, parameters) => {
            let layer = MultiHeadAttention::with_isa(*config, weights(parameters), isa)?;
            layer.append(&mut cache, call.keys(), call.values(), &options)?;
            let mut scratch = buffer(layer_scratch(config, scratch, q_len))?;
            layer.attend(&cache, q_len, inputs, outputs, &mut scratch)?;
        }
        _ => {
            cache.append(call.keys(), call.values(), &options)?;
            let length = match scratch {
                Scratch::Recommended => attention.scratch_len(call.shape),
                Scratch::Minimum => attention.min_scratch_len(),
            };
            let mut scratch = buffer(length)?;
            dot_product_attention_cached(
                attention,
                isa,
                &cache,
                q_len,
                inputs,
                outputs,
                &mut scratch,
            )?;
        }
    }
    let present = call.family.present.then(|| present(&attention, &config, &keys, &values));
    Ok(Answer { y, scores, present, gradients: Default::default() })
}

fn layer_scratch(config: &Config, scratch: Scratch, q_len: usize) -> usize {
    match scratch {
        Scratch::Recommended => config.cached_scratch_len(q_len),
        Scratch::Minimum => config.min_cached_scratch_len(),
    }
}

/// What a full cache holds, as cases have it: `[batch, kv_heads, positions, d]`.
fn present(
    attention: &Attention,
    config: &CacheConfig,
    keys: &[f32],
    values: &[f32],
) -> [Vec<f32>; 2] {
    let Attention { heads, kv_heads, qk, v, .. } = *attention;
    let (d, d_v) = (qk / heads, v / heads);
    let mut out = [Vec::new(), Vec::new()];
    let each = keys.len().checked_div(config.batch * kv_heads).unwrap_or(0);
    for head in 0..config.batch * kv_heads {
        for i in 0..config.capacity {
            out[0].extend((0..d).map(|e| key(&keys[head * each..], d, i, e)));
            out[1].extend(&values[(head * config.capacity + i) * d_v..][..d_v]);
        }
    }
    out
}
