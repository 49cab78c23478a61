//! The state of one virtual core.

use std::collections::VecDeque;

use crate::costs::Ps;
use crate::events::Event;
use crate::interrupt::PendingInterrupts;
use crate::issue::Pending;
use crate::reread::WaitReplay;
use crate::rng::Rng;
use crate::run_ahead::{Expected, Predictor, Prefetch};
use crate::thread::{Commit, NO_LINE};

/// What a core is doing.
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
    /// Whether the hardware thread uses issue slots that its SMT sibling would like to have. A
    /// spinning thread is taken to yield them by its spin-loop hint.
    pub(crate) fn is_busy(self) -> bool {
        matches!(self, Self::Running | Self::Resting)
    }
}

/// A store that waits for its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BufferedStore {
    pub(crate) line: u32,
    pub(crate) words: u16,
    /// Row of the statistics it counts in.
    pub(crate) row: u32,
    /// When the line is here, or [`crate::costs::NEVER`] while that is not known.
    pub(crate) done_at: Ps,
    pub(crate) commit: Commit,
}

/// What a core waits for while its store buffer drains.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drain {
    /// Stores that may be left.
    pub(crate) remaining: usize,
    /// Line and row that the wait counts for.
    pub(crate) line: u32,
    pub(crate) row: u32,
}

/// A line that the condition of a wait read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) line: u32,
    pub(crate) version: u32,
    /// Row of the statistics that waiting for it counts in.
    pub(crate) row: u32,
}

/// One virtual core. What each of its accesses touches comes first, in four lines of the host's cache;
/// then what its waits do.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Core {
    pub(crate) now: Ps,
    /// Its own random numbers: what it draws does not depend on when the others draw, that is, on
    /// how far the simulator lets it run ahead of them.
    pub(crate) rng: Rng,
    pub(crate) waited: Ps,
    /// Lines of its last two atomics.
    pub(crate) atomics: (u32, u32),
    /// Accesses made so far; counted only where the agenda has an event that depends on it.
    pub(crate) accesses: u64,
    /// The line it stalls for, if it had asked for it ahead.
    pub(crate) missed_line: u32,
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
    /// What it asked for ahead, because of what it will do next and did after what.
    pub(crate) fetched: Vec<Prefetch>,
    // The third line.
    pub(crate) stores: VecDeque<BufferedStore>,
    pub(crate) pending_interrupts: PendingInterrupts,
    pub(crate) predictor: Predictor,
    pub(crate) expected: Vec<Expected>,
    /// The loads of the condition that it waits for, and the lines it read so far.
    pub(crate) replay: WaitReplay,
    pub(crate) watched: Vec<Watched>,
    /// Since when it sleeps, rests or drains.
    pub(crate) asleep_since: Ps,
    pub(crate) spun: Ps,
    /// Number of the present sleep, so that a timer of an earlier one is known as stale.
    pub(crate) sleep: u32,
    pub(crate) drain: Drain,
    /// Stalled from outside or preempted.
    pub(crate) off: Ps,
    pub(crate) finished_at: Option<Ps>,
    pub(crate) interrupts: u64,
}

impl Core {
    pub(crate) fn new(cache: u16) -> Self {
        Self {
            now: 0,
            cache,
            rng: Rng::new(0),
            state: State::Unused,
            operation: 0,
            stores: VecDeque::new(),
            watching: false,
            watched: Vec::new(),
            replay: WaitReplay::default(),
            asleep_since: 0,
            pending: Pending::new(),
            drain: Drain::default(),
            missed_line: NO_LINE,
            predictor: Predictor::new(),
            expected: Vec::new(),
            fetched: Vec::new(),
            mispredicts: false,
            stalled: false,
            replays: false,
            squashed: false,
            atomics: (NO_LINE, NO_LINE),
            sleep: 0,
            pending_interrupts: PendingInterrupts::default(),
            accesses: 0,
            waited: 0,
            spun: 0,
            off: 0,
            finished_at: None,
            interrupts: 0,
        }
    }

    /// How far it may go on its own, if nobody can reach it until a time.
    #[inline]
    pub(crate) fn limit(&self, unreached_until: Ps) -> Ps {
        // All accesses of a wait's condition are noted.
        if self.watching {
            0
        } else {
            unreached_until.min(self.pending_interrupts.quiet_until().saturating_sub(1))
        }
    }

    /// Whether something is due that interrupts the core.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.pending_interrupts.is_due(self.now, self.accesses)
    }

    /// The event at which this core, by its number, goes on that was stalled or asleep.
    #[inline]
    pub(crate) fn going_on(&self, core: u16) -> Event {
        if self.replay.active() { Event::reread(core) } else { Event::resume(core) }
    }

    /// The youngest store in the buffer to a line.
    #[inline]
    pub(crate) fn pending_store(&self, line: u32) -> Option<usize> {
        if self.stores.is_empty() {
            return None;
        }
        self.stores.iter().rposition(|store| store.line == line)
    }
}
