//! Samples of several contenders, taken in turn.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Something that can be timed.
pub(crate) trait Contender {
    /// The time of `calls` calls one after another. A call that is not timed goes before them: what
    /// ran since the last sample has had the caches.
    fn time(&mut self, calls: u32) -> Result<Duration>;
}

/// What the samples of a contender come to, in seconds a call.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) samples: usize,
}

/// A sample takes about this long, so that the clock does not matter.
const SAMPLE: f64 = 1e-3;
/// However long they take, so many samples there are.
const LEAST: usize = 5;

/// Times contenders round after round, one sample each a round, so that drift of the machine hits
/// all alike. `each` is what they may take on the average.
pub(crate) fn measure(
    contenders: &mut [&mut dyn Contender],
    each: Duration,
) -> Result<Vec<Summary>> {
    let mut calls = Vec::new();
    for contender in contenders.iter_mut() {
        let once = contender.time(1)?.min(contender.time(1)?).as_secs_f64();
        calls.push((SAMPLE / once.max(1e-8)).clamp(1.0, 1e6) as u32);
    }
    let mut samples = vec![Vec::new(); contenders.len()];
    let (start, most) = (Instant::now(), each * contenders.len() as u32);
    let mut rounds = 0;
    while rounds < LEAST || start.elapsed() < most {
        for ((contender, &calls), samples) in contenders.iter_mut().zip(&calls).zip(&mut samples) {
            samples.push(contender.time(calls)?.as_secs_f64() / f64::from(calls));
        }
        rounds += 1;
    }
    Ok(samples.into_iter().map(summary).collect())
}

fn summary(mut samples: Vec<f64>) -> Summary {
    samples.sort_by(f64::total_cmp);
    let at = |i: usize| samples.get(i).copied().unwrap_or(f64::NAN);
    Summary { min: at(0), median: at(samples.len() / 2), samples: samples.len() }
}

/// Times a closure as a contender is timed.
pub(crate) fn time(calls: u32, mut call: impl FnMut() -> Result<()>) -> Result<Duration> {
    call()?;
    let start = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(start.elapsed())
}
