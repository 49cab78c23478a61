//! Fairness: evenness of the threads' successes.

use cellbench_mutations::mutated;

/// Returns Jain's fairness index, (sum x)^2 / (n sum x^2) (R. Jain, D. Chiu, W. Hawe, DEC TR-301, 1984):
/// 1 if all are equal, 1/n if one has everything. None if nobody has anything.
#[must_use]
pub fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    (squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// Returns the worst-off thread as a share of the mean: 1 if all are equal, 0 if one starves. None
/// if
/// nobody has anything.
#[must_use]
pub fn worst_share(shares: &[f64]) -> Option<f64> {
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let worst = shares.iter().copied().min_by(f64::total_cmp)?;
    let whole = if mutated!(WorstOfSum) { shares.iter().sum() } else { mean };
    (mean > 0.0).then(|| worst / whole)
}

#[cfg(test)]
mod tests {
    use super::{jain, worst_share};

    #[test]
    fn ends_of_the_scale() {
        assert_eq!(jain(&[5.0, 5.0, 5.0, 5.0]), Some(1.0));
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[0.0, 0.0]), None);
        assert_eq!(jain(&[]), None);
        assert_eq!(worst_share(&[5.0, 5.0]), Some(1.0));
        assert_eq!(worst_share(&[3.0, 1.0]), Some(0.5));
        assert_eq!(worst_share(&[0.0, 4.0]), Some(0.0));
        assert_eq!(worst_share(&[]), None);
    }
}
