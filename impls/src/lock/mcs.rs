//! The MCS lock: a queue of waiters, each of which spins on a line of its own (Mellor-Crummey and
//! Scott, "Algorithms for scalable synchronization on shared-memory multiprocessors", TOCS 1991).
//!
//! The lock is one pointer, to the last of the queue. A newcomer exchanges it for its own node,
//! tells the one in front, and waits; a holder that leaves hands the lock to the one behind, or
//! clears the pointer if there is none. A handover moves the same few lines whatever the number of
//! waiters.
//!
//! Invariants: first come, first served in the order of the exchanges; the pointer is null exactly if
//! nobody holds or waits; a node is in one queue at a time, from the exchange to the release.

use core::ptr;

use super::node::{GRANTED, Taken, WAITING, WaitNode};
use super::{Lock, RawLock, run_before};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// See the module.
pub struct Mcs<P: Platform> {
    pub(super) tail: P::Ptr<WaitNode<P>>,
}

impl<P: Platform> Lock<P> for Mcs<P> {
    const ID: &'static str = "mcs";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { tail: P::Ptr::new("lock.tail", ptr::null_mut()) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        let taken = cpu.this.wait.take();
        enter(&self.tail, taken.node);
        Ok(run_before(section, || self.hand_over(cpu, &taken)))
    }

    fn is_held(&self) -> bool {
        !self.tail.load(Ordering::Relaxed).is_null()
    }
}

impl<P: Platform> RawLock<P> for Mcs<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        enter(&self.tail, cpu.this.wait.push());
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        self.hand_over(cpu, &cpu.this.wait.taken_last());
    }
}

impl<P: Platform> Mcs<P> {
    /// Leaves the queue with the holder's node, the one taken last, and gives the node back.
    #[inline(always)]
    fn hand_over(&self, cpu: &Cpu<'_, P>, taken: &Taken<'_, P>) {
        leave(cpu, &self.tail, taken.node, GRANTED);
        cpu.this.wait.give_back(taken);
    }
}

/// Enters a queue and waits; returns what the waiter in front said, or `None` if there was none.
#[inline(always)]
pub(super) fn enter<P: Platform>(tail: &P::Ptr<WaitNode<P>>, node: &WaitNode<P>) -> Option<u32> {
    // A store only where the last wait left something: the exchange has to wait for it. Not with the
    // announcement: the one behind may have written to the line by then. Relaxed: the exchange publishes it.
    if node.state.load(Ordering::Relaxed) != WAITING {
        node.state.store(WAITING, Ordering::Relaxed);
    }
    // AcqRel: publishes the node to the next newcomer, and sees the one in front, or what the last
    // holder did.
    let front = tail.swap(node.address(), Ordering::AcqRel);
    // SAFETY: who is in the queue leaves it by telling the one behind.
    let front = unsafe { front.as_ref() }?;
    // Release pairs with the acquire in `leave`: the node is ready.
    front.behind.store(node.address(), Ordering::Release);
    Some(node.wait_for_state())
}

/// Leaves a queue at its front, telling the one behind `said`, or closes it.
#[inline(always)]
pub(super) fn leave<P: Platform>(
    cpu: &Cpu<'_, P>,
    tail: &P::Ptr<WaitNode<P>>,
    node: &WaitNode<P>,
    said: u32,
) {
    if node.behind.load(Ordering::Relaxed).is_null() {
        if planted!(cpu, QueueClosedUnseen) {
            // A newcomer between the look and the store is lost.
            tail.store(ptr::null_mut(), Ordering::Release);
            return;
        }
        // Release pairs with the acquire of whoever finds the queue closed.
        let closed =
            tail.cas(node.address(), ptr::null_mut(), Ordering::Release, Ordering::Relaxed);
        if closed.is_ok() || planted!(cpu, LateNewcomerForgotten) {
            return;
        }
    }
    let order = if planted!(cpu, TurnGivenRelaxed) { Ordering::Relaxed } else { Ordering::Release };
    // A newcomer has exchanged the tail, so it announces itself. Acquire pairs with the release in `enter`.
    // SAFETY: nodes belong to the machine, which outlives the wait.
    let behind = P::wait_until(|| unsafe { node.behind.load(Ordering::Acquire).as_ref() });
    // Release pairs with the acquire in `wait_for_state`.
    behind.state.store(said, order);
    // Relaxed: the exchange of the next queue publishes it.
    node.behind.store(ptr::null_mut(), Ordering::Relaxed);
}
