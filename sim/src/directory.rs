//! The directory: requests for a line queue here, and ownership moves when one is granted.
//!
//! A miss costs one transfer, in four quarters: two until the holder's snoop arrives and it loses
//! the line (the *grant*), two until the data is at the requester. Until the grant the owner goes
//! on hitting, and a new owner keeps the line at least for its ownership window (the directory
//! learns late that the line has arrived, and its next snoop takes time): so it completes several
//! operations for one transfer, which is what makes contended atomics cheaper than a transfer
//! each. The window varies: what else the directory has to do is not simulated. A line that only a
//! store in the store buffer asked for is not kept: the store takes effect when it arrives, and its
//! core, which went on long ago, does not use the line then; unless it waits for this store to leave
//! the buffer, with an atomic. Nor is one that a core asked for ahead, unless it adds to it (see
//! `run_ahead`).
//!
//! A grant that comes while the owner's atomic has the line locked (`core.atomic_locked`) waits for its end, and
//! takes the line before what the core does next: a lock that was just taken, from its holder.
//!
//! Requests for one line are granted one at a time in the order in which they arrive at the
//! directory (a quarter of a transfer after they were issued, so nearer cores get ahead). One that
//! had to wait is granted as soon as the line is free: its snoop is there already.
//!
//! - A read occupies its line for `directory.service_ns`: many readers are served at that pace.
//! - Where the machine detects migratory lines, a read takes such a line as a write does: the
//!   reader is expected to write it next.
//! - A write invalidates all other copies, `directory.snoop_issue_ns` apart, and takes as long as
//!   the farthest of them; all copies are lost at the grant.

//!
//! Lines are known by dense numbers given in the order of first touch, so that nothing depends on
//! where the allocator put them. When the last word in a line is dropped the line is abandoned, and its
//! number used again once nothing is pending for it: whether freed memory is reused does not matter
//! either.

mod grant;

pub(crate) use grant::{Due, Grant};

use rustc_hash::FxHashMap;

use crate::bitset::{BitSets, bits};
use crate::line::Line;

/// Bytes of a cache line, as a power of two.
const LINE_SHIFT: u32 = 6;
/// Marks the number of a line that holds one word only.
const ALONE: usize = 1 << (usize::BITS - 1);

/// All lines of a simulation, with the requests that wait for them.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) lines: Vec<Line>,
    by_key: FxHashMap<usize, u32>,
    free: Vec<u32>,
    /// Lines without a word for which something is pending.
    abandoned: Vec<u32>,
    /// Caches with a copy of each line. Out of date where the owner's is the only copy.
    sharers: BitSets,
    /// Cores asleep on each line.
    sleepers: BitSets,
}

impl Directory {
    pub(crate) fn new(caches: usize, cores: usize) -> Self {
        Self {
            lines: Vec::new(),
            by_key: FxHashMap::default(),
            free: Vec::new(),
            abandoned: Vec::new(),
            sharers: BitSets::below(caches),
            sleepers: BitSets::below(cores),
        }
    }

    /// Returns the line at an address, or that of the word there `alone`, and whether it was touched for
    /// the first time.
    pub(crate) fn at(&mut self, address: usize, alone: bool) -> (u32, bool) {
        // Addresses end below the top bit: no line has the number of a word.
        let key = if alone { ALONE | address } else { address >> LINE_SHIFT };
        if let Some(&line) = self.by_key.get(&key) {
            return (line, false);
        }
        let line = self.free.pop().unwrap_or_else(|| {
            self.sharers.grow();
            self.sleepers.grow();
            self.lines.push(Line::new(key));
            (self.lines.len() - 1) as u32
        });
        // A number used again keeps the memory of its queue, and goes on counting versions.
        let old = &mut self.lines[line as usize];
        let (queue, version) = (std::mem::take(&mut old.queue), old.version.wrapping_add(1));
        *old = Line { queue, version, ..Line::new(key) };
        self.sharers.clear(line);
        self.by_key.insert(key, line);
        (line, true)
    }

    /// Gives up a line whose last word is gone: the line at its address is another one from now on, whether
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

    /// Returns the lines that were not forgotten.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Line> + '_ {
        let numbered = (0..).zip(&self.lines);
        numbered
            .filter(|(number, line)| {
                self.by_key.get(&line.key) == Some(number) || self.abandoned.contains(number)
            })
            .map(|(_, line)| line)
    }

    /// Returns whether a cache has a copy of a line.
    #[inline]
    pub(crate) fn holds(&self, line: u32, cache: u16) -> bool {
        let entry = &self.lines[line as usize];
        if entry.exclusive { entry.owner == cache } else { self.is_sharer(line, cache) }
    }

    /// Returns whether a cache holds a line that nobody else holds, so that it may write.
    #[inline]
    pub(crate) fn may_write(&self, line: u32, cache: u16) -> bool {
        self.lines[line as usize].may_write(cache)
    }

    /// Returns whether a cache has a copy of a line that is not exclusive.
    #[inline]
    pub(crate) fn is_sharer(&self, line: u32, cache: u16) -> bool {
        self.sharers.contains(line, cache)
    }

    /// Notes that a cache gets a copy.
    fn add_sharer(&mut self, line: u32, cache: u16) {
        self.lines[line as usize].copies += u32::from(self.sharers.insert(line, cache));
    }

    /// Leaves one cache with a copy.
    fn set_only_sharer(&mut self, line: u32, cache: u16) {
        self.sharers.clear(line);
        self.sharers.insert(line, cache);
        self.lines[line as usize].copies = 1;
    }

    /// Returns the caches with a copy of a line that is not exclusive.
    pub(crate) fn sharers(&self, line: u32) -> impl Iterator<Item = u16> + '_ {
        bits(self.sharers.set(line))
    }

    /// Notes that a core sleeps until a line changes.
    pub(crate) fn add_sleeper(&mut self, line: u32, core: u16) {
        if self.sleepers.insert(line, core) {
            self.lines[line as usize].sleepers += 1;
            self.lines[line as usize].watched = true;
        }
    }

    /// Notes that a core does not sleep on a line any more.
    pub(crate) fn remove_sleeper(&mut self, line: u32, core: u16) {
        if self.sleepers.remove(line, core) {
            let entry = &mut self.lines[line as usize];
            entry.sleepers -= 1;
            entry.watched = entry.traced || entry.sleepers > 0;
        }
    }

    /// Returns the cores that sleep on a line.
    pub(crate) fn sleepers(&self, line: u32) -> impl Iterator<Item = u16> + '_ {
        bits(self.sleepers.set(line))
    }
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
        assert_eq!(table.sharers(line).collect::<Vec<_>>(), [0, 63, 64, 255, 256, 299]);
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
