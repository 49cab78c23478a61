//! Plan of what to measure, and the result of measuring it once.

use std::collections::BTreeMap;

use cellbench_host::disturbance::{self, RoundDisturbance, ThreadDisturbance};
use cellbench_record::{Invariants, Kind, Round, Series, Source, ThreadCount};

use crate::counts::Counts;
use crate::error::Error;
use crate::histogram::Histogram;
use crate::rows::{Context, Layout, Row};

/// A row that cannot be measured, with the reason.
pub type Skipped = (String, String);

/// Rows, layouts and numbers of threads to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows. Those that this kernel lacks are skipped.
    pub rows: Vec<Row>,
    /// Layouts; each row takes those it has.
    pub layouts: Vec<Layout>,
    /// Thread counts. A row that needs more threads than given is not measured with so few.
    pub threads: Vec<u32>,
    /// CPUs by the host's numbers, in the order in which threads take them; as many as the largest
    /// thread count.
    pub cpus: Vec<u32>,
}

/// A row in a layout, with a thread on each of some CPUs.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The row.
    pub row: Row,
    /// Layout of its cells.
    pub layout: Layout,
    /// CPUs, one per thread.
    pub cpus: Vec<u32>,
}

impl Plan {
    /// Returns every configuration, and the rows that this kernel lacks.
    ///
    /// # Errors
    /// [`Error::Plan`] if a number of threads cannot be.
    pub fn configurations(&self) -> Result<(Vec<Configuration>, Vec<Skipped>), Error> {
        let plan_error = |what: String| Err(Error::Plan { what });
        let most = self.threads.iter().copied().max().unwrap_or(0);
        if most == 0 || self.threads.contains(&0) {
            return plan_error("thread counts start at 1".to_owned());
        }
        if self.cpus.len() < most as usize {
            let cpus = self.cpus.len();
            return plan_error(format!("{most} threads need {most} CPUs, {cpus} given"));
        }
        let mut skipped = Vec::new();
        let mut configurations = Vec::new();
        for row in &self.rows {
            if let Some(reason) = &row.skipped {
                skipped.push((row.name(), reason.clone()));
                continue;
            }
            for &threads in self.threads.iter().filter(|threads| **threads >= row.threads_min()) {
                let solo_twin = |layout: Layout| {
                    // A thread alone: own cells are the same cell again, unless the row has no other.
                    threads == 1
                        && row.layouts().contains(&Layout::Same)
                        && matches!(layout, Layout::OwnPadded | Layout::OwnPacked)
                        && row.kind() != Kind::TaskWork
                };
                let taken = row.layouts().iter().copied();
                let taken =
                    taken.filter(|layout| self.layouts.contains(layout) && !solo_twin(*layout));
                configurations.extend(taken.map(|layout| Configuration {
                    row: row.clone(),
                    layout,
                    cpus: self.cpus[..threads as usize].to_vec(),
                }));
            }
        }
        Ok((configurations, skipped))
    }
}

impl Configuration {
    /// Returns the key in records; `placement` is the name of the order of the CPUs.
    #[must_use]
    pub fn series(&self, placement: &str) -> Series {
        let threads = self.cpus.len() as u32;
        let workload = self.row.workload(self.layout, threads);
        let (cell, kind) = (self.row.cell.clone(), self.row.kind());
        Series::new(cell, kind, workload, threads, placement, Source::Kernel)
    }
}

/// A configuration, measured once.
#[derive(Clone, Debug)]
pub struct RoundResult {
    /// Configuration that was measured.
    pub configuration: Configuration,
    /// From the common start to the end of the last thread.
    pub duration_ns: u64,
    /// Counts of each thread.
    pub per_thread: Vec<Counts>,
    /// Latency by operation, if it was sampled.
    pub latency: BTreeMap<&'static str, Histogram>,
    /// Every n-th time round was timed; 0 for none.
    pub sample_every: u32,
    /// Cost of timing one attempt, included in the latencies.
    pub timing_cost_ns: f64,
    /// Outcome of the check afterwards.
    pub invariants: Invariants,
    /// Disturbances of each thread in the window.
    pub threads: Vec<ThreadDisturbance>,
    /// Disturbances on the CPUs.
    pub host: RoundDisturbance,
}

