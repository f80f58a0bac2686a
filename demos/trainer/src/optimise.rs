//! AdamW with a cosine schedule and an exponential average of the weights: one run, one set of weights.

use std::f32::consts::PI;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError, RwLock};

use anyhow::{Result, ensure};
use mha::init::{SplitMix, glorot_uniform};
use mha_nets::learning::{Dropout, Tensor};
use mha_train::{Adam, clip_norm};
use rand_core::SeedableRng;

use crate::random::Random;

/// Parts of a batch, each with gradients of its own that are summed in order: however many threads there
/// are, the sum has the same bits.
const PARTS: usize = 8;

/// Steps in which the rate rises to what it is.
const WARM: u32 = 200;

/// What a run depends on beside its data.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many steps.
    pub steps: u32,
    /// Items of a step.
    pub batch: usize,
    /// The rate of Adam after warming up; it falls along a cosine.
    pub rate: f32,
    /// The part of the rate that is left in the end. The average of the weights is then one over a valley
    /// that they still move about in, which is flatter than the place where they would come to rest.
    pub left: f32,
    /// The decay of matrices; gains, biases and positions are free.
    pub decay: f32,
    /// Dropout of scores and of what branches add.
    pub drop: f32,
    /// The smoothing of labels.
    pub smoothing: f32,
    /// How slowly the average forgets.
    pub average: f32,
    /// What all chance comes from.
    pub seed: u64,
}

/// What is learned, and from what.
pub trait Task: Sync {
    /// The parameters in their order.
    fn tensors(&self) -> &'static [Tensor];

    /// Draws an item, and adds what it gives to `gradients`; the loss.
    ///
    /// # Errors
    /// Those of the network.
    fn learn(&self, item: Item<'_>) -> Result<f32>;
}

/// One item of a step.
pub struct Item<'a> {
    /// The weights.
    pub weights: &'a [f32],
    /// Where its chance comes from.
    pub(crate) random: Random,
    /// What is dropped.
    pub dropout: Option<Dropout>,
    /// The smoothing of labels.
    pub smoothing: f32,
    /// Of the weights.
    pub gradients: &'a mut [f32],
    /// For the network.
    pub scratch: &'a mut Vec<f32>,
}

/// The weights that a run begins with: Glorot's for matrices, as Flux does, 1 for gains, 0 for biases.
fn begin(tensors: &[Tensor], seed: u64) -> Vec<f32> {
    let mut weights = Vec::new();
    let mut glorot = SplitMix::seed_from_u64(seed);
    let mut random = Random::at(seed, [u64::MAX, 0]);
    for tensor in tensors {
        let mut values = vec![0.0; tensor.len()];
        match tensor.rows {
            _ if tensor.name == "position" => values.fill_with(|| random.normal(0.1)),
            Some(rows) => glorot_uniform(&mut values, rows, tensor.columns, &mut glorot),
            None if tensor.name.ends_with("gain") => values.fill(1.0),
            None => {}
        }
        weights.extend(values);
    }
    weights
}

/// Gradients of one part of a batch.
struct Part {
    gradients: Vec<f32>,
    loss: Result<f32>,
    scratch: Vec<f32>,
}

