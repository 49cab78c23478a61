//! The forest plot: a row for each design, a column for each workload, the ratio to the baseline
//! with its interval on a logarithmic axis. The picture that answers the question.

use cellbench_record::{Entry, Verdict};

use super::dots::{Column, Dot, Dots};
use super::panel::Panel;
use super::{Chart, Drawing, style};
use crate::number;
use crate::overview::{Overview, excess_failures, overviews};
use crate::run::Report;

pub(super) struct Forest;

/// Workloads beside each other, those that tell most; the table at a glance has all.
const MOST_COLUMNS: usize = 4;
/// The axis reaches at most this far to either side of 1.
const FARTHEST: f64 = 16.0;

impl Chart for Forest {
    fn name(&self) -> &'static str {
        "forest"
    }

    fn about(&self) -> &'static str {
        "Goodput of each design as a ratio to the baseline's, within rounds, with its 95 % interval, at the \
         largest number of threads; logarithmic. Right of the line is faster. Filled: decided; hollow: \
         undecided or surveyed. A cross with a share: so many more attempts fail than with the baseline."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let drawn = overviews(report).into_iter().filter_map(|overview| forest(report, &overview));
        Ok(drawn.collect())
    }
}

fn forest(report: &Report<'_>, overview: &Overview<'_>) -> Option<Drawing> {
    let baseline = &report.summary.baseline;
    let columns: Vec<usize> = overview.telling().into_iter().take(MOST_COLUMNS).collect();
    let is_compared = |cell: &str| {
        columns
            .iter()
            .any(|column| overview.entry(cell, *column).is_some_and(|entry| entry.ratio.is_some()))
    };
    let cells: Vec<&str> =
        overview.cells.iter().map(|(cell, _)| *cell).filter(|cell| is_compared(cell)).collect();
    let mut drawn = Vec::new();
    for column in columns {
        let (workload, threads) = overview.workloads[column];
        let base = overview.entry(baseline, column);
        let dots = cells.iter().enumerate().filter_map(|(row, cell)| {
            let entry = overview.entry(cell, column)?;
            dot(report, row, entry, base)
        });
        let title = vec![workload.to_owned(), number::count(threads, "thread")];
        drawn.push(Column { title, dots: dots.collect() });
    }
    let panel = Panel::of_all(overview.series);
    Dots {
        name: panel.file_name("forest"),
        title: format!("{} against {baseline}", panel.title()),
        unit: format!("goodput as a ratio to {baseline}"),
        rows: cells.iter().map(|cell| (*cell).to_owned()).collect(),
        columns: drawn,
        around_one: Some(FARTHEST),
        text: |value| number::ratio(Some(value)),
        legend: Vec::new(),
    }
    .draw()
}

fn dot(report: &Report<'_>, row: usize, entry: &Entry, base: Option<&Entry>) -> Option<Dot> {
    let value = entry.ratio.filter(|_| entry.violations.is_empty())?;
    let mut look = style::look(report.designs, &entry.series.cell);
    look.is_hollow =
        !matches!(entry.verdict, Some(Verdict::Faster | Verdict::Slower | Verdict::Same));
    look.shape = style::Shape::Square;
    let excess = excess_failures(entry, base);
    let mut words = format!(
        "{}, {}: {}x",
        entry.series.cell,
        entry.series.workload,
        number::ratio(entry.ratio)
    );
    if entry.ratio_low.is_some() {
        words +=
            &format!(", 95 % interval {}", number::interval(entry.ratio_low, entry.ratio_high));
    }
    words += &match entry.verdict {
        Some(verdict) => format!(", {verdict}"),
        None => ", survey".to_owned(),
    };
    let fails = excess.map(|excess| number::percent(Some(excess)));
    if let Some(fails) = &fails {
        words += &format!(", fails {fails} more often");
    }
    Some(Dot {
        row,
        value,
        low: entry.ratio_low.unwrap_or(value),
        high: entry.ratio_high.unwrap_or(value),
        look,
        note: fails,
        words,
    })
}
