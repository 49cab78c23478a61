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
use crate::core::State;
use crate::costs::Ps;
use crate::events::Event;
use crate::line::{Requester, Want};
use crate::stats::Statistics;
use crate::thread::Slot;
use crate::timeline::TimelineEvent;
use crate::world::World;

/// A load of a condition.
#[derive(Debug, Clone, Copy)]
struct ConditionLoad {
    slot: u32,
    generation: u32,
    mask: u64,
    found: u64,
    line: u32,
    /// The four-byte words of the line that it reads, one bit each.
    words: u16,
    /// Dense number of the label.
    label: u32,
}

/// What a core knows of the condition it waits for.
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
    /// An evaluation begins. Returns whether some of its loads are known.
    pub(crate) fn begin(&mut self) -> bool {
        self.loads.truncate(self.known as usize);
        self.invalid = false;
        self.given = 0;
        self.are_known()
    }

    /// What a load of the evaluation finds, if it was repeated already.
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

    /// The evaluation does something that cannot be repeated.
    pub(crate) fn invalidate(&mut self) {
        self.invalid = true;
    }

    /// Code runs on top of the evaluation, or before it: what was repeated is out of date.
    pub(crate) fn forget(&mut self) {
        self.known = 0;
        self.given = 0;
        self.invalid = true;
    }

    /// The evaluation has ended.
    pub(crate) fn end(&mut self) {
        if self.given < self.known {
            self.loads.truncate(self.given as usize);
        }
        self.known = 0;
        self.given = 0;
    }

    /// The core falls asleep. Its loads may be repeated when it wakes if that is `possible`, and
    /// `decides` says that nothing but what they find can end its wait.
    pub(crate) fn sleep(&mut self, possible: bool, decides: bool) {
        self.active = false;
        self.repeats = possible && !self.invalid;
        self.decides = decides;
    }

    /// The core wakes. Returns whether its loads are to be repeated.
    pub(crate) fn wake(&mut self) -> bool {
        self.active = self.repeats;
        self.position = 0;
        self.stalled = false;
        self.active
    }

    /// Whether loads were repeated for the evaluation that comes.
    pub(crate) fn are_known(&self) -> bool {
        self.known > 0
    }

    /// Whether the loads are being repeated.
    pub(crate) fn active(&self) -> bool {
        self.active
    }
}

impl World {
    /// Notes what a load of a condition found.
    pub(crate) fn note_look(&mut self, index: u32, slot: &Slot, access: &Access, words: u16) {
        let replay = &mut self.cores[self.current as usize].replay;
        let Access::Load { mask } = *access else { return replay.invalidate() };
        let word = &self.words[index as usize];
        replay.loads.push(ConditionLoad {
            slot: index,
            generation: word.generation,
            mask,
            found: word.value,
            line: slot.line,
            words,
            label: slot.row,
        });
    }

    /// Goes on with the loads of a waiting core that are being repeated. Returns whether its fiber
    /// has to go on: then that is at the time of its clock.
    pub(crate) fn reread(&mut self, core: u16, at: Ps) -> bool {
        let running = std::mem::replace(&mut self.current, core);
        let entry = self.me();
        entry.now = entry.now.max(at);
        entry.watching = true;
        self.set_state(core, State::Running);
        let fiber_goes_on = self.repeat_loads();
        let entry = self.me();
        entry.watching = false;
        if fiber_goes_on {
            entry.replay.active = false;
            entry.replay.known = entry.replay.position;
        }
        self.current = running;
        fiber_goes_on
    }

    fn repeat_loads(&mut self) -> bool {
        let me = self.current;
        loop {
            let core = &mut self.cores[me as usize];
            let now = core.now;
            let position = core.replay.position as usize;
            let &ConditionLoad { slot, generation, line, words, label, .. } =
                &core.replay.loads[position];
            let key = Statistics::key(label, core.operation);
            if std::mem::take(&mut core.replay.stalled) {
                let waited = now - core.replay.stalled_since;
                core.waited += waited;
                core.stalled = true;
                self.complete_load(line, label, TimelineEvent::Access, waited);
                self.charge_restart();
            } else {
                if position == 0 {
                    core.watched.clear();
                }
                if core.is_due() || self.words[slot as usize].generation != generation {
                    return true;
                }
                if !self.is_next(now) {
                    self.push(now, Event::reread(me));
                    return false;
                }
                if self.is_fetching() {
                    return true;
                }
                let core = &mut self.cores[me as usize];
                core.note_reread(line, words, key);
                if !self.lines.holds(line, core.cache) {
                    core.replay.stalled = true;
                    core.replay.stalled_since = now;
                    self.set_state(me, State::Stalled);
                    self.request(line, Want::Read, (words, key), Requester::Access, (me, now));
                    self.run_ahead(line, false);
                    return false;
                }
                self.complete_load(line, label, TimelineEvent::Hit, 0);
            }
            let found = self.words[slot as usize].value;
            let replay = &mut self.cores[me as usize].replay;
            let look = &mut replay.loads[position];
            let changed = (found ^ look.found) & look.mask;
            look.found = found;
            replay.position += 1;
            if changed != 0 {
                return true;
            }
            if (replay.position as usize) < replay.loads.len() {
                continue;
            }
            if !replay.decides {
                return true;
            }
            replay.position = 0;
            if self.fall_asleep(None) {
                return false;
            }
        }
    }
}
