//! Freeing a block as the designs up to RFC v1 do. Whoever detached the block cancels its timer and
//! waits for a callback that runs on another CPU, however long that takes; from a timer callback,
//! which may be the block's own, a worker does so. The work of a work item is always left to the
//! worker. After that the block is handed to the grace period.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use super::Kind;
use super::block::{Block, Own};
use crate::engine::Engine;
use crate::machine::{Cpu, planted};
use crate::platform::Platform;
use crate::rcu::RcuHead;

/// The worker of a block, part of the design's own words.
pub struct Worker<P: Platform> {
    /// Cancels, then frees.
    work: <P::Engine as Engine<P>>::Work,
    /// The grace period that every reader is waited for has ended.
    readers_are_gone: AtomicBool,
}

/// A design whose blocks are freed by a worker.
pub trait ByWorker<P: Platform>: Own<P, Tail = Worker<P>> {
    /// Whether every start is ordered before the cancel that precedes freeing, by a lock or a
    /// reference. Else a start may come after that cancel, as long as its RCU section is open,
    /// and the block is cancelled once more when the grace period has ended.
    const STARTS_ARE_ORDERED: bool;
}

impl<P: Platform> Worker<P> {
    /// Returns a worker at rest, for the block at this address.
    pub(crate) fn new<K: Kind, X: ByWorker<P>>(block: *mut Block<P, K, X>) -> Self {
        Self {
            work: P::Engine::work(cancel_then_free::<P, K, X>, block.cast()),
            readers_are_gone: AtomicBool::new(false),
        }
    }
}

/// Cancels and frees a detached block; waits here for a callback that runs on another CPU.
///
/// # Safety
/// Nobody can reach the block but readers in open sections, and nobody starts it any more, except
/// where [`ByWorker::STARTS_ARE_ORDERED`] is false; done once.
pub(crate) unsafe fn delete<P: Platform, K: Kind, X: ByWorker<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<Block<P, K, X>>,
) {
    // SAFETY: valid until freed below.
    let this = unsafe { block.as_ref() };
    if !K::CANCELLED_BY_WORKER && cpu.running().is_none() {
        K::cancel(cpu, &this.node);
        // SAFETY: by contract.
        unsafe { free_after_grace_period(cpu, block) };
    } else {
        // Also from the block's own callback, which may have armed the timer again.
        // SAFETY: the block lives until the handler hands it over.
        unsafe { cpu.machine().engine().defer(cpu, &this.tail.work) };
    }
}

/// Frees the block after a grace period.
///
/// # Safety
/// Detached, its node and its worker at rest or in their last run; done once.
pub(crate) unsafe fn free_after_grace_period<P: Platform, K: Kind, X: ByWorker<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<Block<P, K, X>>,
) {
    // SAFETY: by contract.
    unsafe { Block::defer(cpu, block, readers_gone::<P, K, X>) };
}

/// Frees: the grace period after detaching has ended.
unsafe fn readers_gone<P: Platform, K: Kind, X: ByWorker<P>>(
    head: *mut RcuHead<P>,
    cpu: &Cpu<'_, P>,
) {
    let block = Block::<P, K, X>::of_head(head);
    if X::STARTS_ARE_ORDERED || planted!(cpu, NoSecondCancel) {
        // SAFETY: nobody can reach it any more, and it is at rest.
        unsafe { Block::free(cpu, block) };
        return;
    }
    // SAFETY: freed by the worker.
    let worker = &unsafe { block.as_ref() }.tail;
    // Relaxed: the queue that the work goes through orders it.
    worker.readers_are_gone.store(true, Ordering::Relaxed);
    // SAFETY: the block lives until the handler frees it.
    unsafe { cpu.machine().engine().defer(cpu, &worker.work) };
}

/// Handles the worker's work.
unsafe fn cancel_then_free<P: Platform, K: Kind, X: ByWorker<P>>(owner: *mut (), cpu: &Cpu<'_, P>) {
    let block = NonNull::new(owner.cast::<Block<P, K, X>>()).expect("not null");
    // SAFETY: queued by the one who detached the block, and again after the grace period.
    let this = unsafe { block.as_ref() };
    K::cancel(cpu, &this.node);
    if this.tail.readers_are_gone.load(Ordering::Relaxed) {
        // SAFETY: no start can come any more, and what was started is cancelled.
        unsafe { Block::free(cpu, block) };
    } else {
        // SAFETY: detached, cancelled, and this worker is in its last run but one.
        unsafe { free_after_grace_period(cpu, block) };
    }
}
