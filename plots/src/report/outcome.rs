//! The outcome of a run as it is said first, everywhere: what stands in the way of believing it, one
//! sentence, and a line for each design.

use cellbench_record::{Entry, Run, Series, Severity, Summary, Verdict};

use super::Report;
use super::layout::hosts;
use super::verdict::scene;
use crate::number;
use crate::overview::{Overview, excess_failures, headline, overviews, uncontended};

/// Something that a reader must know before any figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caution {
    /// Which it is.
    pub kind: CautionKind,
    /// The same in a sentence, with what to do about it.
    pub text: String,
}

/// Reasons for which a run may not answer its question, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CautionKind {
    /// No round was recorded.
    Empty,
    /// Every round was disturbed.
    AllDisturbed,
    /// No row of the baseline.
    NoBaseline,
    /// One design alone.
    OneDesign,
    /// The host is unfit to measure on.
    Unfit,
    /// Too few rounds for any verdict.
    Survey,
    /// The run ended before its time, by a signal or a crash.
    Killed,
    /// The user interrupted the run.
    Interrupted,
}

impl CautionKind {
    /// Returns whether nothing can be read from the run.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        self <= Self::NoBaseline
    }
}

/// Returns what a reader must know before any figure, the gravest first.
#[must_use]
pub fn cautions(report: &Report<'_>) -> Vec<Caution> {
    let (run, summary) = (report.run, report.summary);
    let mut cautions = Vec::new();
    let mut say = |kind, text: String| cautions.push(Caution { kind, text });
    let entries = &summary.entries;
    let rounds = entries.iter().map(|entry| entry.rounds + entry.rounds_disturbed).max();
    let rounds = rounds.unwrap_or(0);
    let is_measured = entries.iter().any(|entry| entry.series.source.is_measured());
    if entries.is_empty() {
        say(CautionKind::Empty, "This run measured nothing: no round was recorded.".into());
    } else if summary.rounds_disturbed > 0 && entries.iter().all(|entry| entry.rounds == 0) {
        say(
            CautionKind::AllDisturbed,
            format!(
                "Nothing can be said: every round was disturbed (steal, preemption or migration), \
                 {} in all. `cellbench doctor` says what to change on this host.",
                summary.rounds_disturbed
            ),
        );
    } else if entries.iter().all(|entry| entry.series.cell == summary.baseline) {
        say(
            CautionKind::OneDesign,
            format!("Only {} was measured: there are rates, but no ratios.", summary.baseline),
        );
    } else if !run.baseline.is_empty()
        && !entries.iter().any(|entry| entry.series.cell == summary.baseline)
    {
        say(
            CautionKind::NoBaseline,
            format!(
                "No row of the baseline {}: there are rates, but no ratios. `--against CELL` \
                 compares with another cell.",
                summary.baseline
            ),
        );
    }
    if is_measured && let Some(why) = unfit(run) {
        say(
            CautionKind::Unfit,
            format!(
                "This host is unfit to measure on: {why}. `cellbench doctor` says what to change."
            ),
        );
    }
    if summary.comparisons == 0 && entries.iter().any(|entry| entry.ratio.is_some()) {
        say(
            CautionKind::Survey,
            format!(
                "A survey: {} of each row decide no comparison; figures and intervals, no \
                 verdicts.",
                number::count(rounds, "round")
            ),
        );
    }
    let parts = || hosts(run).into_iter().map(|(_, part)| part);
    if parts().any(|part| part.finished_unix_s.is_none()) && !entries.is_empty() {
        say(
            CautionKind::Killed,
            format!("The run did not finish: it holds {}.", of_planned(run, rounds)),
        );
    }
    let is_interrupted = |part: &Run| part.notes.iter().any(|note| note.starts_with("interrupted"));
    if parts().any(is_interrupted) {
        say(
            CautionKind::Interrupted,
            format!("Interrupted by the user after {}.", of_planned(run, rounds)),
        );
    }
    cautions.sort_by_key(|caution| caution.kind);
    cautions
}

/// Returns a number of rounds, of those planned where a run of one host says how many. More than planned fit
/// where measuring went faster than estimated.
fn of_planned(run: &Run, rounds: u32) -> String {
    match run.settings.rounds.filter(|planned| *planned > rounds && run.merged_from.is_empty()) {
        Some(planned) => format!("{rounds} of {}", number::count(planned, "round")),
        None => number::count(rounds, "round"),
    }
}

