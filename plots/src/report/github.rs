//! `github.md`: the outcome as a comment on a pull request or a job summary (`$GITHUB_STEP_SUMMARY`).
//!
//! GitHub shows no SVG that a comment brings along, so that the forest plot is in letters; everything
//! longer is behind folds.

use super::layout::{Columns, described_hosts, host_lines, verdict_word};
use super::{Format, Rendered, Report, forest_text, outcome};
use crate::chart::Drawings;
use crate::number;

pub(super) struct Github;

/// Columns of a block of text that GitHub shows without scrolling.
const WIDTH: usize = 92;
const FORESTS: usize = 3;
/// A comment holds 65,536 letters at most: rows beyond are left to the artifacts.
const MOST_ROWS: usize = 200;

impl Format for Github {
    fn name(&self) -> &'static str {
        "github"
    }

    fn render(&self, report: &Report<'_>, _: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        Ok(vec![Rendered::text("github.md", page(report))])
    }
}

fn page(report: &Report<'_>) -> String {
    let (run, summary) = (report.run, report.summary);
    let found = outcome(report);
    let mut text = String::from("### cellbench\n\n");
    for caution in &found.cautions {
        text += &format!("> [!WARNING]\n> {caution}\n\n");
    }
    if let Some(sentence) = &found.sentence {
        text += &format!("**{sentence}**\n\n");
    }
    for design in &found.designs {
        text += &format!("- {design}\n");
    }
    let forest = forest_text::forest(report, FORESTS, WIDTH);
    if !forest.is_empty() {
        text += &format!("\n```text\n{forest}```\n{}\n", forest_text::LEGEND);
    }
    let mut columns = Columns::new(&[
        ("row", false),
        ("goodput, op/s", true),
        ("failed", true),
        ("ratio", true),
        ("95 % interval", false),
        ("verdict", false),
    ]);
    for entry in summary.entries.iter().take(MOST_ROWS) {
        columns.rows.push(vec![
            entry.series.to_string(),
            number::si(entry.goodput_ops_s),
            number::percent(entry.failure_share),
            number::ratio(entry.ratio),
            number::interval(entry.ratio_low, entry.ratio_high),
            verdict_word(summary, entry),
        ]);
    }
    if !columns.rows.is_empty() {
        let rows = number::count(columns.rows.len() as u64, "row");
        text += &format!("\n<details>\n<summary>{rows}</summary>\n\n{}", columns.markdown());
        if summary.entries.len() > MOST_ROWS {
            text += &format!("\n{} more in summary.csv.\n", summary.entries.len() - MOST_ROWS);
        }
        text += "\n</details>\n";
    }
    text += "\n<details>\n<summary>Host and command</summary>\n\n";
    let (described, more) = described_hosts(run);
    for (label, part) in described {
        let label = label.map_or(String::new(), |label| format!("{label}: "));
        text += &format!("{label}{}\n\n", host_lines(&part.host).join("; "));
        if !part.command_line.is_empty() {
            text += &format!("```sh\n{}\n```\n\n", part.command_line);
        }
    }
    if let Some(more) = more {
        text += &format!("{more}\n\n");
    }
    text += "</details>\n";
    text
}
