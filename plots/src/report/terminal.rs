//! The table for the terminal: 80 columns, colour only where somebody sees it.

use cellbench_record::Verdict;

use super::layout::{ascii, groups, verdict_word, wrap};
use super::{Format, Rendered, Report, number, overview};

/// `table.txt`: the terminal's table without colour.
#[derive(Debug)]
pub struct Terminal;

impl Format for Terminal {
    fn name(&self) -> &'static str {
        "table"
    }

    fn render(&self, report: &Report<'_>) -> Result<Vec<Rendered>, String> {
        Ok(vec![Rendered::text("table.txt", terminal(report, false))])
    }
}

const WIDTH: usize = 80;

/// 2 + 20 + 1 + 7 + 1 + 7 + 1 + 6 + 2 + 15 + 1 + 9 + 1 + 7 = 80. Outcome at a glance, then a table for each group of rows. `colour` adds ANSI colours to verdicts;
/// give it `stdout().is_terminal()` and heed `NO_COLOR`.
#[must_use]
pub fn terminal(report: &Report<'_>, colour: bool) -> String {
    let summary = report.summary;
    let mut text = String::new();
    for line in overview::digest(summary).lines() {
        text += &ascii(line);
        text += "\n";
    }
    for group in groups(summary) {
        text += &format!("\n{}\n", wrap(&ascii(&group.title()), WIDTH, "", "  "));
        text += &format!(
            "  {:<20} {:>7} {:>7} {:>6}  {:<15} {:<9} {:>7}\n",
            "cell", "ok/s", "failed", "ratio", "95 % interval", "verdict", "p99"
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
            let line = format!(
                "  {:<20} {:>7} {:>7} {:>6}  {:<15} {painted} {:>7}",
                ascii(&entry.series.cell),
                number::si(entry.goodput_ops_s),
                number::percent(entry.failure_share),
                number::ratio(entry.ratio),
                number::interval(entry.ratio_low, entry.ratio_high),
                number::time_ns(entry.p99_ns),
            );
            text += line.trim_end();
            text += "\n";
        }
    }
    if summary.rounds_disturbed > 0 {
        let rounds = number::count(summary.rounds_disturbed, "disturbed round");
        text += &format!("\n{rounds} left out (steal, preemption or migration).\n");
    }
    text
}
