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

impl World {
    /// The report of a simulation that has ended.
    pub(crate) fn into_report(mut self, machine: &str, seed: u64) -> Report {
        for core in 0..self.cores.len() as u16 {
            // Whoever still spins has spun until now.
            let end = self.ended_at();
            self.end_sleep(core, end);
        }
        for line in self.lines.known() {
            self.stats.retire_line(&line.members, &line.totals);
        }
        let mut totals = Row::default();
        let sorted = self.stats.sorted_rows();
        let mut rows = Vec::with_capacity(sorted.len());
        for (label, operation, row) in sorted {
            totals.add(&row);
            rows.push(AccessRow {
                label: label.to_owned(),
                operation: operation.to_owned(),
                counters: row.counters(),
            });
        }
        let (lines, false_sharing) = self.line_reports();
        Report {
            schema: REPORT_SCHEMA,
            machine: machine.to_owned(),
            seed,
            end: self.end.unwrap_or(End::Completed),
            duration_ns: ns(self.ended_at()),
            totals: totals.counters(),
            rows,
            lines,
            false_sharing,
            cores: self.core_reports(),
            timeline: self.timeline_report(),
        }
    }

    fn ended_at(&self) -> u64 {
        let used = self.cores.iter().filter(|core| core.state != State::Unused);
        let latest = used.map(|core| core.finished_at.unwrap_or(core.now)).max().unwrap_or(0);
        match self.end {
            Some(End::TimeLimit) => self.time_limit,
            _ if latest == NEVER => self.time_limit,
            _ => latest,
        }
    }

    fn line_reports(&self) -> (Vec<LineReport>, Vec<FalseSharing>) {
        let mut lines = Vec::new();
        let mut false_sharing = Vec::new();
        for (layout, found) in &self.stats.layouts {
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

    fn core_reports(&self) -> Vec<CoreReport> {
        let used = self.cores.iter().enumerate().filter(|(_, core)| core.state != State::Unused);
        used.map(|(number, core)| {
            let watched = core.watched.first().filter(|_| core.state == State::Asleep);
            CoreReport {
                core: number,
                finished_ns: core.finished_at.map(ns),
                waiting_for: watched.map(|entry| self.stats.names(entry.row).0.to_owned()),
                wait_ns: ns(core.waited),
                spin_ns: ns(core.spun),
                off_ns: ns(core.off),
                interrupts: core.interrupts,
            }
        })
        .collect()
    }

    fn timeline_report(&self) -> Option<TimelineReport> {
        let label = self.timeline.label()?.to_owned();
        let mut events: Vec<TimelineEntry> = self
            .timeline
            .events
            .iter()
            .map(|event| {
                let (label, operation) = self.stats.names(event.row);
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
        Some(TimelineReport { label, events, lost: self.timeline.lost })
    }
}
