//! Hapax: a queue lock that passes values, not pointers (Dice and Kogan, "Hapax locks: value-based
//! mutual exclusion", arXiv 2511.14608).
//!
//! Each acquire draws a number that is used once and never again. A newcomer exchanges the number of
//! the last to arrive for its own, and waits until the number that it found has departed; a release
//! writes its own number as departed. No node is shared, so nothing has to outlive a wait. Waiters
//! wait on a place of the machine's array, chosen by lock and number, as [`super::twa`] does; a
//! release exchanges its number for what is there; no place ever held it. (An exchange and not a store:
//! two locks, or two turns, may share a place. A late store of one release over that of another would
//! hide the latter's departure from who reads it, on machines that reorder stores.)
//!
//! Invariants: first come, first served in the order of the exchanges; the lock is free exactly if the
//! last to arrive has departed; no number is drawn twice. Sixteen bytes, and the array.

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Memory, Ordering, Platform, Word};

/// See the module.
pub struct Hapax<P: Memory> {
    /// The number of the last to arrive; the holder's own while nobody waits.
    pub(super) arrived: P::U64,
    /// The number of the last to depart.
    departed: P::U64,
}

impl<P: Platform> Lock<P> for Hapax<P> {
    const ID: &'static str = "hapax";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { arrived: P::U64::new("lock.arrived", 0), departed: P::U64::new("lock.departed", 0) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        let number = if planted!(cpu, NumberDrawnTwice) { 1 } else { cpu.this.wait.draw(cpu) };
        with_raw(&Drawn { lock: self, number }, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.arrived.load(Ordering::Relaxed) != self.departed.load(Ordering::Relaxed)
    }
}

/// The lock, with the number of one acquire.
struct Drawn<'a, P: Memory> {
    lock: &'a Hapax<P>,
    number: u64,
}

impl<P: Platform> RawLock<P> for Drawn<'_, P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // Relaxed: it takes a place in line; seeing the number before departed takes the lock.
        let front = self.lock.arrived.swap(self.number, Ordering::Relaxed);
        if !self.lock.has_departed(front) {
            self.lock.wait(cpu, front);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // Release pairs with the acquire in `has_departed`: the section comes before the next.
        let depart = || self.lock.departed.store(self.number, Ordering::Release);
        if planted!(cpu, ToldBeforeDeparture) {
            self.lock.place(cpu, self.number).swap(self.number, Ordering::Release);
            depart();
            return;
        }
        depart();
        // Always: a newcomer that found this number may be about to wait. Release pairs with the
        // acquire in `wait`: who sees the change, or a later one, sees the departure.
        self.lock.place(cpu, self.number).swap(self.number, Ordering::Release);
    }
}

impl<P: Platform> Hapax<P> {
    #[inline(always)]
    fn has_departed(&self, number: u64) -> bool {
        // Acquire pairs with the release of that holder.
        self.departed.load(Ordering::Acquire) == number
    }

    /// Returns where the successor of the holder of a number waits.
    #[inline(always)]
    fn place<'a>(&self, cpu: &Cpu<'a, P>, number: u64) -> &'a P::U64 {
        cpu.machine().wait_array().place(core::ptr::from_ref(self).addr(), number)
    }

    #[cold]
    fn wait(&self, cpu: &Cpu<'_, P>, front: u64) {
        let place = self.place(cpu, front);
        loop {
            // Acquire pairs with the release of whoever departs. The place first, then the number: a
            // departure in between changes the place.
            let seen = place.load(Ordering::Acquire);
            if self.has_departed(front) {
                return;
            }
            P::wait_until(|| (place.load(Ordering::Acquire) != seen).then_some(()));
        }
    }
}
