//! Forward and backward of the layer with all gradients, ours and everybody else's.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mha::{Gradients, Inputs, Isa, MultiHeadAttention, Outputs, Part, Upstream, Weights};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::data::Tensors;
use crate::forward::{chosen, isas, note};
use crate::ours::share;
use crate::report::{Figure, OURS, Report};
use crate::sample::{Contender, Summary, measure, time};
use crate::shapes::Case;
use crate::worker::{Asked, Offer, Worker};
use crate::{finish, forward, peak};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these shapes (S1 … S9)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    shape: Vec<String>,
    /// Only these kernels; by default the fastest
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    isa: Vec<String>,
    /// Threads that share a call
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1])]
    threads: Vec<usize>,
    /// Milliseconds for each figure
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A program that times other libraries (bench/peers/README.md)
    #[arg(long, value_name = "COMMAND")]
    worker: Vec<String>,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let isas = isas(&args.isa)?;
    let mut cases = chosen(&args.shape)?;
    // A step of decoding is not trained.
    cases.retain(|case| case.past == 0);
    for case in &mut cases {
        case.training = true;
    }
    ensure!(args.threads.iter().all(|&threads| threads > 0), "--threads 0 computes nothing");
    let folder = std::env::temp_dir().join(format!("mha-train-{}", std::process::id()));
    let mut report = Report::here();
    let result = all(&args, &isas, &cases, &folder, &mut report);
    // What the workers read is of no use to anybody else.
    let _ = std::fs::remove_dir_all(&folder);
    result?;
    forward::relate(&mut report);
    forward::print(&report);
    finish(&report, args.json)
}

fn all(
    args: &Args,
    isas: &[Isa],
    cases: &[Case],
    folder: &std::path::Path,
    report: &mut Report,
) -> Result<()> {
    for &threads in &args.threads {
        let pool = ThreadPoolBuilder::new().num_threads(threads.saturating_sub(1)).build()?;
        let pool = (threads > 1).then_some(&pool);
        let mut workers = Vec::new();
        for command in &args.worker {
            let worker = Worker::start(command, threads)?;
            if threads == 1 || worker.environment() == "host" {
                workers.push(Rc::new(RefCell::new(worker)));
            }
        }
        for case in cases {
            eprintln!("{} forward and backward, threads: {threads}", case.name);
            let tensors = Tensors::new(case);
            if !workers.is_empty() {
                tensors.write(folder)?;
            }
            let each = Duration::from_millis(args.millis);
            // 1. Ours.
            let mut ours = Vec::new();
            for &isa in isas {
                let mut trained = Trained::new(case, &tensors, isa, threads, pool)?;
                trained.call()?;
                ours.push((isa.name().to_owned(), trained));
                if threads == 1 {
                    let mut keeping = Trained::new(case, &tensors, isa, threads, pool)?;
                    keeping.kept = Some(vec![0.0; case.config.kept_len(case.shape)]);
                    keeping.call()?;
                    ours.push((format!("{}, kept", isa.name()), keeping));
                }
            }
            // 2. The others, compared with the fastest of ours.
            let (_, expected) = ours.last().context("there is a kernel")?;
            let expected = expected.results();
            let mut asked: Vec<(String, Offer, f64, Asked)> = Vec::new();
            for worker in &workers {
                let environment = worker.borrow().environment().to_owned();
                let offers = worker.borrow_mut().load(case, false, folder)?;
                for (contender, offer) in offers.into_iter().enumerate() {
                    let error = worker
                        .borrow_mut()
                        .check_all(contender, &expected)
                        .with_context(|| format!("{} ({})", offer.library, offer.variant))?;
                    report.versions.insert(offer.library.clone(), offer.version.clone());
                    let asked_for = Asked { worker: Rc::clone(worker), contender };
                    asked.push((environment.clone(), offer, error, asked_for));
                }
            }
            // 3. Timed in turn, the machine's peak before and after.
            let peaks = |report: &mut Report| {
                for isa in isas {
                    let gflops = peak::operations(isa.name(), threads) / 1e9;
                    note(report, "host", isa.name(), threads, gflops);
                }
            };
            peaks(report);
            let mut contenders: Vec<&mut dyn Contender> = Vec::new();
            contenders.extend(ours.iter_mut().map(|(_, ours)| ours as &mut dyn Contender));
            contenders.extend(asked.iter_mut().map(|(.., asked)| asked as &mut dyn Contender));
            let mut summaries = measure(&mut contenders, each)?.into_iter();
            peaks(report);
            for ((variant, trained), summary) in ours.iter().zip(&mut summaries) {
                let bytes = Some(trained.scratch_bytes());
                let figure = figure(case, "host", threads, OURS, variant, summary);
                report.figures.push(Figure { scratch_bytes: bytes, ..figure });
            }
            for ((environment, offer, error, _), summary) in asked.iter().zip(summaries) {
                let (library, variant) = (&offer.library, &offer.variant);
                let figure = figure(case, environment, threads, library, variant, summary);
                report.figures.push(Figure { error: Some(*error), ..figure });
            }
        }
        for worker in &workers {
            let worker = worker.borrow();
            if let Some(peak) = worker.peak() {
                note(report, worker.environment(), "simd128", threads, peak / 1e9);
            }
        }
    }
    Ok(())
}

