//! The queued spinlock of a guest whose hypervisor lets waiters halt (Linux "PV qspinlock", by Long
//! after a proposal of Zijlstra's).
//!
//! In a guest the CPU of a waiter may itself not be running, so strict order is a trap: the lock is
//! handed to one that cannot take it. This form therefore has no pending waiter; a newcomer may take
//! the lock past the queue as long as the head of the queue has not reserved it by the pending bit;
//! and the holder releases by an atomic read-modify-write instead of a store, as the word may tell
//! it to wake a waiter that halted. So it costs two atomic operations where the bare-metal form
//! costs one: what a kernel in a guest pays although nobody waits.
//!
//! Waiters here spin for ever and never halt: workers are alone on their CPUs.

use super::queued::{
    Claim, LOCKED, LOCKED_MASK, LOCKED_PENDING, PENDING, TAIL_MASK, announce, decode_tail,
    encode_tail, hand_on, remove_tail, wait_for_turn,
};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::Cpu;
use crate::platform::{IntWord, Memory, Ordering, Platform, SplitWord, Word};

/// See the module.
pub struct Paravirt<P: Memory> {
    value: P::U32,
}

impl<P: Platform> Lock<P> for Paravirt<P> {
    const ID: &'static str = "spin-queued-pv";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { value: P::U32::new("lock.value", 0) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.value.load(Ordering::Relaxed) & LOCKED_MASK != 0
    }
}

impl<P: Platform> RawLock<P> for Paravirt<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // Acquire pairs with the last release.
        if self.value.cas(0, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.acquire_slow(cpu);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, _: &Cpu<'_, P>) {
        // Release pairs with the acquire of whoever takes the lock next.
        self.value.fetch_and(!LOCKED_MASK, Ordering::Release);
    }
}

impl<P: Platform> Paravirt<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>) {
        let claim = Claim::new(cpu);
        let Some(node) = claim.node() else {
            // Deeper nesting than there are nodes: rare enough to give up the order.
            P::wait_until(|| self.try_steal().then_some(()));
            return;
        };
        if P::wait_until(|| self.stolen_or_must_queue()) {
            return;
        }
        let tail = encode_tail(cpu.id(), claim.level);
        let front = self.value.swap_high_half(tail);
        if let Some(front) = decode_tail(cpu.machine(), front) {
            announce(front, node);
            wait_for_turn(node);
        }
        // From here on nobody takes the lock past this waiter. Relaxed: it publishes nothing.
        self.value.fetch_or(PENDING, Ordering::Relaxed);
        P::wait_until(|| {
            let free = self.value.load(Ordering::Relaxed) & LOCKED_MASK == 0;
            // A newcomer that had not seen the bit may still be faster. Acquire pairs with the
            // release of the holder before.
            (free && self.value.set_low_byte_acquire()).then_some(())
        });
        self.value.clear_second_byte();
        if !remove_tail::<P>(&self.value, tail) {
            hand_on(node);
        }
    }

    /// Takes the lock if it is free and not reserved, whoever queues.
    fn try_steal(&self) -> bool {
        self.value.load(Ordering::Relaxed) & LOCKED_PENDING == 0
            && self.value.set_low_byte_acquire()
    }

    /// Returns whether the lock was taken past the queue; `None`: to be tried again. A newcomer
    /// tries while
    /// there is a queue whose head has not reserved the lock.
    fn stolen_or_must_queue(&self) -> Option<bool> {
        let value = self.value.load(Ordering::Relaxed);
        if value & LOCKED_PENDING == 0 && self.value.set_low_byte_acquire() {
            return Some(true);
        }
        (value & TAIL_MASK == 0 || value & PENDING != 0).then_some(false)
    }
}
