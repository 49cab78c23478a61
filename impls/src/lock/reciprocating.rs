//! Reciprocating lock: newcomers push themselves onto a stack, and are served from the top of what had
//! come when the last lot was served (Dice and Kogan, "Reciprocating Locks", PPoPP 2025).
//!
//! The lock is one pointer. While it is held it names the top of the stack of those who have come since
//! the last lot was taken off, or says that there is none. A waiter that is served knows who is
//! beneath it in its lot; the last of a lot takes the next lot off by one exchange. So acquire and
//! release are of constant time, and each handover writes one line, to a waiter that spins on its
//! own.
//!
//! The bottom of a lot is known by its mark: the address beneath it, which is handed down the lot. It
//! is compared, never followed.
//!
//! Invariants: lots are served in the order of their arrival; within one, the last comes first. So a
//! waiter is passed by each other CPU at most once in its own lot and once before: not first come,
//! first served, but bounded (twice the number of waiters). A waiter is in one lot, once.

use core::ptr;

use super::node::WaitNode;
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// See the module.
pub struct Reciprocating<P: Platform> {
    pub(super) arrivals: P::Ptr<WaitNode<P>>,
}

/// Returns the lock is held, and nobody has come since the last lot was taken off.
fn none_came<P: Platform>() -> *mut WaitNode<P> {
    ptr::without_provenance_mut(1)
}

impl<P: Platform> Lock<P> for Reciprocating<P> {
    const ID: &'static str = "reciprocating";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { arrivals: P::Ptr::new("lock.arrivals", ptr::null_mut()) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        !self.arrivals.load(Ordering::Relaxed).is_null()
    }
}

impl<P: Platform> RawLock<P> for Reciprocating<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let node = cpu.this.wait.push();
        // Relaxed: the exchange publishes it.
        node.link.store(ptr::null_mut(), Ordering::Relaxed);
        // AcqRel: publishes the node, and sees what the last holder did.
        let mut beneath = self.arrivals.swap(node.address(), Ordering::AcqRel);
        let mut mark = node.address();
        if !beneath.is_null() {
            if beneath == none_came() {
                beneath = ptr::null_mut();
            }
            // Acquire pairs with the release of whoever serves this waiter.
            mark = P::wait_until(|| {
                Some(node.link.load(Ordering::Acquire)).filter(|mark| !mark.is_null())
            });
            if beneath == mark && !planted!(cpu, BottomNotSeen) {
                beneath = ptr::null_mut();
                mark = none_came();
            }
        }
        // Kept for the release. Relaxed: nobody else looks at them.
        node.next.store(beneath, Ordering::Relaxed);
        node.link.store(mark, Ordering::Relaxed);
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let node = cpu.this.wait.top();
        let (beneath, mark) =
            (node.next.load(Ordering::Relaxed), node.link.load(Ordering::Relaxed));
        cpu.this.wait.pop();
        // SAFETY: waits until it is served.
        if let Some(beneath) = unsafe { beneath.as_ref() } {
            beneath.serve(mark);
            return;
        }
        if planted!(cpu, ArrivalsOverwritten) {
            // A newcomer between the look and the store is lost.
            if self.arrivals.load(Ordering::Relaxed) == mark {
                self.arrivals.store(ptr::null_mut(), Ordering::Release);
                return;
            }
        }
        // Release pairs with the acquire of whoever finds the lock free.
        if self.arrivals.cas(mark, ptr::null_mut(), Ordering::Release, Ordering::Relaxed).is_err() {
            let held = if planted!(cpu, LotLeavesNoMark) { ptr::null_mut() } else { none_came() };
            // AcqRel: sees the nodes of the lot.
            let top = self.arrivals.swap(held, Ordering::AcqRel);
            // SAFETY: somebody came, as the comparison found; it waits until it is served.
            unsafe { top.as_ref() }.expect("somebody came").serve(mark);
        }
    }
}

impl<P: Platform> WaitNode<P> {
    /// Hands the lock to this waiter, with the mark of its lot's bottom.
    #[inline(always)]
    fn serve(&self, mark: *mut Self) {
        // Release pairs with the acquire of the wait: the section comes before the next.
        self.link.store(mark, Ordering::Release);
    }
}
