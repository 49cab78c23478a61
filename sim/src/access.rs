//! One access: what it costs, and when it happens.
//!
//! The common case, a hit of a core that nobody can disturb meanwhile, is decided in a few
//! comparisons ([`World::hit`]). Everything else goes through [`World::step`], which returns each
//! time the fiber has to be left, and is called again when the core goes on.

use crate::core::{Core, State, Watched};
use crate::costs::{NEVER, Ps, scale};
use crate::fiber;
use crate::interrupt;
use crate::line::{By, Want};
use crate::run_ahead::Ahead;
use crate::stats::Statistics;
use crate::store_buffer::Buffer;
use crate::thread::{self, NO_LINE, Slot, ThreadState};
use crate::timeline::What;
use crate::world::World;

/// Kinds of access, as far as they differ in cost. A narrow access says by `mask` which bits of
/// the word it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Load {
        mask: u64,
    },
    /// A store that may wait in the store buffer.
    Store {
        mask: u64,
        new: u64,
    },
    /// A store that is visible before the core goes on (`xchg` on x86).
    FencedStore {
        mask: u64,
        new: u64,
    },
    /// If it `releases`, what the core stored before it is visible when it takes effect.
    Rmw {
        releases: bool,
    },
    /// A read-modify-write that adds. (The other ones with arithmetic are loops of
    /// compare-and-exchange on x86 where their result is used.)
    Add {
        releases: bool,
    },
}

impl Access {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::Load { .. })
    }

    /// Whether it takes effect at its end, having kept the core busy until then.
    pub(crate) fn is_atomic(&self) -> bool {
        matches!(self, Self::Rmw { .. } | Self::Add { .. } | Self::FencedStore { .. })
    }

    /// Whether the stores before it must be visible when it takes effect, on every machine.
    pub(crate) fn releases(&self) -> bool {
        match *self {
            Self::FencedStore { .. } => true,
            Self::Rmw { releases } | Self::Add { releases } => releases,
            Self::Load { .. } | Self::Store { .. } => false,
        }
    }
}

/// How far an access has come.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Counted, but not yet issued.
    Issue,
    /// An atomic whose line was here when it began; its time is over. If the line was granted to
    /// another one meanwhile, who had asked for it before, it begins again.
    Executed,
    /// It missed; the core was stalled since `issued_at` and goes on when the line is here.
    Arrived { issued_at: Ps },
}

/// What is to be done next.
enum Step {
    /// The access is done.
    Done(Done),
    /// Switch to the core that was chosen; go on when this one goes on.
    Switch(Phase),
    /// Run what is due on top of this core, then go on.
    Attend(Phase),
}

/// What else a core has under way means for an access.
enum Beside {
    Nothing,
    /// Its line was asked for, and is not on its way yet.
    Asked,
    /// It is to be issued again, at the core's time.
    Later,
    Done(Done),
    /// Another core was chosen.
    Left,
}

/// How an access takes effect.
enum Done {
    /// Perform the operation.
    Perform,
    /// Perform it on this value instead, which the store buffer knows.
    Forward(u64),
    /// Not at all: the store is in the store buffer.
    Buffered,
}

/// Performs an access by the word behind `handle`, which is at `address`.
#[inline]
pub(crate) fn perform<R>(
    handle: u32,
    address: usize,
    access: &Access,
    apply: impl Fn(&mut u64) -> R,
) -> R {
    let done = thread::with(|thread| {
        let index = thread.index(handle);
        let ThreadState { slots, words, world, .. } = thread;
        match world {
            Some(world) => world
                .hit(&mut slots[index], address, access, false)
                .then(|| world.apply(index, slots[index].line, &apply)),
            None => Some(apply(&mut words[index].value)),
        }
    });
    match done {
        Some(result) => result,
        None => match stepwise(handle, address, access) {
            Done::Perform => thread::with(|thread| {
                let index = thread.index(handle);
                let ThreadState { slots, words, world, .. } = thread;
                match world {
                    Some(world) => world.apply(index, slots[index].line, &apply),
                    None => apply(&mut words[index].value),
                }
            }),
            Done::Forward(mut bits) => apply(&mut bits),
            Done::Buffered => apply(&mut 0),
        },
    }
}

