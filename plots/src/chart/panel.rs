//! Common parts of charts: the rows of one chart, its title and file name, and its looks.

use std::collections::HashMap;

use cellbench_record::{Entry, Series, Source};

use super::file_name;
use crate::number;
use crate::run::Report;

/// Writes `12.5M`, for axes.
pub(super) fn si(value: f64) -> String {
    number::si(Some(value))
}

/// Returns a tick for each number of threads that was measured.
pub(super) fn thread_ticks(entries: &[&Entry]) -> Vec<(f64, String)> {
    let mut threads: Vec<u32> = entries.iter().map(|entry| entry.series.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    threads.into_iter().map(|threads| (f64::from(threads), threads.to_string())).collect()
}

/// Key that the entries of one chart have in common: everything but cell and threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Panel(Series);

impl Panel {
    pub(super) fn of(series: &Series) -> Self {
        Self(Series { cell: String::new(), threads: 0, ..series.clone() })
    }

    /// Returns all workloads of one kind together.
    pub(super) fn of_all(series: &Series) -> Self {
        let Self(series) = Self::of(series);
        Self(Series { workload: String::new(), offered_ops_s: None, ..series })
    }

    /// Returns all rates of an open loop together.
    pub(super) fn without_rate(series: &Series) -> Self {
        let Self(series) = Self::of(series);
        Self(Series { offered_ops_s: None, ..series })
    }

    pub(super) fn title(&self) -> String {
        let series = &self.0;
        let mut title = format!("{} {}", series.kind, series.workload).trim_end().to_owned();
        if let Some(rate) = series.offered_ops_s {
            title += &format!(", {}/s offered", number::si(Some(rate as f64)));
        }
        let source = series.source.to_string();
        let places = [
            series.host.as_deref(),
            series.machine.as_deref(),
            (series.source != Source::Model).then_some(source.as_str()),
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

/// Returns the entries of a summary by chart, in the order of the summary: the first of them.
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

/// Returns the entries of a chart by cell, oldest generation first, each by rising number of
/// threads.
pub(super) fn by_cell<'a>(
    report: &Report<'_>,
    entries: &[&'a Entry],
) -> Vec<(String, Vec<&'a Entry>)> {
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
    cells.sort_by_key(|(cell, _)| report.designs.rank(cell));
    cells
}
