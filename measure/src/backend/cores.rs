//! Rounds on the cores of this host.
//!
//! | step | where |
//! |---|---|
//! | What do the instruments cost here? | [`mod@calibrate`] |
//! | One cell under one workload, once | [`round`], with the loops that run in its workers |
//! | A number of steps, for Criterion | [`steps`] |
//! | What does one instruction take, or a transfer? | [`microbench`] |

pub mod calibrate;
mod gate;
pub mod live;
pub mod loops;
pub mod microbench;
pub mod round;
mod signals;
pub mod steps;
mod time;

use std::cell::OnceCell;
use std::time::Duration;

use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::virtualisation::Virtualisation;
use cellbench_host::{Clock, Roots, Topology, describe, doctor};
use cellbench_impls::machine;
use cellbench_impls::registry::LOCKS;
use cellbench_record::{Calibration, ChargeCheck, Charges, Finding, Host, Run, Severity};
use cellbench_workloads::EngineNeed;

use self::calibrate::{Instruments, Lengths, calibrate, correct_charge};
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
/// The charge for the interrupt that runs `irq_work`, unless another one is given: draining an empty ring with
/// one queued, less the same without, in the kernel run that is kept in `results/kernel`, in nanoseconds.
pub const IRQ_WORK_NS: f64 = 2800.0;
/// Percentage of the budget that measuring the distances between CPUs may take.
const PAIRS_PERCENT: u32 = 10;
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
    /// Described when first asked for: it reads the kernel's symbols.
    host: OnceCell<Host>,
    findings: Vec<Finding>,
    calibration: Calibration,
    lengths: Option<Lengths>,
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
            bench: Bench::new(Clock::new(), &used, on_stuck).on_nodes_of(topology),
            topology,
            host: OnceCell::new(),
            cpus,
            options,
            findings: Vec::new(),
            calibration: Calibration::default(),
            lengths: None,
        }
    }

    /// Returns how to measure the design or lock `id` in windows of this length.
    fn conditions(&self, lengths: &Lengths, window: Duration, id: &str) -> Conditions {
        let turns = |ns: f64| lengths.charge_turns(ns);
        let Charges { arm_timer_ns, queue_work_ns, irq_work_ns } = self.options.charges;
        Conditions {
            warm_up: warm_up(window),
            window,
            sampled: true,
            turns_per_us: lengths.turns_per_us,
            charges: machine::Charges {
                irq_save: lengths.irq_save_turns(self.options.irq_save_cost_ns, id),
                arm_timer: turns(arm_timer_ns),
                queue_work: turns(queue_work_ns),
                irq_work: turns(irq_work_ns),
            },
            interrupt_rate_hz: self.options.interrupt_rate_hz,
        }
    }

    /// Measures how long computing takes, and uses it from now on, with what preparing found of charges around locks.
    ///
    /// # Errors
    /// [`BackendError`] if the CPU cannot be used.
    pub fn measure_lengths(&mut self) -> Result<Lengths, BackendError> {
        let lengths = calibrate::lengths(self.bench.clock(), self.cpus[0]);
        let mut lengths = lengths.map_err(BackendError::failed)?;
        if let Some(known) = self.lengths.take() {
            lengths.fixed_around_ns = known.fixed_around_ns;
        }
        Ok(self.lengths.insert(lengths).clone())
    }

    /// Takes over what another calibration on this host found, in place of one of its own.
    pub fn set_lengths(&mut self, lengths: Lengths) {
        self.lengths = Some(lengths);
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
        effect: "rows of cells under this lock are too fast or too slow by the difference"
            .to_owned(),
        fix: String::new(),
    })
}

