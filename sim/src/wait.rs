//! Waiting: a core sleeps until a line that its condition read changes hands.
//!
//! A spinning core reads its lines again and again; while its copies are valid the reads hit and
//! tell it nothing new. So the core sleeps instead, and is woken when one of the lines is
//! invalidated. It is charged as the spinning core it stands for: it goes on with its loop of load and
//! pause, so that it notices when it looks next, its re-read is a miss that queues at the directory,
//! and its copy is one more to invalidate.

use crate::core::State;
use crate::costs::{NEVER, Ps, ps};
use crate::events::Event;
use crate::fiber;
use crate::interrupt;
use crate::thread;
use crate::timeline::TimelineEvent;
use crate::world::World;

/// Runs `condition` until it returns a value, sleeping in between until a line that it read is
/// invalidated.
///
/// The condition is an expression over loads (a compare-and-exchange in it is allowed), and over
/// nothing else that changes while it waits; it runs once for each time that something it read has
/// changed. (Loads that find what they found before are charged, but the condition is not run for
/// them, unless it did something else than to load.) A condition that reads nothing is run again
/// after each pause.
///
/// # Panics
/// Outside a running simulation, if the condition does not hold at once: nobody could change that.
pub fn wait_until<R>(condition: impl FnMut() -> Option<R>) -> R {
    wait(None, condition)
}

/// As [`wait_until`], but runs the condition at least every `poll_ns` of simulated time too, and
/// each time that a line it read was invalidated: for conditions that look at the clock, as the
/// timeout of a resilient lock does.
///
/// # Panics
/// As [`wait_until`].
pub fn wait_until_deadline<R>(poll_ns: f64, condition: impl FnMut() -> Option<R>) -> R {
    wait(Some(ps(poll_ns).max(1)), condition)
}

fn wait<R>(poll: Option<Ps>, mut condition: impl FnMut() -> Option<R>) -> R {
    loop {
        let simulated = thread::with(|thread| match &mut thread.world {
            Some(world) if !world.abandoned => {
                world.watch_begins();
                true
            }
            _ => false,
        });
        let result = condition();
        if simulated {
            interrupt::in_world(World::watch_ends);
        }
        if let Some(result) = result {
            return result;
        }
        assert!(
            simulated,
            "waiting outside a running simulation for something that nobody can change"
        );
        let goes_on =
            thread::with(|thread| thread.world.as_mut().is_none_or(|world| world.sleep(poll)));
        if !goes_on {
            fiber::switch();
        }
        // What came while a load was repeated is attended to behind that load.
        if interrupt::in_world(|world| world.me().replay.are_known()) != Some(true) {
            interrupt::attend();
        }
    }
}

impl World {
    fn watch_begins(&mut self) {
        let core = self.me();
        core.watching = true;
        if !core.replay.begin() {
            core.watched.clear();
        }
        // Its accesses are noted, all of them.
        self.limit = 0;
    }

    fn watch_ends(&mut self) {
        let core = self.me();
        core.watching = false;
        core.replay.end();
        self.set_limit();
    }

    /// Lets the running core wait on the lines its condition read. Returns whether it goes on at
    /// once; if not, another core was chosen.
    fn sleep(&mut self, poll: Option<Ps>) -> bool {
        !self.fall_asleep(poll) || self.hand_over()
    }

    /// Puts the running core to sleep on the lines its condition read, or charges one round of
    /// its loop if one of them has changed already. Returns whether it sleeps.
    pub(crate) fn fall_asleep(&mut self, poll: Option<Ps>) -> bool {
        let me = self.current;
        let pause = self.costs.hit[self.pace()].pause;
        let lines = &mut self.lines;
        let core = &mut self.cores[me as usize];
        let unchanged = core.watched.iter().all(|entry| {
            lines.lines[entry.line as usize].version == entry.version
                && lines.holds(entry.line, core.cache)
        });
        if core.watched.is_empty() || !unchanged {
            core.now += pause;
            core.spun += pause;
            return false;
        }
        for entry in &core.watched {
            lines.add_sleeper(entry.line, me);
            if lines.lines[entry.line as usize].traced {
                self.timeline.record(core.now, me, entry.row, TimelineEvent::Sleep);
            }
        }
        let now = core.now;
        let possible = core.stores.is_empty() && !core.pending_interrupts.counts_accesses();
        core.replay.sleep(possible, poll.is_none());
        let wake_at = poll.map_or(NEVER, |poll| now.saturating_add(poll));
        self.doze(State::Asleep, wake_at);
        true
    }

    /// Puts the running core to sleep with a timer, which an interrupt shortens.
    fn doze(&mut self, state: State, wake_at: Ps) {
        let (me, now) = (self.current, self.now());
        let core = self.me();
        core.asleep_since = now;
        core.sleep = core.sleep.wrapping_add(1);
        let sleep = core.sleep;
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
            let watched = entry.watched.iter().find(|watched| watched.line == line);
            self.timeline.record(
                at,
                core,
                watched.map_or(0, |watched| watched.row),
                TimelineEvent::Wake,
            );
        }
        let round = self.costs.hit[0].pause + self.costs.hit[0].load;
        let slept = at.saturating_sub(entry.asleep_since);
        let phase = (round - slept % round) % round;
        entry.replay.wake();
        self.end_sleep(core, at + phase);
        self.set_state(core, State::Running);
        let what = self.cores[core as usize].going_on(core);
        self.push(at + phase, what);
    }

    /// Ends a sleep or rest: accounts for the time, and forgets who was to wake the core.
    #[inline(always)]
    pub(crate) fn end_sleep(&mut self, core: u16, at: Ps) {
        let entry = &mut self.cores[core as usize];
        if entry.state != State::Asleep {
            return;
        }
        let slept = at.saturating_sub(entry.asleep_since);
        entry.spun += slept;
        let round = self.costs.hit[0].pause + self.costs.hit[0].load;
        for watched in &entry.watched {
            self.lines.remove_sleeper(watched.line, core);
        }
        if let Some(first) = entry.watched.first() {
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
}
