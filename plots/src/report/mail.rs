//! `mail.txt`: the outcome as it is pasted into a patch thread: ASCII, at most 72 columns.

use cellbench_record::{Entry, Settings, Summary};

use super::layout::{
    self, Group, ascii, described_hosts, groups, host_lines, verdict_word, wrap, wrap_command,
};
use super::{Format, Rendered, Report, forest_text, outcome};
use crate::chart::Drawings;
use crate::number;

pub(super) struct Mail;

/// Columns of a mail, by custom of kernel lists.
const WIDTH: usize = 72;

/// Workloads with bars.
const FORESTS: usize = 2;

/// Rows shown, but for the first group, which is shown whole; a mail that is longer is not read.
const ROWS: usize = 40;

impl Format for Mail {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn render(&self, report: &Report<'_>, _: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        Ok(vec![Rendered::text("mail.txt", mail(report))])
    }
}

fn mail(report: &Report<'_>) -> String {
    let (run, summary) = (report.run, report.summary);
    let mut text = String::new();
    let paragraph = |text: &mut String, words: &str, first: &str, rest: &str| {
        let words = wrap(&ascii(words), WIDTH, first, rest);
        if !words.is_empty() {
            *text += &words;
            *text += "\n";
        }
    };
    let found = outcome(report);
    paragraph(&mut text, &found.first_line(), "", "");
    text += "\n";
    for design in &found.designs {
        paragraph(&mut text, design, "* ", "  ");
    }
    for headline in crate::hosts::headlines(&crate::hosts::over_hosts(summary)) {
        paragraph(&mut text, &headline, "* ", "  ");
    }
    if let Some(why) = &found.why {
        paragraph(&mut text, why, "", "");
    }
    let forest = forest_text::forest(report, FORESTS, WIDTH);
    if !forest.is_empty() {
        text += "\n";
        text += &forest;
        paragraph(&mut text, forest_text::LEGEND, "", "");
    }
    text += "\n";
    let (described, more) = described_hosts(run);
    for (label, part) in &described {
        let name = label.map_or("Host:".to_owned(), |label| format!("{label}:"));
        paragraph(&mut text, &name, "", "");
        for line in host_lines(&part.host) {
            paragraph(&mut text, &line, "  ", "    ");
        }
    }
    if let Some(more) = more {
        paragraph(&mut text, &more, "", "");
    }
    text += "\n";
    paragraph(&mut text, &compared(report), "", "");
    let (shown, left_out) = chosen(summary);
    for group in &shown {
        text += "\n";
        paragraph(&mut text, &group.title(), "", "  ");
        text += &line("cell", ["ok/s", "ratio", "95 % interval", "verdict", "failed"]);
        for entry in group.entries {
            text += &row(summary, entry);
        }
    }
    if left_out > 0 {
        text += "\n";
        let more = number::count(left_out as u64, "further group");
        paragraph(&mut text, &format!("{more} of rows in RESULTS.md."), "", "");
    }

    text += "\n";
    paragraph(&mut text, &reading(summary, &run.settings), "", "");
    text += "\nReproduce:\n";
    for (_, part) in described.iter().filter(|(_, part)| !part.command_line.is_empty()) {
        text += &wrap_command(&ascii(&part.command_line), WIDTH, "  ");
        text += "\n";
    }
    let revision = run.git_revision.as_deref().unwrap_or("unknown revision");
    let version = format!("cellbench {} ({revision}), run {}", run.tool_version, run.run_id);
    paragraph(&mut text, &version, "  ", "  ");
    text
}

/// Says in one sentence which cells were compared.
fn compared(report: &Report<'_>) -> String {
    let summary = report.summary;
    let names = |of: &dyn Fn(&Entry) -> String| {
        let mut names: Vec<String> = Vec::new();
        for entry in &summary.entries {
            let name = of(entry);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    };
    let mut cells = names(&|entry| entry.series.cell.clone());
    cells.retain(|cell| *cell != summary.baseline);
    cells.sort_by_key(|cell| (report.designs.rank(cell), cell.clone()));
    let kinds = names(&|entry| entry.series.kind.to_string()).join(", ");
    let mut threads: Vec<u32> = summary.entries.iter().map(|e| e.series.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let threads: Vec<String> = threads.iter().map(u32::to_string).collect();
    format!(
        "Compared: {} against {} ({kinds}; threads {}).",
        if cells.is_empty() { "nothing".to_owned() } else { cells.join(", ") },
        summary.baseline,
        threads.join(", ")
    )
}

/// Returns the groups at the most threads of their kind, workload and placement; how many are left
/// out.
fn chosen(summary: &Summary) -> (Vec<Group<'_>>, usize) {
    let all: Vec<Group<'_>> = groups(summary).collect();
    let total = all.len();
    let at_most_threads = all.iter().enumerate().filter(|(i, group)| {
        // Threads rise within a run of groups that differ in nothing else.
        let series = group.series();
        !all.get(i + 1).is_some_and(|next| {
            let next = next.series();
            next.threads > series.threads
                && (&next.host, &next.source, &next.machine, &next.kind)
                    == (&series.host, &series.source, &series.machine, &series.kind)
                && (&next.workload, &next.engine, &next.placement, next.offered_ops_s)
                    == (&series.workload, &series.engine, &series.placement, series.offered_ops_s)
        })
    });
    let mut rows = 0;
    let fits = |group: &Group<'_>| {
        let is_first = rows == 0;
        rows += group.entries.len();
        is_first || rows <= ROWS
    };
    let shown: Vec<Group<'_>> = at_most_threads.map(|(_, group)| *group).take_while(fits).collect();
    let left_out = total - shown.len();
    (shown, left_out)
}

fn row(summary: &Summary, entry: &Entry) -> String {
    let cells = [
        number::si(entry.goodput_ops_s),
        number::ratio(entry.ratio),
        number::interval(entry.ratio_low, entry.ratio_high),
        verdict_word(summary, entry),
        number::percent(entry.failure_share),
    ];
    line(&ascii(&entry.series.cell), cells.each_ref().map(String::as_str))
}

/// Formats a row: 2 + 20 + 1 + 7 + 1 + 6 + 2 + 15 + 1 + 9 + 1 + 7 = 72 columns. A longer name has a line of
/// its own.
fn line(cell: &str, [goodput, ratio, interval, verdict, failed]: [&str; 5]) -> String {
    let name = if cell.len() > 20 {
        format!("{}\n{:22}", wrap(cell, WIDTH, "  ", "    "), "")
    } else {
        format!("  {cell:<20}")
    };
    format!("{name} {goodput:>7} {ratio:>6}  {interval:<15} {verdict:<9} {failed:>7}\n")
}

/// Explains the columns of the table.
fn reading(summary: &Summary, settings: &Settings) -> String {
    let disturbed = match summary.rounds_disturbed {
        0 => "No round was disturbed.".to_owned(),
        n => format!("{} left out.", number::count(n, "disturbed round")),
    };
    let masking = match layout::charged(settings) {
        none if none.is_empty() => String::new(),
        charged => format!(" Charged, as user space cannot do them: {charged}."),
    };
    format!(
        "ok/s: successful operations per second, all threads (k = 10^3, M = 10^6); failed: share of \
         attempts that returned an error. Ratio: ok/s against {} in the same round, Hodges-Lehmann estimate over \
         rounds; 95 % intervals by the randomised order within rounds, together over {}, and the \
         verdict is what the interval says; same: within {}. {disturbed}{masking}",
        summary.baseline,
        number::count(summary.comparisons, "comparison"),
        number::percent_chosen(summary.threshold_share),
    )
}
