//! One slice of a stress run: one cell under one workload for a while, then the check at rest.

mod stepped;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cellbench_impls::Context;
use cellbench_impls::machine::Charges;
use cellbench_impls::platform::NativeAudit;
use cellbench_record::{ContextOps, Series, Source};
use cellbench_trials_stress::audited;
use cellbench_workloads::registry::WORKLOADS;
use cellbench_workloads::{Params, Trial};
use serde::{Deserialize, Serialize};

use cellbench_host::Clock;
use cellbench_host::cpus::CpuId;
use cellbench_measure::backend::Measured;
use cellbench_measure::backend::cores::round::{Bench, Conditions, RoundError};
use cellbench_measure::session::plan::Spec;
use cellbench_measure::session::subject;

/// Time before operations are counted: none is measured, so only what the machinery needs.
const WARM_UP: Duration = Duration::from_millis(1);

/// Description of a slice, complete enough to repeat the slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Cell or lock.
    pub cell: String,
    /// Its kind.
    pub kind: String,
    /// Workload by name.
    pub workload: String,
    /// Host CPU of each worker; a CPU may stand here more than once.
    pub cpus: Vec<u32>,
    /// How long operations are made, in milliseconds.
    pub window_ms: u64,
    /// Seed of the workers' random choices.
    pub seed: u64,
    /// Interruptions of each worker and context a second; 0: as fast as they are handled; none:
    /// what the workload says.
    pub interrupt_rate_hz: Option<u32>,
    /// One worker, interrupted before an access of each operation, in place of signals.
    #[serde(default)]
    pub stepped: bool,
    /// A known bug to switch on, in a build that has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
}

/// Results of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Number of operations by context, operation and outcome.
    pub counts: ContextOps,
    /// Signals that found their worker between two batches and were let go.
    pub interruptions_missed: u64,
    /// Control blocks and commands that were handed out.
    pub objects_allocated: u64,
    /// Those that came back by the end.
    pub objects_freed: u64,
    /// Violations, a sentence each; empty if all is well.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Returns nothing known but what broke.
    #[must_use]
    pub fn broken(what: String) -> Self {
        Self { violations: vec![what], ..Self::default() }
    }
}

/// A slice that cannot take place: the order is wrong, or the host lacks something.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// A name that is not there, or does not go with the others.
    #[error("{cell} ({kind}) under {workload}: no such combination; see `cellbench list`")]
    NoTrial {
        /// Cell or lock.
        cell: String,
        /// Its kind.
        kind: String,
        /// Workload by name.
        workload: String,
    },
    /// No worker.
    #[error("a slice needs at least one CPU")]
    NoCpu,
    /// The bug is not known, or this build has none.
    #[error("no known bug `{name}`{}", known_bugs())]
    NoBug {
        /// Name that was given.
        name: String,
    },
    /// Workers could not be placed or interrupted.
    #[error(transparent)]
    Round(#[from] RoundError),
}

/// Returns what follows in a message about an unknown bug.
fn known_bugs() -> String {
    #[cfg(feature = "planted")]
    {
        let names: Vec<_> = cellbench_impls::planted::hunted().map(|bug| bug.name()).collect();
        format!("; known are {}", names.join(", "))
    }
    #[cfg(not(feature = "planted"))]
    "; build with --features planted to have any".to_owned()
}

/// Takes the outcome of a slice whose workers do not come back.
pub type Stuck = Box<dyn Fn(Outcome) + Send + Sync>;

/// Runs a slice. `stuck` gets the outcome if the workers do not come back, and must end the
/// process:
/// threads that spin for ever cannot be ended.
///
/// # Errors
/// [`SliceError`] if it did not take place. What breaks in it is part of the outcome.
pub fn run(order: &Order, stuck: Stuck) -> Result<Outcome, SliceError> {
    let spec = spec(order).ok_or_else(|| no_trial(order))?;
    if order.stepped {
        return stepped::run(order, &spec);
    }
    let trial = build(order, &spec)?;
    run_trial(order, &spec, trial, stuck)
}

fn no_trial(order: &Order) -> SliceError {
    let Order { cell, kind, workload, .. } = order.clone();
    SliceError::NoTrial { cell, kind, workload }
}

