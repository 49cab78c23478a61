//! The state of one virtual core.

use crate::access::Access;
use crate::costs::Ps;
use crate::events::Event;
use crate::interrupt::{Interrupt, PendingInterrupts};
use crate::pending::Pending;
use crate::prefetch::{Expected, Prefetcher, Use};
use crate::rng::Rng;
use crate::slot::{NO_LINE, Slot};
use crate::stats::Statistics;
use crate::store_buffer::StoreBuffer;
use crate::waiter::{Waiter, Watched};

/// The activity of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No code was given to it.
    Unused,
    /// It runs, or an event in the queue will resume it.
    Running,
    /// It waits for a line that it requested.
    Stalled,
    /// It waits until a store in its store buffer was granted its line.
    Draining,
    /// It sleeps until a line that it read changes, or its timer fires.
    Asleep,
    /// It sleeps for a time: long computation, or preempted. Its timer ends it; an interrupt may
    /// come before.
    Resting,
    /// Stopped for ever by an endless stall.
    Stopped,
    /// Its code has returned.
    Finished,
}

impl State {
    /// Returns whether the hardware thread uses issue slots that its SMT sibling would like to have. A
    /// spinning thread is taken to yield them by its spin-loop hint.
    pub(crate) fn is_busy(self) -> bool {
        matches!(self, Self::Running | Self::Resting)
    }
}

/// One virtual core. The parts that each of its accesses touches come first, in four lines of the host's
/// cache; then those of its waits.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Core {
    pub(crate) now: Ps,
    /// Its own random numbers: what it draws does not depend on when the others draw, that is, on
    /// how far the simulator lets it run ahead of them.
    pub(crate) rng: Rng,
    pub(crate) waited: Ps,
    /// Lines of its last two atomics.
    atomics: (u32, u32),
    /// Accesses made so far; counted only where an interrupt that depends on it is pending.
    pub(crate) accesses: u64,
    pub(crate) number: u16,
    pub(crate) cache: u16,
    /// Operation that its accesses are attributed to.
    pub(crate) operation: u16,
    pub(crate) state: State,
    /// Whether a wait's condition is being evaluated.
    pub(crate) watching: bool,
    /// The line it stalls for comes from another core, and is not what it was here.
    pub(crate) mispredicts: bool,
    /// It waited for a line since [`crate::advance_after_stall`].
    pub(crate) stalled: bool,
    /// It lost a line that it had read ahead: it will read it again, and what came after.
    pub(crate) replays: bool,
    /// Another one read a line that it was using, and what it had executed ahead is lost.
    pub(crate) squashed: bool,
    // The second line.
    /// The access that it makes.
    pub(crate) pending: Pending,
    // The third line.
    pub(crate) prefetcher: Prefetcher,
    pub(crate) stores: StoreBuffer,
    pub(crate) pending_interrupts: PendingInterrupts,
    pub(crate) waiter: Waiter,
    pub(crate) spun: Ps,
    /// Stalled from outside or preempted.
    pub(crate) off: Ps,
    pub(crate) finished_at: Option<Ps>,
    /// Interrupts and NMIs served.
    pub(crate) interrupts: u64,
}

impl Core {
    pub(crate) fn new(number: u16, cache: u16) -> Self {
        Self {
            now: 0,
            number,
            cache,
            rng: Rng::new(0),
            state: State::Unused,
            operation: 0,
            stores: StoreBuffer::default(),
            watching: false,
            waiter: Waiter::default(),
            pending: Pending::new(),
            prefetcher: Prefetcher::new(),
            mispredicts: false,
            stalled: false,
            replays: false,
            squashed: false,
            atomics: (NO_LINE, NO_LINE),
            pending_interrupts: PendingInterrupts::default(),
            accesses: 0,
            waited: 0,
            spun: 0,
            off: 0,
            finished_at: None,
            interrupts: 0,
        }
    }

    /// Returns how far it may go on its own, if nobody can reach it until a time.
    #[inline]
    pub(crate) fn limit(&self, unreached_until: Ps) -> Ps {
        // All accesses of a wait's condition are noted.
        if self.watching {
            0
        } else {
            unreached_until.min(self.pending_interrupts.quiet_until().saturating_sub(1))
        }
    }

    /// Returns whether something is due that interrupts the core.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.pending_interrupts.is_due(self.now, self.accesses)
    }

    /// Returns the event at which this core, which was stalled or asleep, goes on.
    #[inline]
    pub(crate) fn going_on(&self) -> Event {
        if self.waiter.replay.active() {
            Event::replay(self.number)
        } else {
            Event::resume(self.number)
        }
    }

    /// Returns whether it sleeps, for a value or for a time.
    pub(crate) fn is_sleeping(&self) -> bool {
        matches!(self.state, State::Asleep | State::Resting)
    }

    /// Notes an access for the predictor.
    #[inline]
    pub(crate) fn note_access(&mut self, slot: &Slot, words: u16, access: &Access) {
        let usage = Use::of(access, self.watching);
        let atomic = access.is_atomic();
        if atomic {
            self.atomics = (self.atomics.1, slot.line);
        }
        let row = Statistics::key(slot.row, self.operation);
        self.prefetcher.note(Expected { line: slot.line, usage, atomic, words, row });
    }

    /// Notes that another core reads a line that this one owns: if it runs and has an atomic on the line
    /// in flight, what it executed ahead is lost. (Atomics on one line wait for each other: there is
    /// nothing to lose.)
    pub(crate) fn note_read_by_other(&mut self, line: u32, depth: u32) {
        let (before, last) = self.atomics;
        let runs = self.state == State::Running && !self.watching;
        self.squashed |= runs && before != last && self.prefetcher.in_flight(line, depth).is_some();
    }

    /// Charges what it costs the core if another one read a line that it was using. It notices at its
    /// next access, or when the line that it missed then is back.
    #[inline]
    pub(crate) fn charge_squash(&mut self, cost: Ps) {
        if std::mem::take(&mut self.squashed) {
            self.now += cost;
        }
    }

    /// Enters a handler; entry and return take so long. Returns what the handler must give back.
    pub(crate) fn enter_handler(&mut self, kind: Interrupt, entry: Ps) -> Interrupted {
        self.interrupts += 1;
        self.now += entry;
        let interrupted = Interrupted {
            watching: std::mem::take(&mut self.watching),
            watched: std::mem::take(&mut self.waiter.watched),
            operation: self.operation,
        };
        self.waiter.replay.forget();
        self.pending_interrupts.nest(kind, true);
        interrupted
    }

    /// Leaves a handler.
    pub(crate) fn leave_handler(&mut self, kind: Interrupt, exit: Ps, interrupted: Interrupted) {
        self.now += exit;
        self.watching = interrupted.watching;
        self.waiter.watched = interrupted.watched;
        self.waiter.replay.forget();
        self.operation = interrupted.operation;
        self.pending_interrupts.nest(kind, false);
    }
}

/// The state of the interrupted code that a handler must give back as it was.
pub(crate) struct Interrupted {
    watching: bool,
    watched: Vec<Watched>,
    operation: u16,
}
