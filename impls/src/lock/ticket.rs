//! The ticket lock: draw a number, wait until it is shown (Reed and Kanodia 1979, as a lock in
//! Mellor-Crummey and Scott 1991; the x86 kernel's spinlock from 2.6.25 to 4.1).
//!
//! Strictly first come, first served, in eight bytes. All waiters spin on one word, so each release
//! makes every one of them fetch the line: the time of a handover grows with the number of waiters
//! (Boyd-Wickizer et al., "Non-scalable locks are dangerous", OLS 2012).
//!
//! With proportional backoff a waiter reads its distance from the front and looks again after a
//! time in proportion to it (Mellor-Crummey and Scott 1991, section 2.2), so that mostly the next
//! in line alone looks.
//!
//! Invariants: `owner` goes up by one for each section; the holder's ticket is `owner`; a waiter is
//! passed by nobody who drew later. The kernel packs both numbers into one word of four bytes; here
//! they are two words, so that the release is a plain store that no wider load has to wait for.

use super::{Lock, RawLock, run_before};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{IntWord, Memory, Ordering, Platform, Word};

/// How long a waiter stays away for each place in front of it, in turns of [`Memory::spend`].
const TURNS_PER_PLACE: u32 = 32;

/// The ticket lock, with proportional backoff if `BACKOFF`.
pub struct Ticket<P: Memory, const BACKOFF: bool = false> {
    /// The next number to be drawn.
    pub(super) next: P::U32,
    /// The number of the holder, or of who may come in.
    owner: P::U32,
}

impl<P: Platform, const BACKOFF: bool> Lock<P> for Ticket<P, BACKOFF> {
    const ID: &'static str = if BACKOFF { "ticket-backoff" } else { "ticket" };
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { next: P::U32::new("lock.next", 0), owner: P::U32::new("lock.owner", 0) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        let ticket = self.draw(cpu);
        Ok(run_before(section, || self.show_next(cpu, ticket)))
    }

    fn is_held(&self) -> bool {
        self.next.load(Ordering::Relaxed) != self.owner.load(Ordering::Relaxed)
    }
}

impl<P: Platform, const BACKOFF: bool> RawLock<P> for Ticket<P, BACKOFF> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        self.draw(cpu);
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // Relaxed: changed by holders alone.
        self.show_next(cpu, self.owner.load(Ordering::Relaxed));
    }
}

impl<P: Platform, const BACKOFF: bool> Ticket<P, BACKOFF> {
    /// Draws a number and waits until it is shown; returns it.
    #[inline(always)]
    fn draw(&self, cpu: &Cpu<'_, P>) -> u32 {
        let ticket = if planted!(cpu, TicketDrawnTwice) {
            let ticket = self.next.load(Ordering::Relaxed);
            self.next.store(ticket.wrapping_add(1), Ordering::Relaxed);
            ticket
        } else {
            // Relaxed: it draws a place in line; seeing it shown takes the lock.
            self.next.fetch_add(1, Ordering::Relaxed)
        };
        if self.shown() != ticket {
            self.wait(ticket);
        }
        ticket
    }

    /// Shows the number behind that of the holder.
    #[inline(always)]
    fn show_next(&self, cpu: &Cpu<'_, P>, ticket: u32) {
        let step = if planted!(cpu, TicketSkipped) && ticket == 1 { 2 } else { 1 };
        let order =
            if planted!(cpu, TicketShownRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        // Release pairs with the acquire in `shown`: the section comes before the next.
        self.owner.store(ticket.wrapping_add(step), order);
    }
}

impl<P: Memory, const BACKOFF: bool> Ticket<P, BACKOFF> {
    /// Returns the number shown. Acquire pairs with the release of the last holder.
    #[inline(always)]
    fn shown(&self) -> u32 {
        self.owner.load(Ordering::Acquire)
    }

    #[cold]
    fn wait(&self, ticket: u32) {
        if !BACKOFF {
            P::relax();
            return P::wait_until(|| (self.shown() == ticket).then_some(()));
        }
        loop {
            let places = ticket.wrapping_sub(self.shown());
            if places == 0 {
                return;
            }
            P::spend(places.saturating_mul(TURNS_PER_PLACE));
            P::relax();
        }
    }
}
