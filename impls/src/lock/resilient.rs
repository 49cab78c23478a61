//! The resilient queued spinlock: a queued spinlock that gives up instead of hanging.
//!
//! It finds a lock taken twice on one CPU (AA) as soon as a wait begins, two CPUs that wait for
//! each other (ABBA) within milliseconds by their tables of held locks ([`super::held`]), and
//! everything else by a timeout. A waiter that fails leaves lock and table as if it had not come;
//! when the head of the queue fails, the whole queue is dismantled from the head: each waiter
//! tells the next one to fail too. (Dwivedi and Starovoitov's rqspinlock, after the description in
//! the kernel's mailing lists.)

use super::held::{is_cycle, is_held_here, leave_failed};
use super::queued::{
    Claim, Form, GO, LOCKED_MASK, LOCKED_PENDING, QueueNode, QueuedWord, WordForm, announce,
    decode_tail, encode_tail, wait_for_next, wait_for_turn,
};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Memory, Ordering, Platform, Word};

/// How long the pending waiter waits, and whoever waits without a queue node.
pub const TIMEOUT_NS: u64 = 250_000_000;
/// How long the head of the queue waits: the owner and the pending waiter may both be ahead.
pub const HEAD_TIMEOUT_NS: u64 = 2 * TIMEOUT_NS;
/// How long the test-and-set form waits.
pub const TAS_TIMEOUT_NS: u64 = 1_000_000_000;
/// How often a waiter looks for an ABBA deadlock.
pub const CYCLE_CHECK_NS: u64 = 1_000_000;

/// [`QueueNode::turn`]: the waiter in front failed; fail too.
const FAIL: u32 = 2;

/// The seldom condition of a wait: deadlock checks and timeout.
struct Patience<'a, 'm, P: Platform> {
    cpu: &'a Cpu<'m, P>,
    lock: *mut (),
    timeout_ns: u64,
    /// When the wait began and when a cycle was last looked for; `None` before the first check.
    began_ns: Option<u64>,
    checked_ns: u64,
}

impl<'a, 'm, P: Platform> Patience<'a, 'm, P> {
    fn new(cpu: &'a Cpu<'m, P>, lock: *mut (), timeout_ns: u64) -> Self {
        Self { cpu, lock, timeout_ns, began_ns: None, checked_ns: 0 }
    }

    /// Why to give up, if there is a reason. `released` tells that the lock became free.
    fn lost(&mut self, released: impl FnMut() -> bool) -> Option<Errno> {
        let now_ns = P::now_ns();
        let Some(began_ns) = self.began_ns else {
            self.began_ns = Some(now_ns);
            self.checked_ns = now_ns;
            return None;
        };
        if now_ns - began_ns >= self.timeout_ns {
            return Some(Errno::ETIMEDOUT);
        }
        if now_ns - self.checked_ns < CYCLE_CHECK_NS {
            return None;
        }
        self.checked_ns = now_ns;
        is_cycle(self.cpu, self.lock, released).then_some(Errno::EDEADLK)
    }
}

/// AA, before the wait begins. Before, because a waiter behind others cannot look: one that waited
/// in the queue for its own CPU's interrupted pending waiter would keep the head in front of it
/// from the lock until that timed out.
fn refuse_own<P: Platform>(cpu: &Cpu<'_, P>, lock: *mut ()) -> Result<(), Errno> {
    if is_held_here(cpu, lock) { Err(Errno::EDEADLK) } else { Ok(()) }
}

/// See the module.
pub struct Resilient<P: Memory, F = WordForm> {
    pub(super) word: QueuedWord<P, F>,
}

impl<P: Platform, F: Form> Lock<P> for Resilient<P, F> {
    const ID: &'static str = F::RESILIENT;
    const FALLIBLE: bool = true;

    fn new() -> Self {
        Self { word: QueuedWord::new() }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.word.is_locked()
    }
}

