//! One access: what it costs, and when it happens.
//!
//! The common case, a hit of a core that nobody can disturb meanwhile, is decided in a few
//! comparisons ([`World::hit`]). Everything else goes through [`World::step`], which returns each
//! time the fiber has to be left, and is called again when the core goes on.

use std::sync::atomic::Ordering;

use crate::core::{BufferedStore, State, Watched};
use crate::costs::{NEVER, Ps};
use crate::fiber;
use crate::interrupt;
use crate::line::Want;
use crate::stats::Statistics;
use crate::thread::{self, NO_LINE, Slot, ThreadState};
use crate::timeline::What;
use crate::world::World;

/// Kinds of access, as far as their costs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Load,
    /// A store that may wait in the store buffer.
    Store,
    /// A store that is visible before the core goes on (`xchg` on x86).
    FencedStore,
    Rmw,
}

impl Access {
    pub(crate) fn load(_order: Ordering) -> Self {
        Self::Load
    }

    pub(crate) fn store(order: Ordering) -> Self {
        if order == Ordering::SeqCst { Self::FencedStore } else { Self::Store }
    }

    pub(crate) fn rmw(_order: Ordering) -> Self {
        Self::Rmw
    }

    fn writes(self) -> bool {
        self != Self::Load
    }
}

/// How far an access has come.
#[derive(Debug, Clone, Copy)]
enum Phase {
    New,
    /// Counted, but not yet issued.
    Issue,
    /// It missed; the core was stalled since `issued_at` and goes on when the line is here.
    Arrived {
        issued_at: Ps,
    },
}

