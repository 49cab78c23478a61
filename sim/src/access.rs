//! One access: what it costs, and when it happens.
//!
//! The common case, a hit of a core that nobody can disturb meanwhile, is decided in a few
//! comparisons ([`World::hit`]). Everything else goes through [`World::step`], which returns each
//! time the fiber has to be left, and is called again when the core goes on.

use crate::core::{State, Watched};
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
    New,
    /// Counted, but not yet issued.
    Issue,
    /// An atomic whose line was here when it began; its time is over. If the line was granted to
    /// another one meanwhile, who had asked for it before, it begins again.
    Executed,
    /// It missed; the core was stalled since `issued_at` and goes on when the line is here.
    Arrived {
        issued_at: Ps,
    },
}

/// What is to be done next.
enum Step {
    /// Perform the operation and go on.
    Perform,
    /// Perform it on this value instead, which the store buffer knows.
    Forward(u64),
    /// Go on; the store is in the store buffer.
    Buffered,
    /// Switch to the core that was chosen; call again when this one goes on.
    Switch,
    /// Run what is due on top of this core, then call again.
    Attend,
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
        None => perform_stepwise(handle, address, access, &apply),
    }
}

#[inline(never)]
fn perform_stepwise<R>(
    handle: u32,
    address: usize,
    access: &Access,
    apply: &impl Fn(&mut u64) -> R,
) -> R {
    let mut phase = Phase::New;
    loop {
        let step = thread::with(|thread| {
            let index = thread.index(handle);
            let ThreadState { slots, words, labels, world, .. } = thread;
            let Some(world) = world else { return Ok(apply(&mut words[index].value)) };
            let slot = &mut slots[index];
            let step = world.step(index as u32, slot, address, access, labels, &mut phase);
            match step {
                Step::Perform => {
                    if world.me().watching {
                        world.note_look(index as u32, slot, access, words_at(address));
                    }
                    Ok(world.apply(index, slot.line, apply))
                }
                Step::Forward(mut bits) => Ok(apply(&mut bits)),
                Step::Buffered => Ok(apply(&mut 0)),
                other => Err(other),
            }
        });
        match step {
            Ok(result) => return result,
            Err(Step::Attend) => interrupt::attend(),
            Err(_) => fiber::switch(),
        }
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

    /// The same, of an access that is noted already.
    fn hit_noted(&mut self, slot: &mut Slot, address: usize, access: &Access) -> bool {
        self.now() <= self.limit && self.hit(slot, address, access, true)
    }

    fn step(
        &mut self,
        index: u32,
        slot: &mut Slot,
        address: usize,
        access: &Access,
        labels: &[&'static str],
        phase: &mut Phase,
    ) -> Step {
        if self.abandoned {
            return Step::Perform;
        }
        match *phase {
            Phase::New => {
                let core = self.me();
                if core.watching
                    && let Some(bits) = core.looks.known(index, access)
                {
                    return Step::Forward(bits);
                }
                core.accesses += 1;
                self.line_of(slot, address, labels);
                self.note_access(slot, words_at(address), access);
                *phase = Phase::Issue;
            }
            // It waited for its turn only, and has it now.
            Phase::Issue if self.hit_noted(slot, address, access) => return Step::Perform,
            _ => {}
        }
        // Its word cannot move while it goes on: the line is the same each time.
        let line = slot.line;
        if let Phase::Arrived { issued_at } = *phase {
            let core = self.me();
            core.awaits = NO_LINE;
            let row = Statistics::key(slot.row, core.operation);
            self.count_stall(line, row, issued_at);
            let step = self.complete(slot, access, What::Access);
            if matches!(access, Access::FencedStore { .. } | Access::Add { .. }) {
                // No branch hangs on it.
                self.me().surprised = false;
            }
            self.charge_restart();
            return step;
        }
        loop {
            if self.me().is_due() {
                return Step::Attend;
            }
            self.charge_disturbance();
            let ahead = self.now() > self.limit;
            if !self.synchronise() {
                return Step::Switch;
            }
            if ahead && matches!(phase, Phase::Issue) && self.hit_noted(slot, address, access) {
                return Step::Perform;
            }
            let words = words_at(address);
            let says = if self.me().stores.is_empty() {
                Buffer::Nothing
            } else {
                self.store_buffer_says(index, line, words, access)
            };
            match says {
                Buffer::Nothing => {}
                Buffer::Forwards(bits) => {
                    self.me().looks.spoil();
                    self.complete(slot, access, What::Hit);
                    return Step::Forward(bits);
                }
                Buffer::Blocks(position) => {
                    if self.await_store(position) {
                        continue;
                    }
                    return Step::Switch;
                }
                Buffer::Joins => {
                    self.me().looks.spoil();
                    self.buffer_store(index, slot, access, words, NEVER);
                    self.complete(slot, access, What::Hit);
                    return Step::Buffered;
                }
            }
            let asked = match self.run_ahead_says(line, access) {
                Ahead::Nothing => false,
                Ahead::ArrivesAt(at) => {
                    let row = Statistics::key(slot.row, self.me().operation);
                    let since = std::mem::replace(&mut self.me().now, at);
                    self.count_stall(line, row, since);
                    continue;
                }
                Ahead::Asked => true,
            };
            let cache = self.me().cache;
            let hits = match access {
                Access::Load { .. } => self.lines.holds(line, cache),
                _ => self.may_write(line, cache),
            };
            if hits && access.is_atomic() && !matches!(phase, Phase::Executed) {
                let atomic = self.varied(self.costs.hit[self.pace()].atomic);
                let ends = atomic_start(self.now(), slot, self.current) + atomic;
                self.me().now = ends;
                *phase = Phase::Executed;
                let entry = &mut self.lines.lines[line as usize];
                if entry.grant_at <= ends {
                    continue;
                }
                // Nobody asked for the line in time: it is kept to the end.
                entry.locked_until = ends;
                return self.complete(slot, access, What::Hit);
            }
            if hits && matches!(access, Access::Store { .. }) && !self.me().stores.is_empty() {
                // Stores become visible in order: one whose line is here waits for those before it.
                let here_at = self.now();
                self.me().looks.spoil();
                self.buffer_store(index, slot, access, words, here_at);
                self.complete(slot, access, What::Hit);
                return Step::Buffered;
            }
            if hits {
                return self.complete(slot, access, What::Hit);
            }
            let row = Statistics::key(slot.row, self.me().operation);
            let want = if access.writes() { Want::Own } else { Want::Read };
            let (me, issued_at) = (self.current, self.now());
            if let Access::Store { .. } = access {
                self.me().looks.spoil();
                self.buffer_store(index, slot, access, words, NEVER);
                self.request(line, want, (words, row), By::StoreBuffer, (me, issued_at));
                self.complete(slot, access, What::Store);
                return Step::Buffered;
            }
            if !asked {
                self.request(line, want, (words, row), By::Access, (me, issued_at));
            }
            self.run_ahead(line, asked);
            self.set_state(me, State::Stalled);
            *phase = Phase::Arrived { issued_at };
            if !self.hand_over() {
                return Step::Switch;
            }
            return self.step(index, slot, address, access, labels, phase);
        }
    }

    /// Counts the time for which the running core was stalled for a line.
    #[inline]
    pub(crate) fn count_stall(&mut self, line: u32, row: u32, since: Ps) {
        let waited = self.now() - since;
        let core = self.me();
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
        self.charge_disturbance();
        let restart = self.costs.restart;
        let core = self.me();
        let surprised = std::mem::take(&mut core.surprised);
        let replays = std::mem::take(&mut core.replays);
        core.now += (u64::from(surprised) + u64::from(replays)) * restart;
    }

    /// Charges what it costs the running core if another one read a line that it was using. It
    /// notices at its next access, or when the line that it missed then is back.
    #[inline]
    fn charge_disturbance(&mut self) {
        let disturbed = self.costs.disturbed;
        let core = self.me();
        if std::mem::take(&mut core.disturbed) {
            core.now += disturbed;
        }
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
        self.trace(line, at, me, key, what);
        if watching {
            let version = self.lines.lines[line as usize].version;
            self.watch(line, key, version);
        }
    }

    /// Charges an access whose line is here (or whose store is in the buffer), and counts it.
    fn complete(&mut self, slot: &mut Slot, access: &Access, what: What) -> Step {
        if let Access::Load { .. } = access {
            self.complete_load(slot.line, slot.row, what);
            return Step::Perform;
        }
        let pace = self.pace();
        let me = self.current;
        let core = &mut self.cores[me as usize];
        let (cache, at, watching) = (core.cache, core.now, core.watching);
        let key = Statistics::key(slot.row, core.operation);
        let cost = &self.costs.hit[pace];
        let row = self.stats.row(key);
        let cost = match *access {
            Access::Load { .. } => unreachable!("completed above"),
            Access::Store { mask, .. } => {
                row.stores += 1;
                slot.partial_until = partial_until(mask, at + cost.store, cost.partial_store);
                cost.store
            }
            Access::FencedStore { .. } => {
                row.stores += 1;
                cost.atomic
            }
            Access::Rmw { .. } | Access::Add { .. } => {
                row.rmws += 1;
                cost.atomic
            }
        };
        // An atomic that hit has had its time already.
        let cost = if access.is_atomic() && what == What::Hit { 0 } else { cost };
        row.hits += u64::from(what == What::Hit);
        let cost = self.varied(cost);
        let core = &mut self.cores[me as usize];
        core.now += cost;
        let is_buffered = core.pending_store(slot.line).is_some();
        self.trace(slot.line, at, me, key, what);
        let before = self.lines.lines[slot.line as usize].version;
        if access.writes() {
            self.note_writer(slot);
            // Not yet, if the store waits in the store buffer.
            if !is_buffered && self.may_write(slot.line, cache) {
                self.line_written(slot.line, words_at(slot.address), me, at + cost);
            }
        }
        if watching {
            self.watch(slot.line, key, before);
        }
        Step::Perform
    }

    /// What an access costs the running core that takes so long alone. Beside a busy SMT sibling, with
    /// which it shares its issue slots, that varies: else two siblings in the same loop could stay in
    /// step for ever, as no two threads do.
    #[inline]
    fn varied(&mut self, cost: Ps) -> Ps {
        if self.pace() == 0 { cost } else { scale(cost, self.factor(self.current)) }
    }

    /// Notes that the condition of a wait accessed a line, whose version was `before`.
    #[inline]
    fn watch(&mut self, line: u32, row: u32, before: u32) {
        let version = self.lines.lines[line as usize].version;
        let watched = &mut self.me().watched;
        match watched.iter_mut().find(|entry| entry.line == line) {
            // Unchanged since it was first read, other than by this access.
            Some(entry) if entry.version == before => entry.version = version,
            Some(_) => {}
            None => watched.push(Watched { line, version, row }),
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
