//! Chance that belongs to a place: the same seed and place give the same numbers on every machine.

/// SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, 2014).
pub(crate) struct Random {
    state: u64,
    /// The other number of a pair of normal ones.
    spare: Option<f32>,
}

impl Random {
    /// The numbers of a place: an item of a step of a run, say.
    pub(crate) fn at(seed: u64, place: [u64; 2]) -> Self {
        let mut state = mix(seed ^ 0x6d68_615f_7472_6169);
        for word in place {
            state = mix(state.wrapping_add(word.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        Self { state, spare: None }
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Below `end`; the bias towards some is that of 2⁶⁴ not being a multiple of it.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.word()) * end as u128) >> 64) as usize
    }

    /// At least 0, below 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.word() >> 40) as f32 / 16_777_216.0
    }

    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Of mean 0 (Box, Muller: *A note on the generation of random normal deviates*, 1958).
    pub(crate) fn normal(&mut self, deviation: f32) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare * deviation;
        }
        // Above 0, so that there is a logarithm.
        let radius = libm::sqrtf(-2.0 * libm::logf(1.0 - self.unit()));
        let (sin, cos) = libm::sincosf(2.0 * core::f32::consts::PI * self.unit());
        self.spare = Some(radius * sin);
        radius * cos * deviation
    }

    /// In a random order (Fisher, Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn moments_are_as_they_should_be() {
        let mut random = Random::at(1, [2, 3]);
        let (mut sums, mut uniform) = ([0.0; 4], 0.0);
        let count = 200_000;
        for _ in 0..count {
            let x = f64::from(random.normal(2.0));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum += x.powi(i as i32 + 1) / f64::from(count);
            }
            uniform += f64::from(random.between(-1.0, 3.0)) / f64::from(count);
        }
        // Each with what the variance of that power of a normal number of deviation 2 is.
        let expected = [(0.0, 4.0), (4.0, 32.0), (0.0, 960.0), (48.0, 24_576.0)];
        for (sum, (expected, variance)) in sums.iter().zip(expected) {
            let error = f64::sqrt(variance / f64::from(count));
            assert!((sum - expected).abs() < 4.0 * error, "{sums:?}");
        }
        assert!((uniform - 1.0).abs() < 0.02);
    }

    #[test]
    fn places_differ_and_repeat() {
        let word = |seed, place| Random::at(seed, place).word();
        assert_eq!(word(1, [2, 3]), word(1, [2, 3]));
        let all = [word(1, [2, 3]), word(1, [3, 2]), word(2, [2, 3]), word(1, [2, 4])];
        assert!((1..4).all(|i| !all[..i].contains(&all[i])));
        let mut items: Vec<usize> = (0..100).collect();
        Random::at(1, [0, 0]).shuffle(&mut items);
        assert!(items.iter().enumerate().any(|(i, &item)| i != item));
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(i, &item)| i == item));
    }
}
