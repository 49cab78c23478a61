//! Epoch-based reclamation by crossbeam-epoch (Fraser, "Practical lock-freedom"): a reader
//! publishes that it reads, at the price of a store and a fence, and needs no quiescent states.
//!
//! Its guards are not async-signal-safe: not for the NMI studies. Functions do not run inside
//! crossbeam's own collection, which happens in the middle of some operation, but in the next
//! quiescent state.

use core::cell::UnsafeCell;

use crossbeam_epoch::{Collector, Guard, LocalHandle};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

use super::{HeadStack, RcuFn, RcuHead, Reclaim, ReclaimKind, run_list};
use crate::machine::Cpu;
use crate::platform::Platform;

/// Chooses [`EpochReclaim`].
pub struct Epoch;

impl ReclaimKind for Epoch {
    type Of<P: Platform> = EpochReclaim<P>;
}

/// See the module.
pub struct EpochReclaim<P: Platform> {
    collector: Collector,
    locals: Box<[CachePadded<Local>]>,
    /// Heads whose grace period has ended.
    ready: Arc<Ready<P>>,
}

struct Local(UnsafeCell<Option<LocalHandle>>);

// SAFETY: the handle is made, used and dropped by the thread that has the CPU's handle, which
// does not leave that thread.
unsafe impl Sync for Local {}
// SAFETY: as above; when the machine moves between threads all CPUs are offline and hold `None`.
unsafe impl Send for Local {}

struct Ready<P: Platform>(CachePadded<HeadStack<P>>);

/// A deferred head on its way through crossbeam.
struct Parcel<P: Platform>(Arc<Ready<P>>, *mut RcuHead<P>, RcuFn<P>);

// SAFETY: the head's object is detached, and any CPU may reclaim it.
unsafe impl<P: Platform> Send for Parcel<P> {}

impl<P: Platform> Parcel<P> {
    fn deliver(self) {
        // SAFETY: the head is valid until its function runs, and delivered once.
        unsafe { self.0.0.push(self.1, self.2) };
    }
}

impl<P: Platform> Reclaim<P> for EpochReclaim<P> {
    const ID: &'static str = "epoch";
    const READERS_PAY: bool = true;
    type Guard<'a> = Guard;

    fn new(cpus: usize) -> Self {
        Self {
            collector: Collector::new(),
            locals: (0..cpus).map(|_| CachePadded::new(Local(UnsafeCell::new(None)))).collect(),
            ready: Arc::new(Ready(CachePadded::new(HeadStack::new()))),
        }
    }

    fn online(&self, cpu: &Cpu<'_, P>) {
        // SAFETY: the CPU's handle is in this thread's hands alone.
        unsafe { *self.locals[cpu.id().index()].0.get() = Some(self.collector.register()) };
    }

    fn offline(&self, cpu: &Cpu<'_, P>) {
        // SAFETY: as in `online`.
        unsafe { *self.locals[cpu.id().index()].0.get() = None };
    }

    #[inline(always)]
    fn read<'a>(&'a self, cpu: &'a Cpu<'_, P>) -> Guard {
        self.handle(cpu).pin()
    }

    unsafe fn defer(&self, cpu: &Cpu<'_, P>, head: *mut RcuHead<P>, function: RcuFn<P>) {
        let parcel = Parcel(Arc::clone(&self.ready), head, function);
        // SAFETY: the parcel may be delivered from any thread, and its machine outlives it: the
        // head is valid until its function runs.
        unsafe { self.handle(cpu).pin().defer_unchecked(move || parcel.deliver()) };
    }

    #[inline(always)]
    fn quiescent(&self, cpu: &Cpu<'_, P>) {
        if !self.ready.0.is_empty() {
            // SAFETY: the stack holds heads whose grace period has ended.
            unsafe { run_list(self.ready.0.take(), cpu) };
        }
    }

    fn drain(&self, cpu: &Cpu<'_, P>) -> bool {
        // Each flush may advance the epoch by one, and an object is free after two; a few more
        // for bags of threads that have gone.
        for _ in 0..8 {
            self.handle(cpu).pin().flush();
        }
        // SAFETY: as in `quiescent`.
        unsafe { run_list(self.ready.0.take(), cpu) }
    }
}

impl<P: Platform> EpochReclaim<P> {
    #[inline(always)]
    fn handle(&self, cpu: &Cpu<'_, P>) -> &LocalHandle {
        // SAFETY: as in `online`; nobody replaces it while the CPU is online.
        let handle = unsafe { &*self.locals[cpu.id().index()].0.get() };
        handle.as_ref().expect("the CPU is online")
    }
}
