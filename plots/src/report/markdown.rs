//! Parts of a page in Markdown that the report of one run and the page of the kept runs share.

use std::collections::HashMap;

use cellbench_record::{Entry, Run, Series, Severity, Summary, rfc3339_utc};

use super::layout::{Columns, described_hosts, host_lines, hosts, place};
use super::{Outcome, Report};
use crate::number;

/// A page in Markdown, sections set apart by blank lines.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
    /// Levels by which its headings lie deeper than usual.
    pub(super) depth: usize,
}

impl Page {
    pub(super) fn line(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    pub(super) fn section(&mut self, title: &str) {
        self.text += &format!("\n##{} {title}\n\n", "#".repeat(self.depth));
    }

    /// Begins a section within the last.
    pub(super) fn part(&mut self, title: &str) {
        self.text += &format!("###{} {title}\n\n", "#".repeat(self.depth));
    }

    /// Writes cautions, the answer, a line for each design, and why this row.
    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        for caution in &outcome.cautions {
            self.line(&format!("**{caution}**\n"));
        }
        if let Some(sentence) = &outcome.sentence {
            self.line(&format!("**{sentence}**\n"));
        }
        for design in &outcome.designs {
            self.line(&format!("- {design}"));
        }
        if let Some(why) = &outcome.why {
            self.line(&format!("\n{why}"));
        }
    }

    pub(super) fn table(&mut self, columns: &Columns) {
        self.text += &columns.markdown();
    }
}

/// Writes host, findings and command of every run in the report.
pub(super) fn measured(page: &mut Page, run: &Run) {
    page.section("Host and command");
    let (described, more) = described_hosts(run);
    for (label, part) in described {
        if let Some(label) = label {
            page.part(label);
        }
        for line in host_lines(&part.host) {
            page.line(&format!("- {line}"));
        }
        page.line(&format!(
            "- cellbench {} ({}), started {}, seed {}",
            or(&part.tool_version, "of unknown version"),
            part.git_revision.as_deref().unwrap_or("unknown revision"),
            rfc3339_utc(part.started_unix_s),
            part.seed
        ));
        let settings = &part.settings;
        let mut chosen = Vec::new();
        if settings.window_s > 0.0 {
            chosen.push(format!("window {}", number::time_ns(Some(settings.window_s * 1e9))));
        }
        chosen.extend(settings.time_budget_s.map(|budget| format!("time budget {budget} s")));
        if settings.latency_sample_every > 0 {
            let every = settings.latency_sample_every;
            chosen.push(format!("latency of one operation in {every}"));
        }
        if settings.irq_save_cost_ns > 0.0 {
            let cost = number::time_ns(Some(settings.irq_save_cost_ns));
            chosen.push(format!("{cost} added for each masking of interrupts"));
        }
        if !chosen.is_empty() {
            page.line(&format!("- {}", chosen.join(", ")));
        }
        page.line(&format!("\n```\n{}\n```\n", or(&part.command_line, "(command unknown)")));
        let mut columns = Columns::new(&[
            ("finding", false),
            ("effect on results", false),
            ("change it by", false),
        ]);
        for finding in part.findings.iter().filter(|finding| finding.severity >= Severity::Warning)
        {
            let unfit = if finding.severity == Severity::Unfit { "**unfit:** " } else { "" };
            columns.rows.push(vec![
                format!("{unfit}{}", finding.text),
                finding.effect.clone(),
                if finding.fix.is_empty() { "-".into() } else { format!("`{}`", finding.fix) },
            ]);
        }
        if columns.rows.is_empty() {
            page.line("No finding about the host that bears on the results.");
        } else {
            page.table(&columns);
        }
    }
    if let Some(more) = more {
        page.line(&format!("\n{more}"));
    }
}

