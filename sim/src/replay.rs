//! Re-reading: a waiting core whose line was taken away looks again, without its fiber.
//!
//! When a sleeper wakes, most of the time it finds what it found before: somebody else was faster,
//! or wrote another word of the line. To learn that it repeats the loads of its condition, and
//! the simulation can do that for it: it knows which words the condition loaded and what it found
//! there. If it finds the same again the condition, an expression over these loads, is as false as
//! before, and the core goes back to sleep: its fiber was not switched to at all. Otherwise the
//! fiber evaluates the condition, and is given what the loads repeated so far have found: they
//! were charged, and are not performed again. Simulated time, order of events and all counters are
//! those of a core that evaluates its condition each time.
//!
//! This is not done for a condition that did anything but load when it was evaluated last, nor
//! while stores wait in the core's buffer.

use crate::access::Access;
use crate::costs::Ps;

/// A load of a condition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConditionLoad {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) mask: u64,
    pub(crate) found: u64,
    pub(crate) line: u32,
    /// The four-byte words of the line that it reads, one bit each.
    pub(crate) words: u16,
    /// Dense number of the label.
    pub(crate) label: u32,
}

/// The loads of the condition that a core waits for, and how far they are repeated.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct WaitReplay {
    /// The loads of its last evaluation, in their order.
    loads: Vec<ConditionLoad>,
    /// So many of the loads were repeated for the evaluation that comes.
    known: u32,
    /// So many of these the evaluation has asked for.
    given: u32,
    /// The loads may be repeated when the core wakes.
    repeats: bool,
    /// The core may go back to sleep on what they find.
    decides: bool,
    /// The loads are being repeated, and so many were.
    active: bool,
    position: u32,
    /// The one at that position waits for its line since a time.
    stalled: bool,
    /// Something else was done than to load.
    invalid: bool,
    stalled_since: Ps,
}

impl WaitReplay {
    /// Begins an evaluation. Returns whether some of its loads are known.
    pub(crate) fn begin(&mut self) -> bool {
        self.loads.truncate(self.known as usize);
        self.invalid = false;
        self.given = 0;
        self.are_known()
    }

    /// Returns what a load of the evaluation finds, if it was repeated already.
    pub(crate) fn known(&mut self, slot: u32, access: &Access) -> Option<u64> {
        if self.given == self.known {
            return None;
        }
        let look = &self.loads[self.given as usize];
        if look.slot == slot && matches!(access, Access::Load { mask } if *mask == look.mask) {
            self.given += 1;
            return Some(look.found);
        }
        // The condition takes another way than the last time.
        self.known = self.given;
        self.loads.truncate(self.given as usize);
        None
    }

    /// Notes that the evaluation does something that cannot be repeated.
    pub(crate) fn invalidate(&mut self) {
        self.invalid = true;
    }

    /// Discards what was repeated: code runs on top of the evaluation, or before it.
    pub(crate) fn forget(&mut self) {
        self.known = 0;
        self.given = 0;
        self.invalid = true;
    }

    /// Ends the evaluation.
    pub(crate) fn end(&mut self) {
        if self.given < self.known {
            self.loads.truncate(self.given as usize);
        }
        self.known = 0;
        self.given = 0;
    }

    /// Notes that the core falls asleep. Its loads may be repeated when it wakes if that is `possible`,
    /// and `decides` says that nothing but what they find can end its wait.
    pub(crate) fn sleep(&mut self, possible: bool, decides: bool) {
        self.active = false;
        self.repeats = possible && !self.invalid;
        self.decides = decides;
    }

    /// Notes that the core wakes. Returns whether its loads are to be repeated.
    pub(crate) fn wake(&mut self) -> bool {
        self.active = self.repeats;
        self.position = 0;
        self.stalled = false;
        self.active
    }

    /// Returns whether loads were repeated for the evaluation that comes.
    pub(crate) fn are_known(&self) -> bool {
        self.known > 0
    }

    /// Returns whether the loads are being repeated.
    pub(crate) fn active(&self) -> bool {
        self.active
    }

    /// Notes a load of the evaluation.
    pub(crate) fn note(&mut self, load: ConditionLoad) {
        self.loads.push(load);
    }

    /// Returns the load that is to be repeated next.
    #[inline]
    pub(crate) fn next_load(&self) -> ConditionLoad {
        self.loads[self.position as usize]
    }

    /// Returns whether the first load is the next.
    pub(crate) fn is_at_first(&self) -> bool {
        self.position == 0
    }

    /// Notes that the next load waits for its line since a time.
    pub(crate) fn stall(&mut self, since: Ps) {
        self.stalled = true;
        self.stalled_since = since;
    }

    /// Returns since when the next load waited for its line, which is here now, if it did.
    pub(crate) fn end_stall(&mut self) -> Option<Ps> {
        std::mem::take(&mut self.stalled).then_some(self.stalled_since)
    }

    /// Notes what the next load found, and goes on to the one behind it.
    #[inline]
    pub(crate) fn repeated(&mut self, found: u64) -> Repeated {
        let load = &mut self.loads[self.position as usize];
        let changed = (found ^ load.found) & load.mask != 0;
        load.found = found;
        self.position += 1;
        if changed {
            return Repeated::Evaluate;
        }
        if (self.position as usize) < self.loads.len() {
            return Repeated::Next;
        }
        if !self.decides {
            return Repeated::Evaluate;
        }
        self.position = 0;
        Repeated::Sleep
    }

    /// Leaves the rest to the evaluation, to which the loads repeated so far are known.
    pub(crate) fn hand_to_evaluation(&mut self) {
        self.active = false;
        self.known = self.position;
    }
}

/// The next step after a load was repeated.
pub(crate) enum Repeated {
    /// Repeat the next one.
    Next,
    /// Evaluate the condition: it may hold.
    Evaluate,
    /// Go back to sleep: all loads found what they had found before.
    Sleep,
}
