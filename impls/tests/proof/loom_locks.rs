//! Every interleaving of threads that take a lock: mutual exclusion and publication; and for the
//! resilient locks every way of failing, at any point, with the lock, its queue and the tables of
//! held locks as before. The order of the queue is tested beside the lock, where its word is seen.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use cellbench_impls::lock::GivesUp;
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

    /// Counts, as the section.
    fn enter(&self) {
        // SAFETY: under the lock.
        self.protected.with_mut(|count| unsafe { *count += 1 });
    }

    /// Takes the lock and counts; returns why it failed.
    fn count(&self, cpu: &Cpu<'_, Loom>) -> Result<(), Errno> {
        self.lock.with(cpu, || self.enter())
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

/// Explores `threads` CPUs, each of which takes the lock `times` times.
pub(crate) fn exclusion<L: Lock<Loom>>(
    setup: Setup,
    threads: u32,
    times: u32,
    bound: Bound,
) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: threads, ..setup });
        let sections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sections);
        run_threads(bodies(&bench, threads, move |bench, cpu| {
            for _ in 0..times {
                match bench.count(cpu) {
                    Ok(()) => _ = counted.fetch_add(1, Relaxed),
                    Err(Errno::EBUSY) if L::GIVES_UP == GivesUp::AtOnce => {}
                    Err(errno) => panic!("time stands still, and nobody deadlocks: {errno}"),
                }
            }
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// Explores as [`exclusion`], with sections that another CPU may run.
pub(crate) fn delegation<L: Lock<Loom>>(
    setup: Setup,
    threads: u32,
    times: u32,
    bound: Bound,
) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: threads, ..setup });
        run_threads(bodies(&bench, threads, move |bench, cpu| {
            for time in 0..times {
                let told = bench.lock.run(cpu, |_| {
                    bench.enter();
                    time
                });
                assert_eq!(told, Ok(time), "its own result");
            }
        }));
        bench.check_rest(threads * times);
    })
}

/// Explores the handing on: a CPU holds the lock while the others come, and then releases it.
pub(crate) fn handover<L: Lock<Loom>>(setup: Setup, waiters: u32, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: waiters + 1, ..setup });
        let cpu = bench.machine.cpu(CpuId(waiters));
        let waiting = bench.lock.with(&cpu, || {
            let count = |bench: &Bench<L>, cpu: &Cpu<'_, Loom>| {
                bench.count(cpu).expect("time stands still, and nobody deadlocks");
            };
            bodies(&bench, waiters, count).into_iter().map(loom::thread::spawn).collect::<Vec<_>>()
        });
        drop(cpu);
        for thread in waiting.expect("nobody else held it") {
            thread.join().expect("loom ends the execution at a panic");
        }
        bench.check_rest(waiters);
    })
}

/// Explores two locks, of which one CPU takes one after the other, and each of two others one: the data that
/// a CPU keeps for all locks serves the one after the other.
pub(crate) fn two_locks<L: Lock<Loom>>(setup: Setup, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: 3, ..setup });
        run_threads(bodies(&bench, 3, |bench, cpu| {
            if cpu.id().0 != 1 {
                bench.count(cpu).expect("nobody holds both");
            }
            if cpu.id().0 != 0 {
                bench.other.with(cpu, || ()).expect("nobody holds both");
            }
        }));
        bench.check_rest(2);
    })
}

