//! Decoding over a cache: tokens a second, what a window costs, and how cost grows with length.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use mha::{
    Cache, CacheConfig, CacheState, Config, Dims, Inputs, Isa, MultiHeadAttention, Options,
    Outputs, Shape, Weights, Window, dot_product_attention_cached,
};
use serde::{Deserialize, Serialize};

use crate::data::Tensors;
use crate::forward::isas;
use crate::ours::Ours;
use crate::report::Report;
use crate::sample::{Contender, Summary, measure, time};
use crate::shapes::Case;
use crate::table::{markdown, percent};
use crate::{finish, peak};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel; by default the fastest
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// Milliseconds for each figure
    #[arg(long, default_value_t = 400)]
    millis: u64,
    /// Longest sequence of the figures about growth
    #[arg(long, default_value_t = 16_384)]
    longest: usize,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the word has found.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Decode {
    steps: Vec<Step>,
    windows: Vec<Length>,
    growth: Vec<Length>,
}

/// A token: projections, append, attention, output projection.
#[derive(Serialize, Deserialize)]
struct Step {
    kv_len: usize,
    kv_heads: usize,
    cache_bytes: usize,
    scratch_bytes: usize,
    step_us: f64,
    /// Attention over the cache alone.
    attention_us: f64,
    /// The bytes of the cache over that time, beside those of a plain sum over the same cache.
    of_sum: f64,
}

/// What a length costs.
#[derive(Serialize, Deserialize)]
struct Length {
    kv_len: usize,
    min_us: f64,
    /// Of what should not change with the length: microseconds a query, or picoseconds an operation.
    each: f64,
    scratch_bytes: usize,
}

const WIDTH: usize = 512;
const HEADS: usize = 8;
const WINDOW: usize = 64;

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let isa = isas(args.isa.as_slice())?.first().copied().unwrap_or(Isa::PORTABLE);
    let each = Duration::from_millis(args.millis);
    let decode = Decode {
        steps: steps(isa, each)?,
        windows: windows(isa, each)?,
        growth: growth(isa, each, args.longest)?,
    };
    let mut report = Report::here();
    println!("{} on {}\n\n{}", isa.name(), report.machine.processor, decode.markdown());
    report.versions.insert("kernel".into(), isa.name().into());
    report.decode = Some(decode);
    finish(&report, args.json)
}

fn case(name: &'static str, config: Config, shape: Shape, past: usize) -> Case {
    Case { name, what: "", config, shape, past, training: false }
}

/// Anything that can be called.
struct Call<F>(F);

impl<F: FnMut() -> Result<()>> Contender for Call<F> {
    fn time(&mut self, calls: u32) -> Result<Duration> {
        time(calls, &mut self.0)
    }
}

fn steps(isa: Isa, each: Duration) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for kv_heads in [HEADS, 2] {
        for kv_len in [128, 1024, 4096] {
            let config = Config::new(Dims::square(WIDTH)).heads(HEADS).kv_heads(kv_heads);
            let case = case("step", config, Shape::new(1, 1, kv_len), kv_len - 1);
            let tensors = Tensors::new(&case);
            let Some(mut step) = Ours::new(&case, &tensors, isa, false, None)? else { continue };

            // The same cache again, for attention alone.
            let attention = config.attention;
            let cache = CacheConfig::linear(kv_len);
            let mut keys = vec![0.5; cache.keys_len(&attention)];
            let mut values = vec![0.5; cache.values_len(&attention)];
            let cache_bytes = 4 * (keys.len() + values.len());
            let sum = peak::bytes(isa.name(), &[&keys, &values]);
            let state = CacheState { len: kv_len, oldest: 0 };
            let cache = Cache::resume(cache, &attention, &mut keys, &mut values, state)?;
            let (q, mut y) = (vec![0.1; WIDTH], vec![0.0; WIDTH]);
            let mut scratch = vec![0.0; attention.scratch_len(Shape::new(1, 1, kv_len))];
            let mut alone = Call(|| {
                let (inputs, outputs) = (Inputs::query(&q), Outputs::new(&mut y));
                let (heads, scratch) = (&attention, &mut scratch);
                Ok(dot_product_attention_cached(*heads, isa, &cache, 1, inputs, outputs, scratch)?)
            });
            let [step_time, alone_time] = pair(measure(&mut [&mut step, &mut alone], each)?);
            steps.push(Step {
                kv_len,
                kv_heads,
                cache_bytes,
                scratch_bytes: step.scratch_bytes(),
                step_us: step_time * 1e6,
                attention_us: alone_time * 1e6,
                of_sum: cache_bytes as f64 / alone_time / sum,
            });
        }
    }
    Ok(steps)
}

fn pair(summaries: Vec<Summary>) -> [f64; 2] {
    let min = |i: usize| summaries.get(i).map_or(f64::NAN, |summary| summary.min);
    [min(0), min(1)]
}

