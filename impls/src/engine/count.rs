//! An engine that keeps each timer's and work's state and never runs their handlers: what is left
//! to measure is the cell's own synchronisation.
//!
//! Arming costs one exchange on a word of the control block. A real timer queue touches that line
//! as well, so no cell is flattered by it; what a real queue costs beyond that, the kernel backend
//! measures.

use core::ptr;

use super::{Cancelled, Engine, EngineKind, Expiry, Handler};
use crate::machine::Cpu;
use crate::platform::{Ordering, Platform, Word};

/// Chooses [`CountEngine`].
pub struct Count;

impl EngineKind for Count {
    type Of<P: Platform> = CountEngine<P>;
}

const IDLE: u32 = 0;
const ARMED: u32 = 1;

/// See the module.
pub struct CountEngine<P: Platform> {
    /// Work that cells defer, one list per CPU that pushes.
    deferred: Box<[P::Ptr<CountWork<P>>]>,
}

/// A timer that is armed or not.
pub struct CountTimer<P: Platform> {
    armed: P::U32,
}

/// A work item that is queued or not.
pub struct CountWork<P: Platform> {
    queued: P::U32,
    next: P::Ptr<CountWork<P>>,
    handler: Handler<P>,
    owner: *mut (),
}

// SAFETY: `owner` is handed to `handler` and not used here; the rest are atomic words.
unsafe impl<P: Platform> Send for CountWork<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for CountWork<P> {}

impl<P: Platform> Engine<P> for CountEngine<P> {
    const ID: &'static str = "count";
    const RUNS: bool = false;
    type Timer = CountTimer<P>;
    type Work = CountWork<P>;

    fn new(cpus: usize) -> Self {
        Self {
            deferred: (0..cpus).map(|_| P::Ptr::new("engine.deferred", ptr::null_mut())).collect(),
        }
    }

    #[inline(always)]
    fn timer(_: Handler<P>, _: *mut ()) -> CountTimer<P> {
        CountTimer { armed: P::U32::new("timer.state", IDLE) }
    }

    #[inline(always)]
    unsafe fn arm(&self, _: &Cpu<'_, P>, timer: &CountTimer<P>, _: Expiry) {
        timer.armed.swap(ARMED, Ordering::AcqRel);
    }

    #[inline(always)]
    fn try_cancel(&self, _: &Cpu<'_, P>, timer: &CountTimer<P>) -> Cancelled {
        match timer.armed.swap(IDLE, Ordering::AcqRel) {
            IDLE => Cancelled::Idle,
            _ => Cancelled::Pending,
        }
    }

    #[inline(always)]
    fn cancel(&self, cpu: &Cpu<'_, P>, timer: &CountTimer<P>) -> bool {
        self.try_cancel(cpu, timer) == Cancelled::Pending
    }

    #[inline(always)]
    fn work(handler: Handler<P>, owner: *mut ()) -> CountWork<P> {
        CountWork {
            queued: P::U32::new("work.state", IDLE),
            next: P::Ptr::new("work.next", ptr::null_mut()),
            handler,
            owner,
        }
    }

    #[inline(always)]
    unsafe fn queue(&self, _: &Cpu<'_, P>, work: &CountWork<P>) -> bool {
        work.queued.swap(ARMED, Ordering::AcqRel) == IDLE
    }

    #[inline(always)]
    fn try_cancel_work(&self, _: &Cpu<'_, P>, work: &CountWork<P>) -> Cancelled {
        match work.queued.swap(IDLE, Ordering::AcqRel) {
            IDLE => Cancelled::Idle,
            _ => Cancelled::Pending,
        }
    }

    #[inline(always)]
    fn cancel_work(&self, cpu: &Cpu<'_, P>, work: &CountWork<P>) -> bool {
        self.try_cancel_work(cpu, work) == Cancelled::Pending
    }

    unsafe fn defer(&self, cpu: &Cpu<'_, P>, work: &CountWork<P>) {
        let list = &self.deferred[cpu.id().index()];
        let item = ptr::from_ref(work).cast_mut();
        let mut head = list.load(Ordering::Relaxed);
        loop {
            work.next.store(head, Ordering::Relaxed);
            // Release pairs with the acquire of the swap in `run_deferred`, for `next`.
            match list.cas(head, item, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    #[inline(always)]
    fn tick(&self, cpu: &Cpu<'_, P>) {
        let list = &self.deferred[cpu.id().index()];
        // Relaxed: this CPU and its interrupts alone push.
        if !list.load(Ordering::Relaxed).is_null() {
            run_list(cpu, list);
        }
    }

    fn settle(&self, cpu: &Cpu<'_, P>) -> bool {
        // Each list is run, so this counts instead of stopping at the first.
        self.deferred.iter().filter(|list| run_list(cpu, list)).count() > 0
    }
}

/// Runs a list of deferred works; returns whether there was any.
#[cold]
fn run_list<P: Platform>(cpu: &Cpu<'_, P>, list: &P::Ptr<CountWork<P>>) -> bool {
    // Acquire pairs with the release in `defer`.
    let mut item = list.swap(ptr::null_mut(), Ordering::Acquire);
    let any = !item.is_null();
    while !item.is_null() {
        // SAFETY: a deferred work is valid until its handler returns, see `Engine::defer`.
        let work = unsafe { &*item };
        let next = work.next.load(Ordering::Relaxed);
        // SAFETY: the contract of `Handler`.
        unsafe { (work.handler)(work.owner, cpu) };
        item = next;
    }
    any
}
