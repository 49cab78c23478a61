//! `run.json`: everything about a run that is not a round.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Extra, Finding, Host, Latency, Named, SCHEMA, SchemaVersion, Series};

/// Description of a run: tool, command, host, settings, and the cost of the instruments themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Version of the files.
    pub schema: SchemaVersion,
    /// Name of the run's directory; set by [`RunWriter::create`](crate::RunWriter::create).
    pub run_id: String,
    /// Start, seconds since 1970 UTC.
    pub started_unix_s: u64,
    /// End; absent while running, or when the run was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_unix_s: Option<u64>,
    /// Version of the tool.
    pub tool_version: String,
    /// Revision of the sources, with `-dirty` if they were changed; none outside a checkout.
    pub git_revision: Option<String>,
    /// Command that repeats the run.
    pub command_line: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Cell that the others are compared to.
    pub baseline: String,
    /// The host.
    pub host: Host,
    /// Label of the host in a merged run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_label: Option<String>,
    /// Unusual facts about the host.
    pub findings: Vec<Finding>,
    /// Limits of the ruler.
    pub calibration: Calibration,
    /// Settings that were asked for.
    pub settings: Settings,
    /// Outcome of the self-test, where it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
    /// Checks made apart from measuring: model checking, conformance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verification: Vec<Verification>,
    /// Remarks that a reader must know, one sentence each: what was skipped and why, what a source leaves
    /// out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Simulator: how much was simulated in which time; absent while the run goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated: Option<SimulationSpeed>,
    /// Simulator: the machine, as the TOML file that describes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_machine: Option<String>,
    /// Latencies over all undisturbed rounds of each row, where the logs were not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pooled_latency: Vec<PooledLatency>,
    /// Simulator: which part of a run this is, where processes share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardOf>,
    /// The cells and locks of the run as reports show them; empty in a run of an older writer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub designs: Vec<Design>,
    /// Runs that this one was merged from, each with its `host_label`; empty for a measured run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<Run>,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            run_id: String::new(),
            started_unix_s: 0,
            finished_unix_s: None,
            tool_version: String::new(),
            git_revision: None,
            command_line: String::new(),
            seed: 0,
            baseline: String::new(),
            host: Host::default(),
            host_label: None,
            findings: Vec::new(),
            calibration: Calibration::default(),
            settings: Settings::default(),
            self_test: None,
            verification: Vec::new(),
            notes: Vec::new(),
            simulated: None,
            simulated_machine: None,
            pooled_latency: Vec::new(),
            shard: None,
            designs: Vec::new(),
            merged_from: Vec::new(),
            extra: Extra::new(),
        }
    }
}

impl Run {
    /// Returns a run that starts now.
    #[must_use]
    pub fn new(tool_version: impl Into<String>, seed: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { tool_version: tool_version.into(), seed, started_unix_s: now, ..Self::default() }
    }
}

/// Amount of simulation and the time that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SimulationSpeed {
    /// Accesses that were simulated one by one.
    pub accesses: u64,
    /// Loads of waiting cores, charged together when a core wakes.
    pub spin_loads: u64,
    /// Processor time of the simulations: cells, locks and workloads run in it too.
    pub processor_s: f64,
}

/// Latencies of a row over all its undisturbed rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PooledLatency {
    /// The row.
    #[serde(flatten)]
    pub series: Series,
    /// Latency by operation: percentiles of all samples together.
    pub latency: Named<Latency>,
}

/// A cell or lock as reports show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Design {
    /// Name in `cell` of every row, such as `cmpxchg-state`.
    pub id: String,
    /// `timer`, `wq`, `task_work` or `lock`; empty where all kinds share the entry.
    pub kind: String,
    /// Name for readers; empty: the id.
    pub label: String,
    /// Place in tables and charts, rising; the history of the kernel, oldest first.
    pub order: u32,
    /// Designs of one group share a colour; empty: a group of its own.
    pub group: String,
}

/// Which part of a simulated run this is: every `of`-th configuration of its plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShardOf {
    /// Number of its first configuration, from 0.
    pub index: u32,
    /// Number of parts.
    pub of: u32,
    /// Configurations of the whole plan.
    pub configurations: u32,
}

