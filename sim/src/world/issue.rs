//! Accesses that are not certain hits: when each is issued, what it waits for, and when it goes on.
//!
//! A fiber comes here once for an access ([`World::begin`]), and leaves if that has to wait. From then
//! on it is [`World::go_on_with`] that goes on with it.

use super::World;
use crate::access::{Access, atomic_start, words_at};
use crate::core::State;
use crate::costs::{NEVER, Ps};
use crate::events::Event;
use crate::pending::{Phase, Step};
use crate::prefetch::PrefetchHit;
use crate::request::{Requester, Want, Wanted};
use crate::slot::{Commit, Slot};
use crate::stats::Statistics;
use crate::store_buffer::{Buffer, BufferedStore};
use crate::timeline::TimelineEvent;

/// The outcome for an access of what else its core has in flight.
enum InFlight {
    Nothing,
    /// Its line was asked for, and is not on its way yet.
    Asked,
    /// It is to be issued again, at the core's time.
    Later,
    /// This is to be done.
    Next(Step),
}

impl World {
    /// Begins an access of the running core that does not certainly hit.
    pub(crate) fn begin(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
        labels: &[&'static str],
    ) -> Step {
        self.line_of(slot, address, labels);
        let me = self.current;
        let core = &mut self.cores[me as usize];
        if core.watching
            && let Some(bits) = core.waiter.replay.known(index, access)
        {
            core.pending.forwarded = bits;
            return Step::Forward;
        }
        core.accesses += 1;
        core.note_access(slot, words_at(address), access);
        let pending = &mut core.pending;
        pending.phase = Phase::New;
        pending.index = index;
        pending.address = address;
        pending.access = access;
        let mut step = Step::Switch;
        if self.gives_way() {
            self.cores[me as usize].pending.phase = Phase::Issue;
        } else if self.hits_now(slot, access) {
            return self.takes_effect(index, slot, access, TimelineEvent::Hit, 0);
        } else if let Access::Store { .. } = access {
            // It need not wait for its line.
            step = self.issue(index, slot, address, access);
        }
        self.cores[me as usize].pending.waits = step == Step::Switch;
        step
    }

    /// Chooses another core, if that is all that has to happen before the running one goes on: most of
    /// what waits only waits for its turn. Returns whether it did.
    #[inline]
    fn gives_way(&mut self) -> bool {
        let me = self.current;
        let core = &self.cores[me as usize];
        let now = core.now;
        if self.is_next(now)
            || now > self.time_limit
            || core.is_due()
            || core.squashed
            || !self.events.next_is_turn()
        {
            return false;
        }
        let Some((at, what)) = self.events.pop() else { return false };
        self.events.push(now, Event::resume(me));
        self.go_on(what.core(), at);
        true
    }

    /// Returns whether an access of the running core hits, and nothing comes before it: then all that is left
    /// is to complete it. An atomic whose line may be taken from it has its time.
    fn hits_now(&mut self, slot: &Slot, access: &Access) -> bool {
        let core = &mut self.cores[self.current as usize];
        let now = core.now;
        if now > self.time_limit
            || self.events.any_before(now)
            || core.is_due()
            || core.squashed
            || !core.stores.is_empty()
            || !core.prefetcher.is_idle()
        {
            return false;
        }
        let entry = &mut self.lines.lines[slot.line as usize];
        let owned = entry.may_write(core.cache);
        if access.is_atomic() {
            let cost = &self.costs.hit[0];
            let ends = atomic_start(now, slot, self.current) + cost.atomic;
            if !owned || !self.busy.is_empty() {
                return false;
            }
            core.now = ends;
            if entry.grant_at <= ends.saturating_sub(cost.locked) {
                core.pending.phase = Phase::Executed;
                return false;
            }
            entry.locked_until = ends;
        } else {
            let shared = matches!(access, Access::Load { .. }) && !entry.exclusive;
            let here = owned || shared && self.lines.is_sharer(slot.line, core.cache);
            if !here {
                return false;
            }
        }
        self.set_limit();
        true
    }

    /// Goes on with an access when the running core goes on.
    #[inline]
    pub(crate) fn go_on_with(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
    ) -> Step {
        let core = &self.cores[self.current as usize];
        let (in_time, phase) = (core.now <= self.limit, core.pending.phase);
        match phase {
            Phase::Arrived => self.arrived(index, slot, access),
            // It waited for its turn only, and has it now.
            Phase::Issue if in_time && self.hit(slot, address, access, true) => Step::Perform,
            _ => self.issue(index, slot, address, access),
        }
    }

    fn issue(&mut self, index: u32, slot: &mut Slot, address: usize, access: &Access) -> Step {
        // Its word cannot move while it goes on: the line is the same each time.
        let line = slot.line;
        loop {
            let core = &mut self.cores[self.current as usize];
            if core.is_due() {
                return Step::Attend;
            }
            let phase = core.pending.phase;
            core.charge_squash(self.costs.squash);
            let (now, cache) = (core.now, core.cache);
            let ahead = now > self.limit;
            if phase == Phase::New {
                core.pending.phase = Phase::Issue;
            }
            if !self.synchronise() {
                return Step::Switch;
            }
            let core = &self.cores[self.current as usize];
            let entry = &self.lines.lines[line as usize];
            let hits = match access {
                Access::Load { .. } if !entry.exclusive => self.lines.is_sharer(line, cache),
                _ => entry.may_write(cache),
            };
            let (stores, fetched) = (!core.stores.is_empty(), !core.prefetcher.is_idle());
            let mut asked = false;
            if stores || fetched {
                match self.check_in_flight(index, slot, address, access) {
                    InFlight::Nothing => {}
                    InFlight::Asked => asked = true,
                    InFlight::Later => continue,
                    InFlight::Next(step) => return step,
                }
            } else if hits
                && ahead
                && phase != Phase::Executed
                && now <= self.limit
                && self.hit(slot, address, access, true)
            {
                return Step::Perform;
            }
            if !hits {
                let me = self.current;
                let row = Statistics::key(slot.row, self.cores[me as usize].operation);
                let want = if access.writes() { Want::Own } else { Want::Read };
                let words = words_at(address);
                let adds = matches!(access, Access::Add { .. });
                if let Access::Store { .. } = access {
                    self.buffer_store(index, slot, access, NEVER);
                    self.request(
                        &Wanted { line, want, adds, words, row },
                        Requester::StoreBuffer,
                        me,
                        now,
                    );
                    self.complete(slot, access, TimelineEvent::Store, 0);
                    return Step::Buffered;
                }
                if !asked {
                    self.request(
                        &Wanted { line, want, adds, words, row },
                        Requester::Access,
                        me,
                        now,
                    );
                }
                self.run_ahead(line, asked, access.is_atomic());
                self.set_state(me, State::Stalled);
                let pending = &mut self.cores[me as usize].pending;
                pending.phase = Phase::Arrived;
                pending.issued_at = now;
                if !self.hand_over() {
                    return Step::Switch;
                }
                return self.arrived(index, slot, access);
            }
            if access.is_atomic() && phase != Phase::Executed {
                let cost = &self.costs.hit[self.pace()];
                let locked = cost.locked;
                let atomic = self.varied(cost.atomic);
                let ends = atomic_start(now, slot, self.current) + atomic;
                let core = self.me();
                core.now = ends;
                core.pending.phase = Phase::Executed;
                let entry = &mut self.lines.lines[line as usize];
                if entry.grant_at <= ends.saturating_sub(locked) {
                    continue;
                }
                // Nobody takes the line before it is locked: it is kept to the end.
                entry.locked_until = ends;
            } else if stores && matches!(access, Access::Store { .. }) {
                // Stores become visible in order: one whose line is here waits for those before it.
                self.buffer_store(index, slot, access, now);
                self.complete(slot, access, TimelineEvent::Hit, 0);
                return Step::Buffered;
            }
            return self.takes_effect(index, slot, access, TimelineEvent::Hit, 0);
        }
    }

    /// Looks for the line of an access among the running core's buffered stores and the lines that it
    /// asked for ahead.
    #[inline(never)]
    fn check_in_flight(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
    ) -> InFlight {
        let (line, words) = (slot.line, words_at(address));
        if !self.me().stores.is_empty() {
            let generation = self.words[index as usize].generation;
            let stores = &self.cores[self.current as usize].stores;
            match stores.check(&self.costs, line, words, generation, access) {
                Buffer::Nothing => {}
                Buffer::Forwards(bits) => {
                    let core = self.me();
                    core.waiter.replay.invalidate();
                    core.pending.forwarded = bits;
                    self.complete(slot, access, TimelineEvent::Hit, 0);
                    return InFlight::Next(Step::Forward);
                }
                Buffer::Blocks(position) => {
                    return match self.await_store(position) {
                        true => InFlight::Later,
                        false => InFlight::Next(Step::Switch),
                    };
                }
                Buffer::Joins => {
                    self.buffer_store(index, slot, access, NEVER);
                    self.complete(slot, access, TimelineEvent::Hit, 0);
                    return InFlight::Next(Step::Buffered);
                }
            }
        }
        let core = self.me();
        match core.prefetcher.look_up(line, access, core.now) {
            PrefetchHit::Nothing => InFlight::Nothing,
            PrefetchHit::ArrivesAt(at) => {
                let row = Statistics::key(slot.row, self.me().operation);
                let since = std::mem::replace(&mut self.me().now, at);
                self.count_stall(line, row, since);
                InFlight::Later
            }
            PrefetchHit::Asked => InFlight::Asked,
        }
    }

    /// Puts a store of the running core into its buffer. Its line is `here_at` a time, or that is not
    /// known yet ([`NEVER`]).
    fn buffer_store(&mut self, index: u32, slot: &Slot, access: &Access, here_at: Ps) {
        let Access::Store { mask, new } = *access else { return };
        let (line, words) = (slot.line, words_at(slot.address));
        let generation = self.words[index as usize].generation;
        let core = self.me();
        core.waiter.replay.invalidate();
        let row = Statistics::key(slot.row, core.operation);
        let commit = Commit { slot: index, generation, mask, new };
        let granted =
            core.stores.push(BufferedStore { line, words, row, done_at: here_at, commit });
        self.lines.lines[line as usize].stores_wait |= granted;
    }
}
