//! An engine that keeps each timer's and work's state and never runs their handlers: what is left
//! to measure is the cell's own synchronisation.
//!
//! A timer is armed as by `hrtimer_start`: with the base of the CPU that it was on last locked, which
//! is a word of that CPU's, and the machine's charge for arming while it is held. The words that
//! arming writes lie where an hrtimer has them; the order of the queue, and what a timer interrupt
//! costs, are not modelled.

use core::ptr;

use crossbeam_utils::CachePadded;

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
/// [`CountTimer::base`]: never armed.
const NO_BASE: u32 = 0;

/// See the module.
pub struct CountEngine<P: Platform> {
    /// Work that cells defer, one list per CPU that pushes.
    deferred: Box<[P::Ptr<CountWork<P>>]>,
    /// The lock of each CPU's timers.
    bases: Box<[CachePadded<P::U32>]>,
}

/// A timer that is armed or not, laid out as `struct hrtimer`: the words that arming writes are
/// where they are there.
#[repr(C)]
pub struct CountTimer<P: Platform> {
    /// The node of the queue.
    node: P::U64,
    _node: [u64; 2],
    expires: P::U64,
    _softexpires_and_function: [u64; 2],
    /// The CPU it was armed on last, from 1, or [`NO_BASE`]; a pointer of eight bytes there.
    base: P::U32,
    _base: u32,
    /// A byte there, with flags behind it.
    state: P::U32,
    _flags: u32,
}

// Where `struct hrtimer` (include/linux/hrtimer_types.h, Linux 6.18 and 7.0) has them. From 7.1 on the
// node has two more words, and what is behind it lies 16 bytes further.
const _: () = {
    use core::mem::offset_of;

    use crate::platform::Native;

    type Timer = CountTimer<Native>;
    assert!(offset_of!(Timer, node) == 0);
    assert!(offset_of!(Timer, expires) == 24);
    assert!(offset_of!(Timer, base) == 48);
    assert!(offset_of!(Timer, state) == 56);
    assert!(size_of::<Timer>() == 64);
};

/// A work item that is queued or not.
#[repr(C)]
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
            bases: (0..cpus).map(|_| CachePadded::new(P::U32::new("base.lock", 0))).collect(),
        }
    }

    #[inline(always)]
    fn timer(_: Handler<P>, _: *mut ()) -> CountTimer<P> {
        CountTimer {
            node: P::U64::new("timer.node", 0),
            _node: [0; 2],
            expires: P::U64::new("timer.expires", 0),
            _softexpires_and_function: [0; 2],
            base: P::U32::new("timer.base", NO_BASE),
            _base: 0,
            state: P::U32::new("timer.state", IDLE),
            _flags: 0,
        }
    }

    #[inline(always)]
    unsafe fn arm(&self, cpu: &Cpu<'_, P>, timer: &CountTimer<P>, expiry: Expiry) {
        let this = cpu.id().0 + 1;
        let _irq_off = cpu.irq_off();
        loop {
            // Relaxed, here and below: written with the base locked that it names, and looked at
            // again then.
            let last = timer.base.load(Ordering::Relaxed);
            let number = if last == NO_BASE { this } else { last };
            let base = &self.bases[number as usize - 1];
            lock_base::<P>(base);
            let moved = timer.base.load(Ordering::Relaxed) != last;
            if !moved && last != this {
                // It moves to this CPU. A timer that was never armed is nobody's: two CPUs that
                // both claim it meet at the second look.
                timer.state.store(IDLE, Ordering::Relaxed);
                timer.base.store(this, Ordering::Relaxed);
            } else if !moved {
                cpu.charge(|charges| charges.arm_timer);
                timer.node.store(1, Ordering::Relaxed);
                timer.expires.store(expiry.ns, Ordering::Relaxed);
                timer.state.store(ARMED, Ordering::Relaxed);
            }
            // Release pairs with the acquire in `lock_base`.
            base.store(0, Ordering::Release);
            if !moved && last == this {
                return;
            }
        }
    }

    #[inline(always)]
    fn try_cancel(&self, cpu: &Cpu<'_, P>, timer: &CountTimer<P>) -> Cancelled {
        // An idle timer costs a look, as in `hrtimer_try_to_cancel`. Relaxed: callers order it.
        if timer.state.load(Ordering::Relaxed) == IDLE {
            return Cancelled::Idle;
        }
        let _irq_off = cpu.irq_off();
        loop {
            let last = timer.base.load(Ordering::Relaxed);
            let base = &self.bases[last as usize - 1];
            lock_base::<P>(base);
            let moved = timer.base.load(Ordering::Relaxed) != last;
            let was = timer.state.load(Ordering::Relaxed);
            if !moved && was == ARMED {
                timer.node.store(0, Ordering::Relaxed);
                timer.state.store(IDLE, Ordering::Relaxed);
            }
            // Release pairs with the acquire in `lock_base`.
            base.store(0, Ordering::Release);
            if !moved {
                return if was == ARMED { Cancelled::Pending } else { Cancelled::Idle };
            }
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
    unsafe fn queue(&self, cpu: &Cpu<'_, P>, work: &CountWork<P>) -> bool {
        cpu.charge(|charges| charges.queue_work);
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

/// Takes the lock of a CPU's timers. Interrupts are off.
#[inline(always)]
fn lock_base<P: Platform>(base: &P::U32) {
    // Acquire pairs with the release of the holder before.
    while base.cas(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        P::wait_until(|| (base.load(Ordering::Relaxed) == 0).then_some(()));
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