/// Costs of the instruments, measured in the same run. Absent: not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// Taking one timestamp.
    pub timestamp_ns: Option<f64>,
    /// One turn of the measuring loop around an operation that does nothing.
    pub empty_op_ns: Option<f64>,
    /// One uncontended atomic read-modify-write on a line the core owns.
    pub uncontended_atomic_ns: Option<f64>,
    /// One transfer of a modified line between two of the CPUs used, one way, median over pairs.
    pub line_transfer_ns: Option<f64>,
    /// Share of throughput that sampling latency costs, 0 to 1.
    pub sampling_cost_share: Option<f64>,
    /// Whether the charge for masking interrupts arrived, by lock; empty where nothing was charged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charge_checks: Vec<ChargeCheck>,
    /// Core-to-core latency, a matrix for each method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub core_to_core: Vec<CoreMatrix>,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One-way latency between CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreMatrix {
    /// Method, such as `cas` (compare-exchange ping-pong) or `read-write`.
    pub method: String,
    /// CPU numbers of rows and columns.
    pub cpus: Vec<u32>,
    /// `one_way_ns[i][j]` between `cpus[i]` and `cpus[j]`; null where not measured and on the
    /// diagonal.
    pub one_way_ns: Vec<Vec<Option<f64>>>,
}

/// Costs that the model adds for what user space cannot do, beside masking interrupts, in
/// nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Charges {
    /// Arming a timer under its base's lock.
    pub arm_timer_ns: f64,
    /// Queueing a work.
    pub queue_work_ns: f64,
    /// The interrupt that a CPU sends itself to run `irq_work`.
    pub irq_work_ns: f64,
}

/// Charge for masking interrupts as it arrived around one lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChargeCheck {
    /// The lock.
    pub lock: String,
    /// Charge of a pair of lock and unlock.
    pub charged_ns: f64,
    /// Pair with interrupts masked, less a pair without.
    pub arrived_ns: f64,
}

/// Settings that the user asked for. Absent: the tool chose per case, or the setting does not apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Length of one measurement.
    pub window_s: f64,
    /// Time allowed for the whole run.
    pub time_budget_s: Option<f64>,
    /// Rounds that were planned: those asked for, or those that the time was expected to allow. A run whose
    /// comparisons are all decided ends before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// Relative difference that matters: 0.01 for 1 %.
    pub threshold_share: f64,
    /// Every n-th operation is timed; 0 if none.
    pub latency_sample_every: u32,
    /// Cost added for masking interrupts in the model; 0 if none.
    pub irq_save_cost_ns: f64,
    /// Costs added for what else user space cannot do; none in runs of older writers, which added
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charges: Option<Charges>,
    /// Simulator: fields, by label, that were given cache lines of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub own_lines: Vec<String>,
    /// Name of the matrix: `quick`, `headline`, `full`, or `chosen`.
    pub matrix: String,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Whether the tool can be believed on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelfTest {
    /// The same cell under two names.
    pub aa: AaCheck,
    /// Cells slowed by a known amount.
    pub planted: Vec<PlantedCheck>,
    /// Whether all bounds were met.
    pub passed: bool,
    /// Command that repeats the self-test.
    pub command_line: String,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A/A: nothing differs, so every difference found is false.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AaCheck {
    /// Comparisons made.
    pub comparisons: u32,
    /// Called different at the 5 % level, each for itself.
    pub different_uncorrected: u32,
    /// Called different after correction over the table.
    pub different: u32,
}

/// A known slow-down and how often it was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlantedCheck {
    /// Cell that was slowed.
    pub cell: String,
    /// Workload by name.
    pub workload: String,
    /// Planted slow-down: 5 for 5 %.
    pub slowdown_percent: f64,
    /// Number of tries.
    pub tries: u32,
    /// Tries in which the verdict was `slower`.
    pub found: u32,
}

/// One thing that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// Property that was verified.
    pub what: String,
    /// Outcome, with its figure: "3.1 million interleavings, exhausted".
    pub outcome: String,
    /// Command that repeats it.
    pub command_line: String,
}

/// Writes seconds since 1970 as `2026-11-21T09:10:23Z`.
///
/// Days to civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
#[must_use]
pub fn rfc3339_utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01, so that leap days end a year
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::rfc3339_utc;

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(rfc3339_utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339_utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339_utc(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339_utc(1_795_252_223), "2026-11-21T09:10:23Z");
    }
}
