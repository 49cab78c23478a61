//! Wilcoxon's signed-rank test of paired differences, and the interval that inverts it.
//!
//! The order within a round is drawn at random. If two cells are equal, exchanging their labels
//! changes nothing but the sign of the round's difference: every sign is a fair coin, whatever the
//! host does and whatever the magnitudes are. The law of the signed-rank sum over such coins is
//! therefore exact, and nothing is assumed about drift or about the law of the noise.
//!
//! Everything here is written in the averages of pairs, (d_i + d_j) / 2 for i <= j (J. Walsh 1949):
//! the rank sum of the differences that exceed x is the number of averages that exceed x. Hence the
//! estimate is their median, the interval runs between two of them, and interval and probability
//! agree by construction: the interval at a level excludes 0 exactly if the probability is at most
//! that level (J. Hodges, E. Lehmann, Annals of Mathematical Statistics 1963).

use std::sync::OnceLock;

use cellbench_mutations::mutated;

use super::interval::Interval;
use super::normal;

/// Largest number of differences whose law is computed exactly; the normal limit beyond it has
/// heavier tails than the law, which errs to the safe side.
const EXACT_LIMIT: usize = 64;

/// Largest number of differences whose averages are all written down; beyond it they are counted.
const LISTED_LIMIT: usize = 40;

/// Differences of one comparison, ready to be tested.
#[derive(Clone, Debug)]
pub struct SignedRank {
    /// In rising order.
    sorted: Vec<f64>,
    /// All averages in rising order, if they are few.
    averages: Option<Vec<f64>>,
}

impl SignedRank {
    /// Takes differences in any order; none if there are none.
    #[must_use]
    pub fn new(differences: &[f64]) -> Option<Self> {
        if differences.is_empty() {
            return None;
        }
        let mut sorted = differences.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let averages = (sorted.len() <= LISTED_LIMIT).then(|| {
            let mut averages: Vec<f64> = (0..sorted.len())
                .flat_map(|i| sorted[i..].iter().map(move |other| (i, *other)))
                .map(|(i, other)| f64::midpoint(sorted[i], other))
                .collect();
            averages.sort_unstable_by(f64::total_cmp);
            averages
        });
        Some(Self { sorted, averages })
    }

