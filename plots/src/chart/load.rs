//! Offered load against latency: what an open loop waits when it asks more often.

use std::collections::BTreeSet;

use super::latency::time;
use super::lines::{Line, Lines, Point, Scale};
use super::panel::{Panel, by_cell, si};
use super::{Chart, Drawing, file_name, style};
use crate::number;
use crate::run::Report;

pub(super) struct Load;

/// Conditions that are drawn; the tables have the others.
const MOST_CHARTS: usize = 150;

impl Chart for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn about(&self) -> &'static str {
        "Latency of open-loop workloads by the rate at which steps are due, over all threads: the 99th \
         percentile. Latency counts from the moment a step is \
         due, so that a step that waits for the one before it is as late as its caller finds it."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let open = || report.summary.entries.iter().filter(|it| it.series.offered_ops_s.is_some());
        let mut drawings = Vec::new();
        let mut seen = BTreeSet::new();
        for first in open() {
            let panel = Panel::without_rate(&first.series);
            let threads = first.series.threads;
            let name = panel.file_name("load");
            if drawings.len() >= MOST_CHARTS || !seen.insert((name.clone(), threads)) {
                continue;
            }
            let of_panel = |series| Panel::without_rate(series) == panel;
            let entries: Vec<_> = open()
                .filter(|entry| entry.series.threads == threads && of_panel(&entry.series))
                .collect();
            let mut rates: Vec<u64> =
                entries.iter().filter_map(|entry| entry.series.offered_ops_s).collect();
            rates.sort_unstable();
            rates.dedup();
            let lines = by_cell(report, &entries).into_iter().map(|(cell, mut of_cell)| {
                of_cell.sort_by_key(|entry| entry.series.offered_ops_s);
                let points = of_cell.iter().filter_map(|entry| {
                    let y = entry.p99_ns.filter(|ns| *ns > 0.0)?;
                    Some(Point { x: entry.series.offered_ops_s? as f64, y, low: y, high: y })
                });
                let look = style::look(report.designs, &cell);
                Line::joined(cell, look, points.collect())
            });
            let chart = Lines {
                name: file_name([name.as_str(), &format!("{threads}t")]),
                title: format!("Load: {}, {}", panel.title(), number::count(threads, "thread")),
                x_label: "offered steps/s".into(),
                y_label: "99th percentile".into(),
                x_scale: Scale::Doublings,
                y_scale: Scale::Decades,
                x_ticks: rates.into_iter().map(|rate| (rate as f64, si(rate as f64))).collect(),
                x_text: si,
                y_text: time,
                lines: lines.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}
