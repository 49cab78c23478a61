//! Latency by percentile, on the scale that HdrHistogram's own plots use: each step to the right
//! is one more nine.

use super::lines::{Line, Lines, Point, Scale};
use super::panel::{by_cell, panels};
use super::{Chart, Drawing, style};
use crate::number;
use crate::run::Report;

pub(super) struct Percentiles;

/// Percentiles in a summary: 1/(1 - p), and what it is called.
const TICKS: [(f64, &str); 3] = [(2.0, "50 %"), (100.0, "99 %"), (1000.0, "99.9 %")];

impl Chart for Percentiles {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn about(&self) -> &'static str {
        "Latency of the timed operations by percentile at the largest number of threads; both axes \
         are logarithmic. Clock reads are included."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(0);
            let lines = by_cell(report, &entries).into_iter().filter_map(|(cell, of_cell)| {
                let entry = of_cell.last().filter(|entry| entry.series.threads == most)?;
                let values = [entry.p50_ns, entry.p99_ns, entry.p999_ns];
                let points = TICKS.iter().zip(values).filter_map(|((x, _), value)| {
                    let y = value.filter(|value| *value > 0.0)?;
                    Some(Point { x: *x, y, low: y, high: y })
                });
                let look = style::look(report.designs, &cell);
                Some(Line::joined(cell, look, points.collect()))
            });
            let chart = Lines {
                name: panel.file_name("latency"),
                title: format!("Latency: {}, {}", panel.title(), number::count(most, "thread")),
                x_label: "percentile".into(),
                y_label: "latency".into(),
                x_scale: Scale::Decades,
                y_scale: Scale::Decades,
                x_ticks: TICKS.map(|(x, text)| (x, text.to_owned())).to_vec(),
                x_text: number::significant,
                y_text: time,
                lines: lines.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}

/// Writes `1.25 us`, for axes.
pub(super) fn time(ns: f64) -> String {
    number::time_ns(Some(ns))
}
