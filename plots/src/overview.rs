//! Cells by workloads, each at the most threads measured: what the forest plot, the table at a glance
//! and the first sentence are made from.

use cellbench_record::{Entry, Kind, Series, Summary};

use crate::run::Report;

/// Rows of one kind from one place under one placement and engine.
#[derive(Clone, Debug)]
pub struct Overview<'a> {
    /// The conditions; cell, workload and threads are those of some row.
    pub series: &'a Series,
    /// Workloads with their threads, in the order of the summary.
    pub workloads: Vec<(&'a str, u32)>,
    /// Cells by generation, with an entry for each workload.
    pub cells: Vec<(&'a str, Vec<Option<&'a Entry>>)>,
}

/// Sizes that are taken in at a glance; beyond them the tables have the rows.
const MOST_OVERVIEWS: usize = 40;
const MOST_WORKLOADS: usize = 24;
const MOST_CELLS: usize = 60;

/// Returns all overviews of a summary, in its order. Open loops, whose goodput is given, are in
/// none.
#[must_use]
pub fn overviews<'a>(report: &Report<'a>) -> Vec<Overview<'a>> {
    let mut overviews: Vec<Overview<'_>> = Vec::new();
    let closed = report.summary.entries.iter().filter(|entry| entry.series.offered_ops_s.is_none());
    for entry in closed {
        let series = &entry.series;
        let index = overviews.iter().position(|it| is_beside(it.series, series));
        if index.is_none() && overviews.len() >= MOST_OVERVIEWS {
            continue;
        }
        let index = index.unwrap_or_else(|| {
            overviews.push(Overview { series, workloads: Vec::new(), cells: Vec::new() });
            overviews.len() - 1
        });
        overviews[index].enter(entry);
    }
    for overview in &mut overviews {
        overview.cells.sort_by_key(|(cell, _)| report.designs.rank(cell));
    }
    overviews
}

fn is_beside(a: &Series, b: &Series) -> bool {
    a.kind == b.kind
        && a.source == b.source
        && a.machine == b.machine
        && a.host == b.host
        && a.engine == b.engine
        && a.placement == b.placement
}

impl<'a> Overview<'a> {
    /// Adds a row of the summary, which is sorted: threads rise within a workload.
    fn enter(&mut self, entry: &'a Entry) {
        let series = &entry.series;
        let column = match self.workloads.iter().position(|(name, _)| *name == series.workload) {
            Some(column) => column,
            None if self.workloads.len() >= MOST_WORKLOADS => return,
            None => {
                self.workloads.push((&series.workload, series.threads));
                self.workloads.len() - 1
            }
        };
        if self.workloads[column].1 < series.threads {
            self.workloads[column].1 = series.threads;
            for (_, entries) in &mut self.cells {
                if let Some(entry) = entries.get_mut(column) {
                    *entry = None;
                }
            }
        }
        let row = match self.cells.iter().position(|(cell, _)| *cell == series.cell) {
            Some(row) => row,
            None if self.cells.len() >= MOST_CELLS => return,
            None => {
                self.cells.push((&series.cell, Vec::new()));
                self.cells.len() - 1
            }
        };
        let entries = &mut self.cells[row].1;
        if entries.len() <= column {
            entries.resize(column + 1, None);
        }
        entries[column] = Some(entry);
    }

    /// Returns the entry of a cell in a column.
    #[must_use]
    pub fn entry(&self, cell: &str, column: usize) -> Option<&'a Entry> {
        let (_, entries) = self.cells.iter().find(|(name, _)| *name == cell)?;
        entries.get(column).copied().flatten()
    }

    /// Returns the columns in the order in which they answer the question: the contended workload
    /// that compares like with like first, then the others that several threads run, then those of
    /// one. Columns without a ratio are left out.
    #[must_use]
    pub fn telling(&self) -> Vec<usize> {
        let has_ratio = |column: &usize| {
            self.cells.iter().any(|(cell, _)| {
                self.entry(cell, *column).is_some_and(|entry| entry.ratio.is_some())
            })
        };
        let mut columns: Vec<usize> = (0..self.workloads.len()).filter(has_ratio).collect();
        columns.sort_by(|a, b| self.likeness(*a).total_cmp(&self.likeness(*b)));
        columns
    }

    /// Returns how unlike the work of the designs is in a column: 0 where failed operations are
    /// repeated
    /// until they succeed, else by the difference of their shares of failures; more for a single
    /// thread, or a CPU's own cell, where nothing is contended.
    fn likeness(&self, column: usize) -> f64 {
        let (workload, threads) = self.workloads[column];
        let alone = if threads < 2 || workload.starts_with("solo-") { 2.0 } else { 0.0 };
        if workload.contains("retry") {
            return alone;
        }
        let shares = || {
            let entries = self.cells.iter().filter_map(|(cell, _)| self.entry(cell, column));
            entries.filter_map(|entry| entry.failure_share)
        };
        let (least, most) = (shares().fold(1.0, f64::min), shares().fold(0.0, f64::max));
        alone + 0.1 + (most - least).max(0.0)
    }
}

/// Returns the overview that the first sentence is about: of the first place, timers before others.
#[must_use]
pub fn headline<'a>(overviews: Vec<Overview<'a>>) -> Option<Overview<'a>> {
    overviews.into_iter().filter(|it| !it.telling().is_empty()).min_by_key(|it| {
        match it.series.kind {
            Kind::Timer => 0,
            Kind::Wq => 1,
            Kind::TaskWork => 2,
            _ => 3,
        }
    })
}

/// Returns the row of a design without contention: the workload at one thread, else one in which
/// each thread has its own cell.
#[must_use]
pub fn uncontended<'a>(summary: &'a Summary, contended: &Series) -> Option<&'a Entry> {
    let is_candidate = |entry: &&Entry| {
        let series = &entry.series;
        is_beside(series, contended)
            && series.cell == contended.cell
            && series.offered_ops_s.is_none()
            && entry.ratio.is_some()
            && (series.threads == 1 || series.workload.starts_with("solo-"))
    };
    summary.entries.iter().filter(is_candidate).min_by_key(|entry| {
        let series = &entry.series;
        let is_other = series.workload != contended.workload;
        (is_other, !series.workload.starts_with("solo-"), series.threads)
    })
}

/// Returns by how much more a row fails than its baseline does; none if it does not, or if less
/// than
/// one attempt in two hundred is in question.
#[must_use]
pub fn excess_failures(entry: &Entry, baseline: Option<&Entry>) -> Option<f64> {
    let excess = entry.failure_share? - baseline.and_then(|base| base.failure_share)?;
    (excess >= 0.005).then_some(excess)
}
