//! A composition through the library, and through the oracle.

use core::cell::Cell;

use mha::{
    Alibi, Attention, Broadcast, Cache, CacheConfig, Causal, Config, Dims, Error, Extra, Inputs,
    Isa, Mask, MultiHeadAttention, Norm, NormKind, Options, Outputs, Plain, Rope, ScoresAt,
    Segments, Select, Shape, WeightOrder, Weights, Window,
};
use mha_family_oracle::oracle::{self, attend};
use mha_family_oracle::steps::{dense, normalise, slopes};

use crate::data::Data;
use crate::spec::{Layer, Position, Slopes, Spec, Stage, Which};

/// y, scores, log-sum-exps.
pub(crate) type Answer<T> = [Vec<T>; 3];

/// Rows `from .. to` of each sequence of `[batch, length, width]`.
fn piece(data: &[f32], batch: usize, length: usize, from: usize, to: usize) -> Vec<f32> {
    let width = data.len().checked_div(batch * length).unwrap_or(0);
    let rows = |b: usize| &data[(b * length + from) * width..(b * length + to) * width];
    (0..batch).flat_map(rows).copied().collect()
}

pub(crate) fn library(spec: &Spec, data: &Data) -> Result<Answer<f32>, Error> {
    let Spec { batch, q_len, kv_len, past, kv_heads, d, d_v, .. } = *spec;
    let (heads, keys) = (spec.heads(), spec.keys());
    let mut attention = Attention::new(heads, heads * d, heads * d_v).kv_heads(kv_heads);
    attention.scale = spec.scale;
    let available: Vec<Isa> = Isa::available().collect();
    let isa = available[spec.isa % available.len()];

    let columns = keys - spec.gone().len();
    let select = spec.scores.map_or(Select::All, |(_, which)| match which {
        Which::All => Select::All,
        Which::Head(head) => Select::Head(head),
        Which::Mean => Select::Mean,
    });
    let out = spec.layer.as_ref().map_or(heads * d_v, |layer| layer.widths[3]);
    let mut y = vec![f32::NAN; batch * q_len * out];
    let rows = if select == Select::All { heads } else { 1 };
    let mut scores =
        vec![f32::NAN; spec.scores.map_or(0, |_| batch * rows * spec.scored().len() * columns)];
    let mut lse = vec![f32::NAN; if spec.lse { batch * heads * q_len } else { 0 }];
    let mut outputs = Outputs::new(&mut y);
    if let Some((stage, _)) = spec.scores {
        outputs = outputs.scores(&mut scores).scores_at(match stage {
            Stage::Logits => ScoresAt::Logits,
            Stage::Capped => ScoresAt::Capped,
            Stage::Masked => ScoresAt::Masked,
            Stage::Softmax => ScoresAt::Softmax,
        });
    }

    fn rule(position: Position, each: &[isize]) -> Causal<'_> {
        match position {
            Position::Natural => Causal::Natural,
            Position::Offset(offset) => Causal::Offset(offset),
            Position::PerSequence => Causal::PerSequence(each),
        }
    }
    let cells = Cell::from_mut(lse.as_mut_slice()).as_slice_of_cells();
    let options = Options {
        offset: spec.offset.map(|position| rule(position, &data.offset_each)),
        window: Window { left: spec.window.0, right: spec.window.1 },
        lens: spec.lens.then_some(&data.lens),
        softcap: spec.softcap,
        alibi: spec.alibi.map(|slopes| match slopes {
            Slopes::Standard => Alibi::Standard,
            Slopes::Given => Alibi::Slopes(&data.slopes),
        }),
        rope: spec.rope.map(|rope| Rope {
            dims: rope.dims,
            interleaved: rope.interleaved,
            q_offset: rope.q_offset,
            k_offset: rope.k_offset,
            ..if rope.table { Rope::table(&data.cos, &data.sin) } else { Rope::new(rope.base) }
        }),
        sinks: spec.sinks.then_some(&data.sinks),
        norm: spec.norm.map(|norm| Norm {
            kind: if norm.sum { NormKind::L2 } else { NormKind::Rms },
            epsilon: norm.epsilon,
            q_gain: norm.gains[0].then_some(&data.gains[0]),
            k_gain: norm.gains[1].then_some(&data.gains[1]),
        }),
        segments: spec.segments.then_some(Segments { q: &data.q_segments, kv: &data.kv_segments }),
        extra: spec.extra.then_some(Extra { k: &data.extra_k, v: &data.extra_v }),
        scores: select,
        score_queries: spec.part,
        lse: spec.lse.then_some(cells),
    };

    let mut inputs = match spec.cache {
        Some(_) => Inputs::query(&data.q),
        None => Inputs::new(&data.q, &data.k, &data.v),
    };
    if let Some(bias) = &data.bias {
        inputs = inputs.bias(Broadcast::new(&bias.data, bias.extents));
    }
    if let Some(mask) = &data.mask {
        let bools = Mask::bools(&mask.data, mask.extents);
        inputs = inputs.mask(if spec.excluding { bools.excluding() } else { bools });
    }
    if let Some(position) = spec.causal {
        inputs = inputs.causal_from(rule(position, &data.causal_each));
    }
    let inputs = inputs.options(&options);

    let config = spec.layer.as_ref().map(|layer| {
        let [q_in, k_in, v_in, out] = layer.widths;
        let order = if layer.out_in { WeightOrder::OutIn } else { WeightOrder::InOut };
        let dims = Dims::new((q_in, k_in, v_in), (heads * d, heads * d_v), out);
        Config { attention, ..Config::new(dims).weight_order(order) }
    });
    let [wq, wk, wv, wo] = &data.weights;
    let [bq, bk, bv, bo] = data.biases.each_ref().map(Option::as_deref);
    let weights = Weights { bq, bk, bv, bo, ..Weights::new(wq, wk, wv, wo) };
    let shape = Shape::new(batch, q_len, kv_len);
    let scratch =
        |most: usize, least: usize| vec![f32::NAN; if spec.least_scratch { least } else { most }];
    match (spec.cache, config) {
        (None, Some(config)) => {
            let mut scratch = scratch(config.scratch_len(shape), config.min_scratch_len(shape));
            let layer = MultiHeadAttention::with_isa(config, weights, isa)?;
            layer.forward(shape, inputs, outputs, &mut scratch)?;
        }
        (None, None) => {
            let mut scratch = scratch(attention.scratch_len(shape), attention.min_scratch_len());
            mha::dot_product_attention(attention, isa, shape, inputs, outputs, &mut scratch)?;
        }
        (Some(kind), config) => {
            let layer = config
                .map(|config| MultiHeadAttention::with_isa(config, weights, isa))
                .transpose()?;
            let cache_config = match kind.ring {
                None => CacheConfig::linear(keys),
                Some((turn, pinned)) => CacheConfig::ring(turn + pinned).pinned(pinned),
            };
            let cache_config = cache_config.batch(batch);
            let mut k = vec![f32::NAN; cache_config.keys_len(&attention)];
            let mut v = vec![f32::NAN; cache_config.values_len(&attention)];
            let mut cache = Cache::new(cache_config, &attention, &mut k, &mut v)?;
            let step = kind.ring.map_or(usize::MAX, |(turn, _)| turn);
            for from in (0..past).step_by(step) {
                let to = past.min(from.saturating_add(step));
                let part = |data: &[f32]| piece(data, batch, past, from, to);
                cache.append(&part(&data.past_k), &part(&data.past_v), Plain)?;
            }
            let step = step.min(kind.piece);
            for from in (0..kv_len).step_by(step) {
                let to = kv_len.min(from + step);
                let part = |data: &[f32]| piece(data, batch, kv_len, from, to);
                let rope = options.rope.map(|rope| Rope {
                    k_offset: rope.k_offset.map(|offset| offset + from),
                    ..rope
                });
                let options = Options { rope, ..options };
                match &layer {
                    Some(layer) => {
                        layer.append(&mut cache, &part(&data.k), &part(&data.v), &options)?;
                    }
                    None => cache.append(&part(&data.k), &part(&data.v), &options)?,
                }
            }
            match layer {
                Some(layer) => {
                    let config = layer.config();
                    let mut scratch =
                        scratch(config.cached_scratch_len(q_len), config.min_cached_scratch_len());
                    layer.attend(&cache, q_len, inputs, outputs, &mut scratch)?;
                }
                None => {
                    let mut scratch =
                        scratch(attention.scratch_len(shape), attention.min_scratch_len());
                    mha::dot_product_attention_cached(
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
        }
    }
    Ok([y, scores, lse])
}

fn wide(data: &[f32]) -> Vec<f64> {
    data.iter().map(|x| f64::from(*x)).collect()
}

/// One sequence after another, so that each can have positions of its own.
pub(crate) fn expected(spec: &Spec, data: &Data) -> Answer<f64> {
    let Spec { batch, q_len, kv_len, past, kv_heads, d, d_v, .. } = *spec;
    let (heads, keys) = (spec.heads(), spec.keys());
    let none = Layer { widths: [1; 4], out_in: false, biases: [false; 4] };
    let layer = spec.layer.as_ref().unwrap_or(&none);
    let project = |x: &[f64], which: usize, inner: usize| {
        if spec.layer.is_none() {
            return x.to_vec();
        }
        let (inputs, outputs) =
            if which == 3 { (inner, layer.widths[3]) } else { (layer.widths[which], inner) };
        let bias = data.biases[which].as_deref().map(wide).unwrap_or_default();
        dense(x, inputs, outputs, |i, o| data.weight(layer, which, [i, o, inputs, outputs]), &bias)
    };
    let slopes = match spec.alibi {
        None => Vec::new(),
        Some(Slopes::Standard) => slopes(heads),
        Some(Slopes::Given) => wide(&data.slopes),
    };
    // The extra key is the first of the past: seen by all, rotated by none, without ALiBi. So with one
    // the rules of position are told to the oracle as a mask and a bias.
    let extra = usize::from(spec.extra);
    let mut all: Answer<f64> = Default::default();
    for b in 0..batch {
        let rows = |x: &[f32]| wide(&x[b * (x.len() / batch)..(b + 1) * (x.len() / batch)]);
        let mut q = project(&rows(&data.q), 0, heads * d);
        let mut k = project(&rows(&data.k), 1, kv_heads * d);
        let v = project(&rows(&data.v), 2, kv_heads * d_v);
        if let Some(norm) = spec.norm {
            for (x, side) in [(&mut q, 0), (&mut k, 1)] {
                let gain = if norm.gains[side] { wide(&data.gains[side]) } else { Vec::new() };
                normalise(x, d, norm.sum, f64::from(norm.epsilon), &gain);
            }
        }
        let held = |x: &[f32], extra_row: &[f32], d: usize| -> Vec<f64> {
            let x = rows(x);
            (0..kv_heads)
                .flat_map(|g| {
                    let first =
                        if spec.extra { wide(&extra_row[g * d..][..d]) } else { Vec::new() };
                    let rest = (0..past).flat_map(move |j| (0..d).map(move |e| (j, e)));
                    let rest: Vec<f64> = rest.map(|(j, e)| x[(j * kv_heads + g) * d + e]).collect();
                    [first, rest].concat()
                })
                .collect()
        };
        let first = data.position(spec, b);
        let distance = |i: usize, j: usize| (first + i as isize - j as isize).unsigned_abs() as f64;
        let plain_bias =
            |at: [usize; 4]| data.bias.as_ref().map_or(0.0, |bias| f64::from(bias.at(at)));
        let place = |[_, h, i, j]: [usize; 4]| j.checked_sub(extra).map(|j| [b, h, i, j]);
        let bias = |at: [usize; 4]| match place(at) {
            None => 0.0,
            Some(at) if spec.extra => {
                plain_bias(at) - slopes.get(at[1]).unwrap_or(&0.0) * distance(at[2], at[3])
            }
            Some(at) => plain_bias(at),
        };
        let mask = |at: [usize; 4]| match place(at) {
            None => true,
            Some(at) if spec.extra => data.sees(spec, at),
            Some(at) => data.lets(spec, at),
        };
        let window = |side: Option<usize>| side.filter(|_| !spec.extra).map(|side| side as u64);
        let answer = attend(&oracle::Attention {
            batch: 1,
            q_len,
            kv_len,
            past_len: past + extra,
            heads,
            kv_heads,
            widths: (d, d_v),
            q: &q,
            k: &k,
            v: &v,
            past_k: &held(&data.past_k, &data.extra_k, d),
            past_v: &held(&data.past_v, &data.extra_v, d_v),
            scale: spec.scale.map(f64::from),
            softcap: spec.softcap.map(f64::from),
            positions: &[first as i64],
            causal: spec.causal.is_some() && !spec.extra,
            window: (window(spec.window.0), window(spec.window.1)),
            lengths: if spec.lens && !spec.extra { &data.lens[b..=b] } else { &[] },
            slopes: if spec.extra { &[] } else { &slopes },
            sinks: &if spec.sinks { wide(&data.sinks) } else { Vec::new() },
            rope: spec.rope.map(|rope| oracle::Rope {
                base: f64::from(rope.base),
                dims: if rope.dims == 0 { d } else { rope.dims },
                interleaved: rope.interleaved,
                q_offset: rope.q_offset.map_or(first as i64, |offset| offset as i64),
                k_offset: rope.k_offset.unwrap_or(past) as i64,
            }),
            bias: &bias,
            mask: &mask,
        });
        all[0].extend(project(&answer.y, 3, heads * d_v));
        if spec.lse {
            all[2].extend(answer.lse);
        }
        let Some((stage, which)) = spec.scores else { continue };
        let scores = &answer.scores[stage as usize];
        let at =
            |h: usize, i: usize, j: usize| scores[(h * q_len + i) * (keys + extra) + extra + j];
        let stored = || (0..keys).filter(|j| !spec.gone().contains(j));
        let chosen = match which {
            Which::All => 0..heads,
            Which::Head(head) => head..head + 1,
            Which::Mean => 0..1,
        };
        for (h, i) in chosen.flat_map(|h| spec.scored().map(move |i| (h, i))) {
            all[1].extend(stored().map(|j| match which {
                Which::Mean => (0..heads).map(|h| at(h, i, j)).sum::<f64>() / heads as f64,
                _ => at(h, i, j),
            }));
        }
    }
    all
}