impl<P: Platform, F: Form> RawLock<P> for Resilient<P, F> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // Before the attempt: an NMI that arrives after it must find the entry.
        cpu.this.held.enter(self.address());
        match self.word.try_fast() {
            Ok(()) => Ok(()),
            Err(found) => self.acquire_slow(cpu, found),
        }
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // The lock first: an NMI in between that wants it finds an entry for a free lock, which
        // it takes; the other way round it would wait for a lock that nobody seems to hold.
        self.word.release();
        cpu.this.held.leave();
    }
}

impl<P: Platform, F: Form> Resilient<P, F> {
    #[inline(always)]
    fn address(&self) -> *mut () {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>, found: u32) -> Result<(), Errno> {
        let acquired = refuse_own(cpu, self.address()).and_then(|()| {
            if self.word.set_pending(found) {
                self.acquire_pending(cpu)
            } else {
                self.acquire_queued(cpu)
            }
        });
        if acquired.is_err() {
            leave_failed(cpu);
        }
        acquired
    }

    fn acquire_pending(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let mut patience = Patience::new(cpu, self.address(), TIMEOUT_NS);
        let waited = P::wait_until_or(
            || self.word.try_pending().then_some(Ok(())),
            || patience.lost(|| self.word.load() & LOCKED_MASK == 0).map(Err),
        );
        if waited.is_err() && !planted!(cpu, PendingLeft) {
            self.word.clear_pending();
        }
        waited
    }

    fn acquire_queued(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let claim = Claim::new(cpu);
        // An NMI over a waiter of its own CPU stays out of the queues. That waiter may be the head of
        // one and cannot watch the clock meanwhile; two NMIs that wait, each behind the other's
        // interrupted head, would wait for ever.
        let over_waiter = cpu.in_nmi() && claim.level > 0;
        let Some(node) = claim.node().filter(|_| !over_waiter) else {
            return self.acquire_without_node(cpu);
        };
        // The lock may have become free while the node was made ready.
        if self.word.try_acquire() {
            return Ok(());
        }
        let tail = encode_tail(cpu.id(), claim.level);
        let front = self.word.swap_tail(tail);
        if let Some(front) = decode_tail(cpu.machine(), front) {
            announce(front, node);
            // Only the head watches the clock: its timeout reaches those behind it.
            if wait_for_turn(node) == FAIL {
                self.leave_queue(cpu, node, tail);
                return Err(Errno::EDEADLK);
            }
        }
        let mut patience = Patience::new(cpu, self.address(), HEAD_TIMEOUT_NS);
        let waited = P::wait_until_or(
            || self.word.try_head(tail).map(Ok),
            || patience.lost(|| self.word.load() & LOCKED_PENDING == 0).map(Err),
        );
        match waited {
            Ok(last) => {
                if !last {
                    // Release pairs with the acquire in `wait_for_turn`.
                    wait_for_next(node).turn.store(GO, Ordering::Release);
                }
                Ok(())
            }
            Err(errno) => {
                self.leave_queue(cpu, node, tail);
                Err(errno)
            }
        }
    }

    /// The head of the queue leaves without the lock: it takes the tail away if it is the last,
    /// else the next one is told to fail, and to tell the one behind it.
    fn leave_queue(&self, cpu: &Cpu<'_, P>, node: &QueueNode<P>, tail: u16) {
        if !self.word.try_remove_tail(tail) {
            let next = wait_for_next(node);
            if planted!(cpu, SuccessorNotTold) {
                return;
            }
            // Release pairs with the acquire in `wait_for_turn`.
            next.turn.store(FAIL, Ordering::Release);
        }
    }

    /// No node, or none that may be used: tries until it succeeds or loses patience.
    fn acquire_without_node(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let mut patience = Patience::new(cpu, self.address(), TIMEOUT_NS);
        P::wait_until_or(
            || self.word.try_acquire().then_some(Ok(())),
            || patience.lost(|| self.word.load() == 0).map(Err),
        )
    }
}

/// The test-and-set form, for hosts on which a waiter's CPU may not run.
pub struct ResilientTas<P: Memory> {
    word: QueuedWord<P, WordForm>,
}

impl<P: Platform> Lock<P> for ResilientTas<P> {
    const ID: &'static str = "rqspin-tas";
    const FALLIBLE: bool = true;

