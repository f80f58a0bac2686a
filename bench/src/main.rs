//! Times the layer on the shapes of docs/performance.md, each figure beside this machine's peak.
//!
//! Samples of all shapes and kernels are interleaved, so that drift of the machine hits all alike;
//! the minimum and the median are given. Operations count the products only.

mod peak;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use mha::{Config, Dims, Inputs, Isa, MultiHeadAttention, Outputs, Shape, Weights};

#[derive(Parser)]
struct Args {
    /// Only shapes of these names (S1 … S9).
    #[arg(long)]
    shape: Vec<String>,
    /// Only kernels of these names; by default the fastest.
    #[arg(long)]
    isa: Vec<String>,
    /// Milliseconds for each figure.
    #[arg(long, default_value_t = 400)]
    millis: u64,
    /// Writes the figures as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

struct Case {
    name: &'static str,
    what: &'static str,
    config: Config,
    shape: Shape,
    scores: bool,
}

fn cases() -> Vec<Case> {
    let case = |name, what, dims, heads, (batch, q_len, kv_len), scores| Case {
        name,
        what,
        config: Config::new(dims).heads(heads),
        shape: Shape::new(batch, q_len, kv_len),
        scores,
    };
    vec![
        case("S1", "seed, first example", Dims::square(64), 8, (32, 10, 20), true),
        case("S2", "seed, second example", Dims::uniform(64, 1024, 1024), 8, (32, 10, 10), true),
        case("S3", "keyword spotting", Dims::square(64), 1, (1, 99, 99), false),
        case("S4", "MiniLM", Dims::square(384), 12, (1, 128, 128), false),
        case("S5", "ViT-Tiny", Dims::square(192), 3, (1, 197, 197), false),
        case("S6", "BERT-base", Dims::square(768), 12, (1, 512, 512), false),
        case("S7", "long", Dims::square(512), 8, (1, 4096, 4096), false),
        case("S9", "microcontroller", Dims::square(32), 4, (1, 16, 16), false),
    ]
}

impl Case {
    /// Operations of the products of one call.
    fn operations(&self) -> f64 {
        let Dims { q_in, k_in, v_in, qk, v, out } = self.config.dims;
        let Shape { batch, q_len, kv_len } = self.shape;
        let projections = q_len * (q_in * qk + v * out) + kv_len * (k_in * qk + v_in * v);
        2.0 * (batch * (projections + q_len * kv_len * (qk + v))) as f64
    }
}

/// A case with everything that a call of it needs.
struct Bench {
    case: Case,
    isa: Isa,
    tensors: Vec<Vec<f32>>,
    y: Vec<f32>,
    scores: Vec<f32>,
    scratch: Vec<f32>,
    samples: Vec<Duration>,
    calls: u32,
}

impl Bench {
    fn new(case: Case, isa: Isa) -> Self {
        let (config, shape) = (&case.config, case.shape);
        let mut state = 1u32;
        let mut fill = |len: usize| -> Vec<f32> {
            (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ((state >> 8) as f32 / 16_777_216.0 - 0.5) * 0.2
                })
                .collect()
        };
        let lens = [
            config.wq_len(),
            config.wk_len(),
            config.wv_len(),
            config.wo_len(),
            shape.batch * shape.q_len * config.dims.q_in,
            shape.batch * shape.kv_len * config.dims.k_in,
            shape.batch * shape.kv_len * config.dims.v_in,
        ];
        let tensors = lens.map(&mut fill).into();
        let y = vec![0.0; config.y_len(shape)];
        let scores = vec![0.0; if case.scores { config.scores_len(shape) } else { 0 }];
        let scratch = vec![0.0; config.scratch_len(shape)];
        Self { case, isa, tensors, y, scores, scratch, samples: Vec::new(), calls: 1 }
    }

    fn call(&mut self) -> Result<()> {
        let [wq, wk, wv, wo, q, k, v] = self.tensors.as_slice() else { unreachable!() };
        let weights = Weights::new(wq, wk, wv, wo);
        let layer = MultiHeadAttention::with_isa(self.case.config, weights, self.isa)?;
        let mut outputs = Outputs::new(&mut self.y);
        if self.case.scores {
            outputs = outputs.scores(&mut self.scores);
        }
        layer.forward(self.case.shape, Inputs::new(q, k, v), outputs, &mut self.scratch)?;
        Ok(())
    }

    fn sample(&mut self) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..self.calls {
            self.call()?;
        }
        let each = start.elapsed() / self.calls;
        self.samples.push(each);
        Ok(each)
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let isas: Vec<Isa> = if args.isa.is_empty() {
        vec![Isa::detect()]
    } else {
        Isa::available().filter(|isa| args.isa.iter().any(|name| name == isa.name())).collect()
    };
    let mut benches = Vec::new();
    for &isa in &isas {
        for case in cases() {
            if args.shape.is_empty() || args.shape.iter().any(|name| name == case.name) {
                benches.push(Bench::new(case, isa));
            }
        }
    }
    for bench in &mut benches {
        bench.call()?;
        // Calls of a sample take about a millisecond, so that the clock does not matter.
        let once = bench.sample()?;
        bench.samples.clear();
        bench.calls = (1_000_000 / once.as_nanos().max(1) as u32).max(1);
    }
    let mut peaks: Vec<f64> = isas.iter().map(|isa| peak::of(isa.name())).collect();
    let mut left: Vec<Duration> =
        benches.iter().map(|_| Duration::from_millis(args.millis)).collect();
    while left.iter().any(|left| !left.is_zero()) {
        for (bench, left) in benches.iter_mut().zip(&mut left) {
            if !left.is_zero() || bench.samples.len() < 5 {
                *left = left.saturating_sub(bench.sample()? * bench.calls);
            }
        }
    }
    for (peak, isa) in peaks.iter_mut().zip(&isas) {
        *peak = peak.max(self::peak::of(isa.name()));
    }
    println!(
        "{:<4} {:<22} {:<9} {:>12} {:>12} {:>9} {:>7} {:>11}",
        "", "", "kernel", "min µs", "median µs", "GFLOP/s", "% peak", "scratch KiB"
    );
    let mut rows = Vec::new();
    for bench in &mut benches {
        bench.samples.sort();
        let (min, median) = (bench.samples[0], bench.samples[bench.samples.len() / 2]);
        let rate = bench.case.operations() / min.as_secs_f64();
        let peak = isas.iter().position(|isa| *isa == bench.isa).map_or(1.0, |i| peaks[i]);
        let micros = |d: Duration| d.as_secs_f64() * 1e6;
        let kib = bench.scratch.len() as f64 / 256.0;
        println!(
            "{:<4} {:<22} {:<9} {:>12.2} {:>12.2} {:>9.1} {:>7.1} {:>11.1}",
            bench.case.name,
            bench.case.what,
            bench.isa.name(),
            micros(min),
            micros(median),
            rate / 1e9,
            100.0 * rate / peak,
            kib,
        );
        rows.push(serde_json::json!({
            "shape": bench.case.name, "kernel": bench.isa.name(), "scores": bench.case.scores,
            "min_us": micros(min), "median_us": micros(median), "gflops": rate / 1e9,
            "of_peak": rate / peak, "scratch_bytes": bench.scratch.len() * 4,
        }));
    }
    if let Some(path) = args.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}
