//! Outcomes of others while a CPU stands still in mid-operation, and of those who wait in a cycle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use cellbench_impls::platform::stepped::interrupt_at;
use cellbench_impls::platform::{Memory, Native, Platform};
use cellbench_impls::registry::LOCKS;
use cellbench_impls::{CellKind, CpuId, Errno};
use cellbench_trials_native::Compiled;
use cellbench_trials_stress::stepped;
use cellbench_workloads::registry::WORKLOADS;
use cellbench_workloads::stepping::Stepped;
use cellbench_workloads::{Op, Params, Subject, Tally, Trial, Worker};

/// Stalls worker 0 of `stalled` wherever it is found keeping others out, until `enough` of what
/// the other one got; returns that, and the number of stalls.
fn stall(
    cell: &str,
    kind: CellKind,
    stall_ns: u64,
    enough: impl Fn(&Tally, u64) -> bool + Sync,
) -> (Tally, u64) {
    let params = Params { stall_ns, ..Params::new(2, 7) };
    let trial = stepped(cell, Subject::Cell(kind), "stalled", &params).expect("listed");
    let (stalls, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut handler, mut mine) = (Worker::new(0, 8), Worker::new(0, 9));
    let (others, finished) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let cpu = trial.machine().cpu(CpuId(1));
            let mut worker = Worker::new(1, 10);
            let mut seen = 0;
            while !done.load(Ordering::Acquire) {
                trial.batch(&cpu, &mut worker, 1);
                cpu.quiescent();
                // One more stall has ended: is it enough?
                let stalls = stalls.load(Ordering::Acquire);
                if stalls > seen && enough(&worker.tally, stalls) {
                    done.store(true, Ordering::Release);
                }
                seen = stalls;
            }
            (worker.tally, seen)
        });
        let cpu = trial.machine().cpu(CpuId(0));
        trial.enter(&cpu, &mut mine);
        for place in (0..40).cycle() {
            if done.load(Ordering::Acquire) {
                break;
            }
            let strike = || {
                let began_ns = Stepped::now_ns();
                cpu.nmi(|cpu| trial.interrupt(cpu, &mut handler));
                if Stepped::now_ns() - began_ns >= stall_ns {
                    stalls.fetch_add(1, Ordering::Release);
                }
            };
            interrupt_at(place, strike, || trial.batch(&cpu, &mut mine, 1));
            cpu.quiescent();
        }
        drop(cpu);
        other.join().expect("the other worker")
    });
    let mut total = others.clone();
    total.add(&mine.tally);
    let cpu = trial.machine().cpu(CpuId(0));
    trial.check(&cpu, &total).unwrap_or_else(|violation| panic!("{cell} {kind}: {violation}"));
    (others, finished)
}

#[test]
fn a_spinlock_lets_nobody_in_while_its_holder_stands_still() {
    for cell in ["spin-tas", "spin-queued"] {
        let (others, stalls) = stall(cell, CellKind::Timer, 2_000_000, |_, stalls| stalls >= 10);
        // The one attempt that waited through it.
        assert!(others.attempts() <= stalls + 1, "{cell}: {} in {stalls}", others.attempts());
    }
}

#[test]
fn a_resilient_lock_gives_up() {
    let timed_out = |tally: &Tally| {
        tally.failed(Op::SetCallback, Errno::ETIMEDOUT) + tally.failed(Op::Start, Errno::ETIMEDOUT)
    };
    let (others, _) =
        stall("rqspin", CellKind::Timer, 400_000_000, |tally, _| timed_out(tally) > 0);
    assert!(timed_out(&others) > 0);
}

#[test]
fn without_a_lock_an_answer_comes_at_once() {
    for cell in ["cmpxchg-state", "cmpxchg-state-nmi", "cmd-queue"] {
        let more = |tally: &Tally, stalls| tally.attempts() > 3 * stalls;
        let (others, stalls) = stall(cell, CellKind::Timer, 5_000_000, more);
        assert!(others.attempts() > 3 * stalls, "{cell}");
        assert!(others.successes() > 0, "{cell}");
    }
}

/// Runs a trial with so many workers for so many steps each.
fn run<P: Platform>(trial: &Arc<dyn Trial<P>>, workers: u32, steps: u32) -> Tally {
    let mut total = Tally::default();
    thread::scope(|scope| {
        let spawned: Vec<_> = (0..workers)
            .map(|index| {
                let trial = Arc::clone(trial);
                scope.spawn(move || {
                    let cpu = trial.machine().cpu(CpuId(index));
                    let mut worker = Worker::new(index, 11);
                    trial.enter(&cpu, &mut worker);
                    for _ in 0..steps {
                        trial.batch(&cpu, &mut worker, 1);
                        cpu.quiescent();
                    }
                    worker.tally
                })
            })
            .collect();
        spawned.into_iter().for_each(|worker| total.add(&worker.join().expect("a worker")));
    });
    total
}

/// AA is found at once, ABBA within milliseconds, a ring of three by the timeout; none hangs.
#[test]
fn cycles_of_resilient_locks_come_apart() {
    for workload in WORKLOADS.iter().filter(|workload| workload.fallible_only) {
        let workers = workload.needs.least_workers;
        for lock in LOCKS.iter().filter(|lock| workload.suits(lock.id, Subject::Lock)) {
            // Where nobody looks for deadlocks each step takes a timeout.
            let steps = if workers == 3 || lock.id == "mcs-abortable" { 2 } else { 20 };
            let name = format!("{} {}", lock.id, workload.id);
            let trial =
                Native::trial(lock.id, Subject::Lock, workload.id, &Params::new(workers, 3))
                    .expect("listed");
            let total = run(&trial, workers, steps);
            let cpu = trial.machine().cpu(CpuId(0));
            trial.check(&cpu, &total).unwrap_or_else(|violation| panic!("{name}: {violation}"));
            // Alone a ring is no deadlock: what is on top of it closes it.
            if workers == 1 && workload.needs.interrupts.is_empty() {
                let failed = Errno::ALL.iter().map(|errno| total.failed(Op::LockCycle, *errno));
                assert_eq!(failed.sum::<u64>(), u64::from(steps), "{name}");
            }
        }
    }
}

#[test]
fn the_others_wait_for_a_holder_that_stands_still() {
    let params = Params { stall_ns: 1_000_000, ..Params::new(2, 5) };
    for lock in LOCKS {
        let trial = Native::trial(lock.id, Subject::Lock, "lock-stalled", &params).expect("listed");
        let total = run(&trial, 2, 5);
        let cpu = trial.machine().cpu(CpuId(0));
        trial.check(&cpu, &total).unwrap_or_else(|violation| panic!("{}: {violation}", lock.id));
        assert!(total.ok(Op::Lock) >= 5, "{}: the holder's own", lock.id);
    }
}
