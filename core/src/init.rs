//! Initialisers: Flux's, writing into the caller's weights.
//!
//! Each takes any generator of the [`rand_core`] ecosystem. [`SplitMix`] is a small one for those
//! who have no other. The same generator and seed give the same weights on every machine, bit for
//! bit: only additions, multiplications, square roots and libm's software functions are used.
//!
//! `fan_in` and `fan_out` are Flux's: the inputs and the outputs of the dense layer, whichever way
//! its weight lies in memory.

use rand_core::{Rng, SeedableRng};

/// Glorot's uniform initialiser, Flux's default: uniform in `±√(6 / (fan_in + fan_out))`.
///
/// Glorot, Bengio: *Understanding the difficulty of training deep feedforward neural networks*,
/// 2010. Flux's `gain` is 1.
///
/// ```
/// use mha::init::{SplitMix, glorot_uniform};
/// use rand_core::SeedableRng;
///
/// let mut weight = [0.0; 64 * 32];
/// glorot_uniform(&mut weight, 64, 32, &mut SplitMix::seed_from_u64(1));
/// assert!(weight.iter().all(|w| w.abs() <= 0.25));
/// ```
pub fn glorot_uniform(weight: &mut [f32], fan_in: usize, fan_out: usize, rng: &mut impl Rng) {
    uniform(weight, libm::sqrtf(6.0 / fans(fan_in, fan_out)), rng);
}

/// Glorot's normal initialiser: mean 0, standard deviation `√(2 / (fan_in + fan_out))`.
pub fn glorot_normal(weight: &mut [f32], fan_in: usize, fan_out: usize, rng: &mut impl Rng) {
    normal(weight, libm::sqrtf(2.0 / fans(fan_in, fan_out)), rng);
}

/// Kaiming's uniform initialiser with Flux's default gain √2: uniform in `±√(6 / fan_in)`.
///
/// He, Zhang, Ren, Sun: *Delving deep into rectifiers*, 2015.
pub fn kaiming_uniform(weight: &mut [f32], fan_in: usize, rng: &mut impl Rng) {
    uniform(weight, libm::sqrtf(6.0 / fan_in.max(1) as f32), rng);
}

/// Kaiming's normal initialiser with Flux's default gain √2: mean 0, standard deviation
/// `√(2 / fan_in)`.
pub fn kaiming_normal(weight: &mut [f32], fan_in: usize, rng: &mut impl Rng) {
    normal(weight, libm::sqrtf(2.0 / fan_in.max(1) as f32), rng);
}

/// A normal distribution cut off: values outside `[low, high]` are drawn again. Flux's defaults are
/// mean 0, standard deviation 1, and ±2.
///
/// A range that holds too little of the distribution to be hit, or nothing (`low > high`), gives the
/// point of the range nearest the mean.
pub fn truncated_normal(
    weight: &mut [f32],
    mean: f32,
    deviation: f32,
    low: f32,
    high: f32,
    rng: &mut impl Rng,
) {
    let mut normals = Normals::default();
    for w in weight {
        *w = mean.min(high).max(low);
        // With a chance of one half a draw, 1000 misses do not happen.
        for _ in 0..1000 {
            let drawn = mean + deviation * normals.next(rng);
            if (low..=high).contains(&drawn) {
                *w = drawn;
                break;
            }
        }
    }
}

/// All zeros.
pub fn zeros(weight: &mut [f32]) {
    weight.fill(0.0);
}

/// All ones.
pub fn ones(weight: &mut [f32]) {
    weight.fill(1.0);
}

/// The identity, row-major with `columns` columns: ones on the main diagonal, times `gain`. (The
/// transpose of an identity is one, so it does for both weight orders.)
pub fn identity(weight: &mut [f32], columns: usize, gain: f32) {
    for (i, row) in weight.chunks_mut(columns.max(1)).enumerate() {
        for (j, w) in row.iter_mut().enumerate() {
            *w = if i == j { gain } else { 0.0 };
        }
    }
}

