//! Locks under random schedules of more threads than loom can take: six CPUs on two NUMA nodes, each
//! with some sections. Mutual exclusion, that everybody gets through, and that nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use cellbench_impls::lock::GivesUp;
use cellbench_impls::platform::{Memory, Shuttle};
use cellbench_impls::registry::{LOCKS, LockVisitor, visit_lock};
use cellbench_impls::{CpuId, Errno, Lock, Machine};
use libtest_mimic::Trial;

use crate::arena::{Setup, ThreadBody};
use crate::report::{self, Explored, RowKey};
use crate::schedules::{Schedules, run, run_threads};

/// Threads, and sections of each.
const THREADS: u32 = 6;
const SECTIONS: u32 = 3;
/// Schedules for each lock and way of scheduling.
const SCHEDULES: usize = 400;

/// A lock and who is inside. Atomic, but no steps of the schedule.
struct Bench<L> {
    lock: L,
    /// Taken after it: what a CPU keeps for all locks serves one after the other.
    other: L,
    inside: AtomicBool,
    sections: AtomicU32,
    machine: Machine<Shuttle>,
}

impl<L: Lock<Shuttle>> Bench<L> {
    /// Runs the section: others may run in the middle of it, but not another section.
    fn section(&self) {
        assert!(!self.inside.swap(true, Relaxed), "two inside");
        Shuttle::relax();
        self.sections.fetch_add(1, Relaxed);
        self.inside.store(false, Relaxed);
    }

    fn take(&self, number: u32) {
        let cpu = self.machine.cpu(CpuId(number));
        for turn in 0..SECTIONS {
            // Both ways, where they differ.
            let outcome = if L::COMBINES && turn % 2 == 0 {
                self.lock.run(&cpu, |_| self.section())
            } else {
                self.lock.with(&cpu, || self.section())
            };
            for outcome in [outcome, self.other.with(&cpu, Shuttle::relax)] {
                match outcome {
                    Ok(()) => {}
                    Err(Errno::EBUSY) if L::GIVES_UP == GivesUp::AtOnce => {}
                    Err(errno) => panic!("time stands still, and nobody deadlocks: {errno}"),
                }
            }
        }
    }
}

/// Takes the lock from all threads, under the given schedules.
pub(crate) fn exclusion<L: Lock<Shuttle>>(setup: Setup, schedules: Schedules) -> Explored {
    run(schedules, move || {
        let bench = Arc::new(Bench {
            lock: L::new(),
            other: L::new(),
            inside: AtomicBool::new(false),
            sections: AtomicU32::new(0),
            machine: Setup { cpus: THREADS, ..setup }.machine(),
        });
        let body = |number| -> ThreadBody {
            let bench = Arc::clone(&bench);
            Box::new(move || bench.take(number))
        };
        run_threads((0..THREADS).map(body).collect());
        if L::GIVES_UP != GivesUp::AtOnce {
            assert_eq!(bench.sections.load(Relaxed), THREADS * SECTIONS, "sections that ran");
        }
        assert!(!bench.lock.is_held() && !bench.other.is_held(), "held at rest");
        for number in 0..THREADS {
            let rest = bench.machine.rest(CpuId(number));
            assert!(rest.is_clean(), "CPU {number} left behind {rest:?}");
        }
    })
}

struct Locks;

impl LockVisitor<Shuttle> for Locks {
    type Output = Vec<Trial>;
    fn visit<L: Lock<Shuttle>>(self) -> Vec<Trial> {
        let random = Schedules::Random { seed: 1, count: SCHEDULES };
        let pct = Schedules::Pct { seed: 1, count: SCHEDULES };
        [("random", random), ("pct", pct)]
            .map(|(tool, schedules)| {
                let (subject, property) =
                    (format!("lock/{}", L::ID), "mutual exclusion, 6 threads");
                Trial::test(format!("{tool}/{subject}/{property}"), move || {
                    let explored = exclusion::<L>(Setup::new(1), schedules);
                    report::add(RowKey { tool, subject, property: property.to_owned() }, explored);
                    Ok(())
                })
            })
            .into()
    }
}

/// Returns the tests of all registered locks.
pub(crate) fn trials() -> Vec<Trial> {
    LOCKS.iter().flat_map(|entry| visit_lock(entry.id, Locks).expect("registered")).collect()
}
