//! Confidence intervals of medians by a bootstrap that keeps the dependence between rounds.
//!
//! The ordinary bootstrap draws the indices of a resample independently; with rounds that resemble
//! their neighbours its intervals are too narrow, and block bootstraps need more than the 15 to 60
//! rounds of a run before they help. Here the indices are drawn dependently: a Gaussian
//! autoregression with the data's own lag-1 coefficient ([`autocorrelation::lag1`]) gives, through
//! the normal distribution function, uniform values, and each picks the value of that rank. With
//! coefficient 0 this is Efron's bootstrap (1979); with another it is the resampling form of the
//! sign test under autocorrelation.
//!
//! The median of a resample is the data's quantile at the median of its uniform values, so the
//! drawn medians depend on the number of rounds and the coefficient alone. They are drawn once for
//! each and shared by all rows of a table, which is what makes a table of 100,000 rows quick.
//!
//! Coverage on simulated rounds with autocorrelation and outliers is held to 92 to 98 % by the test
//! `coverage`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cellbench_mutations::mutated;
use rayon::prelude::*;

use super::random::SplitMix64;
use super::{autocorrelation, median, normal};

/// Fewest values that give an interval: of 5, even the extremes enclose the median in only 93.75 %.
pub const MIN_VALUES: usize = 6;

/// Resamples drawn. Their Monte Carlo error on the ends' level is 0.2 percentage points.
const RESAMPLES: usize = 4_096;

/// From so many values on, the drawn medians are replaced by the normal limit of their law.
const NORMAL_LIMIT: usize = 256;

/// Resamples one task draws.
const CHUNK: usize = 256;

/// Distance between the coefficients for which medians are drawn.
const RHO_STEP: f64 = 0.05;

/// A median with the interval around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The median.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Returns the interval of the exponentials: from log ratios to ratios.
    #[must_use]
    pub fn exp(self) -> Self {
        Self {
            estimate: libm::exp(self.estimate),
            low: libm::exp(self.low),
            high: libm::exp(self.high),
        }
    }
}

/// Number of values and step of the coefficient: all that the drawn medians depend on.
type Case = (usize, u8);

/// The bootstrap, with the medians it has drawn so far. Deterministic in its seed.
#[derive(Debug)]
pub struct Bootstrap {
    seed: u64,
    confidence: f64,
    /// Medians of uniform values in rising order.
    drawn: Mutex<HashMap<Case, Arc<[f64]>>>,
}

impl Bootstrap {
    /// Returns a bootstrap for intervals of `confidence` (0.95).
    #[must_use]
    pub fn new(seed: u64, confidence: f64) -> Self {
        Self { seed, confidence, drawn: Mutex::default() }
    }

    /// Returns the interval of the median of `values`, which are in the order of their rounds.
    /// None for fewer than [`MIN_VALUES`].
    #[must_use]
    pub fn median(&self, values: &[f64]) -> Option<Interval> {
        let sample = Sample::new(values)?;
        let tails = if mutated!(OneTailForBoth) { 1.0 } else { 2.0 };
        let tail = (1.0 - self.confidence) / tails;
        let spread = if sample.sorted.len() >= NORMAL_LIMIT {
            -normal::quantile(tail) * sample.normal_deviation()
        } else {
            let medians = self.medians(sample.case());
            // The law is symmetric about 1/2: both tails together estimate one.
            let at = |level: f64| medians[(level * medians.len() as f64) as usize];
            (at(1.0 - tail) - at(tail)) / 2.0 * sample.widening()
        };
        Some(Interval {
            estimate: sample.quantile(0.5),
            low: sample.quantile(0.5 - spread),
            high: sample.quantile(0.5 + spread),
        })
    }

    fn medians(&self, case: Case) -> Arc<[f64]> {
        let known = || self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(medians) = known().get(&case) {
            return Arc::clone(medians);
        }
        // Drawn without the lock; who comes second draws the same and one of the two is dropped.
        let medians: Arc<[f64]> = draw_medians(self.seed, case).into();
        known().insert(case, Arc::clone(&medians));
        medians
    }
}