/// Rows (or columns, whichever are fewer) that are orthogonal to each other and `gain` long,
/// row-major with `columns` columns: a matrix of normals, made orthogonal by Gram and Schmidt twice
/// over, in place and without scratch.
///
/// Saxe, McClelland, Ganguli: *Exact solutions to the nonlinear dynamics of learning in deep linear
/// neural networks*, 2013.
pub fn orthogonal(weight: &mut [f32], columns: usize, gain: f32, rng: &mut impl Rng) {
    let columns = columns.max(1);
    let rows = weight.len() / columns;
    normal(weight, 1.0, rng);
    let (count, len, step, each) =
        if rows <= columns { (rows, columns, columns, 1) } else { (columns, rows, 1, columns) };
    let mut vectors = Vectors { data: weight, len, step, each };
    for i in 0..count {
        // Once leaves what rounding leaves; twice is enough.
        for _ in 0..2 {
            for j in 0..i {
                let along = vectors.dot(i, j);
                for e in 0..len {
                    let part = along * vectors.get(j, e);
                    vectors.update(i, e, |w| w - part);
                }
            }
            let length = libm::sqrtf(vectors.dot(i, i));
            for e in 0..len {
                vectors.update(i, e, |w| w / length);
            }
        }
    }
    weight.iter_mut().for_each(|w| *w *= gain);
}

/// The rows or the columns of a matrix: element e of vector i lies at `i · step + e · each`.
struct Vectors<'a> {
    data: &'a mut [f32],
    len: usize,
    step: usize,
    each: usize,
}

impl Vectors<'_> {
    fn get(&self, i: usize, e: usize) -> f32 {
        self.data.get(i * self.step + e * self.each).copied().unwrap_or(0.0)
    }

    fn update(&mut self, i: usize, e: usize, f: impl Fn(f32) -> f32) {
        if let Some(w) = self.data.get_mut(i * self.step + e * self.each) {
            *w = f(*w);
        }
    }

    fn dot(&self, i: usize, j: usize) -> f32 {
        (0..self.len).fold(0.0, |sum, e| sum + self.get(i, e) * self.get(j, e))
    }
}

fn fans(fan_in: usize, fan_out: usize) -> f32 {
    fan_in.saturating_add(fan_out).max(1) as f32
}

fn uniform(weight: &mut [f32], bound: f32, rng: &mut impl Rng) {
    for w in weight {
        *w = (2.0 * unit(rng) - 1.0) * bound;
    }
}

fn normal(weight: &mut [f32], deviation: f32, rng: &mut impl Rng) {
    let mut normals = Normals::default();
    for w in weight {
        *w = normals.next(rng) * deviation;
    }
}

/// Uniform in `[0, 1)`, a multiple of 2⁻²⁴.
fn unit(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / 16_777_216.0
}

/// Standard normals, two at a time.
///
/// Box, Muller: *A note on the generation of random normal deviates*, 1958.
#[derive(Default)]
struct Normals {
    second: Option<f32>,
}

impl Normals {
    fn next(&mut self, rng: &mut impl Rng) -> f32 {
        if let Some(second) = self.second.take() {
            return second;
        }
        // In (0, 1], so that the logarithm is finite.
        let radius = libm::sqrtf(-2.0 * libm::logf(1.0 - unit(rng)));
        let angle = core::f32::consts::TAU * unit(rng);
        self.second = Some(radius * libm::sinf(angle));
        radius * libm::cosf(angle)
    }
}

/// SplitMix64, a generator of eight bytes for those who have no other: 64 bits of state, one
/// multiplication chain a number, equidistributed over its period of 2⁶⁴.
///
/// Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, 2014. Good for weights and
/// shuffles, **not** for secrets.
///
/// ```
/// use mha::init::SplitMix;
/// use rand_core::{Rng, SeedableRng};
///
/// // The first output for seed 0, as the reference implementation prints it.
/// assert_eq!(SplitMix::seed_from_u64(0).next_u64(), 0xe220_a839_7b1d_cdaf);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMix(u64);

impl SplitMix {
    fn step(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

impl rand_core::TryRng for SplitMix {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.step() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.step())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.step().to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

impl SeedableRng for SplitMix {
    type Seed = [u8; 8];

    fn from_seed(seed: Self::Seed) -> Self {
        Self(u64::from_le_bytes(seed))
    }

    fn seed_from_u64(state: u64) -> Self {
        Self(state)
    }
}
