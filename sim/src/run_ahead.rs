//! Run-ahead: what an out-of-order core asks for while it waits for a line.
//!
//! The instructions behind a miss are in the reorder buffer, and those whose addresses are known ask
//! for their lines at once, locked ones included: misses that do not depend on each other overlap.
//! Between cores that want the same lines this cuts both ways. A line that was asked for early is
//! here early, and is gone again by the time the core gets to it.
//!
//! The code of a fiber cannot be looked at ahead of its execution. A core remembers instead which
//! access it made the last time after the two lines that it used just before ([`Predictor`]), and takes
//! it that it makes the same now, as a branch predictor would. Repeated reads of one line predict
//! themselves, so that a core that spins runs ahead into the loop, not past it; and nobody runs
//! ahead past the condition of a wait, which is expected not to hold.
//!
//! Like a line that a buffered store asked for, one that was asked for ahead is not kept when it
//! arrives (nobody waits for it yet), except by additions: on the Zen 4 host on which this was looked
//! at, two cores that add to one line do so in runs twice as long as two that exchange or
//! compare-and-exchange.

use crate::access::Access;
use crate::core::{Core, State};
use crate::costs::{NEVER, Ps};
use crate::line::{Requester, Want, bits};
use crate::stats::Statistics;
use crate::thread::{NO_LINE, Slot};
use crate::world::World;

/// Entries of a [`Predictor`], a power of two: the accesses of some operations.
const PREDICTOR_ENTRIES: usize = 256;

/// What an access does with its line, as far as it matters to those who ask ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
    Add,
    /// Read by the condition of a wait.
    Wait,
}

/// An access that is expected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    line: u32,
    usage: Use,
    words: u16,
    /// Row of the statistics it counts in.
    row: u32,
}

impl Expected {
    const NONE: Self = Self { line: NO_LINE, usage: Use::Wait, words: 0, row: 0 };
}

/// What a core did after what: the access that came after each two.
#[derive(Debug)]
pub(crate) struct Predictor {
    /// Lines of the last two accesses, the older one first.
    last: (u32, u32),
    /// The line of the last three accesses, if a wait's condition read it each time: one more such
    /// read has been noted already.
    waits_on: u32,
    /// By a hash of two lines: these lines and the access that came after them.
    next: Vec<((u32, u32), Expected)>,
}

impl Predictor {
    pub(crate) fn new() -> Self {
        Self { last: (NO_LINE, NO_LINE), waits_on: NO_LINE, next: Vec::new() }
    }

    /// Ready for [`Self::note`]: cores that run no code need no table.
    pub(crate) fn prepare(&mut self) {
        self.next = vec![((NO_LINE, NO_LINE), Expected::NONE); PREDICTOR_ENTRIES];
    }

    #[inline]
    fn entry((before, here): (u32, u32)) -> usize {
        let mixed = before.wrapping_mul(0x9e37_79b1) ^ here.wrapping_mul(0x85eb_ca6b);
        mixed as usize >> 16 & (PREDICTOR_ENTRIES - 1)
    }

    /// Notes an access.
    #[inline]
    fn note(&mut self, access: Expected) {
        let line = access.line;
        let waits = access.usage == Use::Wait;
        if waits && self.waits_on == line {
            return;
        }
        let last = self.last;
        self.last = (last.1, line);
        self.waits_on = if waits && last == (line, line) { line } else { NO_LINE };
        if let Some(entry) = self.next.get_mut(Self::entry(last)) {
            *entry = (last, access);
        }
    }

    /// What came after two lines the last time.
    fn after(&self, lines: (u32, u32)) -> Option<Expected> {
        self.next.get(Self::entry(lines)).filter(|(known, _)| *known == lines).map(|entry| entry.1)
    }
}

/// A line that a core asked for ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefetch {
    line: u32,
    owned: bool,
    /// Or [`NEVER`] while that is not known.
    arrives_at: Ps,
}

/// What a core's run-ahead means for an access.
pub(crate) enum PrefetchHit {
    Nothing,
    /// Its line is on its way.
    ArrivesAt(Ps),
    /// Its line was asked for, and is not on its way yet.
    Asked,
}

