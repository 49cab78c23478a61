//! From interval and probability to a word, and how many more rounds it takes to get one.

use cellbench_record::Verdict;

use super::interval::{Interval, MIN_VALUES};
use super::normal;

/// What must hold for a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Relative difference that matters: 0.01 for 1 %.
    pub threshold_share: f64,
    /// Probability of a false difference anywhere in the table: 0.05.
    pub alpha: f64,
}

/// Estimates of rounds stop here: beyond, other means than patience are needed.
pub const MOST_ROUNDS: u32 = 100_000;

impl Rule {
    /// The verdict on a log ratio.
    ///
    /// * `same`: the whole interval lies within the threshold of interest.
    /// * `faster`, `slower`: the median lies beyond the threshold, the interval on one side of
    ///   equality, and the adjusted probability is at most alpha.
    /// * `undecided` else.
    #[must_use]
    pub fn judge(&self, log_ratio: &Interval, p_adjusted: f64) -> Verdict {
        let threshold = self.log_threshold();
        if -threshold <= log_ratio.low && log_ratio.high <= threshold {
            Verdict::Same
        } else if p_adjusted > self.alpha {
            Verdict::Undecided
        } else if log_ratio.estimate > threshold && log_ratio.low > 0.0 {
            Verdict::Faster
        } else if log_ratio.estimate < -threshold && log_ratio.high < 0.0 {
            Verdict::Slower
        } else {
            Verdict::Undecided
        }
    }

    /// Further rounds after which a row with `pairs` rounds so far can be expected to be decided in
    /// a table of `comparisons` rows, if it goes on as it began: at least 1, at most
    /// [`MOST_ROUNDS`], which also stands for a median that lies on the threshold itself.
    #[must_use]
    pub fn rounds_needed(
        &self,
        log_ratio: Option<&Interval>,
        pairs: usize,
        comparisons: usize,
    ) -> u32 {
        let Some(log_ratio) = log_ratio else {
            // Nothing is known yet but that rounds are missing.
            return u32::try_from(MIN_VALUES.saturating_sub(pairs)).unwrap_or(MOST_ROUNDS).max(1);
        };
        let half_width = (log_ratio.high - log_ratio.low) / 2.0;
        let size = log_ratio.estimate.abs();
        let threshold = self.log_threshold();
        // Width that would decide: clear of equality for a difference, within the threshold for none.
        // A difference must also pass the first step of Holm's method: a wider interval must clear.
        let (room, stretch) = if size > threshold {
            let corrected = self.alpha / comparisons.max(1) as f64;
            (size, normal::quantile(corrected / 2.0) / normal::quantile(self.alpha / 2.0))
        } else {
            (threshold - size, 1.0)
        };
        let growth = (half_width * stretch / room).powi(2);
        let wanted = pairs as f64 * growth;
        // The least number of rounds whose coins can all fall alike with that probability.
        let least = 1.0 + libm::log2(comparisons.max(1) as f64 / self.alpha);
        let wanted = if size > threshold { wanted.max(least) } else { wanted };
        let more = (wanted - pairs as f64).ceil();
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
    fn each_verdict_needs_all_its_conditions() {
        let cases = [
            (ratio(1.02, 1.05, 1.08), 0.01, Verdict::Faster),
            (ratio(0.92, 0.95, 0.98), 0.01, Verdict::Slower),
            (ratio(0.995, 1.002, 1.009), 0.9, Verdict::Same),
            // Surely different, but by less than matters.
            (ratio(1.004, 1.006, 1.008), 0.0001, Verdict::Same),
            // Not after correction.
            (ratio(1.02, 1.05, 1.08), 0.06, Verdict::Undecided),
            // Interval across equality.
            (ratio(0.99, 1.05, 1.08), 0.01, Verdict::Undecided),
            // Median within the threshold, interval beyond it.
            (ratio(1.001, 1.008, 1.02), 0.01, Verdict::Undecided),
        ];
        for (interval, p_adjusted, expected) in cases {
            assert_eq!(RULE.judge(&interval, p_adjusted), expected, "{interval:?} {p_adjusted}");
        }
    }

    #[test]
    fn four_times_the_rounds_halve_an_interval() {
        // 2 % with an interval of 4 % to either side: twice too wide, so 4 times the rounds.
        let interval = Interval { estimate: 0.02, low: -0.02, high: 0.06 };
        assert_eq!(RULE.rounds_needed(Some(&interval), 20, 1), 60);
        // More rows ask for more.
        assert!(RULE.rounds_needed(Some(&interval), 20, 100) > 120);
        // None at all and an interval of 2 % to either side, to fit into 1 %.
        let interval = Interval { estimate: 0.0, low: -0.02, high: 0.02 };
        let needed = RULE.rounds_needed(Some(&interval), 20, 100);
        assert!((60..=62).contains(&needed), "{needed}");
    }

    #[test]
    fn what_cannot_be_decided_says_so() {
        let on_the_edge = Interval { estimate: 0.009_95, low: -0.1, high: 0.1 };
        assert_eq!(RULE.rounds_needed(Some(&on_the_edge), 20, 1), MOST_ROUNDS);
        assert_eq!(RULE.rounds_needed(None, 2, 1), 4);
    }
}
