//! Accesses that are not certain hits: when each is issued, what it waits for, and when it goes on.
//!
//! A fiber comes here once for an access ([`World::begin`]), and leaves if that has to wait. From then
//! on it is [`advance`] that goes on with it.

use crate::access::{Access, atomic_start, words_at};
use crate::core::State;
use crate::costs::{NEVER, Ps};
use crate::events::Event;
use crate::line::{Requester, Want};
use crate::run_ahead::PrefetchHit;
use crate::stats::Statistics;
use crate::store_buffer::Buffer;
use crate::thread::{Slot, ThreadState};
use crate::timeline::TimelineEvent;
use crate::world::World;

/// The access that a core makes, while it waits: for its turn, for a store that must leave the buffer,
/// for its line. All of it is read in the parts it was written in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// Whether one waits.
    pub(crate) waits: bool,
    phase: Phase,
    /// How the last one that waited took effect, or what its fiber has to do before it goes on.
    pub(crate) step: Step,
    index: u32,
    address: usize,
    access: *const Access,
    /// When it missed, if it did.
    pub(crate) issued_at: Ps,
    /// The value that it takes effect on, if the store buffer knows that.
    pub(crate) forwarded: u64,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            waits: false,
            phase: Phase::New,
            step: Step::Perform,
            index: 0,
            address: 0,
            access: std::ptr::null(),
            issued_at: 0,
            forwarded: 0,
        }
    }
}

/// How far an access has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Counted, and found not to be a certain hit.
    New,
    /// It waited to be issued.
    Issue,
    /// An atomic whose line was here when it began; its time is over. If the line was granted to
    /// another one meanwhile, who had asked for it before, it begins again.
    Executed,
    /// It missed; the core was stalled since then and goes on when the line is here.
    Arrived,
}

/// What is to be done next for an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Perform the operation: it is done.
    Perform,
    /// Perform it on the forwarded value instead, which the store buffer knows.
    Forward,
    /// Nothing: the store is in the store buffer.
    Buffered,
    /// Another core was chosen: go on when this one goes on.
    Switch,
    /// Run what is due on top of this core, then go on.
    Attend,
}

/// What else a core has under way means for an access.
enum InFlight {
    Nothing,
    /// Its line was asked for, and is not on its way yet.
    Asked,
    /// It is to be issued again, at the core's time.
    Later,
    /// This is to be done.
    Next(Step),
}

/// Goes on with the accesses that wait, until a fiber has to go on; returns its core, or `None` when
/// the simulation has ended.
pub(crate) fn advance(thread: &mut ThreadState) -> Option<u16> {
    let ThreadState { slots, world, .. } = thread;
    let world = world.as_mut().filter(|world| !world.abandoned)?;
    while world.end.is_none() {
        let me = world.current;
        let pending = &world.me().pending;
        if !pending.waits {
            return Some(me);
        }
        let (index, address, access) = (pending.index, pending.address, pending.access);
        // SAFETY: `stepwise` borrows the access, and is suspended until it finds `waits` false.
        let access = unsafe { &*access };
        let step = world.go_on_with(index, &mut slots[index as usize], address, access);
        if step != Step::Switch {
            let pending = &mut world.cores[me as usize].pending;
            pending.step = step;
            pending.waits = false;
            return Some(me);
        }
    }
    None
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
            && let Some(bits) = core.replay.known(index, access)
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

    /// Whether an access of the running core hits, and nothing comes before it: then all that is left
    /// is to complete it. An atomic whose line may be taken from it has its time.
    fn hits_now(&mut self, slot: &Slot, access: &Access) -> bool {
        let core = &mut self.cores[self.current as usize];
        let now = core.now;
        if now > self.time_limit
            || self.events.any_before(now)
            || core.is_due()
            || core.squashed
            || !core.stores.is_empty()
            || !core.fetched.is_empty()
        {
            return false;
        }
        let entry = &mut self.lines.lines[slot.line as usize];
        let owned = entry.may_write(core.cache);
        if access.is_atomic() {
            let ends = atomic_start(now, slot, self.current) + self.costs.hit[0].atomic;
            if !owned || !self.busy.is_empty() {
                return false;
            }
            core.now = ends;
            if entry.grant_at <= ends {
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
    fn go_on_with(&mut self, index: u32, slot: &mut Slot, address: usize, access: &Access) -> Step {
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
            let (stores, fetched) = (!core.stores.is_empty(), !core.fetched.is_empty());
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
                if let Access::Store { .. } = access {
                    self.me().replay.invalidate();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.request(line, want, (words, row), Requester::StoreBuffer, (me, now));
                    self.complete(slot, access, TimelineEvent::Store, 0);
                    return Step::Buffered;
                }
                if !asked {
                    self.request(line, want, (words, row), Requester::Access, (me, now));
                }
                self.run_ahead(line, asked);
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
                let atomic = self.varied(self.costs.hit[self.pace()].atomic);
                let ends = atomic_start(now, slot, self.current) + atomic;
                let core = self.me();
                core.now = ends;
                core.pending.phase = Phase::Executed;
                let entry = &mut self.lines.lines[line as usize];
                if entry.grant_at <= ends {
                    continue;
                }
                // Nobody asked for the line in time: it is kept to the end.
                entry.locked_until = ends;
            } else if stores && matches!(access, Access::Store { .. }) {
                // Stores become visible in order: one whose line is here waits for those before it.
                self.me().replay.invalidate();
                self.buffer_store(index, slot, access, words_at(address), now);
                self.complete(slot, access, TimelineEvent::Hit, 0);
                return Step::Buffered;
            }
            return self.takes_effect(index, slot, access, TimelineEvent::Hit, 0);
        }
    }

    /// What the stores of the running core that wait for their lines, and the lines that it asked for
    /// ahead, mean for an access.
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
            match self.store_buffer_says(index, line, words, access) {
                Buffer::Nothing => {}
                Buffer::Forwards(bits) => {
                    let core = self.me();
                    core.replay.invalidate();
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
                    self.me().replay.invalidate();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.complete(slot, access, TimelineEvent::Hit, 0);
                    return InFlight::Next(Step::Buffered);
                }
            }
        }
        match self.run_ahead_says(line, access) {
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
}
