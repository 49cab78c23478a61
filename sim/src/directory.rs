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
//! Requests for one line are granted one at a time in the order in which they arrive at the
//! directory (a quarter of a transfer after they were issued, so nearer cores get ahead). One that
//! had to wait is granted as soon as the line is free: its snoop is there already.
//!
//! - A read occupies its line for `directory.service_ns`: many readers are served at that pace.
//! - Where the machine detects migratory lines, a read takes such a line as a write does: the
//!   reader is expected to write it next.
//! - A write invalidates all other copies, `directory.snoop_issue_ns` apart, and takes as long as
//!   the farthest of them; all copies are lost at the grant.

use crate::core::State;
use crate::costs::{NEVER, Ps, scale};
use crate::events::Happening;
use crate::line::{By, MIGRATES, NO_CACHE, Request, Source, Want};
use crate::machine::Distance;
use crate::protocol::Supplier;
use crate::timeline::What;
use crate::world::World;

impl World {
    /// Requests a line for a core.
    pub(crate) fn request(
        &mut self,
        line: u32,
        want: Want,
        (words, row): (u16, u32),
        by: By,
        (core, now): (u16, Ps),
    ) {
        let cache = self.cores[core as usize].cache;
        let factor = self.factor(core);
        let (source, cost) = self.supply(line, cache, want, now);
        let arrives_at = now + scale(cost, factor) / 4;
        let request = Request { core, cache, want, by, words, row, arrives_at, factor };
        let entry = &mut self.lines.lines[line as usize];
        let first = entry.queue.insert(request);
        // Then what was found for it holds when it arrives, too.
        let holds = entry.forwards(now);
        entry.totals.longest_queue = entry.totals.longest_queue.max(entry.queue.len() as u64);
        let counted = self.stats.row(row);
        counted.rfos += u64::from(want == Want::Own);
        self.trace(line, now, core, row, What::Request);
        if first {
            let supply =
                if holds { (source, cost) } else { self.supply(line, cache, want, arrives_at) };
            self.schedule_grant(line, supply, (arrives_at, factor));
        }
    }

    /// Queues the grant of the first request that waits for a line, if one does.
    #[inline]
    fn schedule_next_grant(&mut self, line: u32) {
        let Some(first) = self.lines.lines[line as usize].queue.first() else { return };
        let (arrives_at, factor) = (first.arrives_at, first.factor);
        let supply = self.supply(line, first.cache, first.want, arrives_at);
        self.schedule_grant(line, supply, (arrives_at, factor));
    }

    /// Queues the grant of the first request that waits for a line: when it arrives it will be
    /// supplied so, at the cost of that times its random factor.
    #[inline]
    fn schedule_grant(
        &mut self,
        line: u32,
        (source, cost): (Source, Ps),
        (arrives_at, factor): (Ps, u64),
    ) {
        let entry = &mut self.lines.lines[line as usize];
        entry.grant_source = entry.forwards(arrives_at).then_some(source);
        entry.grant_cost = cost;
        let cost = scale(cost, factor);
        let mut at = (arrives_at + cost / 4).max(entry.free_at);
        if entry.exclusive && entry.kept {
            let window = scale(scale(cost, self.costs.ownership_share), entry.kept_factor);
            at = at.max(entry.owner_ready_at + window);
        }
        entry.grant_at = at;
        self.push(at, Happening::Grant { line });
    }

    /// Serves the first request that waits for a line, if this is still when it is due.
    pub(crate) fn grant(&mut self, line: u32, at: Ps) {
        let entry = &mut self.lines.lines[line as usize];
        if entry.grant_at != at {
            return;
        }
        if at <= entry.locked_until {
            let at = entry.locked_until + 1;
            entry.grant_at = at;
            self.push(at, Happening::Grant { line });
            return;
        }
        entry.grant_at = NEVER;
        let Some(&request) = entry.queue.first() else { return };
        entry.queue.remove_first();
        let cache = request.cache;
        let here_at = match request.want {
            Want::Read if self.lines.is_sharer(line, cache) => at,
            Want::Own if self.may_write(line, cache) => at,
            Want::Read if self.migrates(line) => self.grant_ownership(line, at, cache, &request),
            Want::Read => self.grant_read(line, at, cache, &request),
            Want::Own => self.grant_ownership(line, at, cache, &request),
        };
        self.trace(line, here_at, request.core, request.row, What::Arrival);
        match request.by {
            By::Access => self.push_going_on(here_at, request.core),
            By::StoreBuffer => {
                for store in &mut self.cores[request.core as usize].stores {
                    if store.line == line && store.done_at == NEVER {
                        store.done_at = here_at;
                    }
                }
                self.push(here_at, Happening::Commit { core: request.core });
            }
            By::RunAhead { .. } => {
                if self.fetched(request.core, line, here_at) {
                    self.push_going_on(here_at, request.core);
                }
            }
        }
        self.lines.lines[line as usize].grant_source = None;
        self.schedule_next_grant(line);
        while let Some(core) = self.losers.pop() {
            self.fetch_again(core, line, at);
        }
    }

