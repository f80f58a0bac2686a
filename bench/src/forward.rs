//! Calls of the layer on S1 to S9, ours and everybody else's.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mha::Isa;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::data::Tensors;
use crate::ours::Ours;
use crate::report::{self, Figure, OURS, Peak, Report};
use crate::sample::{Contender, Summary, measure};
use crate::shapes::{Case, cases};
use crate::worker::{Asked, Offer, Worker};
use crate::{finish, peak, table};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these shapes (S1 … S9)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    shape: Vec<String>,
    /// Only these kernels; by default the fastest
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    isa: Vec<String>,
    /// Threads that share a call
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Whether the scores are returned; S7 is timed with them only where it is named
    #[arg(long, value_enum, default_value_t = Scores::Both)]
    scores: Scores,
    /// Milliseconds for each figure
    #[arg(long, default_value_t = 400)]
    millis: u64,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A program that times other libraries (bench/peers/README.md); `cargo xtask bench --peers` gives
    /// that of this repository
    #[arg(long, value_name = "COMMAND")]
    worker: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Scores {
    With,
    Without,
    Both,
}

/// What the figures of one case have in common.
struct Group<'a> {
    case: &'a Case,
    scores: bool,
    threads: usize,
    /// Bytes a second of a plain sum, where a call reads everything once.
    sum: Option<f64>,
}

/// Carries the word out.
pub(crate) fn run(args: Args) -> Result<()> {
    let isas = isas(&args.isa)?;
    let cases = chosen(&args.shape)?;
    ensure!(args.threads.iter().all(|&threads| threads > 0), "--threads 0 computes nothing");
    let folder = std::env::temp_dir().join(format!("mha-bench-{}", std::process::id()));
    let mut report = Report::here();
    let result = all(&args, &isas, &cases, &folder, &mut report);
    // What the workers read is of no use to anybody else.
    let _ = std::fs::remove_dir_all(&folder);
    result?;
    relate(&mut report);
    print(&report);
    finish(&report, args.json)
}

/// Says of each figure which part it is of the peak.
pub(crate) fn relate(report: &mut Report) {
    for figure in &mut report.figures {
        let instructions = |peak: &&Peak| {
            (peak.environment == figure.environment && peak.threads == figure.threads)
                && (figure.library != OURS || figure.variant.starts_with(&peak.instructions))
        };
        let peak = report.peaks.iter().filter(instructions).map(|peak| peak.gflops);
        figure.of_peak = peak.max_by(f64::total_cmp).map_or(f64::NAN, |peak| figure.gflops / peak);
    }
}

/// The kernels of these names that this machine runs.
pub(crate) fn isas(names: &[String]) -> Result<Vec<Isa>> {
    if names.is_empty() {
        return Ok(vec![Isa::detect()]);
    }
    let known: Vec<_> = Isa::available().map(Isa::name).collect();
    let wrong = names.iter().find(|name| !known.contains(&name.as_str()));
    ensure!(wrong.is_none(), "no kernel {wrong:?} here, only {known:?}");
    Ok(Isa::available().filter(|isa| names.iter().any(|name| name == isa.name())).collect())
}

/// The shapes of these names, or all.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Case>> {
    let mut cases = cases();
    if let Some(name) = names.iter().find(|name| cases.iter().all(|case| case.name != **name)) {
        bail!("no shape {name}");
    }
    cases.retain(|case| names.is_empty() || names.iter().any(|name| name == case.name));
    Ok(cases)
}

