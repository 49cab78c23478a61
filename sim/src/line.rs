//! Cache lines: who holds each, who queues for it, who sleeps on it.
//!
//! Lines are known by dense numbers given in the order of first touch, so that nothing depends on
//! where the allocator put them. When the last word in a line is dropped the line is abandoned, and its
//! number used again once nothing is pending for it: whether freed memory is reused does not matter
//! either.

use rustc_hash::FxHashMap;

use crate::costs::{NEVER, Ps};
use crate::queue::RequestQueue;
use crate::stats::{LineTotals, Member};

/// Bytes of a cache line, as a power of two.
pub(crate) const LINE_SHIFT: u32 = 6;
/// Marks the number of a line that holds one word only.
const ALONE: usize = 1 << (usize::BITS - 1);
/// A line that moved from one reader and writer to the next so often is taken to go on so.
pub(crate) const MIGRATES: u8 = 2;
/// No cache.
pub(crate) const NO_CACHE: u16 = u16::MAX;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// A readable copy.
    Read,
    /// The only copy, to write (read for ownership, or an upgrade of a shared copy).
    Own,
}

/// On whose behalf a line is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requester {
    /// An access that waits for it.
    Access,
    /// A store in the store buffer: the core does not wait.
    StoreBuffer,
    /// A core that waits for another line, and will want this one next.
    RunAhead,
    /// The same, which will add to it first of all.
    RunAheadToAdd,
}

/// Who supplies a line's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The cache that owns it.
    Owner,
    /// The cache that is its home.
    Home,
    /// The last-level cache shared with the requester.
    Llc,
    Memory,
    /// Nobody: the requester has a copy and needs only the others gone.
    Own,
}

/// A request that waits at a line's directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) arrives_at: Ps,
    /// This request's random factor on latencies, in 1/65536.
    pub(crate) factor: u32,
    /// Row of the statistics it counts in.
    pub(crate) row: u32,
    pub(crate) core: u16,
    /// The core's cache.
    pub(crate) cache: u16,
    /// The four-byte words of the line that the access touches, one bit each.
    pub(crate) words: u16,
    pub(crate) want: Want,
    pub(crate) by: Requester,
}

/// One cache line.
#[derive(Debug)]
pub(crate) struct Line {
    /// The cache that supplies the line (M, E, O or F), or [`NO_CACHE`].
    pub(crate) owner: u16,
    /// The cache whose LLC holds the line's data when no cache supplies it, or [`NO_CACHE`]: the
    /// line is only in memory.
    pub(crate) home: u16,
    /// The cache that touched the line first: the line is in the memory of its socket.
    pub(crate) first_toucher: u16,
    /// The owner's is the only copy: it may write.
    pub(crate) exclusive: bool,
    pub(crate) dirty: bool,
    /// The owner keeps it for its ownership window: its core waited for it, or adds to it.
    pub(crate) kept: bool,
    /// This owner's variation of the window, in 1/65536.
    pub(crate) kept_factor: u64,
    /// The cache that changed a word of it last, or [`NO_CACHE`]. (Who exchanges a word for the same,
    /// or fails to exchange it, writes the line and changes nothing.)
    pub(crate) changed_by: u16,
    /// Accesses must take the slow path: somebody sleeps on the line, or it is traced.
    pub(crate) watched: bool,
    pub(crate) traced: bool,
    /// Caches with a copy. Out of date where the owner's is the only copy.
    pub(crate) copies: u32,
    /// Cores asleep on this line.
    pub(crate) sleepers: u32,
    /// Grows with every write, so that a sleeper can tell whether what it read is still there.
    pub(crate) version: u32,
    /// When the owner's copy arrives or arrived.
    pub(crate) owner_ready_at: Ps,
    /// When the first request in the queue is served, or [`NEVER`].
    pub(crate) grant_at: Ps,
    /// Who supplies it and at what cost, if that cannot change until then.
    pub(crate) grant_source: Option<Source>,
    pub(crate) grant_cost: Ps,
    /// Until when its owner executes an atomic on it, which had begun before anybody's request was
    /// due: such a request waits for the end.
    pub(crate) locked_until: Ps,
    /// No request is served before.
    pub(crate) free_at: Ps,
    pub(crate) queue: RequestQueue,
    /// A store in a buffer of its owner may have it, and wait for an older store or its own event.
    pub(crate) stores_wait: bool,
    /// Words written since the line last changed its owner.
    pub(crate) written: u16,
    /// How often in a row the line was read and then written by the next core, up to
    /// [`MIGRATES`].
    pub(crate) migrations: u8,
    /// Simulated words in this line that live.
    pub(crate) live_words: u32,
    pub(crate) members: Vec<Member>,
    pub(crate) totals: LineTotals,
    key: usize,
}

