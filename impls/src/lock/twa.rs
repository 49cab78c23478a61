//! TWA: a ticket lock whose far waiters wait elsewhere (Dice and Kogan, "TWA: Ticket locks augmented
//! with a waiting array", EuroPar 2019).
//!
//! Only the next in line spins on the number shown. Whoever is farther away waits for a change in a
//! place of an array that all locks of the machine share ([`WaitArray`](super::node::WaitArray)),
//! chosen by lock and ticket. A release shows the next number and then touches the place of the one
//! after the next, who comes to the front. Two waiters may share a place: they are woken too often,
//! never too seldom.
//!
//! Invariants: those of the ticket lock; a waiter that reads its place before the number shown, and
//! found itself far, sees the place change before it is next in line. Eight bytes, and the array.

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{IntWord, Memory, Ordering, Platform, Word};

/// Waiters no farther away than this spin on the number shown; the paper's value.
const NEAR: u32 = 1;

/// See the module.
pub struct Twa<P: Memory> {
    pub(super) next: P::U32,
    owner: P::U32,
}

impl<P: Platform> Lock<P> for Twa<P> {
    const ID: &'static str = "twa";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { next: P::U32::new("lock.next", 0), owner: P::U32::new("lock.owner", 0) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.next.load(Ordering::Relaxed) != self.owner.load(Ordering::Relaxed)
    }
}

impl<P: Platform> RawLock<P> for Twa<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // Relaxed: it draws a place in line; seeing it shown takes the lock.
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        if self.shown() != ticket {
            self.wait(cpu, ticket);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // Relaxed: changed by holders alone.
        let next = self.owner.load(Ordering::Relaxed).wrapping_add(1);
        // Release pairs with the acquire in `shown`: the section comes before the next.
        self.owner.store(next, Ordering::Release);
        if !planted!(cpu, FarWaiterNotTold) {
            // Release pairs with the acquire in `wait`: who sees the change sees the number.
            self.place(cpu, next.wrapping_add(NEAR)).fetch_add(1, Ordering::Release);
        }
    }
}

impl<P: Platform> Twa<P> {
    /// Returns the number shown. Acquire pairs with the release of the last holder.
    #[inline(always)]
    fn shown(&self) -> u32 {
        self.owner.load(Ordering::Acquire)
    }

    /// Returns where the holder of a ticket waits while it is far.
    #[inline(always)]
    fn place<'a>(&self, cpu: &Cpu<'a, P>, ticket: u32) -> &'a P::U64 {
        let lock = core::ptr::from_ref(self).addr();
        cpu.machine().wait_array().place(lock, u64::from(ticket))
    }

    #[cold]
    fn wait(&self, cpu: &Cpu<'_, P>, ticket: u32) {
        let place = self.place(cpu, ticket);
        let is_far = || ticket.wrapping_sub(self.shown()) > NEAR;
        while is_far() {
            let late = planted!(cpu, PlaceReadAfterNumber) && is_far();
            // Acquire pairs with the release of whoever shows the number before ours.
            let seen = place.load(Ordering::Acquire);
            // The place first, then the number: a release in between changes the place.
            if !late && !is_far() {
                break;
            }
            P::wait_until(|| (place.load(Ordering::Acquire) != seen).then_some(()));
        }
        P::wait_until(|| (self.shown() == ticket).then_some(()));
    }
}
