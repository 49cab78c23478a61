//! Every interleaving of threads that take a lock: mutual exclusion and publication; and for the
//! resilient locks every way of failing, at any point, with the lock, its queue and the tables of
//! held locks as before. The order of the queue is tested beside the lock, where its word is seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cellbench_impls::lock::resilient::{CYCLE_CHECK_NS, HEAD_TIMEOUT_NS, TAS_TIMEOUT_NS};
use cellbench_impls::platform::{Loom, loom::tick_ns};
use cellbench_impls::registry::{LOCKS, LockVisitor, visit_lock};
use cellbench_impls::{Cpu, CpuId, Errno, Lock, Machine};
use libtest_mimic::Trial;
use loom::cell::UnsafeCell;

use crate::arena::{Setup, ThreadBody};
use crate::explore::{Bound, explore, run_threads};
use crate::report::{self, Explored, RowKey};

/// A machine with two locks and what the first one protects.
struct Bench<L> {
    lock: L,
    other: L,
    /// Not atomic: loom reports two threads that touch it without order between them.
    protected: UnsafeCell<u32>,
    machine: Machine<Loom>,
}

// SAFETY: `protected` is used under `lock`, which is what loom checks.
unsafe impl<L: Lock<Loom>> Sync for Bench<L> {}

impl<L: Lock<Loom>> Bench<L> {
    fn new(setup: Setup) -> Arc<Self> {
        Arc::new(Self {
            lock: L::new(),
            other: L::new(),
            protected: UnsafeCell::new(0),
            machine: setup.machine(),
        })
    }

    /// Takes the lock and counts; returns why it failed.
    fn count(&self, cpu: &Cpu<'_, Loom>) -> Result<(), Errno> {
        self.lock.with(cpu, || {
            // SAFETY: under the lock.
            self.protected.with_mut(|count| unsafe { *count += 1 });
        })
    }

    /// Checks that the lock can be taken, that the section ran so often, and that nothing is left
    /// of any attempt.
    fn check_rest(&self, sections: u32) {
        let cpu = self.machine.cpu(CpuId(0));
        self.count(&cpu).expect("the lock is usable afterwards");
        self.other.with(&cpu, || ()).expect("so is the other");
        drop(cpu);
        // SAFETY: the threads have been joined.
        let count = self.protected.with(|count| unsafe { *count });
        assert_eq!(count, sections + 1, "sections that ran");
        for number in 0..self.machine.cpus() {
            let rest = self.machine.rest(CpuId(number));
            assert!(rest.is_clean(), "CPU {number} left behind {rest:?}");
        }
    }
}

fn bodies<L: Lock<Loom>>(
    bench: &Arc<Bench<L>>,
    threads: u32,
    body: impl Fn(&Bench<L>, &Cpu<'_, Loom>) + Send + Sync + 'static,
) -> Vec<ThreadBody> {
    let body = Arc::new(body);
    (0..threads)
        .map(|number| -> ThreadBody {
            let (bench, body) = (Arc::clone(bench), Arc::clone(&body));
            Box::new(move || body(&bench, &bench.machine.cpu(CpuId(number))))
        })
        .collect()
}

/// Each of `threads` CPUs takes the lock so often.
pub(crate) fn exclusion<L: Lock<Loom>>(
    setup: Setup,
    threads: u32,
    times: u32,
    bound: Bound,
) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: threads, ..setup });
        run_threads(bodies(&bench, threads, move |bench, cpu| {
            for _ in 0..times {
                bench.count(cpu).expect("time stands still, and nobody deadlocks");
            }
        }));
        bench.check_rest(threads * times);
    })
}

/// A CPU that takes a lock twice is told so, and has the lock once, as before.
pub(crate) fn same_lock_twice<L: Lock<Loom>>(setup: Setup, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: 2, ..setup });
        run_threads(bodies(&bench, 2, |bench, cpu| {
            let twice = bench.lock.with(cpu, || {
                // SAFETY: under the lock.
                bench.protected.with_mut(|count| unsafe { *count += 1 });
                bench.lock.with(cpu, || unreachable!("taken twice"))
            });
            assert_eq!(twice, Ok(Err(Errno::EDEADLK)));
        }));
        bench.check_rest(2);
    })
}

