//! How far predictions are from measurements: errors, order, and whether the intervals hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Half;

/// Measurements that differ by less than this, or whose quartiles overlap, are not put in an order.
const SAME_SHARE: f64 = 0.10;
/// The model tells two rows apart if it sees this difference: its own seeds differ by less.
const TIE_SHARE: f64 = 0.02;
/// Seeds fall into two groups if the least of the upper one is so many times the greatest of the lower.
const REGIMES_RATIO: f64 = 1.25;
/// Both groups have at least this share of the seeds.
const REGIMES_SHARE: f64 = 0.2;

/// A prediction over several seeds, and over machines within the uncertainty of their figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Median over the seeds, on the machine as its file says.
    pub median: f64,
    /// The interval: of all seeds and drawn machines, from the least to the greatest.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// Where the seeds fall into two groups: the median of each. Then there is no one prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regimes: Option<(f64, f64)>,
}

impl Prediction {
    /// Returns the prediction from figures by seed on the machine as it is and on drawn machines, or
    /// `None` if there is no figure by seed.
    #[must_use]
    pub fn of(mut seeds: Vec<f64>, draws: &[f64]) -> Option<Self> {
        seeds.sort_by(f64::total_cmp);
        let (first, last) = (*seeds.first()?, *seeds.last()?);
        let (low, high) = draws
            .iter()
            .fold((first, last), |(low, high), &drawn| (low.min(drawn), high.max(drawn)));
        Some(Self { median: middle(&seeds)?, low, high, regimes: regimes(&seeds) })
    }
}

/// Returns the medians of two groups of sorted figures that are far apart.
fn regimes(sorted: &[f64]) -> Option<(f64, f64)> {
    let gap = |at: &usize| sorted[*at] / sorted[*at - 1];
    let at = (1..sorted.len()).max_by(|one, other| gap(one).total_cmp(&gap(other)))?;
    let least = (sorted.len() as f64 * REGIMES_SHARE).ceil() as usize;
    let (lower, upper) = sorted.split_at(at);
    if gap(&at) < REGIMES_RATIO || lower.len() < least || upper.len() < least {
        return None;
    }
    Some((middle(lower)?, middle(upper)?))
}

/// Returns the median of sorted figures, or `None` if there is none.
fn middle(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// One measurement and its prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the measurement in the data.
    pub name: String,
    /// Number of threads.
    pub threads: usize,
    /// Measured figure, in the unit of the data set.
    pub measured: f64,
    /// Lower and upper quartile of the measurement, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quartiles: Option<(f64, f64)>,
    /// Rows that are put in an order with this one have the same group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Predicted figure.
    pub predicted: Prediction,
    /// The half of the data that it belongs to.
    pub half: Half,
    /// Whether there is one measured time: a row whose measurements fall into several regimes is
    /// shown, and does not count.
    pub is_one_regime: bool,
}

impl Row {
    /// Returns the relative error of the prediction.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.predicted.median / self.measured - 1.0
    }

    /// Returns whether its error counts: measurement and prediction have one regime each.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.is_one_regime && self.predicted.regimes.is_none()
    }

    /// Returns whether the prediction's interval holds what was measured.
    #[must_use]
    pub fn holds(&self) -> bool {
        (self.predicted.low..=self.predicted.high).contains(&self.measured)
    }

    /// Returns the name with the number of threads, as a reader is told of it.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} at {}", self.name, self.threads)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prediction { median, low, high, regimes } = self.predicted;
        let (name, threads, measured) = (&self.name, self.threads, self.measured);
        write!(f, "{name:30} {threads:4} measured {measured:8.2} ")?;
        match regimes {
            Some((lower, upper)) => write!(f, "predicted {lower:.2} or {upper:.2}, by the seed")?,
            None => write!(f, "predicted {median:8.2} ({low:.2} to {high:.2})")?,
        }
        let percent = format!("{:+.1} %", 100.0 * self.error());
        let percent = if self.counts() { percent } else { format!("({percent})") };
        write!(f, " {percent:>9} {}", self.half)
    }
}

/// How some rows agree with their measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Rows that count.
    pub rows: usize,
    /// Rows that do not: they have several regimes.
    pub left_out: usize,
    /// Median of the errors' absolute values.
    pub median_error: f64,
    /// Greatest of them.
    pub worst_error: f64,
    /// The row that has it.
    pub worst: String,
    /// Rows whose measurement lies in the prediction's interval.
    pub within: usize,
    /// Pairs that the measurements put in an order.
    pub pairs: usize,
    /// Those of them that the model does not tell apart.
    pub ties: usize,
    /// Those of them that are predicted the other way round: the faster one by the measurement first.
    pub inversions: Vec<(String, String)>,
}

