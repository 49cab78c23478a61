//! Accesses that certainly hit and that nothing can come before.

use super::World;
use crate::access::{Access, atomic_start, partial_until, words_at};
use crate::slot::{NO_LINE, Slot};
use crate::stats::Statistics;

impl World {
    /// Lets the running core do something with a word.
    #[inline]
    pub(crate) fn apply<R>(
        &mut self,
        index: usize,
        line: u32,
        apply: impl FnOnce(&mut u64) -> R,
    ) -> R {
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
            || !core.prefetcher.is_idle()
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
            let locked_from = atomic_ends.saturating_sub(cost.locked);
            if !owned || reached || line.grant_at <= locked_from {
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
