//! Correction over the table: with a hundred rows, five are called different by chance alone.

/// Adjusts `p_values` by S. Holm's step-down method ("A simple sequentially rejective multiple test
/// procedure", Scandinavian Journal of Statistics 1979): rejecting those whose adjusted value is at
/// most alpha makes a false rejection anywhere in the table with probability at most alpha.
#[must_use]
pub fn adjust(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rejected, index) in order.into_iter().enumerate() {
        let remaining = (p_values.len() - rejected) as f64;
        largest = largest.max((p_values[index] * remaining).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::adjust;

    #[test]
    fn worked_example() {
        // Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; 0.04 is raised to its predecessor's 0.06.
        let adjusted = adjust(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        for (found, expected) in adjusted.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(adjust(&[]), Vec::<f64>::new());
        assert_eq!(adjust(&[0.7, 0.9]), [1.0, 1.0]);
    }
}
