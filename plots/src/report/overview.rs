//! The outcome at a glance: cells by workloads, each at the most threads measured, as a ratio, a sign
//! and the share that failed.

use cellbench_record::{Entry, Series, Summary, Verdict};

use super::layout::{Columns, place};
use super::markdown::Page;
use super::number;

/// Rows of one kind from one place under one placement and engine.
pub(super) struct Overview<'a> {
    /// The conditions; cell, workload and threads are those of some row.
    series: &'a Series,
    /// Workloads with their threads, in the order of the summary.
    pub(super) workloads: Vec<(&'a str, u32)>,
    /// Cells by generation, with an entry for each workload.
    pub(super) cells: Vec<(&'a str, Vec<Option<&'a Entry>>)>,
}

/// What the signs mean.
pub(super) const LEGEND: &str = "Goodput against the baseline's in the same round: + faster, - slower, \
     = the same, ? undecided; the baseline's own in successful operations per second. In parentheses \
     the share of attempts that failed, from 0.5 % on.";
/// Share of failures below which none is named.
const NAMED_FAILURES: f64 = 0.005;

/// What is taken in at a glance; beyond that the tables have the rows.
const MOST_OVERVIEWS: usize = 40;
const MOST_WORKLOADS: usize = 24;
const MOST_CELLS: usize = 60;

impl<'a> Overview<'a> {
    /// `timer against spin-queued`, with placement, engine and place where they tell.
    pub(super) fn title(&self, summary: &Summary) -> String {
        let series = self.series;
        let mut title = format!("{} against {}", series.kind, summary.baseline);
        if !["compact", ""].contains(&series.placement.as_str()) {
            title += &format!(", {}", series.placement);
        }
        if !["count", ""].contains(&series.engine.as_str()) {
            title += &format!(", engine {}", series.engine);
        }
        if let Some(place) = place(series) {
            title += &format!(" [{place}]");
        }
        title
    }

    /// `same-cell, 2 threads`.
    pub(super) fn heading((workload, threads): (&str, u32)) -> String {
        format!("{workload}, {}", number::count(threads, "thread"))
    }
}

/// All overviews of a summary, in its order. Open loops, whose goodput is given, are in none.
pub(super) fn overviews(summary: &Summary) -> Vec<Overview<'_>> {
    let mut overviews: Vec<Overview<'_>> = Vec::new();
    let closed = summary.entries.iter().filter(|entry| entry.series.offered_ops_s.is_none());
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
        overview.cells.sort_by_key(|(cell, _)| crate::generation::rank(cell));
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
    /// The summary is sorted, so that threads rise within a workload.
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
}

/// `1.65 + (43 %)`.
pub(super) fn glance(entry: &Entry) -> String {
    if !entry.violations.is_empty() {
        return "ERROR".into();
    }
    let mut text = match (entry.ratio, entry.verdict) {
        (Some(_), Some(verdict)) => format!("{} {}", number::ratio(entry.ratio), sign(verdict)),
        _ => number::si(entry.goodput_ops_s),
    };
    if entry.failure_share.is_some_and(|share| share >= NAMED_FAILURES) {
        text += &format!(" ({})", number::percent(entry.failure_share));
    }
    text
}

pub(super) fn sign(verdict: Verdict) -> char {
    match verdict {
        Verdict::Faster => '+',
        Verdict::Slower => '-',
        Verdict::Same => '=',
        Verdict::Undecided => '?',
    }
}

/// Every overview as a table in Markdown, each a part of the section that is open.
pub(super) fn tables(page: &mut Page, summary: &Summary) {
    for (index, overview) in overviews(summary).iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.part(&overview.title(summary));
        let headings: Vec<String> =
            overview.workloads.iter().map(|column| Overview::heading(*column)).collect();
        let mut columns = Columns::new(&[("cell", false)]);
        columns.headers.extend(headings.into_iter().map(|heading| (heading.into(), true)));
        for (cell, entries) in &overview.cells {
            let mut row = vec![(*cell).to_owned()];
            let glances = (0..overview.workloads.len())
                .map(|column| entries.get(column).copied().flatten().map_or("".into(), glance));
            row.extend(glances);
            columns.rows.push(row);
        }
        page.table(&columns);
    }
}

/// A line for each cell: how many workloads went which way, the extremes, and the most that failed;
/// 80 columns. So that a terminal shows the outcome before the tables.
pub(super) fn digest(summary: &Summary) -> String {
    let mut text = String::new();
    for overview in overviews(summary) {
        let most = overview.workloads.iter().map(|(_, threads)| *threads).max().unwrap_or(1);
        let threads = number::count(most, "thread");
        let workloads = number::count(overview.workloads.len() as u64, "workload");
        text += &format!("{}: {workloads}, up to {threads}\n", overview.title(summary));
        text += &format!(
            " {:<20} {:>2}{:>2}{:>2}{:>2} {:<20} {:<20} {:>7}\n",
            "cell", "+", "-", "=", "?", "lowest", "highest", "fails"
        );
        for (cell, entries) in &overview.cells {
            let lonely = if *cell == summary.baseline { "baseline" } else { "not compared" };
            text +=
                &digest_line(cell, lonely, &entries.iter().copied().flatten().collect::<Vec<_>>());
        }
        text.push('\n');
    }
    if !text.is_empty() {
        text += "Goodput ratios by workload: + faster, - slower, = the same, ? undecided.\n";
    }
    text
}

fn digest_line(cell: &str, lonely: &str, entries: &[&Entry]) -> String {
    let fails = entries.iter().filter_map(|entry| entry.failure_share).fold(0.0, f64::max);
    let fails = number::percent(Some(fails));
    let compared: Vec<&&Entry> = entries.iter().filter(|entry| entry.ratio.is_some()).collect();
    let line = if entries.iter().any(|entry| !entry.violations.is_empty()) {
        format!(" {cell:<20} ERROR: broke an invariant, see the tables")
    } else if compared.is_empty() {
        format!(" {cell:<20} {lonely:<51}{fails:>7}")
    } else {
        let [faster, slower, same, undecided] =
            [Verdict::Faster, Verdict::Slower, Verdict::Same, Verdict::Undecided].map(|verdict| {
                compared.iter().filter(|entry| entry.verdict == Some(verdict)).count()
            });
        let by_ratio =
            |a: &&&&Entry, b: &&&&Entry| a.ratio.unwrap_or(1.0).total_cmp(&b.ratio.unwrap_or(1.0));
        let end = |entry: Option<&&&Entry>| {
            entry.map_or(String::new(), |entry| {
                let ratio = number::significant(entry.ratio.unwrap_or(1.0));
                let text = format!("{ratio:<4} {}", entry.series.workload);
                text.chars().take(20).collect()
            })
        };
        let lowest = end(compared.iter().min_by(by_ratio));
        let highest = match compared.len() {
            1 => String::new(),
            _ => end(compared.iter().max_by(by_ratio)),
        };
        format!(
            " {cell:<20} {faster:>2}{slower:>2}{same:>2}{undecided:>2} {lowest:<20} {highest:<20} {fails:>7}"
        )
    };
    format!("{}\n", line.trim_end())
}
