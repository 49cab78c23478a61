//! The wait of one core for a condition: what its loads read, and since when it sleeps.

use crate::costs::Ps;
use crate::replay::WaitReplay;

/// A line that the condition of a wait read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) line: u32,
    pub(crate) version: u32,
    /// Row of the statistics that waiting for it counts in.
    pub(crate) row: u32,
}

/// The wait of one core.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Waiter {
    /// The loads of the condition that the core waits for.
    pub(crate) replay: WaitReplay,
    /// The lines that the condition read so far.
    pub(crate) watched: Vec<Watched>,
    /// Since when the core sleeps, rests or drains its store buffer.
    pub(crate) since: Ps,
    /// Number of the present sleep, so that a timer of an earlier one is known as stale.
    pub(crate) sleep: u32,
}

impl Waiter {
    /// Begins an evaluation of the condition.
    pub(crate) fn begin_evaluation(&mut self) {
        if !self.replay.begin() {
            self.watched.clear();
        }
    }

    /// Notes that the condition accessed a line, whose version was `before` and is `after` by that.
    #[inline]
    pub(crate) fn watch(&mut self, line: u32, row: u32, before: u32, after: u32) {
        match self.watched.iter_mut().find(|entry| entry.line == line) {
            // Unchanged since it was first read, other than by this access.
            Some(entry) if entry.version == before => entry.version = after,
            Some(_) => {}
            None => self.watched.push(Watched { line, version: after, row }),
        }
    }

    /// Begins a sleep at a time. Returns its number.
    pub(crate) fn begin_sleep(&mut self, now: Ps) -> u32 {
        self.since = now;
        self.sleep = self.sleep.wrapping_add(1);
        self.sleep
    }

    /// Returns the row that waiting for a line counts in.
    pub(crate) fn row_of(&self, line: u32) -> u32 {
        self.watched.iter().find(|watched| watched.line == line).map_or(0, |watched| watched.row)
    }
}
