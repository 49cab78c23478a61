//! Probability of differences this large if the two sides were equal.
//!
//! Exact for the sample sizes of a run. Where rounds resemble their neighbours a rank sum varies
//! more than its exact law says; the deviation is then divided by the growth of its standard
//! deviation ([`autocorrelation`](super::autocorrelation)) before the law is asked.

use std::cmp::Ordering;

use super::autocorrelation::{lag1, rank_variance_factor, sign_variance_factor};
use super::normal;

/// Largest sample for which the law is computed exactly.
const EXACT_LIMIT: usize = 50;

/// Two-sided Wilcoxon signed-rank test of `differences`, in the order of their rounds, against a
/// symmetric law about 0. Zeros are left out, ties share their mean rank. 1 if nothing is left.
#[must_use]
pub fn signed_rank(differences: &[f64]) -> f64 {
    let mut nonzero: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let n = nonzero.len();
    if n == 0 {
        return 1.0;
    }
    let factor = rank_variance_factor(n, lag1(differences));
    nonzero.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let twice_ranks = twice_mean_ranks(&nonzero, |a, b| a.abs() == b.abs());
    let positive: usize =
        nonzero.iter().zip(&twice_ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let total = n * (n + 1);
    let deviation = (positive as f64 - total as f64 / 2.0).abs() / factor.sqrt();
    if n <= EXACT_LIMIT {
        let law = subset_sum_law(&twice_ranks);
        two_sided_tail(&law, deviation)
    } else {
        let variance: f64 = twice_ranks.iter().map(|rank| (*rank * *rank) as f64 / 4.0).sum();
        two_sided_normal(deviation - 1.0, variance)
    }
}

/// Two-sided sign test of `differences`, in the order of their rounds, against median 0.
/// Zeros are left out. 1 if nothing is left.
#[must_use]
pub fn sign(differences: &[f64]) -> f64 {
    let n = differences.iter().filter(|d| **d != 0.0).count();
    if n == 0 {
        return 1.0;
    }
    let positive = differences.iter().filter(|d| **d > 0.0).count();
    let factor = sign_variance_factor(n, lag1(differences));
    let deviation = (positive as f64 - n as f64 / 2.0).abs() / factor.sqrt();
    if n <= EXACT_LIMIT {
        two_sided_tail(&subset_sum_law(&vec![1; n]), deviation)
    } else {
        two_sided_normal(deviation - 0.5, n as f64 / 4.0)
    }
}

/// Two-sided Mann-Whitney test of two runs, each in the order of its rounds, by the normal limit of
/// the rank sum, with ties and dependence in its variance. 1 if either side is empty.
#[must_use]
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let mut pooled: Vec<(f64, bool)> =
        a.iter().map(|v| (*v, true)).chain(b.iter().map(|v| (*v, false))).collect();
    pooled.sort_by(|x, y| x.0.total_cmp(&y.0));
    let twice_ranks = twice_mean_ranks(&pooled, |x, y| x.0 == y.0);
    let of_a: usize =
        pooled.iter().zip(&twice_ranks).filter(|((_, is_a), _)| *is_a).map(|(_, rank)| rank).sum();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let deviation = (of_a as f64 / 2.0 - n * (n + m + 1.0) / 2.0).abs();
    // Variance of a rank drawn from the pool, ties included.
    let mean = (n + m + 1.0) / 2.0;
    let rank_variance =
        twice_ranks.iter().map(|rank| (*rank as f64 / 2.0 - mean).powi(2)).sum::<f64>()
            / (n + m - 1.0);
    let independent = n * m / (n + m) * rank_variance;
    // Each side's share of the variance of the difference of mean ranks is 1/n and 1/m.
    let growth = (rank_variance_factor(a.len(), lag1(a)) / n
        + rank_variance_factor(b.len(), lag1(b)) / m)
        / (1.0 / n + 1.0 / m);
    two_sided_normal(deviation - 0.5, independent * growth)
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

/// Probability of a sum at least `deviation` from the middle of a symmetric law, on either side.
fn two_sided_tail(law: &[f64], deviation: f64) -> f64 {
    let middle = (law.len() - 1) as f64 / 2.0;
    // A deviation that fell between two sums counts as the smaller one.
    let from = (middle + deviation + 1e-9).floor() as usize;
    match deviation.total_cmp(&0.25) {
        Ordering::Less => 1.0,
        _ => (2.0 * law.iter().skip(from).sum::<f64>()).min(1.0),
    }
}

fn two_sided_normal(deviation: f64, variance: f64) -> f64 {
    if variance <= 0.0 {
        return 1.0;
    }
    (2.0 * normal::cdf(-deviation.max(0.0) / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
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
                    assert!((0.01..0.09).contains(&found), "{name} {n} {rho}: {found}");
                }
            }
        }
    }

    #[test]
    fn a_shift_is_found_and_order_of_sides_does_not_matter() {
        let mut random = SplitMix64::new(8);
        let a = autoregression(&mut random, 25, 0.0);
        let b: Vec<f64> = autoregression(&mut random, 25, 0.0).iter().map(|v| v + 2.0).collect();
        assert!(mann_whitney(&a, &b) < 1e-4);
        assert!((mann_whitney(&a, &b) - mann_whitney(&b, &a)).abs() < 1e-12);
        assert_eq!(mann_whitney(&a, &[]), 1.0);
        assert_eq!(mann_whitney(&[1.0; 9], &[1.0; 9]), 1.0);
    }
}