/// Explores a CPU that takes a lock twice: it is told so, or fails in its own way, and has the lock once, as
/// before.
pub(crate) fn same_lock_twice<L: Lock<Loom>>(setup: Setup, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: 2, ..setup });
        match L::GIVES_UP {
            GivesUp::InTime => tick_ns(TAS_TIMEOUT_NS),
            // The first generation looks when a millisecond has gone.
            GivesUp::FindsDeadlocks => tick_ns(CYCLE_CHECK_NS + 1),
            GivesUp::Never | GivesUp::AtOnce => {}
        }
        let sections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sections);
        run_threads(bodies(&bench, 2, move |bench, cpu| {
            let twice = bench.lock.with(cpu, || {
                bench.enter();
                counted.fetch_add(1, Relaxed);
                bench.lock.with(cpu, || unreachable!("taken twice"))
            });
            match L::GIVES_UP {
                GivesUp::FindsDeadlocks => assert_eq!(twice, Ok(Err(Errno::EDEADLK))),
                // The other CPU's section may be in the way as well.
                _ => check_gave_up::<L>(twice.and_then(|inner| inner).expect_err("taken twice")),
            }
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// Explores two CPUs that take two locks in opposite order, while time passes: nobody waits for ever, and who
/// fails is told of the deadlock.
pub(crate) fn opposite_order<L: Lock<Loom>>(setup: Setup, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: 2, ..setup });
        let finds = L::GIVES_UP == GivesUp::FindsDeadlocks;
        tick_ns(if finds { CYCLE_CHECK_NS } else { TAS_TIMEOUT_NS });
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
                Ok(Err(errno)) | Err(errno) if !finds => check_gave_up::<L>(errno),
                outcome => panic!("unexpected: {outcome:?}"),
            }
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// Explores two CPUs that hold a lock each and want the other's, one after the other, while a third one has
/// come for one of them before: of the two that deadlock, one is alone in the queue behind it.
pub(crate) fn opposite_order_of_three<L: Lock<Loom>>(setup: Setup, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: 3, ..setup });
        tick_ns(CYCLE_CHECK_NS + 1);
        let sections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sections);
        // How far they have come: both hold theirs, the third comes, the first of the two comes.
        let stage = loom::sync::atomic::AtomicU32::new(0);
        run_threads(bodies(&bench, 3, move |bench, cpu| {
            let wait_for = |least| {
                while stage.load(Acquire) < least {
                    loom::thread::yield_now();
                }
            };
            let next = || _ = stage.fetch_add(1, AcqRel);
            let nested = match cpu.id().0 {
                0 => bench.other.with(cpu, || {
                    next();
                    wait_for(3);
                    next();
                    bench.count(cpu)
                }),
                1 => bench.lock.with(cpu, || {
                    next();
                    wait_for(4);
                    bench.other.with(cpu, || ())
                }),
                _ => {
                    wait_for(2);
                    next();
                    bench.count(cpu).map(Ok)
                }
            };
            match nested {
                Ok(Ok(())) if cpu.id().0 != 1 => _ = counted.fetch_add(1, Relaxed),
                Ok(Ok(())) => {}
                Ok(Err(errno)) | Err(errno) => check_gave_up::<L>(errno),
            }
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// Explores a CPU that holds the lock while time passes and so many others wait. Each of them gets it or
/// fails, at any point; what is left is clean.
pub(crate) fn timeout<L: Lock<Loom>>(setup: Setup, waiters: u32, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: waiters + 1, ..setup });
        tick_ns(TAS_TIMEOUT_NS.max(HEAD_TIMEOUT_NS));
        let sections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sections);
        run_threads(bodies(&bench, waiters + 1, move |bench, cpu| match bench.count(cpu) {
            Ok(()) => _ = counted.fetch_add(1, Relaxed),
            Err(errno) => check_gave_up::<L>(errno),
        }));
        bench.check_rest(sections.load(Relaxed));
    })
}

/// Explores as [`timeout`], with a holder that does not leave before all waiters have failed: nobody waits
/// for ever, and the queue is dismantled.
pub(crate) fn holder_for_ever<L: Lock<Loom>>(setup: Setup, waiters: u32, bound: Bound) -> Explored {
    explore(bound, move || {
        let bench = Bench::<L>::new(Setup { cpus: waiters + 1, ..setup });
        tick_ns(TAS_TIMEOUT_NS.max(HEAD_TIMEOUT_NS));
        let cpu = bench.machine.cpu(CpuId(waiters));
        let held = bench.lock.with(&cpu, || {
            run_threads(bodies(&bench, waiters, |bench, cpu| {
                let outcome = bench.lock.with(cpu, || unreachable!("it is held"));
                check_gave_up::<L>(outcome.expect_err("it is held"));
            }));
        });
        held.expect("nobody else wants it");
        drop(cpu);
        bench.check_rest(0);
    })
}

/// Checks that an attempt ends as the lock says: a waiter times out, or leaves with the queue whose head did.
fn check_gave_up<L: Lock<Loom>>(errno: Errno) {
    assert!(L::GIVES_UP.allows(errno), "gave up with {errno}");
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
        if L::GIVES_UP != GivesUp::AtOnce {
            trials.extend([
                trial::<L>("hand-over, 3 waiters", move || {
                    handover::<L>(setup, 3, Bound::new(1).at_most(CAP / 4))
                }),
                trial::<L>("two locks, 3 threads", move || {
                    two_locks::<L>(setup, Bound::new(2).at_most(CAP / 4))
                }),
            ]);
        }
        if L::COMBINES {
            trials.extend([
                trial::<L>("delegated sections, 2 threads twice", move || {
                    delegation::<L>(setup, 2, 2, Bound::new(3))
                }),
                trial::<L>("delegated sections, 3 threads", move || {
                    delegation::<L>(setup, 3, 1, Bound::new(1).at_most(CAP))
                }),
            ]);
        }
        if L::GIVES_UP == GivesUp::FindsDeadlocks {
            trials.push(trial::<L>("ABBA, a third one waits", move || {
                opposite_order_of_three::<L>(setup, Bound::new(1).at_most(CAP / 10))
            }));
        }
        if L::FALLIBLE {
            trials.extend([
                trial::<L>("AA", move || same_lock_twice::<L>(setup, Bound::new(3).at_most(CAP))),
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

/// Returns the tests of all registered locks.
pub(crate) fn trials() -> Vec<Trial> {
    LOCKS.iter().flat_map(|entry| visit_lock(entry.id, Locks).expect("registered")).collect()
}
