//! `summary.json`: what the reports are made from, for programs.
//!
//! A field that a program may rely on is always present, null when unknown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Extra, Latency, Named, OutcomeCounts, SCHEMA, SchemaVersion, Series};

/// The table of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Version of the files.
    pub schema: SchemaVersion,
    /// Run that was summarised.
    pub run_id: String,
    /// Cell that ratios are relative to, unless an entry names another.
    pub baseline: String,
    /// Confidence of the intervals: 0.95.
    pub confidence: f64,
    /// Relative difference that matters: 0.01 for 1 %.
    pub threshold_share: f64,
    /// Comparisons that the correction of `p_adjusted` is over.
    pub comparisons: u32,
    /// Rounds read that entered no statistic because they were disturbed, over all entries.
    pub rounds_disturbed: u64,
    /// One row per cell, workload, placement and thread count.
    pub entries: Vec<Entry>,
    /// How goodput scales with threads, a fit for each cell, workload and placement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scaling: Vec<Scaling>,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            run_id: String::new(),
            baseline: String::new(),
            confidence: 0.95,
            threshold_share: 0.01,
            comparisons: 0,
            rounds_disturbed: 0,
            entries: Vec::new(),
            scaling: Vec::new(),
            extra: Extra::new(),
        }
    }
}

/// One row: a series over all its rounds, and its comparison with the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Row that was measured.
    #[serde(flatten)]
    pub series: Series,
    /// Median over rounds of successful operations per second, all threads together.
    pub goodput_ops_s: Option<f64>,
    /// Lower end of the interval of `goodput_ops_s` over rounds.
    #[serde(default)]
    pub goodput_low_ops_s: Option<f64>,
    /// Upper end.
    #[serde(default)]
    pub goodput_high_ops_s: Option<f64>,
    /// Median over rounds of attempts per second.
    pub attempts_ops_s: Option<f64>,
    /// Attempts that did not end in `ok`, of all attempts, 0 to 1.
    pub failure_share: Option<f64>,
    /// Attempts by outcome, over all operations and rounds.
    #[serde(default)]
    pub outcomes: OutcomeCounts,
    /// The same by operation.
    #[serde(default)]
    pub ops: Named<OutcomeCounts>,
    /// The same by context, where the workload uses several.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub contexts: Named<OutcomeCounts>,
    /// Median latency of the operation with most samples, over all undisturbed rounds together;
    /// none
    /// if fewer than ten samples lie beyond it. Without logs: the median of the rounds'
    /// percentiles,
    /// none if a round has fewer than ten samples beyond it.
    pub p50_ns: Option<f64>,
    /// 99th percentile, likewise.
    pub p99_ns: Option<f64>,
    /// 99.9th percentile, likewise.
    pub p999_ns: Option<f64>,
    /// Largest latency in any round.
    pub max_ns: Option<f64>,
    /// Samples behind the percentiles, over all undisturbed rounds.
    #[serde(default)]
    pub latency_samples: Option<u64>,
    /// Whether the percentiles are those of all samples together, and not medians over rounds.
    #[serde(default)]
    pub latency_pooled: bool,
    /// Latency by operation: samples of all undisturbed rounds together.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub latency: Named<Latency>,
    /// Jain's fairness index of the threads' successes: 1 if equal, 1/threads if one has all.
    pub fairness_jain: Option<f64>,
    /// The thread with least successes, as a share of the mean, median over rounds.
    #[serde(default)]
    pub worst_thread_share: Option<f64>,
    /// Mean successes of each thread per second, in thread order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_thread_ops_s: Vec<f64>,
    /// Counter to events per attempt.
    #[serde(default)]
    pub counters_per_op: Named<f64>,
    /// Counters whose value is extrapolated because they shared hardware.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters_multiplexed: Vec<String>,
    /// Counter to the reason why there is no value.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub counters_missing: Named<String>,
    /// Simulator: cache-line transfers per attempt, by field.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub line_transfers_per_op: Named<f64>,
    /// Simulator: share of the threads' time that they waited for the line of each field.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub line_wait_shares: Named<f64>,
    /// Goodput as a share of one operation per line transfer; only for two threads or more.
    #[serde(default)]
    pub line_transfer_share: Option<f64>,
    /// Rounds in the statistics above.
    #[serde(default)]
    pub rounds: u32,
    /// Rounds left out because they were disturbed.
    #[serde(default)]
    pub rounds_disturbed: u32,
    /// Broken invariants, with the rounds in which they broke; not empty: the row is an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// Cell this row is compared with; none for the baseline itself or if it is missing.
    #[serde(default)]
    pub baseline: Option<String>,
    /// Rounds in which this cell and the baseline both count.
    #[serde(default)]
    pub pairs: u32,
    /// Pairs left out because one side was disturbed.
    #[serde(default)]
    pub pairs_disturbed: u32,
    /// Whether the row has too few rounds for a verdict in this table: it has an interval of its
    /// own,
    /// no verdict, and no part in the correction.
    #[serde(default)]
    pub survey: bool,
    /// Whether the rounds fall into several modes, so that the median rates of this row and its
    /// baseline have another ratio than the two have within rounds.
    #[serde(default)]
    pub bimodal: bool,
    /// Goodput here by goodput of the baseline within rounds, as the Hodges-Lehmann estimate over
    /// rounds; above 1 is faster.
    pub ratio: Option<f64>,
    /// Lower end of the 95 % interval of `ratio`: simultaneous over the table, for a surveyed row
    /// its
    /// own.
    pub ratio_low: Option<f64>,
    /// Upper end.
    pub ratio_high: Option<f64>,
    /// Probability of ratios this far from 1 if the cells were equal, for this row alone.
    #[serde(default)]
    pub p_value: Option<f64>,
    /// The same after correction over the table and for the looks on the way; at most 0.05 exactly
    /// if
    /// the interval excludes 1.
    pub p_adjusted: Option<f64>,
    /// The verdict; none for the baseline and where nothing can be compared.
    pub verdict: Option<Verdict>,
    /// Undecided: further rounds expected to decide.
    #[serde(default)]
    pub rounds_needed: Option<u32>,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Entry {
    /// Returns a row about which nothing is known yet.
    #[must_use]
    pub fn new(series: Series) -> Self {
        Self {
            series,
            goodput_ops_s: None,
            goodput_low_ops_s: None,
            goodput_high_ops_s: None,
            attempts_ops_s: None,
            failure_share: None,
            outcomes: OutcomeCounts::new(),
            ops: Named::new(),
            contexts: Named::new(),
            p50_ns: None,
            p99_ns: None,
            p999_ns: None,
            max_ns: None,
            latency_samples: None,
            latency_pooled: false,
            latency: Named::new(),
            fairness_jain: None,
            worst_thread_share: None,
            per_thread_ops_s: Vec::new(),
            counters_per_op: Named::new(),
            counters_multiplexed: Vec::new(),
            counters_missing: Named::new(),
            line_transfers_per_op: Named::new(),
            line_wait_shares: Named::new(),
            line_transfer_share: None,
            rounds: 0,
            rounds_disturbed: 0,
            violations: Vec::new(),
            baseline: None,
            pairs: 0,
            pairs_disturbed: 0,
            survey: false,
            bimodal: false,
            ratio: None,
            ratio_low: None,
            ratio_high: None,
            p_value: None,
            p_adjusted: None,
            verdict: None,
            rounds_needed: None,
            extra: Extra::new(),
        }
    }
}

/// Outcome of a comparison, seen from the cell that is compared with the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More goodput, by more than the threshold of interest can explain.
    Faster,
    /// Less goodput.
    Slower,
    /// The whole interval lies within the threshold of interest.
    Same,
    /// The data do not tell.
    Undecided,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same",
            Self::Undecided => "undecided",
        })
    }
}

/// Fit of the Universal Scalability Law to goodput against threads (N. Gunther, 1993):
/// `goodput(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1))`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// The series with the largest number of threads in the fit.
    #[serde(flatten)]
    pub series: Series,
    /// Thread counts in the fit, rising.
    pub threads_fitted: Vec<u32>,
    /// Goodput of one thread, as fitted.
    pub lambda_ops_s: Option<f64>,
    /// Contention: share of the work that is serial.
    pub sigma: Option<f64>,
    /// Coherency: cost of each pair of threads agreeing.
    pub kappa: Option<f64>,
    /// Threads at which goodput is largest, at least 1; none if it never falls or no fit was made.
    pub peak_threads: Option<f64>,
    /// Goodput there.
    pub peak_ops_s: Option<f64>,
    /// Share of the variance that the fit explains.
    pub r_squared: Option<f64>,
    /// Why there is no fit, or why it must not be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}