impl RoundResult {
    /// Returns what all threads counted together.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in &self.per_thread {
            total.merge(counts);
        }
        total
    }

    /// Returns the line of a record, but for its number, position and start.
    #[must_use]
    pub fn to_round(&self, placement: &str) -> Round {
        let Configuration { row, layout, cpus } = &self.configuration;
        let series = self.configuration.series(placement);
        let mut round = Round::new(series, 0, self.duration_ns as f64 / 1e9);
        round.cpus.clone_from(cpus);
        let total = self.total();
        let mut in_context: BTreeMap<String, u64> = BTreeMap::new();
        for (op, outcomes) in &total.ops {
            for (outcome, count) in outcomes {
                round.count(op, outcome, *count);
                *in_context.entry(outcome.clone()).or_default() += count;
            }
        }
        if row.context != Context::Task {
            round.contexts.insert(row.context.name().to_owned(), in_context);
        }
        let thread = |(counts, cpu): (&Counts, &u32)| ThreadCount {
            cpu: *cpu,
            attempts: counts.attempts(),
            ok: counts.ok(),
        };
        round.per_thread = self.per_thread.iter().zip(cpus).map(thread).collect();
        for (op, histogram) in &self.latency {
            round.latency.insert((*op).to_owned(), histogram.to_record());
        }
        round.invariants = self.invariants.clone();
        disturbance::note(&mut round, &self.threads, self.host, row.shares_cpus());
        round.operation = Some(row.name());
        round.layout = Some(layout.name().to_owned());
        round.latency_sample_every = Some(self.sample_every);
        round.timing_cost_ns = Some(self.timing_cost_ns);
        round.elapsed_in_kernel_ns = Some(total.elapsed_ns);
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{CellGenerations, Generation};
    use crate::info::{KERNEL_FUNCTIONS, KernelInfo};
    use crate::rows::rows;

    fn result(row: &str) -> RoundResult {
        let info = KernelInfo {
            release: "6.18".to_owned(),
            cells: CellGenerations {
                timer: Some(Generation::Locked),
                wq: Some(Generation::Locked),
                task_work: true,
                evidence: Vec::new(),
            },
            functions: KERNEL_FUNCTIONS.map(str::to_owned).to_vec(),
            missing_capabilities: Vec::new(),
            emulator: None,
            jit: Some(true),
        };
        let mut counts = Counts { elapsed_ns: 90, ..Counts::default() };
        counts.add("set_callback", "ok", 4);
        counts.add("set_callback", "EBUSY", 1);
        RoundResult {
            configuration: Configuration {
                row: rows(&info).into_iter().find(|r| r.name() == row).unwrap(),
                layout: Layout::Same,
                cpus: vec![2, 5],
            },
            duration_ns: 2_000_000_000,
            per_thread: vec![counts.clone(), counts],
            latency: BTreeMap::new(),
            sample_every: 64,
            timing_cost_ns: 30.0,
            invariants: Invariants::default(),
            threads: vec![ThreadDisturbance::default(); 2],
            host: RoundDisturbance { steal_ns: Some(0) },
        }
    }

    #[test]
    fn a_result_becomes_a_record() {
        let round = result("timer-set_callback").to_round("compact");
        assert_eq!(round.series.to_string(), "locked timer same-cell x2 compact [kernel]");
        assert_eq!(round.ops["set_callback"]["ok"], 8);
        assert_eq!(round.ops["set_callback"]["EBUSY"], 2);
        assert_eq!(round.goodput_ops_s(), Some(4.0));
        assert_eq!((round.per_thread[1].cpu, round.per_thread[1].attempts), (5, 5));
        assert!(round.contexts.is_empty() && round.is_usable());
        assert_eq!(round.elapsed_in_kernel_ns, Some(180));
        assert_eq!(round.latency_sample_every, Some(64));
    }

    #[test]
    fn interrupt_outcomes_stand_under_their_context() {
        let round = result("timer-set_callback@hardirq").to_round("compact");
        assert_eq!(round.contexts["hardirq"]["ok"], 8);
    }

    #[test]
    fn steal_a_switch_and_a_migration_disturb_a_round() {
        let disturbed = |thread: ThreadDisturbance, steal_ns| {
            let mut result = result("timer-set_callback");
            result.threads[1] = thread;
            result.host.steal_ns = Some(steal_ns);
            let round = result.to_round("compact");
            assert_eq!(round.is_usable(), round.disturbed.is_empty());
            !round.disturbed.is_empty()
        };
        let quiet = ThreadDisturbance::default();
        assert!(!disturbed(quiet, 0));
        assert!(disturbed(quiet, 10_000_000));
        assert!(disturbed(ThreadDisturbance { involuntary_switches: 1, ..quiet }, 0));
        assert!(disturbed(ThreadDisturbance { migrations: Some(1), ..quiet }, 0));
    }

    #[test]
    fn a_work_runs_on_the_cpu_of_the_thread_that_started_it() {
        let disturbed = |row: &str| {
            let mut result = result(row);
            result.threads[0].involuntary_switches = 9;
            !result.to_round("compact").is_usable()
        };
        for row in ["wq-start", "wq-start@softirq", "wq-lifecycle", "wq-mixed"] {
            assert!(!disturbed(row), "{row}: its worker needs the CPU");
        }
        for row in ["wq-empty", "wq-set_callback", "wq-init-free", "timer-start"] {
            assert!(disturbed(row), "{row} starts no work");
        }
    }
}
