//! Rounds on the cores of this host.
//!
//! | step | where |
//! |---|---|
//! | What do the instruments cost here? | [`mod@calibrate`] |
//! | One cell under one workload, once | [`round`], with the loops that run in its workers |
//! | A number of steps, for Criterion | [`steps`] |

pub mod calibrate;
mod gate;
pub(crate) mod live;
pub(crate) mod loops;
pub mod round;
mod signals;
pub mod steps;
mod time;

use std::time::Duration;

use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::{Clock, Roots, Topology, describe, doctor};
use cellbench_impls::machine;
use cellbench_impls::registry::LOCKS;
use cellbench_record::{ChargeCheck, Charges, Finding, Host, Run, Severity};
use cellbench_workloads::EngineNeed;

use self::calibrate::{Instruments, calibrate, charge_arrived};
use self::round::{Bench, Conditions, OnStuck};
use super::{Backend, BackendError, Measured, Pace};
use crate::session::budget::warm_up;
use crate::session::plan::Spec;

/// Time of a round beside its window and warm-up: threads, checks, the record.
const OVERHEAD: Duration = Duration::from_micros(1500);
/// The part of it that each thread adds.
const OVERHEAD_PER_THREAD: Duration = Duration::from_micros(150);
/// Time that a workload which suspends a worker takes longer: some stalls.
const STALLED: Duration = Duration::from_secs(4);
/// Locks around which the charge for masking interrupts is checked: those that a cell can have.
const CHECKED_LOCKS: &[&str] = &["spin-tas", "spin-queued", "rqspin"];
/// Time for preparations where the session has no budget.
const DEFAULT_BUDGET: Duration = Duration::from_secs(60);

/// Settings of the model on real cores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Cost added to each interrupt-off section.
    pub irq_save_cost_ns: f64,
    /// Costs added for the rest of what user space cannot do.
    pub charges: Charges,
    /// Interruptions of each worker and context a second; none: the rate of each workload.
    pub interrupt_rate_hz: Option<u32>,
}

/// The cores of this host as a source of rounds.
pub struct Cores<'a> {
    bench: Bench,
    topology: &'a Topology,
    cpus: Vec<CpuId>,
    options: Options,
    host: Host,
    findings: Vec<Finding>,
    instruments: Option<Instruments>,
}

impl<'a> Cores<'a> {
    /// Prepares rounds on `cpus`. `on_stuck` is called when workers do not come back.
    #[must_use]
    pub fn new(
        topology: &'a Topology,
        cpus: Vec<CpuId>,
        options: Options,
        on_stuck: OnStuck,
    ) -> Self {
        let used: CpuSet = cpus.iter().copied().collect();
        Self {
            bench: Bench::new(Clock::new(), &used, on_stuck),
            topology,
            host: describe::describe(&Roots::live(), topology, &used),
            cpus,
            options,
            findings: Vec::new(),
            instruments: None,
        }
    }

    /// Returns how to measure in windows of this length.
    fn conditions(&self, instruments: &Instruments, window: Duration) -> Conditions {
        let turns = |ns: f64| instruments.charge_turns(ns);
        let Charges { arm_timer_ns, queue_work_ns, irq_work_ns } = self.options.charges;
        Conditions {
            warm_up: warm_up(window),
            window,
            sampled: true,
            turns_per_us: instruments.turns_per_us,
            charges: machine::Charges {
                irq_save: turns(self.options.irq_save_cost_ns),
                arm_timer: turns(arm_timer_ns),
                queue_work: turns(queue_work_ns),
                irq_work: turns(irq_work_ns),
            },
            interrupt_rate_hz: self.options.interrupt_rate_hz,
        }
    }

    /// Changes the cost that is added to each interrupt-off section from now on.
    pub fn set_irq_save_cost_ns(&mut self, cost_ns: f64) {
        self.options.irq_save_cost_ns = cost_ns;
    }
}

/// Returns a finding if a charge did not arrive within a tenth.
fn finding(check: &ChargeCheck) -> Option<Finding> {
    let share = check.arrived_ns / check.charged_ns;
    ((share - 1.0).abs() > 0.1).then(|| Finding {
        id: format!("charge-{}", check.lock),
        severity: Severity::Warning,
        text: format!(
            "{}: of {:.1} ns charged for masking interrupts {:.1} ns arrived",
            check.lock, check.charged_ns, check.arrived_ns
        ),
        effect:
            "rows of cells under this lock are too fast or too slow by the difference, since the \
                 processor overlaps the charge with the rest of a pair"
                .to_owned(),
        fix: String::new(),
    })
}

/// Estimates what measuring `spec` takes.
#[must_use]
pub fn cost(spec: &Spec, window: Duration) -> Duration {
    let window = if spec.needs.stalls { window + STALLED } else { window };
    let threads = spec.series.threads * if spec.engine == EngineNeed::Live { 2 } else { 1 };
    window + warm_up(window) + OVERHEAD + OVERHEAD_PER_THREAD * threads
}

impl Backend for Cores<'_> {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        Pace::Interleaved
    }

    fn prepare(&mut self, time_budget: Option<Duration>) -> Result<(), BackendError> {
        let short = time_budget.unwrap_or(DEFAULT_BUDGET) / 100;
        let watch = (short * 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let locks: &[&str] = if self.options.irq_save_cost_ns > 0.0 { CHECKED_LOCKS } else { &[] };
        self.findings = doctor::examine(self.topology, &self.cpus.iter().copied().collect(), watch);
        let effort = (short / 10).clamp(Duration::from_millis(3), Duration::from_millis(20));
        let instruments = calibrate(&self.bench, self.topology, &self.cpus, effort);
        let mut instruments = instruments.map_err(BackendError::failed)?;
        let conditions = self.conditions(&instruments, effort);
        // A build may hold some of the registry alone.
        let is_built = |lock: &&&str| LOCKS.iter().any(|known| known.id == **lock);
        for lock in locks.iter().filter(is_built) {
            let arrived = charge_arrived(&self.bench, self.topology, lock, &conditions)
                .map_err(BackendError::failed)?;
            let check = ChargeCheck {
                lock: (*lock).to_owned(),
                charged_ns: self.options.irq_save_cost_ns,
                arrived_ns: arrived,
            };
            self.findings.extend(finding(&check));
            instruments.calibration.charge_checks.push(check);
        }
        self.instruments = Some(instruments);
        Ok(())
    }

    fn describe(&self, run: &mut Run) {
        run.host = self.host.clone();
        run.findings.clone_from(&self.findings);
        run.settings.irq_save_cost_ns = self.options.irq_save_cost_ns;
        run.settings.charges = Some(self.options.charges);
        if let Some(instruments) = &self.instruments {
            run.calibration = instruments.calibration.clone();
        }
    }

    fn cost(&self, spec: &Spec, window: Duration) -> Duration {
        cost(spec, window)
    }

    fn measure(
        &mut self,
        batch: &[&Spec],
        window: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        let instruments = self.instruments.as_ref().expect("a session prepares first");
        let conditions = self.conditions(instruments, window);
        let measure = |spec: &&Spec| self.bench.measure(spec, &conditions, seed);
        batch.iter().map(measure).collect::<Result<_, _>>().map_err(BackendError::failed)
    }
}
