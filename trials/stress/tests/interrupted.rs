//! Re-entrance, deterministically: an NMI before every access to a word that an operation makes,
//! for every design; and what each answers there.

use std::sync::Arc;

use cellbench_impls::cell::Steps;
use cellbench_impls::registry::{CELLS, CellEntry};
use cellbench_impls::{Context, CpuId, Errno};
use cellbench_trials_stress::stepped;
use cellbench_workloads::stepping::{Pair, Stepped};
use cellbench_workloads::{Op, Params, Subject, Tally, Trial};

/// Steps of a workload at each place: more than its operations take turns.
const STEPS_AT_EACH_PLACE: u64 = 4;
/// Random steps of the mix.
const MIXED_STEPS: u64 = 4000;
/// Places of the mix: beyond the length of its operations.
const MIXED_PLACES: u64 = 40;

/// Checks the trial; returns what the handler did.
fn finish(pair: Pair, name: &str, trial: &Arc<dyn Trial<Stepped>>) -> Tally {
    let mut total = pair.worker.tally;
    total.add(&pair.handler.tally);
    let cpu = trial.machine().cpu(CpuId(0));
    trial.check(&cpu, &total).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    pair.handler.tally
}

fn build(design: &CellEntry, workload: &str) -> (String, Arc<dyn Trial<Stepped>>) {
    let name = format!("{} {} {workload}", design.id, design.kind);
    let subject = Subject::Cell(design.kind);
    let built = stepped(design.id, subject, workload, &Params::new(1, 1));
    let built = built.expect("listed");
    (name, built)
}

/// Returns the outcomes of NMIs that struck the update of their own cell at every place.
fn nmi_everywhere(design: &CellEntry) -> Tally {
    let (name, trial) = build(design, "nmi-same-cell");
    let mut pair = Pair::new(1);
    {
        let cpu = trial.machine().cpu(CpuId(0));
        trial.enter(&cpu, &mut pair.worker);
        // Every operation of the handler meets every operation of the worker.
        for shift in 0..2 {
            for place in 0.. {
                let mut fired = false;
                for _ in 0..STEPS_AT_EACH_PLACE {
                    pair.handler.step = pair.worker.step + shift;
                    fired |= pair.step(&*trial, &cpu, place, Context::Nmi);
                }
                if !fired {
                    break;
                }
            }
        }
    }
    let tally = finish(pair, &name, &trial);
    assert!(tally.attempts() > 20, "{name}: {} interruptions", tally.attempts());
    tally
}

#[test]
fn nmi_on_the_same_cell_at_every_access() {
    for design in CELLS {
        let nmi = nmi_everywhere(design);
        let name = format!("{} {}", design.id, design.kind);
        let one_step = design.kind.steps() == Steps::One;
        let op = if one_step { Op::Schedule } else { Op::SetCallback };
        let promises = design.promises;
        let refused = nmi.failed(op, Errno::EOPNOTSUPP);
        match () {
            () if !promises.update_in_nmi => {
                assert_eq!(nmi.successes(), 0, "{name}");
                assert_eq!(nmi.attempts() - refused, nmi.failed(Op::Start, Errno::EOPNOTSUPP));
            }
            () if !promises.lockless => {
                assert!(nmi.failed(op, Errno::EDEADLK) > 0, "{name}: the lock was never held");
                assert!(nmi.ok(op) > 0, "{name}");
            }
            () if promises.cancel_may_not_clear => {
                assert!(nmi.failed(op, Errno::EBUSY) > 0, "{name}: never found BUSY");
                assert!(nmi.ok(op) > 0, "{name}");
            }
            () if one_step => {
                assert!(nmi.failed(op, Errno::EBUSY) > 0, "{name}: never found a round");
                assert!(nmi.ok(op) > 0, "{name}");
            }
            // Starts that arm at once are refused in NMI.
            () if !promises.start_in_nmi => {
                assert_eq!(nmi.attempts() - nmi.ok(op), attempts(&nmi, Op::Start), "{name}");
                assert_eq!(nmi.ok(Op::Start), 0, "{name}");
                assert!(nmi.ok(op) > 0, "{name}");
            }
            // Commands: an update never meets another.
            () => {
                assert_eq!(nmi.attempts() - nmi.ok(op), attempts(&nmi, Op::Start), "{name}");
                assert!(nmi.ok(Op::Start) > 0, "{name}");
            }
        }
    }
}

/// A handler that takes the locks of a ring on top of a task that does: it never waits for ever, and where
/// it is told why, it is told that it would.
#[test]
fn rings_of_locks_with_an_nmi_at_every_access() {
    for lock in ["rqspin", "rqspin-6.15", "rqspin-byte", "rqspin-tas", "guard-try"] {
        let trial = stepped(lock, Subject::Lock, "lock-rings", &Params::new(1, 1));
        let trial: Arc<dyn Trial<Stepped>> = trial.expect("listed");
        let mut pair = Pair::new(1);
        for place in 0.. {
            let cpu = trial.machine().cpu(CpuId(0));
            if !pair.step(&*trial, &cpu, place, Context::Nmi) {
                break;
            }
        }
        let nmi = finish(pair, lock, &trial);
        let refused = nmi.attempts() - nmi.ok(Op::LockCycle);
        // The guard refuses whatever comes on top of a section of its CPU, and every place is in one.
        let some_succeed = nmi.ok(Op::LockCycle) > 0 || lock == "guard-try";
        assert!(refused > 0 && some_succeed, "{lock}: {nmi:?}");
    }
}

fn attempts(tally: &Tally, op: Op) -> u64 {
    tally.iter().filter(|(of, _, _)| *of == op).map(|(_, _, count)| count).sum()
}

#[test]
fn every_operation_in_every_context() {
    for design in CELLS {
        for context in [Context::Hardirq, Context::Nmi] {
            let (name, trial) = build(design, "nmi");
            let mut pair = Pair::new(1);
            {
                let cpu = trial.machine().cpu(CpuId(0));
                trial.enter(&cpu, &mut pair.worker);
                for step in 0..MIXED_STEPS {
                    pair.step(&*trial, &cpu, step % MIXED_PLACES, context);
                }
            }
            let tally = finish(pair, &name, &trial);
            assert!(tally.attempts() > MIXED_STEPS / 20, "{name}: {}", tally.attempts());
        }
    }
}

/// The finding of the review: freeing a cell whose work the task has takes the task's lock, and in
/// NMI that may be held by what was interrupted. Of the ways to cancel only the first has it.
#[test]
fn cancelling_at_once_deadlocks_in_nmi() {
    let deadlocks = |id: &str| {
        let design = CELLS.iter().find(|cell| cell.id == id).expect("listed");
        let (name, trial) = build(design, "nmi");
        let mut pair = Pair::new(1);
        let cpu = trial.machine().cpu(CpuId(0));
        trial.enter(&cpu, &mut pair.worker);
        for step in 0..MIXED_STEPS {
            pair.step(&*trial, &cpu, step % MIXED_PLACES, Context::Nmi);
        }
        drop(cpu);
        finish(pair, &name, &trial).failed(Op::Free, Errno::EDEADLK)
    };
    assert!(deadlocks("task-work-cancel-now") > 0);
    for id in ["task-work", "task-work-cancel-irq", "task-work-no-cancel"] {
        assert_eq!(deadlocks(id), 0, "{id}");
    }
}
