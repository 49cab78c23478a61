//! The end of an access: what it is charged, and what is counted of it.

use crate::access::{Access, partial_until, words_at};
use crate::core::{Core, Watched};
use crate::costs::{Ps, scale};
use crate::issue::Step;
use crate::stats::Statistics;
use crate::thread::{NO_LINE, Slot};
use crate::timeline::TimelineEvent;
use crate::world::World;

impl World {
    /// The line that an access of the running core waited for is here.
    pub(crate) fn arrived(&mut self, index: u32, slot: &mut Slot, access: &Access) -> Step {
        let core = &mut self.cores[self.current as usize];
        core.missed_line = NO_LINE;
        if let Access::FencedStore { .. } | Access::Add { .. } = access {
            // No branch hangs on it.
            core.mispredicts = false;
        }
        let waited = core.now - core.pending.issued_at;
        core.waited += waited;
        core.stalled = true;
        let step = self.takes_effect(index, slot, access, TimelineEvent::Access, waited);
        self.charge_restart();
        step
    }

    /// Completes an access that is performed now.
    #[inline]
    pub(crate) fn takes_effect(
        &mut self,
        index: u32,
        slot: &mut Slot,
        access: &Access,
        event: TimelineEvent,
        waited: Ps,
    ) -> Step {
        self.complete(slot, access, event, waited);
        if self.cores[self.current as usize].watching {
            self.note_look(index, slot, access, words_at(slot.address));
        }
        Step::Perform
    }

    /// Counts the time for which the running core was stalled for a line.
    #[inline]
    pub(crate) fn count_stall(&mut self, line: u32, row: u32, since: Ps) {
        let core = &mut self.cores[self.current as usize];
        let waited = core.now - since;
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
        let core = &mut self.cores[self.current as usize];
        core.charge_squash(self.costs.squash);
        let mispredicts = std::mem::take(&mut core.mispredicts);
        let replays = std::mem::take(&mut core.replays);
        core.now += (u64::from(mispredicts) + u64::from(replays)) * self.costs.restart;
    }

    /// Charges a load whose line is here, and counts it; its core waited so long for the line.
    #[inline]
    pub(crate) fn complete_load(
        &mut self,
        line: u32,
        label: u32,
        event: TimelineEvent,
        waited: Ps,
    ) {
        let cost = self.varied(self.costs.hit[self.pace()].load);
        let me = self.current;
        let core = &mut self.cores[me as usize];
        let (at, watching) = (core.now, core.watching);
        let key = Statistics::key(label, core.operation);
        core.now += cost;
        let row = self.stats.row(key);
        row.loads += 1;
        row.hits += u64::from(event == TimelineEvent::Hit);
        row.wait += waited;
        let entry = &mut self.lines.lines[line as usize];
        entry.totals.wait += waited;
        if entry.traced {
            self.timeline.record(at, me, key, event);
        }
        if watching {
            core.watch(line, key, entry.version, entry.version);
        }
    }

    /// Charges an access whose line is here (or whose store is in the buffer), and counts it; its core
    /// waited so long for the line.
    pub(crate) fn complete(
        &mut self,
        slot: &mut Slot,
        access: &Access,
        event: TimelineEvent,
        waited: Ps,
    ) {
        let cost = &self.costs.hit[self.pace()];
        let partial_store = cost.partial_store;
        let cost = match *access {
            Access::Load { .. } => return self.complete_load(slot.line, slot.row, event, waited),
            Access::Store { .. } => cost.store,
            // An atomic that hit has had its time already.
            _ if event == TimelineEvent::Hit => 0,
            _ => cost.atomic,
        };
        let cost = self.varied(cost);
        let me = self.current;
        let Self { cores, lines, stats, timeline, .. } = self;
        let core = &mut cores[me as usize];
        let at = core.now;
        core.now += cost;
        let key = Statistics::key(slot.row, core.operation);
        let row = stats.row(key);
        row.hits += u64::from(event == TimelineEvent::Hit);
        row.wait += waited;
        match *access {
            Access::Store { mask, .. } => {
                row.stores += 1;
                slot.partial_until = partial_until(mask, at + cost, partial_store);
            }
            Access::FencedStore { .. } => row.stores += 1,
            _ => row.rmws += 1,
        }
        let entry = &mut lines.lines[slot.line as usize];
        entry.totals.wait += waited;
        if entry.traced {
            timeline.record(at, me, key, event);
        }
        let before = entry.version;
        // Not written yet, if the store waits in the store buffer.
        if entry.may_write(core.cache) && core.pending_store(slot.line).is_none() {
            entry.note_written(words_at(slot.address));
        }
        if core.watching {
            core.watch(slot.line, key, before, entry.version);
        }
        let wakes = entry.version != before && entry.sleepers > 0;
        self.note_writer(slot);
        if wakes {
            self.wake_siblings(slot.line, me, at + cost);
        }
    }

    /// What an access costs the running core that takes so long alone. InFlight a busy SMT sibling, with
    /// which it shares its issue slots, that varies: else two siblings in the same loop could stay in
    /// step for ever, as no two threads do.
    #[inline]
    pub(crate) fn varied(&mut self, cost: Ps) -> Ps {
        if self.pace() == 0 { cost } else { scale(cost, self.factor(self.current)) }
    }
}

impl Core {
    /// Charges what it costs the core if another one read a line that it was using. It notices at its
    /// next access, or when the line that it missed then is back.
    #[inline]
    pub(crate) fn charge_squash(&mut self, cost: Ps) {
        if std::mem::take(&mut self.squashed) {
            self.now += cost;
        }
    }

    /// Notes that the condition of a wait accessed a line, whose version was `before` and is `after`
    /// by that.
    #[inline]
    fn watch(&mut self, line: u32, row: u32, before: u32, after: u32) {
        match self.watched.iter_mut().find(|entry| entry.line == line) {
            // Unchanged since it was first read, other than by this access.
            Some(entry) if entry.version == before => entry.version = after,
            Some(_) => {}
            None => self.watched.push(Watched { line, version: after, row }),
        }
    }
}
