//! A slice whose interruptions need no signals: one worker on stepped memory, each of whose
//! operations is interrupted before one of its accesses to a word, a random one. A signal costs
//! microseconds, in a virtual machine tens of them; this a fraction of one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cellbench_impls::{Context, CpuId};
use cellbench_trials_stress::stepped;
use cellbench_workloads::stepping::Pair;
use cellbench_workloads::tally::Tally;
use cellbench_workloads::{EngineNeed, Worker};

use super::{Order, Outcome, SliceError, Spec, no_trial, params};

/// Steps of a trial: a rest point after so many.
const STEPS: u32 = 20_000;

/// Runs trials until the window is over or one is broken.
pub(super) fn run(order: &Order, spec: &Spec) -> Result<Outcome, SliceError> {
    let contexts = spec.needs.interrupts;
    if contexts.is_empty() || spec.engine != EngineNeed::Count {
        return Err(no_trial(order));
    }
    let params = params(order, 1)?;
    let began = Instant::now();
    let window = Duration::from_millis(order.window_ms);
    let mut dice = Worker::new(0, order.seed);
    let mut outcome = Outcome::default();
    while outcome.violations.is_empty() && began.elapsed() < window {
        let trial = stepped(&order.cell, spec.subject.under(), spec.workload, &params)
            .ok_or_else(|| no_trial(order))?;
        let mut pair = Pair::new(dice.random());
        let mut handled: Vec<Tally> = vec![Tally::default(); contexts.len()];
        {
            let cpu = trial.machine().cpu(CpuId(0));
            trial.enter(&cpu, &mut pair.worker);
            // How many accesses the longest operation was seen to make, and one more.
            let mut places = 1;
            for step in 0..STEPS as usize {
                let place = dice.below(places);
                let context = step % contexts.len();
                std::mem::swap(&mut pair.handler.tally, &mut handled[context]);
                if pair.step(&*trial, &cpu, place, contexts[context]) && place + 1 == places {
                    places += 1;
                }
                std::mem::swap(&mut pair.handler.tally, &mut handled[context]);
            }
        }
        let mut total = pair.worker.tally.clone();
        count(&mut outcome, Context::Task, &total);
        for (context, tally) in contexts.iter().zip(&handled) {
            count(&mut outcome, *context, tally);
            total.add(tally);
        }
        let cpu = trial.machine().cpu(CpuId(0));
        outcome.violations.extend(trial.check(&cpu, &total).err().map(|violation| violation.0));
        let objects = trial.machine().heap().stats();
        outcome.objects_allocated += objects.allocated;
        outcome.objects_freed += objects.freed;
    }
    Ok(outcome)
}

fn count(outcome: &mut Outcome, context: Context, tally: &Tally) {
    let ops = outcome.counts.entry(context.name().to_owned()).or_default();
    for (op, result, count) in tally.iter() {
        let outcomes: &mut BTreeMap<_, _> = ops.entry(op.id().to_owned()).or_default();
        *outcomes.entry(result.to_owned()).or_default() += count;
    }
}