/// Returns the order as the runner wants it; none for names that are not there.
fn spec(order: &Order) -> Option<Spec> {
    let subject = subject::named(&order.cell)
        .into_iter()
        .find(|subject| subject.kind.to_string() == order.kind && subject.id == subject.name)?;
    let entry = WORKLOADS.iter().find(|workload| workload.id == order.workload)?;
    let threads = order.cpus.len() as u32;
    let series =
        Series::new(&subject.name, subject.kind.clone(), entry.id, threads, "", Source::Model);
    Some(Spec {
        series,
        subject,
        workload: entry.id,
        engine: entry.engine,
        needs: entry.needs,
        cpus: order.cpus.iter().copied().map(CpuId).collect(),
    })
}

/// Returns parameters of a trial for so many workers.
fn params(order: &Order, threads: u32) -> Result<Params, SliceError> {
    #[cfg(not(feature = "planted"))]
    if let Some(name) = &order.planted {
        return Err(SliceError::NoBug { name: name.clone() });
    }
    Ok(Params {
        #[cfg(feature = "planted")]
        bug: bug(order)?,
        ..Params::new(threads, order.seed)
    })
}

fn build(order: &Order, spec: &Spec) -> Result<Arc<dyn Trial<NativeAudit>>, SliceError> {
    let threads = order.cpus.len() as u32;
    if threads == 0 {
        return Err(SliceError::NoCpu);
    }
    let params = Params { extra_cpus: Bench::audit_extra_cpus(threads), ..params(order, threads)? };
    audited(&order.cell, spec.subject.under(), spec.workload, &params)
        .ok_or_else(|| no_trial(order))
}

#[cfg(feature = "planted")]
fn bug(order: &Order) -> Result<Option<cellbench_impls::planted::Bug>, SliceError> {
    let find = |name: &String| {
        cellbench_impls::planted::hunted()
            .find(|bug| bug.name() == name)
            .ok_or_else(|| SliceError::NoBug { name: name.clone() })
    };
    order.planted.as_ref().map(find).transpose()
}

fn run_trial(
    order: &Order,
    spec: &Spec,
    trial: Arc<dyn Trial<NativeAudit>>,
    stuck: Stuck,
) -> Result<Outcome, SliceError> {
    let on_stuck = Box::new(move |error: RoundError| stuck(Outcome::broken(error.to_string())));
    let bench = Bench::new(Clock::new(), &spec.cpus.iter().copied().collect(), on_stuck);
    let conditions = Conditions {
        warm_up: WARM_UP,
        window: Duration::from_millis(order.window_ms),
        sampled: false,
        turns_per_us: Params::new(1, 0).turns_per_us,
        charges: Charges::default(),
        interrupt_rate_hz: order.interrupt_rate_hz,
    };
    Ok(outcome(bench.audit(spec, &conditions, order.seed, trial)?))
}

