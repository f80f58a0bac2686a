//! The most floating-point operations that one core can do: independent multiply-adds in registers.

use std::hint::black_box;
use std::time::Instant;

/// Peak of the instructions of a kernel, in operations a second (a multiply-add is two).
pub(crate) fn of(isa: &str) -> f64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a kernel of this name is available, so the processor has its instructions.
        "avx512" => best(|| unsafe { x86::avx512(ROUNDS) }, 16),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        "avx2" => best(|| unsafe { x86::avx2(ROUNDS) }, 8),
        _ => best(|| plain(ROUNDS), 4),
    }
}

const ROUNDS: u64 = 200_000;
/// Enough chains to hide the latency of two units.
const CHAINS: usize = 12;

fn best(mut run: impl FnMut(), lanes: u64) -> f64 {
    let operations = (ROUNDS * CHAINS as u64 * lanes * 2) as f64;
    let fastest = (0..20)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    operations / fastest.as_secs_f64()
}

/// What the compiler makes of arrays of four, a product and a sum at a time.
fn plain(rounds: u64) {
    let (a, b) = (black_box([1.0f32; 4]), black_box([1e-9f32; 4]));
    let mut sums = [[0.0f32; 4]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for i in 0..4 {
                sum[i] = sum[i] * a[i] + b[i];
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, black_box};
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
}
