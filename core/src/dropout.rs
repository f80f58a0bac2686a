//! Dropout on the scores, decided by a counter instead of a state: the same seed, batch, head, query
//! and key give the same decision whatever the tiling, the thread or the direction, so that a
//! backward pass can make the decisions again.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as
//! 1, 2, 3*, SC 2011). Its key is the seed, its counter `(key / 4, query, head, batch)`; key `j`
//! takes word `j % 4`.

use crate::error::{Argument, Error};

/// A dropout probability and the seed of its decisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    p: f32,
    seed: u64,
}

impl Dropout {
    /// Drops each score with probability `p`, `0 <= p < 1`, and multiplies those that survive by
    /// `1 / (1 - p)`. The probability is rounded down to a multiple of 2⁻²⁴; 0 costs nothing.
    #[must_use]
    pub const fn new(p: f32, seed: u64) -> Self {
        Self { p, seed }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if (0.0..1.0).contains(&self.p) {
            Ok(())
        } else {
            Err(Error::Value { argument: Argument::Dropout })
        }
    }

    /// Whether it drops anything.
    pub(crate) fn drops(&self) -> bool {
        self.p > 0.0
    }

    /// The decisions for one row of scores, or `None` where nothing can be dropped.
    pub(crate) fn row(self, batch: usize, head: usize, query: usize) -> Option<DropoutRow> {
        if self.p == 0.0 {
            return None;
        }
        Some(DropoutRow {
            // Exact: a power of two times a 24-bit significand, then the floor.
            threshold: (self.p * 16_777_216.0) as u32,
            survivor: 1.0 / (1.0 - self.p),
            key: [self.seed as u32, (self.seed >> 32) as u32],
            counter: [query as u32, head as u32, batch as u32],
        })
    }
}

/// The dropout decisions of one query in one head.
#[derive(Clone, Copy)]
pub(crate) struct DropoutRow {
    threshold: u32,
    survivor: f32,
    key: [u32; 2],
    counter: [u32; 3],
}

impl DropoutRow {
    /// Drops and scales `scores`, which belong to the keys from `first` on. `first` is a multiple
    /// of 4.
    #[cfg_attr(any(feature = "size", target_os = "none"), inline(never))]
    #[cfg_attr(target_arch = "wasm32", inline)]
    pub(crate) fn apply(&self, first: usize, scores: &mut [f32]) {
        let [query, head, batch] = self.counter;
        for (i, four) in scores.chunks_mut(4).enumerate() {
            let words = philox4x32([(first / 4 + i) as u32, query, head, batch], self.key);
            for (score, word) in four.iter_mut().zip(words) {
                let dropped = word >> 8 < self.threshold;
                *score = if dropped { 0.0 } else { *score * self.survivor };
            }
        }
    }
}

/// Philox4x32 with ten rounds.
#[cfg_attr(target_arch = "wasm32", inline)]
pub(crate) fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    // Small memories hold one round, not ten.
    let rounds = if cfg!(target_os = "none") { core::hint::black_box(10) } else { 10 };
    for _ in 0..rounds {
        let [c0, c1, c2, c3] = counter;
        let a = u64::from(c0) * 0xD251_1F53;
        let b = u64::from(c2) * 0xCD9E_8D57;
        let (a_high, b_high) = ((a >> 32) as u32, (b >> 32) as u32);
        counter = [b_high ^ c1 ^ key[0], b as u32, a_high ^ c3 ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::philox4x32;

    /// The known answers that the authors publish with their library, Random123.
    #[test]
    fn philox_gives_the_published_answers() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ] {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }
}
