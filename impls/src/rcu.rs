//! How memory outlives its readers.
//!
//! A reader opens a section with [`Cpu::rcu_read`](crate::machine::Cpu::rcu_read); whoever
//! detaches an object hands its [`RcuHead`] to [`Reclaim::defer`], and the given function runs
//! when every section that was open then has ended: after a *grace period*.
//!
//! [`Qsbr`] is the kernel's way: a reader costs nothing, CPUs say when they hold no reference
//! ([`Cpu::quiescent`](crate::machine::Cpu::quiescent)). [`Epoch`] is the user-space way
//! (crossbeam-epoch), selectable so that the choice itself can be measured. [`Oracle`] is the
//! specification, for model checkers: it ends each grace period at the first moment at which it
//! may end, without a step that the checker would explore.

mod epoch;
mod oracle;
mod qsbr;

pub use epoch::{Epoch, EpochReclaim};
pub use oracle::{Oracle, OracleReclaim};
pub use qsbr::{Qsbr, QsbrReclaim};

use core::cell::Cell;
use core::ptr;

use cellbench_mutations::mutated;

use crate::machine::Cpu;
use crate::platform::{Ordering, Platform, Word};

/// Function that runs after a grace period, in task context, with the head it was deferred with.
///
/// # Safety
/// Called once, after the grace period, with the pointer given to [`Reclaim::defer`].
pub type RcuFn<P> = unsafe fn(*mut RcuHead<P>, &Cpu<'_, P>);

/// The part of an object that waits for a grace period, as `struct rcu_head`. First field of
/// `repr(C)` objects, so that the function can get back to the object.
pub struct RcuHead<P: Platform> {
    next: P::Ptr<RcuHead<P>>,
    function: Cell<Option<RcuFn<P>>>,
}

// SAFETY: `function` is written by the one caller of `defer`, which owns the detached object, and
// read after the list that it was pushed on was acquired.
unsafe impl<P: Platform> Sync for RcuHead<P> {}

impl<P: Platform> RcuHead<P> {
    /// Returns a head that waits for nothing.
    pub fn new() -> Self {
        Self { next: P::Ptr::new("rcu.next", ptr::null_mut()), function: Cell::new(None) }
    }
}

impl<P: Platform> Default for RcuHead<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// A way of reclaiming memory, one value per machine.
pub trait Reclaim<P: Platform>: Send + Sync + Sized {
    /// Name in reports.
    const ID: &'static str;
    /// Whether opening a section costs its reader an access that others see: epochs.
    const READERS_PAY: bool = false;
    /// An open read-side section.
    type Guard<'a>
    where
        Self: 'a;

    /// Returns the reclaimer of a machine with `cpus` CPUs, all offline.
    fn new(cpus: usize) -> Self;
    /// Notes that the CPU begins to take part in grace periods.
    fn online(&self, cpu: &Cpu<'_, P>);
    /// Notes that the CPU has no section open and stops to take part: an extended quiescent state.
    fn offline(&self, cpu: &Cpu<'_, P>);
    /// Opens a section. Sections nest, also across interrupts.
    fn read<'a>(&'a self, cpu: &'a Cpu<'_, P>) -> Self::Guard<'a>;
    /// Runs `function` after a grace period, from some CPU's quiescent state.
    ///
    /// # Safety
    /// `head` is part of an object that nobody can reach any more except readers whose section is
    /// open, is deferred once at a time, and stays valid until `function` runs.
    unsafe fn defer(&self, cpu: &Cpu<'_, P>, head: *mut RcuHead<P>, function: RcuFn<P>);
    /// Notes that the CPU has no section open now. Runs functions whose grace period has ended.
    fn quiescent(&self, cpu: &Cpu<'_, P>);
    /// Runs all that was deferred. All other CPUs must be offline, and no section open. Returns
    /// whether anything ran.
    fn drain(&self, cpu: &Cpu<'_, P>) -> bool;
}

/// The choice of a way of reclaiming, independent of the platform it will be for.
pub trait ReclaimKind: Send + Sync + 'static {
    /// The reclaimer for platform `P`.
    type Of<P: Platform>: Reclaim<P>;
}

/// A lock-free stack of heads: pushed in any context, taken whole.
struct HeadStack<P: Platform> {
    top: P::Ptr<RcuHead<P>>,
}

impl<P: Platform> HeadStack<P> {
    fn new() -> Self {
        Self { top: P::Ptr::new("rcu.deferred", ptr::null_mut()) }
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        // Relaxed: a hint; `take` acquires.
        self.top.load(Ordering::Relaxed).is_null()
    }

    /// # Safety
    /// As [`Reclaim::defer`].
    unsafe fn push(&self, head: *mut RcuHead<P>, function: RcuFn<P>) {
        // SAFETY: valid by contract, and this caller's alone until it is pushed.
        unsafe { (*head).function.set(Some(function)) };
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: as above.
            unsafe { (*head).next.store(top, Ordering::Relaxed) };
            // Release pairs with the acquire in `take`: `next` and `function`.
            let order = if mutated!(DeferRelaxed) { Ordering::Relaxed } else { Ordering::Release };
            match self.top.cas(top, head, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => top = found,
            }
        }
    }

    fn take(&self) -> *mut RcuHead<P> {
        self.top.swap(ptr::null_mut(), Ordering::Acquire)
    }
}

/// Runs the functions of a list of heads, newest first; returns whether there was any.
///
/// # Safety
/// The list was taken from a [`HeadStack`] and its grace period has ended.
unsafe fn run_list<P: Platform>(mut head: *mut RcuHead<P>, cpu: &Cpu<'_, P>) -> bool {
    let any = !head.is_null();
    while !head.is_null() {
        // SAFETY: valid until its function runs. Both are read before, as it may free the head.
        let (next, function) =
            unsafe { ((*head).next.load(Ordering::Relaxed), (*head).function.take()) };
        let function = function.expect("a pushed head has a function");
        // SAFETY: once, after the grace period.
        unsafe { function(head, cpu) };
        head = next;
    }
    any
}
