//! Which line each word is in, and who writes it.

use super::World;
use crate::costs::Ps;
use crate::slot::{NO_CORE, NO_LINE, Slot};
use crate::stats::Member;

impl World {
    /// Returns the line of a word, found by its address once in a simulation for each place of the word.
    #[inline]
    pub(crate) fn line_of(
        &mut self,
        slot: &mut Slot,
        address: usize,
        labels: &[&'static str],
    ) -> u32 {
        if slot.epoch != self.epoch || slot.address != address || slot.line == NO_LINE {
            self.bind(slot, address, labels);
        }
        slot.line
    }

    #[cold]
    fn bind(&mut self, slot: &mut Slot, address: usize, labels: &[&'static str]) {
        if slot.epoch != self.epoch {
            // Made before this simulation: the word is in memory, and nobody's.
            slot.creator = NO_CORE;
            slot.epoch = self.epoch;
        } else if slot.line != NO_LINE {
            self.leave_line(slot);
        }
        let label = labels[slot.label as usize];
        let alone = self.own_lines.iter().any(|own| own == label);
        let (line, is_new) = self.lines.at(address, alone);
        slot.line = line;
        slot.address = address;
        slot.last_writer = NO_CORE;
        slot.many_writers = false;
        slot.partial_until = 0;
        slot.row = self.stats.label(slot.label, label);
        let toucher = self.cores[self.current as usize].cache;
        let entry = &mut self.lines.lines[line as usize];
        entry.live_words += 1;
        let offset = (address & 63) as u8;
        let known = |member: &Member| member.offset == offset && member.label == slot.row;
        if !entry.members.iter().any(known) {
            entry.members.push(Member {
                label: slot.row,
                offset,
                first_writer: NO_CORE,
                many_writers: false,
            });
        }
        entry.traced |= self.timeline.wants(line, label);
        entry.watched |= entry.traced;
        if is_new {
            entry.first_toucher = toucher;
            if slot.creator != NO_CORE {
                // Initialised by a core a moment ago: modified in its cache.
                let cache = self.cores[slot.creator as usize].cache;
                entry.owner = cache;
                entry.home = cache;
                entry.first_toucher = cache;
                entry.exclusive = true;
                entry.dirty = true;
            }
        }
    }

    /// Forgets a word that was dropped: stores to it that wait in the running core's buffer are
    /// pointless.
    pub(crate) fn forget_word(&mut self, index: u32, slot: &Slot) {
        if self.current != NO_CORE {
            self.me().stores.forget(index);
        }
        self.leave_line(slot);
    }

    /// Takes a word out of its line: it was dropped or moved.
    fn leave_line(&mut self, slot: &Slot) {
        let entry = &mut self.lines.lines[slot.line as usize];
        entry.live_words -= 1;
        if entry.live_words > 0 {
            return;
        }
        self.lines.abandon(slot.line);
        while let Some(line) = self.lines.forget() {
            let entry = &self.lines.lines[line as usize];
            self.stats.retire_line(&entry.members, &entry.totals);
        }
    }

    /// Notes that the running core stores to a word.
    #[inline]
    pub(crate) fn note_writer(&mut self, slot: &mut Slot) {
        if slot.last_writer == self.current {
            return;
        }
        slot.last_writer = self.current;
        if !slot.many_writers {
            self.note_new_writer(slot);
        }
    }

    fn note_new_writer(&mut self, slot: &mut Slot) {
        let offset = (slot.address & 63) as u8;
        let mut members = self.lines.lines[slot.line as usize].members.iter_mut();
        if let Some(member) =
            members.find(|member| member.offset == offset && member.label == slot.row)
        {
            if member.first_writer == NO_CORE {
                member.first_writer = self.current;
            } else if member.first_writer != self.current {
                member.many_writers = true;
                slot.many_writers = true;
            }
        }
    }

    /// Notes that a core writes its own copy of a line.
    #[inline]
    pub(crate) fn line_written(&mut self, line: u32, words: u16, core: u16, at: Ps) {
        let entry = &mut self.lines.lines[line as usize];
        entry.note_written(words);
        if entry.sleepers > 0 {
            self.wake_siblings(line, core, at);
        }
    }
}
