//! From what was counted to the [`Report`].

use crate::core::State;
use crate::costs::{NEVER, ns};
use crate::report::{
    AccessRow, CoreReport, Counters, End, FalseSharing, Field, LineReport, REPORT_SCHEMA, Report,
    TimelineEntry, TimelineReport,
};
use crate::stats::Row;
use crate::world::World;

impl Row {
    fn counters(&self) -> Counters {
        Counters {
            loads: self.loads,
            stores: self.stores,
            rmws: self.rmws,
            hits: self.hits,
            transfers_same_llc: self.transfers[1],
            transfers_cross_llc: self.transfers[2],
            transfers_cross_socket: self.transfers[3],
            llc_fills: self.llc_fills,
            memory_fills: self.memory_fills,
            rfos: self.rfos,
            upgrades: self.upgrades,
            hitms: self.hitms,
            invalidations: self.invalidations,
            writebacks: self.writebacks,
            false_sharing: self.false_sharing,
            wait_ns: ns(self.wait),
            spin_ns: ns(self.spin),
            spin_loads: self.spin_loads,
        }
    }
}

/// Returns the report of a simulation that has ended.
pub(crate) fn report(mut world: World, machine: &str, seed: u64) -> Report {
    for core in 0..world.cores.len() as u16 {
        // Whoever still spins has spun until now.
        let end = ended_at(&world);
        world.end_sleep(core, end);
    }
    for line in world.lines.known() {
        world.stats.retire_line(&line.members, &line.totals);
    }
    let mut totals = Row::default();
    let sorted = world.stats.sorted_rows();
    let mut rows = Vec::with_capacity(sorted.len());
    for (label, operation, row) in sorted {
        totals.add(&row);
        rows.push(AccessRow {
            label: label.to_owned(),
            operation: operation.to_owned(),
            counters: row.counters(),
        });
    }
    let (lines, false_sharing) = line_reports(&world);
    Report {
        schema: REPORT_SCHEMA,
        machine: machine.to_owned(),
        seed,
        end: world.end.unwrap_or(End::Completed),
        duration_ns: ns(ended_at(&world)),
        totals: totals.counters(),
        rows,
        lines,
        false_sharing,
        cores: core_reports(&world),
        timeline: timeline_report(&world),
    }
}

fn ended_at(world: &World) -> u64 {
    let used = world.cores.iter().filter(|core| core.state != State::Unused);
    let latest = used.map(|core| core.finished_at.unwrap_or(core.now)).max().unwrap_or(0);
    match world.end {
        Some(End::TimeLimit) => world.time_limit,
        _ if latest == NEVER => world.time_limit,
        _ => latest,
    }
}

fn line_reports(world: &World) -> (Vec<LineReport>, Vec<FalseSharing>) {
    let mut lines = Vec::new();
    let mut false_sharing = Vec::new();
    for (layout, found) in &world.stats.layouts {
        let fields: Vec<Field> = layout
            .iter()
            .map(|&(offset, label)| Field { label: label.to_owned(), offset })
            .collect();
        let totals = &found.totals;
        for &(first, second) in &found.apart {
            if totals.false_sharing > 0 {
                false_sharing.push(FalseSharing {
                    first: fields[first].clone(),
                    second: fields[second].clone(),
                    lines: totals.lines,
                    requests: totals.false_sharing,
                });
            }
        }
        lines.push(LineReport {
            fields,
            lines: totals.lines,
            transfers: totals.transfers,
            invalidations: totals.invalidations,
            false_sharing: totals.false_sharing,
            wait_ns: ns(totals.wait),
            longest_queue: totals.longest_queue,
        });
    }
    lines.sort_by(|a, b| b.wait_ns.total_cmp(&a.wait_ns).then_with(|| a.fields.cmp(&b.fields)));
    false_sharing.sort_by(|a, b| {
        let fields = |pair: &FalseSharing| (pair.first.clone(), pair.second.clone());
        b.requests.cmp(&a.requests).then_with(|| fields(a).cmp(&fields(b)))
    });
    (lines, false_sharing)
}

fn core_reports(world: &World) -> Vec<CoreReport> {
    let used = world.cores.iter().enumerate().filter(|(_, core)| core.state != State::Unused);
    used.map(|(number, core)| {
        let watched = core.waiter.watched.first().filter(|_| core.state == State::Asleep);
        CoreReport {
            core: number,
            finished_ns: core.finished_at.map(ns),
            waiting_for: watched.map(|entry| world.stats.names(entry.row).0.to_owned()),
            wait_ns: ns(core.waited),
            spin_ns: ns(core.spun),
            off_ns: ns(core.off),
            interrupts: core.interrupts,
        }
    })
    .collect()
}

fn timeline_report(world: &World) -> Option<TimelineReport> {
    let label = world.timeline.label()?.to_owned();
    let mut events: Vec<TimelineEntry> = world
        .timeline
        .events
        .iter()
        .map(|event| {
            let (label, operation) = world.stats.names(event.row);
            TimelineEntry {
                at_ns: ns(event.at),
                core: usize::from(event.core),
                event: event.event,
                label: label.to_owned(),
                operation: operation.to_owned(),
            }
        })
        .collect();
    events.sort_by(|a, b| a.at_ns.total_cmp(&b.at_ns));
    Some(TimelineReport { label, events, lost: world.timeline.lost })
}