impl Agreement {
    /// Returns how rows agree, or `None` if none of them counts.
    #[must_use]
    pub fn of(rows: &[&Row]) -> Option<Self> {
        let counted: Vec<&Row> = rows.iter().copied().filter(|row| row.counts()).collect();
        let mut errors: Vec<(f64, &Row)> =
            counted.iter().map(|row| (row.error().abs(), *row)).collect();
        errors.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (worst_error, worst) = *errors.last()?;
        let (below, above) = (errors[(errors.len() - 1) / 2].0, errors[errors.len() / 2].0);
        let mut found = Self {
            rows: counted.len(),
            left_out: rows.len() - counted.len(),
            median_error: f64::midpoint(below, above),
            worst_error,
            worst: worst.label(),
            within: counted.iter().filter(|row| row.holds()).count(),
            pairs: 0,
            ties: 0,
            inversions: Vec::new(),
        };
        for (position, one) in counted.iter().enumerate() {
            for other in &counted[position + 1..] {
                found.compare(one, other);
            }
        }
        Some(found)
    }

    /// Counts a pair, if the measurements put it in an order.
    fn compare(&mut self, one: &Row, other: &Row) {
        if one.group.is_none() || one.group != other.group {
            return;
        }
        let (fast, slow) = if one.measured < other.measured { (one, other) } else { (other, one) };
        let end = |row: &Row| row.quartiles.unwrap_or((row.measured, row.measured));
        let apart =
            end(fast).1 < end(slow).0 && slow.measured >= fast.measured * (1.0 + SAME_SHARE);
        if !apart {
            return;
        }
        self.pairs += 1;
        let (fast_predicted, slow_predicted) = (fast.predicted.median, slow.predicted.median);
        if (fast_predicted / slow_predicted).ln().abs() < TIE_SHARE {
            self.ties += 1;
        } else if fast_predicted > slow_predicted {
            self.inversions.push((fast.label(), slow.label()));
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows, median error {:.1} %, worst {:.1} % ({}), {} within the interval",
            self.rows,
            100.0 * self.median_error,
            100.0 * self.worst_error,
            self.worst,
            self.within
        )?;
        if self.pairs > 0 {
            let wrong = self.inversions.len();
            write!(f, "; {wrong} of {} pairs in the wrong order, {} alike", self.pairs, self.ties)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, measured: f64, predicted: f64) -> Row {
        Row {
            name: name.to_owned(),
            threads: 2,
            measured,
            quartiles: Some((measured * 0.99, measured * 1.01)),
            group: Some("lock".to_owned()),
            predicted: Prediction::of(vec![predicted], &[]).expect("a seed"),
            half: Half::Tuned,
            is_one_regime: true,
        }
    }

    fn agreement(rows: &[Row]) -> Option<Agreement> {
        Agreement::of(&rows.iter().collect::<Vec<_>>())
    }

    #[test]
    fn only_clear_differences_have_an_order() {
        let rows = [row("a", 10.0, 12.0), row("b", 10.5, 9.0), row("c", 20.0, 11.0)];
        let found = agreement(&rows).expect("rows");
        assert_eq!((found.pairs, found.ties), (2, 0));
        assert_eq!(found.inversions, [("a at 2".to_owned(), "c at 2".to_owned())]);
    }

    #[test]
    fn a_prediction_alike_is_no_order_and_overlapping_quartiles_are_none_either() {
        let mut rows = [row("a", 10.0, 12.0), row("b", 12.0, 12.1), row("c", 20.0, 13.0)];
        let found = agreement(&rows).expect("rows");
        assert_eq!((found.pairs, found.ties, found.inversions.len()), (3, 1, 0));
        rows[1].quartiles = Some((9.9, 12.1));
        let found = agreement(&rows).expect("rows");
        assert_eq!((found.pairs, found.ties), (2, 0), "a and b overlap");
        rows[1].is_one_regime = false;
        let found = agreement(&rows).expect("rows");
        assert_eq!((found.pairs, found.rows, found.left_out), (1, 2, 1), "b has several regimes");
    }

    #[test]
    fn without_a_row_that_counts_there_is_no_agreement() {
        assert_eq!(agreement(&[]), None);
        let mut only = row("a", 10.0, 12.0);
        only.is_one_regime = false;
        assert_eq!(agreement(&[only]), None);
        assert_eq!(Prediction::of(Vec::new(), &[1.0]), None);
    }

    #[test]
    fn two_groups_of_seeds_are_two_regimes_and_no_median() {
        let of = |seeds: &[f64]| Prediction::of(seeds.to_vec(), &[]).expect("seeds").regimes;
        assert_eq!(of(&[28.0, 213.0, 27.0, 214.0, 29.0]), Some((28.0, 214.0)));
        assert_eq!(of(&[20.0, 22.0, 24.0, 26.0, 28.0]), None, "spread is no gap");
        assert_eq!(of(&[20.0; 9]), None);
        let nine = [20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 90.0];
        assert_eq!(of(&nine), None, "one seed is no group");
        let mut row = row("a", 28.0, 28.0);
        row.predicted.regimes = Some((28.0, 214.0));
        assert!(!row.counts());
    }

    #[test]
    fn the_interval_is_that_of_seeds_and_drawn_machines() {
        let predicted = Prediction::of(vec![10.0, 11.0, 12.0], &[8.0, 11.5]).expect("seeds");
        assert_eq!((predicted.low, predicted.median, predicted.high), (8.0, 11.0, 12.0));
    }
}
