//! The simulation's random numbers: tiny, seeded, and the same on every host and in every release.
//!
//! A general random-number crate may change its streams between versions; a recorded seed must go
//! on meaning the same run. The generator is SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast
//! splittable pseudorandom number generators", OOPSLA 2014).

/// A SplitMix64 stream.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws evenly from `0..bound`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is even to within `bound / 2^64`: far below any effect here.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Draws an exponentially distributed value with the given mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        let unit = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        -mean * (1.0 - unit).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // Reference values of SplitMix64 for seed 1234567, as other implementations give them.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn draws_keep_their_range_and_mean() {
        let mut rng = Rng::new(7);
        assert_eq!(rng.below(0), 0);
        let draws: Vec<u64> = (0..10_000).map(|_| rng.below(100)).collect();
        assert!(draws.iter().all(|&draw| draw < 100));
        let mean = draws.iter().sum::<u64>() as f64 / 1e4;
        assert!((mean - 49.5).abs() < 1.5, "mean of an even draw is {mean}");
        let mean = (0..10_000).map(|_| rng.exponential(20.0)).sum::<f64>() / 1e4;
        assert!((mean - 20.0).abs() < 1.0, "mean of an exponential draw is {mean}");
    }
}
