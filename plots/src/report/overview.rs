//! The outcome at a glance: cells by workloads, each at the most threads measured, as a ratio, a sign
//! and the share that failed.

use cellbench_record::{Entry, Summary, Verdict};

use super::Report;
use super::layout::{Columns, place};
use super::markdown::Page;
use crate::number;
use crate::overview::{Overview, overviews};

/// Explanation of the signs.
pub(super) const LEGEND: &str = "Goodput against the baseline's in the same round: + faster, - slower, \
     = the same, ? undecided; the baseline's own in successful operations per second. In parentheses \
     the share of attempts that failed, from 0.5 % on.";
/// Share of failures below which none is named.
const NAMED_FAILURES: f64 = 0.005;

/// Writes `timer against spin-queued`, with placement, engine and place where they tell.
pub(super) fn title(overview: &Overview<'_>, summary: &Summary) -> String {
    let series = overview.series;
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

/// Writes `same-cell, 2 threads`.
pub(super) fn heading((workload, threads): (&str, u32)) -> String {
    format!("{workload}, {}", number::count(threads, "thread"))
}

/// Writes `1.65 + (43 %)`.
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

/// Writes every overview as a table in Markdown, each a part of the section that is open.
pub(super) fn tables(page: &mut Page, report: &Report<'_>) {
    let summary = report.summary;
    for (index, overview) in overviews(report).iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.part(&title(overview, summary));
        let headings: Vec<String> =
            overview.workloads.iter().map(|column| heading(*column)).collect();
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

/// Returns a table for each overview with a line for each cell: how many workloads went which way,
/// the
/// extremes, and the most that failed; 80 columns. So that a terminal shows the outcome in short.
pub(super) fn digests(report: &Report<'_>) -> Vec<String> {
    let summary = report.summary;
    let digest = |overview: &Overview<'_>| {
        let most = overview.workloads.iter().map(|(_, threads)| *threads).max().unwrap_or(1);
        let threads = number::count(most, "thread");
        let workloads = number::count(overview.workloads.len() as u64, "workload");
        let mut text = format!("{}: {workloads}, up to {threads}\n", title(overview, summary));
        let widths = Widths::of(overview.cells.iter().map(|(cell, _)| *cell));
        let Widths { cell, end } = widths;
        text += &format!(
            " {:<cell$} {:>2}{:>2}{:>2}{:>2} {:<end$} {:<end$} {:>6}\n",
            "cell", "+", "-", "=", "?", "lowest", "highest", "fails"
        );
        for (cell, entries) in &overview.cells {
            let lonely = if *cell == summary.baseline { "baseline" } else { "not compared" };
            let entries: Vec<_> = entries.iter().copied().flatten().collect();
            text += &digest_line(cell, lonely, &entries, widths);
        }
        text
    };
    overviews(report).iter().map(digest).collect()
}

/// Columns of a digest, in characters.
#[derive(Clone, Copy)]
struct Widths {
    /// The name of the cell.
    cell: usize,
    /// An extreme ratio and its workload.
    end: usize,
}

impl Widths {
    /// Width of the other columns and of the spaces between all.
    const OTHERS: usize = 1 + 1 + 8 + 1 + 1 + 1 + 6;

    /// Returns the widths for these cells: what their names leave goes to the extremes.
    fn of<'a>(cells: impl Iterator<Item = &'a str>) -> Self {
        let cell = cells.map(|cell| cell.chars().count()).max().unwrap_or(0).clamp(8, 24);
        Self { cell, end: ((80 - Self::OTHERS - cell) / 2).min(26) }
    }
}

fn digest_line(cell: &str, lonely: &str, entries: &[&Entry], widths: Widths) -> String {
    let Widths { cell: width, end: end_width } = widths;
    let fails = entries.iter().filter_map(|entry| entry.failure_share).fold(0.0, f64::max);
    let fails = number::percent(Some(fails));
    let compared: Vec<&&Entry> = entries.iter().filter(|entry| entry.ratio.is_some()).collect();
    let line = if entries.iter().any(|entry| !entry.violations.is_empty()) {
        format!(" {cell:<width$} ERROR: broke an invariant, see the tables")
    } else if compared.is_empty() {
        let rest = 8 + 1 + end_width + 1 + end_width + 1;
        format!(" {cell:<width$} {lonely:<rest$}{fails:>6}")
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
                text.chars().take(end_width).collect()
            })
        };
        let lowest = end(compared.iter().min_by(by_ratio));
        let highest = match compared.len() {
            1 => String::new(),
            _ => end(compared.iter().max_by(by_ratio)),
        };
        format!(
            " {cell:<width$} {faster:>2}{slower:>2}{same:>2}{undecided:>2} {lowest:<end_width$} {highest:<end_width$} {fails:>6}"
        )
    };
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::Widths;

    #[test]
    fn a_digest_has_80_columns_and_whole_names() {
        for length in 0..=24 {
            let name = "n".repeat(length);
            let Widths { cell, end } = Widths::of([name.as_str()].into_iter());
            assert!(Widths::OTHERS + cell + 2 * end <= 80, "{length}");
            assert!(cell >= length, "{length}");
        }
        let Widths { end, .. } = Widths::of(["spin-queued", "cmpxchg-state-nmi"].into_iter());
        assert!(end >= "0.502 same-cell-retry".len());
    }
}
