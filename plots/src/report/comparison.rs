//! The text of `cellbench compare`: what differs around the runs first, then the rows.

use cellbench_record::Verdict;

use super::layout::{ascii, title, wrap};
use super::number;
use crate::compare::{ComparedRow, RunComparison};

const WIDTH: usize = 80;

/// A comparison for the terminal: ASCII, at most 80 columns.
#[must_use]
pub fn comparison(found: &RunComparison) -> String {
    let mut text = format!("A: {}\nB: {}\n", ascii(&found.a), ascii(&found.b));
    if !found.differences.is_empty() {
        text += "\nThe runs differ in more than their results:\n";
        for difference in &found.differences {
            let what = &difference.what;
            let line = format!("{what}: {} in A, {} in B", or(&difference.a), or(&difference.b));
            text += &wrap(&ascii(&line), WIDTH, "  ", "    ");
            text += "\n";
        }
    }
    if found.across_sources {
        text += &wrap(
            "No row is in both runs from the same source; rows are matched across sources \
             (model, simulator, kernel). Their ratio says how the worlds differ, not which is better.",
            WIDTH,
            "\n",
            "",
        );
        text += "\n";
    }
    for rows in found.rows.chunk_by(|a, b| a.series.with_cell("") == b.series.with_cell("")) {
        text += &group(rows);
    }
    for (side, only) in [("A", &found.only_a), ("B", &found.only_b)] {
        if !only.is_empty() {
            text += &format!("\nOnly in {side}: {}\n", number::count(only.len() as u64, "row"));
            for series in only.iter().take(10) {
                text += &wrap(&ascii(&series.to_string()), WIDTH, "  ", "    ");
                text += "\n";
            }
            if only.len() > 10 {
                text += &format!("  and {} more\n", only.len() - 10);
            }
        }
    }
    text.push('\n');
    text += &wrap(&closing(found), WIDTH, "", "");
    text.push('\n');
    text
}

fn group(rows: &[ComparedRow]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut text = format!("\n{}\n", wrap(&ascii(&title(&first.series)), WIDTH, "", "  "));
    text += &line(["cell", "A ok/s", "B ok/s", "B/A", "95 % interval", "to bl.", "verdict"]);
    for row in rows {
        let verdict = row.verdict.map_or("ERROR".to_owned(), |verdict| verdict.to_string());
        text += &line([
            &ascii(&row.series.cell),
            &number::si(row.goodput_a_ops_s),
            &number::si(row.goodput_b_ops_s),
            &number::ratio(row.ratio),
            &number::interval(row.ratio_low, row.ratio_high),
            &number::ratio(row.ratio_to_baseline),
            &verdict,
        ]);
        let (a, b) = (row.failure_share_a, row.failure_share_b);
        if a.unwrap_or(0.0) > 0.0 || b.unwrap_or(0.0) > 0.0 {
            let (a, b) = (number::percent(a), number::percent(b));
            text += &format!("  {:<20} failed: {a} in A, {b} in B\n", "");
        }
    }
    text
}

/// 2 + 20 + 1 + 6 + 1 + 6 + 1 + 6 + 2 + 15 + 1 + 6 + 1 + 9 = 77.
fn line([cell, a, b, ratio, interval, relative, verdict]: [&str; 7]) -> String {
    let line =
        format!("  {cell:<20} {a:>6} {b:>6} {ratio:>6}  {interval:<15} {relative:>6} {verdict:<9}");
    format!("{}\n", line.trim_end())
}

fn closing(found: &RunComparison) -> String {
    if found.rows.is_empty() {
        return "No row is in both runs.".into();
    }
    let errors = found.rows.iter().filter(|row| row.verdict.is_none()).count();
    let mut tally = format!(
        "B against A: {} faster, {} slower, {} same (within {}), {} undecided",
        found.count(Verdict::Faster),
        found.count(Verdict::Slower),
        found.count(Verdict::Same),
        number::percent_chosen(found.threshold_share),
        found.count(Verdict::Undecided)
    );
    if errors > 0 {
        tally += &format!(", {errors} with a broken invariant");
    }
    format!(
        "{tally}. The runs were measured apart: intervals cover the variation between rounds, not \
         that between boots or builds. \"to bl.\" is B/A by that of the baseline cell."
    )
}

fn or(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
