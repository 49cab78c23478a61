//! Interface of an implementation to the world that it runs in: atomic words, fences, waiting, a clock.
//!
//! Every lock and cell is generic over one [`Platform`]. On real cores all of it is
//! `#[inline(always)]` and compiles to the bare instruction; under a model checker the same source
//! is explored in every interleaving; in the simulator each access is charged with the cache-line
//! movement it causes.
//!
//! A platform is put together from three choices, so that each can be varied alone:
//! [`Memory`] (which atomics), [`ReclaimKind`] (how memory outlives its
//! readers) and [`EngineKind`] (who runs the callbacks).
//! [`World`] combines them.

use core::marker::PhantomData;
pub use core::sync::atomic::Ordering;

use crate::engine::{Engine, EngineKind};
use crate::rcu::{Reclaim, ReclaimKind};

#[cfg(any(feature = "loom", feature = "shuttle"))]
pub mod checked;
mod double;
#[cfg(feature = "loom")]
pub mod loom;
pub mod native;
pub mod observed;
pub mod recorded;
#[cfg(feature = "shuttle")]
pub mod shuttle;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stepped;
pub mod traced;

/// The name of an atomic field, as reports show it: `"block.refs"`, `"lock.val"`. Costs nothing
/// natively; the simulator and the model checkers name the field by it.
pub type Label = &'static str;

/// One atomic word holding a `T`.
///
/// Its size and alignment are those of the native atomic on every platform that measures
/// (native, simulator), so that layout and false sharing are the real ones.
pub trait Word<T: Copy>: Send + Sync {
    /// Returns a word named `label` that holds `value`.
    fn new(label: Label, value: T) -> Self;
    /// Loads atomically.
    fn load(&self, order: Ordering) -> T;
    /// Stores atomically.
    fn store(&self, value: T, order: Ordering);
    /// Exchanges atomically; returns the value before.
    fn swap(&self, value: T, order: Ordering) -> T;
    /// Compares and exchanges (strong): `Ok(previous)` if the word held `current` and now holds `new`,
    /// `Err(found)` if it held something else and is unchanged.
    fn cas(&self, current: T, new: T, success: Ordering, failure: Ordering) -> Result<T, T>;
}

/// A word with integer read-modify-write operations; each returns the value before it.
pub trait IntWord<T: Copy>: Word<T> {
    /// Adds atomically, wrapping; returns the value before.
    fn fetch_add(&self, value: T, order: Ordering) -> T;
    /// Subtracts atomically, wrapping; returns the value before.
    fn fetch_sub(&self, value: T, order: Ordering) -> T;
    /// Sets bits atomically (or); returns the value before.
    fn fetch_or(&self, value: T, order: Ordering) -> T;
    /// Keeps bits atomically (and); returns the value before.
    fn fetch_and(&self, value: T, order: Ordering) -> T;
}