/// Reasons that a caution lists: many hosts have as many.
const MOST_REASONS: usize = 4;

/// Returns all that makes the hosts unfit: one reason would hide the graver one behind it.
fn unfit(run: &Run) -> Option<String> {
    let mut reasons: Vec<&str> = Vec::new();
    for finding in hosts(run).into_iter().flat_map(|(_, part)| &part.findings) {
        let text = finding.text.trim_end_matches('.');
        if finding.severity == Severity::Unfit && !reasons.contains(&text) {
            reasons.push(text);
        }
    }
    let more = reasons.len().saturating_sub(MOST_REASONS);
    reasons.truncate(MOST_REASONS);
    let all = reasons.join("; ");
    match more {
        _ if all.is_empty() => None,
        0 => Some(all),
        _ => Some(format!("{all}; and {more} more")),
    }
}

/// Answer of a run to its question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cautions as sentences, the gravest first.
    pub cautions: Vec<String>,
    /// The answer, in one sentence of at most 30 words.
    pub sentence: Option<String>,
    /// Reason for which this row is quoted.
    pub why: Option<String>,
    /// A line for each design.
    pub designs: Vec<String>,
}

impl Outcome {
    /// Returns the first line of everything: cautions, then the answer.
    #[must_use]
    pub fn first_line(&self) -> String {
        let mut parts = self.cautions.clone();
        parts.extend(self.sentence.clone());
        parts.join(" ")
    }
}

/// Returns the outcome of a run.
#[must_use]
pub fn outcome(report: &Report<'_>) -> Outcome {
    let cautions = cautions(report).into_iter().map(|caution| caution.text).collect();
    let Some(overview) = headline(overviews(report)) else {
        return Outcome { cautions, ..Outcome::default() };
    };
    let Some(column) = overview.telling().first().copied() else {
        return Outcome { cautions, ..Outcome::default() };
    };
    let summary = report.summary;
    let base = overview.entry(&summary.baseline, column);
    let rows: Vec<&Entry> = overview
        .cells
        .iter()
        .filter_map(|(cell, _)| overview.entry(cell, column))
        .filter(|entry| entry.ratio.is_some() && entry.violations.is_empty())
        .collect();
    let mut designs: Vec<String> =
        rows.iter().map(|entry| line(summary, &overview, entry, base)).collect();
    for (cell, entries) in &overview.cells {
        let mut broken = entries.iter().flatten().filter(|entry| !entry.violations.is_empty());
        if let Some(entry) = broken.next() {
            let workload = &entry.series.workload;
            let what = &entry.violations[0];
            designs.push(format!("{cell}: ERROR, broke an invariant in {workload}: {what}"));
        }
    }
    Outcome { cautions, sentence: sentence(summary, &rows), why: why(&overview, column), designs }
}

/// Ratios that differ by less are not ranked.
const EQUAL: f64 = 0.995;

fn sentence(summary: &Summary, rows: &[&Entry]) -> Option<String> {
    let of_ratio = |entry: &&&Entry| entry.ratio.unwrap_or(0.0);
    let is_faster = |entry: &&&Entry| entry.verdict == Some(Verdict::Faster);
    let by_ratio = |a: &&&Entry, b: &&&Entry| of_ratio(a).total_cmp(&of_ratio(b));
    let most = rows.iter().filter(is_faster).max_by(by_ratio);
    let most = most.or_else(|| rows.iter().max_by(by_ratio))?;
    // Of designs that are as good as equal the oldest, not the one that chance puts ahead.
    let is_equal = |entry: &&&Entry| {
        entry.verdict == most.verdict && of_ratio(entry) >= EQUAL * of_ratio(&most)
    };
    let best = rows.iter().find(is_equal)?;
    let series = &best.series;
    let (cell, baseline) = (&series.cell, &summary.baseline);
    let scene = scene(series);
    let at = format!("{} at {}", series.workload, number::count(series.threads, "thread"));
    let ratio = number::ratio(best.ratio);
    let interval = number::ratio_ends(best.ratio_low, best.ratio_high)
        .map_or(String::new(), |[low, high]| format!(", 95 % interval {low} to {high}"));
    let designs = rows.len() + 1;
    let kind = series.kind.to_string().replace('_', " ");
    Some(match best.verdict {
        Some(Verdict::Faster) if designs > 2 => format!(
            "{scene}, {cell} has the most goodput of {designs} {kind} designs in {at}: {ratio}x \
             {baseline}{interval}."
        ),
        Some(Verdict::Faster | Verdict::Slower) => {
            format!("{scene}, {cell} has {ratio}x the goodput of {baseline} in {at}{interval}.")
        }
        Some(Verdict::Same) => format!(
            "{scene}, {cell} is the same as {baseline} within {} in {at}{interval}.",
            number::percent_chosen(summary.threshold_share)
        ),
        Some(Verdict::Undecided) if designs > 2 => format!(
            "{scene}, no design is surely faster than {baseline} in {at}; nearest is {cell}, \
             {ratio}x{interval}."
        ),
        Some(Verdict::Undecided) => format!(
            "{scene}, it is undecided whether {cell} differs from {baseline} in {at}: \
             {ratio}x{interval}."
        ),
        None => format!(
            "{scene}, {cell} had {ratio}x the goodput of {baseline} in {at}{interval}; not enough \
             rounds for a verdict."
        ),
    })
}

