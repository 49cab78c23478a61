//! Work that runs on the same CPU, in hardirq context, as soon as interrupts are on: the way out
//! of NMI. Queueing takes no lock and may interrupt itself.
//!
//! In the kernel a self-interrupt runs the list. Here the list runs where that interrupt would
//! arrive: at once when the queueing code has interrupts on, else when the outermost
//! interrupt-off section of the CPU ends (`Cpu::irq_save`). The cost of the interrupt itself is
//! not modelled; METHODOLOGY.md says so.

use core::ptr;

use crate::engine::Handler;
use crate::machine::Cpu;
use crate::platform::{IntWord, Ordering, Platform, Word};

/// Queued and not yet run.
const PENDING: u32 = 1;

/// A work item for [`IrqWork::queue`], part of a larger object.
#[repr(C)]
pub struct IrqWork<P: Platform> {
    next: P::Ptr<IrqWork<P>>,
    flags: P::U32,
    handler: Handler<P>,
    owner: *mut (),
}

// SAFETY: `owner` is handed to `handler` and not used here; the rest are atomic words.
unsafe impl<P: Platform> Send for IrqWork<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for IrqWork<P> {}

impl<P: Platform> IrqWork<P> {
    /// An idle item whose `handler` will be called with `owner`.
    pub fn new(handler: Handler<P>, owner: *mut ()) -> Self {
        Self {
            next: P::Ptr::new("irq_work.next", ptr::null_mut()),
            flags: P::U32::new("irq_work.flags", 0),
            handler,
            owner,
        }
    }

    /// Queues the item on this CPU and runs it where the interrupt would arrive. Returns `false`
    /// if it was queued already: the run to come sees what happened before this call.
    ///
    /// # Safety
    /// `this` must stay valid until its handler has begun to run.
    pub unsafe fn queue(this: *const Self, cpu: &Cpu<'_, P>) -> bool {
        // SAFETY: valid by contract.
        let work = unsafe { &*this };
        // AcqRel: what the caller did before is seen by the handler that clears PENDING (its
        // swap reads this write or a later one); a `true` here sees the previous run's end.
        if work.flags.fetch_or(PENDING, Ordering::AcqRel) & PENDING != 0 {
            return false;
        }
        cpu.this.irq_works.push(this.cast_mut());
        if !cpu.irqs_disabled() {
            cpu.run_irq_works();
        }
        true
    }
}

/// The items that wait on one CPU.
pub(crate) struct IrqWorkList<P: Platform> {
    head: P::Ptr<IrqWork<P>>,
}

impl<P: Platform> IrqWorkList<P> {
    pub(crate) fn new() -> Self {
        Self { head: P::Ptr::new("cpu.irq_works", ptr::null_mut()) }
    }

    /// Whether anything waits.
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: pushed by this CPU and its interrupts only.
        !self.head.load(Ordering::Relaxed).is_null()
    }

    fn push(&self, work: *mut IrqWork<P>) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `work` is valid until its handler has begun; it is not yet in the list.
            unsafe { (*work).next.store(head, Ordering::Relaxed) };
            // Release pairs with the acquire of the swap in `run`, for `next`.
            match self.head.cas(head, work, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    /// Runs all items in the order in which they were queued, and those that they queue.
    #[cold]
    pub(crate) fn run(&self, cpu: &Cpu<'_, P>) {
        loop {
            let mut newest_first = self.head.swap(ptr::null_mut(), Ordering::Acquire);
            if newest_first.is_null() {
                return;
            }
            let mut oldest_first = ptr::null_mut();
            while !newest_first.is_null() {
                // SAFETY: items in the list are valid until their handler begins.
                let next = unsafe { (*newest_first).next.load(Ordering::Relaxed) };
                // SAFETY: as above; the taken list is this loop's alone.
                unsafe { (*newest_first).next.store(oldest_first, Ordering::Relaxed) };
                oldest_first = newest_first;
                newest_first = next;
            }
            while !oldest_first.is_null() {
                // SAFETY: its handler has not begun.
                let work = unsafe { &*oldest_first };
                // Read before the handler runs: it may free the item.
                let next = work.next.load(Ordering::Relaxed);
                let (handler, owner) = (work.handler, work.owner);
                // From here on it may be queued again. Acquire pairs with the `fetch_or` of the
                // last `queue`. Nothing of the item is touched after the handler began: the
                // handler may hand it to be freed.
                work.flags.swap(0, Ordering::AcqRel);
                // SAFETY: the contract of `Handler`: `owner` is what it was made with.
                unsafe { handler(owner, cpu) };
                oldest_first = next;
            }
        }
    }
}
