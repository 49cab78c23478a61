//! A worker's own state: its random numbers, its counts, its place in its workload.

use crate::tally::Tally;

/// One worker of a trial. Its thread owns it; nothing in it is shared.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Number of the worker, from 0.
    pub index: u32,
    /// Operations that the worker made, by kind and outcome.
    pub tally: Tally,
    /// Steps taken: workloads that alternate look at its lowest bits.
    pub step: u64,
    random: [u64; 2],
}

impl Worker {
    /// Makes worker `index` of a trial with this `seed`.
    pub fn new(index: u32, seed: u64) -> Self {
        // SplitMix64 (Steele, Lea, Flood 2014) spreads neighbouring seeds.
        let mut state = seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let random = [next() | 1, next()];
        Self { index, tally: Tally::default(), step: 0, random }
    }

    /// Returns a random number: xoroshiro128+ (Blackman, Vigna 2018), a nanosecond a piece, which a
    /// generator in the measured loop must not exceed.
    #[inline(always)]
    pub fn random(&mut self) -> u64 {
        let [a, mut b] = self.random;
        let result = a.wrapping_add(b);
        b ^= a;
        self.random = [a.rotate_left(24) ^ b ^ (b << 16), b.rotate_left(37)];
        result
    }

    /// Returns a random number below `bound`, which is at most 2^32.
    #[inline(always)]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((self.random() >> 32) * bound) >> 32
    }

    /// Returns whether a random event of the given chance in percent happens.
    #[inline(always)]
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

#[cfg(test)]
mod tests {
    use super::Worker;

    #[test]
    fn same_seed_same_numbers_other_worker_others() {
        let numbers = |index, seed| {
            let mut worker = Worker::new(index, seed);
            core::array::from_fn::<u64, 8, _>(|_| worker.random())
        };
        assert_eq!(numbers(1, 7), numbers(1, 7));
        assert_ne!(numbers(1, 7), numbers(2, 7));
        assert_ne!(numbers(1, 7), numbers(1, 8));
    }

    #[test]
    fn chances_are_met() {
        let mut worker = Worker::new(0, 1);
        let hits = (0..100_000).filter(|_| worker.percent(10)).count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| worker.below(3) < 3));
    }
}