impl World {
    /// Whether lines that the running core asked for ahead are on their way.
    pub(crate) fn is_fetching(&mut self) -> bool {
        let core = self.me();
        let now = core.now;
        core.fetched.retain(|fetched| fetched.arrives_at > now);
        !core.fetched.is_empty()
    }

    /// A cache takes a line: notes who had it and waits for another one, for [`Self::fetch_again`].
    pub(crate) fn note_losers(&mut self, line: u32, cache: u16) {
        let (cores, threads_of, losers) = (&self.cores, &self.threads_of, &mut self.losers);
        let waits_for_more = |&&thread: &&u16| {
            let core = &cores[thread as usize];
            core.state == State::Stalled && !core.expected.is_empty()
        };
        let mut note = |loser: u16| {
            losers.extend(threads_of[loser as usize].iter().filter(waits_for_more));
        };
        let entry = &self.lines.lines[line as usize];
        if entry.exclusive {
            // The owner's is the only copy.
            if entry.owner != cache {
                note(entry.owner);
            }
        } else {
            bits(self.lines.sharers(line)).filter(|&loser| loser != cache).for_each(note);
        }
    }

    /// A core is about to get a readable copy of a line: notes whether its owner loses by that what it
    /// had executed ahead.
    pub(crate) fn note_squashed(&mut self, line: u32) {
        let entry = &self.lines.lines[line as usize];
        if self.costs.run_ahead == 0 || !entry.exclusive {
            return;
        }
        for &thread in &self.threads_of[entry.owner as usize] {
            let core = &mut self.cores[thread as usize];
            let (before, last) = core.atomics;
            let (second, latest) = core.predictor.last;
            let runs = core.state == State::Running && !core.watching;
            let uses = [before, last, second, latest].contains(&line);
            core.squashed |= runs && uses && before != last;
        }
    }

    /// What the running core's run-ahead means for an access to a line.
    pub(crate) fn run_ahead_says(&mut self, line: u32, access: &Access) -> PrefetchHit {
        let core = self.me();
        if core.fetched.is_empty() {
            return PrefetchHit::Nothing;
        }
        let now = core.now;
        let Some(position) = core.fetched.iter().position(|fetched| fetched.line == line) else {
            core.fetched.retain(|fetched| fetched.arrives_at > now);
            return PrefetchHit::Nothing;
        };
        let fetched = core.fetched[position];
        let suffices = fetched.owned || !access.writes();
        if fetched.arrives_at == NEVER {
            // A store asks for its line itself, and does not wait.
            let waits = suffices && !matches!(access, Access::Store { .. });
            return if waits { PrefetchHit::Asked } else { PrefetchHit::Nothing };
        }
        core.fetched.swap_remove(position);
        if fetched.arrives_at > now {
            PrefetchHit::ArrivesAt(fetched.arrives_at)
        } else {
            PrefetchHit::Nothing
        }
    }

    /// The running core begins to wait for a line, which it may have asked for ahead: asks for those
    /// that it will want next.
    pub(crate) fn run_ahead(&mut self, line: u32, asked: bool) {
        let me = self.current as usize;
        let now = self.now();
        let core = &mut self.cores[me];
        core.missed_line = if asked { line } else { NO_LINE };
        core.fetched.retain(|fetched| fetched.line != line);
        self.expecting -= usize::from(!core.expected.is_empty());
        core.expected.clear();
        if core.watching {
            return;
        }
        let (predictor, expected) = (&core.predictor, &mut core.expected);
        let mut lines = predictor.last;
        for _ in 0..self.costs.run_ahead {
            let Some(next) = predictor.after(lines) else { break };
            if next.usage == Use::Wait {
                break;
            }
            lines = (lines.1, next.line);
            if next.line != line {
                match expected.iter_mut().find(|known: &&mut Expected| known.line == next.line) {
                    // Read first and then written: it is asked for to be written.
                    Some(known) if known.usage == Use::Read && next.usage != Use::Read => {
                        known.usage = Use::Write;
                    }
                    Some(_) => {}
                    None => expected.push(next),
                }
            }
            if lines == predictor.last {
                // Once around a loop: the same comes again, and asks for nothing more.
                break;
            }
        }
        self.expecting += usize::from(!expected.is_empty());
        for position in 0..expected.len() {
            let next = self.cores[me].expected[position];
            self.fetch(me, &next, now);
        }
    }

