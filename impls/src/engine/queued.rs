//! An engine with real per-CPU queues. It has no threads of its own: whoever drives a CPU calls
//! [`QueuedEngine::run_timers`] and [`QueuedEngine::run_works`], be it a pinned thread, a model
//! checker's thread or a virtual core. So callbacks run concurrently with everything else, and
//! one source of the cancel protocol serves all platforms.
//!
//! The protocol is that of hrtimers: a per-CPU base under a lock, an ordered queue, and the item
//! whose handler runs now. An item belongs to one base at a time; moving it goes through
//! [`MIGRATING`], so that nobody finds it in two. A handler runs with the base unlocked; an item
//! whose handler runs is armed again on the same base, and never runs twice at once.

use core::ptr;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use cellbench_mutations::mutated;
use crossbeam_utils::CachePadded;

use super::{Cancelled, Engine, EngineKind, Expiry, Handler};
use crate::machine::{Context, Cpu};
use crate::platform::{Exclusive, Ordering, Platform, Word};

/// Chooses [`QueuedEngine`].
pub struct Queued;

impl EngineKind for Queued {
    type Of<P: Platform> = QueuedEngine<P>;
}

/// The item is being moved from one base to another.
const MIGRATING: u32 = u32::MAX;
/// The item was never queued.
const NO_BASE: u32 = u32::MAX - 1;

/// See the module.
pub struct QueuedEngine<P: Platform> {
    timers: Box<[CachePadded<Base<P>>]>,
    works: Box<[CachePadded<Base<P>>]>,
    waker: OnceLock<Waker>,
}

/// Called with a CPU's number when something was queued there that its driver may sleep through.
type Waker = Box<dyn Fn(u32) + Send + Sync>;

/// The timers or the works of one CPU.
struct Base<P: Platform> {
    queue: P::Exclusive<Queue<P>>,
    /// The item whose handler runs; written by whoever drives the base.
    running: P::Ptr<Item<P>>,
    /// The earliest expiry in `queue`, `u64::MAX` when it is empty: a hint for the driver.
    next_ns: P::U64,
}

struct Queue<P: Platform> {
    /// By expiry, then by arrival. Works expire at 0, so they run in order of arrival.
    items: BTreeMap<(u64, u64), *mut Item<P>>,
    arrivals: u64,
}

// SAFETY: the pointers are used under the rules of `Item` only.
unsafe impl<P: Platform> Send for Queue<P> {}

/// A timer or a work item. All words but `base` are guarded by the lock of the base that `base`
/// names, hence their relaxed accesses.
pub struct Item<P: Platform> {
    base: P::U32,
    queued: P::U32,
    expires_ns: P::U64,
    arrival: P::U64,
    handler: Handler<P>,
    owner: *mut (),
}

// SAFETY: `owner` is handed to `handler` and not used here; the rest are atomic words.
unsafe impl<P: Platform> Send for Item<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Item<P> {}

impl<P: Platform> Item<P> {
    fn new(handler: Handler<P>, owner: *mut ()) -> Self {
        Self {
            base: P::U32::new("item.base", NO_BASE),
            queued: P::U32::new("item.queued", 0),
            expires_ns: P::U64::new("item.expires", 0),
            arrival: P::U64::new("item.arrival", 0),
            handler,
            owner,
        }
    }

    fn key(&self) -> (u64, u64) {
        (self.expires_ns.load(Ordering::Relaxed), self.arrival.load(Ordering::Relaxed))
    }

    fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed) != 0
    }

    fn pointer(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }
}

impl<P: Platform> Queue<P> {
    fn insert(&mut self, item: &Item<P>, expires_ns: u64) {
        self.arrivals += 1;
        item.expires_ns.store(expires_ns, Ordering::Relaxed);
        item.arrival.store(self.arrivals, Ordering::Relaxed);
        item.queued.store(1, Ordering::Relaxed);
        self.items.insert(item.key(), item.pointer());
    }

    fn remove(&mut self, item: &Item<P>) {
        let removed = self.items.remove(&item.key());
        debug_assert_eq!(removed, Some(item.pointer()));
        item.queued.store(0, Ordering::Relaxed);
    }

    fn earliest_ns(&self) -> u64 {
        self.items.first_key_value().map_or(u64::MAX, |((expires, _), _)| *expires)
    }
}

