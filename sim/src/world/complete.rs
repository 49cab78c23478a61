//! The end of an access: its charge, and what is counted of it.

use super::World;
use crate::access::{Access, partial_until, words_at};
use crate::costs::{Ps, scale};
use crate::pending::Step;
use crate::slot::{NO_LINE, Slot};
use crate::stats::Statistics;
use crate::timeline::TimelineEvent;

impl World {
    /// Goes on with an access of the running core whose line is here.
    pub(crate) fn arrived(&mut self, index: u32, slot: &mut Slot, access: &Access) -> Step {
        let core = &mut self.cores[self.current as usize];
        core.prefetcher.missed_line = NO_LINE;
        if let Access::FencedStore { .. } | Access::Add { .. } = access {
            // No branch hangs on it.
            core.mispredicts = false;
        }
        let waited = core.now - core.pending.issued_at;
        core.waited += waited;
        // Nothing hangs on the result of an addition: what comes after it was executed meanwhile.
        core.stalled |= !matches!(access, Access::Add { .. });
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
            self.note_condition_load(index, slot, access, words_at(slot.address));
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
        core.now += u64::from(mispredicts) * self.costs.restart;
        core.now += u64::from(replays) * self.costs.replay;
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
            core.waiter.watch(line, key, entry.version, entry.version);
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
        if entry.may_write(core.cache) && !core.stores.stores_to(slot.line) {
            entry.note_written(words_at(slot.address));
        }
        if core.watching {
            core.waiter.watch(slot.line, key, before, entry.version);
        }
        let wakes = entry.version != before && entry.sleepers > 0;
        self.note_writer(slot);
        if wakes {
            self.wake_siblings(slot.line, me, at + cost);
        }
    }

    /// Returns what an access costs the running core that takes so long alone. InFlight a busy SMT sibling, with
    /// which it shares its issue slots, that varies: else two siblings in the same loop could stay in
    /// step for ever, as no two threads do.
    #[inline]
    pub(crate) fn varied(&mut self, cost: Ps) -> Ps {
        if self.pace() == 0 { cost } else { scale(cost, self.factor(self.current)) }
    }
}
