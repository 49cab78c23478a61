//! Engines that arm, queue and run callbacks: the kernel's hrtimers and workqueues, as far as a cell can
//! tell.
//!
//! A cell is written against the trait [`Engine`]. [`Count`] only counts, so that what is measured
//! is the cell's own synchronisation; [`Queued`] keeps real per-CPU queues and runs what is due
//! whenever somebody drives it: a real thread per CPU, a model checker's thread, or a virtual
//! core.

mod count;
mod queued;

pub use count::{Count, CountEngine};
pub use queued::{Queued, QueuedEngine};

use crate::machine::Cpu;
use crate::platform::Platform;

/// Function that runs when a timer fires, a work item or an `irq_work` is executed: called with the pointer
/// that the item was made with.
///
/// # Safety
/// The pointer is what the item's owner supplied, and valid until the owner has made sure that
/// the item is neither queued nor running.
pub type Handler<P> = unsafe fn(owner: *mut (), cpu: &Cpu<'_, P>);

/// When a timer is to fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Nanoseconds: from now, or on the platform's clock when `absolute`.
    pub ns: u64,
    /// `ns` is a point in time, not a duration.
    pub absolute: bool,
    /// Stay on the CPU that arms it.
    pub pinned: bool,
}

/// State in which an attempt to cancel found the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// Neither armed nor running.
    Idle,
    /// It was armed or queued, and is not any more: the handler will not run.
    Pending,
    /// Its handler runs now, on some CPU; nothing was changed.
    Running,
}

/// An engine for one machine.
pub trait Engine<P: Platform>: Send + Sync + Sized {
    /// Name in reports.
    const ID: &'static str;
    /// Whether handlers of timers and works ever run.
    const RUNS: bool;
    /// A timer, part of a control block.
    type Timer: Send + Sync;
    /// A work item, part of a control block.
    type Work: Send + Sync;

    /// Returns an engine for a machine with `cpus` CPUs.
    fn new(cpus: usize) -> Self;

    /// Returns a timer at rest.
    fn timer(handler: Handler<P>, owner: *mut ()) -> Self::Timer;
    /// Arms the timer, or moves an armed one (`hrtimer_start`).
    ///
    /// # Safety
    /// The timer stays valid until it was cancelled or its handler returned.
    unsafe fn arm(&self, cpu: &Cpu<'_, P>, timer: &Self::Timer, expiry: Expiry);
    /// Takes the timer out of the queue if it is there; never waits (`hrtimer_try_to_cancel`).
    fn try_cancel(&self, cpu: &Cpu<'_, P>, timer: &Self::Timer) -> Cancelled;
    /// Takes the timer out of the queue and waits for a running handler (`hrtimer_cancel`).
    /// Returns whether it was armed. Must not be called from that handler.
    fn cancel(&self, cpu: &Cpu<'_, P>, timer: &Self::Timer) -> bool;

    /// Returns a work item at rest.
    fn work(handler: Handler<P>, owner: *mut ()) -> Self::Work;
    /// Queues the work unless it is queued already (`queue_work`); returns whether it queued it.
    ///
    /// # Safety
    /// The work stays valid until it was cancelled or its handler returned.
    unsafe fn queue(&self, cpu: &Cpu<'_, P>, work: &Self::Work) -> bool;
    /// Takes the work out of the queue if it is there; never waits (`cancel_work`).
    fn try_cancel_work(&self, cpu: &Cpu<'_, P>, work: &Self::Work) -> Cancelled;
    /// Takes the work out of the queue and waits for a running handler (`cancel_work_sync`).
    /// Returns whether it was queued. Must not be called from that handler.
    fn cancel_work(&self, cpu: &Cpu<'_, P>, work: &Self::Work) -> bool;

    /// Queues work of the cell itself, such as freeing a block later: it runs under every engine,
    /// in task context.
    ///
    /// # Safety
    /// As [`queue`](Self::queue).
    unsafe fn defer(&self, cpu: &Cpu<'_, P>, work: &Self::Work);
    /// Runs deferred work of this CPU where no driver does. Called in quiescent states.
    fn tick(&self, cpu: &Cpu<'_, P>);
    /// Runs queued and deferred work of all CPUs, which must be offline but this one; armed
    /// timers stay armed. Returns whether there was any.
    fn settle(&self, cpu: &Cpu<'_, P>) -> bool;
}

/// The choice of an engine, independent of the platform it will be for.
pub trait EngineKind: Send + Sync + 'static {
    /// The engine for platform `P`.
    type Of<P: Platform>: Engine<P>;
}
