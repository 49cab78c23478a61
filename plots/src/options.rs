//! Choices of the reader of a run: everything here changes the summary, nothing the records.

use cellbench_record::Run;

use crate::stats::verdict::Rule;

/// Baseline where neither the run nor the user names one: the cell before any of the patches.
pub const DEFAULT_BASELINE: &str = "spin-queued";

/// Confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;

/// Probability of a false difference anywhere in a table, looks on the way included.
pub const ALPHA: f64 = 0.05;

/// Rules by which rows are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Cell that the others are compared with, under the same kind, workload, threads, placement,
    /// engine, machine, host and source.
    pub baseline: String,
    /// Relative difference that matters: 0.01 for 1 %.
    pub threshold_share: f64,
    /// Probability of a false difference anywhere in the table.
    pub alpha: f64,
    /// Comparisons that the whole run is to decide, for a table that holds a part of it; 0: those in
    /// the table.
    pub comparisons: u32,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Options {
    /// Takes the options that the run itself names, defaults for the others.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        let threshold_share = run.settings.threshold_share;
        Self {
            baseline: if run.baseline.is_empty() {
                DEFAULT_BASELINE.into()
            } else {
                run.baseline.clone()
            },
            threshold_share: if threshold_share > 0.0 { threshold_share } else { 0.01 },
            alpha: ALPHA,
            comparisons: 0,
            seed: run.seed,
        }
    }

    pub(crate) fn rule(&self) -> Rule {
        Rule { threshold_share: self.threshold_share, alpha: self.alpha }
    }
}
