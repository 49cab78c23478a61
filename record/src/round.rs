//! A line of `rounds.jsonl`: one cell on one workload in one round.
//!
//! Raw counts only; rates and ratios are derived by whoever reads, so that a later reader may
//! derive them better. The few methods here are definitions (what goodput is), not statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Coherence, Extra, Named, Series};

/// Name of the outcome of a successful attempt. Every other outcome is an errno by its kernel name.
pub const OK: &str = "ok";

/// Outcome name (`ok`, `EBUSY`, ...) to number of attempts that ended so, over many rounds.
pub type OutcomeCounts = Named<u64>;

/// Context name to operation name to outcome name to number of attempts.
pub type ContextOps = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// One cell under one workload, measured once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Row that was measured.
    #[serde(flatten)]
    pub series: Series,
    /// Number of the round, from 0. Cells with the same number ran seconds apart: they are a pair.
    pub round: u32,
    /// Position in the shuffled order of the round, from 0.
    #[serde(default)]
    pub position: u32,
    /// Start, seconds since the run started.
    #[serde(default)]
    pub start_s: f64,
    /// Length of the window in which operations were counted.
    pub duration_s: f64,
    /// CPUs used, one per thread in thread order, numbered as the host numbers them.
    #[serde(default)]
    pub cpus: Vec<u32>,
    /// Operation name to outcomes.
    #[serde(default)]
    pub ops: BTreeMap<String, BTreeMap<String, u64>>,
    /// Context (`task`, `softirq`, `hardirq`, `nmi`) to outcomes, where the workload uses several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, BTreeMap<String, u64>>,
    /// The same by context and operation, where handlers interrupted the workers. `ops` holds the
    /// interrupted workers' alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context_ops: ContextOps,
    /// Interruptions that came while their worker was between two batches and so did nothing;
    /// absent where nobody is interrupted.
    #[serde(default, alias = "interruptions_let_go", skip_serializing_if = "Option::is_none")]
    pub interruptions_missed: Option<u64>,
    /// Open loop: operations that were due in the window and had not begun when it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<u64>,
    /// Counts of each thread, in thread order.
    #[serde(default)]
    pub per_thread: Vec<ThreadCount>,
    /// Hardware and software counters by the name `perf list` gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, Counter>,
    /// Simulator: cache-line transfers by the field whose line moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub line_transfers: BTreeMap<String, u64>,
    /// Simulator: time that all threads together waited for the line of each field, in nanoseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub line_waits_ns: BTreeMap<String, u64>,
    /// Simulator: traffic by field and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coherence: Option<Box<Coherence>>,
    /// Kernel: name of the row that was measured, such as `timer-set_callback@hardirq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Kernel: how the cells lay in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// Kernel: time inside the BPF programs, all threads together, without entering and leaving the
    /// kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_in_kernel_ns: Option<u64>,
    /// Switches because a thread blocked; none where the host does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches_voluntary: Option<u64>,
    /// Switches because a thread was preempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches_involuntary: Option<u64>,
    /// Moves of a worker to another CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<u64>,
    /// Time the hypervisor took from the CPUs used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_ns: Option<u64>,
    /// Why the round must not count; empty for a good round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disturbed: Vec<String>,
    /// Result of the workload's check of its invariants afterwards.
    #[serde(default)]
    pub invariants: Invariants,
    /// One of so many operations was timed, on the thread that timed most often; 0 if none was.
    #[serde(default, alias = "sample_every", skip_serializing_if = "Option::is_none")]
    pub latency_sample_every: Option<u32>,
    /// Kernel: cost of timing one operation, which every latency includes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing_cost_ns: Option<f64>,
    /// Latency by operation, where it was sampled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latency: BTreeMap<String, Latency>,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Round {
    /// Returns a round with no counts yet.
    #[must_use]
    pub fn new(series: Series, round: u32, duration_s: f64) -> Self {
        Self {
            series,
            round,
            position: 0,
            start_s: 0.0,
            duration_s,
            cpus: Vec::new(),
            ops: BTreeMap::new(),
            contexts: BTreeMap::new(),
            context_ops: ContextOps::new(),
            interruptions_missed: None,
            unserved: None,
            per_thread: Vec::new(),
            counters: BTreeMap::new(),
            line_transfers: BTreeMap::new(),
            line_waits_ns: BTreeMap::new(),
            coherence: None,
            operation: None,
            layout: None,
            elapsed_in_kernel_ns: None,
            context_switches_voluntary: None,
            context_switches_involuntary: None,
            migrations: None,
            steal_ns: None,
            disturbed: Vec::new(),
            invariants: Invariants::default(),
            latency_sample_every: None,
            timing_cost_ns: None,
            latency: BTreeMap::new(),
            extra: Extra::new(),
        }
    }

    /// Adds `count` attempts of operation `op` that ended as `outcome`.
    pub fn count(&mut self, op: &str, outcome: &str, count: u64) {
        let outcomes = match self.ops.get_mut(op) {
            Some(outcomes) => outcomes,
            None => self.ops.entry(op.to_owned()).or_default(),
        };
        match outcomes.get_mut(outcome) {
            Some(total) => *total += count,
            None => {
                outcomes.insert(outcome.to_owned(), count);
            }
        }
    }

    /// Attempts over all operations, whatever their outcome.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.ops.values().flat_map(BTreeMap::values).fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Attempts that ended in [`OK`].
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.ops
            .values()
            .filter_map(|outcomes| outcomes.get(OK))
            .fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Returns the goodput: successful operations per second. None for a window without length.
    #[must_use]
    pub fn goodput_ops_s(&self) -> Option<f64> {
        (self.duration_s > 0.0).then(|| self.ok() as f64 / self.duration_s)
    }

    /// Returns whether the round may enter statistics: undisturbed, with a window and no broken
    /// invariant.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.disturbed.is_empty() && self.invariants.violations.is_empty() && self.duration_s > 0.0
    }
}