impl<P: Platform> Base<P> {
    fn new() -> CachePadded<Self> {
        CachePadded::new(Self {
            queue: P::Exclusive::new("base.lock", Queue { items: BTreeMap::new(), arrivals: 0 }),
            running: P::Ptr::new("base.running", ptr::null_mut()),
            next_ns: P::U64::new("base.next", u64::MAX),
        })
    }

    /// Runs `body` on the queue and publishes what is then the earliest expiry.
    fn change<R>(&self, body: impl FnOnce(&mut Queue<P>) -> R) -> R {
        self.queue.with(|queue| {
            let result = body(queue);
            // Relaxed: a hint, looked at again under the lock.
            self.next_ns.store(queue.earliest_ns(), Ordering::Relaxed);
            result
        })
    }

    /// Returns whether the handler of `item` runs here.
    fn runs(&self, item: &Item<P>) -> bool {
        // Acquire pairs with the release in `finish`: the handler's effects are seen.
        self.running.load(Ordering::Acquire) == item.pointer()
    }

    /// Takes the first item that is due, and notes that it runs.
    fn take_due(&self, now_ns: u64) -> Option<(Handler<P>, *mut ())> {
        self.change(|queue| {
            // Another driver of this base is in a handler: one runs at a time.
            if !self.running.load(Ordering::Relaxed).is_null() || queue.earliest_ns() > now_ns {
                return None;
            }
            let (_, &pointer) = queue.items.first_key_value()?;
            // SAFETY: a queued item is valid, by the contract of `Engine::arm` and `queue`.
            let item = unsafe { &*pointer };
            queue.remove(item);
            // Relaxed: those who ask hold the lock, or wait for the release in `finish`.
            self.running.store(pointer, Ordering::Relaxed);
            Some((item.handler, item.owner))
        })
    }

    fn finish(&self) {
        // Release pairs with the acquire in `runs`.
        self.running.store(ptr::null_mut(), Ordering::Release);
    }

    fn due(&self, now_ns: u64) -> usize {
        self.queue.with(|queue| queue.items.range(..=(now_ns, u64::MAX)).count())
    }
}

/// Result of an attempt to queue an item on the base it belongs to.
enum Enqueue {
    Done { was_queued: bool },
    Move { was_queued: bool },
}

/// Runs what is due on `base`: at most as many items as were due when it began, so that one that
/// queues itself again does not keep the driver for ever. Returns how many ran.
fn run_base<P: Platform>(cpu: &Cpu<'_, P>, base: &Base<P>, now_ns: u64, context: Context) -> usize {
    // Relaxed: a hint. Whoever queues after this calls the waker.
    if base.next_ns.load(Ordering::Relaxed) > now_ns {
        return 0;
    }
    let inner = cpu.interrupted(context);
    let budget = {
        let _irq_off = cpu.irq_save();
        base.due(now_ns)
    };
    for ran in 0..budget {
        let taken = {
            let _irq_off = cpu.irq_save();
            base.take_due(now_ns)
        };
        let Some((handler, owner)) = taken else { return ran };
        // SAFETY: the contract of `Handler`. The item is not touched after this: its handler may
        // hand it to be freed.
        unsafe { handler(owner, &inner) };
        base.finish();
    }
    budget
}

/// Runs `body` with the base that the item belongs to locked; `None` if it was never queued.
fn with_base<P: Platform, R>(
    bases: &[CachePadded<Base<P>>],
    item: &Item<P>,
    mut body: impl FnMut(u32, &Base<P>, &mut Queue<P>) -> R,
) -> Option<R> {
    loop {
        // Acquire pairs with the release in `settle_on`.
        let number = P::wait_until(|| match item.base.load(Ordering::Acquire) {
            MIGRATING => None,
            number => Some(number),
        });
        if number == NO_BASE {
            return None;
        }
        let base = &*bases[number as usize];
        let done = base.change(|queue| {
            // Relaxed: an item leaves a base only under the base's lock, which is held.
            let stays = item.base.load(Ordering::Relaxed) == number || mutated!(BaseNotLookedAt);
            stays.then(|| body(number, base, queue))
        });
        if done.is_some() {
            return done;
        }
    }
}

