//! From an interval to a word, and how many more rounds it takes to get one.

use cellbench_mutations::mutated;
use cellbench_record::Verdict;

use super::interval::Interval;
use super::power;

/// Conditions of a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Relative difference that matters: 0.01 for 1 %.
    pub threshold_share: f64,
    /// Probability of a false difference anywhere in the table: 0.05.
    pub alpha: f64,
}

/// Estimates of rounds stop here: beyond, other means than patience are needed.
pub const MOST_ROUNDS: u32 = power::MOST_ROUNDS;

impl Rule {
    /// Returns the verdict on a log ratio by its simultaneous interval alone, so that verdict and
    /// interval cannot contradict each other.
    ///
    /// * `same`: the whole interval lies within the threshold of interest.
    /// * `faster`, `slower`: the interval lies on one side of equality.
    /// * `undecided`: it holds equality, and reaches beyond the threshold.
    #[must_use]
    pub fn judge(&self, log_ratio: &Interval) -> Verdict {
        let threshold = self.log_threshold();
        let within = if mutated!(SameByEstimate) {
            log_ratio.estimate.abs() <= threshold
        } else {
            -threshold <= log_ratio.low && log_ratio.high <= threshold
        };
        if within {
            Verdict::Same
        } else if log_ratio.low > 0.0 {
            Verdict::Faster
        } else if log_ratio.high < 0.0
            || mutated!(SlowerByEstimate) && log_ratio.estimate < -threshold
        {
            Verdict::Slower
        } else {
            Verdict::Undecided
        }
    }

    /// Returns the further rounds after which an undecided row with `pairs` rounds so far can be
    /// expected to be decided, if it goes on as it began: at least 1, at most [`MOST_ROUNDS`].
    #[must_use]
    pub fn rounds_needed(&self, log_ratio: &Interval, pairs: usize, comparisons: usize) -> u32 {
        let half_width = (log_ratio.high - log_ratio.low) / 2.0;
        let size = log_ratio.estimate.abs();
        // Half the width that would decide: clear of equality, or within the threshold.
        let wanted = size.max(self.log_threshold() - size);
        let least =
            power::rounds_needed(u32::try_from(comparisons).unwrap_or(u32::MAX), self.alpha);
        let rounds = (pairs as f64 * (half_width / wanted).powi(2)).max(f64::from(least));
        let more = (rounds - pairs as f64).ceil();
        if more.is_finite() { more.clamp(1.0, f64::from(MOST_ROUNDS)) as u32 } else { MOST_ROUNDS }
    }

    fn log_threshold(&self) -> f64 {
        libm::log1p(self.threshold_share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { threshold_share: 0.01, alpha: 0.05 };

    fn ratio(low: f64, estimate: f64, high: f64) -> Interval {
        Interval { estimate: estimate.ln(), low: low.ln(), high: high.ln() }
    }

    #[test]
    fn the_interval_alone_decides() {
        let cases = [
            (ratio(1.02, 1.05, 1.08), Verdict::Faster),
            (ratio(0.92, 0.95, 0.98), Verdict::Slower),
            (ratio(0.995, 1.002, 1.009), Verdict::Same),
            // Surely different, but by less than matters.
            (ratio(1.004, 1.006, 1.008), Verdict::Same),
            // Surely different, perhaps by less than matters.
            (ratio(1.001, 1.008, 1.02), Verdict::Faster),
            (ratio(0.99, 1.05, 1.08), Verdict::Undecided),
            (ratio(1.0, 1.05, 1.08), Verdict::Undecided),
        ];
        for (interval, expected) in cases {
            assert_eq!(RULE.judge(&interval), expected, "{interval:?}");
            // Seen from the other side.
            let Interval { estimate, low, high } = interval;
            let mirrored = Interval { estimate: -estimate, low: -high, high: -low };
            let expected = match expected {
                Verdict::Faster => Verdict::Slower,
                Verdict::Slower => Verdict::Faster,
                other => other,
            };
            assert_eq!(RULE.judge(&mirrored), expected, "{mirrored:?}");
        }
    }

    #[test]
    fn four_times_the_rounds_halve_an_interval() {
        // 2 % with an interval of 4 % to either side: twice too wide, so 4 times the rounds.
        let interval = Interval { estimate: 0.02, low: -0.02, high: 0.06 };
        assert_eq!(RULE.rounds_needed(&interval, 20, 1), 60);
        // None at all and an interval of 2 % to either side, to fit into 1 %.
        let interval = Interval { estimate: 0.0, low: -0.02, high: 0.02 };
        assert!((60..=62).contains(&RULE.rounds_needed(&interval, 20, 100)));
        // Few rounds cannot decide in a large table, however narrow the interval.
        let interval = Interval { estimate: 0.02, low: -0.001, high: 0.04 };
        assert_eq!(RULE.rounds_needed(&interval, 8, 759), 8);
    }
}