    #[inline(always)]
    fn grant_read(&mut self, line: u32, at: Ps, cache: u16, request: &Request) -> Ps {
        let (source, cost) = self.supply_granted(line, cache, Want::Read, at);
        let here_at = at + scale(cost, request.factor) / 2;
        self.count_source(line, cache, source, request);
        self.note_disturbed(line);
        let (protocol, service) = (self.protocol, self.costs.service);
        let entry = &mut self.lines.lines[line as usize];
        entry.free_at = entry.free_at.max(at + service);
        let mut written_back = false;
        if source == Source::Memory {
            entry.owner = cache;
            entry.home = cache;
            entry.exclusive = true;
            entry.owner_ready_at = here_at;
            entry.free_at = here_at;
        } else {
            let outcome = protocol.after_read(entry.dirty);
            written_back = outcome.writes_back;
            if entry.owner != NO_CACHE {
                entry.home = entry.owner;
            }
            match outcome.next_supplier {
                Supplier::Owner => {}
                Supplier::Llc => entry.owner = NO_CACHE,
                Supplier::Reader => {
                    entry.owner = cache;
                    entry.owner_ready_at = here_at;
                }
            }
            entry.dirty &= outcome.next_supplier == Supplier::Owner;
            entry.exclusive = false;
        }
        self.lines.add_sharer(line, cache);
        self.stats.row(request.row).writebacks += u64::from(written_back);
        here_at
    }

    /// Whether the next reader of a line takes it for writing. A line whose last reader did so, and
    /// then did not write, does not migrate any more.
    fn migrates(&mut self, line: u32) -> bool {
        let entry = &mut self.lines.lines[line as usize];
        if entry.migrations < MIGRATES || !entry.exclusive || !entry.dirty {
            return false;
        }
        if entry.written == 0 {
            entry.migrations = 0;
        }
        entry.migrations == MIGRATES
    }

    fn grant_ownership(&mut self, line: u32, at: Ps, cache: u16, request: &Request) -> Ps {
        let (source, cost) = self.supply_granted(line, cache, request.want, at);
        self.count_source(line, cache, source, request);
        let entry = &self.lines.lines[line as usize];
        let (was_exclusive, before) = (entry.exclusive, entry.owner);
        let invalidated = if was_exclusive {
            u64::from(before != cache)
        } else {
            let copies: u32 = self.lines.sharers(line).iter().map(|word| word.count_ones()).sum();
            u64::from(copies) - u64::from(self.lines.is_sharer(line, cache))
        };
        self.note_losers(line, cache);
        if self.costs.migratory {
            let entry = &mut self.lines.lines[line as usize];
            if (entry.written == 0 && entry.exclusive) || entry.home == cache {
                // Its owner took it to write, and did not; or its writer writes it again.
                entry.migrations = 0;
            } else if source == Source::Own && invalidated == 1 {
                entry.migrations = (entry.migrations + 1).min(MIGRATES);
            }
        }
        let row = self.stats.row(request.row);
        row.invalidations += invalidated;
        row.upgrades += u64::from(source == Source::Own);
        self.invalidate_sleepers(line, at, cache, request.core);
        let here_at = at
            + scale(cost, request.factor) / 2
            + invalidated.saturating_sub(1) * self.costs.snoop_issue;
        // The operation it took the line for is completed before the next snoop is answered.
        let buffered = request.by == By::StoreBuffer;
        let first_operation =
            if buffered { self.costs.hit[0].store } else { self.costs.hit[0].atomic };
        let spread = self.costs.ownership_spread;
        let rng = &mut self.cores[request.core as usize].rng;
        let kept_factor = 65536 - spread + rng.below(2 * spread + 1);
        let hold = self.costs.ownership_window.max(first_operation);
        let core = &self.cores[request.core as usize];
        let is_awaited = core.state == State::Draining && core.drain.line == line;
        let entry = &mut self.lines.lines[line as usize];
        entry.owner = cache;
        entry.home = cache;
        entry.exclusive = true;
        entry.dirty = true;
        entry.owner_ready_at = here_at;
        entry.free_at = here_at + hold;
        entry.kept = match request.by {
            By::Access | By::RunAhead { adds: true } => true,
            By::StoreBuffer => is_awaited,
            By::RunAhead { adds: false } => false,
        };
        entry.kept_factor = kept_factor;
        entry.written = if request.want == Want::Own { request.words } else { 0 };
        entry.totals.invalidations += invalidated;
        if was_exclusive {
            self.lines.remove_sharer(line, before);
            self.lines.add_sharer(line, cache);
        } else {
            self.lines.set_only_sharer(line, cache);
        }
        here_at
    }