fn draw_medians(seed: u64, (n, rho_step): Case) -> Vec<f64> {
    let rho = f64::from(rho_step) * RHO_STEP;
    let scale = (1.0 - rho * rho).sqrt();
    let mut medians: Vec<f64> = (0..RESAMPLES / CHUNK)
        .into_par_iter()
        .flat_map_iter(|chunk| {
            let part = (n as u64) << 32 | u64::from(rho_step) << 16 | chunk as u64;
            let mut random = SplitMix64::for_part(seed, part);
            let mut path = Vec::with_capacity(n + 1);
            (0..CHUNK).map(move |_| {
                path.clear();
                while path.len() < n {
                    for normal in random.normal_pair() {
                        path.push(match path.last() {
                            Some(last) => rho * last + scale * normal,
                            None => normal,
                        });
                    }
                }
                path.truncate(n);
                median(&mut path).map_or(0.5, normal::cdf)
            })
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    medians
}

/// Values in rising order, and what their order in time told.
struct Sample {
    sorted: Vec<f64>,
    rho: f64,
}

impl Sample {
    fn new(values: &[f64]) -> Option<Self> {
        if values.len() < MIN_VALUES {
            return None;
        }
        let n = values.len() as f64;
        // The estimate is itself uncertain by 1/sqrt(n); a quarter of that is added, because an
        // interval suffers more from a coefficient taken too small than too large.
        let rho = (autocorrelation::lag1(values) + 0.25 / n.sqrt()).min(autocorrelation::MAX_RHO);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { sorted, rho })
    }

    fn case(&self) -> Case {
        (self.sorted.len(), (self.rho / RHO_STEP).round() as u8)
    }

    /// Corrects for the degree of freedom spent on the centre.
    fn widening(&self) -> f64 {
        let n = self.sorted.len() as f64;
        (n / (n - 1.0)).sqrt()
    }

    /// Returns the standard deviation of the median of many uniform values with this dependence.
    fn normal_deviation(&self) -> f64 {
        let n = self.sorted.len();
        0.5 * (autocorrelation::sign_variance_factor(n, self.rho) / n as f64).sqrt()
    }

    /// Returns the quantile by interpolation between order statistics, the k-th at level k / (n + 1).
    fn quantile(&self, level: f64) -> f64 {
        let last = self.sorted.len() - 1;
        let place = (level * (last as f64 + 2.0) - 1.0).clamp(0.0, last as f64);
        let below = (place as usize).min(last - 1);
        let share = place - below as f64;
        self.sorted[below] * (1.0 - share) + self.sorted[below + 1] * share
    }
}

#[cfg(test)]
mod tests {
    use super::super::autocorrelation::tests::autoregression;
    use super::*;

    /// Returns the share of intervals that enclose the true median, of `repeats` simulated series.
    fn coverage(n: usize, rho: f64, outlier_share: f64, one_sided: bool, repeats: usize) -> f64 {
        let bootstrap = Bootstrap::new(1, 0.95);
        // Outliers on one side lie all above the bulk, so the median moves to this quantile of it.
        let truth = if one_sided { normal::quantile(0.5 / (1.0 - outlier_share)) } else { 0.0 };
        let part = n as u64 * 1_000 + (rho * 100.0) as u64 * 10 + u64::from(one_sided);
        let mut random = SplitMix64::for_part(2, part);
        let mut covered = 0;
        for _ in 0..repeats {
            let mut values = autoregression(&mut random, n, rho);
            for value in &mut values {
                if random.uniform() < outlier_share {
                    let size = 5.0 + 10.0 * random.uniform();
                    let up = one_sided || random.uniform() < 0.5;
                    *value += if up { size } else { -size };
                }
            }
            let interval = bootstrap.median(&values).unwrap();
            covered += usize::from(interval.low <= truth && truth <= interval.high);
        }
        covered as f64 / repeats as f64
    }

    #[test]
    fn coverage_is_92_to_98_percent_with_autocorrelation_and_outliers() {
        for n in [15, 20, 30, 45, 60] {
            for rho in [0.0, 0.2, 0.4] {
                for (outlier_share, one_sided) in [(0.0, false), (0.1, false), (0.1, true)] {
                    let found = coverage(n, rho, outlier_share, one_sided, 4_000);
                    assert!(
                        (0.92..=0.98).contains(&found),
                        "{found} with {n} rounds, coefficient {rho}, {outlier_share} outliers"
                    );
                }
            }
        }
    }

    #[test]
    fn many_rounds_use_the_normal_limit_of_the_same_law() {
        let found = coverage(400, 0.3, 0.1, false, 1_000);
        assert!((0.92..=0.98).contains(&found), "{found}");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_on_any_number_of_threads() {
        let values = autoregression(&mut SplitMix64::new(9), 24, 0.2);
        let expected = Bootstrap::new(7, 0.95).median(&values);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| Bootstrap::new(7, 0.95).median(&values));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn independent_rounds_get_the_order_statistics_of_the_sign_test() {
        // For n = 20 the exact 95.9 % interval runs from the 6th to the 15th value. The one here is
        // a little wider, for what it does not know of the dependence.
        let values: Vec<f64> = (1..=20).map(|i| f64::from(i * 8 % 21)).collect();
        let interval = Bootstrap::new(1, 0.95).median(&values).unwrap();
        assert_eq!(interval.estimate, 10.5);
        assert!((5.0..6.5).contains(&interval.low), "{interval:?}");
        assert!((14.5..16.0).contains(&interval.high), "{interval:?}");
    }

    #[test]
    fn drift_widens_the_interval() {
        let noise = autoregression(&mut SplitMix64::new(11), 40, 0.0);
        let drift = autoregression(&mut SplitMix64::new(11), 40, 0.8);
        let width = |values: &[f64]| {
            let interval = Bootstrap::new(1, 0.95).median(values).unwrap();
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            // Of the levels, so that the spread of the values themselves plays no part.
            let below = |x: f64| sorted.partition_point(|value| *value < x);
            below(interval.high) - below(interval.low)
        };
        assert!(width(&drift) > width(&noise) + 4, "{} {}", width(&drift), width(&noise));
    }

    #[test]
    fn too_few_values_have_no_interval_and_equal_values_a_point() {
        let bootstrap = Bootstrap::new(1, 0.95);
        assert_eq!(bootstrap.median(&[1.0; 5]), None);
        let point = Interval { estimate: 2.0, low: 2.0, high: 2.0 };
        assert_eq!(bootstrap.median(&[2.0; 6]), Some(point));
    }
}