/// Operations that one worker finished inside the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadCount {
    /// CPU it was pinned to.
    pub cpu: u32,
    /// Number of attempts.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub ok: u64,
}

/// A counter summed over the workers, or why there is none. Never a zero for an unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counter {
    /// A sum of counts.
    Counted {
        /// Events as the counter showed them, not scaled.
        value: u64,
        /// Time the event was asked for.
        enabled_ns: u64,
        /// Time it was on a hardware counter; less than `enabled_ns` when multiplexed.
        running_ns: u64,
    },
    /// Not counted.
    Unavailable {
        /// Reason, for the reader of a report.
        unavailable: String,
    },
}

impl Counter {
    /// Events scaled to the whole time asked for; none if unavailable or never on a counter.
    #[must_use]
    pub fn scaled(&self) -> Option<f64> {
        match *self {
            Self::Counted { value, enabled_ns, running_ns } if running_ns > 0 => {
                Some(value as f64 * (enabled_ns as f64 / running_ns as f64))
            }
            _ => None,
        }
    }

    /// Returns whether the value is an extrapolation from part of the time.
    #[must_use]
    pub fn is_multiplexed(&self) -> bool {
        matches!(self, Self::Counted { enabled_ns, running_ns, .. } if running_ns < enabled_ns)
    }
}

/// Outcome of the workload's own check after the round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariants {
    /// Number of properties checked; 0 says that nothing was checked.
    pub checked: u32,
    /// Violations of invariants, one sentence each. A round with violations is an error, not a result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
}

/// Latency of one operation in one round, from its HdrHistogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Operations timed.
    pub samples: u64,
    /// Mean in nanoseconds.
    pub mean_ns: f64,
    /// Median in nanoseconds.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// 99.99th percentile.
    pub p9999_ns: u64,
    /// Largest value in nanoseconds.
    pub max_ns: u64,
    /// Log that holds the whole distribution, relative to the run's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hlog: Option<String>,
}

impl Latency {
    /// Returns the summary of a histogram whose values are nanoseconds.
    #[must_use]
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        Self {
            samples: histogram.len(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.50),
            p90_ns: histogram.value_at_quantile(0.90),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            p9999_ns: histogram.value_at_quantile(0.9999),
            max_ns: histogram.max(),
            hlog: None,
        }
    }
}
