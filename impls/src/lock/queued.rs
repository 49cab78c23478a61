//! The queued spinlock: first come, first served, each waiter on a line of its own, in 32 bits.
//!
//! The word holds a locked byte, a pending bit and the tail of a queue of waiters. Uncontended it
//! is one compare-exchange and one byte store. A single waiter sets the pending bit and spins on
//! the locked byte. Further waiters queue on per-CPU nodes (an MCS queue: Mellor-Crummey and
//! Scott 1991, with the tail packed into the word: the Linux queued spinlock by Long and
//! Zijlstra). A CPU has one node for each context that can be waiting at once.
//!
//! It comes in two forms, see [`Form`]: the kernel's, and one whose fast path leaves the bytes above
//! the locked byte alone.
//!
//! ```text
//! bits  0..8   locked byte
//! bit   8      pending: one waiter next in line, spinning on the word
//! bits 16..32  tail: the last waiter in the queue; 0: no queue
//! ```

use core::marker::PhantomData;
use core::ptr;

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use cellbench_mutations::mutated;

use crate::machine::{Cpu, CpuId, CpuLocal, Machine};
use crate::platform::{Memory, Ordering, Platform, SplitWord, Word};

/// The lock is held.
pub(crate) const LOCKED: u32 = 1;
/// The locked byte.
pub(crate) const LOCKED_MASK: u32 = 0xff;
/// A waiter is next in line without a queue node.
pub(crate) const PENDING: u32 = 1 << 8;
/// Locked byte and pending bit.
pub(crate) const LOCKED_PENDING: u32 = LOCKED_MASK | PENDING;
const TAIL_SHIFT: u32 = 16;
/// The tail.
pub(crate) const TAIL_MASK: u32 = u32::MAX << TAIL_SHIFT;

/// Waits that can nest on one CPU: task, softirq, hardirq, NMI.
pub(crate) const LEVELS: usize = 4;
const LEVEL_BITS: u32 = 2;
/// CPUs that the tail can name.
pub const MAX_CPUS: u32 = (1 << (16 - LEVEL_BITS)) - 1;

/// How often a newcomer looks for the pending waiter to take the lock, before it queues.
const PENDING_HANDOVER_SPINS: u32 = 512;

/// A waiter's place in a queue.
pub(crate) struct QueueNode<P: Platform> {
    /// The waiter behind this one.
    pub(crate) next: P::Ptr<QueueNode<P>>,
    /// Non-zero once the waiter in front has left: see [`GO`] and the resilient lock.
    pub(crate) turn: P::U32,
    /// Its name in a word's high half.
    name: u16,
}

impl<P: Platform> QueueNode<P> {
    /// Returns its name in a word's high half.
    pub(crate) fn name(&self) -> u16 {
        self.name
    }

    /// Returns the CPU that waits on it.
    pub(crate) fn cpu(&self) -> CpuId {
        CpuId(u32::from(self.name >> LEVEL_BITS) - 1)
    }
}

/// [`QueueNode::turn`]: this waiter is the head of the queue now.
pub(crate) const GO: u32 = 1;

/// The nodes of one CPU.
pub struct QueueNodes<P: Platform> {
    nodes: [QueueNode<P>; LEVELS],
    /// How many are in use.
    used: CpuLocal,
}

impl<P: Platform> QueueNodes<P> {
    pub(crate) fn new(cpu: CpuId) -> Self {
        Self {
            nodes: core::array::from_fn(|level| QueueNode {
                next: P::Ptr::new("node.next", ptr::null_mut()),
                turn: P::U32::new("node.turn", 0),
                name: encode_tail(cpu, level as u32),
            }),
            used: CpuLocal::default(),
        }
    }

    /// Returns nodes in use: 0 at rest.
    pub fn used(&self) -> u32 {
        self.used.get()
    }
}

/// A node in use on this CPU; given back when dropped.
pub(crate) struct Claim<'a, P: Platform> {
    nodes: &'a QueueNodes<P>,
    pub(crate) level: u32,
}

impl<'a, P: Platform> Claim<'a, P> {
    /// Takes the next level. Beyond the last one there is a claim without a node.
    pub(crate) fn new(cpu: &'a Cpu<'_, P>) -> Self {
        let nodes = &*cpu.this.queue;
        let level = nodes.used.get();
        // An interrupt between the load and the store leaves the count as it found it.
        nodes.used.set(level + 1);
        Self { nodes, level }
    }

