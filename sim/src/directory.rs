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

use crate::core::{Core, State};
use crate::costs::{Costs, NEVER, Ps, scale};
use crate::events::Event;
use crate::line::{Directory, Line, MIGRATES, NO_CACHE, Request, Requester, Source, Want};
use crate::machine::Distance;
use crate::protocol::Supplier;
use crate::stats::Row;
use crate::timeline::TimelineEvent;
use crate::world::World;

impl World {
    /// Requests a line for a core.
    pub(crate) fn request(
        &mut self,
        line: u32,
        want: Want,
        (words, row): (u16, u32),
        by: Requester,
        (core, now): (u16, Ps),
    ) {
        let Self { cores, lines, costs, stats, .. } = self;
        let asker = &mut cores[core as usize];
        let (cache, factor) = (asker.cache, costs.factor(&mut asker.rng));
        let (source, cost) = supply(costs, lines, line, cache, want, now);
        let scaled = scale(cost, factor);
        let arrives_at = now + scaled / 4;
        stats.row(row).rfos += u64::from(want == Want::Own);
        let entry = &mut lines.lines[line as usize];
        let factor = factor as u32;
        let request = Request { arrives_at, factor, row, core, cache, words, want, by };
        let first = entry.queue.insert(request);
        entry.totals.longest_queue = entry.totals.longest_queue.max(entry.queue.len() as u64);
        if entry.traced {
            self.timeline.record(now, core, row, TimelineEvent::Request);
        }
        if !first {
            return;
        }
        let at = if entry.forwards(now) {
            // Then what was found for it holds when it arrives, too.
            entry.grant_source = Some(source);
            entry.grant_cost = cost;
            grant_time(costs, entry, arrives_at, scaled)
        } else {
            self.schedule_first_grant(line)
        };
        self.push(at, Event::grant(line));
    }