/// All lines of a simulation.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) lines: Vec<Line>,
    by_key: FxHashMap<usize, u32>,
    free: Vec<u32>,
    /// Lines without a word for which something is pending.
    abandoned: Vec<u32>,
    /// Caches with a copy: `sharer_words` words of bits for each line. Out of date where the owner's is
    /// the only copy.
    sharers: Vec<u64>,
    sharer_words: usize,
    /// Cores asleep: `sleeper_words` words of bits for each line.
    sleepers: Vec<u64>,
    sleeper_words: usize,
}

impl Directory {
    pub(crate) fn new(caches: usize, cores: usize) -> Self {
        Self {
            lines: Vec::new(),
            by_key: FxHashMap::default(),
            free: Vec::new(),
            abandoned: Vec::new(),
            sharers: Vec::new(),
            sharer_words: caches.div_ceil(64),
            sleepers: Vec::new(),
            sleeper_words: cores.div_ceil(64),
        }
    }

    /// The line at an address, or that of the word there `alone`, and whether it was touched for
    /// the first time.
    pub(crate) fn at(&mut self, address: usize, alone: bool) -> (u32, bool) {
        // Addresses end below the top bit: no line has the number of a word.
        let key = if alone { ALONE | address } else { address >> LINE_SHIFT };
        if let Some(&line) = self.by_key.get(&key) {
            return (line, false);
        }
        let line = self.free.pop().unwrap_or_else(|| {
            self.sharers.resize(self.sharers.len() + self.sharer_words, 0);
            self.sleepers.resize(self.sleepers.len() + self.sleeper_words, 0);
            self.lines.push(Line::new(key));
            (self.lines.len() - 1) as u32
        });
        // A number used again keeps the memory of its queue, and goes on counting versions.
        let old = &mut self.lines[line as usize];
        let (queue, version) = (std::mem::take(&mut old.queue), old.version.wrapping_add(1));
        *old = Line { queue, version, ..Line::new(key) };
        self.clear_sharers(line);
        self.by_key.insert(key, line);
        (line, true)
    }

    /// The last word of a line is gone: the line at its address is another one from now on, whether
    /// something is pending for this one or not. (Else it would matter whether the allocator gives the
    /// same address again while it is.)
    pub(crate) fn abandon(&mut self, line: u32) {
        self.by_key.remove(&self.lines[line as usize].key);
        self.abandoned.push(line);
    }

    /// Forgets an abandoned line for which nothing is pending any more, if there is one: its number can
    /// be used again.
    pub(crate) fn forget(&mut self) -> Option<u32> {
        let idle = |&line: &u32| {
            let entry = &self.lines[line as usize];
            entry.queue.is_empty() && entry.sleepers == 0
        };
        let position = self.abandoned.iter().position(idle)?;
        let line = self.abandoned.remove(position);
        self.free.push(line);
        Some(line)
    }

    /// The lines that were not forgotten.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Line> + '_ {
        let numbered = (0..).zip(&self.lines);
        numbered
            .filter(|(number, line)| {
                self.by_key.get(&line.key) == Some(number) || self.abandoned.contains(number)
            })
            .map(|(_, line)| line)
    }

    /// Whether a cache has a copy of a line.
    #[inline]
    pub(crate) fn holds(&self, line: u32, cache: u16) -> bool {
        let entry = &self.lines[line as usize];
        if entry.exclusive { entry.owner == cache } else { self.is_sharer(line, cache) }
    }

    /// Whether a cache has a copy of a line that is not exclusive.
    #[inline]
    pub(crate) fn is_sharer(&self, line: u32, cache: u16) -> bool {
        let word = self.sharers[line as usize * self.sharer_words + cache as usize / 64];
        word >> (cache % 64) & 1 != 0
    }

    pub(crate) fn add_sharer(&mut self, line: u32, cache: u16) {
        let word = &mut self.sharers[line as usize * self.sharer_words + cache as usize / 64];
        self.lines[line as usize].copies += u32::from(*word >> (cache % 64) & 1 == 0);
        *word |= 1 << (cache % 64);
    }

    /// Leaves one cache with a copy.
    pub(crate) fn set_only_sharer(&mut self, line: u32, cache: u16) {
        let first = line as usize * self.sharer_words;
        let words = &mut self.sharers[first..first + self.sharer_words];
        for (number, word) in words.iter_mut().enumerate() {
            *word = if number == usize::from(cache / 64) { 1 << (cache % 64) } else { 0 };
        }
        self.lines[line as usize].copies = 1;
    }

    fn clear_sharers(&mut self, line: u32) {
        let first = line as usize * self.sharer_words;
        self.sharers[first..first + self.sharer_words].fill(0);
    }

    /// The caches with a copy of a line that is not exclusive, as a set, one bit each.
    pub(crate) fn sharers(&self, line: u32) -> &[u64] {
        let first = line as usize * self.sharer_words;
        &self.sharers[first..first + self.sharer_words]
    }

    pub(crate) fn add_sleeper(&mut self, line: u32, core: u16) {
        let word = &mut self.sleepers[line as usize * self.sleeper_words + core as usize / 64];
        let bit = 1 << (core % 64);
        if *word & bit == 0 {
            *word |= bit;
            self.lines[line as usize].sleepers += 1;
            self.lines[line as usize].watched = true;
        }
    }

    pub(crate) fn remove_sleeper(&mut self, line: u32, core: u16) {
        let word = &mut self.sleepers[line as usize * self.sleeper_words + core as usize / 64];
        let bit = 1 << (core % 64);
        if *word & bit != 0 {
            *word &= !bit;
            let entry = &mut self.lines[line as usize];
            entry.sleepers -= 1;
            entry.watched = entry.traced || entry.sleepers > 0;
        }
    }

    pub(crate) fn sleepers(&self, line: u32) -> impl Iterator<Item = u16> + '_ {
        let first = line as usize * self.sleeper_words;
        bits(&self.sleepers[first..first + self.sleeper_words])
    }
}

