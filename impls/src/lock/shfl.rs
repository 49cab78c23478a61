//! ShflLock: a queue whose waiters sort it while they wait (Kashyap et al., "Scalable and practical
//! locking with shuffling", SOSP 2019; the non-blocking form).
//!
//! The lock is a test-and-set word, and a pointer to the last of an MCS queue. The head of the queue
//! spins on the word; a newcomer may take it past the queue only while there is none. One waiter at a
//! time is the shuffler: it moves waiters of its own NUMA node up behind it, and then gives the
//! role to the last of them. The holder takes no part, and has left the queue.
//!
//! Invariants: there is one shuffler at most, and it changes the queue behind itself alone; the last of
//! the queue is never moved; a batch is of [`BATCH`] waiters at most, which bounds how often others
//! are passed. Sixteen bytes.

use core::ptr;

use super::node::{GRANTED, WaitNode};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{IntWord, Ordering, Platform, SplitWord, Word};

/// Waiters that are brought together at most; the paper's value.
pub const BATCH: u32 = 1024;
/// The same in model checkers.
const CHECKED_BATCH: u32 = 2;

const LOCKED: u32 = 1;
/// There is a queue: newcomers stay behind it.
const QUEUE: u32 = 1 << 8;

/// [`WaitNode::role`]: number in the batch, 0 for none.
const NUMBER: u32 = (1 << 15) - 1;
/// [`WaitNode::role`]: this waiter is to shuffle.
const SHUFFLER: u32 = 1 << 15;
/// [`WaitNode::role`]: where the NUMA node begins.
const NODE_SHIFT: u32 = 16;

/// See the module.
pub struct Shfl<P: Platform> {
    word: P::U32,
    pub(super) tail: P::Ptr<WaitNode<P>>,
}

impl<P: Platform> Lock<P> for Shfl<P> {
    const ID: &'static str = "shfllock";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { word: P::U32::new("lock.word", 0), tail: P::Ptr::new("lock.tail", ptr::null_mut()) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) & LOCKED != 0
    }
}

impl<P: Platform> RawLock<P> for Shfl<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // Acquire pairs with the release of the last holder.
        if self.word.cas(0, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.acquire_slow(cpu);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, _: &Cpu<'_, P>) {
        self.word.clear_low_byte_release();
    }
}