/// Says why the row of the first sentence is quoted and no other.
fn why(overview: &Overview<'_>, column: usize) -> Option<String> {
    let (workload, threads) = overview.workloads[column];
    Some(if workload.contains("retry") {
        format!(
            "{workload} is quoted because it repeats what failed until it succeeds: every design \
             then does the same work."
        )
    } else if threads < 2 {
        format!("{workload} is quoted because no row of several threads has rounds to judge.")
    } else {
        format!(
            "{workload} is quoted because of the contended workloads it is the one in which the \
             designs' shares of failures are most alike."
        )
    })
}

fn line(
    summary: &Summary,
    overview: &Overview<'_>,
    contended: &Entry,
    base: Option<&Entry>,
) -> String {
    let series = &contended.series;
    let with_ratio = |name: &str, entry: &Entry| {
        let interval = number::ratio_ends(entry.ratio_low, entry.ratio_high)
            .map_or(String::new(), |[low, high]| format!(" ({low} to {high})"));
        let word = match entry.verdict {
            Some(Verdict::Undecided) => ", undecided",
            Some(Verdict::Same) => ", same",
            _ if entry.bimodal => ", in several modes",
            _ => "",
        };
        format!("{name} {}x{interval}{word}", number::ratio(entry.ratio))
    };
    let is_alone = series.threads < 2 || series.workload.starts_with("solo-");
    let mut parts = Vec::new();
    if !is_alone {
        parts.push(with_ratio("contended", contended));
    }
    if let Some(entry) = uncontended(summary, series) {
        parts.push(with_ratio("uncontended", entry));
    }
    parts.push(failures(summary, overview, &series.cell));
    if let Some(tail) = tail(contended, base) {
        parts.push(tail);
    }
    format!("{}: {}", series.cell, parts.join("; "))
}

/// Returns where a design fails more often than its baseline, and by how much.
fn failures(summary: &Summary, overview: &Overview<'_>, cell: &str) -> String {
    let columns = 0..overview.workloads.len();
    let most = columns
        .filter_map(|column| {
            let entry = overview.entry(cell, column)?;
            let base = overview.entry(&summary.baseline, column);
            Some((excess_failures(entry, base)?, entry))
        })
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match most {
        Some((_, entry)) => {
            let base = Series::with_cell(&entry.series, &summary.baseline);
            let base = summary.entries.iter().find(|it| it.series == base);
            format!(
                "fails {} against {} ({})",
                number::percent(entry.failure_share),
                number::percent(base.and_then(|it| it.failure_share)),
                entry.series.workload
            )
        }
        None => "fails no more often".into(),
    }
}

/// Returns the highest percentile that both have samples enough for.
fn tail(entry: &Entry, base: Option<&Entry>) -> Option<String> {
    let base = base?;
    let percentiles = [("p99.9", entry.p999_ns, base.p999_ns), ("p99", entry.p99_ns, base.p99_ns)];
    let (name, here, there) =
        percentiles.into_iter().find(|(_, here, there)| here.is_some() && there.is_some())?;
    Some(format!("{name} {} against {}", number::time_ns(here), number::time_ns(there)))
}
