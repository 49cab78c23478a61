//! The queued spinlock: first come, first served, each waiter on a line of its own, in 32 bits.
//!
//! The word holds a locked byte, a pending bit and the tail of a queue of waiters. Uncontended it
//! is one compare-exchange and one byte store. A single waiter sets the pending bit and spins on
//! the locked byte. Further waiters queue on per-CPU nodes (an MCS queue: Mellor-Crummey and
//! Scott 1991, with the tail packed into the word: the Linux queued spinlock by Long and
//! Zijlstra). A CPU has one node for each context that can be waiting at once.
//!
//! ```text
//! bits  0..8   locked byte
//! bit   8      pending: one waiter next in line, spinning on the word
//! bits 16..32  tail: the last waiter in the queue; 0: no queue
//! ```

use core::ptr;

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, CpuId, CpuLocal, Machine};
use crate::platform::{IntWord, Memory, Ordering, Platform, SplitWord, Word};

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
    pub(crate) fn new() -> Self {
        Self {
            nodes: core::array::from_fn(|_| QueueNode {
                next: P::Ptr::new("node.next", ptr::null_mut()),
                turn: P::U32::new("node.turn", 0),
            }),
            used: CpuLocal::default(),
        }
    }

    /// Nodes in use: 0 at rest.
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

    /// The node, made ready; `None` if all levels are in use.
    pub(crate) fn node(&self) -> Option<&'a QueueNode<P>> {
        let node = self.nodes.nodes.get(self.level as usize)?;
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

/// The name of a node in the word's high half; never 0.
pub(crate) fn encode_tail(cpu: CpuId, level: u32) -> u16 {
    debug_assert!(cpu.0 < MAX_CPUS && level < LEVELS as u32);
    ((cpu.0 + 1) << LEVEL_BITS | level) as u16
}

/// The node that a word's high half names; `None` for 0.
pub(crate) fn decode_tail<P: Platform>(machine: &Machine<P>, tail: u16) -> Option<&QueueNode<P>> {
    let tail = u32::from(tail);
    let cpu = CpuId((tail >> LEVEL_BITS).checked_sub(1)?);
    let level = tail & ((1 << LEVEL_BITS) - 1);
    Some(&machine.per_cpu(cpu).queue.nodes[level as usize])
}

/// The tail of a word.
pub(crate) fn tail_of(value: u32) -> u16 {
    (value >> TAIL_SHIFT) as u16
}

/// The parts of the algorithm that the resilient form shares.
pub(crate) struct QueuedWord<P: Memory> {
    value: P::U32,
}

/// What a newcomer that found the lock taken did.
pub(crate) enum Joined {
    /// It holds the lock.
    Acquired,
    /// It set the pending bit and is next in line.
    Pending,
    /// It has to queue.
    Queue,
}

impl<P: Memory> QueuedWord<P> {
    pub(crate) fn new() -> Self {
        Self { value: P::U32::new("lock.value", 0) }
    }