/// Inserts an item that this CPU has set MIGRATING.
fn settle_on<P: Platform>(
    bases: &[CachePadded<Base<P>>],
    item: &Item<P>,
    number: u32,
    expires_ns: u64,
) {
    bases[number as usize].change(|queue| {
        queue.insert(item, expires_ns);
        // Release pairs with the acquire in `with_base`.
        item.base.store(number, Ordering::Release);
    });
}

/// Queues the item on this CPU's base, or leaves it on the one where its handler runs. An item
/// that is queued is moved unless `keep`. Returns whether it was queued before, and the base.
fn enqueue<P: Platform>(
    cpu: &Cpu<'_, P>,
    bases: &[CachePadded<Base<P>>],
    item: &Item<P>,
    expires_ns: u64,
    keep: bool,
) -> (bool, u32) {
    let this = cpu.id().0;
    let _irq_off = cpu.irq_save();
    loop {
        let mut base_number = this;
        let outcome = with_base(bases, item, |number, base, queue| {
            base_number = number;
            let was_queued = item.is_queued();
            if was_queued && keep {
                return Enqueue::Done { was_queued };
            }
            if was_queued {
                queue.remove(item);
            }
            if number == this || base.runs(item) && !mutated!(RunningItemMoved) {
                queue.insert(item, expires_ns);
                return Enqueue::Done { was_queued };
            }
            // Relaxed: whoever waits for the move acquires its end.
            item.base.store(MIGRATING, Ordering::Relaxed);
            Enqueue::Move { was_queued }
        });
        match outcome {
            Some(Enqueue::Done { was_queued }) => return (was_queued, base_number),
            Some(Enqueue::Move { was_queued }) => {
                settle_on(bases, item, this, expires_ns);
                return (was_queued, this);
            }
            None => {
                // Never queued: two CPUs may claim it for their base, one wins. Acquire for
                // symmetry with `with_base`; the loser goes round.
                let claim = item.base.cas(NO_BASE, MIGRATING, Ordering::Acquire, Ordering::Relaxed);
                if claim.is_ok() {
                    settle_on(bases, item, this, expires_ns);
                    return (false, this);
                }
            }
        }
    }
}

/// State in which an item was found.
struct Found {
    was_queued: bool,
    runs: bool,
}

/// Takes the item out of its queue, if it is there. One whose handler runs stays queued unless
/// `also_running`.
fn try_dequeue<P: Platform>(
    cpu: &Cpu<'_, P>,
    bases: &[CachePadded<Base<P>>],
    item: &Item<P>,
    also_running: bool,
) -> Found {
    let _irq_off = cpu.irq_save();
    with_base(bases, item, |_, base, queue| {
        let found = Found { was_queued: item.is_queued(), runs: base.runs(item) };
        if found.was_queued && (also_running || !found.runs) {
            queue.remove(item);
        }
        found
    })
    .unwrap_or(Found { was_queued: false, runs: false })
}

/// Takes the item out of its queue unless its handler runs. As hrtimers do, one whose handler runs
/// is left alone, also if it is queued again: whoever frees the item must not take "was pending"
/// for "does not run".
fn try_cancel<P: Platform>(
    cpu: &Cpu<'_, P>,
    bases: &[CachePadded<Base<P>>],
    item: &Item<P>,
) -> Cancelled {
    match try_dequeue(cpu, bases, item, false) {
        Found { runs: true, .. } => Cancelled::Running,
        Found { was_queued: true, .. } => Cancelled::Pending,
        Found { .. } => Cancelled::Idle,
    }
}

/// Dequeues the item and waits until its handler does not run. Returns whether it was queued.
fn dequeue<P: Platform>(cpu: &Cpu<'_, P>, bases: &[CachePadded<Base<P>>], item: &Item<P>) -> bool {
    let mut was_queued = false;
    loop {
        // A handler that was running may have queued the item again before it ended, and one
        // that still runs may yet do so: only an item that does not run ends the loop.
        let found = try_dequeue(cpu, bases, item, true);
        was_queued |= found.was_queued;
        if !found.runs || found.was_queued && mutated!(RearmedNotAwaited) {
            return was_queued;
        }
        P::wait_until(|| {
            // Acquire: see `with_base`.
            let number = item.base.load(Ordering::Acquire);
            let base = bases.get(number as usize)?;
            (!base.runs(item)).then_some(())
        });
    }
}

