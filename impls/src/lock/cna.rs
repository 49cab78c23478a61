//! CNA: the queued spinlock with a queue that prefers the NUMA node of its head (Dice and Kogan,
//! "Compact NUMA-aware locks", EuroSys 2019; on the kernel's queued spinlock by Kogan, patch series
//! up to v15, 2021).
//!
//! Word, fast path and pending waiter are those of [`super::queued`]: four bytes whatever the number
//! of nodes. While the head of the queue waits for the lock, it moves waiters of other nodes from the
//! front of the queue to a second queue, until one of its own node is next. The second queue is a ring
//! known by its last waiter, whose name is handed on with the turn, and with it the node that is
//! preferred: a head of another node, which could not be moved, goes on to serve that one. The second
//! queue becomes the queue when the queue is empty, or goes in front of it after [`LOCAL_TURNS`]
//! handovers; then its first prefers its own node. (The series counted handovers at first, 65536 of
//! them, and later nanoseconds, a million. It leaves the queue alone most times while the second one
//! is empty, and moves nobody who waits with interrupts off; neither is done here.)
//!
//! Invariants: every waiter is in one of the queues; the last of the queue is never moved, as a newcomer
//! may be about to announce itself to it; each queue keeps the order of arrival; a moved waiter is
//! passed at most [`LOCAL_TURNS`] times by those that came later.

use core::ptr;

use super::queued::{
    Claim, GO, LOCKED, LOCKED_PENDING, QueueNode, QueuedWord, WordForm, announce, decode_tail,
    encode_tail, tail_of, wait_for_next, wait_for_turn,
};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{IntWord, Memory, Ordering, Platform, Word};

/// Handovers that pass the second queue by.
pub const LOCAL_TURNS: u32 = 1024;
/// The same in model checkers.
const CHECKED_TURNS: u32 = 2;
/// Where the count of handovers begins in [`QueueNode::turn`]; below it are [`GO`], or the name of the
/// last waiter of the second queue.
const TURNS_SHIFT: u32 = 16;
/// Where the preferred NUMA node begins there.
const NODE_SHIFT: u32 = 27;
const _: () = assert!(LOCAL_TURNS + 1 < 1 << (NODE_SHIFT - TURNS_SHIFT));
/// NUMA nodes that are told apart.
const NUMA_NODES: u32 = 1 << (u32::BITS - NODE_SHIFT);

/// See the module.
pub struct Cna<P: Memory> {
    pub(super) word: QueuedWord<P, WordForm>,
}

impl<P: Platform> Lock<P> for Cna<P> {
    const ID: &'static str = "cna";
    const FALLIBLE: bool = false;

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

impl<P: Platform> RawLock<P> for Cna<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        if let Err(found) = self.word.try_fast() {
            self.acquire_slow(cpu, found);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, _: &Cpu<'_, P>) {
        self.word.release();
    }
}

/// The head of the queue, and the second queue that it was handed.
struct Head<'a, 'm, P: Platform> {
    cpu: &'a Cpu<'m, P>,
    node: &'a QueueNode<P>,
    /// The last waiter of the second queue; 0: empty.
    second: u16,
    /// Handovers since the second queue began.
    turns: u32,
    /// The NUMA node whose waiters stay in the queue, as [`numa_node`] has it.
    preferred: u32,
}

/// The last and the first of a queue.
type Ends<'m, P> = (&'m QueueNode<P>, &'m QueueNode<P>);

/// How the head got the lock.
enum Taken<'m, P: Platform> {
    /// Nobody is behind it; the second queue, if there is one, is the queue now.
    Last(Option<Ends<'m, P>>),
    /// Somebody is behind it.
    Behind,
}

/// Waiters that the head finds behind it.
enum Behind {
    /// A waiter of the preferred node.
    Local,
    /// A waiter of another node, which was moved.
    Moved,
    /// Nobody, or one that cannot be moved.
    Fixed,
}

impl<P: Platform> Cna<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>, found: u32) {
        if self.word.set_pending(found).is_some() {
            P::wait_until(|| self.word.try_pending().then_some(()));
        } else {
            self.acquire_queued(cpu);
        }
    }

    fn acquire_queued(&self, cpu: &Cpu<'_, P>) {
        let claim = Claim::new(cpu);
        let Some(node) = claim.node() else {
            // Deeper nesting than there are nodes: rare enough to give up the order.
            P::wait_until(|| self.word.try_acquire().then_some(()));
            return;
        };
        if self.word.try_acquire() {
            return;
        }
        let tail = encode_tail(cpu.id(), claim.level);
        let front = self.word.swap_tail(tail);
        let preferred = numa_node(cpu.numa_node());
        let mut head = Head { cpu, node, second: 0, turns: 0, preferred };
        if let Some(front) = decode_tail(cpu.machine(), front) {
            announce(front, node);
            let turn = wait_for_turn(node);
            if turn != GO {
                head.second = turn as u16;
                head.turns = turn >> TURNS_SHIFT & ((1 << (NODE_SHIFT - TURNS_SHIFT)) - 1);
                head.preferred = turn >> NODE_SHIFT;
            }
        }
        self.order_queue(&mut head);
        match P::wait_until(|| self.try_head(&head, tail)) {
            Taken::Behind => head.hand_over(),
            Taken::Last(Some(second)) => head.promote(second),
            Taken::Last(None) => {}
        }
    }

    fn is_busy(&self) -> bool {
        self.word.load() & LOCKED_PENDING != 0
    }

    /// Uses the time until the lock is free to bring a waiter of the preferred node next in line.
    fn order_queue(&self, head: &mut Head<'_, '_, P>) {
        while head.turns < most_turns::<P>() && self.is_busy() {
            match head.look_behind() {
                Behind::Local => return,
                Behind::Moved => {}
                Behind::Fixed => {
                    P::wait_until(|| (!self.is_busy() || head.can_order()).then_some(()));
                }
            }
        }
    }

    /// Takes the lock if it is free and nobody is pending; `None`: not taken.
    fn try_head<'m>(&self, head: &Head<'_, 'm, P>, tail: u16) -> Option<Taken<'m, P>> {
        // Acquire pairs with the release of the holder before.
        let value = self.word.value.load(Ordering::Acquire);
        if value & LOCKED_PENDING != 0 {
            return None;
        }
        if tail_of(value) == tail {
            // Before the exchange: after it a newcomer may write the link of the last.
            let second = head.second_ends();
            let new = LOCKED | u32::from(head.second) << TURNS_SHIFT;
            // Release: a newcomer that finds the last of the second queue finds it as it was left.
            if self.word.value.cas(value, new, Ordering::Release, Ordering::Relaxed).is_ok() {
                return Some(Taken::Last(second));
            }
        }
        // Others are behind; while there is a tail nobody else touches the low half.
        self.word.value.fetch_or(LOCKED, Ordering::Relaxed);
        Some(Taken::Behind)
    }
}