/// Returns a finding if the charge for the interrupt of `irq_work` is that of a guest, and this host is none.
fn guest_charge(irq_work_ns: f64, host: &Virtualisation) -> Option<Finding> {
    let is_guest = matches!(host, Virtualisation::Guest(_));
    (irq_work_ns == IRQ_WORK_NS && !is_guest).then(|| Finding {
        id: "charge-irq_work".to_owned(),
        severity: Severity::Warning,
        text: format!(
            "the interrupt of irq_work is charged {irq_work_ns:.0} ns, as measured in a virtual machine"
        ),
        effect: "designs that defer through irq_work look slower than they are here".to_owned(),
        fix: "measure it with `cellbench kernel --workloads irq_work-queue,irq_work-without`, and give the \
              difference as --irq-work-ns"
            .to_owned(),
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
        let host = Virtualisation::detect(&Roots::live());
        self.findings.extend(guest_charge(self.options.charges.irq_work_ns, &host));
        let effort = (short / 10).clamp(Duration::from_millis(3), Duration::from_millis(20));
        let pairs_time = short * PAIRS_PERCENT;
        let instruments = calibrate(&self.bench, self.topology, &self.cpus, effort, pairs_time);
        let Instruments { mut calibration, mut lengths } =
            instruments.map_err(BackendError::failed)?;
        let charged_ns = self.options.irq_save_cost_ns;
        // A build may hold some of the registry alone.
        let is_built = |lock: &&&str| LOCKS.iter().any(|known| known.id == **lock);
        for lock in locks.iter().filter(is_built) {
            let conditions = self.conditions(&lengths, effort, lock);
            let (bench, topology) = (&self.bench, self.topology);
            let arrived_ns =
                correct_charge(bench, topology, lock, charged_ns, &mut lengths, &conditions)
                    .map_err(BackendError::failed)?;
            let check = ChargeCheck { lock: (*lock).to_owned(), charged_ns, arrived_ns };
            self.findings.extend(finding(&check));
            calibration.charge_checks.push(check);
        }
        self.calibration = calibration;
        self.lengths = Some(lengths);
        Ok(())
    }

    fn describe(&self, run: &mut Run) {
        let used = || self.cpus.iter().copied().collect();
        let host = || describe::describe(&Roots::live(), self.topology, &used());
        run.host = self.host.get_or_init(host).clone();
        run.findings.clone_from(&self.findings);
        run.settings.irq_save_cost_ns = self.options.irq_save_cost_ns;
        run.settings.charges = Some(self.options.charges);
        if self.lengths.is_some() {
            run.calibration = self.calibration.clone();
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
        let lengths = self.lengths.as_ref().expect("a session prepares first");
        let measure = |spec: &&Spec| {
            self.bench.measure(spec, &self.conditions(lengths, window, spec.subject.id), seed)
        };
        batch.iter().map(measure).collect::<Result<_, _>>().map_err(BackendError::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_of_a_guest_is_named_where_the_host_is_none() {
        let guest = Virtualisation::Guest("KVM".to_owned());
        assert_eq!(guest_charge(IRQ_WORK_NS, &guest), None);
        for host in [Virtualisation::None, Virtualisation::Container, Virtualisation::Unknown] {
            let finding = guest_charge(IRQ_WORK_NS, &host).expect("not this host's figure");
            assert!(finding.text.contains("2800 ns"), "{finding:?}");
            assert_eq!(guest_charge(300.0, &host), None, "given");
            assert_eq!(guest_charge(0.0, &host), None, "switched off");
        }
    }

    #[test]
    fn a_charge_that_misses_by_more_than_a_tenth_is_a_finding() {
        let check =
            |arrived_ns| ChargeCheck { lock: "rqspin".to_owned(), charged_ns: 10.0, arrived_ns };
        assert_eq!((finding(&check(9.1)), finding(&check(10.9))), (None, None));
        let short = finding(&check(8.9)).expect("a tenth and more is missing");
        assert_eq!(short.text, "rqspin: of 10.0 ns charged for masking interrupts 8.9 ns arrived");
        assert!(finding(&check(11.1)).is_some());
    }
}