fn figure(
    case: &Case,
    environment: &str,
    threads: usize,
    library: &str,
    variant: &str,
    summary: Summary,
) -> Figure {
    Figure {
        environment: environment.into(),
        shape: case.name.into(),
        what: format!("{}, forward and backward", case.what),
        scores: false,
        threads,
        library: library.into(),
        variant: variant.into(),
        min_us: summary.min * 1e6,
        median_us: summary.median * 1e6,
        samples: summary.samples,
        // Each product of the way forward has two of the same size on the way back.
        gflops: 3.0 * case.operations() / summary.min / 1e9,
        of_peak: f64::NAN,
        of_bandwidth: None,
        scratch_bytes: None,
        error: None,
    }
}

/// Gradients of the inputs and of the weights.
struct Owned {
    inputs: [Vec<f32>; 3],
    weights: Vec<f32>,
}

/// The layer with everything that one step of training needs of it.
struct Trained<'a> {
    layer: MultiHeadAttention<'a>,
    case: &'a Case,
    tensors: &'a Tensors,
    pool: Option<&'a ThreadPool>,
    y: Vec<f32>,
    /// One for each thread; the sum is in the first.
    gradients: Vec<Owned>,
    scratch: Vec<Vec<f32>>,
    back: Vec<Vec<f32>>,
    /// What the way forward keeps, if it does.
    kept: Option<Vec<f32>>,
}

impl<'a> Trained<'a> {
    fn new(
        case: &'a Case,
        tensors: &'a Tensors,
        isa: Isa,
        threads: usize,
        pool: Option<&'a ThreadPool>,
    ) -> Result<Self> {
        let (config, shape) = (case.config, case.shape);
        let Tensors { wq, wk, wv, wo, q, k, v, .. } = tensors;
        let layer = MultiHeadAttention::with_isa(config, Weights::new(wq, wk, wv, wo), isa)?;
        let zeros = |len: usize| vec![0.0; len];
        let gradients = || Owned {
            inputs: [q, k, v].map(|x| zeros(x.len())),
            weights: zeros(config.weights_len()),
        };
        Ok(Self {
            layer,
            case,
            tensors,
            pool,
            y: zeros(config.y_len(shape)),
            gradients: (0..threads).map(|_| gradients()).collect(),
            scratch: vec![zeros(config.scratch_len(shape)); threads],
            back: vec![zeros(config.backward_scratch_len(shape)); threads],
            kept: None,
        })
    }

    /// Bytes of scratch: those of the larger way, which the other could use too; and of what is kept.
    fn scratch_bytes(&self) -> usize {
        let both = self.scratch.iter().zip(&self.back);
        let scratch: usize = both.map(|(forward, back)| forward.len().max(back.len())).sum();
        4 * (scratch + self.kept.as_ref().map_or(0, Vec::len))
    }