/// Makes an access that does not certainly hit; returns when it is to take effect.
#[inline(never)]
fn stepwise(handle: u32, address: usize, access: &Access) -> Done {
    let mut step = thread::with(|thread| {
        let index = thread.index(handle);
        let ThreadState { slots, labels, world, .. } = thread;
        match world {
            Some(world) if !world.abandoned => {
                world.begin(index as u32, &mut slots[index], address, access, labels)
            }
            _ => Step::Done(Done::Perform),
        }
    });
    loop {
        let phase = match step {
            Step::Done(done) => return done,
            Step::Switch(phase) => {
                fiber::switch();
                phase
            }
            Step::Attend(phase) => {
                interrupt::attend();
                phase
            }
        };
        step = thread::with(|thread| {
            let index = thread.index(handle);
            let ThreadState { slots, world, .. } = thread;
            match world {
                Some(world) if !world.abandoned => {
                    world.go_on_with(index as u32, &mut slots[index], address, access, phase)
                }
                _ => Step::Done(Done::Perform),
            }
        });
    }
}

impl World {
    /// Lets the running core do something with a word.
    #[inline]
    fn apply<R>(&mut self, index: usize, line: u32, apply: impl FnOnce(&mut u64) -> R) -> R {
        let value = &mut self.words[index].value;
        let before = *value;
        let result = apply(value);
        // What destructors do in an abandoned simulation finds no line.
        if *value != before
            && let Some(line) = self.lines.lines.get_mut(line as usize)
        {
            line.changed_by = self.cores[self.current as usize].cache;
        }
        result
    }

    /// Charges an access that certainly hits and that nothing can come before; or does nothing and
    /// returns that it is not such an access.
    ///
    /// Always inlined: where an access is made its kind is known, which decides half of this.
    #[inline(always)]
    fn hit(&mut self, slot: &mut Slot, address: usize, access: &Access, noted: bool) -> bool {
        if self.pace() != 0 {
            // Beside a busy sibling no two accesses take the same time.
            return false;
        }
        let core = &mut self.cores[self.current as usize];
        if core.now > self.limit
            || slot.address != address
            || slot.epoch != self.epoch
            || slot.line == NO_LINE
            || !core.stores.is_empty()
            || !core.fetched.is_empty()
        {
            return false;
        }
        let line = &mut self.lines.lines[slot.line as usize];
        if line.watched || line.grant_at <= core.now {
            return false;
        }
        let owned = line.exclusive && line.owner == core.cache;
        let cost = &self.costs.hit[0];
        let atomic_ends = atomic_start(core.now, slot, self.current) + cost.atomic;
        if access.is_atomic() {
            // An SMT sibling may reach the line at any time.
            let reached = atomic_ends > self.limit && !self.busy.is_empty();
            if !owned || reached || line.grant_at <= atomic_ends {
                return false;
            }
            line.locked_until = atomic_ends;
        }
        let row = self.stats.row(Statistics::key(slot.row, core.operation));
        match *access {
            Access::Load { .. } => {
                if !owned && !self.lines.holds(slot.line, core.cache) {
                    return false;
                }
                core.now += cost.load;
                row.loads += 1;
            }
            Access::Store { mask, .. } if owned => {
                core.now += cost.store;
                row.stores += 1;
                slot.partial_until = partial_until(mask, core.now, cost.partial_store);
            }
            Access::FencedStore { .. } if owned => {
                core.now = atomic_ends;
                row.stores += 1;
            }
            Access::Rmw { .. } | Access::Add { .. } if owned => {
                core.now = atomic_ends;
                row.rmws += 1;
            }
            _ => return false,
        }
        row.hits += 1;
        let (me, now) = (self.current, core.now);
        if !noted {
            self.note_access(slot, words_at(address), access);
        }
        if access.writes() {
            self.note_writer(slot);
            self.line_written(slot.line, words_at(address), me, now);
        }
        true
    }