    /// When the first request that waits for a line is granted, for which this is an event to be
    /// queued; notes how it will be supplied.
    fn schedule_first_grant(&mut self, line: u32) -> Ps {
        let Self { lines, costs, .. } = self;
        let first = lines.lines[line as usize].queue.first();
        let (cache, want, arrives_at, factor) = match first {
            Some(first) => (first.cache, first.want, first.arrives_at, u64::from(first.factor)),
            None => return NEVER,
        };
        let (source, cost) = supply(costs, lines, line, cache, want, arrives_at);
        let entry = &mut lines.lines[line as usize];
        entry.grant_source = entry.forwards(arrives_at).then_some(source);
        entry.grant_cost = cost;
        grant_time(costs, entry, arrives_at, scale(cost, factor))
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
            self.events.push(at, Event::grant(line));
            return;
        }
        entry.grant_at = NEVER;
        // Part by part, as it was written: a processor stalls on what was just written in other parts.
        let Some(&Request { arrives_at, factor, row, core, cache, words, want, by }) =
            entry.queue.first()
        else {
            return;
        };
        let request = Request { arrives_at, factor, row, core, cache, words, want, by };
        entry.queue.remove_first();
        let (owned, exclusive) = (entry.may_write(request.cache), entry.exclusive);
        let asks_again = (entry.stores_wait && exclusive && !owned).then_some(entry.owner);
        entry.stores_wait &= asks_again.is_none();
        let here_at = match request.want {
            _ if owned => at,
            Want::Read if !exclusive && self.lines.is_sharer(line, request.cache) => at,
            Want::Read if !self.migrates(line) => self.grant_read(line, at, request),
            _ => self.grant_ownership(line, at, request),
        };
        let entry = &mut self.lines.lines[line as usize];
        entry.grant_source = None;
        let more = !entry.queue.is_empty();
        if entry.traced {
            self.timeline.record(here_at, request.core, request.row, TimelineEvent::Arrival);
        }
        let core = &mut self.cores[request.core as usize];
        if request.by == Requester::StoreBuffer {
            entry.stores_wait = true;
            for store in &mut core.stores {
                if store.line == line && store.done_at == NEVER {
                    store.done_at = here_at;
                }
            }
            self.events.push(here_at, Event::commit(request.core));
        } else if request.by == Requester::Access || core.fetched(line, here_at) {
            let what = core.going_on(request.core);
            self.events.push(here_at, what);
        }
        if more {
            let at = self.schedule_first_grant(line);
            self.events.push(at, Event::grant(line));
        }
        if let Some(cache) = asks_again {
            self.ask_again(line, cache, at);
        }
        while let Some(core) = self.losers.pop() {
            self.fetch_again(core, line, at);
        }
    }

    fn grant_read(&mut self, line: u32, at: Ps, request: Request) -> Ps {
        self.note_squashed(line);
        let (source, cost) = supply_granted(&self.costs, &self.lines, line, &request, at);
        let here_at = at + scale(cost, u64::from(request.factor)) / 2;
        let cache = request.cache;
        let Self { protocol, lines, cores, costs, stats, .. } = self;
        let row = stats.row(request.row);
        let entry = &mut lines.lines[line as usize];
        count_source(
            costs,
            entry,
            &mut cores[request.core as usize],
            row,
            (line, source),
            &request,
        );
        entry.free_at = entry.free_at.max(at + costs.service);
        if source == Source::Memory {
            entry.owner = cache;
            entry.home = cache;
            entry.exclusive = true;
            entry.owner_ready_at = here_at;
            entry.free_at = here_at;
            return here_at;
        }
        let outcome = protocol.after_read(entry.dirty);
        row.writebacks += u64::from(outcome.writes_back);
        let before = entry.exclusive.then_some(entry.owner);
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
        if let Some(before) = before {
            lines.set_only_sharer(line, before);
        }
        lines.add_sharer(line, cache);
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

    #[inline(always)]
    fn grant_ownership(&mut self, line: u32, at: Ps, request: Request) -> Ps {
        let cache = request.cache;
        if self.expecting > 0 {
            self.note_losers(line, cache);
        }
        if self.lines.lines[line as usize].sleepers > 0 {
            self.invalidate_sleepers(line, at, cache, request.core);
        }
        let (source, cost) = supply_granted(&self.costs, &self.lines, line, &request, at);
        let Self { lines, cores, costs, stats, .. } = self;
        let invalidated = if lines.lines[line as usize].exclusive {
            1
        } else {
            u64::from(lines.lines[line as usize].copies) - u64::from(lines.is_sharer(line, cache))
        };
        let entry = &mut lines.lines[line as usize];
        let core = &mut cores[request.core as usize];
        let row = stats.row(request.row);
        count_source(costs, entry, core, row, (line, source), &request);
        if costs.migratory {
            if (entry.written == 0 && entry.exclusive) || entry.home == cache {
                // Its owner took it to write, and did not; or its writer writes it again.
                entry.migrations = 0;
            } else if source == Source::Own && invalidated == 1 {
                entry.migrations = (entry.migrations + 1).min(MIGRATES);
            }
        }
        row.invalidations += invalidated;
        row.upgrades += u64::from(source == Source::Own);
        let here_at = at
            + scale(cost, u64::from(request.factor)) / 2
            + invalidated.saturating_sub(1) * costs.snoop_issue;
        let spread = costs.ownership_spread;
        entry.kept_factor = 65536 - spread + core.rng.below(2 * spread + 1);
        // The operation it took the line for is completed before the next snoop is answered.
        let (hold, kept) = if request.by == Requester::StoreBuffer {
            let is_awaited = core.state == State::Draining && core.drain.line == line;
            (costs.hold_store, is_awaited)
        } else {
            (costs.hold_atomic, request.by != Requester::RunAhead)
        };
        entry.owner = cache;
        entry.home = cache;
        entry.exclusive = true;
        entry.dirty = true;
        entry.owner_ready_at = here_at;
        entry.free_at = here_at + hold;
        entry.kept = kept;
        entry.written = if request.want == Want::Own { request.words } else { 0 };
        entry.totals.invalidations += invalidated;
        here_at
    }

    /// Wakes the cores that sleep on a line which a cache takes for writing. The cores of that
    /// cache sleep on: their copy stays, and the write itself will wake them.
    fn invalidate_sleepers(&mut self, line: u32, at: Ps, cache: u16, writer: u16) {
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
}

/// When the first request that waits for a line is granted, which arrives at a time and whose supply
/// takes so long; notes it.
#[inline]
fn grant_time(costs: &Costs, entry: &mut Line, arrives_at: Ps, cost: Ps) -> Ps {
    let mut at = (arrives_at + cost / 4).max(entry.free_at);
    if entry.exclusive && entry.kept {
        let window = scale(scale(cost, costs.ownership_share), entry.kept_factor);
        at = at.max(entry.owner_ready_at + window);
    }
    entry.grant_at = at;
    at
}

/// Who supplies a line to the one who is granted it; it may be known already.
#[inline(always)]
fn supply_granted(
    costs: &Costs,
    lines: &Directory,
    line: u32,
    request: &Request,
    at: Ps,
) -> (Source, Ps) {
    let entry = &lines.lines[line as usize];
    match entry.grant_source {
        Some(source) => (source, entry.grant_cost),
        None => supply(costs, lines, line, request.cache, request.want, at),
    }
}

/// Who supplies a line to a cache at a time, and what that costs from request to arrival.
#[inline(always)]
fn supply(
    costs: &Costs,
    lines: &Directory,
    line: u32,
    cache: u16,
    want: Want,
    at: Ps,
) -> (Source, Ps) {
    let entry = &lines.lines[line as usize];
    if entry.exclusive && entry.owner != cache {
        // The owner's is the only copy there is: it is the farthest.
        return (Source::Owner, costs.transfer(entry.owner, cache));
    }
    supply_shared(costs, lines, line, cache, want, at)
}

#[inline(never)]
fn supply_shared(
    costs: &Costs,
    lines: &Directory,
    line: u32,
    cache: u16,
    want: Want,
    at: Ps,
) -> (Source, Ps) {
    let entry = &lines.lines[line as usize];
    let (source, cost) = if lines.holds(line, cache) {
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
    // Nobody has a copy of a line that was in memory only.
    if source == Source::Memory {
        return (source, cost);
    }
    (source, cost.max(costs.farthest(lines.sharers(line), cache)))
}

/// Counts who supplies a line, and what it is to the core that waits for it.
#[inline(always)]
fn count_source(
    costs: &Costs,
    entry: &mut Line,
    core: &mut Core,
    row: &mut Row,
    (line, source): (u32, Source),
    request: &Request,
) {
    // Written by somebody else meanwhile, but nothing of what is wanted: false sharing.
    let falsely = u64::from(entry.written != 0 && entry.written & request.words == 0);
    row.false_sharing += falsely;
    entry.totals.false_sharing += falsely;
    if source != Source::Owner && source != Source::Home {
        row.llc_fills += u64::from(source == Source::Llc);
        row.memory_fills += u64::from(source == Source::Memory);
        return;
    }
    let cache = request.cache;
    let from = if source == Source::Owner { entry.owner } else { entry.home };
    row.transfers[costs.borders(from, cache)] += 1;
    row.hitms += u64::from(entry.dirty);
    // Otherwise it was read ahead of everything that could have gone wrong by it.
    if request.by == Requester::Access
        || request.by != Requester::StoreBuffer && core.missed_line == line
    {
        core.mispredicts = entry.dirty && entry.changed_by != NO_CACHE && entry.changed_by != cache;
    }
    entry.totals.transfers += 1;
}
