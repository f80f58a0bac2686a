//! Several suites at a time, each as a process of its own: most steps keep one processor busy, not all.
//!
//! What a suite says is shown whole when it has ended, and kept as `target/suites/NAME.log`; what it came
//! to is a record beside that, which is taken into the whole run's report.

use std::fs::{self, File};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::report::{Outcome, Report};

/// A suite as far as it matters when it runs.
pub(crate) struct Job {
    pub(crate) name: &'static str,
    /// What it writes that others write too; two that share a word never run at once.
    pub(crate) writes: &'static [&'static str],
    /// Whether it needs programs from outside, which are got first.
    pub(crate) waits: bool,
}

/// What the lanes have in common.
struct Yard<'a> {
    report: &'a mut Report,
    waiting: Vec<Job>,
    /// What the suites that run are writing.
    written: Vec<&'static str>,
    /// Whether the programs from outside are there.
    ready: bool,
}

/// Runs all jobs in the order given, as far as they can be run at once, in `lanes` lanes. `prepare` gets
/// the programs from outside; the jobs that need none do not wait for it.
pub(crate) fn run(
    jobs: Vec<Job>,
    lanes: usize,
    options: &[&str],
    prepare: impl Fn() + Sync,
    report: &mut Report,
) {
    let yard = Mutex::new(Yard { report, waiting: jobs, written: Vec::new(), ready: false });
    let changed = Condvar::new();
    let work = |is_first: bool| {
        if is_first {
            prepare();
            lock(&yard).ready = true;
            changed.notify_all();
        }
        while let Some(job) = next(&yard, &changed) {
            eprintln!("started: {}", job.name);
            let start = Instant::now();
            let (said, outcome) = suite(&job, options);
            let seconds = start.elapsed().as_secs();
            let mut yard = lock(&yard);
            eprintln!("{}\nended: {} ({seconds} s)", said.trim_end(), job.name);
            yard.report.take(job.name, outcome);
            yard.written.retain(|word| !job.writes.contains(word));
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            scope.spawn(move || work(lane == 0));
        }
    });
}

fn lock<'a, 'b>(yard: &'a Mutex<Yard<'b>>) -> MutexGuard<'a, Yard<'b>> {
    yard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first job that can run now; waits for one, and gives none when all are taken.
fn next(yard: &Mutex<Yard>, changed: &Condvar) -> Option<Job> {
    let mut yard = lock(yard);
    loop {
        if yard.waiting.is_empty() {
            return None;
        }
        let can = |job: &Job| {
            (yard.ready || !job.waits) && !job.writes.iter().any(|word| yard.written.contains(word))
        };
        if let Some(at) = yard.waiting.iter().position(can) {
            let job = yard.waiting.remove(at);
            yard.written.extend(job.writes);
            return Some(job);
        }
        yard = changed.wait(yard).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Runs a suite to its end: what it said, and what it came to.
fn suite(job: &Job, options: &[&str]) -> (String, Result<Outcome>) {
    let folder = crate::target().join("suites");
    let log = folder.join(job.name).with_extension("log");
    let record = folder.join(job.name).with_extension("json");
    let run = || -> Result<Outcome> {
        fs::create_dir_all(&folder)?;
        let _ = fs::remove_file(&record);
        let said = File::create(&log)?;
        let mut suite = Command::new(std::env::current_exe()?);
        suite.args(["test", job.name]).args(options).arg("--record").arg(&record);
        let status = suite.stdout(said.try_clone()?).stderr(said).status()?;
        ensure!(status.success(), "it ended with {status}");
        let record = fs::read(&record).context("it left no record")?;
        Ok(serde_json::from_slice(&record)?)
    };
    let outcome = run();
    let said = fs::read(&log).unwrap_or_default();
    (String::from_utf8_lossy(&said).into_owned(), outcome)
}
