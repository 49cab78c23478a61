//! The Universal Scalability Law: what the growth of goodput with threads says of its causes.
//!
//! N. Gunther, "A simple capacity model for massively parallel transaction systems", CMG 1993:
//! `X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1))`. Divided, `n / X(n)` is linear in
//! `1 / lambda`, `sigma / lambda` and `kappa / lambda`, so least squares need no start value and
//! find the one minimum. Each point weighs by the square of `X(n) / n`: errors count relatively.

/// A fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Goodput of one thread.
    pub lambda: f64,
    /// Coefficient of contention.
    pub sigma: f64,
    /// Coefficient of coherency.
    pub kappa: f64,
    /// Share of the variance of goodput explained; none if goodput does not vary.
    pub r_squared: Option<f64>,
}

/// Reason for which there is no fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFit {
    /// Fewer points than coefficients.
    #[error("not enough: the fit needs 3 thread counts, there are {0}")]
    TooFewPoints(usize),
    /// A goodput of zero, or no growth law with a positive goodput of one thread.
    #[error("goodput does not follow a scalability law")]
    NotALaw,
}

impl Fit {
    /// Returns the goodput that the fit predicts for `threads`.
    #[must_use]
    pub fn goodput(&self, threads: f64) -> f64 {
        self.lambda * threads
            / (1.0 + self.sigma * (threads - 1.0) + self.kappa * threads * (threads - 1.0))
    }

    /// Returns the number of threads of largest goodput, at least 1; none if goodput rises without end.
    #[must_use]
    pub fn peak_threads(&self) -> Option<f64> {
        if self.sigma >= 1.0 {
            return Some(1.0);
        }
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma) / self.kappa).sqrt().max(1.0))
    }
}

/// Fits goodput against threads; `points` are (threads, goodput) with each thread count once.
///
/// # Errors
/// [`NoFit`] says why not.
pub fn fit(points: &[(f64, f64)]) -> Result<Fit, NoFit> {
    if points.len() < 3 {
        return Err(NoFit::TooFewPoints(points.len()));
    }
    if points.iter().any(|(_, goodput)| !(*goodput > 0.0 && goodput.is_finite())) {
        return Err(NoFit::NotALaw);
    }
    // Neither coefficient may be negative. With two of them, the four ways to hold them at zero
    // can all be tried; the best that is allowed is the constrained minimum.
    let candidates = [[true, true], [true, false], [false, true], [false, false]];
    candidates
        .into_iter()
        .filter_map(|free| fit_with(points, free))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(fit, _)| fit)
        .ok_or(NoFit::NotALaw)
}

/// Returns the fit with sigma and kappa free or held at zero, and its sum of squared relative
/// errors.
fn fit_with(points: &[(f64, f64)], free: [bool; 2]) -> Option<(Fit, f64)> {
    // Row of the weighted problem: the terms over their expected value, which should sum to 1.
    let row = |(n, goodput): (f64, f64)| {
        let weight = goodput / n;
        [
            weight,
            if free[0] { weight * (n - 1.0) } else { 0.0 },
            if free[1] { weight * n * (n - 1.0) } else { 0.0 },
        ]
    };
    let mut normal = [[0.0; 4]; 3];
    for point in points {
        let row = row(*point);
        for (i, line) in normal.iter_mut().enumerate() {
            for (j, cell) in line.iter_mut().take(3).enumerate() {
                *cell += row[i] * row[j];
            }
            line[3] += row[i];
        }
    }
    for (i, line) in normal.iter_mut().enumerate().skip(1) {
        if !free[i - 1] {
            line[i] = 1.0; // the equation "this term is zero"
        }
    }
    let [inverse, contention, coherency] = solve(normal)?;
    let negative = contention < 0.0 || coherency < 0.0;
    if inverse <= 0.0 || negative && !cellbench_mutations::mutated!(NegativeCoefficients) {
        return None;
    }
    let mut fit = Fit {
        lambda: 1.0 / inverse,
        sigma: contention / inverse,
        kappa: coherency / inverse,
        r_squared: None,
    };
    let error = points
        .iter()
        .map(|point| {
            let [a, b, c] = row(*point);
            (a * inverse + b * contention + c * coherency - 1.0).powi(2)
        })
        .sum();
    let mean = points.iter().map(|(_, goodput)| goodput).sum::<f64>() / points.len() as f64;
    let total: f64 = points.iter().map(|(_, goodput)| (goodput - mean).powi(2)).sum();
    let left: f64 = points.iter().map(|(n, goodput)| (goodput - fit.goodput(*n)).powi(2)).sum();
    fit.r_squared = (total > 0.0).then(|| 1.0 - left / total);
    Some((fit, error))
}

