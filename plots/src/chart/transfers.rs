//! Cache-line transfers per operation, by field: which line a design's CPUs fight over. From the
//! simulator, or from contention counters where the host has them.

use plotters::style::RGBColor;

use super::bars::{Bar, Bars, Segment};
use super::panel::{by_cell, panels};
use super::{Chart, Drawing};
use crate::number;
use crate::run::Report;

pub(super) struct Transfers;

/// Fields shown by name; the rest of a bar is `other`.
const NAMED: usize = 7;

const COLOURS: [RGBColor; NAMED + 1] = [
    RGBColor(0x1f, 0x78, 0xc8),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x96, 0x6e),
    RGBColor(0xc0, 0x62, 0x9a),
    RGBColor(0xb8, 0x80, 0x00),
    RGBColor(0x8a, 0x6f, 0xd6),
    RGBColor(0x9c, 0x6b, 0x50),
    RGBColor(0x80, 0x80, 0x80),
];

impl Chart for Transfers {
    fn name(&self) -> &'static str {
        "transfers"
    }

    fn about(&self) -> &'static str {
        "Cache-line transfers per attempt by the field that moved, at the largest number of threads."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(0);
            let cells: Vec<_> = by_cell(report, &entries)
                .into_iter()
                .filter_map(|(cell, of_cell)| {
                    let entry = of_cell.last().filter(|entry| entry.series.threads == most)?;
                    let transfers = &entry.line_transfers_per_op;
                    (!transfers.is_empty()).then_some((cell, transfers))
                })
                .collect();
            // The fields that move most anywhere in the chart get a colour each.
            let mut fields: Vec<(&str, f64)> = Vec::new();
            for (field, moved) in cells.iter().flat_map(|(_, transfers)| transfers.iter()) {
                match fields.iter_mut().find(|(known, _)| known == field) {
                    Some((_, most)) => *most = most.max(*moved),
                    None => fields.push((field, *moved)),
                }
            }
            fields.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
            fields.truncate(NAMED);
            let bars = cells.into_iter().map(|(cell, transfers)| {
                let mut segments: Vec<Segment> = fields
                    .iter()
                    .zip(COLOURS)
                    .filter_map(|((field, _), colour)| {
                        let length = *transfers.get(*field)?;
                        Some(Segment { name: (*field).to_owned(), length, colour })
                    })
                    .collect();
                let total: f64 = transfers.values().sum();
                let shown: f64 = segments.iter().map(|segment| segment.length).sum();
                if total - shown > 1e-9 {
                    segments.push(Segment {
                        name: "other".into(),
                        length: total - shown,
                        colour: COLOURS[NAMED],
                    });
                }
                Bar { name: cell, segments, value: format!("{total:.2}") }
            });
            let chart = Bars {
                name: panel.file_name("transfers"),
                title: format!("Transfers: {}, {}", panel.title(), number::count(most, "thread")),
                unit: "transfers per attempt".into(),
                full: None,
                bars: bars.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}
