//! Every design under every workload that serves its kind, on real threads: what the workload
//! says must hold does hold, and each operation that the workload is about succeeds now and then.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cellbench_impls::engine::Queued;
use cellbench_impls::platform::{Memory, Native, NativeEpoch, Platform, World};
use cellbench_impls::rcu::Qsbr;
use cellbench_impls::registry::{CELLS, LOCKS, PEERS};
use cellbench_impls::{CellKind, CpuId};
use cellbench_trials_native::Compiled;
use cellbench_trials_stress::audited;
use cellbench_workloads::registry::{Entry, WORKLOADS};
use cellbench_workloads::{EngineNeed, Params, Subject, Tally, Trial, Worker};

const THREADS: u32 = 3;
/// For every design; `cellbench stress` goes on for as long as is asked, an hour in scripts/nightly.sh.
const BATCHES: u32 = 16;
/// Where threads outnumber CPUs, a handoff in a queue of locks may take a time slice.
const BATCHES_OF_LOCKS: u32 = 8;
const STEPS: u32 = 25;

/// Drives the workers of a trial to their end and checks it.
fn run<P: Platform>(trial: &Arc<dyn Trial<P>>, batches: u32, seed: u64) -> Tally {
    let barrier = Barrier::new(THREADS as usize);
    let mut total = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|index| {
                let (trial, barrier) = (Arc::clone(trial), &barrier);
                scope.spawn(move || {
                    let cpu = trial.machine().cpu(CpuId(index));
                    let mut worker = Worker::new(index, seed);
                    trial.enter(&cpu, &mut worker);
                    barrier.wait();
                    for _ in 0..batches {
                        trial.batch(&cpu, &mut worker, STEPS);
                        cpu.quiescent();
                    }
                    worker.tally
                })
            })
            .collect();
        for worker in workers {
            total.add(&worker.join().expect("a worker panicked"));
        }
    });
    total
}

fn check<P: Platform>(name: &str, trial: &Arc<dyn Trial<P>>, batches: u32, total: &Tally) {
    let cpu = trial.machine().cpu(CpuId(0));
    trial.check(&cpu, total).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    assert!(total.attempts() >= u64::from(THREADS * batches * STEPS), "{name}: attempts");
    assert!(total.successes() > 0, "{name}: nothing succeeded");
}

/// Ends the driver's loop when dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs a trial whose callbacks run, with one more thread that drives the engine of every CPU.
fn run_live<M: Memory>(trial: &Arc<dyn Trial<World<M, Qsbr, Queued>>>, seed: u64) -> Tally {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let machine = trial.machine();
            let cpu = machine.cpu(CpuId(THREADS));
            while !done.load(Ordering::Acquire) {
                for base in 0..machine.cpus() {
                    machine.engine().run_timers(&cpu, base, M::now_ns());
                    machine.engine().run_works(&cpu, base);
                }
                cpu.quiescent();
                thread::yield_now();
            }
        });
        let total = {
            // Also when a worker panicked: the scope waits for the driver.
            let _stop = Stop(&done);
            run(trial, BATCHES, seed)
        };
        driver.join().expect("the driver panicked");
        total
    })
}

/// Returns whether the workload suits the design and needs nothing that this test does not supply; those that
/// need interruptions, stalls or deadlocks have tests of their own.
fn runs_alone(workload: &Entry, id: &str, subject: Subject) -> bool {
    let needs = workload.needs;
    workload.suits(id, subject)
        && needs.interrupts.is_empty()
        && !needs.stalls
        && !workload.fallible_only
}

fn every_cell<P: Compiled>(seed: u64, offered: impl Fn(&Entry) -> bool) {
    for cell in CELLS {
        for workload in WORKLOADS
            .iter()
            .filter(|workload| runs_alone(workload, cell.id, Subject::Cell(cell.kind)))
        {
            if workload.engine == EngineNeed::Live || !offered(workload) {
                continue;
            }
            let name = format!("{} {} {}", cell.id, cell.kind, workload.id);
            let params = Params::new(THREADS, seed);
            let trial =
                P::trial(cell.id, Subject::Cell(cell.kind), workload.id, &params).expect("listed");
            let total = run(&trial, BATCHES, seed);
            check(&name, &trial, BATCHES, &total);
        }
    }
}

#[test]
fn cells_under_the_counting_engine() {
    every_cell::<Native>(1, |_| true);
}

#[test]
fn cells_under_epochs() {
    every_cell::<NativeEpoch>(2, |workload| workload.with_epochs);
}

#[test]
fn cells_whose_callbacks_run() {
    let params = Params { extra_cpus: 1, ..Params::new(THREADS, 3) };
    for cell in CELLS {
        for workload in WORKLOADS
            .iter()
            .filter(|workload| runs_alone(workload, cell.id, Subject::Cell(cell.kind)))
        {
            let name = format!("{} {} {} live", cell.id, cell.kind, workload.id);
            let trial =
                audited(cell.id, Subject::Cell(cell.kind), workload.id, &params).expect("listed");
            let total = run_live(&trial, 3);
            check(&name, &trial, BATCHES, &total);
        }
    }
}

#[test]
fn locks_and_peers() {
    let params = Params::new(THREADS, 4);
    // The points of the sweep are one code with other figures, and a waiter in a queue whose
    // predecessor has no CPU waits for it at each: the ends of the sweep stand for all.
    let points = || WORKLOADS.iter().filter(|workload| workload.id.starts_with("sweep-"));
    let ends = [points().next(), points().next_back()].map(|point| point.expect("a sweep").id);
    let is_checked = |workload: &&Entry| {
        let is_inner = workload.id.starts_with("sweep-") && !ends.contains(&workload.id);
        workload.serves(Subject::Lock) && !is_inner
    };
    let locks = || LOCKS.iter().map(|lock| lock.id).chain(PEERS.iter().map(|lock| lock.id));
    for workload in WORKLOADS.iter().filter(is_checked) {
        for lock in locks().filter(|lock| runs_alone(workload, lock, Subject::Lock)) {
            let trial = Native::trial(lock, Subject::Lock, workload.id, &params).expect("listed");
            let total = run(&trial, BATCHES_OF_LOCKS, 4);
            check(lock, &trial, BATCHES_OF_LOCKS, &total);
        }
    }
}

#[test]
fn unknown_names_are_none() {
    let params = Params::new(1, 0);
    assert!(
        Native::trial("no-such-cell", Subject::Cell(CellKind::Timer), "same-cell", &params)
            .is_none()
    );
    assert!(
        Native::trial("spin-tas", Subject::Cell(CellKind::Timer), "no-such-workload", &params)
            .is_none()
    );
    assert!(
        Native::trial("spin-tas", Subject::Cell(CellKind::Wq), "solo-cancel", &params).is_none()
    );
}