fn most_turns<P: Platform>() -> u32 {
    if P::QUARANTINE { CHECKED_TURNS } else { LOCAL_TURNS }
}

/// Returns a NUMA node as a turn holds it.
fn numa_node(node: u16) -> u32 {
    u32::from(node) % NUMA_NODES
}

impl<'m, P: Platform> Head<'_, 'm, P> {
    /// Returns the last and the first of the second queue.
    fn second_ends(&self) -> Option<Ends<'m, P>> {
        let last = decode_tail(self.cpu.machine(), self.second)?;
        // Relaxed: heads alone change the ring, and hand it on with the turn.
        // SAFETY: a ring has no end, and its nodes wait.
        Some((last, unsafe { &*last.next.load(Ordering::Relaxed) }))
    }

    fn is_local(&self, node: &QueueNode<P>) -> bool {
        numa_node(self.cpu.machine().numa_node(node.cpu())) == self.preferred
    }

    /// Returns the waiter behind `node`, if it has announced itself.
    fn after(node: &QueueNode<P>) -> Option<&'m QueueNode<P>> {
        // Acquire pairs with the release in `announce`.
        // SAFETY: nodes belong to the machine.
        unsafe { node.next.load(Ordering::Acquire).as_ref() }
    }

    /// Returns whether [`look_behind`](Self::look_behind) would find something to do.
    fn can_order(&self) -> bool {
        Self::after(self.node)
            .is_some_and(|next| self.is_local(next) || Self::after(next).is_some())
    }

    /// Looks at the next in line, and moves it to the second queue if it is of another node.
    fn look_behind(&mut self) -> Behind {
        let Some(next) = Self::after(self.node) else { return Behind::Fixed };
        if self.is_local(next) {
            return Behind::Local;
        }
        let after = match Self::after(next) {
            Some(after) => ptr::from_ref(after).cast_mut(),
            None if planted!(self.cpu, LastWaiterMoved) => ptr::null_mut(),
            None => return Behind::Fixed,
        };
        // Relaxed, all of them: read by heads alone, after their turn.
        self.node.next.store(after, Ordering::Relaxed);
        let moved = ptr::from_ref(next).cast_mut();
        match self.second_ends() {
            None => next.next.store(moved, Ordering::Relaxed),
            Some((last, first)) => {
                next.next.store(ptr::from_ref(first).cast_mut(), Ordering::Relaxed);
                last.next.store(moved, Ordering::Relaxed);
            }
        }
        self.second = next.name();
        Behind::Moved
    }

    /// Opens the ring of the second queue, which has become the queue, and tells its first.
    fn promote(&self, (last, first): Ends<'m, P>) {
        if planted!(self.cpu, SecondQueueForgotten) {
            return;
        }
        // A newcomer may have announced itself to the last already: then its next is that.
        let ring = ptr::from_ref(first).cast_mut();
        let _ = last.next.cas(ring, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
        first.pass(GO);
    }

    /// Hands the place at the head on: to the next in line with the second queue, or to the first of the
    /// second queue, which goes in front.
    fn hand_over(&self) {
        let next = wait_for_next(self.node);
        if self.second == 0 || planted!(self.cpu, SecondQueueDropped) {
            next.pass(GO);
        } else if self.turns < most_turns::<P>() {
            // The second queue's lines stay where they are: they are of other nodes.
            let counted = u32::from(!planted!(self.cpu, SecondQueueNeverFirst));
            let turns = (self.turns + counted) << TURNS_SHIFT;
            next.pass(u32::from(self.second) | turns | self.preferred << NODE_SHIFT);
        } else if let Some((last, first)) = self.second_ends() {
            // Relaxed: read by heads alone, after their turn.
            last.next.store(ptr::from_ref(next).cast_mut(), Ordering::Relaxed);
            first.pass(GO);
        }
    }
}

impl<P: Platform> QueueNode<P> {
    /// Tells the waiter that it is the head.
    fn pass(&self, turn: u32) {
        // Release pairs with the acquire in `wait_for_turn`.
        self.turn.store(turn, Ordering::Release);
    }
}
