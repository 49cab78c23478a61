//! The simulated machine in motion: cores, lines, the event queue and who runs next.
//!
//! A core runs ahead of the others only as far as nothing they do can reach it, and only with
//! hits. Whatever involves another core happens in the order of simulated time.
//!
//! How far that is: others take away a copy or the right to write it by the grant of a request.
//! If the request is made already, the line knows when it is served next (`grant_at`), and a hit
//! must end before. Any other request will be made by a core that goes on at some event in the
//! queue, so not before the next event. It goes to the directory and on to the holder of the copy:
//! two quarters of what the transfer from that holder costs, or of more (a write pays for the
//! farthest copy). So nothing can reach a core before the time of the next event plus half the
//! shortest transfer between two caches in use, with the smallest random factor (the *lookahead*).
//! Fills from memory or from the last-level cache may be cheaper, but take nothing from anybody.

mod bind;
mod complete;
mod hit;
mod issue;
mod replay;
mod requests;
mod sleep;

use crate::core::{Core, State};
use crate::costs::{Costs, Ps, scale};
use crate::directory::Directory;
use crate::events::{Event, EventKind, EventQueue};
use crate::prefetch::Expected;
use crate::protocol::Protocol;
use crate::report::End;
use crate::rng::Rng;
use crate::slot::{NO_CORE, Word};
use crate::stats::Statistics;
use crate::timeline::Timeline;

/// The simulated machine in motion.
pub(crate) struct World {
    pub(crate) epoch: u32,
    pub(crate) protocol: Protocol,
    pub(crate) costs: Costs,
    pub(crate) cores: Vec<Core>,
    pub(crate) lines: Directory,
    pub(crate) events: EventQueue,
    pub(crate) stats: Statistics,
    pub(crate) timeline: Timeline,
    /// Labels of words that do not share their lines.
    pub(crate) own_lines: Vec<String>,
    rng: Rng,
    /// The core whose fiber runs.
    pub(crate) current: u16,
    /// Until when the running core may go on with hits without looking at the event queue.
    pub(crate) limit: Ps,
    lookahead: Ps,
    pub(crate) time_limit: Ps,
    /// Cores whose code has not returned yet.
    pub(crate) unfinished: usize,
    pub(crate) end: Option<End>,
    /// Set when the code of a core panics: what its destructors do is done at once and free.
    pub(crate) abandoned: bool,
    /// Values of the simulated words, by the number of their slots.
    pub(crate) words: Vec<Word>,
    /// Cores to wake, kept to save an allocation for each invalidation.
    pub(crate) to_wake: Vec<u16>,
    /// Cores that just lost a line, kept for the same reason.
    pub(crate) losers: Vec<(u16, Expected)>,
    /// Cores whose run-ahead expects an access to another line than the one they stalled for last.
    pub(crate) expecting: usize,
    /// Hardware threads of each core that were given code.
    pub(crate) threads_of: Vec<Vec<u16>>,
    /// Busy hardware threads of each core; empty if no core has two with code.
    pub(crate) busy: Vec<u16>,
}

impl World {
    pub(crate) fn new(costs: Costs, protocol: Protocol, seed: u64, time_limit: Ps) -> Self {
        let cores =
            (0..).zip(&costs.cache_of).map(|(number, &cache)| Core::new(number, cache)).collect();
        Self {
            epoch: 0,
            protocol,
            lines: Directory::new(costs.cache_count(), costs.threads()),
            costs,
            cores,
            events: EventQueue::default(),
            stats: Statistics::new(),
            timeline: Timeline::default(),
            own_lines: Vec::new(),
            rng: Rng::new(seed),
            current: NO_CORE,
            limit: 0,
            lookahead: 0,
            time_limit,
            unfinished: 0,
            end: None,
            abandoned: false,
            words: Vec::new(),
            to_wake: Vec::new(),
            losers: Vec::new(),
            expecting: 0,
            threads_of: Vec::new(),
            busy: Vec::new(),
        }
    }

    /// Readies the cores that were given code; each starts a little later than the one before it
    /// or earlier, as threads released by one barrier do.
    pub(crate) fn start(&mut self, epoch: u32, used: &[u16], start_spread: Ps) {
        self.epoch = epoch;
        self.unfinished = used.len();
        self.threads_of = vec![Vec::new(); self.costs.cache_count()];
        let mut sorted = used.to_vec();
        sorted.sort_unstable();
        for thread in sorted {
            self.threads_of[self.cores[thread as usize].cache as usize].push(thread);
        }
        let mut caches: Vec<u16> =
            used.iter().map(|&core| self.cores[core as usize].cache).collect();
        caches.sort_unstable();
        caches.dedup();
        if caches.len() < used.len() {
            // SMT siblings reach each other at once.
            self.busy = vec![0; self.costs.cache_count()];
        } else {
            let shortest = self.costs.shortest_transfer(&caches);
            // A hit at the very moment at which the line is lost would come too late.
            self.lookahead = (scale(shortest, 65536 - self.costs.jitter) / 4 * 2).saturating_sub(1);
        }
        for &core in used {
            if self.costs.run_ahead > 0 {
                self.cores[core as usize].prefetcher.prepare();
            }
            let at = self.rng.below(start_spread + 1);
            self.set_state(core, State::Running);
            self.events.push(at, Event::resume(core));
        }
        for &core in used {
            self.cores[core as usize].rng = Rng::new(self.rng.next_u64());
        }
    }

