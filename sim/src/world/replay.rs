//! A waiting core repeats the loads of its condition without its fiber (see [`crate::replay`]).

use super::World;
use crate::access::Access;
use crate::core::State;
use crate::costs::Ps;
use crate::events::Event;
use crate::prefetch::{Expected, Use};
use crate::replay::{ConditionLoad, Repeated};
use crate::request::{Requester, Want, Wanted};
use crate::slot::Slot;
use crate::stats::Statistics;
use crate::timeline::TimelineEvent;

impl World {
    /// Notes what a load of a condition found.
    pub(crate) fn note_condition_load(
        &mut self,
        index: u32,
        slot: &Slot,
        access: &Access,
        words: u16,
    ) {
        let replay = &mut self.cores[self.current as usize].waiter.replay;
        let Access::Load { mask } = *access else { return replay.invalidate() };
        let word = &self.words[index as usize];
        replay.note(ConditionLoad {
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
    pub(crate) fn replay(&mut self, core: u16, at: Ps) -> bool {
        let running = std::mem::replace(&mut self.current, core);
        let entry = self.me();
        entry.now = entry.now.max(at);
        entry.watching = true;
        self.set_state(core, State::Running);
        let fiber_goes_on = self.repeat_loads();
        let entry = self.me();
        entry.watching = false;
        if fiber_goes_on {
            entry.waiter.replay.hand_to_evaluation();
        }
        self.current = running;
        fiber_goes_on
    }

    fn repeat_loads(&mut self) -> bool {
        let me = self.current;
        loop {
            let core = &mut self.cores[me as usize];
            let now = core.now;
            let replay = &mut core.waiter.replay;
            let ConditionLoad { slot, generation, line, words, label, .. } = replay.next_load();
            let row = Statistics::key(label, core.operation);
            if let Some(since) = replay.end_stall() {
                let waited = now - since;
                core.waited += waited;
                core.stalled = true;
                self.complete_load(line, label, TimelineEvent::Access, waited);
                self.charge_restart();
            } else {
                if replay.is_at_first() {
                    core.waiter.watched.clear();
                }
                if core.is_due() || self.words[slot as usize].generation != generation {
                    return true;
                }
                if !self.is_next(now) {
                    self.push(now, Event::replay(me));
                    return false;
                }
                let core = &mut self.cores[me as usize];
                if core.prefetcher.is_fetching(now) {
                    return true;
                }
                core.prefetcher.note(Expected {
                    line,
                    usage: Use::Wait,
                    atomic: false,
                    words,
                    row,
                });
                if !self.lines.holds(line, core.cache) {
                    core.waiter.replay.stall(now);
                    self.set_state(me, State::Stalled);
                    let wanted = Wanted { line, want: Want::Read, adds: false, words, row };
                    self.request(&wanted, Requester::Access, me, now);
                    self.run_ahead(line, false, false);
                    return false;
                }
                self.complete_load(line, label, TimelineEvent::Hit, 0);
            }
            let found = self.words[slot as usize].value;
            match self.cores[me as usize].waiter.replay.repeated(found) {
                Repeated::Next => {}
                Repeated::Evaluate => return true,
                Repeated::Sleep => {
                    if self.fall_asleep(None) {
                        return false;
                    }
                }
            }
        }
    }
}
