//! Zipf-distributed keys: the k-th most frequent of `n` keys has a share proportional to `1/k^s`.
//!
//! Drawn from a table by the alias method (Walker 1977; Vose 1991): one random number, one line of
//! the table, whatever `n`; so that choosing the key does not hide what is measured.

/// A table to draw keys from.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// For each slot: below which 32-bit fraction the slot's own key is taken, and which other
    /// key above.
    slots: Box<[(u32, u32)]>,
}

impl Zipf {
    /// Keys `0..n`, key 0 the most frequent, with exponent `s`.
    ///
    /// # Panics
    /// If there are no keys, or more than 2^32.
    pub fn new(n: usize, s: f64) -> Self {
        assert!(n > 0 && u32::try_from(n).is_ok(), "{n} keys");
        let weights: Vec<f64> = (1..=n).map(|rank| (rank as f64).powf(-s)).collect();
        let scale = n as f64 / weights.iter().sum::<f64>();
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..n).partition(|key| shares[*key] < 1.0);
        let mut slots = vec![(u32::MAX, 0); n];
        for (key, slot) in slots.iter_mut().enumerate() {
            slot.1 = key as u32;
        }
        // Each poor slot is filled up by a rich key.
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            slots[poor] = ((shares[poor] * f64::from(u32::MAX)) as u32, rich as u32);
            shares[rich] -= 1.0 - shares[poor];
            if shares[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { slots: slots.into() }
    }

    /// Returns the key that a random number stands for.
    #[inline(always)]
    pub fn key(&self, random: u64) -> usize {
        let slot = (((random >> 32) * self.slots.len() as u64) >> 32) as usize;
        let (threshold, other) = self.slots[slot];
        if random as u32 <= threshold { slot } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::Zipf;
    use crate::Worker;

    #[test]
    fn shares_follow_the_law() {
        let zipf = Zipf::new(64, 0.99);
        let mut worker = Worker::new(0, 3);
        let draws = 1_000_000;
        let mut counts = [0_u32; 64];
        for _ in 0..draws {
            counts[zipf.key(worker.random())] += 1;
        }
        let total: f64 = (1..=64).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for (rank, count) in (1..).zip(counts) {
            let expected = f64::from(draws) * f64::from(rank).powf(-0.99) / total;
            let error = (f64::from(count) - expected).abs();
            // Five standard deviations.
            assert!(error < 5.0 * expected.sqrt(), "rank {rank}: {count}, {expected:.0} expected");
        }
    }

    #[test]
    fn one_key_is_always_drawn() {
        let zipf = Zipf::new(1, 1.2);
        assert_eq!((zipf.key(0), zipf.key(u64::MAX)), (0, 0));
    }
}