    /// Returns the node, made ready; `None` if all levels are in use.
    pub(crate) fn node(&self) -> Option<&'a QueueNode<P>> {
        let level = self.level as usize;
        let level = if mutated!(FifthWaiterWraps) { level % LEVELS } else { level };
        let node = self.nodes.nodes.get(level)?;
        // Relaxed: the exchange of the tail publishes them.
        node.next.store(ptr::null_mut(), Ordering::Relaxed);
        node.turn.store(0, Ordering::Relaxed);
        Some(node)
    }
}

impl<P: Platform> Drop for Claim<'_, P> {
    fn drop(&mut self) {
        self.nodes.used.set(self.level);
    }
}

/// Returns the name of a node in the word's high half; never 0.
pub(crate) fn encode_tail(cpu: CpuId, level: u32) -> u16 {
    debug_assert!(cpu.0 < MAX_CPUS && level < LEVELS as u32);
    let name = (cpu.0 + 1) << LEVEL_BITS | level;
    if mutated!(TailInEightBits) { u16::from(name as u8) } else { name as u16 }
}

/// Returns the node that a word's high half names; `None` for 0.
pub(crate) fn decode_tail<P: Platform>(machine: &Machine<P>, tail: u16) -> Option<&QueueNode<P>> {
    let tail = u32::from(tail);
    let cpu = CpuId((tail >> LEVEL_BITS).checked_sub(1)?);
    let level = tail & ((1 << LEVEL_BITS) - 1);
    Some(&machine.per_cpu(cpu).queue.nodes[level as usize])
}

/// Returns the tail of a word.
pub(crate) fn tail_of(value: u32) -> u16 {
    (value >> TAIL_SHIFT) as u16
}

/// How the lock is taken. The forms differ in which bytes of the word an access covers.
pub trait Form: Send + Sync + Sized + 'static {
    /// Name of the queued spinlock in this form.
    const QUEUED: &'static str;
    /// Name of the resilient queued spinlock in this form; `None`: that of its generation.
    const RESILIENT: Option<&'static str>;

    /// Takes the lock if nobody holds it and nobody waits for it; `Err` with the word found.
    #[doc(hidden)]
    fn try_fast<P: Memory>(word: &QueuedWord<P, Self>) -> Result<(), u32>;

    /// Returns the pending waiter takes the lock if it is free, and gives its place to the next.
    #[doc(hidden)]
    fn try_pending<P: Memory>(word: &QueuedWord<P, Self>) -> bool;

    /// Tries as [`try_pending`](Self::try_pending) does, where the lock was free when the pending bit was set.
    #[doc(hidden)]
    fn try_pending_unlocked<P: Memory>(word: &QueuedWord<P, Self>) -> bool;

    /// Returns the head of the queue, whose name is `tail`, takes the lock if it is free and
    /// nobody is
    /// pending. Returns whether the queue is empty then, or `None`: not taken.
    #[doc(hidden)]
    fn try_head<P: Memory>(word: &QueuedWord<P, Self>, tail: u16) -> Option<bool>;
}

/// The kernel's form: the uncontended way is a compare-exchange of the whole word, and a waiter
/// whose turn it is owns the low half, so that a store takes the lock.
///
/// When a CPU takes a lock that it released a moment ago, that wide access has to wait until the
/// byte store of the release has left the store buffer: the store cannot be forwarded to it. On
/// Zen 4 this makes an uncontended pair without a critical section 6 ns instead of 2.2 ns; a
/// critical section of 50 ns hides it.
pub struct WordForm;

impl Form for WordForm {
    const QUEUED: &'static str = "spin-queued";
    const RESILIENT: Option<&'static str> = None;

