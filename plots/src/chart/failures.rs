//! Outcomes of attempts at the largest number of threads: how much of what was tried failed, and
//! with which error.

use cellbench_record::OutcomeCounts;
use plotters::style::RGBColor;

use super::bars::{Bar, Bars, Segment};
use super::panel::{by_cell, panels};
use super::{Chart, Drawing};
use crate::number;
use crate::run::Report;

pub(super) struct Failures;

impl Chart for Failures {
    fn name(&self) -> &'static str {
        "failures"
    }

    fn about(&self) -> &'static str {
        "Share of attempts by outcome, where any failed. A design that returns EBUSY has not waited."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(0);
            let bars: Vec<Bar> = by_cell(report, &entries)
                .into_iter()
                .filter_map(|(cell, of_cell)| {
                    let entry = of_cell.last().filter(|entry| entry.series.threads == most)?;
                    outcome_bar(cell, &entry.outcomes)
                })
                .collect();
            if bars.iter().all(|bar| bar.segments.len() < 2) {
                continue;
            }
            let chart = Bars {
                name: panel.file_name("failures"),
                title: format!("Outcomes: {}, {}", panel.title(), number::count(most, "thread")),
                unit: "share of attempts".into(),
                full: Some(1.0),
                bars,
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}

/// Returns a bar of shares by outcome, `ok` first; none without attempts.
pub(super) fn outcome_bar(name: String, outcomes: &OutcomeCounts) -> Option<Bar> {
    let total: u64 = outcomes.values().sum();
    if total == 0 {
        return None;
    }
    let share = |count: u64| count as f64 / total as f64;
    let ok = outcomes.get("ok").copied().unwrap_or(0);
    let mut segments: Vec<Segment> = outcomes
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(outcome, count)| Segment {
            name: outcome.clone(),
            length: share(*count),
            colour: outcome_colour(outcome),
        })
        .collect();
    segments.sort_by_key(|segment| segment.name != "ok");
    let value = format!("{} ok", number::percent(Some(share(ok))));
    Some(Bar { name, segments, value })
}

/// Returns one colour for each outcome everywhere: green for ok, errors by how they end a wait.
fn outcome_colour(outcome: &str) -> RGBColor {
    match outcome {
        "ok" => RGBColor(0x00, 0x96, 0x6e),
        "EBUSY" => RGBColor(0xd5, 0x5e, 0x00),
        "EDEADLK" => RGBColor(0x8a, 0x6f, 0xd6),
        "ETIMEDOUT" => RGBColor(0xc0, 0x39, 0x2b),
        "EOPNOTSUPP" => RGBColor(0x80, 0x80, 0x80),
        "EINVAL" => RGBColor(0xb8, 0x80, 0x00),
        "EPERM" => RGBColor(0x9c, 0x6b, 0x50),
        _ => RGBColor(0xc0, 0x62, 0x9a),
    }
}
