//! RCU by quiescent states (McKenney and Slingwine's read-copy update; the quiescent-state based
//! form as in Hart et al., "Performance of memory reclamation for lockless synchronization").
//!
//! A global number `period` is raised to ask for a grace period. Each online CPU answers in its
//! next quiescent state by copying the number. The period `n` has ended when every online CPU's
//! copy is at least `n`: each then passed a quiescent state after the request.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr;

use cellbench_mutations::mutated;
use crossbeam_utils::CachePadded;

use super::{HeadStack, RcuFn, RcuHead, Reclaim, ReclaimKind, run_list};
use crate::machine::{Cpu, CpuId};
use crate::platform::{Ordering, Platform, Word};

/// Chooses [`QsbrReclaim`].
pub struct Qsbr;

impl ReclaimKind for Qsbr {
    type Of<P: Platform> = QsbrReclaim<P>;
}

/// The copy of a CPU that is offline: it holds up no grace period.
const OFFLINE: u64 = u64::MAX;

/// A CPU that waits for a grace period looks at all others in one of so many quiescent states:
/// the scan reads a line of every CPU.
const QUIESCENT_STATES_PER_SCAN: u32 = 8;

/// See the module.
pub struct QsbrReclaim<P: Platform> {
    /// The newest grace period that was asked for.
    period: CachePadded<P::U64>,
    /// The newest grace period that some CPU found to have ended.
    ended: CachePadded<P::U64>,
    cpus: Box<[CachePadded<CpuState<P>>]>,
}

struct CpuState<P: Platform> {
    /// The newest period that this CPU answered, or [`OFFLINE`].
    answered: P::U64,
    /// Deferred, not yet assigned to a period.
    incoming: HeadStack<P>,
    /// Deferred, and free to run when period `target` has ended. The CPU's own.
    waiting: Cell<*mut RcuHead<P>>,
    target: Cell<u64>,
    states_until_scan: Cell<u32>,
}

// SAFETY: the cells are used by the CPU's owner in task context only, or by the one CPU that
// settles the machine after the owner went offline; `Machine::cpu` hands the state from one owner
// to the next with acquire and release.
unsafe impl<P: Platform> Sync for CpuState<P> {}
// SAFETY: the pointers belong to objects that were deferred, which any CPU may reclaim.
unsafe impl<P: Platform> Send for CpuState<P> {}

/// A read-side section: costs nothing.
pub struct QsbrGuard<'a>(PhantomData<&'a ()>);

impl<P: Platform> Reclaim<P> for QsbrReclaim<P> {
    const ID: &'static str = "qsbr";
    type Guard<'a> = QsbrGuard<'a>;

    fn new(cpus: usize) -> Self {
        Self {
            period: CachePadded::new(P::U64::new("rcu.period", 1)),
            ended: CachePadded::new(P::U64::new("rcu.ended", 1)),
            cpus: (0..cpus)
                .map(|_| {
                    CachePadded::new(CpuState {
                        answered: P::U64::new("rcu.answered", OFFLINE),
                        incoming: HeadStack::new(),
                        waiting: Cell::new(ptr::null_mut()),
                        target: Cell::new(0),
                        states_until_scan: Cell::new(0),
                    })
                })
                .collect(),
        }
    }

    fn online(&self, cpu: &Cpu<'_, P>) {
        let period = self.period.load(Ordering::Acquire);
        self.state(cpu.id()).answered.store(period, Ordering::Relaxed);
        // Before this CPU's first read: a period that does not see it online began before, and
        // what it protects was detached before that read.
        if !mutated!(OnlineUnfenced) {
            P::fence();
        }
    }

