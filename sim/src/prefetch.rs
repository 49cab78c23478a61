//! Run-ahead: what an out-of-order core asks for while it waits for a line.
//!
//! The instructions behind a miss are in the reorder buffer, and those whose addresses are known ask
//! for their lines at once, locked ones included: misses that do not depend on each other overlap.
//! (Where an atomic is a barrier, `core.atomics_run_ahead`, nothing behind one begins before it ends.)
//! Between cores that want the same lines this cuts both ways. A line that was asked for early is
//! here early, and is gone again by the time the core gets to it.
//!
//! The code of a fiber cannot be looked at ahead of its execution. A core remembers instead which
//! access it made the last time after the two lines that it used just before ([`Predictor`]), and takes
//! it that it makes the same now, as a branch predictor would. Repeated reads of one line predict
//! themselves, so that a core that spins runs ahead into the loop, not past it; and nobody runs
//! ahead past the condition of a wait, which is expected not to hold.
//!
//! A core that runs has the instructions behind the current one in flight, too. If another core takes a
//! line that an atomic among them will use, it asks for the line again at once ([`Prefetcher::upcoming`]);
//! and what was executed behind a load whose line is lost is thrown away (`core.replay_ns`).
//!
//! Like a line that a buffered store asked for, one that was asked for ahead is not kept when it
//! arrives (nobody waits for it yet), except by additions: on the Zen 4 host on which this was looked
//! at, two cores that add to one line do so in runs twice as long as two that exchange or
//! compare-and-exchange.

use crate::access::Access;
use crate::costs::{NEVER, Ps};
use crate::slot::NO_LINE;

/// Entries of a [`Predictor`], a power of two: the accesses of some operations.
const PREDICTOR_ENTRIES: usize = 256;

/// The use that an access makes of its line, as far as it matters to those who ask ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
    Add,
    /// Read by the condition of a wait.
    Wait,
}

/// An access that is expected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) line: u32,
    pub(crate) usage: Use,
    /// Whether it is a read-modify-write.
    pub(crate) atomic: bool,
    pub(crate) words: u16,
    /// Row of the statistics it counts in.
    pub(crate) row: u32,
}

impl Expected {
    const NONE: Self = Self { line: NO_LINE, usage: Use::Wait, atomic: false, words: 0, row: 0 };

    /// Returns whether the access needs the only copy of its line.
    pub(crate) fn owns(&self) -> bool {
        self.usage != Use::Read
    }
}

impl Use {
    /// Returns the use that an access makes, by a condition of a wait or not.
    #[inline]
    pub(crate) fn of(access: &Access, watching: bool) -> Self {
        match access {
            _ if watching => Self::Wait,
            Access::Load { .. } => Self::Read,
            Access::Add { .. } => Self::Add,
            _ => Self::Write,
        }
    }
}

/// A predictor of accesses: the one that came after each two the last time.
#[derive(Debug)]
struct Predictor {
    /// Lines of the last two accesses, the older one first.
    last: (u32, u32),
    /// The line of the last three accesses, if a wait's condition read it each time: one more such
    /// read has been noted already.
    waits_on: u32,
    /// By a hash of two lines: these lines and the access that came after them.
    next: Vec<((u32, u32), Expected)>,
}

impl Predictor {
    fn new() -> Self {
        Self { last: (NO_LINE, NO_LINE), waits_on: NO_LINE, next: Vec::new() }
    }

    /// Makes the table, for [`Self::note`]: cores that run no code need none.
    fn prepare(&mut self) {
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

    /// Returns the access that came after two lines the last time.
    fn after(&self, lines: (u32, u32)) -> Option<Expected> {
        self.next.get(Self::entry(lines)).filter(|(known, _)| *known == lines).map(|entry| entry.1)
    }
}

/// A line that a core asked for ahead.
#[derive(Debug, Clone, Copy)]
struct Prefetch {
    line: u32,
    owned: bool,
    /// Or [`NEVER`] while that is not known.
    arrives_at: Ps,
}

/// The outcome of looking for a line among those asked for ahead.
pub(crate) enum PrefetchHit {
    Nothing,
    /// Its line is on its way.
    ArrivesAt(Ps),
    /// Its line was asked for, and is not on its way yet.
    Asked,
}

/// The lines that a core asks for ahead, because of what it will do next and did after what.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Prefetcher {
    /// The lines asked for, until they are used.
    prefetches: Vec<Prefetch>,
    predictor: Predictor,
    /// The accesses expected behind the one that waits.
    expected: Vec<Expected>,
    /// The line that the core stalls for, if it had asked for it ahead.
    pub(crate) missed_line: u32,
}

impl Prefetcher {
    pub(crate) fn new() -> Self {
        Self {
            prefetches: Vec::new(),
            predictor: Predictor::new(),
            expected: Vec::new(),
            missed_line: NO_LINE,
        }
    }