    fn new() -> Self {
        Self { word: QueuedWord::new() }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.word.is_locked()
    }
}

impl<P: Platform> RawLock<P> for ResilientTas<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        cpu.this.held.enter(core::ptr::from_ref(self).cast_mut().cast());
        match self.word.try_fast() {
            Ok(()) => Ok(()),
            Err(_) => self.acquire_slow(cpu),
        }
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // In this order for the reason given at `Resilient`.
        self.word.release();
        cpu.this.held.leave();
    }
}

impl<P: Platform> ResilientTas<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let lock = core::ptr::from_ref(self).cast_mut().cast();
        let acquired = refuse_own(cpu, lock).and_then(|()| {
            let mut patience = Patience::new(cpu, lock, TAS_TIMEOUT_NS);
            P::wait_until_or(
                || self.word.try_acquire().then_some(Ok(())),
                || patience.lost(|| self.word.load() == 0).map(Err),
            )
        });
        if acquired.is_err() {
            leave_failed(cpu);
        }
        acquired
    }
}

#[cfg(test)]
mod tests {
    use super::{HEAD_TIMEOUT_NS, Resilient, TIMEOUT_NS, encode_tail};
    use crate::cell::Errno;
    use crate::lock::queued::Claim;
    use crate::lock::{Lock as _, RawLock as _};
    use crate::machine::{Cpu, MachineConfig};
    use crate::platform::{Memory as _, Stepped};
    use crate::{CpuId, Machine};

    /// What an acquire in an NMI returns, and how long it took, on a lock that is held and has a
    /// pending waiter for ever.
    fn in_nmi(machine: &Machine<Stepped>, cpu: &Cpu<'_, Stepped>) -> (Result<(), Errno>, u64) {
        let lock = Resilient::<Stepped>::new();
        lock.acquire(&machine.cpu(CpuId(1))).unwrap();
        assert!(lock.word.set_pending(lock.word.load()));
        let began_ns = Stepped::now_ns();
        let result = cpu.nmi(|nmi| lock.acquire(nmi));
        (result, Stepped::now_ns() - began_ns)
    }

    /// CPU 1's head waits for CPU 0's pending waiter, which is interrupted by an NMI that wants the
    /// same lock: behind that head it would keep the three of them waiting for the timeout.
    #[test]
    fn an_nmi_over_the_pending_waiter_of_its_lock_does_not_queue() {
        let machine = Machine::<Stepped>::new(MachineConfig::new(3));
        let [cpu, head, holder] = [0, 1, 2].map(|cpu| machine.cpu(CpuId(cpu)));
        let lock = Resilient::<Stepped>::new();
        lock.acquire(&holder).unwrap();
        cpu.this.held.enter(lock.address());
        assert!(lock.word.set_pending(lock.word.load()));
        let waiter = Claim::new(&head);
        waiter.node().unwrap();
        assert_eq!(lock.word.swap_tail(encode_tail(head.id(), waiter.level)), 0);
        let before = lock.word.load();
        assert_eq!(cpu.nmi(|nmi| lock.acquire(nmi)), Err(Errno::EDEADLK));
        assert_eq!(lock.word.load(), before, "as if it had not come");
        assert_eq!(cpu.this.held.len(), 1);
    }

    /// Two CPUs whose NMIs queued behind each other's interrupted heads hung for ever.
    #[test]
    fn an_nmi_over_a_waiter_does_not_queue() {
        let machine = Machine::new(MachineConfig::new(2));
        let cpu = machine.cpu(CpuId(0));
        let (result, took_ns) = in_nmi(&machine, &cpu);
        assert_eq!(result, Err(Errno::ETIMEDOUT));
        assert!(took_ns >= HEAD_TIMEOUT_NS, "alone on its CPU it queues: {took_ns}");
        let waiter = Claim::new(&cpu);
        let (result, took_ns) = in_nmi(&machine, &cpu);
        drop(waiter);
        assert_eq!(result, Err(Errno::ETIMEDOUT));
        assert!((TIMEOUT_NS..HEAD_TIMEOUT_NS).contains(&took_ns), "{took_ns}");
    }
}
