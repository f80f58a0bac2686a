//! Programs that time other libraries, or this one in another environment.
//!
//! A worker is a program that lives as long as the benchmark and answers a line of JSON with a line of
//! JSON; bench/peers/README.md has the words. It is asked for samples in turn with everybody else, and
//! what it computes is compared before.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::data;
use crate::sample::Contender;
use crate::shapes::Case;

/// What a worker says first.
#[derive(Deserialize)]
struct Hello {
    environment: String,
    /// Operations a second of this environment at most, where it is not that of the machine.
    peak: Option<f64>,
}

/// One way of one library to compute a case.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Offer {
    pub(crate) library: String,
    pub(crate) version: String,
    /// Which of the ways that the library has.
    pub(crate) variant: String,
}

/// A way that does not work, and why.
#[derive(Deserialize)]
struct Refusal {
    library: String,
    variant: String,
    why: String,
}

#[derive(Deserialize)]
struct Loaded {
    contenders: Vec<Offer>,
    refused: Vec<Refusal>,
    /// As in the greeting, measured again.
    #[serde(default)]
    peak: Option<f64>,
}

#[derive(Deserialize)]
struct Checked {
    y: PathBuf,
    scores: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Timed {
    seconds: f64,
}

/// A program that is running.
pub(crate) struct Worker {
    name: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    hello: Hello,
}

impl Worker {
    /// Starts a program, words separated by spaces, that may use so many threads.
    pub(crate) fn start(command: &str, threads: usize) -> Result<Self> {
        let mut words = command.split_whitespace();
        let mut program = Command::new(words.next().context("a worker without a program")?);
        program.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        program.env("MHA_BENCH_THREADS", threads.to_string());
        for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"] {
            program.env(name, threads.to_string());
        }
        let mut child = program.spawn().with_context(|| format!("cannot start {command}"))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (to, from) = to.zip(from).context("a worker without pipes")?;
        let mut from = BufReader::new(from);
        let hello = read(&mut from).with_context(|| format!("{command}: no greeting"))?;
        Ok(Self { name: command.into(), child, to, from, hello })
    }

    /// Where it runs: `host`, `node`, `chromium`.
    pub(crate) fn environment(&self) -> &str {
        &self.hello.environment
    }

    /// Operations a second at most, the most that was seen.
    pub(crate) fn peak(&self) -> Option<f64> {
        self.hello.peak
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &serde_json::Value) -> Result<T> {
        let name = &self.name;
        let answer = writeln!(self.to, "{request}")
            .and_then(|()| self.to.flush())
            .map_err(anyhow::Error::from)
            .and_then(|()| read(&mut self.from));
        answer.with_context(|| format!("{name}, asked {request}"))
    }

    /// Makes it ready for a case whose tensors lie in `folder`. Says what it will not do.
    pub(crate) fn load(&mut self, case: &Case, scores: bool, folder: &Path) -> Result<Vec<Offer>> {
        let case = case.describe(scores);
        let loaded: Loaded = self.ask(&json!({ "do": "load", "case": case, "folder": folder }))?;
        for Refusal { library, variant, why } in &loaded.refused {
            eprintln!("   {library} ({variant}) is left out: {why}");
        }
        let peaks = self.hello.peak.into_iter().chain(loaded.peak);
        self.hello.peak = peaks.max_by(f64::total_cmp);
        Ok(loaded.contenders)
    }

    /// Compares what it computes with what we do.
    pub(crate) fn check(
        &mut self,
        contender: usize,
        y: &[f32],
        scores: Option<&[f32]>,
    ) -> Result<f64> {
        let checked: Checked = self.ask(&json!({ "do": "check", "contender": contender }))?;
        let mut error = difference("y", y, &data::read(&checked.y)?)?;
        if let Some(scores) = scores {
            let path = checked.scores.context("no scores where there should be")?;
            error = error.max(difference("scores", scores, &data::read(&path)?)?);
        }
        Ok(error)
    }
}

impl Worker {
    /// Compares everything that a case of training computes, one array after another in one file.
    pub(crate) fn check_all(
        &mut self,
        contender: usize,
        expected: &[(&str, &[f32])],
    ) -> Result<f64> {
        let checked: Checked = self.ask(&json!({ "do": "check", "contender": contender }))?;
        let all = data::read(&checked.y)?;
        let needed: usize = expected.iter().map(|(_, ours)| ours.len()).sum();
        ensure!(all.len() == needed, "{} numbers instead of {needed}", all.len());
        let (mut rest, mut worst) = (&all[..], 0.0f64);
        for (name, ours) in expected {
            let (theirs, left) = rest.split_at(ours.len());
            worst = worst.max(difference(name, ours, theirs)?);
            rest = left;
        }
        Ok(worst)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends with its input; one that does not is no reason to wait.
        let _ = writeln!(self.to, "{}", json!({ "do": "end" }));
        let _ = self.to.flush();
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read<T: DeserializeOwned>(from: &mut BufReader<ChildStdout>) -> Result<T> {
    let mut line = String::new();
    ensure!(from.read_line(&mut line)? > 0, "the program has ended");
    let value: serde_json::Value =
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
    if let Some(error) = value.get("error") {
        bail!("{}", error.as_str().unwrap_or_default());
    }
    serde_json::from_value(value).with_context(|| format!("not what it should say: {line}"))
}

/// Results may differ by this, relative to the largest number.
const TOLERANCE: f64 = 1e-4;

/// The largest difference, relative to the largest of our numbers.
fn difference(what: &str, ours: &[f32], theirs: &[f32]) -> Result<f64> {
    let (len, got) = (ours.len(), theirs.len());
    ensure!(len == got, "{what}: {got} numbers instead of {len}");
    let largest = ours.iter().fold(0.0f64, |most, x| most.max(f64::from(x.abs())));
    let mut worst = 0.0f64;
    for (at, (&ours, &theirs)) in ours.iter().zip(theirs).enumerate() {
        let error = (f64::from(ours) - f64::from(theirs)).abs();
        if error.is_nan() || error > TOLERANCE * largest {
            return Err(anyhow!(
                "{what}[{at}] is {theirs} there and {ours} here: not the same layer"
            ));
        }
        worst = worst.max(error);
    }
    Ok(worst / largest)
}

/// A worker's way to compute a case, as a contender.
pub(crate) struct Asked {
    pub(crate) worker: Rc<RefCell<Worker>>,
    pub(crate) contender: usize,
}

impl Contender for Asked {
    fn time(&mut self, calls: u32) -> Result<Duration> {
        let request = json!({ "do": "time", "contender": self.contender, "calls": calls });
        let timed: Timed = self.worker.borrow_mut().ask(&request)?;
        Ok(Duration::from_secs_f64(timed.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest() {
        assert!(difference("y", &[1.0, -2.0], &[1.0, -2.0001]).is_ok_and(|error| error < 6e-5));
        assert!(difference("y", &[1.0, -2.0], &[1.0003, -2.0]).is_err());
        assert!(difference("y", &[1.0, -2.0], &[f32::NAN, -2.0]).is_err());
        assert!(difference("y", &[1.0, -2.0], &[1.0]).is_err());
        assert!(difference("y", &[0.0], &[0.0]).is_ok());
    }
}
