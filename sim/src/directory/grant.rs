//! Requests in the queue of their line: when each is granted, who supplies the line, who loses it.

use cellbench_mutations::mutated;

use super::Directory;
use crate::core::{Core, State};
use crate::costs::{Costs, NEVER, Ps, scale};
use crate::line::{Line, MIGRATES, NO_CACHE, Source};
use crate::machine::Distance;
use crate::protocol::{Protocol, Supplier};
use crate::request::{Request, Requester, Want, Wanted};
use crate::stats::Row;

/// The source of a line's data for one request, and what the transfer from it costs.
#[derive(Debug, Clone, Copy)]
struct Supply {
    source: Source,
    cost: Ps,
}

/// A request whose time has come, with what the outcome depends on and counts in.
pub(crate) struct Grant<'a> {
    pub(crate) costs: &'a Costs,
    pub(crate) line: u32,
    pub(crate) at: Ps,
    pub(crate) request: Request,
    /// The core that requested the line.
    pub(crate) core: &'a mut Core,
    /// The row of the statistics that the request counts in.
    pub(crate) row: &'a mut Row,
}

/// The state of the first request of a line when its grant event comes.
pub(crate) enum Due {
    /// The event is out of date.
    Nothing,
    /// The owner executes an atomic until this time.
    Postponed(Ps),
    /// The request, taken out of the queue.
    Granted(Request),
}

impl Directory {
    /// Puts a request of a core into the queue of its line. Returns when it is granted, if it is the
    /// first there: for this time an event is to be queued.
    pub(crate) fn enqueue(
        &mut self,
        costs: &Costs,
        wanted: &Wanted,
        by: Requester,
        asker: &mut Core,
        now: Ps,
    ) -> Option<Ps> {
        let &Wanted { line, want, adds, words, row } = wanted;
        let (core, cache) = (asker.number, asker.cache);
        let factor = costs.factor(&mut asker.rng);
        let supply = self.supply(costs, line, cache, want, now);
        let scaled = scale(supply.cost, factor);
        let arrives_at = now + scaled / 4;
        let entry = &mut self.lines[line as usize];
        let factor = factor as u32;
        let request = Request { arrives_at, factor, row, core, cache, words, want, adds, by };
        let first = entry.queue.insert(request);
        entry.totals.longest_queue = entry.totals.longest_queue.max(entry.queue.len() as u64);
        if !first {
            return None;
        }
        if !entry.forwards(now) {
            return Some(self.schedule_first_grant(costs, line));
        }
        // Then what was found for it holds when it arrives, too.
        entry.grant_source = Some(supply.source);
        entry.grant_cost = supply.cost;
        Some(entry.schedule_grant(costs, arrives_at, scaled))
    }

    /// Returns when the first request that waits for a line is granted, for which an event is to be
    /// queued; notes how the line will be supplied.
    pub(crate) fn schedule_first_grant(&mut self, costs: &Costs, line: u32) -> Ps {
        let first = self.lines[line as usize].queue.first();
        let (cache, want, arrives_at, factor) = match first {
            Some(first) => (first.cache, first.want, first.arrives_at, u64::from(first.factor)),
            None => return NEVER,
        };
        let supply = self.supply(costs, line, cache, want, arrives_at);
        let entry = &mut self.lines[line as usize];
        entry.grant_source = entry.forwards(arrives_at).then_some(supply.source);
        entry.grant_cost = supply.cost;
        entry.schedule_grant(costs, arrives_at, scale(supply.cost, factor))
    }

    /// Takes the first request that waits for a line, if this is still when it is due.
    #[inline]
    pub(crate) fn take_due(&mut self, line: u32, at: Ps) -> Due {
        let entry = &mut self.lines[line as usize];
        if entry.grant_at != at {
            return Due::Nothing;
        }
        if at < entry.locked_until {
            entry.grant_at = entry.locked_until;
            return Due::Postponed(entry.grant_at);
        }
        entry.grant_at = NEVER;
        // Part by part, as it was written: a processor stalls on what was just written in other parts.
        let Some(&Request { arrives_at, factor, row, core, cache, words, want, adds, by }) =
            entry.queue.first()
        else {
            return Due::Nothing;
        };
        entry.queue.remove_first();
        Due::Granted(Request { arrives_at, factor, row, core, cache, words, want, adds, by })
    }

    /// Gives the requester a readable copy. Returns when it arrives.
    pub(crate) fn grant_read(&mut self, protocol: Protocol, grant: Grant<'_>) -> Ps {
        let Grant { costs, line, at, request, core, row } = grant;
        let supply = self.supply_granted(costs, line, &request, at);
        let here_at = at + scale(supply.cost, u64::from(request.factor)) / 2;
        let cache = request.cache;
        let entry = &mut self.lines[line as usize];
        count_source(costs, entry, core, row, line, supply.source, &request);
        entry.free_at = entry.free_at.max(at + costs.service);
        if supply.source == Source::Memory {
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
            Supplier::Reader if mutated!(ReaderNotForwarder) => {}
            Supplier::Reader => {
                entry.owner = cache;
                entry.owner_ready_at = here_at;
            }
        }
        entry.dirty &= outcome.next_supplier == Supplier::Owner;
        entry.exclusive = false;
        if let Some(before) = before {
            self.set_only_sharer(line, before);
        }
        self.add_sharer(line, cache);
        here_at
    }