pub(super) fn scaling(page: &mut Page, summary: &Summary) {
    if summary.scaling.is_empty() {
        return;
    }
    page.section("Scaling: Universal Scalability Law");
    let mut columns = Columns::new(&[
        ("cell", false),
        ("kind, workload, placement", false),
        ("threads", false),
        ("sigma", true),
        ("kappa", true),
        ("peak at threads", true),
        ("peak, op/s", true),
        ("R2", true),
        ("note", false),
    ]);
    let number_of = |value: Option<f64>| value.map_or("-".into(), number::significant);
    let (fitted, unfitted): (Vec<_>, Vec<_>) =
        summary.scaling.iter().partition(|fit| fit.lambda_ops_s.is_some());
    for fit in fitted {
        let series = &fit.series;
        let mut conditions = format!("{}, {}, {}", series.kind, series.workload, series.placement);
        if let Some(place) = place(series) {
            conditions += &format!(" [{place}]");
        }
        let threads: Vec<String> = fit.threads_fitted.iter().map(u32::to_string).collect();
        columns.rows.push(vec![
            series.cell.clone(),
            conditions,
            threads.join(" "),
            number_of(fit.sigma),
            fit.kappa.map_or("-".into(), |kappa| format!("{kappa:.5}")),
            fit.peak_threads.map_or("-".into(), |peak| format!("{peak:.1}")),
            number::si(fit.peak_ops_s),
            fit.r_squared.map_or("-".into(), |share| format!("{share:.3}")),
            fit.note.clone().unwrap_or_default(),
        ]);
    }
    let has_fits = !columns.rows.is_empty();
    if has_fits {
        page.line(
            "Sigma is contention (serial share), kappa coherency (cost of each pair agreeing).\n",
        );
        page.table(&columns);
    }
    let mut reasons: Vec<&str> = unfitted.iter().filter_map(|fit| fit.note.as_deref()).collect();
    reasons.sort_unstable();
    for (index, same) in reasons.chunk_by(|a, b| a == b).enumerate() {
        if has_fits || index > 0 {
            page.line("");
        }
        let rows = number::count(same.len() as u64, "row");
        page.line(&format!("No fit for {rows}: {}.", same[0]));
    }
}

/// Fields named in a row of [`waits`].
const FIELDS_SHOWN: usize = 3;
/// A field is named if its line takes this share of the threads' time.
const FIELD_SHARE: f64 = 0.01;

/// Writes of simulated runs for which fields' lines the cores wait, at the most threads of each row.
pub(super) fn waits(page: &mut Page, summary: &Summary) {
    let mut columns = Columns::new(&[
        ("kind, workload", false),
        ("threads", true),
        ("cell", false),
        ("waiting", true),
        ("for the line of", false),
    ]);
    for entry in at_most_threads(summary).filter(|entry| !entry.line_wait_shares.is_empty()) {
        let series = &entry.series;
        let mut fields: Vec<(&str, f64)> =
            entry.line_wait_shares.iter().map(|(field, share)| (field.as_str(), *share)).collect();
        fields.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        let all: f64 = fields.iter().map(|(_, share)| share).sum();
        let named = fields.iter().filter(|(_, share)| *share >= FIELD_SHARE).take(FIELDS_SHOWN);
        let mut named: Vec<String> = named
            .map(|(field, share)| format!("`{field}` {}", number::percent(Some(*share))))
            .collect();
        // Who waits through the whole window is in no share.
        let starved = entry.per_thread_ops_s.iter().filter(|ops| **ops == 0.0).count();
        if starved > 0 {
            named.push(format!("{} starved throughout", number::count(starved as u64, "core")));
        }
        columns.rows.push(vec![
            format!("{}, {}", series.kind, series.workload),
            series.threads.to_string(),
            series.cell.clone(),
            number::percent(Some(all)),
            if named.is_empty() { "-".into() } else { named.join(", ") },
        ]);
    }
    if columns.rows.is_empty() {
        return;
    }
    page.section("What the cores wait for");
    page.line("Share of the cores' time, by the field whose line they waited for.\n");
    page.table(&columns);
}

/// Returns the rows at the most threads that their cell, kind, workload and conditions were run at.
pub(super) fn at_most_threads(summary: &Summary) -> impl Iterator<Item = &Entry> {
    let mut most: HashMap<Series, u32> = HashMap::new();
    let without_threads = |entry: &Entry| Series { threads: 0, ..entry.series.clone() };
    for entry in &summary.entries {
        let threads = most.entry(without_threads(entry)).or_default();
        *threads = (*threads).max(entry.series.threads);
    }
    let is_most = move |entry: &&Entry| most[&without_threads(entry)] == entry.series.threads;
    summary.entries.iter().filter(is_most)
}

