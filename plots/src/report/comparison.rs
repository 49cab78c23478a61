//! The text of `cellbench compare`: what differs around the runs first, then the rows.

use cellbench_record::Verdict;

use super::layout::{ascii, title, wrap, wrap_command};
use crate::compare::{ComparedRow, RunComparison};
use crate::number;

const WIDTH: usize = 80;

/// Returns a comparison for the terminal: ASCII, at most 80 columns.
#[must_use]
pub fn comparison(found: &RunComparison) -> String {
    let mut text = wrap(&ascii(&caution(found)), WIDTH, "", "");
    text.push('\n');
    for (name, side) in [("A", &found.a), ("B", &found.b)] {
        let revision = side.revision.as_deref().unwrap_or("revision unknown");
        let line = format!("{name}: {} ({revision})", side.run_id);
        text += &wrap(&ascii(&line), WIDTH, "", "   ");
        text.push('\n');
        text += &wrap_command(&ascii(or(&side.command_line)), WIDTH, "   ");
        text.push('\n');
    }
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
             (real cores, simulator, kernel). Their ratio says how the worlds differ, not which is better.",
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
    text += &line(["cell", "A ok/s", "B ok/s", "B/A", "95 % interval", "verdict"]);
    for row in rows {
        let verdict = match row.verdict {
            Some(verdict) => verdict.to_string(),
            None if row.broken => "ERROR".to_owned(),
            None => "few rounds".to_owned(),
        };
        text += &line([
            &ascii(&row.series.cell),
            &number::si(row.goodput_a_ops_s),
            &number::si(row.goodput_b_ops_s),
            &number::ratio(row.ratio),
            &number::interval(row.ratio_low, row.ratio_high),
            &verdict,
        ]);
        if row.relative.is_some() {
            let interval = number::interval(row.relative_low, row.relative_high);
            let relative = number::ratio(row.relative);
            text += &format!("{:>44}  {interval:<15} against baseline\n", relative);
        }
        let (a, b) = (row.failure_share_a, row.failure_share_b);
        if a.unwrap_or(0.0) > 0.0 || b.unwrap_or(0.0) > 0.0 {
            let (a, b) = (number::percent(a), number::percent(b));
            text += &format!("  {:<20} failed: {a} in A, {b} in B\n", "");
        }
    }
    text
}

/// Formats a row: 2 + 20 + 1 + 6 + 1 + 6 + 1 + 7 + 2 + 15 + 1 + 10 = 72 columns.
fn line([cell, a, b, ratio, interval, verdict]: [&str; 6]) -> String {
    let line = format!("  {cell:<20} {a:>6} {b:>6} {ratio:>7}  {interval:<15} {verdict:<10}");
    format!("{}\n", line.trim_end())
}

/// Says what a reader must know before any figure.
fn caution(found: &RunComparison) -> String {
    if found.rows.is_empty() {
        return "No row is in both runs: there is nothing to compare.".into();
    }
    if found.paired {
        return "Simulated with one seed: rounds are compared in pairs, and nothing drifts between \
                the runs."
            .into();
    }
    let spread = match found.a_a_spread_share {
        Some(share) => format!(
            "the halves of one run, where nothing changed, differ by up to {} (95 % of rows), \
             and intervals are widened by it",
            number::percent(Some(share))
        ),
        None => "neither run has rounds enough to show its own drift".into(),
    };
    format!(
        "Two separate runs: drift of the host between them is not excluded; {spread}. `cellbench \
         ab` measures both in one run."
    )
}

fn closing(found: &RunComparison) -> String {
    if found.rows.is_empty() {
        return "No row is in both runs.".into();
    }
    let errors = found.rows.iter().filter(|row| row.broken).count();
    let few = found.rows.iter().filter(|row| row.verdict.is_none() && !row.broken).count();
    let mut tally = format!(
        "B against A: {} faster, {} slower, {} same (within {}), {} undecided",
        found.count(Verdict::Faster),
        found.count(Verdict::Slower),
        found.count(Verdict::Same),
        number::percent_chosen(found.threshold_share),
        found.count(Verdict::Undecided)
    );
    if few > 0 {
        tally += &format!(", {few} with too few rounds");
    }
    if errors > 0 {
        tally += &format!(", {errors} with a broken invariant");
    }
    format!(
        "{tally}. \"Against baseline\": B/A divided by that of the baseline cell, from ratios within rounds, \
         in which the drift of the host cancels."
    )
}

fn or(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
