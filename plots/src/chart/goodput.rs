//! Goodput against threads, one chart for each kind and workload.

use cellbench_record::Entry;

use super::dots::{Column, Dot, Dots};
use super::lines::{Line, Lines, Point, Scale};
use super::panel::{Panel, by_cell, panels, si, thread_ticks};
use super::style::{self, Look, Shape};
use super::{Chart, Drawing};
use crate::number;
use crate::run::Report;

pub(super) struct Goodput;

/// So many thread counts make no line: they are drawn as dots.
const FEW_COUNTS: usize = 2;

impl Chart for Goodput {
    fn name(&self) -> &'static str {
        "goodput"
    }

    fn about(&self) -> &'static str {
        "Successful operations per second of all threads together; bands and bars are \
         95 % intervals of the rate, for each row by itself."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            if thread_ticks(&entries).len() <= FEW_COUNTS {
                drawings.extend(dots(report, &panel, &entries));
                continue;
            }
            let mut lines = Vec::new();
            for (cell, of_cell) in by_cell(report, &entries) {
                let points = of_cell.iter().filter_map(|entry| {
                    let y = entry.goodput_ops_s?;
                    Some(Point {
                        x: f64::from(entry.series.threads),
                        y,
                        low: entry.goodput_low_ops_s.unwrap_or(y),
                        high: entry.goodput_high_ops_s.unwrap_or(y),
                    })
                });
                let look = style::look(report.designs, &cell);
                lines.push(Line::joined(cell, look, points.collect()));
            }
            let chart = Lines {
                name: panel.file_name("goodput"),
                title: format!("Goodput: {}", panel.title()),
                x_label: "threads".into(),
                y_label: "successful operations/s".into(),
                x_scale: Scale::Doublings,
                y_scale: Scale::Linear,
                x_ticks: thread_ticks(&entries),
                x_text: si,
                y_text: si,
                lines,
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}

/// Returns a row for each cell, a dot for each number of threads: most threads filled, fewer
/// hollow.
fn dots(report: &Report<'_>, panel: &Panel, entries: &[&Entry]) -> Option<Drawing> {
    let cells = by_cell(report, entries);
    let counts = thread_ticks(entries);
    let most = counts.last().map_or(0.0, |(threads, _)| *threads);
    let look = |look: Look, threads: f64| Look {
        shape: if threads < most { Shape::Circle } else { Shape::Square },
        is_hollow: threads < most,
        ..look
    };
    let mut dots = Vec::new();
    for (row, (cell, of_cell)) in cells.iter().enumerate() {
        for entry in of_cell {
            let Some(value) = entry.goodput_ops_s else { continue };
            let threads = f64::from(entry.series.threads);
            let low = entry.goodput_low_ops_s.unwrap_or(value);
            let high = entry.goodput_high_ops_s.unwrap_or(value);
            let at = number::count(entry.series.threads, "thread");
            dots.push(Dot {
                row,
                value,
                low,
                high,
                look: look(style::look(report.designs, cell), threads),
                note: None,
                words: format!("{cell}, {at}: {} ({} to {})", si(value), si(low), si(high)),
            });
        }
    }
    let legend = counts.iter().map(|(threads, _)| {
        let words = number::count(*threads as u64, "thread");
        (look(style::look(report.designs, ""), *threads), words)
    });
    Dots {
        name: panel.file_name("goodput"),
        title: format!("Goodput: {}", panel.title()),
        unit: "successful operations/s".into(),
        rows: cells.iter().map(|(cell, _)| cell.clone()).collect(),
        columns: vec![Column { title: Vec::new(), dots }],
        around_one: None,
        text: si,
        legend: if counts.len() > 1 { legend.collect() } else { Vec::new() },
    }
    .draw()
}
