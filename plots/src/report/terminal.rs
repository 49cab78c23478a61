//! The text for the terminal: 80 columns, colour only where somebody sees it.
//!
//! The outcome in a sentence, a line for each design, the forest plot in letters. A table follows
//! where it is short; else the reports have it.

use cellbench_record::Verdict;

use super::layout::{ascii, groups, verdict_word, wrap};
use super::{Format, Rendered, Report, forest_text, outcome, overview};
use crate::chart::Drawings;
use crate::hosts;
use crate::number;

/// `table.txt`: the terminal's text without colour.
#[derive(Debug)]
pub struct Terminal;

impl Format for Terminal {
    fn name(&self) -> &'static str {
        "table"
    }

    fn render(&self, report: &Report<'_>, _: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        Ok(vec![Rendered::text("table.txt", terminal(report, false))])
    }
}

const WIDTH: usize = 80;
/// Most workloads with bars.
const FORESTS: usize = 2;
/// Lines of this text, before two notes of two lines; a command has ten of its own: 60 in all.
const MOST_LINES: usize = 46;
/// Rows of tables that a terminal shows; more are left to the files.
const MOST_ROWS: usize = 24;

/// Returns the outcome as text. `colour` adds ANSI colours to verdicts; give it
/// `stdout().is_terminal()` and heed `NO_COLOR`.
#[must_use]
pub fn terminal(report: &Report<'_>, colour: bool) -> String {
    let summary = report.summary;
    let found = outcome(report);
    let mut text = String::new();
    let paragraph = |text: &mut String, words: &str, first: &str, rest: &str| {
        let words = wrap(&ascii(words), WIDTH, first, rest);
        if !words.is_empty() {
            *text += &words;
            text.push('\n');
        }
    };
    paragraph(&mut text, &found.first_line(), "", "");
    if !found.designs.is_empty() {
        text.push('\n');
    }
    for design in &found.designs {
        paragraph(&mut text, design, "  ", "    ");
    }
    for headline in hosts::headlines(&hosts::over_hosts(summary)) {
        paragraph(&mut text, &headline, "  ", "    ");
    }
    if let Some(why) = &found.why {
        text.push('\n');
        paragraph(&mut text, why, "", "");
    }
    let legend = wrap(forest_text::LEGEND, WIDTH, "", "").lines().count();
    let before = text.lines().count() + legend + 1;
    let fits = |forest: &String| before + forest.lines().count() <= MOST_LINES;
    let mut forests = (1..=FORESTS).rev().map(|most| forest_text::forest(report, most, WIDTH));
    // One workload's bars are shown in any case.
    let forest = forests.find(fits).unwrap_or_else(|| forest_text::forest(report, 1, WIDTH));
    if !forest.is_empty() {
        text.push('\n');
        text += &forest;
        paragraph(&mut text, forest_text::LEGEND, "", "");
    }
    if summary.entries.len() <= MOST_ROWS {
        tables(&mut text, report, colour);
    } else {
        let mut left_out = 0_u64;
        for block in overview::digests(report) {
            if text.lines().count() + block.lines().count() + 1 > MOST_LINES {
                left_out += 1;
                continue;
            }
            text.push('\n');
            for line in block.lines() {
                text += &ascii(line);
                text.push('\n');
            }
        }
        if left_out > 0 {
            let tables = number::count(left_out, "further table");
            text += &format!("\n{tables} of this kind in RESULTS.md.\n");
        }
    }
    if summary.rounds_disturbed > 0 {
        let rounds = number::count(summary.rounds_disturbed, "disturbed round");
        text += &format!("\n{rounds} left out (steal, preemption or migration).\n");
    }
    text
}

/// Writes the tables, whose rows have 2 + 20 + 1 + 7 + 1 + 7 + 1 + 7 + 1 + 15 + 1 + 9 + 1 + 7 = 80 columns.
fn tables(text: &mut String, report: &Report<'_>, colour: bool) {
    let summary = report.summary;
    for group in groups(summary) {
        *text += &format!("\n{}\n", wrap(&ascii(&group.title()), WIDTH, "", "  "));
        *text += &format!(
            "  {:<20} {:>7} {:>7} {:>7} {:<15} {:<9} {:>7}\n",
            "cell", "ok/s", "failed", "ratio ", "95 % interval", "verdict", "p99"
        );
        for entry in group.entries {
            let word = verdict_word(summary, entry);
            let padded = format!("{word:<9}");
            let painted = match (colour, entry.verdict, word.as_str()) {
                (true, _, "ERROR") => format!("\x1b[1;31m{padded}\x1b[0m"),
                (true, Some(Verdict::Faster), _) => format!("\x1b[32m{padded}\x1b[0m"),
                (true, Some(Verdict::Slower), _) => format!("\x1b[33m{padded}\x1b[0m"),
                _ => padded,
            };
            let mark = if entry.bimodal { '*' } else { ' ' };
            let line = format!(
                "  {:<20} {:>7} {:>7} {:>6}{mark} {:<15} {painted} {:>7}",
                ascii(&entry.series.cell),
                number::si(entry.goodput_ops_s),
                number::percent(entry.failure_share),
                number::ratio(entry.ratio),
                number::interval(entry.ratio_low, entry.ratio_high),
                number::time_ns(entry.p99_ns),
            );
            *text += line.trim_end();
            text.push('\n');
        }
        if group.entries.iter().any(|entry| entry.bimodal) {
            *text += "  * rounds in several modes: the rates are of other rounds than the ratio\n";
        }
    }
}
