//! Sleeping: who waits for which line, and who wakes when it changes.

use super::World;
use crate::core::State;
use crate::costs::{NEVER, Ps};
use crate::events::Event;
use crate::timeline::TimelineEvent;

impl World {
    pub(crate) fn watch_begins(&mut self) {
        let core = self.me();
        core.watching = true;
        core.waiter.begin_evaluation();
        // Its accesses are noted, all of them.
        self.limit = 0;
    }

    pub(crate) fn watch_ends(&mut self) {
        let core = self.me();
        core.watching = false;
        core.waiter.replay.end();
        self.set_limit();
    }

    /// Lets the running core wait on the lines its condition read. Returns whether it goes on at
    /// once; if not, another core was chosen.
    pub(crate) fn sleep(&mut self, poll: Option<Ps>) -> bool {
        !self.fall_asleep(poll) || self.hand_over()
    }

    /// Puts the running core to sleep on the lines its condition read, or charges one round of
    /// its loop if one of them has changed already. Returns whether it sleeps.
    pub(crate) fn fall_asleep(&mut self, poll: Option<Ps>) -> bool {
        let me = self.current;
        let pause = self.costs.hit[self.pace()].pause;
        let lines = &mut self.lines;
        let core = &mut self.cores[me as usize];
        let unchanged = core.waiter.watched.iter().all(|entry| {
            lines.lines[entry.line as usize].version == entry.version
                && lines.holds(entry.line, core.cache)
        });
        if core.waiter.watched.is_empty() || !unchanged {
            core.now += pause;
            core.spun += pause;
            return false;
        }
        for entry in &core.waiter.watched {
            lines.add_sleeper(entry.line, me);
            if lines.lines[entry.line as usize].traced {
                self.timeline.record(core.now, me, entry.row, TimelineEvent::Sleep);
            }
        }
        let now = core.now;
        let possible = core.stores.is_empty() && !core.pending_interrupts.counts_accesses();
        core.waiter.replay.sleep(possible, poll.is_none());
        let wake_at = poll.map_or(NEVER, |poll| now.saturating_add(poll));
        self.doze(State::Asleep, wake_at);
        true
    }

    /// Puts the running core to sleep with a timer, which an interrupt shortens.
    fn doze(&mut self, state: State, wake_at: Ps) {
        let (me, now) = (self.current, self.now());
        let core = self.me();
        let sleep = core.waiter.begin_sleep(now);
        let timer = wake_at.min(core.pending_interrupts.attention_at()).max(now);
        self.set_state(me, state);
        if timer != NEVER {
            self.events.push(timer, Event::timer(me, sleep));
        }
    }

    /// Lets a core that sleeps notice, in its loop, that a line it watches is lost or was written.
    pub(crate) fn wake(&mut self, core: u16, line: u32, at: Ps) {
        let entry = &mut self.cores[core as usize];
        if entry.state != State::Asleep {
            return;
        }
        if self.lines.lines[line as usize].traced {
            let row = entry.waiter.row_of(line);
            self.timeline.record(at, core, row, TimelineEvent::Wake);
        }
        let round = self.costs.hit[0].pause + self.costs.hit[0].load;
        let slept = at.saturating_sub(entry.waiter.since);
        let phase = (round - slept % round) % round;
        entry.waiter.replay.wake();
        self.end_sleep(core, at + phase);
        self.set_state(core, State::Running);
        let event = self.cores[core as usize].going_on();
        self.push(at + phase, event);
    }

    /// Ends a sleep or rest: accounts for the time, and forgets who was to wake the core.
    #[inline(always)]
    pub(crate) fn end_sleep(&mut self, core: u16, at: Ps) {
        let entry = &mut self.cores[core as usize];
        if entry.state != State::Asleep {
            return;
        }
        let slept = at.saturating_sub(entry.waiter.since);
        entry.spun += slept;
        let round = self.costs.hit[0].pause + self.costs.hit[0].load;
        for watched in &entry.waiter.watched {
            self.lines.remove_sleeper(watched.line, core);
        }
        if let Some(first) = entry.waiter.watched.first() {
            let row = self.stats.row(first.row);
            row.spin += slept;
            row.spin_loads += slept / round;
            self.lines.lines[first.line as usize].totals.wait += slept;
        }
    }

    /// Lets the running core rest until a time or an interrupt. Returns whether it goes on at
    /// once; if not, another core was chosen.
    pub(crate) fn rest(&mut self, until: Ps) -> bool {
        self.doze(State::Resting, until);
        self.hand_over()
    }

    /// Wakes the cores that sleep on a line which a cache takes for writing. The cores of that
    /// cache sleep on: their copy stays, and the write itself will wake them.
    pub(crate) fn invalidate_sleepers(&mut self, line: u32, at: Ps, cache: u16, writer: u16) {
        let mut to_wake = std::mem::take(&mut self.to_wake);
        to_wake.clear();
        let cores = &self.cores;
        to_wake
            .extend(self.lines.sleepers(line).filter(|&core| cores[core as usize].cache != cache));
        // Snoops go out one after the other, starting behind the writer: over many writes nobody
        // is always first.
        let first = to_wake.iter().position(|&core| core > writer).unwrap_or(0);
        to_wake.rotate_left(first);
        for (position, &core) in to_wake.iter().enumerate() {
            self.wake(core, line, at + position as u64 * self.costs.snoop_issue);
        }
        self.to_wake = to_wake;
    }

    /// Wakes the SMT siblings of a core that sleep on a line it wrote.
    pub(crate) fn wake_siblings(&mut self, line: u32, me: u16, now: Ps) {
        let mut to_wake = std::mem::take(&mut self.to_wake);
        to_wake.clear();
        let cores = &self.cores;
        let cache = cores[me as usize].cache;
        to_wake.extend(
            self.lines
                .sleepers(line)
                .filter(|&core| core != me && cores[core as usize].cache == cache),
        );
        for &core in &to_wake {
            self.wake(core, line, now);
        }
        self.to_wake = to_wake;
    }
}
