//! What a reader of a run may choose: everything here changes the summary, nothing the records.

use cellbench_record::Run;

use crate::stats::verdict::Rule;

/// Baseline where neither the run nor the user names one: the cell before any of the patches.
pub const DEFAULT_BASELINE: &str = "spin-queued";

/// Confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;

/// How rows are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Cell that the others are compared with, under the same kind, workload, threads, placement,
    /// engine, machine, host and source.
    pub baseline: String,
    /// Relative difference that matters: 0.01 for 1 %.
    pub threshold_share: f64,
    /// Probability of a false difference anywhere in the table.
    pub alpha: f64,
    /// Test behind the probabilities.
    pub test: Test,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Test of the paired log ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Wilcoxon's signed-rank test.
    SignedRank,
    /// The sign test: less power, but no assumption of symmetry.
    Sign,
}

impl Options {
    /// What the run itself says, defaults where it says nothing.
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
            alpha: 0.05,
            test: Test::SignedRank,
            seed: run.seed,
        }
    }

    pub(crate) fn rule(&self) -> Rule {
        Rule { threshold_share: self.threshold_share, alpha: self.alpha }
    }
}
