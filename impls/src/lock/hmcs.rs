//! HMCS: an MCS lock of MCS locks, one for each NUMA node (Chabbi, Fagan and Mellor-Crummey, "High
//! performance locks for multi-level NUMA systems", PPoPP 2015; here with two levels).
//!
//! CPUs queue at their node; the first of them queues for the lock on behalf of the node. A holder
//! that leaves hands the lock to the next of its own node, at most [`LOCAL_TURNS`] times running;
//! then the node leaves, and the next one of this node has to queue on its behalf again. So most
//! handovers stay within a node.
//!
//! Invariants: one CPU of a node at a time is in the upper queue; nodes are served first come, first
//! served, and so are the CPUs of a node; a waiter is passed by at most [`LOCAL_TURNS`] CPUs of each
//! other node for each turn of its own. Space: a pointer, and two lines for each node.

use core::ptr;

use crossbeam_utils::CachePadded;

use super::mcs::{enter, leave};
use super::node::{GRANTED, WaitNode};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// Handovers within a node before the others have a turn.
pub const LOCAL_TURNS: u32 = 64;
/// The same in model checkers.
const CHECKED_TURNS: u32 = 2;
/// Nodes that are told apart; others share a queue.
const NODES: usize = 8;
/// The same in model checkers.
const CHECKED_NODES: usize = 2;
/// [`WaitNode::state`]: first in the node's queue, which does not have the lock. Other values say how
/// often the node has had it running.
const NODE_LEFT: u32 = u32::MAX;

/// See the module.
pub struct Hmcs<P: Platform> {
    /// The queue of the nodes.
    tail: P::Ptr<WaitNode<P>>,
    nodes: Box<[NodeQueue<P>]>,
}

/// The queue of the CPUs of a node.
struct NodeQueue<P: Platform> {
    tail: CachePadded<P::Ptr<WaitNode<P>>>,
    /// The node's place in the queue of the nodes.
    place: CachePadded<WaitNode<P>>,
}

const fn node_count<P: Platform>() -> usize {
    if P::QUARANTINE { CHECKED_NODES } else { NODES }
}

impl<P: Platform> Lock<P> for Hmcs<P> {
    const ID: &'static str = "hmcs";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        let queue = |_| NodeQueue {
            tail: CachePadded::new(P::Ptr::new("node.tail", ptr::null_mut())),
            place: CachePadded::new(WaitNode::new()),
        };
        Self {
            tail: P::Ptr::new("lock.tail", ptr::null_mut()),
            nodes: (0..node_count::<P>()).map(queue).collect(),
        }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        !self.tail.load(Ordering::Relaxed).is_null()
    }

    fn space_bytes() -> usize {
        size_of::<Self>() + node_count::<P>() * size_of::<NodeQueue<P>>()
    }
}

#[cfg(all(test, feature = "shuttle"))]
impl<P: Platform> Hmcs<P> {
    /// Returns the last of a node's queue, for the test of the order.
    pub(super) fn last_of(&self, node: usize) -> *mut WaitNode<P> {
        self.nodes[node].tail.load(Ordering::Relaxed)
    }

    /// Returns whether a node is the last in the queue of the nodes, for the same test.
    pub(super) fn is_last_node(&self, node: usize) -> bool {
        ptr::eq(self.tail.load(Ordering::Relaxed), &*self.nodes[node].place)
    }
}

impl<P: Platform> RawLock<P> for Hmcs<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let (queue, node) = (self.queue(cpu), cpu.this.wait.push());
        let said = enter::<P>(&queue.tail, node);
        if said.is_none_or(|said| said == NODE_LEFT) {
            // Relaxed: read by this CPU alone, in the release.
            node.state.store(GRANTED, Ordering::Relaxed);
            enter::<P>(&self.tail, &queue.place);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let (queue, node) = (self.queue(cpu), cpu.this.wait.top());
        let turns = node.state.load(Ordering::Relaxed);
        let most = if P::QUARANTINE { CHECKED_TURNS } else { LOCAL_TURNS };
        let next = node.behind.load(Ordering::Acquire);
        if turns < most && !next.is_null() {
            // SAFETY: it waits for this.
            let next = unsafe { &*next };
            let order =
                if planted!(cpu, LocalTurnRelaxed) { Ordering::Relaxed } else { Ordering::Release };
            // Release pairs with the acquire in `wait_for_state`.
            let counted = u32::from(!planted!(cpu, NodeKeepsTheLock));
            next.state.store(turns + counted, order);
            // Relaxed: the exchange of the next queue publishes it.
            node.behind.store(ptr::null_mut(), Ordering::Relaxed);
        } else if planted!(cpu, NodeLeavesLast) {
            // The next of this node may use the node's place, which is still in the queue.
            leave(cpu, &queue.tail, node, NODE_LEFT);
            leave(cpu, &self.tail, &queue.place, GRANTED);
        } else {
            // The node first: its place is free for the next of this node after that.
            leave(cpu, &self.tail, &queue.place, GRANTED);
            let said = if planted!(cpu, NodeLeftNotSaid) { GRANTED } else { NODE_LEFT };
            leave(cpu, &queue.tail, node, said);
        }
        cpu.this.wait.pop();
    }
}

impl<P: Platform> Hmcs<P> {
    #[inline(always)]
    fn queue(&self, cpu: &Cpu<'_, P>) -> &NodeQueue<P> {
        &self.nodes[cpu.numa_node() as usize % self.nodes.len()]
    }
}