    /// Makes the predictor's table.
    pub(crate) fn prepare(&mut self) {
        self.predictor.prepare();
    }

    /// Notes an access.
    #[inline]
    pub(crate) fn note(&mut self, access: Expected) {
        self.predictor.note(access);
    }

    /// Returns whether no line was asked for ahead, or all were used.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.prefetches.is_empty()
    }

    /// Returns whether the core expects accesses behind the one that it waits for.
    pub(crate) fn expects(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Returns whether lines that were asked for ahead are still on their way.
    pub(crate) fn is_fetching(&mut self, now: Ps) -> bool {
        self.prefetches.retain(|prefetch| prefetch.arrives_at > now);
        !self.prefetches.is_empty()
    }

    /// Looks for the line of an access among those asked for ahead, and takes it out if it has arrived
    /// or is about to.
    pub(crate) fn look_up(&mut self, line: u32, access: &Access, now: Ps) -> PrefetchHit {
        if self.prefetches.is_empty() {
            return PrefetchHit::Nothing;
        }
        let Some(position) = self.prefetches.iter().position(|prefetch| prefetch.line == line)
        else {
            self.prefetches.retain(|prefetch| prefetch.arrives_at > now);
            return PrefetchHit::Nothing;
        };
        let prefetch = self.prefetches[position];
        let suffices = prefetch.owned || !access.writes();
        if prefetch.arrives_at == NEVER {
            // A store asks for its line itself, and does not wait.
            let waits = suffices && !matches!(access, Access::Store { .. });
            return if waits { PrefetchHit::Asked } else { PrefetchHit::Nothing };
        }
        self.prefetches.swap_remove(position);
        if prefetch.arrives_at > now {
            PrefetchHit::ArrivesAt(prefetch.arrives_at)
        } else {
            PrefetchHit::Nothing
        }
    }

    /// Notes that the core begins to wait for a line, which it may have asked for ahead.
    pub(crate) fn begin_miss(&mut self, line: u32, asked: bool) {
        self.missed_line = if asked { line } else { NO_LINE };
        self.prefetches.retain(|prefetch| prefetch.line != line);
        self.expected.clear();
    }

    /// Predicts the accesses behind one that waits for a line, up to a number of accesses ahead.
    pub(crate) fn predict(&mut self, line: u32, depth: u32) {
        let (predictor, expected) = (&self.predictor, &mut self.expected);
        let mut lines = predictor.last;
        for _ in 0..depth {
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
    }

    /// Returns the atomic on a line that a core, which does not wait, is expected to make next of all on
    /// it, within so many accesses; not where it uses the line now: then it asks when it misses it.
    pub(crate) fn upcoming(&self, line: u32, depth: u32) -> Option<Expected> {
        if self.predictor.last.1 == line {
            return None;
        }
        self.in_flight(line, depth)
    }

    /// Returns the first atomic on a line among so many accesses that are expected next.
    pub(crate) fn in_flight(&self, line: u32, depth: u32) -> Option<Expected> {
        let mut lines = self.predictor.last;
        for _ in 0..depth {
            let next = self.predictor.after(lines)?;
            if next.usage == Use::Wait {
                return None;
            }
            if next.line == line && next.atomic {
                return Some(next);
            }
            lines = (lines.1, next.line);
        }
        None
    }

    /// Returns the expected access at a position.
    pub(crate) fn expected(&self, position: usize) -> Option<Expected> {
        self.expected.get(position).copied()
    }

    /// Returns the expected access to a line.
    pub(crate) fn expected_at(&self, line: u32) -> Option<Expected> {
        self.expected.iter().find(|next| next.line == line).copied()
    }

    /// Returns whether a line was asked for that is not on its way yet.
    pub(crate) fn has_asked(&self, line: u32) -> bool {
        self.prefetches.iter().any(|prefetch| prefetch.line == line && prefetch.arrives_at == NEVER)
    }

    /// Notes that the line of an expected access is asked for.
    pub(crate) fn ask(&mut self, next: &Expected) {
        let line = next.line;
        self.prefetches.retain(|prefetch| prefetch.line != line);
        self.prefetches.push(Prefetch { line, owned: next.owns(), arrives_at: NEVER });
    }

    /// Notes that a line that was asked for is on its way. Returns whether the core missed it meanwhile.
    pub(crate) fn granted(&mut self, line: u32, here_at: Ps) -> bool {
        for prefetch in &mut self.prefetches {
            if prefetch.line == line && prefetch.arrives_at == NEVER {
                prefetch.arrives_at = here_at;
            }
        }
        self.missed_line == line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that leaving out loads that were noted already does not show.
    #[test]
    fn a_look_is_noted_unless_it_repeats_the_last_three() {
        let mut predictor = Predictor::new();
        predictor.prepare();
        let mut note =
            |line, usage| predictor.note(Expected { line, usage, atomic: false, words: 1, row: 0 });
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
