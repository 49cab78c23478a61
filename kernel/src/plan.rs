//! What to measure, and what came of each series in each round.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cellbench_record::{Invariants, Round, Series, Source, ThreadCount};

use crate::counts::Counts;
use crate::error::Error;
use crate::histogram::Histogram;
use crate::rows::{Context, Layout, Row};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows. Those that this kernel lacks are reported as skipped.
    pub rows: Vec<Row>,
    /// Layouts; each row takes those it has.
    pub layouts: Vec<Layout>,
    /// Thread counts. A row that needs more threads than given is not measured with so few.
    pub threads: Vec<u32>,
    /// CPUs by the host's numbers, in the order in which threads take them; as many as the largest
    /// thread count.
    pub cpus: Vec<u32>,
    /// Name of that order in records: `compact`, `spread`, `smt`.
    pub placement: String,
    /// Rounds; in each, every series runs once, in an order of its own.
    pub rounds: u32,
    /// Length of a series' window in a round.
    pub window: Duration,
    /// Whether to time a sample of the attempts.
    pub latency: bool,
    /// Seed of the order and of the keys.
    pub seed: u64,
    /// Ends the measurement after the series under way, once true.
    pub stop: Option<Arc<AtomicBool>>,
    /// The machine is emulated by this; its rounds then cannot become records.
    pub emulator: Option<String>,
}

/// Something that happened in a measurement.
#[derive(Debug)]
pub enum Event {
    /// A row cannot be measured here. Said once.
    Skipped {
        /// Name of the row.
        row: String,
        /// Why.
        reason: String,
    },
    /// A series was measured once.
    Round(Box<RoundResult>),
}

/// A row in a layout with a number of threads, measured once.
#[derive(Clone, Debug)]
pub struct RoundResult {
    /// The row.
    pub row: Row,
    /// Layout of its cells.
    pub layout: Layout,
    /// CPUs, one per thread.
    pub cpus: Vec<u32>,
    /// Name of their order.
    pub placement: String,
    /// Number of the round, from 0.
    pub round: u32,
    /// Position in the order of the round, from 0.
    pub position: u32,
    /// Start, since the measurement started.
    pub start_s: f64,
    /// From the common start to the end of the last thread.
    pub duration_ns: u64,
    /// What each thread counted.
    pub per_thread: Vec<Counts>,
    /// Latency by operation, if it was sampled.
    pub latency: BTreeMap<&'static str, Histogram>,
    /// Every n-th time round was timed; 0 for none.
    pub sample_every: u32,
    /// Cost of timing one attempt, included in the latencies.
    pub timing_cost_ns: f64,
    /// What was checked afterwards.
    pub invariants: Invariants,
    /// Involuntary context switches of the threads; none if the kernel does not tell.
    pub involuntary_switches: Option<u64>,
    /// Voluntary context switches of the threads.
    pub voluntary_switches: Option<u64>,
    /// Time the hypervisor took from the CPUs used, in clock ticks of 10 ms.
    pub steal_ns: Option<u64>,
    /// The emulator that ran it.
    pub emulator: Option<String>,
}

impl RoundResult {
    /// What all threads counted together.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in &self.per_thread {
            total.merge(counts);
        }
        total
    }

    /// Key of the series in records.
    #[must_use]
    pub fn series(&self) -> Series {
        let threads = self.cpus.len() as u32;
        Series::new(
            self.row.cell.clone(),
            self.row.kind(),
            self.row.workload(self.layout, threads),
            threads,
            self.placement.clone(),
            Source::Kernel,
        )
    }

    /// As a line of a record.
    ///
    /// # Errors
    /// [`Error::Emulated`] if the machine is emulated: functional outcomes are no measurement.
    pub fn to_round(&self) -> Result<Round, Error> {
        if let Some(emulator) = &self.emulator {
            return Err(Error::Emulated { emulator: emulator.clone() });
        }
        let mut round = Round::new(self.series(), self.round, self.duration_ns as f64 / 1e9);
        round.position = self.position;
        round.start_s = self.start_s;
        round.cpus.clone_from(&self.cpus);
        let mut in_context: BTreeMap<String, u64> = BTreeMap::new();
        for (op, outcomes) in &self.total().ops {
            for (outcome, count) in outcomes {
                round.count(op, outcome, *count);
                *in_context.entry(outcome.clone()).or_default() += count;
            }
        }
        if self.row.context != Context::Task {
            let name = self.row.context.name().to_owned();
            round.contexts.insert(name, in_context.into_iter().collect());
        }
        round.per_thread = self
            .per_thread
            .iter()
            .zip(&self.cpus)
            .map(|(counts, cpu)| ThreadCount {
                cpu: *cpu,
                attempts: counts.attempts(),
                ok: counts.ok(),
            })
            .collect();
        for (op, histogram) in &self.latency {
            round.latency.insert((*op).to_owned(), histogram.to_record());
        }
        round.invariants = self.invariants.clone();
        round.context_switches_involuntary = self.involuntary_switches;
        round.context_switches_voluntary = self.voluntary_switches;
        round.steal_ns = self.steal_ns;
        if let Some(steal_ns) = self.steal_ns.filter(|ns| *ns > 0) {
            round.disturbed.push(format!("{} ms stolen by the hypervisor", steal_ns / 1_000_000));
        }
        round.operation = Some(self.row.name());
        round.layout = Some(self.layout.name().to_owned());
        round.latency_sample_every = Some(self.sample_every);
        round.timing_cost_ns = Some(self.timing_cost_ns);
        round.elapsed_in_kernel_ns = Some(self.total().elapsed_ns);
        Ok(round)
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
            row: rows(&info).into_iter().find(|r| r.name() == row).unwrap(),
            layout: Layout::Same,
            cpus: vec![2, 5],
            placement: "compact".to_owned(),
            round: 3,
            position: 1,
            start_s: 0.5,
            duration_ns: 2_000_000_000,
            per_thread: vec![counts.clone(), counts],
            latency: BTreeMap::new(),
            sample_every: 64,
            timing_cost_ns: 30.0,
            invariants: Invariants::default(),
            involuntary_switches: Some(1),
            voluntary_switches: None,
            steal_ns: Some(0),
            emulator: None,
        }
    }

    #[test]
    fn a_result_becomes_a_record() {
        let round = result("timer-set_callback").to_round().unwrap();
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
        let round = result("timer-set_callback@hardirq").to_round().unwrap();
        assert_eq!(round.contexts["hardirq"]["ok"], 8);
    }

    #[test]
    fn stolen_time_disturbs() {
        let mut result = result("timer-set_callback");
        result.steal_ns = Some(10_000_000);
        let round = result.to_round().unwrap();
        assert_eq!(round.disturbed, ["10 ms stolen by the hypervisor"]);
        assert!(!round.is_usable());
    }

    #[test]
    fn an_emulated_round_is_no_record() {
        let mut result = result("timer-set_callback");
        result.emulator = Some("QEMU TCG".to_owned());
        let error = result.to_round().unwrap_err();
        assert!(matches!(error, Error::Emulated { .. }));
        assert!(error.to_string().contains("QEMU TCG"));
    }
}