impl<P: Platform> QueuedEngine<P> {
    /// Has `waker` called with a CPU's number whenever something is queued there. Set once,
    /// before use; it must be quick and must not use the engine.
    ///
    /// # Panics
    /// If it was set before.
    pub fn set_waker(&self, waker: impl Fn(u32) + Send + Sync + 'static) {
        assert!(self.waker.set(Box::new(waker)).is_ok(), "the waker was set before");
    }

    fn wake(&self, number: u32) {
        if let Some(waker) = self.waker.get() {
            waker(number);
        }
    }

    /// Returns when the earliest timer that was armed on `cpu` expires, on the platform's clock;
    /// `u64::MAX` if none is armed.
    pub fn next_expiry_ns(&self, cpu: u32) -> u64 {
        // Relaxed: a hint.
        self.timers[cpu as usize].next_ns.load(Ordering::Relaxed)
    }

    /// Returns whether works wait on `cpu`.
    pub fn has_works(&self, cpu: u32) -> bool {
        // Relaxed: a hint.
        self.works[cpu as usize].next_ns.load(Ordering::Relaxed) == 0
    }

    /// Fires the timers armed on `base` that expired by `now_ns`, in softirq context on `cpu`;
    /// returns how many.
    pub fn run_timers(&self, cpu: &Cpu<'_, P>, base: u32, now_ns: u64) -> usize {
        run_base(cpu, &self.timers[base as usize], now_ns, Context::Softirq)
    }

    /// Runs the works queued on `base`, in task context on `cpu`; returns how many.
    pub fn run_works(&self, cpu: &Cpu<'_, P>, base: u32) -> usize {
        run_base(cpu, &self.works[base as usize], 0, Context::Task)
    }
}

impl<P: Platform> Engine<P> for QueuedEngine<P> {
    const ID: &'static str = "live";
    const RUNS: bool = true;
    type Timer = Item<P>;
    type Work = Item<P>;

    fn new(cpus: usize) -> Self {
        Self {
            timers: (0..cpus).map(|_| Base::new()).collect(),
            works: (0..cpus).map(|_| Base::new()).collect(),
            waker: OnceLock::new(),
        }
    }

    fn timer(handler: Handler<P>, owner: *mut ()) -> Item<P> {
        Item::new(handler, owner)
    }

    unsafe fn arm(&self, cpu: &Cpu<'_, P>, timer: &Item<P>, expiry: Expiry) {
        let expires_ns =
            if expiry.absolute { expiry.ns } else { P::now_ns().saturating_add(expiry.ns) };
        // `pinned` asks for this CPU, which is where it goes anyway unless its handler runs.
        let (_, number) = enqueue(cpu, &self.timers, timer, expires_ns, false);
        self.wake(number);
    }

    fn try_cancel(&self, cpu: &Cpu<'_, P>, timer: &Item<P>) -> Cancelled {
        try_cancel(cpu, &self.timers, timer)
    }

    fn cancel(&self, cpu: &Cpu<'_, P>, timer: &Item<P>) -> bool {
        dequeue(cpu, &self.timers, timer)
    }

    fn work(handler: Handler<P>, owner: *mut ()) -> Item<P> {
        Item::new(handler, owner)
    }

    unsafe fn queue(&self, cpu: &Cpu<'_, P>, work: &Item<P>) -> bool {
        let (was_queued, number) = enqueue(cpu, &self.works, work, 0, true);
        self.wake(number);
        !was_queued
    }

    fn try_cancel_work(&self, cpu: &Cpu<'_, P>, work: &Item<P>) -> Cancelled {
        try_cancel(cpu, &self.works, work)
    }

    fn cancel_work(&self, cpu: &Cpu<'_, P>, work: &Item<P>) -> bool {
        dequeue(cpu, &self.works, work)
    }

    unsafe fn defer(&self, cpu: &Cpu<'_, P>, work: &Item<P>) {
        // SAFETY: the same contract.
        unsafe { self.queue(cpu, work) };
    }

    #[inline(always)]
    fn tick(&self, _: &Cpu<'_, P>) {}

    fn settle(&self, cpu: &Cpu<'_, P>) -> bool {
        (0..self.works.len()).map(|base| self.run_works(cpu, base as u32)).sum::<usize>() > 0
    }
}