    /// A core that waits for another line lost this one: if it will want it, it asks for it again.
    pub(crate) fn fetch_again(&mut self, core: u16, line: u32, now: Ps) {
        let mut expected = self.cores[core as usize].expected.iter();
        if let Some(&next) = expected.find(|next| next.line == line) {
            if next.usage != Use::Add {
                self.cores[core as usize].replays = true;
            }
            self.fetch(core as usize, &next, now);
        }
    }

    fn fetch(&mut self, core: usize, next: &Expected, now: Ps) {
        let entry = &self.cores[core];
        let (line, cache) = (next.line, entry.cache);
        let owned = next.usage != Use::Read;
        let asked = |fetched: &Prefetch| fetched.line == line && fetched.arrives_at == NEVER;
        let here = if owned { self.may_write(line, cache) } else { self.lines.holds(line, cache) };
        if here
            || entry.fetched.iter().any(asked)
            || entry.pending_store(line).is_some()
            || self.lines.lines[line as usize].live_words == 0
        {
            return;
        }
        let core_fetched = &mut self.cores[core].fetched;
        core_fetched.retain(|fetched| fetched.line != line);
        core_fetched.push(Prefetch { line, owned, arrives_at: NEVER });
        let want = if owned { Want::Own } else { Want::Read };
        let by =
            if next.usage == Use::Add { Requester::RunAheadToAdd } else { Requester::RunAhead };
        self.request(line, want, (next.words, next.row), by, (core as u16, now));
    }
}

impl Core {
    /// Notes an access of the core for its run-ahead.
    #[inline]
    pub(crate) fn note_access(&mut self, slot: &Slot, words: u16, access: &Access) {
        let usage = match access {
            _ if self.watching => Use::Wait,
            Access::Load { .. } => Use::Read,
            Access::Add { .. } => Use::Add,
            _ => Use::Write,
        };
        if access.is_atomic() {
            self.atomics = (self.atomics.1, slot.line);
        }
        let row = Statistics::key(slot.row, self.operation);
        self.predictor.note(Expected { line: slot.line, usage, words, row });
    }

    /// As [`Self::note_access`], of a load of a wait's condition that is repeated.
    pub(crate) fn note_reread(&mut self, line: u32, words: u16, row: u32) {
        self.predictor.note(Expected { line, usage: Use::Wait, words, row });
    }

    /// A line that the core asked for ahead was granted. Returns whether it waits for it.
    pub(crate) fn fetched(&mut self, line: u32, here_at: Ps) -> bool {
        for fetched in &mut self.fetched {
            if fetched.line == line && fetched.arrives_at == NEVER {
                fetched.arrives_at = here_at;
            }
        }
        self.missed_line == line && self.state == State::Stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaving out looks that were noted already must not show.
    #[test]
    fn a_look_is_noted_unless_it_repeats_the_last_three() {
        let mut predictor = Predictor::new();
        predictor.prepare();
        let mut note = |line, usage| predictor.note(Expected { line, usage, words: 1, row: 0 });
        for line in [1, 1, 1, 1, 2, 1, 1, 1] {
            note(line, Use::Wait);
        }
        note(1, Use::Read);
        note(1, Use::Wait);
        let after = |lines| predictor.after(lines).map(|next| (next.line, next.usage));
        assert_eq!(predictor.last, (1, 1));
        assert_eq!(after((1, 2)), Some((1, Use::Wait)));
        assert_eq!(after((2, 1)), Some((1, Use::Wait)));
        assert_eq!(after((1, 1)), Some((1, Use::Wait)), "not the read before it");
    }
}
