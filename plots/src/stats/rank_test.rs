//! Probability of differences this large if the two sides were equal.
//!
//! Exact for the sample sizes of a run. Where rounds resemble their neighbours, each value is first
//! freed of what it has from the one before (`whitened`): the rank tests take their values for
//! independent.

use super::{autocorrelation, normal};

/// Largest sample for which the law is computed exactly.
const EXACT_LIMIT: usize = 50;

/// Two-sided Wilcoxon signed-rank test of `differences`, in the order of their rounds, against a
/// symmetric law about 0. Zeros are left out, ties share their mean rank. 1 if nothing is left.
#[must_use]
pub fn signed_rank(differences: &[f64]) -> f64 {
    let mut nonzero = whitened(differences, autocorrelation::lag1(differences));
    nonzero.retain(|difference| *difference != 0.0);
    if nonzero.is_empty() {
        return 1.0;
    }
    nonzero.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let twice_ranks = twice_mean_ranks(&nonzero, |a, b| a.abs() == b.abs());
    let positive: usize =
        nonzero.iter().zip(&twice_ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let total: usize = twice_ranks.iter().sum();
    let largest = positive.max(total - positive);
    if nonzero.len() <= EXACT_LIMIT {
        two_sided_tail(&subset_sum_law(&twice_ranks), largest)
    } else {
        // Of twice the rank sum; its steps are of 2, so the correction for continuity is 1.
        let variance: f64 = twice_ranks.iter().map(|rank| (*rank * *rank) as f64 / 4.0).sum();
        two_sided_normal(largest as f64 - total as f64 / 2.0 - 1.0, variance)
    }
}

/// Two-sided sign test of `differences`, in the order of their rounds, against median 0.
/// Zeros are left out. 1 if nothing is left.
#[must_use]
pub fn sign(differences: &[f64]) -> f64 {
    let mut nonzero = whitened(differences, autocorrelation::lag1(differences));
    nonzero.retain(|difference| *difference != 0.0);
    let n = nonzero.len();
    let positive = nonzero.iter().filter(|difference| **difference > 0.0).count();
    let largest = positive.max(n - positive);
    if n == 0 {
        1.0
    } else if n <= EXACT_LIMIT {
        two_sided_tail(&subset_sum_law(&vec![1; n]), largest)
    } else {
        two_sided_normal(largest as f64 - n as f64 / 2.0 - 0.5, n as f64 / 4.0)
    }
}

/// Two-sided Mann-Whitney test of two runs, each in the order of its rounds, by the normal limit of
/// the rank sum, with ties in its variance. 1 if either side is empty.
#[must_use]
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    // One coefficient for both: whitening moves the centre, which must move alike.
    let rho = autocorrelation::lag1(a).max(autocorrelation::lag1(b));
    let (a, b) = (whitened(a, rho), whitened(b, rho));
    // The first value of a whitened series has another centre where the centre is not 0.
    let skip = usize::from(rho > 0.0);
    let side = |values: &[f64], is_a: bool| -> Vec<(f64, bool)> {
        values.iter().skip(skip).map(|value| (*value, is_a)).collect()
    };
    let mut pooled = [side(&a, true), side(&b, false)].concat();
    let n = pooled.iter().filter(|(_, is_a)| *is_a).count() as f64;
    let m = pooled.len() as f64 - n;
    if n == 0.0 || m == 0.0 {
        return 1.0;
    }
    pooled.sort_by(|x, y| x.0.total_cmp(&y.0));
    let twice_ranks = twice_mean_ranks(&pooled, |x, y| x.0 == y.0);
    let of_a: usize =
        pooled.iter().zip(&twice_ranks).filter(|((_, is_a), _)| *is_a).map(|(_, rank)| rank).sum();
    let mean = (n + m + 1.0) / 2.0;
    let deviation = (of_a as f64 / 2.0 - n * mean).abs();
    // Variance of a rank drawn from the pool, smaller with ties.
    let squares = twice_ranks.iter().map(|rank| (*rank as f64 / 2.0 - mean).powi(2));
    let rank_variance = squares.sum::<f64>() / (n + m - 1.0);
    two_sided_normal(deviation - 0.5, n * m / (n + m) * rank_variance)
}

/// `values` freed of the likeness of neighbours by an autoregression with coefficient `rho`; about
/// 0, they stay about 0 (S. Prais, C. Winsten, Cowles Commission discussion paper 383, 1954).
fn whitened(values: &[f64], rho: f64) -> Vec<f64> {
    let mut before = None;
    values
        .iter()
        .map(|value| match before.replace(*value) {
            None => value * (1.0 - rho * rho).sqrt(),
            Some(before) => value - rho * before,
        })
        .collect()
}

/// Twice the mean rank of each of `sorted`, so that ties keep whole numbers.
fn twice_mean_ranks<T>(sorted: &[T], equal: impl Fn(&T, &T) -> bool) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for tied in sorted.chunk_by(equal) {
        let first = ranks.len() + 1;
        let last = ranks.len() + tied.len();
        ranks.extend(std::iter::repeat_n(first + last, tied.len()));
    }
    ranks
}

