//! Goodput against threads, one chart for each kind and workload.

use std::collections::HashMap;

use cellbench_record::{Entry, Series};

use super::lines::{Line, Lines, Point, Scale};
use super::{Chart, Drawing, file_name};
use crate::generation;
use crate::report::{Report, number};

pub(super) struct Goodput;

impl Chart for Goodput {
    fn name(&self) -> &'static str {
        "goodput"
    }

    fn about(&self) -> &'static str {
        "Successful operations per second of all threads together; bands are 95 % intervals."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let mut lines = Vec::new();
            for (cell, of_cell) in by_cell(&entries) {
                let points = of_cell.iter().filter_map(|entry| {
                    let y = entry.goodput_ops_s?;
                    Some(Point {
                        x: f64::from(entry.series.threads),
                        y,
                        low: entry.goodput_low_ops_s.unwrap_or(y),
                        high: entry.goodput_high_ops_s.unwrap_or(y),
                    })
                });
                lines.push(Line::joined(cell, points.collect()));
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

/// `12.5M`, for axes.
pub(super) fn si(value: f64) -> String {
    number::si(Some(value))
}

/// A tick for each number of threads that was measured.
pub(super) fn thread_ticks(entries: &[&Entry]) -> Vec<(f64, String)> {
    let mut threads: Vec<u32> = entries.iter().map(|entry| entry.series.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    threads.into_iter().map(|threads| (f64::from(threads), threads.to_string())).collect()
}

/// What the entries of one chart have in common: everything but cell and threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Panel(Series);

impl Panel {
    pub(super) fn of(series: &Series) -> Self {
        Self(Series { cell: String::new(), threads: 0, ..series.clone() })
    }

    /// All rates of an open loop together.
    pub(super) fn without_rate(series: &Series) -> Self {
        let Self(series) = Self::of(series);
        Self(Series { offered_ops_s: None, ..series })
    }

    pub(super) fn title(&self) -> String {
        let series = &self.0;
        let mut title = format!("{} {}", series.kind, series.workload);
        if let Some(rate) = series.offered_ops_s {
            title += &format!(", {}/s offered", number::si(Some(rate as f64)));
        }
        let source = series.source.to_string();
        let places = [
            series.host.as_deref(),
            series.machine.as_deref(),
            (source != "model").then_some(source.as_str()),
            (series.placement != "compact").then_some(series.placement.as_str()),
            (series.engine == "live").then_some("callbacks run"),
        ];
        for place in places.into_iter().flatten() {
            title += &format!(", {place}");
        }
        title
    }

    pub(super) fn file_name(&self, chart: &str) -> String {
        let series = &self.0;
        let rate = series.offered_ops_s.map(|rate| rate.to_string()).unwrap_or_default();
        file_name([
            chart,
            &series.source.to_string(),
            series.host.as_deref().unwrap_or_default(),
            series.machine.as_deref().unwrap_or_default(),
            &series.kind.to_string(),
            &series.workload,
            if series.engine == "live" { "live" } else { "" },
            if series.placement == "compact" { "" } else { &series.placement },
            &rate,
        ])
    }
}

/// Conditions that are drawn: beyond that nobody looks, and the tables have the numbers.
const MOST_PANELS: usize = 150;
/// Rows in one chart.
const MOST_ENTRIES: usize = 400;

/// The entries of a summary by chart, in the order of the summary: the first of them.
pub(super) fn panels<'a>(report: &Report<'a>) -> Vec<(Panel, Vec<&'a Entry>)> {
    let mut panels: Vec<(Panel, Vec<&Entry>)> = Vec::new();
    let mut places: HashMap<Panel, usize> = HashMap::new();
    for entry in &report.summary.entries {
        let panel = Panel::of(&entry.series);
        match places.get(&panel) {
            Some(place) if panels[*place].1.len() < MOST_ENTRIES => panels[*place].1.push(entry),
            Some(_) => {}
            None if panels.len() < MOST_PANELS => {
                places.insert(panel.clone(), panels.len());
                panels.push((panel, vec![entry]));
            }
            None => {}
        }
    }
    panels
}

/// The entries of a chart by cell, oldest generation first, each by rising number of threads.
pub(super) fn by_cell<'a>(entries: &[&'a Entry]) -> Vec<(String, Vec<&'a Entry>)> {
    let mut cells: Vec<(String, Vec<&Entry>)> = Vec::new();
    for &entry in entries {
        match cells.iter_mut().find(|(cell, _)| *cell == entry.series.cell) {
            Some((_, of_cell)) => of_cell.push(entry),
            None => cells.push((entry.series.cell.clone(), vec![entry])),
        }
    }
    for (_, of_cell) in &mut cells {
        of_cell.sort_by_key(|entry| entry.series.threads);
    }
    cells.sort_by_key(|(cell, _)| generation::rank(cell));
    cells
}