    /// Gives the requester the only copy. Returns when it arrives.
    #[inline(always)]
    pub(crate) fn grant_ownership(&mut self, grant: Grant<'_>) -> Ps {
        let Grant { costs, line, at, request, core, row } = grant;
        let cache = request.cache;
        let supply = self.supply_granted(costs, line, &request, at);
        let invalidated = if self.lines[line as usize].exclusive {
            1
        } else {
            u64::from(self.lines[line as usize].copies) - u64::from(self.is_sharer(line, cache))
        };
        let entry = &mut self.lines[line as usize];
        count_source(costs, entry, core, row, line, supply.source, &request);
        if costs.migratory {
            if (entry.written == 0 && entry.exclusive) || entry.home == cache {
                // Its owner took it to write, and did not; or its writer writes it again.
                entry.migrations = 0;
            } else if supply.source == Source::Own && invalidated == 1 {
                entry.migrations = (entry.migrations + 1).min(MIGRATES);
            }
        }
        row.invalidations += invalidated;
        row.upgrades += u64::from(supply.source == Source::Own);
        let here_at = at
            + scale(supply.cost, u64::from(request.factor)) / 2
            + invalidated.saturating_sub(1) * costs.snoop_issue;
        let spread = costs.ownership_spread;
        entry.kept_factor = 65536 - spread + core.rng.below(2 * spread + 1);
        if request.adds {
            entry.kept_factor = scale(entry.kept_factor, costs.addition_factor);
        }
        // The operation it took the line for is completed before the next snoop is answered.
        let (hold, kept) = if request.by == Requester::StoreBuffer {
            let is_awaited = core.state == State::Draining && core.stores.drain.line == line;
            entry.kept_factor = scale(entry.kept_factor, costs.drained_window);
            (costs.hold_store, is_awaited)
        } else {
            (costs.hold_atomic, request.by != Requester::RunAhead)
        };
        entry.owner = cache;
        entry.home = cache;
        entry.exclusive = true;
        entry.dirty = true;
        entry.owner_ready_at = here_at;
        entry.free_at = here_at + if mutated!(OwnerHoldsNothing) { 0 } else { hold };
        entry.kept = kept;
        entry.written = if request.want == Want::Own { request.words } else { 0 };
        entry.totals.invalidations += invalidated;
        here_at
    }

    /// Returns who supplies a line for a request that is granted; this may be known already.
    #[inline(always)]
    fn supply_granted(&self, costs: &Costs, line: u32, request: &Request, at: Ps) -> Supply {
        let entry = &self.lines[line as usize];
        match entry.grant_source {
            Some(source) => Supply { source, cost: entry.grant_cost },
            None => self.supply(costs, line, request.cache, request.want, at),
        }
    }

    /// Returns who supplies a line to a cache at a time, and the cost from request to arrival.
    #[inline(always)]
    fn supply(&self, costs: &Costs, line: u32, cache: u16, want: Want, at: Ps) -> Supply {
        let entry = &self.lines[line as usize];
        if entry.exclusive && entry.owner != cache {
            // The owner's is the only copy there is: it is the farthest.
            return Supply {
                source: Source::Owner,
                cost: costs.transfer_by(entry.first_toucher, entry.owner, cache),
            };
        }
        self.supply_shared(costs, line, cache, want, at)
    }

    #[inline(never)]
    fn supply_shared(&self, costs: &Costs, line: u32, cache: u16, want: Want, at: Ps) -> Supply {
        let entry = &self.lines[line as usize];
        let (source, cost) = if self.holds(line, cache) {
            (Source::Own, costs.llc_fill)
        } else if entry.owner != NO_CACHE && entry.forwards(at) {
            (Source::Owner, costs.transfer_by(entry.first_toucher, entry.owner, cache))
        } else if entry.home == NO_CACHE {
            let local = costs.distance(entry.first_toucher, cache) != Distance::CrossSocket;
            let fill = if local { costs.memory_fill } else { costs.remote_memory_fill };
            (Source::Memory, fill)
        } else if costs.distance(entry.home, cache) <= Distance::SameLlc {
            (Source::Llc, costs.llc_fill)
        } else {
            (Source::Home, costs.transfer_by(entry.first_toucher, entry.home, cache))
        };
        if want == Want::Read || entry.exclusive {
            return Supply { source, cost };
        }
        // Nobody has a copy of a line that was in memory only.
        if source == Source::Memory {
            return Supply { source, cost };
        }
        Supply { source, cost: cost.max(costs.farthest(self.sharers.set(line), cache)) }
    }
}

/// Counts the transfer that supplies a line, and notes whether the waiting core mispredicts its value.
#[inline(always)]
fn count_source(
    costs: &Costs,
    entry: &mut Line,
    core: &mut Core,
    row: &mut Row,
    line: u32,
    source: Source,
    request: &Request,
) {
    // Written by somebody else meanwhile, but nothing of what is wanted: false sharing.
    let falsely = entry.written != 0 && entry.written & request.words == 0;
    let falsely = u64::from(falsely && !mutated!(FalseSharingUncounted));
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
    row.hitms += u64::from(entry.dirty || mutated!(CleanCountedAsModified));
    // Otherwise it was read ahead of everything that could have gone wrong by it.
    if request.by == Requester::Access
        || request.by != Requester::StoreBuffer && core.prefetcher.missed_line == line
    {
        core.mispredicts = entry.dirty && entry.changed_by != NO_CACHE && entry.changed_by != cache;
    }
    entry.totals.transfers += 1;
}