/// Two CPUs take two locks in opposite order, while time passes: nobody waits for ever, and who
/// fails is told of the deadlock.
pub(crate) fn opposite_order<L: Lock<Loom>>(setup: Setup, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: 2, ..setup });
        tick_ns(CYCLE_CHECK_NS);
        let sections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sections);
        run_threads(bodies(&bench, 2, move |bench, cpu| {
            let nested = if cpu.id().0 == 0 {
                bench.other.with(cpu, || bench.count(cpu))
            } else {
                bench.lock.with(cpu, || bench.other.with(cpu, || ()))
            };
            match nested {
                Ok(Ok(())) if cpu.id().0 == 0 => _ = counted.fetch_add(1, Relaxed),
                Ok(Ok(()) | Err(Errno::EDEADLK)) => {}
                outcome => panic!("unexpected: {outcome:?}"),
            }
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// One CPU holds the lock while time passes; so many others wait. Each of them gets it or fails,
/// at any point; what is left is clean.
pub(crate) fn timeout<L: Lock<Loom>>(setup: Setup, waiters: u32, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: waiters + 1, ..setup });
        tick_ns(TAS_TIMEOUT_NS.max(HEAD_TIMEOUT_NS));
        let sections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sections);
        run_threads(bodies(&bench, waiters + 1, move |bench, cpu| match bench.count(cpu) {
            Ok(()) => _ = counted.fetch_add(1, Relaxed),
            Err(errno) => check_gave_up(errno),
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// As [`timeout`], and the holder does not leave before all waiters have failed: nobody waits
/// for ever, and the queue is dismantled.
pub(crate) fn holder_for_ever<L: Lock<Loom>>(setup: Setup, waiters: u32, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: waiters + 1, ..setup });
        tick_ns(TAS_TIMEOUT_NS.max(HEAD_TIMEOUT_NS));
        let cpu = bench.machine.cpu(CpuId(waiters));
        let held = bench.lock.with(&cpu, || {
            run_threads(bodies(&bench, waiters, |bench, cpu| {
                let outcome = bench.lock.with(cpu, || unreachable!("it is held"));
                check_gave_up(outcome.expect_err("it is held"));
            }));
        });
        held.expect("nobody else wants it");
        drop(cpu);
        bench.check_rest(0);
    })
}

/// A waiter times out, or leaves with the queue whose head did.
fn check_gave_up(errno: Errno) {
    assert!(matches!(errno, Errno::ETIMEDOUT | Errno::EDEADLK), "gave up with {errno}");
}

/// Threads that spin are switched at every turn, which no bound on preemptions limits; three that
/// spin at once are for the random schedules.
const CAP: u64 = 20_000;

struct Locks;

impl LockVisitor<Loom> for Locks {
    type Output = Vec<Trial>;
    fn visit<L: Lock<Loom>>(self) -> Vec<Trial> {
        let setup = Setup::new(1);
        let mut trials = vec![
            trial::<L>("mutual exclusion, 2 threads twice", move || {
                exclusion::<L>(setup, 2, 2, Bound::new(3))
            }),
            trial::<L>("mutual exclusion, 3 threads", move || {
                exclusion::<L>(setup, 3, 1, Bound::new(1))
            }),
        ];
        if L::FALLIBLE {
            trials.extend([
                trial::<L>("AA", move || same_lock_twice::<L>(setup, Bound::new(3))),
                trial::<L>("ABBA", move || opposite_order::<L>(setup, Bound::new(2).at_most(CAP))),
                trial::<L>("timeout at any point, 1 waiter", move || {
                    timeout::<L>(setup, 1, Bound::new(3))
                }),
                trial::<L>("timeout at any point, 2 waiters", move || {
                    timeout::<L>(setup, 2, Bound::new(1).at_most(CAP))
                }),
                trial::<L>("dismantling, 2 waiters", move || {
                    holder_for_ever::<L>(setup, 2, Bound::new(1).at_most(CAP))
                }),
                trial::<L>("dismantling, 3 waiters", move || {
                    holder_for_ever::<L>(setup, 3, Bound::new(1).at_most(CAP))
                }),
            ]);
        }
        trials
    }
}

fn trial<L: Lock<Loom>>(property: &str, run: impl FnOnce() -> Explored + Send + 'static) -> Trial {
    let key =
        RowKey { tool: "loom", subject: format!("lock/{}", L::ID), property: property.to_owned() };
    Trial::test(format!("loom/{}/{property}", key.subject), move || {
        report::add(key, run());
        Ok(())
    })
}

/// The tests of all registered locks.
pub(crate) fn trials() -> Vec<Trial> {
    LOCKS.iter().flat_map(|entry| visit_lock(entry.id, Locks).expect("registered")).collect()
}