/// What is to be done with the fiber.
enum Step {
    /// Perform the operation and go on.
    Perform,
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
    access: Access,
    apply: impl Fn(&mut u64) -> R,
) -> R {
    let done = thread::with(|thread| {
        let index = thread.index(handle);
        let slot = &mut thread.slots[index];
        let free = match &mut thread.world {
            Some(world) => world.hit(slot, address, access),
            None => true,
        };
        free.then(|| apply(&mut slot.value))
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
    access: Access,
    apply: &impl Fn(&mut u64) -> R,
) -> R {
    let mut phase = Phase::New;
    loop {
        let step = thread::with(|thread| {
            let index = thread.index(handle);
            let ThreadState { slots, labels, world, .. } = thread;
            let slot = &mut slots[index];
            let step = match world {
                Some(world) => world.step(slot, address, access, labels, &mut phase),
                None => Step::Perform,
            };
            match step {
                Step::Perform => Ok(apply(&mut slot.value)),
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
    /// Charges an access that certainly hits and that nothing can come before; or does nothing and
    /// returns that it is not such an access.
    #[inline]
    fn hit(&mut self, slot: &mut Slot, address: usize, access: Access) -> bool {
        let pace = self.pace();
        let core = &mut self.cores[self.current as usize];
        if core.now > self.limit
            || slot.address != address
            || slot.epoch != self.epoch
            || slot.line == NO_LINE
            || !core.stores.is_empty()
        {
            return false;
        }
        let line = &self.lines.lines[slot.line as usize];
        if line.watched || line.grant_at <= core.now {
            return false;
        }
        let owned = line.exclusive && line.owner == core.cache;
        let cost = &self.costs.hit[pace];
        let row = self.stats.row(Statistics::key(slot.row, core.operation));
        match access {
            Access::Load => {
                if !owned && !self.lines.is_sharer(slot.line, core.cache) {
                    return false;
                }
                core.now += cost.load;
                row.loads += 1;
            }
            Access::Store | Access::FencedStore if owned => {
                let fenced = access == Access::FencedStore && self.costs.drained_by_atomics;
                core.now += if fenced { cost.atomic } else { cost.store };
                row.stores += 1;
            }
            Access::Rmw if owned => {
                core.now += cost.atomic;
                row.rmws += 1;
            }
            _ => return false,
        }
        row.hits += 1;
        if access.writes() {
            self.wrote(slot, words_at(address));
        }
        true
    }

    fn step(
        &mut self,
        slot: &mut Slot,
        address: usize,
        access: Access,
        labels: &[&'static str],
        phase: &mut Phase,
    ) -> Step {
        if self.abandoned {
            return Step::Perform;
        }
        // Where atomics do not drain the store buffer, neither does an ordered store.
        let access = match access {
            Access::FencedStore if !self.costs.drained_by_atomics => Access::Store,
            other => other,
        };
        if let Phase::New = phase {
            self.me().accesses += 1;
            *phase = Phase::Issue;
        }
        if let Phase::Arrived { issued_at } = *phase {
            let waited = self.now() - issued_at;
            self.me().waited += waited;
            let line = self.line_of(slot, address, labels);
            self.lines.lines[line as usize].totals.wait += waited;
            let row = Statistics::key(slot.row, self.me().operation);
            self.stats.row(row).wait += waited;
            return self.complete(slot, access, What::Access);
        }
        loop {
            if self.me().is_due() {
                return Step::Attend;
            }
            if !self.synchronise() {
                return Step::Switch;
            }
            if self.me().is_due() {
                return Step::Attend;
            }
            let line = self.line_of(slot, address, labels);
            let words = words_at(address);
            self.me().retire_stores();
            let waits_for = match self.blocking_store(line, words, access) {
                Blocking::None => None,
                Blocking::Forwarded => return self.complete(slot, access, What::Hit),
                Blocking::Store(position) => Some(position),
            };
            if let Some(position) = waits_for {
                if self.await_store(position) {
                    continue;
                }
                return Step::Switch;
            }
            let cache = self.me().cache;
            let hits = match access {
                Access::Load => self.lines.is_sharer(line, cache),
                _ => self.may_write(line, cache),
            };
            if hits {
                return self.complete(slot, access, What::Hit);
            }
            let row = Statistics::key(slot.row, self.me().operation);
            let want = if access.writes() { Want::Own } else { Want::Read };
            if access == Access::Store {
                let store = BufferedStore { line, words, row, done_at: NEVER };
                self.me().stores.push_back(store);
                self.request(line, want, words, row, true);
                return self.complete(slot, access, What::Access);
            }
            let issued_at = self.now();
            self.request(line, want, words, row, false);
            self.set_state(self.current, State::Stalled);
            *phase = Phase::Arrived { issued_at };
            if !self.hand_over() {
                return Step::Switch;
            }
            return self.step(slot, address, access, labels, phase);
        }
    }

    /// Charges an access whose line is here (or whose store is in the buffer), and counts it.
    fn complete(&mut self, slot: &mut Slot, access: Access, what: What) -> Step {
        let pace = self.pace();
        let cost = self.costs.hit[pace];
        let key = Statistics::key(slot.row, self.me().operation);
        let row = self.stats.row(key);
        let cost = match access {
            Access::Load => {
                row.loads += 1;
                cost.load
            }
            Access::Store => {
                row.stores += 1;
                cost.store
            }
            Access::FencedStore => {
                row.stores += 1;
                cost.atomic
            }
            Access::Rmw => {
                row.rmws += 1;
                cost.atomic
            }
        };
        row.hits += u64::from(what == What::Hit);
        let (me, at) = (self.current, self.now());
        self.trace(slot.line, at, me, key, what);
        self.me().now += cost;
        let before = self.lines.lines[slot.line as usize].version;
        if access.writes() {
            let cache = self.me().cache;
            if self.may_write(slot.line, cache) {
                self.wrote(slot, words_at(slot.address));
            } else {
                // In the store buffer: the line changes hands later, and is marked then.
                self.wrote(slot, 0);
            }
        }
        if self.me().watching {
            self.watch(slot.line, key, before);
        }
        Step::Perform
    }

    /// Notes that the condition of a wait accessed a line, whose version was `before`.
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

    /// Which buffered store an access has to wait for, if any.
    fn blocking_store(&mut self, line: u32, words: u16, access: Access) -> Blocking {
        let entries = self.costs.store_buffer_entries;
        let drains = self.costs.drained_by_atomics;
        let core = self.me();
        if core.stores.is_empty() {
            return Blocking::None;
        }
        let fenced = matches!(access, Access::Rmw | Access::FencedStore);
        if fenced && drains {
            return Blocking::Store(core.stores.len() - 1);
        }
        match (core.pending_store(line), access) {
            (Some(position), Access::Load) if core.stores[position].words & words == words => {
                Blocking::Forwarded
            }
            // The line is on its way already: the store joins the one that asked for it.
            (Some(_), Access::Store) => Blocking::Forwarded,
            (Some(position), _) => Blocking::Store(position),
            (None, Access::Store) if core.stores.len() >= entries => Blocking::Store(0),
            (None, _) => Blocking::None,
        }
    }

    /// Lets the running core wait for a store in its buffer. Returns whether it may go on at once;
    /// if not, another core was chosen.
    fn await_store(&mut self, position: usize) -> bool {
        let since = self.now();
        let core = self.me();
        core.draining_for = core.stores[position];
        // Stores leave in order: it is out when it and all before it are done.
        let done_at = core.stores.iter().take(position + 1).map(|store| store.done_at).max();
        match done_at {
            Some(done_at) if done_at < NEVER => {
                let core = self.me();
                core.now = core.now.max(done_at);
                self.drained(self.current, since);
                true
            }
            _ => {
                self.me().asleep_since = since;
                self.set_state(self.current, State::Draining);
                self.hand_over()
            }
        }
    }

    /// Accounts for the time a core waited for its store buffer, to the store it waited for.
    pub(crate) fn drained(&mut self, core: u16, since: Ps) {
        let core = &mut self.cores[core as usize];
        let waited = core.now.saturating_sub(since);
        core.waited += waited;
        self.stats.row(core.draining_for.row).wait += waited;
        self.lines.lines[core.draining_for.line as usize].totals.wait += waited;
    }

    /// A full fence. Returns whether the running core is through; if not, another was chosen.
    pub(crate) fn drain(&mut self) -> bool {
        loop {
            self.me().retire_stores();
            let count = self.me().stores.len();
            if count == 0 {
                let cost = self.costs.hit[self.pace()].fence;
                self.me().now += cost;
                return true;
            }
            if !self.await_store(count - 1) {
                return false;
            }
        }
    }
}

/// What the store buffer means for an access.
enum Blocking {
    None,
    /// The buffer itself answers: store-to-load forwarding, or a store merged into another.
    Forwarded,
    /// It waits for the store at this position.
    Store(usize),
}

/// The four-byte words of its line that a word at an address occupies. (Words of eight bytes are
/// taken by their first half: their other half belongs to nobody else.)
fn words_at(address: usize) -> u16 {
    1 << (address >> 2 & 15)
}
