//! What a run has come to: for a person on the screen, for machines as JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Everything of one run.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Of each library, of the compiler, of the system.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) commit: String,
    pub(crate) peaks: Vec<Peak>,
    pub(crate) figures: Vec<Figure>,
    #[serde(default)]
    pub(crate) decode: Option<crate::decode::Decode>,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
}

/// What an environment can do at most.
#[derive(Serialize, Deserialize)]
pub(crate) struct Peak {
    pub(crate) environment: String,
    pub(crate) instructions: String,
    pub(crate) threads: usize,
    pub(crate) gflops: f64,
}

/// The time of one way to compute one case.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) environment: String,
    pub(crate) shape: String,
    pub(crate) what: String,
    pub(crate) scores: bool,
    pub(crate) threads: usize,
    pub(crate) library: String,
    pub(crate) variant: String,
    pub(crate) min_us: f64,
    pub(crate) median_us: f64,
    pub(crate) samples: usize,
    pub(crate) gflops: f64,
    pub(crate) of_peak: f64,
    /// Where the call reads everything once: how fast, beside a plain sum over the same bytes.
    #[serde(default)]
    pub(crate) of_bandwidth: Option<f64>,
    /// Ours only.
    #[serde(default)]
    pub(crate) scratch_bytes: Option<usize>,
    /// Others only: the largest difference from ours, relative to the largest number.
    #[serde(default)]
    pub(crate) error: Option<f64>,
}

/// The library that this is about.
pub(crate) const OURS: &str = "mha";

impl Report {
    /// An empty report about this machine and this state of the sources.
    pub(crate) fn here() -> Self {
        let mut versions = BTreeMap::new();
        versions.insert(OURS.into(), env!("CARGO_PKG_VERSION").into());
        versions.insert("rustc".into(), said("rustc", &["--version"]));
        versions.insert("system".into(), said("uname", &["-srm"]));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let commit = said("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
        let machine = Machine { processor: processor(), cores };
        Self { machine, versions, commit, ..Self::default() }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: not a report", path.display()))
    }

    /// The most operations a second of an environment, of the fastest instructions.
    pub(crate) fn peak(&self, environment: &str, threads: usize) -> Option<f64> {
        let of = |peak: &&Peak| peak.environment == environment && peak.threads == threads;
        self.peaks.iter().filter(of).map(|peak| peak.gflops).max_by(f64::total_cmp)
    }
}

/// What a program prints; nothing where it is not there.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(
        || said("sysctl", &["-n", "machdep.cpu.brand_string"]),
        |(_, name)| name.into(),
    )
}

/// The heading over lines of [`Figure::line`].
pub(crate) fn heading() -> String {
    format!(
        "{:<4} {:<6} {:>7} {:<17} {:<20} {:>11} {:>11} {:>8} {:>6} {:>6} {:>8}",
        "",
        "scores",
        "threads",
        "library",
        "variant",
        "min µs",
        "median µs",
        "GFLOP/s",
        "% peak",
        "% sum",
        "scratch"
    )
}

impl Figure {
    /// One line of the screen. Scratch is in KiB.
    pub(crate) fn line(&self) -> String {
        let percent = |part: f64| format!("{:.1}", 100.0 * part);
        format!(
            "{:<4} {:<6} {:>7} {:<17} {:<20} {:>11.2} {:>11.2} {:>8.1} {:>6} {:>6} {:>8}",
            self.shape,
            if self.scores { "with" } else { "" },
            self.threads,
            self.library,
            self.variant,
            self.min_us,
            self.median_us,
            self.gflops,
            percent(self.of_peak),
            self.of_bandwidth.map_or_else(String::new, percent),
            self.scratch_bytes
                .map_or_else(String::new, |bytes| format!("{:.1}", bytes as f64 / 1024.0)),
        )
    }
}