fn all(
    args: &Args,
    isas: &[Isa],
    cases: &[Case],
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    for &threads in &args.threads {
        let mut workers = Vec::new();
        for command in &args.worker {
            let worker = Worker::start(command, threads)?;
            // Other environments have one thread.
            if threads == 1 || worker.environment() == "host" {
                workers.push(Rc::new(RefCell::new(worker)));
            }
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads.saturating_sub(1)).build()?;
        let pool = (threads > 1).then(|| Arc::new(pool));
        for case in cases {
            let tensors = Tensors::new(case);
            if !workers.is_empty() {
                tensors.write(folder)?;
            }
            for scores in [false, true] {
                let wanted = match args.scores {
                    Scores::Both => !scores || case.name != "S7",
                    Scores::With => scores,
                    Scores::Without => !scores,
                };
                if wanted {
                    let with = if scores { "with" } else { "without" };
                    eprintln!("{} {with} scores, threads: {threads}", case.name);
                    let sum = (case.past > 0).then_some(0.0);
                    let group = Group { case, scores, threads, sum };
                    let each = Duration::from_millis(args.millis);
                    compare(group, isas, &tensors, &pool, &workers, folder, each, report)?;
                }
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

/// Times everybody who can compute a case.
fn compare(
    mut group: Group<'_>,
    isas: &[Isa],
    tensors: &Tensors,
    pool: &Option<Arc<ThreadPool>>,
    workers: &[Rc<RefCell<Worker>>],
    folder: &Path,
    each: Duration,
    report: &mut Report,
) -> Result<()> {
    let Group { case, scores, threads, .. } = group;
    // 1. Ours, first by one thread: what everything is compared with.
    let fastest = isas.last().copied().unwrap_or(Isa::PORTABLE);
    let one = Ours::new(case, tensors, fastest, scores, None)?;
    let mut expected = one.context("one thread computes everything")?;
    expected.call()?;
    let mut ours = Vec::new();
    for &isa in isas {
        if let Some(mut contender) = Ours::new(case, tensors, isa, scores, pool.clone())? {
            contender.call()?;
            let same = isa.is_fused() != fastest.is_fused() || contender.y == expected.y;
            ensure!(same, "{threads} threads give other bits on {}", isa.name());
            ours.push((isa, contender));
        }
    }
    // 2. The others, each compared with that before it is timed.
    let mut asked: Vec<(String, Offer, f64, Asked)> = Vec::new();
    for worker in workers {
        let environment = worker.borrow().environment().to_owned();
        let offers = worker.borrow_mut().load(case, scores, folder)?;
        for (contender, offer) in offers.into_iter().enumerate() {
            let error = worker
                .borrow_mut()
                .check(contender, &expected.y, expected.scores.as_deref())
                .with_context(|| format!("{} ({})", offer.library, offer.variant))?;
            report.versions.insert(offer.library.clone(), offer.version.clone());
            let asked_for = Asked { worker: Rc::clone(worker), contender };
            asked.push((environment.clone(), offer, error, asked_for));
        }
    }
    // 3. What the machine can do, measured among them.
    for isa in isas {
        note(report, "host", isa.name(), threads, peak::operations(isa.name(), threads) / 1e9);
    }
    if let Some(sum) = &mut group.sum {
        let Tensors { wq, wk, wv, wo, past_k, past_v, .. } = tensors;
        *sum = peak::bytes(fastest.name(), &[wq, wk, wv, wo, past_k, past_v]);
    }
    let mut contenders: Vec<&mut dyn Contender> = Vec::new();
    contenders.extend(ours.iter_mut().map(|(_, ours)| ours as &mut dyn Contender));
    contenders.extend(asked.iter_mut().map(|(.., asked)| asked as &mut dyn Contender));
    if contenders.is_empty() {
        return Ok(());
    }
    let mut summaries = measure(&mut contenders, each)?.into_iter();
    for isa in isas {
        note(report, "host", isa.name(), threads, peak::operations(isa.name(), threads) / 1e9);
    }
    // 4. Written down.
    for ((isa, ours), summary) in ours.iter().zip(&mut summaries) {
        let bytes = Some(ours.scratch_bytes());
        let figure = group.figure("host", OURS, isa.name(), summary);
        report.figures.push(Figure { scratch_bytes: bytes, ..figure });
    }
    for ((environment, offer, error, _), summary) in asked.iter().zip(summaries) {
        let figure = group.figure(environment, &offer.library, &offer.variant, summary);
        report.figures.push(Figure { error: Some(*error), ..figure });
    }
    Ok(())
}

impl Group<'_> {
    fn figure(&self, environment: &str, library: &str, variant: &str, summary: Summary) -> Figure {
        let case = self.case;
        let rate = case.bytes() as f64 / summary.min;
        Figure {
            environment: environment.into(),
            shape: case.name.into(),
            what: case.what.into(),
            scores: self.scores,
            threads: self.threads,
            library: library.into(),
            variant: variant.into(),
            min_us: summary.min * 1e6,
            median_us: summary.median * 1e6,
            samples: summary.samples,
            gflops: case.operations() / summary.min / 1e9,
            of_peak: f64::NAN,
            of_bandwidth: self.sum.filter(|_| environment == "host").map(|sum| rate / sum),
            scratch_bytes: None,
            error: None,
        }
    }
}

/// Keeps the highest peak that was seen: a core may have been disturbed, never helped.
pub(crate) fn note(
    report: &mut Report,
    environment: &str,
    instructions: &str,
    threads: usize,
    gflops: f64,
) {
    let known = report.peaks.iter_mut().find(|peak| {
        (peak.environment == environment && peak.threads == threads)
            && peak.instructions == instructions
    });
    match known {
        Some(peak) => peak.gflops = peak.gflops.max(gflops),
        None => report.peaks.push(Peak {
            environment: environment.into(),
            instructions: instructions.into(),
            threads,
            gflops,
        }),
    }
}

/// Everything, for a person.
pub(crate) fn print(report: &Report) {
    for Peak { environment, instructions, threads, gflops } in &report.peaks {
        println!("peak: {gflops:.1} GFLOP/s, {environment}, {instructions}, threads: {threads}");
    }
    let mut environments: Vec<_> = report.figures.iter().map(|f| &f.environment).collect();
    environments.dedup();
    environments.sort();
    environments.dedup();
    for environment in environments {
        println!("\n{environment}\n{}", report::heading());
        for figure in report.figures.iter().filter(|f| f.environment == *environment) {
            println!("{}", figure.line());
        }
    }
    let tables = table::comparisons(report);
    if !tables.is_empty() {
        println!("\n{tables}");
    }
}
