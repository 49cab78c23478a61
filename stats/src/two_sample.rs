//! Two runs that were measured apart: the rank-sum test, and the interval that inverts it.
//!
//! Nothing was drawn at random between two runs, so that this test takes what no randomisation
//! gives: that the rounds of both runs are exchangeable but for a shift. Whatever changed from one
//! run to the other (drift, placement of memory, temperature) is in the shift; `compare` therefore
//! widens its intervals by what the runs themselves show of drift.
//!
//! Written in the differences between the two sides, as the signed-rank test is in averages: the
//! estimate is their median, the interval runs between two of them (Hodges, Lehmann 1963). The law is
//! the normal limit of the rank sum (H. Mann, D. Whitney 1947), whose tails are heavier than the law's.

use cellbench_mutations::mutated;

use super::interval::Interval;
use super::normal;

/// Two series that are compared, a against b.
#[derive(Clone, Debug)]
pub struct TwoSample {
    /// In rising order.
    a: Vec<f64>,
    b: Vec<f64>,
}

impl TwoSample {
    /// Takes values in any order; none if either side has none.
    #[must_use]
    pub fn new(a: &[f64], b: &[f64]) -> Option<Self> {
        let sorted = |values: &[f64]| {
            let mut values = values.to_vec();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        (!a.is_empty() && !b.is_empty()).then(|| Self { a: sorted(a), b: sorted(b) })
    }

    /// Returns the two-sided probability of ranks this apart under a shift of 0.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        let not_above = self.differences().filter(|difference| *difference <= 0.0).count();
        let not_below = self.differences().filter(|difference| *difference >= 0.0).count();
        (2.0 * self.lower_tail(not_above.min(not_below))).min(1.0)
    }

    /// Returns the shifts of a against b that the test does not reject at `level`; none if it can
    /// reject nothing at that level.
    #[must_use]
    pub fn interval(&self, level: f64) -> Option<Interval> {
        let mut differences: Vec<f64> = self.differences().collect();
        let count = differences.len();
        let rejects = |left_out: usize| 2.0 * self.lower_tail(left_out) <= level;
        let (mut low, mut high) = (0, count / 2);
        while low < high {
            let middle = usize::midpoint(low, high);
            if rejects(middle) { low = middle + 1 } else { high = middle }
        }
        let left_out = low.checked_sub(1)?;
        Some(Interval {
            estimate: super::median(&mut differences)?,
            low: *differences.select_nth_unstable_by(left_out, f64::total_cmp).1,
            high: *differences.select_nth_unstable_by(count - 1 - left_out, f64::total_cmp).1,
        })
    }

    fn differences(&self) -> impl Iterator<Item = f64> {
        self.a.iter().flat_map(|a| self.b.iter().map(move |b| a - b))
    }

    /// Returns the probability of at most `count` differences on one side.
    fn lower_tail(&self, count: usize) -> f64 {
        let (n, m) = (self.a.len() as f64, self.b.len() as f64);
        let more = if mutated!(RankSumNarrow) { 0.0 } else { n };
        let deviation = (n * m * (more + m + 1.0) / 12.0).sqrt();
        normal::cdf((count as f64 + 0.5 - n * m / 2.0) / deviation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::SplitMix64;
    use super::*;

    fn noise(random: &mut SplitMix64, n: usize, shift: f64) -> Vec<f64> {
        (0..n).map(|_| random.normal_pair()[0] + shift).collect()
    }

    #[test]
    fn a_shift_is_found_and_order_of_sides_does_not_matter() {
        let mut random = SplitMix64::new(8);
        let (a, b) = (noise(&mut random, 25, 0.0), noise(&mut random, 25, 2.0));
        let (ab, ba) = (TwoSample::new(&a, &b).unwrap(), TwoSample::new(&b, &a).unwrap());
        assert!(ab.p_value() < 1e-3);
        assert_eq!(ab.p_value(), ba.p_value());
        assert!(TwoSample::new(&[], &b).is_none());
        assert_eq!(TwoSample::new(&[1.0; 9], &[1.0; 9]).unwrap().p_value(), 1.0);
        assert!(TwoSample::new(&[1.0; 2], &[2.0; 2]).unwrap().interval(0.05).is_none());
    }

    #[test]
    fn intervals_cover_and_agree_with_the_test() {
        let mut random = SplitMix64::new(21);
        let (mut covered, mut equal) = (0, 0);
        for round in 0..1_000 {
            let shift = if round % 2 == 0 { 0.0 } else { 0.7 };
            let (a, b) = (noise(&mut random, 20, shift), noise(&mut random, 30, 0.0));
            let test = TwoSample::new(&a, &b).unwrap();
            let found = test.interval(0.05).unwrap();
            covered += usize::from(found.low <= shift && shift <= found.high);
            let excludes = found.low > 0.0 || found.high < 0.0;
            equal += usize::from(excludes == (test.p_value() <= 0.05));
        }
        assert!((935..=970).contains(&covered), "{covered}");
        assert_eq!(equal, 1_000);
    }
}
