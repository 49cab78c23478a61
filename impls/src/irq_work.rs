//! Work that runs on the same CPU, in hardirq context, as soon as interrupts are on: the way out
//! of NMI. Queueing takes no lock and may interrupt itself.
//!
//! In the kernel a self-interrupt runs the list. Here the list runs where that interrupt would
//! arrive: at once when the queueing code has interrupts on, else when the outermost
//! interrupt-off section of the CPU ends (`Cpu::irq_save`). The machine charges for the interrupt.
//!
//! Access for access as `kernel/irq_work.c`: an item is PENDING from queueing until its handler is
//! about to run, and BUSY until that has returned. So an item is touched after its handler, which
//! objects that contain one rely on RCU for: a handler runs with interrupts off, which no grace
//! period passes.

use core::mem;
use core::ptr;
use core::sync::atomic::AtomicPtr;

use crate::engine::Handler;
use crate::machine::{Cpu, planted};
use crate::platform::{IntWord, Ordering, Platform, Word};

/// Queued, and its handler has not begun.
const PENDING: u32 = 1;
/// Queued, or its handler runs.
const BUSY: u32 = 2;
/// Bits that queueing sets.
const CLAIMED: u32 = PENDING | BUSY;

/// A work item for [`IrqWork::queue`], part of a larger object.
#[repr(C)]
pub struct IrqWork<P: Platform> {
    next: P::Ptr<IrqWork<P>>,
    flags: P::U32,
    /// A [`Handler`], which a later round of the object may replace.
    handler: AtomicPtr<()>,
    owner: *mut (),
}

/// As large as `struct irq_work`.
const _: () = assert!(size_of::<IrqWork<crate::platform::Native>>() == 32);

// SAFETY: `owner` is handed to `handler` and not used here; the rest are atomic words.
unsafe impl<P: Platform> Send for IrqWork<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for IrqWork<P> {}

impl<P: Platform> IrqWork<P> {
    /// Returns an idle item whose `handler` will be called with `owner`.
    pub fn new(handler: Handler<P>, owner: *mut ()) -> Self {
        Self {
            next: P::Ptr::new("irq_work.next", ptr::null_mut()),
            flags: P::U32::new("irq_work.flags", 0),
            handler: AtomicPtr::new(handler as *mut ()),
            owner,
        }
    }

    /// Makes an idle item of it again, with another handler (`IRQ_WORK_INIT` over an item): by the
    /// one
    /// party that may queue it. The last handler may still be about to clear BUSY, on another CPU
    /// too.
    pub(crate) fn init_again(&self, handler: Handler<P>) {
        // Relaxed, both: queueing the item publishes them.
        self.flags.store(0, Ordering::Relaxed);
        self.handler.store(handler as *mut (), Ordering::Relaxed);
    }

    /// Queues the item on this CPU and runs it where the interrupt would arrive. Returns `false`
    /// if it was queued already: the run to come sees what happened before this call.
    ///
    /// # Safety
    /// `this` must stay valid until its handler has returned and a grace period has ended.
    pub unsafe fn queue(this: *const Self, cpu: &Cpu<'_, P>) -> bool {
        // SAFETY: valid by contract.
        let work = unsafe { &*this };
        // A full barrier, as `atomic_fetch_or` is: what the caller did before is seen by the handler
        // that is to begin; a `true` here sees what the last one did.
        let order =
            if planted!(cpu, IrqWorkClaimRelaxed) { Ordering::Relaxed } else { Ordering::SeqCst };
        if work.flags.fetch_or(CLAIMED, order) & PENDING != 0 {
            return false;
        }
        cpu.this.irq_works.push(this.cast_mut());
        if !cpu.irqs_disabled() {
            cpu.run_irq_works();
        }
        true
    }