pub(super) fn ruler(page: &mut Page, run: &Run) {
    page.section("Limits of the ruler");
    page.line("Measured in the same run; nothing of it is subtracted from any number.\n");
    let mut columns = Columns::new(&[
        ("host", false),
        ("timestamp", true),
        ("empty operation", true),
        ("uncontended atomic", true),
        ("line transfer, one way", true),
        ("cost of sampling latency", true),
    ]);
    let (described, more) = described_hosts(run);
    for (label, part) in described {
        let calibration = &part.calibration;
        columns.rows.push(vec![
            label.unwrap_or("this").to_owned(),
            number::time_ns(calibration.timestamp_ns),
            number::time_ns(calibration.empty_op_ns),
            number::time_ns(calibration.uncontended_atomic_ns),
            number::time_ns(calibration.line_transfer_ns),
            number::percent(calibration.sampling_cost_share),
        ]);
    }
    page.table(&columns);
    if let Some(more) = more {
        page.line(&format!("\n{more}"));
    }
}

pub(super) fn disturbed(page: &mut Page, summary: &Summary) {
    page.section("Disturbed rounds");
    let counted: u64 = summary.entries.iter().map(|entry| u64::from(entry.rounds)).sum();
    let pairs: u64 = summary.entries.iter().map(|entry| u64::from(entry.pairs_disturbed)).sum();
    page.line(&format!(
        "{} of {} left out because of steal, preemption or migration, and with them {} of cells.",
        summary.rounds_disturbed,
        number::count(counted + summary.rounds_disturbed, "round"),
        number::count(pairs, "pair"),
    ));
}

pub(super) fn self_test(page: &mut Page, run: &Run) {
    page.section("Self-test");
    let tested: Vec<_> = hosts(run)
        .into_iter()
        .filter_map(|(label, part)| Some((label, part.self_test.as_ref()?)))
        .collect();
    if tested.is_empty() {
        page.line("Not run with this run; `cellbench selftest` does it.");
    }
    for (label, test) in tested {
        if let Some(label) = label {
            page.part(label);
        }
        page.line(&format!(
            "{} (`{}`). A/A: of {}, {} called different before correction, {} after.\n",
            if test.passed { "Passed" } else { "**Failed**" },
            or(&test.command_line, "cellbench selftest"),
            number::count(test.aa.comparisons, "comparison"),
            test.aa.different_uncorrected,
            test.aa.different
        ));
        if test.planted.is_empty() {
            continue;
        }
        let mut columns = Columns::new(&[
            ("cell", false),
            ("workload", false),
            ("planted slow-down", true),
            ("found", true),
        ]);
        for planted in &test.planted {
            columns.rows.push(vec![
                planted.cell.clone(),
                planted.workload.clone(),
                format!("{} %", planted.slowdown_percent),
                format!("{} of {}", planted.found, planted.tries),
            ]);
        }
        page.table(&columns);
    }
}

/// Lists the notes of the run, and the parts of its records that could not be used.
pub(super) fn limits(page: &mut Page, report: &Report<'_>) {
    let notes: Vec<String> = hosts(report.run)
        .into_iter()
        .flat_map(|(label, part)| {
            let label = label.map_or(String::new(), |label| format!("{label}: "));
            part.notes.iter().map(move |note| format!("{label}{note}"))
        })
        .collect();
    if !notes.is_empty() {
        page.section("Limits of this run");
        for note in notes {
            page.line(&format!("- {note}"));
        }
    }
    if report.damage.total > 0 {
        page.section("Damaged records");
        page.line(&format!(
            "{} of the records could not be used and was left out:\n",
            number::count(report.damage.total, "part")
        ));
        for damage in &report.damage.first {
            let path = damage.path.strip_prefix(report.dir).unwrap_or(&damage.path);
            let line = damage.line.map_or(String::new(), |line| format!(":{line}"));
            page.line(&format!("- `{}{line}`: {}", path.display(), damage.what));
        }
        let more = report.damage.total - report.damage.first.len() as u64;
        if more > 0 {
            page.line(&format!("- and {more} more"));
        }
    }
}

pub(super) fn or<'a>(text: &'a str, unknown: &'a str) -> &'a str {
    if text.is_empty() { unknown } else { text }
}
