//! One access: what it costs, and when it happens.
//!
//! The common case, a hit of a core that nobody can disturb meanwhile, is decided in a few
//! comparisons ([`World::hit`]). Everything else goes through [`World::issue`]. Where that means
//! waiting, the access is left with its core as [`Pending`] and the fiber is left at once: what happens
//! then, the access's own end included, happens on the stack of the simulation ([`advance`]), and the
//! fiber goes on when its access is to take effect. So each fiber touches little of its stack.

use crate::core::{Core, State, Watched};
use crate::costs::{NEVER, Ps, scale};
use crate::events::Happening;
use crate::fiber;
use crate::interrupt::{self, in_world};
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

/// The access that a core makes, while it waits: for its turn, for a store that must leave the buffer,
/// for its line. All of it is read in the parts it was written in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// Whether one waits.
    waits: bool,
    phase: Phase,
    /// How the last one that waited took effect, or what its fiber has to do before it goes on.
    step: Step,
    index: u32,
    address: usize,
    access: *const Access,
    /// When it missed, if it did.
    issued_at: Ps,
    /// The value that it takes effect on, if the store buffer knows that.
    forwarded: u64,
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
enum Step {
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
enum Beside {
    Nothing,
    /// Its line was asked for, and is not on its way yet.
    Asked,
    /// It is to be issued again, at the core's time.
    Later,
    /// This is to be done.
    Next(Step),
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
        None => {
            let step = stepwise(handle, address, access);
            thread::with(|thread| {
                let index = thread.index(handle);
                let ThreadState { slots, words, world, .. } = thread;
                match (step, world) {
                    (Step::Perform, Some(world)) => world.apply(index, slots[index].line, &apply),
                    (Step::Forward, Some(world)) => apply(&mut world.me().pending.forwarded),
                    (Step::Buffered, _) => apply(&mut 0),
                    _ => apply(&mut words[index].value),
                }
            })
        }
    }
}

/// Makes an access that does not certainly hit; returns how it is to take effect.
///
/// Inlined down to where the fiber is left: a processor predicts no return from a function that was
/// called on another stack than the last calls, so there are to be few.
#[inline(always)]
fn stepwise(handle: u32, address: usize, access: &Access) -> Step {
    let mut step = begin(handle, address, access);
    loop {
        match step {
            Step::Switch => {}
            Step::Attend => {
                if !attend() {
                    return Step::Perform;
                }
            }
            done => return done,
        }
        fiber::switch();
        step = in_world(|world| world.me().pending.step).unwrap_or(Step::Perform);
    }
}

#[inline(never)]
fn begin(handle: u32, address: usize, access: &Access) -> Step {
    thread::with(|thread| {
        let index = thread.index(handle);
        let ThreadState { slots, labels, world, .. } = thread;
        match world {
            Some(world) if !world.abandoned => {
                world.begin(index as u32, &mut slots[index], address, access, labels)
            }
            _ => Step::Perform,
        }
    })
}