/// Trains, and returns the average of the weights, rounded to sixteen significant bits; `report` hears of each
/// step's mean loss.
///
/// # Errors
/// Those of the task, and a loss that is not finite.
pub fn train(
    task: &dyn Task,
    settings: &Settings,
    threads: usize,
    mut report: impl FnMut(u32, f32),
) -> Result<Vec<f32>> {
    let tensors = task.tensors();
    let start = begin(tensors, settings.seed);
    let len = start.len();
    let mut average = start.clone();
    let (mut means, mut squares) = (vec![0.0; len], vec![0.0; len]);
    let parts: Vec<Mutex<Part>> = (0..PARTS)
        .map(|_| Part { gradients: vec![0.0; len], loss: Ok(0.0), scratch: Vec::new() })
        .map(Mutex::new)
        .collect();
    let weights = RwLock::new(start);
    let barrier = Barrier::new(threads.max(1));
    // Parts are taken by whoever is free; the step that is over when it is none.
    let (next, step) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = |t: u32| {
        let weights = weights.read().unwrap_or_else(PoisonError::into_inner);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(index) else { break };
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            one_part(task, settings, t, index, &weights, &mut part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                loop {
                    barrier.wait();
                    let t = step.load(Ordering::Relaxed);
                    if t == 0 {
                        return;
                    }
                    work(t as u32);
                    barrier.wait();
                }
            });
        }
        let mut all = || -> Result<()> {
            for t in 1..=settings.steps {
                next.store(0, Ordering::Relaxed);
                step.store(t as usize, Ordering::Relaxed);
                barrier.wait();
                work(t);
                barrier.wait();
                let (mut gradients, mut loss) = (vec![0.0; len], 0.0);
                for part in &parts {
                    let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
                    loss += std::mem::replace(&mut part.loss, Ok(0.0))?;
                    for (sum, gradient) in gradients.iter_mut().zip(&part.gradients) {
                        *sum += gradient;
                    }
                }
                let count = settings.batch as f32;
                gradients.iter_mut().for_each(|gradient| *gradient /= count);
                ensure!(loss.is_finite(), "the loss of step {t} is {}", loss / count);
                clip_norm(&mut gradients, 1.0);
                let mut weights = weights.write().unwrap_or_else(PoisonError::into_inner);
                let rate = rate(settings, t);
                let mut at = 0;
                for tensor in tensors {
                    let own = at..at + tensor.len();
                    at = own.end;
                    let decays = tensor.rows.is_some() && tensor.name != "position";
                    let adam = Adam::new(rate).decay(if decays { settings.decay } else { 0.0 });
                    let (means, squares) = (&mut means[own.clone()], &mut squares[own.clone()]);
                    let gradients = &gradients[own.clone()];
                    adam.step(t, &mut weights[own], gradients, means, squares)?;
                }
                // It forgets faster in the beginning, and with that the beginning.
                let t32 = t as f32;
                let keep = settings.average.min((1.0 + t32) / (10.0 + t32));
                for (average, weight) in average.iter_mut().zip(&*weights) {
                    *average = keep * *average + (1.0 - keep) * weight;
                }
                report(t, loss / count);
            }
            Ok(())
        };
        let result = all();
        step.store(0, Ordering::Relaxed);
        barrier.wait();
        result
    })?;
    average.iter_mut().for_each(|weight| *weight = rounded(*weight));
    Ok(average)
}

/// The nearest number of sixteen significant bits, ties to even. The noise of training is far above the rest,
/// which no compression makes smaller where weights are downloaded.
fn rounded(weight: f32) -> f32 {
    let bits = weight.to_bits();
    let half = 0x7f + (bits >> 8 & 1);
    f32::from_bits(bits.wrapping_add(half) & !0xff)
}

/// The rate of a step.
fn rate(settings: &Settings, t: u32) -> f32 {
    let warm = (t as f32 / WARM as f32).min(1.0);
    let cosine = libm::cosf(PI * (t as f32 / settings.steps as f32));
    settings.rate * warm * (settings.left + (1.0 - settings.left) * 0.5 * (1.0 + cosine))
}

/// One part of a step's batch.
fn one_part(
    task: &dyn Task,
    settings: &Settings,
    t: u32,
    index: usize,
    weights: &[f32],
    part: &mut Part,
) {
    part.gradients.fill(0.0);
    let each = settings.batch.div_ceil(PARTS);
    let items = index * each..((index + 1) * each).min(settings.batch);
    let mut loss = 0.0;
    for item in items {
        let mut random = Random::at(settings.seed, [t.into(), item as u64]);
        let dropout = Dropout { p: settings.drop, seed: random.word() };
        let learned = task.learn(Item {
            weights,
            random,
            dropout: (settings.drop > 0.0).then_some(dropout),
            smoothing: settings.smoothing,
            gradients: &mut part.gradients,
            scratch: &mut part.scratch,
        });
        match learned {
            Ok(value) => loss += value,
            Err(error) => {
                part.loss = Err(error);
                return;
            }
        }
    }
    part.loss = Ok(loss);
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn weights_have_sixteen_significant_bits() {
        for weight in [0.0, -0.0, 1.0, -1.0, 0.5, 1e-30] {
            assert_eq!(rounded(weight).to_bits() & 0xff, 0);
            assert!((rounded(weight) - weight).abs() <= weight.abs() / 65536.0);
        }
        // 1 + 2⁻¹⁵ is the next one, and ties go to the even of two.
        let (next, tie) = (1.0 / 32768.0, 1.0 / 65536.0);
        assert_eq!(rounded(1.0 + next), 1.0 + next);
        assert_eq!(rounded(1.0 + tie), 1.0);
        assert_eq!(rounded(1.0 + next + tie), 1.0 + 2.0 * next);
        assert_eq!(rounded(-1.0 - tie * 1.01), -1.0 - next);
    }
}