/// Solves three linear equations by elimination with pivoting; none if they are dependent.
fn solve(mut lines: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let scale =
            lines.iter().flat_map(|line| line[..3].iter()).fold(0.0, |a: f64, b| a.max(b.abs()));
        let pivot = (column..3)
            .max_by(|a, b| lines[*a][column].abs().total_cmp(&lines[*b][column].abs()))?;
        lines.swap(column, pivot);
        if lines[column][column].abs() <= scale * 1e-14 {
            return None;
        }
        let pivot_line = lines[column];
        for (i, line) in lines.iter_mut().enumerate() {
            if i != column {
                let factor = line[column] / pivot_line[column];
                for (cell, pivot_cell) in line.iter_mut().zip(pivot_line) {
                    *cell -= factor * pivot_cell;
                }
            }
        }
    }
    Some([0, 1, 2].map(|i| lines[i][3] / lines[i][i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points_of(law: &Fit, threads: &[f64]) -> Vec<(f64, f64)> {
        threads.iter().map(|n| (*n, law.goodput(*n))).collect()
    }

    #[test]
    fn recovers_the_law_it_was_given() {
        let law = Fit { lambda: 4e7, sigma: 0.08, kappa: 0.002, r_squared: None };
        let found = fit(&points_of(&law, &[1.0, 2.0, 4.0, 8.0, 16.0, 64.0])).unwrap();
        assert!((found.lambda / law.lambda - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.sigma - law.sigma).abs() < 1e-9, "{found:?}");
        assert!((found.kappa - law.kappa).abs() < 1e-9, "{found:?}");
        assert!((found.peak_threads().unwrap() - 460.0_f64.sqrt()).abs() < 1e-6);
        assert!((found.r_squared.unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn goodput_that_collapses_at_once_peaks_at_one_thread() {
        let found = fit(&[(1.0, 50e6), (2.0, 6e6), (4.0, 4e6), (8.0, 3e6)]).unwrap();
        assert_eq!(found.peak_threads(), Some(1.0));
        assert!(found.sigma > 1.0 || found.kappa > 1.0, "{found:?}");
    }

    #[test]
    fn linear_growth_has_no_peak_and_no_negative_coefficient() {
        let found = fit(&[(1.0, 1e6), (2.0, 2e6), (4.0, 4e6)]).unwrap();
        assert!(found.sigma.abs() < 1e-9 && found.kappa.abs() < 1e-9, "{found:?}");
        // More than linear: caches add up. The law has no room for it and stays linear.
        let found = fit(&[(1.0, 1e6), (2.0, 2.4e6), (4.0, 5.5e6)]).unwrap();
        assert_eq!((found.sigma, found.kappa, found.peak_threads()), (0.0, 0.0, None));
    }

    #[test]
    fn too_little_says_so() {
        assert_eq!(fit(&[]), Err(NoFit::TooFewPoints(0)));
        assert_eq!(fit(&[(1.0, 1.0), (2.0, 1.5)]), Err(NoFit::TooFewPoints(2)));
        assert_eq!(fit(&[(1.0, 1.0), (2.0, 0.0), (3.0, 1.0)]), Err(NoFit::NotALaw));
    }

    #[test]
    fn noise_moves_the_fit_little() {
        let law = Fit { lambda: 1e7, sigma: 0.05, kappa: 0.001, r_squared: None };
        let mut points = points_of(&law, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
        for (i, point) in points.iter_mut().enumerate() {
            point.1 *= if i % 2 == 0 { 1.02 } else { 0.98 };
        }
        let found = fit(&points).unwrap();
        let (peak, expected) = (found.peak_threads().unwrap(), law.peak_threads().unwrap());
        assert!((peak / expected - 1.0).abs() < 0.15, "{peak} against {expected}");
    }
}