    #[inline(always)]
    fn try_fast<P: Memory>(word: &QueuedWord<P, Self>) -> Result<(), u32> {
        // Acquire pairs with the last release.
        let order = if mutated!(TakenRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        word.value.cas(0, LOCKED, order, Ordering::Relaxed).map(|_| ())
    }

    fn try_pending<P: Memory>(word: &QueuedWord<P, Self>) -> bool {
        // Acquire pairs with the release of the holder before.
        let order = if mutated!(PendingRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        let free = word.value.load(order) & LOCKED_MASK == 0;
        if free {
            // Only the pending waiter writes the low half now.
            word.value.store_low_half(LOCKED as u16);
        }
        free
    }

    fn try_pending_unlocked<P: Memory>(word: &QueuedWord<P, Self>) -> bool {
        // Setting the bit acquired. Only the pending waiter writes the low half now.
        word.value.store_low_half(LOCKED as u16);
        true
    }

    fn try_head<P: Memory>(word: &QueuedWord<P, Self>, tail: u16) -> Option<bool> {
        // Acquire pairs with the release of the holder before.
        let order = if mutated!(HeadRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        let value = word.value.load(order);
        let taken = if mutated!(HeadOvertakes) { LOCKED_MASK } else { LOCKED_PENDING };
        if value & taken != 0 {
            return None;
        }
        // Relaxed: the load above acquired.
        if tail_of(value) == tail
            && word.value.cas(value, LOCKED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return Some(true);
        }
        // Others are behind; while there is a tail nobody else touches the low half.
        word.value.store_low_byte_one();
        Some(false)
    }
}

/// A fast path on the locked byte: a newcomer looks at the bytes above it and, if nobody waits,
/// exchanges the byte. The store of the last release can be forwarded to that.
///
/// A newcomer that saw nobody may take the lock from a waiter that came in that very moment: each
/// CPU once, as it queues when it comes again. So a waiter whose turn it is takes the byte by an
/// exchange too, where the kernel's form may store: that is the price, paid under contention.
pub struct ByteForm;

impl Form for ByteForm {
    const QUEUED: &'static str = "spin-queued-byte";
    const RESILIENT: Option<&'static str> = Some("rqspin-byte");

    #[inline(always)]
    fn try_fast<P: Memory>(word: &QueuedWord<P, Self>) -> Result<(), u32> {
        let taken = !word.value.any_above_low_byte() && word.take_byte();
        if taken { Ok(()) } else { Err(word.load()) }
    }

    fn try_pending<P: Memory>(word: &QueuedWord<P, Self>) -> bool {
        let taken = !word.is_locked() && word.take_byte();
        if taken {
            word.value.clear_second_byte();
        }
        taken
    }

    fn try_pending_unlocked<P: Memory>(word: &QueuedWord<P, Self>) -> bool {
        Self::try_pending(word)
    }

    fn try_head<P: Memory>(word: &QueuedWord<P, Self>, tail: u16) -> Option<bool> {
        // While there is a tail, a newcomer's pending bit is taken back.
        let taken = word.load() & LOCKED_PENDING == 0 && word.take_byte();
        taken.then(|| word.try_remove_tail(tail))
    }
}

/// The word, and the parts of the algorithm that the resilient lock shares.
pub struct QueuedWord<P: Memory, F> {
    pub(super) value: P::U32,
    form: PhantomData<F>,
}

impl<P: Memory, F: Form> QueuedWord<P, F> {
    pub(crate) fn new() -> Self {
        Self { value: P::U32::new("lock.value", 0), form: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn load(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    /// Returns whether the lock is held.
    pub(crate) fn is_locked(&self) -> bool {
        self.load() & LOCKED_MASK != 0
    }

    /// Acquires the uncontended way; `Err` with the word found.
    #[inline(always)]
    pub(crate) fn try_fast(&self) -> Result<(), u32> {
        F::try_fast(self)
    }

    /// Takes the lock if nobody holds it or is next in line. For those who try again and again:
    /// they do not write to a line that they cannot win.
    pub(crate) fn try_acquire(&self) -> bool {
        self.load() == 0 && self.try_fast().is_ok()
    }

    /// Acquires as [`try_acquire`](Self::try_acquire) does, by a full barrier, as `atomic_try_cmpxchg` is.
    pub(crate) fn try_acquire_fully(&self) -> bool {
        self.load() == 0 && self.value.cas(0, LOCKED, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Returns the pending waiter, which found the word to be `before` as it set the bit, takes
    /// the lock if
    /// nobody held it then.
    pub(crate) fn take_unlocked(&self, before: u32) -> bool {
        before & LOCKED_MASK == 0 && F::try_pending_unlocked(self)
    }

    /// Does what [`Form::try_pending`] says.
    pub(crate) fn try_pending(&self) -> bool {
        F::try_pending(self)
    }

    /// Does what [`Form::try_head`] says.
    pub(crate) fn try_head(&self, tail: u16) -> Option<bool> {
        F::try_head(self, tail)
    }

    /// Releases the lock. Release pairs with the acquire of whoever takes the lock next.
    #[inline(always)]
    pub(crate) fn release(&self) {
        self.value.clear_low_byte_release();
    }

    /// Takes the locked byte, whoever waits; whether it was free. Acquire pairs with the release.
    #[inline(always)]
    fn take_byte(&self) -> bool {
        self.value.set_low_byte_acquire()
    }

    /// Returns the word was found to be `value`, not free: takes the pending bit if nobody else
    /// waits. Returns
    /// the word before, where this newcomer is next in line; `None`: it has to queue.
    pub(crate) fn set_pending(&self, mut value: u32) -> Option<u32> {
        // Pending alone: the waiter next in line is taking the lock this very moment. Wait for
        // it, within bounds, rather than queue for one handover.
        if value == PENDING {
            let mut spins = PENDING_HANDOVER_SPINS;
            value = P::wait_until(|| {
                let now = self.load();
                spins -= 1;
                (now != PENDING || spins == 0).then_some(now)
            });
        }
        if value & !LOCKED_MASK != 0 {
            return None;
        }
        // Acquire, as in the kernel; it takes a place in line, not the lock.
        let before = self.value.set_bit_8_acquire();
        if before & !LOCKED_MASK == 0 {
            return Some(before);
        }
        // Somebody was faster. Take the bit back, unless it was theirs.
        if before & PENDING == 0 || mutated!(PendingOfAnotherTaken) {
            self.clear_pending();
        }
        None
    }

    /// Takes the pending bit away, which is this waiter's. Relaxed: it publishes nothing.
    pub(crate) fn clear_pending(&self) {
        self.value.clear_second_byte();
    }

    /// Makes `tail` the end of the queue; returns the end before it. The exchange publishes the
    /// node and acquires the one before.
    pub(crate) fn swap_tail(&self, tail: u16) -> u16 {
        self.value.swap_high_half(tail)
    }

    /// Removes the tail if it still is `tail`; whether it was. Relaxed: nothing is published, and a
    /// newcomer finds no node to follow.
    pub(crate) fn try_remove_tail(&self, tail: u16) -> bool {
        self.value.cas_high_half(tail, 0)
    }

    /// Returns whether none of the bits of a mask is set. Acquire, as in the kernel.
    pub(crate) fn is_released(&self, mask: u32) -> bool {
        self.value.load(Ordering::Acquire) & mask == 0
    }
}

/// Removes the tail from a word if it still is `tail`; whether it was.
pub(crate) fn remove_tail<P: Memory>(word: &P::U32, tail: u16) -> bool {
    let mut value = word.load(Ordering::Relaxed);
    while tail_of(value) == tail {
        let without = value & !TAIL_MASK;
        // Relaxed: nothing is published; a newcomer finds no node to follow.
        match word.cas(value, without, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(found) => value = found,
        }
    }
    false
}

/// Waits for the waiter behind `node` to announce itself: it has swapped the tail, so it will.
pub(crate) fn wait_for_next<P: Platform>(node: &QueueNode<P>) -> &QueueNode<P> {
    P::wait_until(|| {
        // Acquire pairs with the release in `announce`.
        let next = node.next.load(Ordering::Acquire);
        // SAFETY: nodes belong to the machine, which outlives the wait.
        unsafe { next.as_ref() }
    })
}

/// Tells the waiter in front who is behind it.
pub(crate) fn announce<P: Platform>(front: &QueueNode<P>, node: &QueueNode<P>) {
    // Release pairs with the acquire in `wait_for_next`: the node is ready.
    let order = if mutated!(AnnouncedRelaxed) { Ordering::Relaxed } else { Ordering::Release };
    front.next.store(ptr::from_ref(node).cast_mut(), order);
}

/// Makes the waiter behind `node` the head of the queue.
pub(crate) fn hand_on<P: Platform>(node: &QueueNode<P>) {
    // Release pairs with the acquire in `wait_for_turn`: what the word was set to before.
    let order = if mutated!(QueueTurnRelaxed) { Ordering::Relaxed } else { Ordering::Release };
    wait_for_next(node).turn.store(GO, order);
}

/// Waits for the waiter in front to leave; returns what it said.
pub(crate) fn wait_for_turn<P: Platform>(node: &QueueNode<P>) -> u32 {
    // Acquire pairs with the release of `turn` by the waiter in front.
    let order = if mutated!(TurnReadRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
    P::wait_until(|| Some(node.turn.load(order)).filter(|turn| *turn != 0))
}

/// See the module. First come, first served, but for the pending waiter's one place.
pub struct Queued<P: Memory, F = WordForm> {
    pub(super) word: QueuedWord<P, F>,
}

impl<P: Platform, F: Form> Lock<P> for Queued<P, F> {
    const ID: &'static str = F::QUEUED;
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { word: QueuedWord::new() }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.word.is_locked()
    }
}

impl<P: Platform, F: Form> RawLock<P> for Queued<P, F> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        if let Err(found) = self.word.try_fast() {
            self.acquire_slow(cpu, found);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, _: &Cpu<'_, P>) {
        self.word.release();
    }
}

impl<P: Platform, F: Form> Queued<P, F> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>, found: u32) {
        match self.word.set_pending(found) {
            Some(before) if self.word.take_unlocked(before) => {}
            Some(_) => P::wait_until(|| self.word.try_pending().then_some(())),
            None => self.acquire_queued(cpu),
        }
    }

    fn acquire_queued(&self, cpu: &Cpu<'_, P>) {
        let claim = Claim::new(cpu);
        let Some(node) = claim.node() else {
            // Deeper nesting than there are nodes: rare enough to give up the order.
            P::wait_until(|| self.word.try_acquire().then_some(()));
            return;
        };
        // The lock may have become free while the node was made ready.
        if self.word.try_acquire() {
            return;
        }
        let tail = encode_tail(cpu.id(), claim.level);
        let front = self.word.swap_tail(tail);
        if let Some(front) = decode_tail(cpu.machine(), front) {
            announce(front, node);
            wait_for_turn(node);
        }
        let last = P::wait_until(|| self.word.try_head(tail));
        if !last {
            hand_on(node);
        }
    }
}

#[cfg(test)]
mod names;

/// The queue's order: here, where the word shows who has come.
#[cfg(all(test, feature = "shuttle"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{ByteForm, Form, PENDING, Queued, WordForm, encode_tail, tail_of};
    use crate::lock::resilient::Resilient;
    use crate::machine::MachineConfig;
    use crate::platform::{Memory, Shuttle};
    use crate::{CpuId, Lock, Machine};

    /// Waiters: the pending one, the head of the queue, and two behind it.
    const WAITERS: u32 = 4;
    /// Schedules, and for PCT the points at which priorities change.
    const SCHEDULES: usize = 2_000;
    const CHANGES: usize = 3;

    trait HasWord: Lock<Shuttle> {
        /// Returns the word's value.
        fn value(&self) -> u32;
    }

    impl<F: Form> HasWord for Queued<Shuttle, F> {
        fn value(&self) -> u32 {
            self.word.load()
        }
    }

    impl<F: Form> HasWord for Resilient<Shuttle, F> {
        fn value(&self) -> u32 {
            self.word.load()
        }
    }

    /// Holds the lock on CPU 0 until the others have come one after the other; they get it in that order.
    /// Each has come when the word shows it: as the pending waiter, or as the tail.
    fn first_come_first_served<L: HasWord>() {
        let lock = Arc::new(L::new());
        let machine = Arc::new(Machine::<Shuttle>::new(MachineConfig::new(WAITERS + 1)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let cpu = machine.cpu(CpuId(0));
        let held = lock.with(&cpu, || {
            let mut threads = Vec::new();
            for number in 1..=WAITERS {
                let (taken, machine) = (Arc::clone(&lock), Arc::clone(&machine));
                let order = Arc::clone(&order);
                threads.push(shuttle::thread::spawn(move || {
                    let cpu = machine.cpu(CpuId(number));
                    let noted = taken.with(&cpu, || order.lock().unwrap().push(number));
                    noted.expect("time stands still");
                }));
                Shuttle::wait_until(|| {
                    let value = lock.value();
                    let came = match number {
                        1 => value & PENDING != 0,
                        _ => tail_of(value) == encode_tail(CpuId(number), 0),
                    };
                    came.then_some(())
                });
            }
            threads
        });
        for thread in held.expect("nobody else held it") {
            thread.join().unwrap();
        }
        assert!(order.lock().unwrap().iter().copied().eq(1..=WAITERS), "{order:?}");
    }

    fn check<L: HasWord>() {
        shuttle::check_random(first_come_first_served::<L>, SCHEDULES);
        shuttle::check_pct(first_come_first_served::<L>, SCHEDULES, CHANGES);
    }

    #[test]
    fn queued_lock_is_first_come_first_served() {
        check::<Queued<Shuttle, WordForm>>();
        check::<Queued<Shuttle, ByteForm>>();
    }

    #[test]
    fn resilient_lock_is_first_come_first_served() {
        check::<Resilient<Shuttle, WordForm>>();
        check::<Resilient<Shuttle, ByteForm>>();
    }
}
