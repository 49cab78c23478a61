//! Freeing a block by its reference count and grace periods, without waiting and from any
//! context: how the designs that work in NMI give their blocks back.
//!
//! The last put may happen anywhere, also in NMI, where a timer cannot be cancelled. So all is
//! left to the end of a grace period: then no start is in progress, as each held a reference, and
//! none can come, as the count is 0. What a start armed after the first cancel is cancelled now.
//! If its callback runs already, another grace period is waited for; that cannot go on for ever,
//! as nobody arms it again.

use core::ptr::NonNull;

use super::Kind;
use super::block::{Block, Own};
use super::refs::Refs;
use crate::engine::Cancelled;
use crate::irq_work::IrqWork;
use crate::machine::{Cpu, planted};
use crate::platform::Platform;
use crate::rcu::RcuHead;

/// A design whose blocks are freed by their reference count.
pub trait Counted<P: Platform>: Own<P> {
    /// Returns the count of references to the block.
    fn refs(&self) -> &Refs<P>;
    /// Returns the `irq_work` through which a last put with interrupts off goes, in designs in
    /// which it
    /// does: deferring to a grace period there might interrupt itself (1ace9bac1ad2). Nobody
    /// queues it
    /// for its own purpose any more.
    fn last_put(&self) -> Option<&IrqWork<P>> {
        None
    }
}

/// Handles [`Counted::last_put`]: the block's last reference is gone.
unsafe fn defer_from_irq_work<P: Platform, K: Kind, X: Counted<P>>(
    owner: *mut (),
    cpu: &Cpu<'_, P>,
) {
    let block = NonNull::new(owner.cast::<Block<P, K, X>>()).expect("not null");
    // SAFETY: queued by the last put, once.
    unsafe { Block::defer(cpu, block, readers_gone::<P, K, X>) };
}

/// Returns a reference; the last one frees after a grace period.
///
/// # Safety
/// The caller holds the reference and does not use the block after this, but for an RCU section
/// that it has open.
#[inline(always)]
pub(crate) unsafe fn put<P: Platform, K: Kind, X: Counted<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<Block<P, K, X>>,
) {
    // SAFETY: the reference keeps it.
    if unsafe { block.as_ref() }.own.refs().put() {
        // SAFETY: nobody frees it before it is deferred, which is this caller's to do.
        if let Some(work) = unsafe { block.as_ref() }.own.last_put()
            && cpu.irqs_disabled()
            && !planted!(cpu, LastPutDefersAtOnce)
        {
            work.init_again(defer_from_irq_work::<P, K, X>);
            // SAFETY: as above: valid until a grace period after the handler has deferred it.
            unsafe { IrqWork::queue(work, cpu) };
            return;
        }
        // SAFETY: detached, as the map's reference is gone; the count is 0 once.
        unsafe { Block::defer(cpu, block, readers_gone::<P, K, X>) };
    }
}

/// Frees a block after a grace period, as the last put does.
///
/// # Safety
/// Nobody but readers in open sections can reach the block, and nobody starts it any more once these
/// have ended; done once.
pub(crate) unsafe fn free_after_grace_period<P: Platform, K: Kind, X: Own<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<Block<P, K, X>>,
) {
    // SAFETY: by contract.
    unsafe { Block::defer(cpu, block, readers_gone::<P, K, X>) };
}

/// Frees the block: a grace period has ended since the last put.
unsafe fn readers_gone<P: Platform, K: Kind, X: Own<P>>(head: *mut RcuHead<P>, cpu: &Cpu<'_, P>) {
    // SAFETY: a grace period came before, and it is not deferred now.
    unsafe { free_unless_running(cpu, Block::<P, K, X>::of_head(head)) };
}

/// Cancels and frees a block, or tries again after another grace period if its callback runs.
///
/// # Safety
/// Nobody can reach the block but its callback; it is not deferred.
pub(crate) unsafe fn free_unless_running<P: Platform, K: Kind, X: Own<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<Block<P, K, X>>,
) {
    // SAFETY: freed below, or after another grace period.
    let this = unsafe { block.as_ref() };
    let mut cancels = !planted!(cpu, FreedWithoutSecondCancel);
    cancels &= !planted!(cpu, SecondCancelTooEarly);
    let runs = cancels && K::try_cancel(cpu, &this.node) == Cancelled::Running;
    if runs && !planted!(cpu, FreedUnderCallback) {
        // SAFETY: still nobody but the callback knows the block, and it is not deferred now.
        unsafe { free_after_grace_period(cpu, block) };
        return;
    }
    // An update that found the block before it was detached may have ended after that: what it
    // set is put here.
    this.put_last(cpu);
    // SAFETY: nobody can reach it, and its node is at rest.
    unsafe { Block::free(cpu, block) };
}