    /// Begins an access of the running core that does not certainly hit.
    fn begin(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
        labels: &[&'static str],
    ) -> Step {
        let core = &mut self.cores[self.current as usize];
        if core.watching
            && let Some(bits) = core.looks.known(index, access)
        {
            return Step::Done(Done::Forward(bits));
        }
        core.accesses += 1;
        self.line_of(slot, address, labels);
        self.note_access(slot, words_at(address), access);
        self.issue(index, slot, address, access, Phase::Issue)
    }

    /// Goes on with an access when the running core goes on.
    fn go_on_with(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
        phase: Phase,
    ) -> Step {
        match phase {
            Phase::Arrived { issued_at } => self.arrived(index, slot, access, issued_at),
            // It waited for its turn only, and has it now.
            Phase::Issue if self.now() <= self.limit && self.hit(slot, address, access, true) => {
                Step::Done(Done::Perform)
            }
            _ => self.issue(index, slot, address, access, phase),
        }
    }

    fn issue(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
        mut phase: Phase,
    ) -> Step {
        // Its word cannot move while it goes on: the line is the same each time.
        let line = slot.line;
        loop {
            let core = &mut self.cores[self.current as usize];
            if core.is_due() {
                return Step::Attend(phase);
            }
            core.charge_disturbance(self.costs.disturbed);
            let ahead = core.now > self.limit;
            if !self.synchronise() {
                return Step::Switch(phase);
            }
            let core = &self.cores[self.current as usize];
            let (now, cache) = (core.now, core.cache);
            let entry = &self.lines.lines[line as usize];
            let hits = match access {
                Access::Load { .. } if !entry.exclusive => self.lines.is_sharer(line, cache),
                _ => entry.may_write(cache),
            };
            let (stores, fetched) = (!core.stores.is_empty(), !core.fetched.is_empty());
            let mut asked = false;
            if stores || fetched {
                match self.not_alone(index, slot, address, access) {
                    Beside::Nothing => {}
                    Beside::Asked => asked = true,
                    Beside::Later => continue,
                    Beside::Done(done) => return Step::Done(done),
                    Beside::Left => return Step::Switch(phase),
                }
            } else if hits
                && ahead
                && matches!(phase, Phase::Issue)
                && now <= self.limit
                && self.hit(slot, address, access, true)
            {
                return Step::Done(Done::Perform);
            }
            if !hits {
                let me = self.current;
                let row = Statistics::key(slot.row, self.cores[me as usize].operation);
                let want = if access.writes() { Want::Own } else { Want::Read };
                let words = words_at(address);
                if let Access::Store { .. } = access {
                    self.me().looks.spoil();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.request(line, want, (words, row), By::StoreBuffer, (me, now));
                    self.complete(slot, access, What::Store);
                    return Step::Done(Done::Buffered);
                }
                if !asked {
                    self.request(line, want, (words, row), By::Access, (me, now));
                }
                self.run_ahead(line, asked);
                self.set_state(me, State::Stalled);
                if !self.hand_over() {
                    return Step::Switch(Phase::Arrived { issued_at: now });
                }
                return self.arrived(index, slot, access, now);
            }
            if access.is_atomic() && !matches!(phase, Phase::Executed) {
                let atomic = self.varied(self.costs.hit[self.pace()].atomic);
                let ends = atomic_start(now, slot, self.current) + atomic;
                self.me().now = ends;
                phase = Phase::Executed;
                let entry = &mut self.lines.lines[line as usize];
                if entry.grant_at <= ends {
                    continue;
                }
                // Nobody asked for the line in time: it is kept to the end.
                entry.locked_until = ends;
            } else if stores && matches!(access, Access::Store { .. }) {
                // Stores become visible in order: one whose line is here waits for those before it.
                self.me().looks.spoil();
                self.buffer_store(index, slot, access, words_at(address), now);
                self.complete(slot, access, What::Hit);
                return Step::Done(Done::Buffered);
            }
            return self.takes_effect(index, slot, access, What::Hit);
        }
    }

    /// What the stores of the running core that wait for their lines, and the lines that it asked for
    /// ahead, mean for an access.
    #[inline(never)]
    fn not_alone(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
    ) -> Beside {
        let (line, words) = (slot.line, words_at(address));
        if !self.me().stores.is_empty() {
            match self.store_buffer_says(index, line, words, access) {
                Buffer::Nothing => {}
                Buffer::Forwards(bits) => {
                    self.me().looks.spoil();
                    self.complete(slot, access, What::Hit);
                    return Beside::Done(Done::Forward(bits));
                }
                Buffer::Blocks(position) => {
                    return if self.await_store(position) { Beside::Later } else { Beside::Left };
                }
                Buffer::Joins => {
                    self.me().looks.spoil();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.complete(slot, access, What::Hit);
                    return Beside::Done(Done::Buffered);
                }
            }
        }
        match self.run_ahead_says(line, access) {
            Ahead::Nothing => Beside::Nothing,
            Ahead::ArrivesAt(at) => {
                let row = Statistics::key(slot.row, self.me().operation);
                let since = std::mem::replace(&mut self.me().now, at);
                self.count_stall(line, row, since);
                Beside::Later
            }
            Ahead::Asked => Beside::Asked,
        }
    }

    /// The line that an access of the running core waited for is here.
    fn arrived(&mut self, index: u32, slot: &mut Slot, access: &Access, issued_at: Ps) -> Step {
        let core = &mut self.cores[self.current as usize];
        core.awaits = NO_LINE;
        if let Access::FencedStore { .. } | Access::Add { .. } = access {
            // No branch hangs on it.
            core.surprised = false;
        }
        let row = Statistics::key(slot.row, core.operation);
        self.count_stall(slot.line, row, issued_at);
        let step = self.takes_effect(index, slot, access, What::Access);
        self.charge_restart();
        step
    }

    /// Completes an access that is performed now.
    #[inline]
    fn takes_effect(&mut self, index: u32, slot: &mut Slot, access: &Access, what: What) -> Step {
        self.complete(slot, access, what);
        if self.cores[self.current as usize].watching {
            self.note_look(index, slot, access, words_at(slot.address));
        }
        Step::Done(Done::Perform)
    }

    /// Counts the time for which the running core was stalled for a line.
    #[inline]
    pub(crate) fn count_stall(&mut self, line: u32, row: u32, since: Ps) {
        let core = &mut self.cores[self.current as usize];
        let waited = core.now - since;
        core.waited += waited;
        core.stalled = true;
        self.lines.lines[line as usize].totals.wait += waited;
        self.stats.row(row).wait += waited;
    }

    /// Charges what it costs the running core if the line it waited for was changed by another
    /// (what the code branches on is not what it was when this core looked last), and if it lost one
    /// that it had read ahead.
    #[inline]
    pub(crate) fn charge_restart(&mut self) {
        let core = &mut self.cores[self.current as usize];
        core.charge_disturbance(self.costs.disturbed);
        let surprised = std::mem::take(&mut core.surprised);
        let replays = std::mem::take(&mut core.replays);
        core.now += (u64::from(surprised) + u64::from(replays)) * self.costs.restart;
    }

    /// Charges a load whose line is here, and counts it.
    #[inline]
    pub(crate) fn complete_load(&mut self, line: u32, label: u32, what: What) {
        let cost = self.varied(self.costs.hit[self.pace()].load);
        let me = self.current;
        let core = &mut self.cores[me as usize];
        let (at, watching) = (core.now, core.watching);
        let key = Statistics::key(label, core.operation);
        core.now += cost;
        let row = self.stats.row(key);
        row.loads += 1;
        row.hits += u64::from(what == What::Hit);
        let entry = &self.lines.lines[line as usize];
        if entry.traced {
            self.timeline.record(at, me, key, what);
        }
        if watching {
            core.watch(line, key, entry.version, entry.version);
        }
    }

    /// Charges an access whose line is here (or whose store is in the buffer), and counts it.
    fn complete(&mut self, slot: &mut Slot, access: &Access, what: What) {
        let cost = &self.costs.hit[self.pace()];
        let partial_store = cost.partial_store;
        let cost = match *access {
            Access::Load { .. } => return self.complete_load(slot.line, slot.row, what),
            Access::Store { .. } => cost.store,
            // An atomic that hit has had its time already.
            _ if what == What::Hit => 0,
            _ => cost.atomic,
        };
        let cost = self.varied(cost);
        let me = self.current;
        let Self { cores, lines, stats, timeline, .. } = self;
        let core = &mut cores[me as usize];
        let at = core.now;
        core.now += cost;
        let key = Statistics::key(slot.row, core.operation);
        let row = stats.row(key);
        row.hits += u64::from(what == What::Hit);
        match *access {
            Access::Store { mask, .. } => {
                row.stores += 1;
                slot.partial_until = partial_until(mask, at + cost, partial_store);
            }
            Access::FencedStore { .. } => row.stores += 1,
            _ => row.rmws += 1,
        }
        let entry = &mut lines.lines[slot.line as usize];
        if entry.traced {
            timeline.record(at, me, key, what);
        }
        let before = entry.version;
        // Not written yet, if the store waits in the store buffer.
        if entry.may_write(core.cache) && core.pending_store(slot.line).is_none() {
            entry.note_written(words_at(slot.address));
        }
        if core.watching {
            core.watch(slot.line, key, before, entry.version);
        }
        let wakes = entry.version != before && entry.sleepers > 0;
        self.note_writer(slot);
        if wakes {
            self.wake_siblings(slot.line, me, at + cost);
        }
    }

    /// What an access costs the running core that takes so long alone. Beside a busy SMT sibling, with
    /// which it shares its issue slots, that varies: else two siblings in the same loop could stay in
    /// step for ever, as no two threads do.
    #[inline]
    fn varied(&mut self, cost: Ps) -> Ps {
        if self.pace() == 0 { cost } else { scale(cost, self.factor(self.current)) }
    }
}

impl Core {
    /// Charges what it costs the core if another one read a line that it was using. It notices at its
    /// next access, or when the line that it missed then is back.
    #[inline]
    fn charge_disturbance(&mut self, cost: Ps) {
        if std::mem::take(&mut self.disturbed) {
            self.now += cost;
        }
    }

    /// Notes that the condition of a wait accessed a line, whose version was `before` and is `after`
    /// by that.
    #[inline]
    fn watch(&mut self, line: u32, row: u32, before: u32, after: u32) {
        match self.watched.iter_mut().find(|entry| entry.line == line) {
            // Unchanged since it was first read, other than by this access.
            Some(entry) if entry.version == before => entry.version = after,
            Some(_) => {}
            None => self.watched.push(Watched { line, version: after, row }),
        }
    }
}

/// When a core's atomic on a word can begin: not while a store of a part of it is on its way.
fn atomic_start(now: Ps, slot: &Slot, core: u16) -> Ps {
    if slot.last_writer == core { now.max(slot.partial_until) } else { now }
}

/// Until when a store at a time keeps the atomics behind it waiting.
fn partial_until(mask: u64, at: Ps, partial_store: Ps) -> Ps {
    if mask == u64::MAX { 0 } else { at + partial_store }
}

/// The four-byte words of its line that a word at an address occupies. (Words of eight bytes are
/// taken by their first half: their other half belongs to nobody else.)
fn words_at(address: usize) -> u16 {
    1 << (address >> 2 & 15)
}
