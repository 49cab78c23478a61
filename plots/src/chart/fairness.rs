//! Fairness: how evenly the threads got through.

use super::bars::{Bar, Bars, Segment};
use super::panel::{by_cell, panels};
use super::{Chart, Drawing, style};
use crate::number;
use crate::run::Report;

pub(super) struct Fairness;

/// Below this many threads there is nobody to be unfair to.
const FEWEST_THREADS: u32 = 2;

impl Chart for Fairness {
    fn name(&self) -> &'static str {
        "fairness"
    }

    fn about(&self) -> &'static str {
        "The thread that got least, as a share of the mean; 100 % is perfectly even. Beside it \
         Jain's index."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(0);
            if most < FEWEST_THREADS {
                continue;
            }
            let bars = by_cell(report, &entries).into_iter().filter_map(|(cell, of_cell)| {
                let entry = of_cell.last().filter(|entry| entry.series.threads == most)?;
                let worst = entry.worst_thread_share?;
                let jain = entry.fairness_jain?;
                let segment = Segment {
                    name: "worst thread".into(),
                    length: worst,
                    colour: style::look(report.designs, &cell).colour,
                };
                let value = format!("{}, Jain {jain:.2}", number::percent(Some(worst)));
                Some(Bar { name: cell, segments: vec![segment], value })
            });
            let chart = Bars {
                name: panel.file_name("fairness"),
                title: format!("Fairness: {}, {}", panel.title(), number::count(most, "thread")),
                unit: "worst thread by the mean".into(),
                full: Some(1.0),
                bars: bars.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}