    fn offline(&self, cpu: &Cpu<'_, P>) {
        // Release pairs with the acquire in `has_ended`: this CPU's reads come before.
        let order = if mutated!(OfflineRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        self.state(cpu.id()).answered.store(OFFLINE, order);
    }

    #[inline(always)]
    fn read<'a>(&'a self, _: &'a Cpu<'_, P>) -> QsbrGuard<'a> {
        QsbrGuard(PhantomData)
    }

    unsafe fn defer(&self, cpu: &Cpu<'_, P>, head: *mut RcuHead<P>, function: RcuFn<P>) {
        // SAFETY: the same contract.
        unsafe { self.state(cpu.id()).incoming.push(head, function) };
    }

    #[inline(always)]
    fn quiescent(&self, cpu: &Cpu<'_, P>) {
        let state = self.state(cpu.id());
        let period = self.period.load(Ordering::Relaxed);
        // Relaxed: written by this CPU alone.
        if state.answered.load(Ordering::Relaxed) != period {
            // Full barriers on both sides: this CPU's earlier reads come before the answer, and
            // its later reads see what was detached before the period was asked for.
            if !mutated!(AnswerUnfenced) {
                P::fence();
            }
            state.answered.store(period, Ordering::Release);
            P::fence();
        }
        if !state.incoming.is_empty() || !state.waiting.get().is_null() {
            self.reclaim(cpu, state);
        }
    }

    fn drain(&self, cpu: &Cpu<'_, P>) -> bool {
        // All other CPUs are offline and this one has no section open: every period has ended.
        let mut any = false;
        for state in &self.cpus {
            let waiting = state.waiting.replace(ptr::null_mut());
            // SAFETY: nobody reads any more.
            any |= unsafe { run_list(waiting, cpu) };
            // SAFETY: as above.
            any |= unsafe { run_list(state.incoming.take(), cpu) };
        }
        any
    }
}

impl<P: Platform> QsbrReclaim<P> {
    #[inline(always)]
    fn state(&self, cpu: CpuId) -> &CpuState<P> {
        &self.cpus[cpu.index()]
    }

    #[cold]
    fn reclaim(&self, cpu: &Cpu<'_, P>, state: &CpuState<P>) {
        if state.waiting.get().is_null() {
            state.waiting.set(state.incoming.take());
            // After the heads were detached, before the period is read: a CPU that answers a
            // later period cannot reach them any more.
            if !mutated!(RequestUnfenced) {
                P::fence();
            }
            let period = self.period.load(Ordering::Relaxed);
            state.target.set(if mutated!(PeriodOfThePast) { period } else { period + 1 });
            state.states_until_scan.set(0);
            // Ask for it, unless somebody did since. AcqRel: what was detached before is seen by
            // whoever answers.
            let _ = self.period.cas(period, period + 1, Ordering::AcqRel, Ordering::Relaxed);
            return;
        }
        let target = state.target.get();
        // Acquire pairs with the release below: another CPU found that the period has ended.
        if self.ended.load(Ordering::Acquire) < target {
            let left = state.states_until_scan.get();
            if left > 0 {
                state.states_until_scan.set(left - 1);
                return;
            }
            state.states_until_scan.set(QUIESCENT_STATES_PER_SCAN);
            if !self.has_ended(target) {
                return;
            }
            self.publish_end(target);
        }
        let ready = state.waiting.replace(ptr::null_mut());
        // SAFETY: taken from the stack; every CPU passed a quiescent state since.
        unsafe { run_list(ready, cpu) };
    }

    /// Returns whether every online CPU answered period `target`.
    fn has_ended(&self, target: u64) -> bool {
        // Acquire pairs with the release of each answer: the reads before it are done.
        let cpus = &self.cpus[usize::from(mutated!(PeriodSkipsFirstCpu))..];
        let ended = cpus.iter().all(|state| state.answered.load(Ordering::Acquire) >= target);
        if ended {
            // A CPU that was seen offline may come online now; its fence in `online` and this
            // one order its first read after what was detached.
            P::fence();
        }
        ended
    }

    fn publish_end(&self, target: u64) {
        let mut seen = self.ended.load(Ordering::Relaxed);
        while seen < target {
            // Release pairs with the acquire in `reclaim`.
            match self.ended.cas(seen, target, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => seen = found,
            }
        }
    }
}

#[cfg(test)]
mod tests;