    /// Runs the item (`irq_work_single`).
    ///
    /// # Safety
    /// It was taken from a list, by this caller alone.
    unsafe fn run(&self, cpu: &Cpu<'_, P>) {
        // Relaxed: the barrier orders it. Only the bit BUSY of an item that is not idle matters.
        let flags = self.flags.load(Ordering::Relaxed) & !PENDING;
        // From here on it may be queued again: whoever finds it PENDING before this relies on the
        // handler, which sees what came before by the barrier.
        self.flags.store(flags, Ordering::Relaxed);
        if !planted!(cpu, IrqWorkRunUnfenced) {
            P::fence();
        }
        // SAFETY: only ever stored from a `Handler`.
        let handler: Handler<P> =
            unsafe { mem::transmute::<*mut (), Handler<P>>(self.handler.load(Ordering::Relaxed)) };
        // SAFETY: the contract of `Handler`: `owner` is what it was made with.
        unsafe { handler(self.owner, cpu) };
        // A full barrier, as `atomic_cmpxchg` is. It fails where the item was queued again.
        let idle = if planted!(cpu, IrqWorkStaysBusy) { flags } else { flags & !BUSY };
        let _ = self.flags.cas(flags, idle, Ordering::SeqCst, Ordering::Relaxed);
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

    /// Returns whether anything waits.
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: pushed by this CPU and its interrupts only.
        !self.head.load(Ordering::Relaxed).is_null()
    }

    fn push(&self, work: *mut IrqWork<P>) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `work` is valid until its handler has returned; it is not yet in the list.
            unsafe { (*work).next.store(head, Ordering::Relaxed) };
            // A full barrier, as `llist_add` is. Pairs with the exchange in `run`, for `next`.
            match self.head.cas(head, work, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    /// Runs all items that are in the list now, the newest first, as the kernel does.
    #[cold]
    pub(crate) fn run(&self, cpu: &Cpu<'_, P>) {
        // A full barrier, as `llist_del_all` is.
        let mut item = self.head.swap(ptr::null_mut(), Ordering::SeqCst);
        while !item.is_null() {
            // Interrupts are off, which no grace period passes: keeps the item until its flags are
            // cleared.
            let _rcu = cpu.rcu_read();
            // SAFETY: items in a list are valid until their handler has returned and a grace period
            // has ended.
            let work = unsafe { &*item };
            // Read before the handler runs: the item may be queued again.
            item = work.next.load(Ordering::Relaxed);
            // SAFETY: this loop's alone.
            unsafe { work.run(cpu) };
            if planted!(cpu, IrqWorkNextReadLate) {
                item = work.next.load(Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ptr;

    use super::IrqWork;
    use crate::machine::{Cpu, MachineConfig};
    use crate::platform::{Ordering, Stepped, Word};
    use crate::{CpuId, Machine};

    /// Data of a handler that counts its runs and queues its item again so often.
    struct Note {
        work: Cell<*const IrqWork<Stepped>>,
        runs: Cell<u32>,
        again: Cell<u32>,
    }

    unsafe fn handler(owner: *mut (), cpu: &Cpu<'_, Stepped>) {
        // SAFETY: the test's note, which outlives the item's last run.
        let note = unsafe { &*owner.cast::<Note>() };
        note.runs.set(note.runs.get() + 1);
        if let Some(left) = note.again.get().checked_sub(1) {
            note.again.set(left);
            // SAFETY: the item lives as long as its note.
            assert!(unsafe { IrqWork::queue(note.work.get(), cpu) }, "its handler runs");
        }
    }

    /// Two items are in the list when the interrupt arrives. The first one queues itself again, so that its
    /// link leads elsewhere before the second has run.
    #[test]
    fn an_item_that_queues_itself_again_loses_nobody_behind_it() {
        let machine = Machine::<Stepped>::new(MachineConfig::new(1));
        let cpu = machine.cpu(CpuId(0));
        let notes = [0, 2].map(|again| {
            let (work, runs) = (Cell::new(ptr::null()), Cell::new(0));
            Box::new(Note { work, runs, again: Cell::new(again) })
        });
        let works = notes.each_ref().map(|note| {
            let owner = ptr::from_ref(&**note).cast_mut().cast();
            let work = Box::new(IrqWork::<Stepped>::new(handler, owner));
            note.work.set(&raw const *work);
            work
        });
        {
            let _irq_off = cpu.irq_save();
            for work in &works {
                // SAFETY: the item outlives its run, and nothing waits for a grace period here.
                assert!(unsafe { IrqWork::queue(&raw const **work, &cpu) });
                // SAFETY: as above.
                assert!(!unsafe { IrqWork::queue(&raw const **work, &cpu) }, "queued already");
            }
            assert_eq!(notes.each_ref().map(|note| note.runs.get()), [0, 0], "interrupts are off");
        }
        assert_eq!(notes.each_ref().map(|note| note.runs.get()), [1, 3]);
        for work in &works {
            assert_eq!(work.flags.load(Ordering::Relaxed), 0, "idle at rest");
        }
        assert!(machine.rest(CpuId(0)).is_clean());
    }
}
