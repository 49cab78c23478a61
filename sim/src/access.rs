//! One access, as the code of a core makes it: what kinds there are, and the certain hits.
//!
//! The common case, a hit of a core that nobody can disturb meanwhile, is decided in a few
//! comparisons ([`World::hit`]). Everything else goes through `issue`. Where that means waiting, the
//! access is left with its core as a [`Pending`](crate::issue::Pending) one, and the fiber is left at
//! once: what happens then, the access's own end included, happens on the stack of the simulation, and
//! the fiber goes on when its access is to take effect. So each fiber touches little of its stack.

use crate::costs::Ps;
use crate::fiber;
use crate::interrupt::{self, in_world};
use crate::issue::Step;
use crate::stats::Statistics;
use crate::thread::{self, NO_LINE, Slot, ThreadState};
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
    pub(crate) fn hit(
        &mut self,
        slot: &mut Slot,
        address: usize,
        access: &Access,
        noted: bool,
    ) -> bool {
        if self.pace() != 0 {
            // InFlight a busy sibling no two accesses take the same time.
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
            core.note_access(slot, words_at(address), access);
        }
        if access.writes() {
            self.note_writer(slot);
            self.line_written(slot.line, words_at(address), me, now);
        }
        true
    }
}

/// When a core's atomic on a word can begin: not while a store of a part of it is on its way.
pub(crate) fn atomic_start(now: Ps, slot: &Slot, core: u16) -> Ps {
    if slot.last_writer == core { now.max(slot.partial_until) } else { now }
}

/// Until when a store at a time keeps the atomics behind it waiting.
pub(crate) fn partial_until(mask: u64, at: Ps, partial_store: Ps) -> Ps {
    if mask == u64::MAX { 0 } else { at + partial_store }
}

/// The four-byte words of its line that a word at an address occupies. (Words of eight bytes are
/// taken by their first half: their other half belongs to nobody else.)
pub(crate) fn words_at(address: usize) -> u16 {
    1 << (address >> 2 & 15)
}