    #[inline(always)]
    pub(crate) fn load(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    /// Whether the lock is held.
    pub(crate) fn is_locked(&self) -> bool {
        self.load() & LOCKED_MASK != 0
    }

    /// As [`load`](Self::load); pairs with the release of the holder before.
    #[inline(always)]
    pub(crate) fn load_acquire(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    /// The uncontended way; `Err` with the word found. Acquire pairs with the last release.
    #[inline(always)]
    pub(crate) fn try_fast(&self) -> Result<(), u32> {
        self.value.cas(0, LOCKED, Ordering::Acquire, Ordering::Relaxed).map(|_| ())
    }

    /// Takes the lock if nobody holds it or is next in line.
    pub(crate) fn try_acquire(&self) -> bool {
        self.load() == 0 && self.try_fast().is_ok()
    }

    /// Release pairs with the acquire of whoever takes the lock next.
    #[inline(always)]
    pub(crate) fn release(&self) {
        self.value.clear_low_byte_release();
    }

    /// Takes the locked byte, whoever waits; whether it was free. Acquire pairs with the release.
    #[inline(always)]
    pub(crate) fn set_byte(&self) -> bool {
        self.value.set_low_byte_acquire()
    }

    /// Takes the locked byte, and gives it back if somebody waits; whether the lock is taken.
    #[inline(always)]
    pub(crate) fn try_byte(&self) -> bool {
        if !self.set_byte() {
            return false;
        }
        // Whoever set a bit above before the exchange is seen; whoever sets it after sees the
        // locked byte, and waits.
        if self.value.any_above_low_byte() {
            self.release();
            return false;
        }
        true
    }

    /// The pending waiter has the locked byte and gives its place to the next.
    pub(crate) fn clear_own_pending(&self) {
        self.value.clear_second_byte();
    }

    /// The word was found to be `value`, not free: takes the pending bit if nobody else waits,
    /// and with it the lock if that became free.
    pub(crate) fn join(&self, value: u32) -> Joined {
        match self.set_pending(value) {
            None => Joined::Queue,
            Some(before) if before & LOCKED_MASK == 0 => {
                self.pending_to_locked();
                Joined::Acquired
            }
            Some(_) => Joined::Pending,
        }
    }

    /// The word was found to be `value`, not free: takes the pending bit if nobody else waits.
    /// Returns the word before that, or `None`: this newcomer has to queue.
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
        // Acquire: this may be the access that takes the lock.
        let before = self.value.fetch_or(PENDING, Ordering::Acquire);
        if before & !LOCKED_MASK == 0 {
            return Some(before);
        }
        // Somebody was faster. Take the bit back, unless it was theirs.
        if before & PENDING == 0 {
            self.clear_pending();
        }
        None
    }

    /// Takes the pending bit away. Relaxed: it publishes nothing.
    pub(crate) fn clear_pending(&self) {
        self.value.fetch_and(!PENDING, Ordering::Relaxed);
    }

    /// The pending waiter saw the lock free and takes it. Only it writes the low half then.
    pub(crate) fn pending_to_locked(&self) {
        self.value.store_low_half(LOCKED as u16);
    }

    /// Makes `tail` the end of the queue; returns the end before it. The exchange publishes the
    /// node and acquires the one before.
    pub(crate) fn swap_tail(&self, tail: u16) -> u16 {
        self.value.swap_high_half(tail)
    }

    /// The head of the queue saw the word as `value`, with nobody holding the lock or next in
    /// line: takes the lock. Returns whether the queue is empty now.
    pub(crate) fn take_as_head(&self, value: u32, tail: u16) -> bool {
        // Relaxed: the load that saw the lock free acquired.
        if tail_of(value) == tail
            && self.value.cas(value, LOCKED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return true;
        }
        // Others are behind; while there is a tail nobody else touches the low half.
        self.value.fetch_or(LOCKED, Ordering::Relaxed);
        false
    }

    /// Removes the tail if it still is `tail`: the last in the queue leaves without the lock.
    pub(crate) fn try_remove_tail(&self, tail: u16) -> bool {
        let mut value = self.load();
        while tail_of(value) == tail {
            let without = value & !TAIL_MASK;
            // Relaxed: nothing is published; a newcomer finds no node to follow.
            match self.value.cas(value, without, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => value = found,
            }
        }
        false
    }
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
    front.next.store(ptr::from_ref(node).cast_mut(), Ordering::Release);
}

/// Waits for the waiter in front to leave; returns what it said.
pub(crate) fn wait_for_turn<P: Platform>(node: &QueueNode<P>) -> u32 {
    // Acquire pairs with the release of `turn` by the waiter in front.
    P::wait_until(|| Some(node.turn.load(Ordering::Acquire)).filter(|turn| *turn != 0))
}

/// See the module. First come, first served, but for the pending waiter's one place.
pub struct Queued<P: Memory> {
    word: QueuedWord<P>,
}

impl<P: Platform> Lock<P> for Queued<P> {
    const ID: &'static str = "spin-queued";
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

impl<P: Platform> RawLock<P> for Queued<P> {
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

impl<P: Platform> Queued<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>, found: u32) {
        match self.word.join(found) {
            Joined::Acquired => {}
            Joined::Pending => {
                P::wait_until(|| (self.word.load_acquire() & LOCKED_MASK == 0).then_some(()));
                self.word.pending_to_locked();
            }
            Joined::Queue => self.acquire_queued(cpu),
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
        let value = P::wait_until(|| {
            Some(self.word.load_acquire()).filter(|value| value & LOCKED_PENDING == 0)
        });
        if !self.word.take_as_head(value, tail) {
            // Release pairs with the acquire in `wait_for_turn`.
            wait_for_next(node).turn.store(GO, Ordering::Release);
        }
    }
}

/// The queue's order: here, where the word shows who has come.
#[cfg(all(test, feature = "shuttle"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{PENDING, Queued, QueuedWord, encode_tail, tail_of};
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
        fn word(&self) -> &QueuedWord<Shuttle>;
    }

    impl HasWord for Queued<Shuttle> {
        fn word(&self) -> &QueuedWord<Shuttle> {
            &self.word
        }
    }

    impl HasWord for Resilient<Shuttle> {
        fn word(&self) -> &QueuedWord<Shuttle> {
            &self.word
        }
    }

    /// CPU 0 holds the lock until the others have come one after the other; they get it in that
    /// order. Each has come when the word shows it: as the pending waiter, or as the tail.
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
                    let value = lock.word().load();
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

    #[test]
    fn queued_lock_is_first_come_first_served() {
        shuttle::check_random(first_come_first_served::<Queued<Shuttle>>, SCHEDULES);
        shuttle::check_pct(first_come_first_served::<Queued<Shuttle>>, SCHEDULES, CHANGES);
    }

    #[test]
    fn resilient_lock_is_first_come_first_served() {
        shuttle::check_random(first_come_first_served::<Resilient<Shuttle>>, SCHEDULES);
        shuttle::check_pct(first_come_first_served::<Resilient<Shuttle>>, SCHEDULES, CHANGES);
    }
}
