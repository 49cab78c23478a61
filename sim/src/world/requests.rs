//! Requests for lines on their way to the directory, and what their grants set off.

use cellbench_mutations::mutated;

use super::World;
use crate::core::State;
use crate::costs::Ps;
use crate::directory::{Due, Grant};
use crate::events::Event;
use crate::prefetch::{Expected, Use};
use crate::request::{Request, Requester, Want, Wanted};
use crate::timeline::TimelineEvent;

impl World {
    /// Requests a line for a core at a time.
    pub(crate) fn request(&mut self, wanted: &Wanted, by: Requester, core: u16, now: Ps) {
        let Self { cores, lines, costs, stats, .. } = self;
        stats.row(wanted.row).rfos += u64::from(wanted.want == Want::Own);
        let at = lines.enqueue(costs, wanted, by, &mut cores[core as usize], now);
        if lines.lines[wanted.line as usize].traced {
            self.timeline.record(now, core, wanted.row, TimelineEvent::Request);
        }
        if let Some(at) = at {
            self.push(at, Event::grant(wanted.line));
        }
    }

    /// Serves the first request that waits for a line, if this is still when it is due.
    pub(crate) fn grant(&mut self, line: u32, at: Ps) {
        let request = match self.lines.take_due(line, at) {
            Due::Nothing => return,
            Due::Postponed(at) => return self.events.push(at, Event::grant(line)),
            Due::Granted(request) => request,
        };
        let entry = &mut self.lines.lines[line as usize];
        let (owned, exclusive) = (entry.may_write(request.cache), entry.exclusive);
        let asks_again = (entry.stores_wait && exclusive && !owned).then_some(entry.owner);
        entry.stores_wait &= asks_again.is_none();
        let here_at = match request.want {
            _ if owned => at,
            Want::Read if !exclusive && self.lines.is_sharer(line, request.cache) => at,
            Want::Read if !self.lines.lines[line as usize].migrates() => {
                self.grant_read(line, at, request)
            }
            _ => self.grant_ownership(line, at, request),
        };
        let entry = &mut self.lines.lines[line as usize];
        entry.grant_source = None;
        let more = !entry.queue.is_empty();
        if entry.traced {
            self.timeline.record(here_at, request.core, request.row, TimelineEvent::Arrival);
        }
        let core = &mut self.cores[request.core as usize];
        if request.by == Requester::StoreBuffer {
            entry.stores_wait = true;
            core.stores.granted(line, here_at);
            self.events.push(here_at, Event::commit(request.core));
        } else if request.by == Requester::Access
            || core.prefetcher.granted(line, here_at) && core.state == State::Stalled
        {
            let event = core.going_on();
            self.events.push(here_at, event);
        }
        if more {
            let at = self.lines.schedule_first_grant(&self.costs, line);
            self.events.push(at, Event::grant(line));
        }
        if let Some(cache) = asks_again {
            self.ask_again(line, cache, at);
        }
        while let Some((core, next)) = self.losers.pop() {
            self.prefetch_again(core, &next, at);
        }
    }

    fn grant_read(&mut self, line: u32, at: Ps, request: Request) -> Ps {
        self.note_squashed(line);
        let Self { protocol, lines, cores, costs, stats, .. } = self;
        let (core, row) = (&mut cores[request.core as usize], stats.row(request.row));
        lines.grant_read(*protocol, Grant { costs, line, at, request, core, row })
    }

    #[inline(always)]
    fn grant_ownership(&mut self, line: u32, at: Ps, request: Request) -> Ps {
        if self.expecting > 0 || self.costs.run_ahead > 0 && self.costs.atomics_run_ahead {
            self.note_losers(line, request.cache);
        }
        if self.lines.lines[line as usize].sleepers > 0 {
            self.invalidate_sleepers(line, at, request.cache, request.core);
        }
        let Self { lines, cores, costs, stats, .. } = self;
        let (core, row) = (&mut cores[request.core as usize], stats.row(request.row));
        lines.grant_ownership(Grant { costs, line, at, request, core, row })
    }

    /// Lets the stores ask again, at once, that had a line which their cache loses, and wait for older
    /// ones. (A store queue asks for the lines of all its stores, not of the first alone.)
    fn ask_again(&mut self, line: u32, cache: u16, at: Ps) {
        for number in 0..self.threads_of[cache as usize].len() {
            let core = self.threads_of[cache as usize][number];
            if let Some((words, row)) = self.cores[core as usize].stores.lost(line) {
                let wanted = Wanted { line, want: Want::Own, adds: false, words, row };
                self.request(&wanted, Requester::StoreBuffer, core, at);
            }
        }
    }