impl Line {
    /// Whether a cache holds the line and nobody else does, so that it may write.
    #[inline]
    pub(crate) fn may_write(&self, cache: u16) -> bool {
        self.exclusive && self.owner == cache
    }

    /// Its owner writes some of its words.
    #[inline]
    pub(crate) fn note_written(&mut self, words: u16) {
        self.version = self.version.wrapping_add(1);
        self.dirty = true;
        self.written |= words;
    }

    /// Whether its owner supplies it at a time: a forwarder (MESIF) whose own copy is on the way
    /// cannot; the home can. Once it can, that changes with the next grant only.
    #[inline]
    pub(crate) fn forwards(&self, at: Ps) -> bool {
        self.exclusive || self.dirty || self.owner_ready_at <= at
    }

    fn new(key: usize) -> Self {
        Self {
            owner: NO_CACHE,
            home: NO_CACHE,
            first_toucher: NO_CACHE,
            exclusive: false,
            dirty: false,
            kept: true,
            kept_factor: 1 << 16,
            changed_by: NO_CACHE,
            watched: false,
            traced: false,
            copies: 0,
            sleepers: 0,
            version: 0,
            owner_ready_at: 0,
            grant_at: NEVER,
            grant_source: None,
            grant_cost: 0,
            locked_until: 0,
            free_at: 0,
            queue: RequestQueue::default(),
            stores_wait: false,
            written: 0,
            migrations: 0,
            live_words: 0,
            members: Vec::new(),
            totals: LineTotals::default(),
            key,
        }
    }
}

/// Positions of the set bits, ascending.
pub(crate) fn bits(words: &[u64]) -> impl Iterator<Item = u16> + '_ {
    words.iter().enumerate().flat_map(|(position, &word)| {
        std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
            .take_while(|&rest| rest != 0)
            .map(move |rest| (position * 64) as u16 + rest.trailing_zeros() as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_by_first_touch_and_forgotten_when_empty() {
        let mut table = Directory::new(130, 300);
        assert_eq!(table.at(0x7000, false), (0, true));
        assert_eq!(table.at(0x1000, false), (1, true));
        assert_eq!(table.at(0x703f, false), (0, false));
        table.add_sharer(0, 129);
        table.abandon(0);
        assert_eq!(table.forget(), Some(0));
        assert_eq!(table.at(0x9000, false), (0, true), "the number is used again");
        assert!(!table.is_sharer(0, 129), "and holds nothing of the line before");
        table.add_sleeper(0, 7);
        table.abandon(0);
        assert_eq!(table.at(0x9000, false), (2, true), "the address is another line's");
        assert_eq!((table.forget(), table.known().count()), (None, 3));
        table.remove_sleeper(0, 7);
        assert_eq!((table.forget(), table.known().count()), (Some(0), 2));
    }

    #[test]
    fn sharers_and_sleepers_are_sets_beyond_64_and_256() {
        let mut table = Directory::new(300, 400);
        let (line, _) = table.at(0, false);
        for cache in [0, 63, 64, 255, 256, 299, 64] {
            table.add_sharer(line, cache);
        }
        assert_eq!(table.lines[0].copies, 6);
        assert_eq!(bits(table.sharers(line)).collect::<Vec<_>>(), [0, 63, 64, 255, 256, 299]);
        table.add_sleeper(line, 399);
        table.add_sleeper(line, 399);
        table.add_sleeper(line, 1);
        assert_eq!(table.sleepers(line).collect::<Vec<_>>(), [1, 399]);
        table.remove_sleeper(line, 399);
        assert_eq!((table.lines[0].sleepers, table.lines[0].watched), (1, true));
        table.remove_sleeper(line, 1);
        assert_eq!((table.lines[0].sleepers, table.lines[0].watched), (0, false));
    }
}
