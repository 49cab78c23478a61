//! Rounds on the cores of this host.
//!
//! | step | where |
//! |---|---|
//! | What do the instruments cost here? | [`calibrate`] |
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
use cellbench_record::{Finding, Host, Run};
use cellbench_workloads::EngineNeed;

use self::calibrate::{Instruments, calibrate};
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
/// Time for preparations where the session has no budget.
const DEFAULT_BUDGET: Duration = Duration::from_secs(60);

/// Settings of the model on real cores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Cost added to each interrupt-off section.
    pub irq_save_cost_ns: f64,
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

    /// Changes the cost that is added to each interrupt-off section from now on.
    pub fn set_irq_save_cost_ns(&mut self, cost_ns: f64) {
        self.options.irq_save_cost_ns = cost_ns;
    }
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
        self.findings = doctor::examine(self.topology, &self.cpus.iter().copied().collect(), watch);
        let effort = (short / 10).clamp(Duration::from_millis(3), Duration::from_millis(20));
        let instruments = calibrate(&self.bench, self.topology, &self.cpus, effort);
        self.instruments = Some(instruments.map_err(BackendError::failed)?);
        Ok(())
    }

    fn describe(&self, run: &mut Run) {
        run.host = self.host.clone();
        run.findings.clone_from(&self.findings);
        run.settings.irq_save_cost_ns = self.options.irq_save_cost_ns;
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
        let turns_per_us =
            self.instruments.as_ref().expect("a session prepares first").turns_per_us;
        let irq_save_turns = self.options.irq_save_cost_ns * f64::from(turns_per_us) / 1000.0;
        let conditions = Conditions {
            warm_up: warm_up(window),
            window,
            sampled: true,
            turns_per_us,
            irq_save_turns: irq_save_turns.round() as u32,
            interrupt_rate_hz: self.options.interrupt_rate_hz,
        };
        let measure = |spec: &&Spec| self.bench.measure(spec, &conditions, seed);
        batch.iter().map(measure).collect::<Result<_, _>>().map_err(BackendError::failed)
    }
}
