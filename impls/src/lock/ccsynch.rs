//! CC-Synch: delegation along a queue (Fatourou and Kallimanis, "Revisiting the combining
//! synchronization technique", PPoPP 2012).
//!
//! A caller exchanges the pointer of the lock for an empty node of its own, writes its section into the
//! node that it found, and waits on that. The one at the front runs the sections of those behind it, at
//! most [`MOST`] of them, and makes the next one the front. Nodes wander as in CLH.
//!
//! Invariants: each section runs once, first come, first served in the order of the exchanges; one CPU at
//! a time is the front; it runs at most [`MOST`] sections. A pointer and a node.
//!
//! [`Lock::with`] needs its section run here: it queues without one, and is the front when its turn comes.

use core::ptr::{self, NonNull};

use super::job::Job;
use super::node::{GRANTED, WaitNode};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// Sections that one CPU runs before the next one is the front.
pub const MOST: u32 = 64;
/// The same in model checkers.
const CHECKED_MOST: u32 = 2;
/// [`WaitNode::state`]: the section was run. [`GRANTED`]: its owner is the front.
const DONE: u32 = 2;

/// See the module.
pub struct CcSynch<P: Platform> {
    pub(super) tail: P::Ptr<WaitNode<P>>,
}

impl<P: Platform> Lock<P> for CcSynch<P> {
    const ID: &'static str = "ccsynch";
    const FALLIBLE: bool = false;
    const COMBINES: bool = true;

    fn new() -> Self {
        let node = WaitNode::<P>::allocate();
        // SAFETY: just allocated.
        // Relaxed: the lock itself is not published yet.
        unsafe { node.as_ref() }.state.store(GRANTED, Ordering::Relaxed);
        Self { tail: P::Ptr::new("lock.tail", node.as_ptr()) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    #[inline(always)]
    fn run<R: Send>(
        &self,
        cpu: &Cpu<'_, P>,
        section: impl FnOnce(&Cpu<'_, P>) -> R + Send,
    ) -> Result<R, Errno> {
        Ok(Job::post(section, |job| {
            let node = self.enter(cpu, ptr::from_ref(job).cast_mut());
            if node.wait_for_state() == GRANTED {
                // SAFETY: this CPU is the front, so nobody else runs it.
                unsafe { job.run(cpu) };
                self.serve(cpu, node);
            }
            cpu.this.wait.pop();
        }))
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

impl<P: Platform> RawLock<P> for CcSynch<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        self.enter(cpu, ptr::null_mut()).wait_for_state();
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        self.serve(cpu, cpu.this.wait.exchanged_last().node);
        cpu.this.wait.pop();
    }
}

impl<P: Platform> CcSynch<P> {
    /// Queues with a job, or null for one that this CPU runs itself; returns the node to wait on.
    #[inline(always)]
    fn enter<'a>(&self, cpu: &'a Cpu<'_, P>, job: *mut Job<P>) -> &'a WaitNode<P> {
        let empty = cpu.this.wait.take_exchanged().node;
        empty.reset();
        // AcqRel: publishes the empty node, and sees the one that is now ours.
        let own = self.tail.swap(empty.address(), Ordering::AcqRel);
        cpu.this.wait.replace_top(NonNull::new(own).expect("a lock always has a node"));
        let own = cpu.this.wait.exchanged_last().node;
        // Relaxed: the link publishes it.
        own.link.store(job.cast(), Ordering::Relaxed);
        // Release pairs with the acquire in `serve`.
        own.next.store(empty.address(), Ordering::Release);
        own
    }

    /// Runs, as the front, whose own section has run, those behind it and makes the next one the front.
    #[inline(always)]
    fn serve(&self, cpu: &Cpu<'_, P>, own: &WaitNode<P>) {
        let most = if P::QUARANTINE { CHECKED_MOST } else { MOST };
        let mut node = Self::behind(own).expect("linked before it was waited on");
        let mut ran = 1;
        // Without a link its section is not written yet.
        while let Some(next) = Self::behind(node).filter(|_| ran < most) {
            let job = node.link.load(Ordering::Relaxed).cast::<Job<P>>();
            if job.is_null() {
                break;
            }
            // SAFETY: its owner waits, and this CPU is the front.
            unsafe { (*job).run(cpu) };
            // Release pairs with the acquire of the wait: the result is there. The node is its owner's
            // from here.
            let said = if planted!(cpu, ServedMadeFront) { GRANTED } else { DONE };
            node.state.store(said, Ordering::Release);
            node = next;
            ran += 1;
        }
        if planted!(cpu, FrontNotPassed) && ran > 1 {
            return;
        }
        let order =
            if planted!(cpu, FrontPassedRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        // Release pairs with the acquire of the wait: the sections before come before.
        node.state.store(GRANTED, order);
    }

    /// Returns the node behind one, if its owner has linked it.
    fn behind(node: &WaitNode<P>) -> Option<&WaitNode<P>> {
        // Acquire pairs with the release in `enter`.
        // SAFETY: a node behind one that has not been served is the lock's, or its owner waits on it.
        unsafe { node.next.load(Ordering::Acquire).as_ref() }
    }
}

impl<P: Platform> Drop for CcSynch<P> {
    fn drop(&mut self) {
        let node = NonNull::new(self.tail.load(Ordering::Acquire));
        if let Some(node) = node {
            // SAFETY: the node that a free lock has is the lock's.
            unsafe { WaitNode::free(node) };
        }
    }
}
