//! Success by context: what an operation returns in a task, a hardware interrupt, an NMI.

use super::bars::{Bar, Bars};
use super::failures::outcome_bar;
use super::panel::{by_cell, panels};
use super::{Chart, Drawing};
use crate::number;
use crate::run::Report;

pub(super) struct Contexts;

impl Chart for Contexts {
    fn name(&self) -> &'static str {
        "contexts"
    }

    fn about(&self) -> &'static str {
        "Share of attempts by outcome and by the context that made them."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(0);
            let bars: Vec<Bar> = by_cell(report, &entries)
                .into_iter()
                .filter_map(|(cell, of_cell)| {
                    let entry = of_cell.last().filter(|entry| entry.series.threads == most)?;
                    Some((cell, &entry.contexts))
                })
                .flat_map(|(cell, contexts)| {
                    contexts.iter().filter_map(move |(context, outcomes)| {
                        outcome_bar(format!("{cell}, {context}"), outcomes)
                    })
                })
                .collect();
            let chart = Bars {
                name: panel.file_name("contexts"),
                title: format!("By context: {}, {}", panel.title(), number::count(most, "thread")),
                unit: "share of attempts".into(),
                full: Some(1.0),
                bars,
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}
