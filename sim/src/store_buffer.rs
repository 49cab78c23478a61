//! The store buffer: a plain store to a line that is not here waits in it, and the core goes on.
//!
//! Stores leave the buffer, and become visible to others, in the order they entered it. A load
//! takes its value from the youngest store to its word, if that covers it. `SeqCst` fences and stores
//! wait until the buffer is empty, and so do read-modify-writes that release: what was stored before
//! them is seen by whoever sees them. The other ones do on machines that say so.

use std::collections::VecDeque;

use crate::access::Access;
use crate::costs::{Costs, NEVER, Ps};
use crate::slot::Commit;

/// A store that waits for its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BufferedStore {
    pub(crate) line: u32,
    pub(crate) words: u16,
    /// Row of the statistics it counts in.
    pub(crate) row: u32,
    /// When the line is here, or [`NEVER`] while that is not known.
    pub(crate) done_at: Ps,
    pub(crate) commit: Commit,
}

/// The wait of a core for stores to leave its buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drain {
    /// Stores that may be left.
    remaining: usize,
    /// Line and row that the wait counts for.
    pub(crate) line: u32,
    pub(crate) row: u32,
}

/// The outcome of looking for an access's line in the store buffer.
pub(crate) enum Buffer {
    /// No store that the access must wait for.
    Nothing,
    /// It knows the value.
    Forwards(u64),
    /// The store joins another one whose line is on its way already.
    Joins,
    /// The access waits until the store at this position has left.
    Blocks(usize),
}

/// The store buffer of one hardware thread.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct StoreBuffer {
    /// By age.
    stores: VecDeque<BufferedStore>,
    pub(crate) drain: Drain,
}

impl StoreBuffer {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.stores.is_empty()
    }

    /// Returns the position of the youngest store to a line.
    #[inline]
    fn youngest(&self, line: u32) -> Option<usize> {
        if self.stores.is_empty() {
            return None;
        }
        self.stores.iter().rposition(|store| store.line == line)
    }

    /// Returns whether a store to a line waits.
    #[inline]
    pub(crate) fn stores_to(&self, line: u32) -> bool {
        self.youngest(line).is_some()
    }

    /// Returns the position of the youngest store of all.
    pub(crate) fn last(&self) -> Option<usize> {
        self.stores.len().checked_sub(1)
    }

    /// Returns what the buffer, which is not empty, means for an access to a word of a generation.
    pub(crate) fn check(
        &self,
        costs: &Costs,
        line: u32,
        words: u16,
        generation: u32,
        access: &Access,
    ) -> Buffer {
        let pending = self.youngest(line);
        match *access {
            _ if access.releases() || costs.drained_by_atomics && access.is_atomic() => {
                Buffer::Blocks(self.stores.len() - 1)
            }
            Access::Store { .. } if self.stores.len() >= costs.store_buffer_entries => {
                Buffer::Blocks(0)
            }
            Access::Store { .. } if pending.is_some() => Buffer::Joins,
            Access::Load { mask } => {
                let same_word = |store: &&BufferedStore| {
                    store.line == line
                        && store.words == words
                        && store.commit.generation == generation
                };
                match self.stores.iter().rev().find(same_word) {
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

    /// Puts a store behind the others. Returns whether its line is still to be granted.
    pub(crate) fn push(&mut self, mut store: BufferedStore) -> bool {
        // If the line was granted to an older store already, no other grant will come.
        if let Some(older) = self.youngest(store.line) {
            store.done_at = self.stores[older].done_at;
        }
        self.stores.push_back(store);
        store.done_at != NEVER
    }

    /// Notes that a line was granted to the buffer and arrives at a time.
    pub(crate) fn granted(&mut self, line: u32, here_at: Ps) {
        for store in &mut self.stores {
            if store.line == line && store.done_at == NEVER {
                store.done_at = here_at;
            }
        }
    }

    /// Notes that a line was lost again. Returns the words and the row of a store that had it and now
    /// has to ask for it once more.
    pub(crate) fn lost(&mut self, line: u32) -> Option<(u16, u32)> {
        let mut asks = None;
        for store in &mut self.stores {
            if store.line == line && store.done_at != NEVER {
                store.done_at = NEVER;
                asks = Some((store.words, store.row));
            }
        }
        asks
    }

    /// Takes out the oldest store, if its line is here at a time.
    #[inline]
    pub(crate) fn pop_ready(&mut self, at: Ps) -> Option<BufferedStore> {
        if self.stores.front()?.done_at > at {
            return None;
        }
        self.stores.pop_front()
    }

    /// Notes of the stores left that their lines are here, if they are at a time: no other event comes
    /// for these. (An overdue grant to the one that they wait for may bear an earlier time.)
    pub(crate) fn settle(&mut self, at: Ps) {
        for store in &mut self.stores {
            if store.done_at <= at {
                store.done_at = 0;
            }
        }
    }

    /// Begins to wait until the store at a position has left.
    pub(crate) fn begin_drain(&mut self, position: usize) {
        let store = self.stores[position];
        let remaining = self.stores.len() - position - 1;
        self.drain = Drain { remaining, line: store.line, row: store.row };
    }

    /// Returns whether the stores that were waited for have left.
    pub(crate) fn is_drained(&self) -> bool {
        self.stores.len() <= self.drain.remaining
    }

    /// Drops the stores to a word.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.stores.retain(|store| store.commit.slot != slot);
    }

    /// Takes out all stores, by age.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = BufferedStore> + '_ {
        self.stores.drain(..)
    }
}
