//! The statistics behind the verdicts, each in a file named by what it computes.
//!
//! The unit of analysis is the natural logarithm of a ratio within a round. Nothing in here knows
//! of reports, and of records only the names of verdicts.

pub mod autocorrelation;
pub mod fairness;
pub mod interval;
pub mod normal;
pub mod power;
pub mod random;
pub mod signed_rank;
pub mod simultaneous;
pub mod two_sample;
pub mod usl;
pub mod verdict;

/// Returns the median of `values`, which are reordered; none if there are none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    // An even number of values has two in the middle.
    if values.is_empty() {
        return None;
    }
    let is_odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if is_odd || cellbench_mutations::mutated!(UpperMedian) {
        return Some(*upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&mut [7.0]), Some(7.0));
        assert_eq!(median(&mut []), None);
    }
}