impl<P: Platform> Shfl<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>) {
        let node = cpu.this.wait.push();
        node.reset();
        // Relaxed: the exchange publishes it.
        node.role.store(u32::from(cpu.numa_node()) << NODE_SHIFT, Ordering::Relaxed);
        // AcqRel: publishes the node to the next newcomer, and sees the one in front.
        let front = self.tail.swap(node.address(), Ordering::AcqRel);
        // SAFETY: who is in the queue leaves it by telling the one behind.
        if let Some(front) = unsafe { front.as_ref() } {
            front.announce(node);
            self.wait_for_head(cpu, node);
        } else {
            // Relaxed: it publishes nothing.
            self.word.fetch_or(QUEUE, Ordering::Relaxed);
        }
        self.take(cpu, node);
        self.leave_queue(cpu, node);
        cpu.this.wait.pop();
    }

    /// Waits until the one in front has left the queue, shuffling when it is this waiter's turn to.
    fn wait_for_head(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>) {
        let is_head = || {
            // Acquire pairs with the release in `leave_queue`, and with that of the shuffler before.
            let head = node.state.load(Ordering::Acquire) == GRANTED;
            (head || node.role.load(Ordering::Acquire) & SHUFFLER != 0).then_some(head)
        };
        while !P::wait_until(is_head) {
            self.shuffle(cpu, node, || node.state.load(Ordering::Relaxed) == GRANTED);
            P::relax();
        }
    }

    /// Takes the lock, as the head.
    fn take(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>) {
        let is_free = || self.word.load(Ordering::Relaxed) & LOCKED == 0;
        loop {
            // Acquire pairs with the release of the shuffler before.
            let role = node.role.load(Ordering::Acquire);
            if role & SHUFFLER != 0 || role & NUMBER == 0 {
                self.shuffle(cpu, node, is_free);
            }
            P::wait_until(|| {
                let shuffler = node.role.load(Ordering::Relaxed) & SHUFFLER != 0;
                (is_free() || shuffler).then_some(())
            });
            // Acquire pairs with the release of the last holder.
            if is_free() && self.word.set_low_byte_acquire() {
                return;
            }
            P::relax();
        }
    }

    /// Leaves the queue to the next, as the holder, who is the head.
    fn leave_queue(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>) {
        if node.next.load(Ordering::Relaxed).is_null() {
            // Before the queue is closed: a newcomer that opens it sets the bit again. Nobody can use
            // the moment, as the lock is held.
            self.word.clear_second_byte();
            if planted!(cpu, QueueDroppedUnseen) {
                // A newcomer between the look and the store is lost.
                return self.tail.store(ptr::null_mut(), Ordering::Relaxed);
            }
            let closed = self.tail.cas(
                node.address(),
                ptr::null_mut(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if closed.is_ok() {
                return;
            }
            self.word.fetch_or(QUEUE, Ordering::Relaxed);
        }
        if planted!(cpu, NextHeadNotTold) {
            return;
        }
        // Release pairs with the acquire in `wait_for_head`.
        node.wait_for_next().state.store(GRANTED, Ordering::Release);
    }

    /// Moves waiters of the own NUMA node up behind this one, until there are no more, or one was found and
    /// it is `enough`; makes the last of them the shuffler. Before one was found it goes on though the
    /// lock is free, as published: with short sections nobody would ever shuffle.
    fn shuffle(&self, cpu: &Cpu<'_, P>, node: &WaitNode<P>, enough: impl Fn() -> bool) {
        let role = node.role.load(Ordering::Relaxed);
        let numa_node = role >> NODE_SHIFT;
        let mut number = (role & NUMBER).max(1);
        // Relaxed: whoever is given the role next acquires it.
        node.role.store(numa_node << NODE_SHIFT | number, Ordering::Relaxed);
        let most = if P::QUARANTINE { CHECKED_BATCH } else { BATCH };
        let (mut before, mut last) = (node, node);
        let mut found = false;
        while number < most {
            // Acquire pairs with the release in `announce`.
            let current = before.next.load(Ordering::Acquire);
            let is_last = current == self.tail.load(Ordering::Relaxed);
            // SAFETY: nodes belong to the machine, and those in the queue wait.
            let Some(current) = (unsafe { current.as_ref() }) else { break };
            if is_last && !planted!(cpu, LastWaiterShuffled) {
                break;
            }
            if current.role.load(Ordering::Relaxed) >> NODE_SHIFT != numa_node {
                before = current;
            } else {
                if !ptr::eq(before, last) {
                    let next = current.next.load(Ordering::Acquire);
                    if next.is_null() && !planted!(cpu, LastWaiterShuffled) {
                        break;
                    }
                    // Relaxed: read by this role's holders and by heads, who come after them.
                    before.next.store(next, Ordering::Relaxed);
                    current.next.store(last.next.load(Ordering::Relaxed), Ordering::Relaxed);
                    last.next.store(current.address(), Ordering::Relaxed);
                } else {
                    before = current;
                }
                found = true;
                number += u32::from(!planted!(cpu, BatchWithoutEnd));
                current.role.store(numa_node << NODE_SHIFT | number, Ordering::Relaxed);
                last = current;
            }
            if found && enough() {
                break;
            }
        }
        if number < most {
            let role = numa_node << NODE_SHIFT | number | SHUFFLER;
            // Release pairs with the acquires that look for the role: the queue as it is now.
            last.role.store(role, Ordering::Release);
        }
    }
}