    /// Ends the simulation: accesses happen at once from now on and cost nothing.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.flush_stores();
        self.limit = 0;
    }

    #[inline]
    pub(crate) fn me(&mut self) -> &mut Core {
        &mut self.cores[self.current as usize]
    }

    #[inline]
    pub(crate) fn now(&self) -> Ps {
        self.cores[self.current as usize].now
    }

    /// Returns the index of the running core's cost table: whether an SMT sibling competes with it.
    #[inline]
    pub(crate) fn pace(&self) -> usize {
        if self.busy.is_empty() {
            return 0;
        }
        usize::from(self.busy[self.cores[self.current as usize].cache as usize] > 1)
    }

    pub(crate) fn set_state(&mut self, core: u16, state: State) {
        let entry = &mut self.cores[core as usize];
        if let Some(busy) = self.busy.get_mut(entry.cache as usize) {
            *busy -= u16::from(entry.state.is_busy());
            *busy += u16::from(state.is_busy());
        }
        entry.state = state;
    }

    /// Draws a factor close to one, in 1/65536, for the random variation of a duration on a core.
    pub(crate) fn factor(&mut self, core: u16) -> u64 {
        self.costs.factor(&mut self.cores[core as usize].rng)
    }

    /// Queues an event; the running core must then not pass it unseen.
    pub(crate) fn push(&mut self, at: Ps, event: Event) {
        self.events.push(at, event);
        self.limit = self.limit.min(at.saturating_add(self.lookahead));
    }

    /// Returns whether everything before a time has happened.
    #[inline]
    pub(crate) fn is_next(&self, now: Ps) -> bool {
        now <= self.time_limit && !self.events.any_before(now)
    }

    /// Sets how far the core that is about to run may go on its own.
    pub(crate) fn set_limit(&mut self) {
        let unreached = self.unreached_until();
        self.limit = self.cores[self.current as usize].limit(unreached);
    }

    /// Returns until when nobody can reach the core that runs.
    #[inline]
    pub(crate) fn unreached_until(&self) -> Ps {
        // Both are at most half of what can be counted.
        self.events.next_at().min(self.time_limit) + self.lookahead
    }

    /// Brings the running core to the point where everything before its time has happened.
    /// Returns whether it may go on; if not, another core was chosen (see [`World::hand_over`]).
    #[inline]
    pub(crate) fn synchronise(&mut self) -> bool {
        let now = self.now();
        if self.is_next(now) {
            self.set_limit();
            return true;
        }
        self.catch_up(now)
    }

    pub(crate) fn catch_up(&mut self, now: Ps) -> bool {
        let me = self.current;
        while now <= self.time_limit {
            if !self.events.any_before(now) {
                self.set_limit();
                return true;
            }
            let Some((at, event)) = self.events.pop() else { break };
            if let Some(core) = self.dispatch(at, event) {
                self.events.push(now, Event::resume(me));
                return self.go_on(core, at);
            }
        }
        self.events.push(now, Event::resume(me));
        self.hand_over()
    }

    /// Lets time pass until a core can run, and makes it the current one. Returns whether that is
    /// the core that was current before: then its fiber just goes on.
    pub(crate) fn hand_over(&mut self) -> bool {
        loop {
            let Some((at, event)) = self.events.pop() else {
                self.end = Some(self.end_without_events());
                return false;
            };
            if at > self.time_limit {
                self.end = Some(End::TimeLimit);
                return false;
            }
            if let Some(core) = self.dispatch(at, event) {
                return self.go_on(core, at);
            }
        }
    }

    /// Lets an event happen. Returns the core that goes on by it.
    #[inline(always)]
    fn dispatch(&mut self, at: Ps, event: Event) -> Option<u16> {
        let core = event.core();
        match event.kind() {
            EventKind::Grant => {
                self.grant(event.number(), at);
                None
            }
            EventKind::Commit => {
                self.commit(core, at);
                None
            }
            EventKind::Timer => {
                let entry = &self.cores[core as usize];
                if !entry.is_sleeping() || entry.waiter.sleep != event.number() {
                    return None;
                }
                self.end_sleep(core, at);
                Some(core)
            }
            EventKind::Replay => self.replay(core, at).then_some(core),
            EventKind::Resume => Some(core),
        }
    }

    /// Makes a core the current one. Returns whether it was already.
    pub(crate) fn go_on(&mut self, core: u16, at: Ps) -> bool {
        let before = std::mem::replace(&mut self.current, core);
        let unreached = self.unreached_until();
        let entry = &mut self.cores[core as usize];
        entry.now = entry.now.max(at);
        self.limit = entry.limit(unreached);
        if self.busy.is_empty() {
            entry.state = State::Running;
        } else {
            self.set_state(core, State::Running);
        }
        before == core
    }

    fn end_without_events(&self) -> End {
        let at_rest =
            |core: &Core| matches!(core.state, State::Unused | State::Finished | State::Stopped);
        if self.cores.iter().all(at_rest) { End::Completed } else { End::Deadlock }
    }
}
