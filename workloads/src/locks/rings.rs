//! Three locks in a ring, each CPU holding one and wanting the next, in tasks and in NMI on top: what a
//! resilient lock returns in each context, and how soon. After the kernel's stress module for rqspinlock
//! (its mode ABBCCA, with a perf event's NMI that takes the same locks; November 2025).
//!
//! The workloads of [`super::cycle`] close a cycle in every step and time its detection. Here cycles close
//! as they happen to, so that most attempts get both locks.

use std::sync::Arc;

use cellbench_impls::platform::{Ordering, Word};
use cellbench_impls::{Context, Cpu, Errno, Lock, Machine, Outcome, Platform};
use crossbeam_utils::CachePadded;

use crate::ensure;
use crate::field::check_clean;
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{LockWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// Interruptions a second, as of the workload `nmi`.
const RATE_HZ: u32 = 10_000;
/// Time for which a lock is held before the next one is wanted.
const HOLD_NS: u64 = 500;
/// Locks of the ring.
const LOCKS: usize = 3;

/// See the module.
pub(crate) struct Rings;

impl Workload for Rings {
    const ID: &'static str = "lock-rings";
    const ABOUT: &'static str =
        "three locks: each CPU takes one and then the next, interrupted by NMIs that do so as well";
    const NEEDS: Needs =
        Needs { interrupts: &[Context::Nmi], interrupt_rate_hz: RATE_HZ, ..Needs::NOTHING };
}

impl LockWorkload for Rings {
    const FALLIBLE_ONLY: bool = true;

    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(RingsTrial::<P, L> {
            ring: core::array::from_fn(|_| CachePadded::new(Guarded::new())),
            hold_turns: (HOLD_NS * u64::from(params.turns_per_us) / 1000) as u32,
            machine: params.machine(),
        })
    }
}

/// A lock and the count of its sections: loaded and stored, so a lock that lets two in loses some.
struct Guarded<P: Platform, L> {
    lock: L,
    entered: P::U64,
}

impl<P: Platform, L: Lock<P>> Guarded<P, L> {
    fn new() -> Self {
        Self { lock: L::new(), entered: Word::new("entered", 0) }
    }

    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        self.lock.with(cpu, || {
            // Relaxed, both: under the lock.
            self.entered.store(self.entered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            section()
        })
    }
}

struct RingsTrial<P: Platform, L> {
    ring: [CachePadded<Guarded<P, L>>; LOCKS],
    hold_turns: u32,
    machine: Machine<P>,
}

impl<P: Platform, L: Lock<P>> RingsTrial<P, L> {
    /// Takes a lock and, holding it, the next. One attempt: `lock_cycle` where the first was had, which is
    /// the outcome of the second, else `lock`.
    fn attempt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        // Workers begin at different places, and a handler one further than what it interrupts.
        let first = worker.index as usize + usize::from(cpu.in_nmi());
        let [first, second] = [first, first + 1].map(|number| &self.ring[number % LOCKS]);
        let outer: Result<Outcome, Errno> = first.with(cpu, || {
            P::charge(self.hold_turns);
            second.with(cpu, || ())
        });
        match outer {
            Ok(inner) => worker.tally.count(Op::LockCycle, &inner),
            Err(errno) => worker.tally.count::<()>(Op::Lock, &Err(errno)),
        }
    }
}

impl<P: Platform, L: Lock<P>> Trial<P> for RingsTrial<P, L> {
    fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            self.attempt(cpu, worker);
        }
    }

    fn interrupt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.attempt(cpu, worker);
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let entered: u64 = self.ring.iter().map(|one| one.entered.load(Ordering::Relaxed)).sum();
        let failed: u64 = Errno::ALL.iter().map(|errno| total.failed(Op::LockCycle, *errno)).sum();
        let sections = 2 * total.ok(Op::LockCycle) + failed;
        ensure!(
            entered == sections,
            "mutual exclusion: {sections} sections ran, their counts say {entered}"
        );
        for errno in Errno::ALL.iter().filter(|errno| !L::GIVES_UP.allows(**errno)) {
            let times = total.failed(Op::Lock, *errno) + total.failed(Op::LockCycle, *errno);
            ensure!(
                times == 0,
                "{times} waits ended with {errno}, which this lock does not return"
            );
        }
        check_clean(&self.machine)
    }
}