    /// Notes which cores lose a line that a cache takes, and expect to use it while they wait for another
    /// one, or have an atomic on it in flight; with that use, for [`Self::prefetch_again`].
    fn note_losers(&mut self, line: u32, cache: u16) {
        let (cores, threads_of, losers) = (&self.cores, &self.threads_of, &mut self.losers);
        let (depth, atomics) = (self.costs.run_ahead, self.costs.atomics_run_ahead);
        let use_of_it = |&thread: &u16| {
            let core = &cores[thread as usize];
            let next = match core.state {
                State::Stalled => core.prefetcher.expected_at(line),
                State::Running if atomics && !core.watching && !mutated!(RunningAsksLate) => {
                    core.prefetcher.upcoming(line, depth)
                }
                _ => None,
            };
            Some((thread, next?))
        };
        let mut note = |loser: u16| {
            losers.extend(threads_of[loser as usize].iter().filter_map(use_of_it));
        };
        let entry = &self.lines.lines[line as usize];
        if entry.exclusive {
            // The owner's is the only copy.
            if entry.owner != cache {
                note(entry.owner);
            }
        } else {
            self.lines.sharers(line).filter(|&loser| loser != cache).for_each(note);
        }
    }

    /// Notes whether the owner of a line, of which another core is about to get a readable copy, loses
    /// by that what it had executed ahead.
    fn note_squashed(&mut self, line: u32) {
        let entry = &self.lines.lines[line as usize];
        if self.costs.run_ahead == 0 || !entry.exclusive {
            return;
        }
        for &thread in &self.threads_of[entry.owner as usize] {
            self.cores[thread as usize].note_read_by_other(line, self.costs.run_ahead);
        }
    }

    /// Asks for the lines that the running core will want next, when it begins to wait for a line,
    /// which it may have `asked` for ahead, with an `atomic` or not.
    pub(crate) fn run_ahead(&mut self, line: u32, asked: bool, atomic: bool) {
        let (me, now) = (self.current, self.now());
        let core = &mut self.cores[me as usize];
        self.expecting -= usize::from(core.prefetcher.expects());
        core.prefetcher.begin_miss(line, asked);
        let passed = self.costs.atomics_run_ahead || mutated!(BarrierPassed);
        if core.watching || atomic && !passed {
            return;
        }
        core.prefetcher.predict(line, self.costs.run_ahead);
        self.expecting += usize::from(core.prefetcher.expects());
        let mut position = 0;
        while let Some(next) = self.cores[me as usize].prefetcher.expected(position) {
            self.prefetch(me, &next, now);
            position += 1;
        }
    }

    /// Asks once more for a line that a core lost before it came to use it.
    fn prefetch_again(&mut self, core: u16, next: &Expected, now: Ps) {
        self.cores[core as usize].replays |= next.usage != Use::Add;
        self.prefetch(core, next, now);
    }

    fn prefetch(&mut self, core: u16, next: &Expected, now: Ps) {
        let entry = &mut self.cores[core as usize];
        let (line, cache, owns) = (next.line, entry.cache, next.owns());
        let here =
            if owns { self.lines.may_write(line, cache) } else { self.lines.holds(line, cache) };
        if here
            || entry.prefetcher.has_asked(line)
            || entry.stores.stores_to(line)
            || self.lines.lines[line as usize].live_words == 0
        {
            return;
        }
        entry.prefetcher.ask(next);
        let want = if owns { Want::Own } else { Want::Read };
        let by = match next.usage {
            Use::Add => Requester::RunAheadToAdd,
            _ => Requester::RunAhead,
        };
        self.request(
            &Wanted { line, want, adds: next.usage == Use::Add, words: next.words, row: next.row },
            by,
            core,
            now,
        );
    }

    /// Lets the stores of a core leave its buffer whose turn it is, when the line of one has arrived.
    pub(crate) fn commit(&mut self, core: u16, at: Ps) {
        let cache = self.cores[core as usize].cache;
        while let Some(store) = self.cores[core as usize].stores.pop_ready(at) {
            debug_assert!(self.lines.may_write(store.line, cache), "a store without its line");
            if store.commit.apply(&mut self.words) {
                self.lines.lines[store.line as usize].changed_by = cache;
            }
            self.line_written(store.line, store.words, core, at);
        }
        let entry = &mut self.cores[core as usize];
        entry.stores.settle(at);
        if entry.state == State::Draining && entry.stores.is_drained() {
            entry.now = entry.now.max(at);
            let (now, drain) = (entry.now, entry.stores.drain);
            let waited = now.saturating_sub(entry.waiter.since);
            entry.waited += waited;
            self.stats.row(drain.row).wait += waited;
            self.lines.lines[drain.line as usize].totals.wait += waited;
            self.set_state(core, State::Stalled);
            self.push(now, Event::resume(core));
        }
    }

    /// Lets the running core wait until the store at a position in its buffer has left. Returns
    /// whether it may go on at once; if not, another core was chosen.
    pub(crate) fn await_store(&mut self, position: usize) -> bool {
        let core = self.me();
        core.waiter.since = core.now;
        core.stores.begin_drain(position);
        self.set_state(self.current, State::Draining);
        self.hand_over()
    }

    /// Executes a full fence. Returns whether the running core is through; if not, another was chosen.
    pub(crate) fn drain(&mut self) -> bool {
        while let Some(last) = self.me().stores.last() {
            if !self.await_store(last) {
                return false;
            }
        }
        let cost = self.costs.hit[self.pace()].fence;
        self.me().now += cost;
        true
    }

    /// Ends all waiting in store buffers at once: the simulation is over.
    pub(crate) fn flush_stores(&mut self) {
        for core in &mut self.cores {
            for store in core.stores.take_all() {
                store.commit.apply(&mut self.words);
            }
        }
    }
}
