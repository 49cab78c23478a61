//! An MCS lock whose waiters can give up: after Scott and Scherer's MCS-try ("Scalable queue-based spin
//! locks with timeout", PPoPP 2001).
//!
//! The queue is linked both ways. A waiter whose time is up takes itself out: it links its neighbours,
//! and if it was the last makes the one in front the last. Those that give up at the same time take
//! turns, by a word that only they use. The holder that leaves marks its own link as taken before
//! it follows it, so one of the two is first: the waiter that finds the mark is about to be given the
//! lock, and takes it although its time is up. So a node that has left is known to nobody.
//!
//! (The paper's waiters agree with both neighbours by marks on the links, instead of taking turns.)
//!
//! Invariants: those of MCS among those that stay; a waiter that failed is in no queue and the lock as
//! if it had not come; giving up waits for others that give up, never for the holder. Nobody looks
//! for deadlocks: one ends by timeout. Twelve bytes, sixteen by alignment. Not for NMI: one that
//! interrupts a waiter giving up could not give up itself.

use core::ptr;

use super::node::{GRANTED, WaitNode};
use super::{GivesUp, Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// See the module.
pub struct AbortableMcs<P: Platform> {
    pub(super) tail: P::Ptr<WaitNode<P>>,
    /// Non-zero while a waiter takes itself out.
    leaving: P::U32,
}

/// Returns the holder follows this link, or has followed it.
fn taken<P: Platform>() -> *mut WaitNode<P> {
    ptr::without_provenance_mut(1)
}

impl<P: Platform> Lock<P> for AbortableMcs<P> {
    const ID: &'static str = "mcs-abortable";
    const FALLIBLE: bool = true;
    const GIVES_UP: GivesUp = GivesUp::InTime;

    fn new() -> Self {
        Self {
            tail: P::Ptr::new("lock.tail", ptr::null_mut()),
            leaving: P::U32::new("lock.leaving", 0),
        }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        !self.tail.load(Ordering::Relaxed).is_null()
    }
}

impl<P: Platform> RawLock<P> for AbortableMcs<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let node = cpu.this.wait.push();
        node.reset();
        // AcqRel: publishes the node to the next newcomer, and sees the one in front, or what the
        // last holder did.
        let front = self.tail.swap(node.address(), Ordering::AcqRel);
        // SAFETY: nodes belong to the machine; the one in front knows this one before it leaves.
        let Some(front) = (unsafe { front.as_ref() }) else { return Ok(()) };
        // Relaxed: the announcement publishes it to the one behind and in front.
        node.link.store(front.address(), Ordering::Relaxed);
        front.announce(node);
        if self.wait(cpu, node) || !self.leave(cpu, node) {
            return Ok(());
        }
        cpu.this.wait.pop();
        Err(Errno::ETIMEDOUT)
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let node = cpu.this.wait.top();
        loop {
            // Acquire pairs with the release of whoever wrote the link.
            let next = node.next.load(Ordering::Acquire);
            // SAFETY: nodes belong to the machine.
            if let Some(next) = unsafe { next.as_ref() } {
                if !take_link(cpu, node, next) {
                    continue;
                }
                // Release pairs with the acquires that look for it.
                next.state.store(GRANTED, Ordering::Release);
                break;
            }
            let free = ptr::null_mut();
            // Release pairs with the acquire of whoever finds the lock free.
            if self.tail.cas(node.address(), free, Ordering::Release, Ordering::Relaxed).is_ok() {
                break;
            }
            // A newcomer is about to announce itself; or it has given up, and this is the last again.
            P::wait_until(|| {
                let linked = !node.next.load(Ordering::Relaxed).is_null();
                (linked || self.tail.load(Ordering::Relaxed) == node.address()).then_some(())
            });
        }
        cpu.this.wait.pop();
    }
}

/// Marks the holder's link as taken if it still leads to `next`; whether it did.
#[inline(always)]
fn take_link<P: Platform>(cpu: &Cpu<'_, P>, node: &WaitNode<P>, next: &WaitNode<P>) -> bool {
    planted!(cpu, LinkNotTaken)
        // Relaxed: the load before acquired.
        || node.next.cas(next.address(), taken(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn is_granted<P: Platform>(node: &WaitNode<P>) -> bool {
    // Acquire pairs with the release of the holder.
    node.state.load(Ordering::Acquire) == GRANTED
}

impl<P: Platform> AbortableMcs<P> {
    /// Waits for the lock; returns whether it came in time.
    #[cold]
    fn wait(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>) -> bool {
        let mut began_ns = None;
        P::wait_until_or(
            || is_granted(node).then_some(true),
            || {
                let now_ns = P::now_ns();
                let began_ns = *began_ns.get_or_insert(now_ns);
                (now_ns - began_ns >= cpu.machine().config().lock_timeout_ns).then_some(false)
            },
        )
    }

    /// Takes the waiter out of the queue; `false`: it has the lock after all.
    #[cold]
    fn leave(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>) -> bool {
        let turn = P::wait_until(|| {
            if is_granted(node) {
                return Some(false);
            }
            if planted!(cpu, LeavingTogether) {
                return Some(true);
            }
            // Acquire pairs with the release below: the links as the last one left them.
            (self.leaving.load(Ordering::Relaxed) == 0
                && self.leaving.cas(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok())
            .then_some(true)
        });
        if !turn {
            return false;
        }
        let left = self.unlink(cpu, node);
        // Release pairs with the acquire above.
        self.leaving.store(0, Ordering::Release);
        if !left {
            // The holder is in between taking the link and giving the lock.
            node.wait_for_state();
        }
        left
    }

    /// Links the neighbours; `false`: the one in front has taken its link to this one.
    fn unlink(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>) -> bool {
        // SAFETY: nodes belong to the machine. If the one in front has gone, its link does not lead here
        // any more, and the comparison fails.
        let front = unsafe { &*node.link.load(Ordering::Relaxed) };
        let (own, free) = (node.address(), ptr::null_mut());
        // Acquire pairs with the release in `announce`.
        // SAFETY: behind this one, and cannot leave meanwhile.
        if let Some(next) = unsafe { node.next.load(Ordering::Acquire).as_ref() } {
            // Before it can become the next in line, and be gone.
            next.link.store(front.address(), Ordering::Relaxed);
            // Release: whoever follows the link finds the node as it is.
            if front.next.cas(own, next.address(), Ordering::Release, Ordering::Relaxed).is_ok() {
                return true;
            }
            next.link.store(own, Ordering::Relaxed);
            return false;
        }
        if front.next.cas(own, free, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        // AcqRel: a newcomer finds the one in front as it is.
        let last = self.tail.cas(own, front.address(), Ordering::AcqRel, Ordering::Relaxed);
        if last.is_err() && !planted!(cpu, NewcomerLost) {
            // Somebody has come; it knows this one as the one in front.
            let next = node.wait_for_next();
            next.link.store(front.address(), Ordering::Relaxed);
            front.announce(next);
        }
        true
    }
}