/// Probability of each sum when every one of `weights` is in it or not with probability 1/2.
fn subset_sum_law(weights: &[usize]) -> Vec<f64> {
    let mut law = vec![0.0; weights.iter().sum::<usize>() + 1];
    law[0] = 1.0;
    let mut reached = 0;
    for weight in weights {
        reached += weight;
        for sum in (0..=reached).rev() {
            let with = if sum >= *weight { law[sum - weight] } else { 0.0 };
            law[sum] = (law[sum] + with) / 2.0;
        }
    }
    law
}

/// Probability of a sum at least `largest`, on either side of the middle of a symmetric law.
fn two_sided_tail(law: &[f64], largest: usize) -> f64 {
    (2.0 * law.iter().skip(largest).sum::<f64>()).min(1.0)
}

fn two_sided_normal(deviation: f64, variance: f64) -> f64 {
    if variance <= 0.0 {
        return 1.0;
    }
    (2.0 * normal::cdf(-deviation.max(0.0) / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::autocorrelation::lag1;
    use super::super::autocorrelation::tests::autoregression;
    use super::super::random::SplitMix64;
    use super::*;

    #[test]
    fn all_of_one_sign_has_the_probability_of_coins() {
        for n in [6_usize, 15, 30] {
            // Low and high by turns: no round resembles the one before.
            let all: Vec<f64> =
                (0..n).map(|i| if i % 2 == 0 { 1 + i } else { 2 * n - i } as f64).collect();
            assert_eq!(lag1(&all), 0.0);
            let expected = 2.0 * 0.5_f64.powi(n as i32);
            assert!((signed_rank(&all) / expected - 1.0).abs() < 1e-9);
            assert!((sign(&all) / expected - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn signed_rank_agrees_with_the_published_table() {
        // Critical value for n = 10 at two-sided 5 %: the smaller rank sum is at most 8 (0.0488).
        let with_sum = |negative: &[usize]| {
            let order = [5, 1, 9, 3, 10, 2, 7, 4, 8, 6];
            let values: Vec<f64> = order
                .iter()
                .map(|rank| *rank as f64 * if negative.contains(rank) { -1.0 } else { 1.0 })
                .collect();
            assert_eq!(lag1(&values), 0.0);
            signed_rank(&values)
        };
        assert!((with_sum(&[8]) - 0.048_828_125).abs() < 1e-12);
        assert!((with_sum(&[9]) - 0.064_453_125).abs() < 1e-12);
    }

    #[test]
    fn ties_and_zeros() {
        assert_eq!(signed_rank(&[0.0; 20]), 1.0);
        assert_eq!(signed_rank(&[]), 1.0);
        assert_eq!(signed_rank(&[1.0, -1.0, 0.0, 1.0, -1.0]), 1.0);
        // Six equal differences: one of 64 ways for each sign.
        assert!((signed_rank(&[3.0; 6]) - 2.0 / 64.0).abs() < 1e-12);
    }

    #[test]
    fn exact_law_and_normal_limit_meet() {
        let values = |n: usize| -> Vec<f64> {
            (0..n).map(|i| (i * 29 % n) as f64 - n as f64 * 0.38).collect()
        };
        let (exact, limit) = (signed_rank(&values(50)), signed_rank(&values(51)));
        assert!((exact / limit - 1.0).abs() < 0.25, "{exact} {limit}");
    }

    /// Share of series without a difference that a test calls different at 5 %.
    fn false_positives(rho: f64, n: usize, test: impl Fn(&mut SplitMix64) -> f64) -> f64 {
        let mut random = SplitMix64::for_part(4, n as u64 + (rho * 10.0) as u64);
        let found = (0..2_000).filter(|_| test(&mut random) <= 0.05).count();
        found as f64 / 2_000.0
    }

    #[test]
    fn equal_sides_are_called_different_in_about_5_percent() {
        for n in [15, 30, 60] {
            for rho in [0.0, 0.2, 0.4] {
                let signed = false_positives(rho, n, |r| signed_rank(&autoregression(r, n, rho)));
                let signs = false_positives(rho, n, |r| sign(&autoregression(r, n, rho)));
                let ranks = false_positives(rho, n, |r| {
                    mann_whitney(&autoregression(r, n, rho), &autoregression(r, n + 5, rho))
                });
                for (name, found) in [("signed", signed), ("sign", signs), ("ranks", ranks)] {
                    assert!((0.02..0.08).contains(&found), "{name} {n} {rho}: {found}");
                }
            }
        }
    }

    #[test]
    fn a_difference_far_beyond_the_noise_is_sure_even_if_the_noise_drifts() {
        let mut random = SplitMix64::new(6);
        for _ in 0..20 {
            let noise = autoregression(&mut random, 20, 0.6);
            let far: Vec<f64> = noise.iter().map(|value| 30.0 + value).collect();
            assert!(signed_rank(&far) < 1e-5, "{}", signed_rank(&far));
        }
    }

    #[test]
    fn a_shift_is_found_and_order_of_sides_does_not_matter() {
        let mut random = SplitMix64::new(8);
        let a = autoregression(&mut random, 25, 0.0);
        let b: Vec<f64> = autoregression(&mut random, 25, 0.0).iter().map(|v| v + 2.0).collect();
        assert!(mann_whitney(&a, &b) < 1e-3);
        assert!((mann_whitney(&a, &b) - mann_whitney(&b, &a)).abs() < 1e-12);
        assert_eq!(mann_whitney(&a, &[]), 1.0);
        assert_eq!(mann_whitney(&[1.0; 9], &[1.0; 9]), 1.0);
    }
}