/// One query over a cache of each length that sees the last positions only.
fn windows(isa: Isa, each: Duration) -> Result<Vec<Length>> {
    let config = Config::new(Dims::square(WIDTH)).heads(HEADS);
    let lengths = [256, 512, 1024, 2048, 4096, 8192];
    let tensors = Tensors::new(&case("window", config, Shape::new(1, 1, 1), 0));
    let Tensors { wq, wk, wv, wo, q, .. } = &tensors;
    let layer = MultiHeadAttention::with_isa(config, Weights::new(wq, wk, wv, wo), isa)?;
    let scratch_len = config.cached_scratch_len(1);
    let options = Options::new().window(Window::left(WINDOW - 1));

    let mut slices = Vec::new();
    for kv_len in lengths {
        let cache = CacheConfig::linear(kv_len);
        let keys = vec![0.5; cache.keys_len(&config.attention)];
        let values = vec![0.5; cache.values_len(&config.attention)];
        slices.push((cache, keys, values));
    }
    let mut calls = Vec::new();
    for (cache, keys, values) in &mut slices {
        let state = CacheState { len: cache.capacity, oldest: 0 };
        let cache = Cache::resume(*cache, &config.attention, keys, values, state)?;
        let (mut y, mut scratch) = (vec![0.0; WIDTH], vec![0.0; scratch_len]);
        let (layer, options) = (&layer, &options);
        calls.push(Call(move || {
            let inputs = Inputs::query(q).causal().options(options);
            Ok(layer.attend(&cache, 1, inputs, Outputs::new(&mut y), &mut scratch)?)
        }));
    }
    let mut contenders: Vec<&mut dyn Contender> = Vec::new();
    contenders.extend(calls.iter_mut().map(|call| call as &mut dyn Contender));
    let summaries = measure(&mut contenders, each)?;
    let length = |(kv_len, summary): (usize, Summary)| {
        let min_us = summary.min * 1e6;
        Length { kv_len, min_us, each: min_us, scratch_bytes: 4 * scratch_len }
    };
    Ok(lengths.into_iter().zip(summaries).map(length).collect())
}

/// The whole layer on longer and longer keys.
fn growth(isa: Isa, each: Duration, longest: usize) -> Result<Vec<Length>> {
    let config = Config::new(Dims::square(WIDTH)).heads(HEADS);
    let lengths = std::iter::successors(Some(512), |len| Some(len * 2));
    let cases: Vec<_> = lengths
        .take_while(|len| *len <= longest)
        .map(|kv_len| case("growth", config, Shape::new(1, 512, kv_len), 0))
        .collect();
    let tensors: Vec<_> = cases.iter().map(Tensors::new).collect();
    let mut calls = Vec::new();
    for (case, tensors) in cases.iter().zip(&tensors) {
        calls.extend(Ours::new(case, tensors, isa, false, None)?);
    }
    let mut contenders: Vec<&mut dyn Contender> = Vec::new();
    contenders.extend(calls.iter_mut().map(|call| call as &mut dyn Contender));
    let summaries = measure(&mut contenders, each)?;
    let length = |((case, call), summary): ((&Case, &Ours<'_>), Summary)| Length {
        kv_len: case.shape.kv_len,
        min_us: summary.min * 1e6,
        each: summary.min * 1e12 / case.operations(),
        scratch_bytes: call.scratch_bytes(),
    };
    Ok(cases.iter().zip(&calls).zip(summaries).map(length).collect())
}

impl Decode {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "A decoding step, {WIDTH} wide, {HEADS} heads: project, append, attend, project. Beside it \
             attention over the cache alone, its bytes a second relative to a plain sum over them.\n\n"
        );
        let head = ["kv_len", "kv_heads", "cache bytes", "scratch bytes", "µs a token"];
        let head = [&head[..], &["tokens a second", "attention µs", "of a plain sum"]].concat();
        let row = |step: &Step| {
            vec![
                step.kv_len.to_string(),
                step.kv_heads.to_string(),
                step.cache_bytes.to_string(),
                step.scratch_bytes.to_string(),
                format!("{:.1}", step.step_us),
                format!("{:.0}", 1e6 / step.step_us),
                format!("{:.1}", step.attention_us),
                percent(step.of_sum),
            ]
        };
        text += &markdown(&head, self.steps.iter().map(row));
        text += &format!("One query with a window of {WINDOW} over a cache.\n\n");
        text += &lengths(&self.windows, "µs a query");
        text += "The layer with 512 queries on more and more keys.\n\n";
        text + &lengths(&self.growth, "ps an operation")
    }
}

/// What should be the same for every length, beside the first.
fn lengths(lengths: &[Length], each: &str) -> String {
    let first = lengths.first().map_or(f64::NAN, |length| length.each);
    let row = |length: &Length| {
        vec![
            length.kv_len.to_string(),
            format!("{:.1}", length.min_us),
            format!("{:.2}", length.each),
            format!("{:.2}", length.each / first),
            length.scratch_bytes.to_string(),
        ]
    };
    let head = ["kv_len", "µs", each, "relative to the first", "scratch bytes"];
    markdown(&head, lengths.iter().map(row))
}