    fn call(&mut self) -> Result<()> {
        let (layer, shape, config) = (&self.layer, self.case.shape, self.case.config);
        let Tensors { q, k, v, dy, .. } = self.tensors;
        let inputs = Inputs::new(q, k, v);
        let (keeps, mut upstream) = (self.kept.is_some(), Upstream::new(dy));
        if let Some(kept) = &mut self.kept {
            let (y, scratch) = (Outputs::new(&mut self.y), &mut self.scratch[0]);
            layer.forward_keeping(shape, inputs, y, kept, scratch)?;
            upstream = upstream.kept(kept);
        }
        let back = |part: Part, owned: &mut Owned, scratch: &mut [f32]| -> Result<()> {
            let [dq, dk, dv] = &mut owned.inputs;
            let weights = Gradients::from_flat(&config, &mut owned.weights)?;
            let gradients = Gradients { q: Some(dq), k: Some(dk), v: Some(dv), ..weights };
            Ok(layer.backward_part(shape, part, inputs, upstream, gradients, scratch)?)
        };
        let Some(pool) = self.pool else {
            if !keeps {
                layer.forward(shape, inputs, Outputs::new(&mut self.y), &mut self.scratch[0])?;
            }
            let whole = config.split_backward(shape, 0, 1);
            return back(whole, &mut self.gradients[0], &mut self.back[0]);
        };
        let parts = self.gradients.len();
        let mut y = &mut self.y[..];
        let out = config.dims.out;
        // 1. Every thread its rows, then its part of the way back.
        let results: Vec<Mutex<Result<()>>> = (0..parts).map(|_| Mutex::new(Ok(()))).collect();
        pool.in_place_scope(|scope| {
            let own = self.gradients.iter_mut().zip(&mut self.scratch).zip(&mut self.back);
            for (part, (((owned, scratch), back_scratch), result)) in own.zip(&results).enumerate()
            {
                let rows = config.split_rows(shape, None, part, parts);
                let (here, rest) = std::mem::take(&mut y).split_at_mut(rows.len() * out);
                y = rest;
                let back = &back;
                let work = move || {
                    let forward =
                        layer.forward_rows(shape, rows, inputs, Outputs::new(here), scratch);
                    let part = config.split_backward(shape, part, parts);
                    let both = forward
                        .map_err(anyhow::Error::from)
                        .and_then(|()| back(part, owned, back_scratch));
                    if let Ok(mut result) = result.lock() {
                        *result = both;
                    }
                };
                share(scope, part + 1 == parts, work);
            }
        });
        // 2. The sum of all parts.
        let (first, others) = self.gradients.split_at_mut(1);
        for other in others {
            let [dq, dk, dv] = &mut first[0].inputs;
            let to = [dq, dk, dv, &mut first[0].weights].into_iter();
            let pairs = to.zip(other.inputs.iter().chain([&other.weights]));
            pool.in_place_scope(|scope| {
                for (to, from) in pairs {
                    let piece = to.len().div_ceil(parts).max(1);
                    for (i, (to, from)) in to.chunks_mut(piece).zip(from.chunks(piece)).enumerate()
                    {
                        share(scope, i + 1 == parts, move || {
                            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                        });
                    }
                }
            });
        }
        results.into_iter().try_for_each(|result| result.into_inner().unwrap_or(Ok(())))
    }

    /// Everything that it computes, in the order of the workers.
    fn results(&self) -> Vec<(&'static str, &[f32])> {
        let config = &self.case.config;
        let Owned { inputs: [dq, dk, dv], weights } = &self.gradients[0];
        let (dwq, rest) = weights.split_at(config.wq_len());
        let (dwk, rest) = rest.split_at(config.wk_len());
        let (dwv, dwo) = rest.split_at(config.wv_len());
        vec![
            ("y", &self.y),
            ("dq", dq),
            ("dk", dk),
            ("dv", dv),
            ("dwq", dwq),
            ("dwk", dwk),
            ("dwv", dwv),
            ("dwo", dwo),
        ]
    }
}

impl Contender for Trained<'_> {
    fn time(&mut self, calls: u32) -> Result<Duration> {
        time(calls, || self.call())
    }
}