    /// Returns the median of the averages: the shift that leaves the ranks balanced.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        let pairs = pairs(self.sorted.len());
        let upper = self.nth(pairs / 2);
        if pairs % 2 == 1 { upper } else { f64::midpoint(self.nth(pairs / 2 - 1), upper) }
    }

    /// Returns the two-sided probability of ranks this unbalanced under a shift of 0. Ties and
    /// zeros
    /// count against a difference.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        let n = self.sorted.len();
        let not_above = self.count_up_to(0.0);
        let below = if mutated!(TiesCountForIt) { 0.0 } else { (0.0_f64).next_down() };
        let not_below = pairs(n) - self.count_up_to(below);
        (2.0 * lower_tail(n, not_above.min(not_below))).min(1.0)
    }

    /// Returns the shifts that the test does not reject at `level`; none if it can reject nothing
    /// at
    /// that level, however the differences fall.
    #[must_use]
    pub fn interval(&self, level: f64) -> Option<Interval> {
        let n = self.sorted.len();
        let left_out = critical(n, level)?;
        Some(Interval {
            estimate: self.estimate(),
            low: self.nth(left_out + usize::from(mutated!(IntervalOneShort))),
            high: self.nth(pairs(n) - 1 - left_out),
        })
    }

    /// Returns the number of averages that are at most `x`.
    fn count_up_to(&self, x: f64) -> usize {
        if let Some(averages) = &self.averages {
            return averages.partition_point(|average| *average <= x);
        }
        // As the one side of a pair rises, the other may only fall.
        let mut end = self.sorted.len();
        let mut count = 0;
        for (i, one) in self.sorted.iter().enumerate() {
            while end > i && f64::midpoint(*one, self.sorted[end - 1]) > x {
                end -= 1;
            }
            if end <= i {
                break;
            }
            count += end - i;
        }
        count
    }

    /// Returns the average with `index` others before it in rising order.
    fn nth(&self, index: usize) -> f64 {
        if let Some(averages) = &self.averages {
            return averages[index];
        }
        let last = self.sorted.len() - 1;
        let (mut low, mut high) = (ordinal(self.sorted[0]), ordinal(self.sorted[last]));
        while low < high {
            let middle = low + ((high as i128 - low as i128) / 2) as i64;
            if self.count_up_to(of_ordinal(middle)) > index {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        of_ordinal(low)
    }
}

/// Maps floating-point numbers to integers in the same order; its own inverse on the bits.
fn ordinal(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((((bits >> 63) as u64) >> 1) as i64)
}

fn of_ordinal(ordinal: i64) -> f64 {
    f64::from_bits((ordinal ^ ((((ordinal >> 63) as u64) >> 1) as i64)) as u64)
}

/// Returns the number of averages of `n` differences.
pub(super) fn pairs(n: usize) -> usize {
    n * (n + 1) / 2
}

/// Returns the probability of a rank sum of at most `sum` when the signs of `n` differences are
/// fair
/// coins.
#[must_use]
pub fn lower_tail(n: usize, sum: usize) -> f64 {
    match law(n) {
        Some(law) => law[sum.min(law.len() - 1)],
        None => {
            let (mean, deviation) = moments(n);
            normal::cdf((sum as f64 + 0.5 - mean) / deviation)
        }
    }
}

/// Returns the mean and standard deviation of the rank sum.
pub(super) fn moments(n: usize) -> (f64, f64) {
    let n = n as f64;
    (n * (n + 1.0) / 4.0, (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt())
}

/// Returns the law as cumulative probabilities, for few differences.
pub(super) fn law(n: usize) -> Option<&'static [f64]> {
    static LAWS: [OnceLock<Vec<f64>>; EXACT_LIMIT + 1] =
        [const { OnceLock::new() }; EXACT_LIMIT + 1];
    let compute = || {
        let mut law = vec![0.0; pairs(n) + 1];
        law[0] = 1.0;
        for rank in 1..=n {
            for sum in (0..=pairs(rank)).rev() {
                let with = if sum >= rank { law[sum - rank] } else { 0.0 };
                law[sum] = (law[sum] + with) / 2.0;
            }
        }
        let mut sum = 0.0;
        law.iter()
            .map(|probability| {
                sum += probability;
                sum
            })
            .collect()
    };
    LAWS.get(n).map(|law| law.get_or_init(compute).as_slice())
}

/// Returns the largest rank sum on one side whose two-sided probability is at most `level`; none
/// if even 0 is
/// more probable.
fn critical(n: usize, level: f64) -> Option<usize> {
    let rejects = |sum: &usize| 2.0 * lower_tail(n, *sum) <= level;
    let (mut low, mut high) = (0, pairs(n) / 2);
    // `low` sums are known to reject.
    while low < high {
        let middle = usize::midpoint(low, high);
        if rejects(&middle) { low = middle + 1 } else { high = middle }
    }
    low.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::super::random::SplitMix64;
    use super::*;

    fn test(differences: &[f64]) -> SignedRank {
        SignedRank::new(differences).unwrap()
    }

    #[test]
    fn all_of_one_sign_has_the_probability_of_coins() {
        for n in [6_usize, 15, 30] {
            let all: Vec<f64> = (1..=n).map(|i| i as f64).collect();
            let expected = 2.0 * 0.5_f64.powi(n as i32);
            assert!((test(&all).p_value() / expected - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn agrees_with_the_published_table() {
        // Critical value for n = 10 at two-sided 5 %: the smaller rank sum is at most 8 (0.0488).
        let with_sum = |negative: &[usize]| {
            let values: Vec<f64> = (1..=10)
                .map(|rank| rank as f64 * if negative.contains(&rank) { -1.0 } else { 1.0 })
                .collect();
            test(&values).p_value()
        };
        assert!((with_sum(&[8]) - 0.048_828_125).abs() < 1e-12);
        assert!((with_sum(&[9]) - 0.064_453_125).abs() < 1e-12);
        assert_eq!(critical(10, 0.05), Some(8));
        assert_eq!(critical(5, 0.05), None, "two of 32 are more than 5 %");
    }

    #[test]
    fn ties_and_zeros_count_against_a_difference() {
        assert_eq!(test(&[0.0; 20]).p_value(), 1.0);
        assert_eq!(test(&[0.0; 20]).interval(0.01).map(|it| (it.low, it.high)), Some((0.0, 0.0)));
        assert_eq!(test(&[1.0, -1.0, 0.0, 1.0, -1.0]).p_value(), 1.0);
        assert!((test(&[3.0; 6]).p_value() - 2.0 / 64.0).abs() < 1e-12);
        assert!(SignedRank::new(&[]).is_none());
    }

    #[test]
    fn exact_law_and_normal_limit_meet() {
        for (n, sum) in [(64, 850), (64, 950)] {
            let (mean, deviation) = moments(n);
            let limit = normal::cdf((sum as f64 + 0.5 - mean) / deviation);
            assert!((lower_tail(n, sum) / limit - 1.0).abs() < 0.2, "{sum}");
        }
        // Far out the limit is the more careful one.
        let (mean, deviation) = moments(64);
        assert!(lower_tail(64, 100) < normal::cdf((100.5 - mean) / deviation));
    }

    #[test]
    fn counting_finds_the_averages_that_a_list_has() {
        let mut random = SplitMix64::new(3);
        for n in [1, 2, 7, 33] {
            let values: Vec<f64> =
                (0..n).map(|_| (random.normal_pair()[0] * 4.0).round() / 8.0).collect();
            let listed = test(&values);
            let counted = SignedRank { averages: None, ..listed.clone() };
            for index in 0..pairs(n) {
                assert_eq!(counted.nth(index), listed.nth(index), "{index} of {values:?}");
            }
            assert_eq!(counted.count_up_to(0.0), listed.count_up_to(0.0));
            assert_eq!(counted.estimate(), listed.estimate());
        }
        for value in [f64::MIN, -1.5, -0.0, 0.0, 1e-300, 7.0, f64::MAX] {
            assert_eq!(of_ordinal(ordinal(value)).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn the_interval_excludes_zero_exactly_if_the_test_rejects() {
        let mut random = SplitMix64::new(4);
        let mut rejected = 0;
        for n in [6, 12, 20, 45, 80] {
            for shift in [0.0, 0.5, 1.0] {
                for _ in 0..40 {
                    let values: Vec<f64> = (0..n)
                        .map(|_| ((random.normal_pair()[0] + shift) * 4.0).round() / 4.0)
                        .collect();
                    for level in [0.05, 0.003] {
                        let Some(found) = test(&values).interval(level) else { continue };
                        let excludes = found.low > 0.0 || found.high < 0.0;
                        assert_eq!(excludes, test(&values).p_value() <= level, "{values:?}");
                        assert!(found.low <= found.estimate && found.estimate <= found.high);
                        rejected += usize::from(excludes);
                    }
                }
            }
        }
        assert!(rejected > 100, "{rejected}");
    }
}
