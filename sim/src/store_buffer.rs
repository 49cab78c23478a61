//! The store buffer: a plain store to a line that is not here waits in it, and the core goes on.
//!
//! Stores leave the buffer, and become visible to others, in the order they entered it. A load
//! takes its value from the youngest store to its word, if that covers it. `SeqCst` fences and stores
//! wait until the buffer is empty, and so do read-modify-writes that release: what was stored before
//! them is seen by whoever sees them. The other ones do on machines that say so.

use crate::access::Access;
use crate::core::{BufferedStore, Drain, State};
use crate::costs::{NEVER, Ps};
use crate::events::Event;
use crate::line::{Requester, Want};
use crate::stats::Statistics;
use crate::thread::{Commit, Slot, Word};
use crate::world::World;

/// What the store buffer means for an access.
pub(crate) enum Buffer {
    /// Nothing.
    Nothing,
    /// It knows the value.
    Forwards(u64),
    /// The store joins another one whose line is on its way already.
    Joins,
    /// The access waits until the store at this position has left.
    Blocks(usize),
}

impl World {
    /// What the running core's store buffer, which is not empty, means for an access.
    pub(crate) fn store_buffer_says(
        &self,
        index: u32,
        line: u32,
        words: u16,
        access: &Access,
    ) -> Buffer {
        let entries = self.costs.store_buffer_entries;
        let drains = self.costs.drained_by_atomics;
        let core = &self.cores[self.current as usize];
        let generation = self.words[index as usize].generation;
        let pending = core.pending_store(line);
        match *access {
            _ if access.releases() || drains && access.is_atomic() => {
                Buffer::Blocks(core.stores.len() - 1)
            }
            Access::Store { .. } if core.stores.len() >= entries => Buffer::Blocks(0),
            Access::Store { .. } if pending.is_some() => Buffer::Joins,
            Access::Load { mask } => {
                let same_word = |store: &&BufferedStore| {
                    store.line == line
                        && store.words == words
                        && store.commit.generation == generation
                };
                match core.stores.iter().rev().find(same_word) {
                    // A narrow store does not give the whole word: the load waits for it.
                    Some(store) if store.commit.mask & mask == mask => {
                        Buffer::Forwards(store.commit.new)
                    }
                    _ => pending.map_or(Buffer::Nothing, Buffer::Blocks),
                }
            }
            _ => pending.map_or(Buffer::Nothing, Buffer::Blocks),
        }
    }

    /// Puts a store of the running core into its buffer. Its line is `here_at` a time, or that is not
    /// known yet ([`NEVER`]).
    pub(crate) fn buffer_store(
        &mut self,
        index: u32,
        slot: &Slot,
        access: &Access,
        words: u16,
        here_at: Ps,
    ) {
        let Access::Store { mask, new } = *access else { return };
        let row = Statistics::key(slot.row, self.me().operation);
        let generation = self.words[index as usize].generation;
        let commit = Commit { slot: index, generation, mask, new };
        let line = slot.line;
        let core = self.me();
        // If the line was granted to an older store already, no other grant will come.
        let done_at = core.pending_store(line).map_or(here_at, |older| core.stores[older].done_at);
        core.stores.push_back(BufferedStore { line, words, row, done_at, commit });
        self.lines.lines[line as usize].stores_wait |= done_at != NEVER;
    }

    /// A cache lost the right to write a line: the stores that have it and wait for older ones ask for
    /// it again, at once. (A store queue asks for the lines of all its stores, not of the first alone.)
    pub(crate) fn ask_again(&mut self, line: u32, cache: u16, at: Ps) {
        for number in 0..self.threads_of[cache as usize].len() {
            let core = self.threads_of[cache as usize][number];
            let mut asks = None;
            for store in &mut self.cores[core as usize].stores {
                if store.line == line && store.done_at != NEVER {
                    store.done_at = NEVER;
                    asks = Some((store.words, store.row));
                }
            }
            if let Some(counted) = asks {
                self.request(line, Want::Own, counted, Requester::StoreBuffer, (core, at));
            }
        }
    }

    /// The line of a core's buffered store has arrived: lets the stores leave whose turn it is.
    pub(crate) fn commit(&mut self, core: u16, at: Ps) {
        let cache = self.cores[core as usize].cache;
        while let Some(&store) = self.cores[core as usize].stores.front()
            && store.done_at <= at
        {
            debug_assert!(self.may_write(store.line, cache), "a store leaves without its line");
            self.cores[core as usize].stores.pop_front();
            if apply(&mut self.words, &store.commit) {
                self.lines.lines[store.line as usize].changed_by = cache;
            }
            self.line_written(store.line, store.words, core, at);
        }
        let entry = &mut self.cores[core as usize];
        for store in &mut entry.stores {
            // Its line is here, and no other event comes for it. (An overdue grant to the one that it
            // waits for may bear an earlier time.)
            if store.done_at <= at {
                store.done_at = 0;
            }
        }
        if entry.state == State::Draining && entry.stores.len() <= entry.drain.remaining {
            entry.now = entry.now.max(at);
            let (now, drain) = (entry.now, entry.drain);
            let waited = now.saturating_sub(entry.asleep_since);
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
        let now = self.now();
        let core = self.me();
        let store = core.stores[position];
        core.asleep_since = now;
        core.drain =
            Drain { remaining: core.stores.len() - position - 1, line: store.line, row: store.row };
        self.set_state(self.current, State::Draining);
        self.hand_over()
    }

    /// A full fence. Returns whether the running core is through; if not, another was chosen.
    pub(crate) fn drain(&mut self) -> bool {
        while let Some(last) = self.me().stores.len().checked_sub(1) {
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
            for store in core.stores.drain(..) {
                apply(&mut self.words, &store.commit);
            }
        }
    }
}

/// Lets a store take effect. Returns whether it changes its word.
fn apply(words: &mut [Word], commit: &Commit) -> bool {
    let word = &mut words[commit.slot as usize];
    let value = word.value & !commit.mask | commit.new;
    // A word dropped meanwhile is nobody's any more.
    let changes = word.generation == commit.generation && word.value != value;
    if changes {
        word.value = value;
    }
    changes
}
