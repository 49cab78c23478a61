//! A number of steps, timed as a whole: what Criterion asks for.
//!
//! The same trials, gate and pinned workers as a round, but with a fixed number of steps in place of
//! a window. Every call builds a fresh trial.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cellbench_impls::CpuId as MachineCpu;
use cellbench_impls::platform::Native;
use cellbench_workloads::registry::{peer_trial, trial};
use cellbench_workloads::{Params, Trial, Worker};

use super::gate::{Gate, OnFailure};
use super::round::{LEAD, RoundError, Spec};
use super::time::TimeSource;
use crate::host::Clock;
use crate::host::pin::pin;

/// Steps between two quiescent states.
const CHUNK: u64 = 1024;
/// Steps before the timed ones: caches, branch predictors and the free lists of the heap are warm.
const WARM_UP: u32 = 2048;

/// Time from the common beginning until the last worker has taken `steps` steps.
///
/// # Errors
/// [`RoundError`] if a worker could not be placed or the subject has no such workload.
///
/// # Panics
/// If the workload needs callbacks that run, or an invariant is broken: the number would be wrong.
pub fn time_steps(spec: &Spec, clock: &Clock, steps: u64) -> Result<Duration, RoundError> {
    let trial = build(spec)?;
    let gate = Gate::new(spec.cpus.len() as u32);
    let finished: Vec<Result<(Worker, f64), RoundError>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..spec.cpus.len())
            .map(|index| {
                let (trial, gate) = (&*trial, &gate);
                scope.spawn(move || worker(spec, trial, gate, clock, index, steps))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect()
    });
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
    let kind = spec.subject.kind.to_string();
    let built = if spec.subject.is_peer() {
        peer_trial::<Native>(spec.subject.id, spec.workload, &params)
    } else {
        trial::<Native>(spec.subject.id, &kind, spec.workload, &params)
    };
    built.ok_or_else(|| RoundError::NoTrial {
        cell: spec.subject.name.clone(),
        kind,
        workload: spec.workload,
    })
}

fn worker(
    spec: &Spec,
    trial: &dyn Trial<Native>,
    gate: &Gate,
    clock: &Clock,
    index: usize,
    steps: u64,
) -> Result<(Worker, f64), RoundError> {
    let abandon = OnFailure::abandon(gate);
    pin(spec.cpus[index])?;
    let mut worker = Worker::new(index as u32, 1);
    let cpu = trial.machine().cpu(MachineCpu(index as u32));
    trial.enter(&cpu, &mut worker);
    trial.batch(&cpu, &mut worker, WARM_UP);
    cpu.quiescent();
    // Abandoned: whoever failed first says why; this time is not used.
    let begin = gate.pass(clock, clock.ticks(LEAD)).unwrap_or_default();
    let mut left = steps;
    while left > 0 {
        let chunk = left.min(CHUNK);
        trial.batch(&cpu, &mut worker, chunk as u32);
        cpu.quiescent();
        left -= chunk;
    }
    let took_ns = TimeSource::elapsed_ns(clock, begin, TimeSource::now(clock)) as f64;
    abandon.disarm();
    Ok((worker, took_ns))
}

#[cfg(test)]
mod tests {
    use cellbench_record::Kind;

    use super::*;
    use crate::host::Topology;
    use crate::runner::plan::{Matrix, Plan, Selection};

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
