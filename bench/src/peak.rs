//! What the machine can do at most: operations of independent multiply-adds in registers, and bytes of
//! a plain sum over memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Peak of the instructions of a kernel, in operations a second (a multiply-add is two), by so many
/// threads at once.
pub(crate) fn operations(isa: &str, threads: usize) -> f64 {
    let (run, lanes) = instructions(isa);
    let operations = (threads as u64 * ROUNDS * CHAINS as u64 * lanes * 2) as f64;
    operations / fastest(|| together(threads, run)).as_secs_f64()
}

/// Bytes a second of a sum over these slices with the instructions of a kernel, by one thread.
pub(crate) fn bytes(isa: &str, slices: &[&[f32]]) -> f64 {
    let bytes: usize = slices.iter().map(|slice| size_of_val(*slice)).sum();
    let sum = || {
        slices.iter().for_each(|slice| {
            black_box(sum(isa, slice));
        })
    };
    sum();
    bytes as f64 / fastest(sum).as_secs_f64()
}

const ROUNDS: u64 = 200_000;
/// Enough chains to hide the latency of two units.
const CHAINS: usize = 12;

fn fastest(mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..20).map(time).min().unwrap_or_default()
}

/// Runs it in several threads at once.
fn together(threads: usize, run: fn()) {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
}

/// A loop of multiply-adds for a kernel, and the lanes of its vectors.
fn instructions(isa: &str) -> (fn(), u64) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a kernel of this name is available, so the processor has its instructions.
        "avx512" => (|| unsafe { x86::avx512(ROUNDS) }, 16),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        "avx2" => (|| unsafe { x86::avx2(ROUNDS) }, 8),
        #[cfg(target_arch = "aarch64")]
        "neon" => (|| fused(ROUNDS), 4),
        _ => (|| plain(ROUNDS), 4),
    }
}

fn sum(isa: &str, floats: &[f32]) -> f32 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a kernel of this name is available, so the processor has its instructions.
        "avx512" => unsafe { x86::sum_avx512(floats) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        "avx2" => unsafe { x86::sum_avx2(floats) },
        _ => add(floats),
    }
}

/// Sums in enough partial sums for any vectors that the compiler may use.
#[inline(always)]
fn add(floats: &[f32]) -> f32 {
    let (chunks, rest) = floats.as_chunks::<128>();
    let mut sums = [0.0f32; 128];
    for chunk in chunks {
        for (sum, float) in sums.iter_mut().zip(chunk) {
            *sum += float;
        }
    }
    sums.iter().chain(rest).sum()
}

/// What the compiler makes of arrays of four, a product and a sum at a time.
fn plain(rounds: u64) {
    chains(rounds, |sum, a, b| sum * a + b);
}

#[cfg(target_arch = "aarch64")]
fn fused(rounds: u64) {
    chains(rounds, f32::mul_add);
}

#[inline(always)]
fn chains(rounds: u64, step: impl Fn(f32, f32, f32) -> f32) {
    let (a, b) = (black_box([1.0f32; 4]), black_box([1e-9f32; 4]));
    let mut sums = [[0.0f32; 4]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for i in 0..4 {
                sum[i] = step(sum[i], a[i], b[i]);
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, add, black_box};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: u64) {
        let (a, b) = (_mm512_set1_ps(black_box(1.0)), _mm512_set1_ps(black_box(1e-9)));
        let mut sums = [b; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: u64) {
        let (a, b) = (_mm256_set1_ps(black_box(1.0)), _mm256_set1_ps(black_box(1e-9)));
        let mut sums = [b; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_avx512(floats: &[f32]) -> f32 {
        add(floats)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2(floats: &[f32]) -> f32 {
        add(floats)
    }
}