fn outcome(measured: Measured) -> Outcome {
    let Measured { round, objects, .. } = measured;
    // Where nobody is interrupted, everything was done in task context.
    let counts = if round.context_ops.is_empty() {
        BTreeMap::from([(Context::Task.name().to_owned(), round.ops)])
    } else {
        round.context_ops
    };
    let mut violations = round.invariants.violations;
    // The workload's check says so as a rule; here it does not depend on the workload.
    if violations.is_empty() && objects.live() > 0 {
        violations.push(format!("leak: {} of {} objects", objects.live(), objects.allocated));
    }
    Outcome {
        counts,
        interruptions_missed: round.interruptions_missed.unwrap_or(0),
        objects_allocated: objects.allocated,
        objects_freed: objects.freed,
        violations,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use cellbench_impls::machine::MachineConfig;
    use cellbench_impls::{Cpu, Machine};
    use cellbench_workloads::{Op, Tally, Violation, Worker};

    use super::*;
    use cellbench_host::affinity;

    /// Fault that a trial shows once.
    #[derive(Clone, Copy, PartialEq)]
    enum Wrong {
        Nothing,
        Leaks,
        WritesAfterFree,
        FailsItsCheck,
    }

    struct Planted {
        machine: Machine<NativeAudit>,
        wrong: Wrong,
        done: AtomicBool,
    }

    impl Planted {
        fn once(&self, cpu: &Cpu<'_, NativeAudit>) {
            let heap = self.machine.heap();
            let object = heap.alloc(cpu, |_| 7_u64).expect("memory");
            if self.wrong == Wrong::Leaks {
                return;
            }
            // SAFETY: allocated above, nobody else knows it.
            unsafe { heap.free(cpu, object) };
            if self.wrong == Wrong::WritesAfterFree {
                // SAFETY: not sound in a program, which is what is tested: the slot belongs to the
                // heap, whose memory stays mapped, and nobody else runs.
                unsafe { object.write(7) };
                let again = heap.alloc(cpu, |_| 8_u64).expect("memory");
                // SAFETY: as above.
                unsafe { heap.free(cpu, again) };
            }
        }
    }

    impl Trial<NativeAudit> for Planted {
        fn machine(&self) -> &Machine<NativeAudit> {
            &self.machine
        }
        fn batch(&self, cpu: &Cpu<'_, NativeAudit>, worker: &mut Worker, steps: u32) {
            if !self.done.swap(true, Ordering::Relaxed) {
                self.once(cpu);
            }
            worker.tally.count_ok(Op::Empty, u64::from(steps));
        }
        fn check(&self, _: &Cpu<'_, NativeAudit>, _: &Tally) -> Result<(), Violation> {
            match self.wrong {
                Wrong::FailsItsCheck => Err(Violation("as planted".to_owned())),
                _ => Ok(()),
            }
        }
    }

    fn order() -> Order {
        let cpu = affinity::current().unwrap().first().unwrap();
        Order {
            cell: "cmd-queue".to_owned(),
            kind: "timer".to_owned(),
            workload: "stress".to_owned(),
            cpus: vec![cpu.0; 2],
            window_ms: 20,
            seed: 3,
            interrupt_rate_hz: None,
            stepped: false,
            planted: None,
        }
    }

    fn stuck(outcome: Outcome) {
        panic!("{outcome:?}");
    }

    fn with(wrong: Wrong) -> Outcome {
        let order =
            Order { workload: "same-cell".to_owned(), cpus: order().cpus[..1].to_vec(), ..order() };
        let config = MachineConfig::new(1 + Bench::audit_extra_cpus(1));
        let machine = Machine::new(config);
        let trial = Arc::new(Planted { machine, wrong, done: AtomicBool::new(false) });
        run_trial(&order, &spec(&order).unwrap(), trial, Box::new(stuck)).unwrap()
    }

    #[test]
    fn a_sound_trial_passes_and_is_counted() {
        let outcome = with(Wrong::Nothing);
        assert_eq!(outcome.violations, [""; 0]);
        assert_eq!((outcome.objects_allocated, outcome.objects_freed), (1, 1));
        assert!(outcome.counts["task"]["empty"]["ok"] > 0);
    }

    #[test]
    fn what_is_wrong_is_found() {
        let found = |wrong| with(wrong).violations.join("; ");
        assert_eq!(found(Wrong::Leaks), "leak: 1 of 1 objects");
        assert!(found(Wrong::WritesAfterFree).contains("write after free"));
        assert_eq!(found(Wrong::FailsItsCheck), "as planted");
    }

    #[test]
    fn steps_are_interrupted_and_counted() {
        for cell in ["spin-queued", "rqspin", "cmd-queue"] {
            let order = Order {
                cell: cell.to_owned(),
                workload: "nmi-same-cell".to_owned(),
                stepped: true,
                ..order()
            };
            let outcome = run(&order, Box::new(stuck)).unwrap();
            assert_eq!(outcome.violations, [""; 0], "{cell}");
            let nmi = &outcome.counts["nmi"]["set_callback"];
            let expected = if cell == "spin-queued" { "EOPNOTSUPP" } else { "ok" };
            assert!(nmi[expected] > 0, "{cell}: {nmi:?}");
            assert_eq!(outcome.objects_allocated, outcome.objects_freed);
        }
        let never = Order { stepped: true, ..order() };
        let refused = run(&never, Box::new(stuck)).unwrap_err().to_string();
        assert!(refused.contains("stress"), "callbacks do not run there: {refused}");
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused() {
        let refused = |order: Order| run(&order, Box::new(stuck)).unwrap_err().to_string();
        assert!(refused(Order { cell: "nope".to_owned(), ..order() }).contains("nope (timer)"));
        assert!(refused(Order { workload: "lock-50ns".to_owned(), ..order() }).contains("lock-50"));
        assert!(refused(Order { cpus: Vec::new(), ..order() }).contains("CPU"));
        assert!(refused(Order { planted: Some("Nope".to_owned()), ..order() }).contains("`Nope`"));
    }

    #[test]
    fn an_order_survives_the_way_to_another_process() {
        let text = serde_json::to_string(&order()).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order());
    }
}