/// A 32-bit word whose parts can be accessed on their own, as queued spinlocks do: the lock holder
/// owns the low byte and clears it with a plain byte store.
///
/// The meaning of each is given by the whole-word operation it equals; a platform may use the
/// narrower instruction.
pub trait SplitWord: IntWord<u32> {
    /// Equals `fetch_and(!0xff, Release)` without returning the old value.
    fn clear_low_byte_release(&self);
    /// Replaces the low half; equals a compare-exchange loop that keeps the high half.
    ///
    /// Ordering: relaxed. Used by the owner of the pending bit, whose acquire was the load that
    /// saw the lock free.
    fn store_low_half(&self, value: u16);
    /// Exchanges the high half and returns the previous one; equals an `AcqRel` compare-exchange
    /// loop that keeps the low half.
    fn swap_high_half(&self, value: u16) -> u16;
    /// Replaces the high half if it holds `current`, and returns whether it did; equals a relaxed
    /// compare-exchange loop that keeps the low half.
    fn cas_high_half(&self, current: u16, new: u16) -> bool;
    /// Sets the low byte, which holds 0 or 1, to 1, and returns whether it was 0; equals
    /// `fetch_or(1, Acquire) & 1 == 0`.
    fn set_low_byte_acquire(&self) -> bool;
    /// Sets the word, which holds 0 or 1 alone, to 1, and returns whether it was 0; equals
    /// `cas(0, 1, Acquire, Relaxed).is_ok()`.
    ///
    /// A platform may write a 1 over a 1, as an exchange does.
    #[inline(always)]
    fn test_and_set_acquire(&self) -> bool {
        self.swap(1, Ordering::Acquire) == 0
    }
    /// Returns whether anything is set above the low byte; equals `load(Relaxed) & !0xff != 0`.
    ///
    /// A platform may read the bytes above one by one: what is set before the call is seen, what is
    /// set during it may be seen or not.
    fn any_above_low_byte(&self) -> bool;
    /// Equals `fetch_and(!0xff00, Relaxed)`.
    fn clear_second_byte(&self);
    /// Sets bit 8 and returns the word before; equals `fetch_or(1 << 8, Acquire)` where nobody else
    /// clears the bit meanwhile.
    ///
    /// A platform may read the other bits just after the bit was set, as x86 kernels do
    /// (`lock bts`, then a load): they are then of that moment.
    fn set_bit_8_acquire(&self) -> u32;
    /// Stores 1 in the low byte; equals `fetch_or(1, Relaxed)` where the byte is 0 and the
    /// caller's to
    /// set.
    fn store_low_byte_one(&self);
}

/// Two words of 64 bits side by side that are compared and exchanged as one (`cmpxchg16b`, `casp`).
///
/// Takes 16 bytes on every platform that measures and has the instruction.
pub trait DoubleWord: Send + Sync {
    /// Returns two words named `label` that hold `halves`.
    fn new(label: Label, halves: [u64; 2]) -> Self;
    /// Loads one half, 0 or 1, atomically.
    ///
    /// # Panics
    /// If there is no such half.
    fn load_half(&self, half: usize, order: Ordering) -> u64;
    /// Compares and exchanges both (strong): `Err(found)` if they held something else than `current`, and
    /// are unchanged. A platform may do it as a full barrier whatever the order.
    ///
    /// # Errors
    /// What the words held.
    fn cas(&self, current: [u64; 2], new: [u64; 2], order: Ordering) -> Result<(), [u64; 2]>;
}

/// A mutual exclusion for data that is not part of any design under study: the timer bases and
/// work lists of the engines (`raw_spinlock_t` in the kernel). Platforms that check models supply
/// their checker's own, which explores fewer steps than a spinning one.
pub trait Exclusive<T>: Send + Sync {
    /// Wraps `value`.
    fn new(label: Label, value: T) -> Self;
    /// Runs `body` alone. Must be called with interrupts off on the calling CPU, as interrupt
    /// handlers take the same lock.
    fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R;
}

/// Spins between two evaluations of an expensive condition, where nothing else is asked for. At
/// some 40
/// cycles a pause this is a few microseconds: well under the millisecond at which deadlocks are
/// looked
/// for.
pub const SPINS_BETWEEN_LOOKS: u32 = 128;

