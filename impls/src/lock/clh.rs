//! The CLH lock: a queue in which each waiter spins on the node of the one in front (Craig 1993;
//! Magnusson, Landin and Hagersten, "Queue locks on cache coherent multiprocessors", IPPS 1994).
//!
//! The lock is one pointer, to the node of the last who came; that of a free lock says that it was
//! released. A newcomer exchanges the pointer for its own node and waits for the one it found. When
//! it leaves, its node stays with the lock or its successor, and it goes on with the one that it
//! found: nodes wander between CPUs. A release is one store, and needs no look at the successor.
//!
//! Invariants: first come, first served in the order of the exchanges; the nodes of the CPUs and one
//! for each lock are all there are, each owned once. A lock takes the pointer and its node.

use core::ptr::NonNull;

use super::node::{GRANTED, Taken, WAITING, WaitNode};
use super::{Lock, RawLock, run_before};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// See the module.
pub struct Clh<P: Platform> {
    pub(super) tail: P::Ptr<WaitNode<P>>,
}

impl<P: Platform> Lock<P> for Clh<P> {
    const ID: &'static str = "clh";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        let node = WaitNode::<P>::allocate();
        // SAFETY: just allocated.
        // Relaxed: the lock itself is not published yet.
        unsafe { node.as_ref() }.state.store(GRANTED, Ordering::Relaxed);
        Self { tail: P::Ptr::new("lock.tail", node.as_ptr()) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        let (taken, front) = self.enter(cpu);
        Ok(run_before(section, || self.hand_over(cpu, &taken, front)))
    }

    fn is_held(&self) -> bool {
        // SAFETY: nobody moves, so the node is the lock's.
        let last = unsafe { &*self.tail.load(Ordering::Acquire) };
        last.state.load(Ordering::Relaxed) != GRANTED
    }

    fn space_bytes() -> usize {
        size_of::<Self>() + size_of::<crossbeam_utils::CachePadded<WaitNode<P>>>()
    }
}

impl<P: Platform> RawLock<P> for Clh<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let (taken, front) = self.enter(cpu);
        // Relaxed: nobody else looks at it.
        taken.node.link.store(front, Ordering::Relaxed);
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let taken = cpu.this.wait.exchanged_last();
        self.hand_over(cpu, &taken, taken.node.link.load(Ordering::Relaxed));
    }
}

impl<P: Platform> Clh<P> {
    /// Enters the queue and waits for the lock; returns the CPU's node and the one in front of it.
    #[inline(always)]
    fn enter<'a>(&self, cpu: &Cpu<'a, P>) -> (Taken<'a, P>, *mut WaitNode<P>) {
        let taken = cpu.this.wait.take_exchanged();
        // Relaxed: the exchange publishes it.
        taken.node.state.store(WAITING, Ordering::Relaxed);
        // AcqRel: publishes the node to the next, and sees the one in front.
        let front = self.tail.swap(taken.node.address(), Ordering::AcqRel);
        // SAFETY: this CPU alone goes on with that node, once it was released.
        unsafe { &*front }.wait_for_state();
        (taken, front)
    }

    /// Releases the lock, whose holder goes on with the node in front of its own.
    #[inline(always)]
    fn hand_over(&self, cpu: &Cpu<'_, P>, taken: &Taken<'_, P>, front: *mut WaitNode<P>) {
        // Release pairs with the acquire in `wait_for_state`. The node is the successor's from here.
        taken.node.state.store(GRANTED, Ordering::Release);
        if planted!(cpu, ReleasedNodeReused) {
            cpu.this.wait.give_back(taken);
        } else {
            let front = NonNull::new(front).expect("a lock always has a node");
            cpu.this.wait.give_back_as(taken, front);
        }
    }
}

impl<P: Platform> Drop for Clh<P> {
    fn drop(&mut self) {
        let node = NonNull::new(self.tail.load(Ordering::Acquire));
        if let Some(node) = node {
            // SAFETY: the node that a free lock has is the lock's.
            unsafe { WaitNode::free(node) };
        }
    }
}
