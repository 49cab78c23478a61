//! A number of steps, timed as a whole: what Criterion asks for.
//!
//! The same trials, gate and pinned workers as a round, but with a fixed number of steps in place of
//! a window. Every call builds a fresh trial.

use std::sync::Arc;
use std::time::Duration;

use cellbench_impls::CpuId as MachineCpu;
use cellbench_impls::platform::Native;
use cellbench_trials_native::Compiled;
use cellbench_workloads::{Params, Trial, Worker};

use super::gate::{Gate, OnFailure};
use super::round::{LEAD, RoundError};
use super::time::TimeSource;
use crate::session::plan::Spec;
use cellbench_host::Clock;
use cellbench_host::pin::pin;
use cellbench_host::threads::together;

/// Steps between two quiescent states.
const CHUNK: u64 = 1024;
/// Steps before the timed ones: caches, branch predictors and the free lists of the heap are warm.
const WARM_UP: u32 = 2048;

/// Returns the time from the common beginning until the last worker has taken `steps` steps.
///
/// # Errors
/// [`RoundError`] if a worker could not be placed or the subject has no such workload.
///
/// # Panics
/// If the workload needs callbacks that run, or an invariant is broken: the number would be wrong.
pub fn time_steps(spec: &Spec, clock: &Clock, steps: u64) -> Result<Duration, RoundError> {
    time_trial(spec, &*build(spec)?, clock, steps)
}

fn time_trial(
    spec: &Spec,
    trial: &dyn Trial<Native>,
    clock: &Clock,
    steps: u64,
) -> Result<Duration, RoundError> {
    let gates = [(); 2].map(|()| Gate::new(spec.cpus.len() as u32));
    let finished =
        together(spec.cpus.len(), |index| worker(spec, trial, &gates, clock, index, steps))
            .map_err(RoundError::Spawn)?;
    let mut total = cellbench_workloads::Tally::default();
    let mut longest_ns = 0.0_f64;
    for worker in finished {
        let (worker, took_ns) = worker?;
        total.add(&worker.tally);
        longest_ns = longest_ns.max(took_ns);
    }
    let cpu = trial.machine().cpu(MachineCpu(0));
    if let Err(violation) = trial.check(&cpu, &total) {
        panic!("{}: {violation}", spec.series);
    }
    Ok(Duration::from_secs_f64(longest_ns / 1e9))
}

fn build(spec: &Spec) -> Result<Arc<dyn Trial<Native>>, RoundError> {
    let params = Params::new(spec.cpus.len() as u32, 1);
    let built = Native::trial(spec.subject.id, spec.subject.under(), spec.workload, &params);
    built.ok_or_else(|| RoundError::NoTrial {
        cell: spec.subject.name.clone(),
        kind: spec.subject.kind.to_string(),
        workload: spec.workload,
    })
}

fn worker(
    spec: &Spec,
    trial: &dyn Trial<Native>,
    [entered, begin]: &[Gate; 2],
    clock: &Clock,
    index: usize,
    steps: u64,
) -> Result<(Worker, f64), RoundError> {
    let abandon = [entered, begin].map(OnFailure::abandon);
    pin(spec.cpus[index])?;
    let mut worker = Worker::new(index as u32, 1);
    let cpu = trial.machine().cpu(MachineCpu(index as u32));
    trial.enter(&cpu, &mut worker);
    // Who makes a cell ready is done with it before anybody steps. Abandoned, here or below: whoever
    // failed first says why; this time is not used.
    let _ = entered.pass(clock, 0);
    trial.batch(&cpu, &mut worker, WARM_UP);
    cpu.quiescent();
    let begin = begin.pass(clock, clock.ticks(LEAD)).unwrap_or_default();
    let mut left = steps;
    while left > 0 {
        let chunk = left.min(CHUNK);
        trial.batch(&cpu, &mut worker, chunk as u32);
        cpu.quiescent();
        left -= chunk;
    }
    let took_ns = TimeSource::elapsed_ns(clock, begin, TimeSource::now(clock)) as f64;
    abandon.into_iter().for_each(OnFailure::disarm);
    Ok((worker, took_ns))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use cellbench_impls::machine::MachineConfig;
    use cellbench_impls::{Cpu, Machine};
    use cellbench_record::Kind;
    use cellbench_workloads::{Tally, Violation};

    use super::*;
    use crate::session::plan::{Matrix, Plan, Selection};
    use cellbench_host::Topology;

    /// A trial whose first worker takes long to enter; nobody is to step meanwhile.
    struct Entering {
        machine: Machine<Native>,
        entered: AtomicU32,
        ready: AtomicBool,
        too_early: AtomicBool,
    }

    impl Trial<Native> for Entering {
        fn machine(&self) -> &Machine<Native> {
            &self.machine
        }

        fn enter(&self, _: &Cpu<'_, Native>, worker: &mut Worker) {
            self.entered.fetch_add(1, SeqCst);
            if worker.index == 0 {
                while self.entered.load(SeqCst) < 2 {
                    std::thread::yield_now();
                }
                // Time for the other one to step, if it does.
                for _ in 0..1_000 {
                    std::thread::yield_now();
                }
                self.ready.store(true, SeqCst);
            }
        }

        fn batch(&self, _: &Cpu<'_, Native>, _: &mut Worker, _: u32) {
            if !self.ready.load(SeqCst) {
                self.too_early.store(true, SeqCst);
            }
        }

        fn check(&self, _: &Cpu<'_, Native>, _: &Tally) -> Result<(), Violation> {
            Ok(())
        }
    }

    /// The one that makes a cell ready sets its first callback, which a design may refuse while
    /// another worker updates.
    #[test]
    fn nobody_steps_before_all_have_entered() {
        let selection = Selection {
            workloads: vec!["same-cell".to_owned()],
            cells: vec!["cmpxchg-state".to_owned()],
            ..Selection::of(Matrix::Headline)
        };
        let plan = Plan::new(&selection, &Topology::read().unwrap()).unwrap();
        let mut spec = plan.specs().next().unwrap().clone();
        // Two workers, on one CPU if there is no other.
        spec.cpus = vec![spec.cpus[0], spec.cpus[spec.cpus.len() - 1]];
        let trial = Entering {
            machine: Machine::new(MachineConfig::new(2)),
            entered: AtomicU32::new(0),
            ready: AtomicBool::new(false),
            too_early: AtomicBool::new(false),
        };
        time_trial(&spec, &trial, &Clock::new(), 1).unwrap();
        assert!(!trial.too_early.load(SeqCst));
    }

    #[test]
    fn more_steps_take_longer_and_break_nothing() {
        let clock = Clock::new();
        let selection = Selection {
            workloads: vec!["same-cell".to_owned(), "lock-0ns".to_owned()],
            cells: vec!["spin-queued".to_owned(), "std-mutex".to_owned()],
            ..Selection::of(Matrix::Headline)
        };
        let plan = Plan::new(&selection, &Topology::read().unwrap()).unwrap();
        for spec in plan.specs().filter(|spec| spec.series.kind != Kind::Wq) {
            let few = time_steps(spec, &clock, 10).unwrap();
            let many = time_steps(spec, &clock, 1_000_000).unwrap();
            assert!(many > few, "{}: {few:?} {many:?}", spec.series);
        }
    }
}