/// Runs what is due on top of the running core, whose access then waits again. Returns whether it
/// does; it does not if the simulation was abandoned.
#[cold]
#[inline(never)]
fn attend() -> bool {
    // What runs on top makes accesses of its own.
    let Some(mut pending) = in_world(|world| world.me().pending) else { return false };
    pending.waits = true;
    in_world(|world| world.me().pending.waits = false);
    interrupt::attend();
    in_world(|world| world.me().pending = pending).is_some()
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
        let me = self.current;
        let core = &mut self.cores[me as usize];
        if core.watching
            && let Some(bits) = core.looks.known(index, access)
        {
            core.pending.forwarded = bits;
            return Step::Forward;
        }
        core.accesses += 1;
        self.line_of(slot, address, labels);
        self.note_access(slot, words_at(address), access);
        let pending = &mut self.cores[me as usize].pending;
        pending.phase = Phase::New;
        pending.index = index;
        pending.address = address;
        pending.access = access;
        let mut step = Step::Switch;
        if self.gives_way() {
            self.cores[me as usize].pending.phase = Phase::Issue;
        } else if self.hits_now(slot, access) {
            return self.takes_effect(index, slot, access, What::Hit, 0);
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
            || core.disturbed
            || !self.events.next_is_turn()
        {
            return false;
        }
        let Some((at, what)) = self.events.pop() else { return false };
        self.events.push(now, Happening::resume(me));
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
            || core.disturbed
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
            core.charge_disturbance(self.costs.disturbed);
            let ahead = core.now > self.limit;
            if phase == Phase::New {
                core.pending.phase = Phase::Issue;
            }
            if !self.synchronise() {
                return Step::Switch;
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
                    Beside::Next(step) => return step,
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
                    self.me().looks.spoil();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.request(line, want, (words, row), By::StoreBuffer, (me, now));
                    self.complete(slot, access, What::Store, 0);
                    return Step::Buffered;
                }
                if !asked {
                    self.request(line, want, (words, row), By::Access, (me, now));
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
                self.me().looks.spoil();
                self.buffer_store(index, slot, access, words_at(address), now);
                self.complete(slot, access, What::Hit, 0);
                return Step::Buffered;
            }
            return self.takes_effect(index, slot, access, What::Hit, 0);
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
                    let core = self.me();
                    core.looks.spoil();
                    core.pending.forwarded = bits;
                    self.complete(slot, access, What::Hit, 0);
                    return Beside::Next(Step::Forward);
                }
                Buffer::Blocks(position) => {
                    return match self.await_store(position) {
                        true => Beside::Later,
                        false => Beside::Next(Step::Switch),
                    };
                }
                Buffer::Joins => {
                    self.me().looks.spoil();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.complete(slot, access, What::Hit, 0);
                    return Beside::Next(Step::Buffered);
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
    fn arrived(&mut self, index: u32, slot: &mut Slot, access: &Access) -> Step {
        let core = &mut self.cores[self.current as usize];
        core.awaits = NO_LINE;
        if let Access::FencedStore { .. } | Access::Add { .. } = access {
            // No branch hangs on it.
            core.surprised = false;
        }
        let waited = core.now - core.pending.issued_at;
        core.waited += waited;
        core.stalled = true;
        let step = self.takes_effect(index, slot, access, What::Access, waited);
        self.charge_restart();
        step
    }

    /// Completes an access that is performed now.
    #[inline]
    fn takes_effect(
        &mut self,
        index: u32,
        slot: &mut Slot,
        access: &Access,
        what: What,
        waited: Ps,
    ) -> Step {
        self.complete(slot, access, what, waited);
        if self.cores[self.current as usize].watching {
            self.note_look(index, slot, access, words_at(slot.address));
        }
        Step::Perform
    }

    /// Counts the time for which the running core was stalled for a line.
    #[inline]
    fn count_stall(&mut self, line: u32, row: u32, since: Ps) {
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

    /// Charges a load whose line is here, and counts it; its core waited so long for the line.
    #[inline]
    pub(crate) fn complete_load(&mut self, line: u32, label: u32, what: What, waited: Ps) {
        let cost = self.varied(self.costs.hit[self.pace()].load);
        let me = self.current;
        let core = &mut self.cores[me as usize];
        let (at, watching) = (core.now, core.watching);
        let key = Statistics::key(label, core.operation);
        core.now += cost;
        let row = self.stats.row(key);
        row.loads += 1;
        row.hits += u64::from(what == What::Hit);
        row.wait += waited;
        let entry = &mut self.lines.lines[line as usize];
        entry.totals.wait += waited;
        if entry.traced {
            self.timeline.record(at, me, key, what);
        }
        if watching {
            core.watch(line, key, entry.version, entry.version);
        }
    }

    /// Charges an access whose line is here (or whose store is in the buffer), and counts it; its core
    /// waited so long for the line.
    fn complete(&mut self, slot: &mut Slot, access: &Access, what: What, waited: Ps) {
        let cost = &self.costs.hit[self.pace()];
        let partial_store = cost.partial_store;
        let cost = match *access {
            Access::Load { .. } => return self.complete_load(slot.line, slot.row, what, waited),
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
        row.wait += waited;
        match *access {
            Access::Store { mask, .. } => {
                row.stores += 1;
                slot.partial_until = partial_until(mask, at + cost, partial_store);
            }
            Access::FencedStore { .. } => row.stores += 1,
            _ => row.rmws += 1,
        }
        let entry = &mut lines.lines[slot.line as usize];
        entry.totals.wait += waited;
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