    /// Who supplies a line to the cache that is first in its queue; it may be known already.
    #[inline]
    fn supply_granted(&self, line: u32, cache: u16, want: Want, at: Ps) -> (Source, Ps) {
        let entry = &self.lines.lines[line as usize];
        match entry.grant_source {
            Some(source) => (source, entry.grant_cost),
            None => self.supply(line, cache, want, at),
        }
    }

    /// Who supplies a line to a cache at a time, and what that costs from request to arrival.
    #[inline(always)]
    fn supply(&self, line: u32, cache: u16, want: Want, at: Ps) -> (Source, Ps) {
        let entry = &self.lines.lines[line as usize];
        let costs = &self.costs;
        if entry.exclusive && entry.owner != cache {
            // The owner's is the only copy there is: it is the farthest.
            return (Source::Owner, costs.transfer(entry.owner, cache));
        }
        let (source, cost) = if self.lines.is_sharer(line, cache) {
            (Source::Own, costs.llc_fill)
        } else if entry.owner != NO_CACHE && entry.forwards(at) {
            (Source::Owner, costs.transfer(entry.owner, cache))
        } else if entry.home == NO_CACHE {
            let local = costs.distance(entry.first_toucher, cache) != Distance::CrossSocket;
            let fill = if local { costs.memory_fill } else { costs.remote_memory_fill };
            (Source::Memory, fill)
        } else if costs.distance(entry.home, cache) <= Distance::SameLlc {
            (Source::Llc, costs.llc_fill)
        } else {
            (Source::Home, costs.transfer(entry.home, cache))
        };
        if want == Want::Read || entry.exclusive {
            return (source, cost);
        }
        (source, cost.max(costs.farthest(self.lines.sharers(line), cache)))
    }

    #[inline]
    fn count_source(&mut self, line: u32, cache: u16, source: Source, request: &Request) {
        let entry = &mut self.lines.lines[line as usize];
        let row = self.stats.row(request.row);
        // Written by somebody else meanwhile, but nothing of what is wanted: false sharing.
        let falsely = entry.written != 0 && entry.written & request.words == 0;
        row.false_sharing += u64::from(falsely);
        entry.totals.false_sharing += u64::from(falsely);
        match source {
            Source::Owner | Source::Home => {
                let from = if source == Source::Owner { entry.owner } else { entry.home };
                row.count_transfer(self.costs.distance(from, cache));
                row.hitms += u64::from(entry.dirty);
                let is_changed = entry.dirty && ![NO_CACHE, cache].contains(&entry.changed_by);
                let core = &mut self.cores[request.core as usize];
                match request.by {
                    By::Access => core.surprised = is_changed,
                    By::RunAhead { .. } if core.awaits == line => core.surprised = is_changed,
                    // It was read ahead of everything that could have gone wrong by it.
                    _ => {}
                }
                entry.totals.transfers += 1;
            }
            Source::Llc => row.llc_fills += 1,
            Source::Memory => row.memory_fills += 1,
            Source::Own => {}
        }
    }

    /// Wakes the cores that sleep on a line which a cache takes for writing. The cores of that
    /// cache sleep on: their copy stays, and the write itself will wake them.
    fn invalidate_sleepers(&mut self, line: u32, at: Ps, cache: u16, writer: u16) {
        if self.lines.lines[line as usize].sleepers == 0 {
            return;
        }
        let mut to_wake = std::mem::take(&mut self.to_wake);
        to_wake.clear();
        let cores = &self.cores;
        to_wake
            .extend(self.lines.sleepers(line).filter(|&core| cores[core as usize].cache != cache));
        // Snoops go out one after the other, starting behind the writer: over many writes nobody
        // is always first.
        let first = to_wake.iter().position(|&core| core > writer).unwrap_or(0);
        to_wake.rotate_left(first);
        for (position, &core) in to_wake.iter().enumerate() {
            self.wake(core, line, at + position as u64 * self.costs.snoop_issue);
        }
        self.to_wake = to_wake;
    }

    /// Wakes the SMT siblings of a core that sleep on a line it wrote.
    pub(crate) fn wake_siblings(&mut self, line: u32, me: u16, now: Ps) {
        let mut to_wake = std::mem::take(&mut self.to_wake);
        to_wake.clear();
        let cores = &self.cores;
        let cache = cores[me as usize].cache;
        to_wake.extend(
            self.lines
                .sleepers(line)
                .filter(|&core| core != me && cores[core as usize].cache == cache),
        );
        for &core in &to_wake {
            self.wake(core, line, now);
        }
        self.to_wake = to_wake;
    }

    pub(crate) fn trace(&mut self, line: u32, at: Ps, core: u16, row: u32, what: What) {
        if self.lines.lines[line as usize].traced {
            self.timeline.record(at, core, row, what);
        }
    }
}
