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
        text += &format!(
            " {:<20} {:>2}{:>2}{:>2}{:>2} {:<20} {:<20} {:>7}\n",
            "cell", "+", "-", "=", "?", "lowest", "highest", "fails"
        );
        for (cell, entries) in &overview.cells {
            let lonely = if *cell == summary.baseline { "baseline" } else { "not compared" };
            text +=
                &digest_line(cell, lonely, &entries.iter().copied().flatten().collect::<Vec<_>>());
        }
        text
    };
    overviews(report).iter().map(digest).collect()
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
