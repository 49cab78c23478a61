//! Likeness of a round to the one before, robustly and from few rounds.
//!
//! A host drifts: neighbouring rounds are alike, and statistics that take rounds for independent
//! report intervals that are too narrow. The estimate must survive the outliers that an unpinned
//! host throws in, which ordinary autocorrelation does not.

use cellbench_mutations::mutated;

use super::{median, normal};

/// Distance from the median, in robust standard deviations, beyond which a value is an outlier.
const OUTLIER_CUT: f64 = 3.5;

/// Largest value reported. More would say that the rounds are one round.
pub const MAX_RHO: f64 = 0.9;

/// Returns the lag-1 autocorrelation of `values`, from 0 (independent; negative values count as 0, which errs
/// to the safe side) to [`MAX_RHO`].
///
/// Normal scores of the ranks take the place of the values. Outliers (more than 3.5 robust standard
/// deviations off) are left out of the products, since they hide the likeness of their neighbours.
/// The small-sample bias of about -(1 + 4 rho) / n is taken out (M. Kendall, "Note on bias in the
/// estimation of autocorrelation", Biometrika 1954).
#[must_use]
pub fn lag1(values: &[f64]) -> f64 {
    let Some(centre) = median(&mut values.to_vec()) else { return 0.0 };
    let mut distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    // 1.4826 makes the median absolute deviation of normal data its standard deviation.
    let cut = median(&mut distances.clone()).unwrap_or(0.0) * 1.4826 * OUTLIER_CUT;
    distances.retain(|distance| *distance <= cut);
    let kept = distances.len();
    if kept < 5 || cut == 0.0 {
        return 0.0;
    }
    let mut order: Vec<usize> =
        (0..values.len()).filter(|i| (values[*i] - centre).abs() <= cut).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut scores = vec![None; values.len()];
    let mut variance = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        // Blom's plotting position.
        let score = normal::quantile((rank as f64 + 0.625) / (kept as f64 + 0.25));
        variance += score * score / kept as f64;
        scores[index] = Some(score);
    }
    let products: Vec<f64> =
        scores.windows(2).filter_map(|pair| Some(pair[0]? * pair[1]?)).collect();
    if products.len() < 3 {
        return 0.0;
    }
    // Dividing by kept - 1 of n - 1 possible pairs keeps the usual form when nothing is left out.
    let share = (kept - 1) as f64 / kept as f64;
    let raw = products.iter().sum::<f64>() / products.len() as f64 / variance * share;
    let n = kept as f64;
    if mutated!(RoundsIndependent) {
        return 0.0;
    }
    ((raw + 1.0 / n) / (1.0 - 4.0 / n)).clamp(0.0, MAX_RHO)
}

/// Returns the factor by which the variance of a mean of `n` signs grows when the values are a Gaussian
/// autoregression with coefficient `rho`: 1 + 2 sum (1 - k/n) r(rho^k), where r is the correlation
/// of signs, 2/pi asin(rho) (W. Sheppard 1899).
#[must_use]
pub fn sign_variance_factor(n: usize, rho: f64) -> f64 {
    let mut power = 1.0;
    let mut sum = 0.0;
    for lag in 1..n {
        power *= rho;
        if power < 1e-6 {
            break;
        }
        sum += (1.0 - lag as f64 / n as f64) * std::f64::consts::FRAC_2_PI * libm::asin(power);
    }
    1.0 + 2.0 * sum
}

#[cfg(test)]
pub(super) mod tests {
    use super::{lag1, sign_variance_factor};
    use crate::random::SplitMix64;

    /// Returns a Gaussian autoregression of unit variance.
    pub(crate) fn autoregression(random: &mut SplitMix64, n: usize, rho: f64) -> Vec<f64> {
        let mut normals = std::iter::repeat_with(|| random.normal_pair()).flatten();
        let mut value = normals.next().unwrap_or(0.0);
        let scale = (1.0 - rho * rho).sqrt();
        (0..n)
            .map(|i| {
                if i > 0 {
                    value = rho * value + scale * normals.next().unwrap_or(0.0);
                }
                value
            })
            .collect()
    }

    #[test]
    fn finds_the_coefficient_with_and_without_outliers() {
        let mut random = SplitMix64::new(3);
        for rho in [0.0, 0.3, 0.6] {
            for outlier_share in [0.0, 0.1] {
                let mut values = autoregression(&mut random, 4_000, rho);
                for value in &mut values {
                    if random.uniform() < outlier_share {
                        *value += 20.0;
                    }
                }
                let found = lag1(&values);
                assert!((found - rho).abs() < 0.06, "{rho} with {outlier_share}: {found}");
            }
        }
    }

    #[test]
    fn constant_or_few_values_have_none() {
        assert_eq!(lag1(&[]), 0.0);
        assert_eq!(lag1(&[1.0; 40]), 0.0);
        assert_eq!(lag1(&[1.0, 2.0, 3.0, 4.0]), 0.0);
    }

    #[test]
    fn variance_factor_is_that_of_simulated_signs() {
        let mut random = SplitMix64::new(5);
        let (n, rho, repeats) = (20, 0.5, 4_000);
        let mut second_moment = 0.0;
        for _ in 0..repeats {
            let values = autoregression(&mut random, n, rho);
            let mean = values.iter().map(|v| v.signum()).sum::<f64>();
            second_moment += mean * mean / f64::from(repeats);
        }
        let found = second_moment / n as f64;
        let expected = sign_variance_factor(n, rho);
        assert!((found / expected - 1.0).abs() < 0.08, "{found} against {expected}");
    }
}