/// The memory side of a platform.
pub trait Memory: Sized + Send + Sync + 'static {
    /// Name in reports.
    const NAME: &'static str;
    /// Freed memory is never used again and every later access to it is reported. Set by model
    /// checkers, where memory is cheap and each execution is short.
    const QUARANTINE: bool = false;
    /// Freed memory is filled with a pattern that is verified when it is handed out again. Set by
    /// the stress runs.
    const POISON: bool = false;
    /// Whether runs on this memory are timed, so that operations are inlined as a kernel's are.
    const TIMED: bool = false;

    /// 32-bit word.
    type U32: SplitWord;
    /// 64-bit word.
    type U64: IntWord<u64>;
    /// Pointer word.
    type Ptr<T: 'static>: Word<*mut T>;
    /// Two words that are exchanged as one.
    type Double: DoubleWord;
    /// Whether they are, by one instruction. Else a lock stands in for it: not to be used in NMI, and by code
    /// that has interrupts off alone.
    const DOUBLE_WORD_AT_ONCE: bool = true;
    /// Exclusive access to engine data.
    type Exclusive<T: Send>: Exclusive<T>;

    /// Executes a full memory barrier (`smp_mb()`).
    fn fence();
    /// Makes a full barrier of the successful read-modify-write just before: nothing where it
    /// is
    /// one already, as in the kernel's memory model and on x86; a fence under C11.
    fn fence_after_rmw() {
        Self::fence();
    }
    /// Orders stores before with stores behind (`smp_wmb()`).
    fn fence_writes();
    /// Orders loads before with loads behind (`smp_rmb()`).
    fn fence_reads();
    /// Tells the core that it is in a spin loop.
    fn relax();
    /// Waits until `condition`, which reads some words, returns a value (`smp_cond_load_*`).
    fn wait_until<R>(condition: impl FnMut() -> Option<R>) -> R;
    /// Waits as [`wait_until`](Self::wait_until) does, with an expensive second condition that is evaluated
    /// once when the wait begins and then once in `spins`: deadlock checks and timeouts.
    fn wait_until_or_every<R>(
        spins: u32,
        condition: impl FnMut() -> Option<R>,
        seldom: impl FnMut() -> Option<R>,
    ) -> R;
    /// Waits as [`wait_until_or_every`](Self::wait_until_or_every) does, every few microseconds.
    #[inline(always)]
    fn wait_until_or<R>(
        condition: impl FnMut() -> Option<R>,
        seldom: impl FnMut() -> Option<R>,
    ) -> R {
        Self::wait_until_or_every(SPINS_BETWEEN_LOOKS, condition, seldom)
    }
    /// Returns the monotonic time in nanoseconds, from an arbitrary origin.
    fn now_ns() -> u64;
    /// Computes for `turns` turns of a loop that touches no memory: a critical section of some
    /// length. How long a turn takes is for the caller to measure; in the simulator it is a
    /// nanosecond, in model checkers it is nothing.
    fn spend(turns: u32) {
        let _ = turns;
    }
    /// Spends as [`spend`](Self::spend) does, in series with what comes before and after: on a core that
    /// executes out of order no turn overlaps with another instruction, so that a charge arrives in
    /// full.
    fn charge(turns: u32) {
        Self::spend(turns);
    }

    /// Whether threads can sleep in the host's kernel: the next two exist. Elsewhere the machine
    /// keeps
    /// its own list of sleepers.
    const HOST_SLEEPS: bool = false;
    /// Sleeps if `word` holds `value`, until woken; may also return for no reason (`FUTEX_WAIT`).
    fn sleep_while(word: &Self::U32, value: u32) {
        let _ = (word, value);
        unreachable!("{} has no sleeping threads", Self::NAME)
    }
    /// Wakes one that sleeps on `word`, if any (`FUTEX_WAKE`).
    fn wake_one(word: &Self::U32) {
        let _ = word;
        unreachable!("{} has no sleeping threads", Self::NAME)
    }
}

/// Everything an implementation is generic over.
pub trait Platform: Memory {
    /// How memory outlives its readers.
    type Reclaim: Reclaim<Self>;
    /// Who arms, queues and runs callbacks.
    type Engine: Engine<Self>;
}

/// A platform made of a memory, a way of reclaiming and an engine.
pub struct World<M, R, E>(PhantomData<M>, PhantomData<R>, PhantomData<E>);

