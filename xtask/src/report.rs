//! What a run of tests has come to: a step each, said while it happens, and the failures once more
//! at the end.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::tools::Tool;

/// Collects steps. One that fails does not stop those after it.
pub(crate) struct Report {
    /// Whether what is skipped counts as failed.
    strict: bool,
    /// Only steps with this in their name are taken.
    only: Option<String>,
    outcome: Outcome,
}

/// What steps have come to: how many passed, and the others by name, each with the reason.
#[derive(Default, serde::Deserialize, serde::Serialize)]
pub(crate) struct Outcome {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Report {
    /// Nothing yet.
    pub(crate) fn new(strict: bool, only: Option<String>) -> Self {
        Self { strict, only, outcome: Outcome::default() }
    }

    /// Carries one step out and records how it went. True when it passed; a step that was not asked for
    /// does not count.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return false;
        }
        eprintln!("\n── {name}");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                eprintln!("   passed: {name} ({seconds:.1} s)");
                self.outcome.passed += 1;
                true
            }
            Err(error) => {
                eprintln!("   FAILED: {name} ({seconds:.1} s)\n   {error:#}");
                self.outcome.failed.push((name.into(), format!("{error:#}")));
                false
            }
        }
    }

    /// A step that is one command: it passes when the command exits with 0.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> bool {
        self.step(name, || call(command))
    }

    /// Whether all of these are there; where one is not, `name` counts as skipped.
    pub(crate) fn has(&mut self, name: &str, tools: &[&Tool]) -> bool {
        let missing = tools.iter().find(|tool| !tool.found());
        if let Some(tool) = missing {
            self.skip(name, format!("{} missing: {}", tool.name, tool.line()));
        }
        missing.is_none()
    }

    /// Records a step that this machine cannot take.
    pub(crate) fn skip(&mut self, name: &str, why: impl Display) {
        if self.strict {
            eprintln!("\n── {name}\n   FAILED: {why}");
            self.outcome.failed.push((name.into(), why.to_string()));
            return;
        }
        eprintln!("\n── {name}\n   skipped: {why}");
        self.outcome.skipped.push((name.into(), why.to_string()));
    }

    /// Takes in what a suite came to that was run apart.
    pub(crate) fn take(&mut self, suite: &str, outcome: Result<Outcome>) {
        match outcome {
            Ok(Outcome { passed, failed, skipped }) => {
                self.outcome.passed += passed;
                self.outcome.failed.extend(failed);
                self.outcome.skipped.extend(skipped);
            }
            Err(error) => {
                eprintln!("   FAILED: {suite}: {error:#}");
                self.outcome.failed.push((suite.into(), format!("{error:#}")));
            }
        }
    }

    /// Writes what it has come to, for [`Report::take`].
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_vec(&self.outcome)?)?)
    }

    /// Lists what failed and what was skipped, then counts. True when something ran and nothing
    /// failed.
    pub(crate) fn finish(self) -> bool {
        let Outcome { passed, failed, skipped } = self.outcome;
        for (name, why) in &skipped {
            eprintln!("skipped: {name}: {why}");
        }
        for (name, why) in &failed {
            // The rest stands where it happened.
            eprintln!("FAILED: {name}: {}", why.lines().next().unwrap_or_default());
        }
        println!("{passed} passed, {} failed, {} skipped", failed.len(), skipped.len());
        failed.is_empty() && passed > 0
    }
}

/// Runs a command to its end; an error unless it exits with 0.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let name = display(command);
    eprintln!("   $ {name}");
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// Runs a command to its end and gives what it printed; an error, with what it said, unless it
/// exits with 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = display(command);
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}\n{}", output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it, without its environment.
fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