impl<M: Memory, R: ReclaimKind, E: EngineKind> Memory for World<M, R, E> {
    const NAME: &'static str = M::NAME;
    const QUARANTINE: bool = M::QUARANTINE;
    const POISON: bool = M::POISON;
    const TIMED: bool = M::TIMED;
    type U32 = M::U32;
    type U64 = M::U64;
    type Ptr<T: 'static> = M::Ptr<T>;
    type Double = M::Double;
    const DOUBLE_WORD_AT_ONCE: bool = M::DOUBLE_WORD_AT_ONCE;
    type Exclusive<T: Send> = M::Exclusive<T>;

    #[inline(always)]
    fn fence() {
        M::fence();
    }
    #[inline(always)]
    fn fence_after_rmw() {
        M::fence_after_rmw();
    }
    #[inline(always)]
    fn fence_writes() {
        M::fence_writes();
    }
    #[inline(always)]
    fn fence_reads() {
        M::fence_reads();
    }
    #[inline(always)]
    fn relax() {
        M::relax();
    }
    #[inline(always)]
    fn wait_until<T>(condition: impl FnMut() -> Option<T>) -> T {
        M::wait_until(condition)
    }
    #[inline(always)]
    fn wait_until_or_every<T>(
        spins: u32,
        condition: impl FnMut() -> Option<T>,
        seldom: impl FnMut() -> Option<T>,
    ) -> T {
        M::wait_until_or_every(spins, condition, seldom)
    }
    #[inline(always)]
    fn now_ns() -> u64 {
        M::now_ns()
    }
    #[inline(always)]
    fn spend(turns: u32) {
        M::spend(turns);
    }
    #[inline(always)]
    fn charge(turns: u32) {
        M::charge(turns);
    }

    const HOST_SLEEPS: bool = M::HOST_SLEEPS;
    fn sleep_while(word: &M::U32, value: u32) {
        M::sleep_while(word, value);
    }
    fn wake_one(word: &M::U32) {
        M::wake_one(word);
    }
}

impl<M: Memory, R: ReclaimKind, E: EngineKind> Platform for World<M, R, E> {
    type Reclaim = R::Of<Self>;
    type Engine = E::Of<Self>;
}

/// Real cores, RCU by quiescent states, an engine that only counts: what measures a cell's own
/// cost.
pub type Native = World<native::Cores, crate::rcu::Qsbr, crate::engine::Count>;
/// As [`Native`], with epochs (crossbeam-epoch) in place of RCU, to measure that choice.
pub type NativeEpoch = World<native::Cores, crate::rcu::Epoch, crate::engine::Count>;
/// Real cores and callbacks that really run, on threads that the caller supplies.
pub type NativeLive = World<native::Cores, crate::rcu::Qsbr, crate::engine::Queued>;
/// As [`NativeLive`], with poisoned memory: for stress runs.
pub type NativeAudit = World<native::Audited, crate::rcu::Qsbr, crate::engine::Queued>;
/// Simulated cores, callbacks that never run.
#[cfg(feature = "sim")]
pub type Sim = World<sim::Simulated, crate::rcu::Qsbr, crate::engine::Count>;
/// Every interleaving, callbacks run by the test's threads.
#[cfg(feature = "loom")]
pub type Loom = World<loom::Model, crate::rcu::Oracle, crate::engine::Queued>;
/// Random schedules, callbacks run by the test's threads.
#[cfg(feature = "shuttle")]
pub type Shuttle = World<shuttle::Model, crate::rcu::Oracle, crate::engine::Queued>;
/// A chosen interruption at every atomic step, callbacks run by the test.
pub type Stepped = World<stepped::Steps, crate::rcu::Oracle, crate::engine::Queued>;
/// The accesses of each operation in their order, callbacks never run.
pub type Recorded = World<recorded::Words, crate::rcu::Qsbr, crate::engine::Count>;
/// The lines that each operation touches, callbacks never run.
pub type Traced = World<traced::Lines, crate::rcu::Qsbr, crate::engine::Count>;
