//! The text of `cellbench builds`: one block for each pair of cells.

use cellbench_record::Verdict;

use super::layout::{ascii, wrap};
use crate::builds::{OverBuilds, PairOverBuilds};
use crate::number;

const WIDTH: usize = 80;

/// Returns a comparison over builds for the terminal: ASCII, at most 80 columns.
#[must_use]
pub fn over_builds(found: &OverBuilds) -> String {
    if found.rows.is_empty() {
        return "No row has both cells of a pair: there is nothing to compare.\n".into();
    }
    let mut text = String::new();
    for rows in found.rows.chunk_by(|a, b| a.series.cell == b.series.cell && a.against == b.against)
    {
        let heading = format!("{} / {}", rows[0].series.cell, rows[0].against);
        text += &format!("{}\n", wrap(&ascii(&heading), WIDTH, "", "  "));
        text += &line(["row", "ratio", "95 % interval", "single builds", "verdict"]);
        for row in rows {
            text += &row_text(row);
        }
        text.push('\n');
    }
    text += &wrap(&closing(found), WIDTH, "", "");
    text.push('\n');
    text
}

fn row_text(row: &PairOverBuilds) -> String {
    let known = || row.ratios.iter().flatten().copied();
    line([
        &ascii(&format!("{} x{}", row.series.workload, row.series.threads)),
        &number::ratio(row.ratio),
        &number::interval(row.ratio_low, row.ratio_high),
        &number::interval(known().reduce(f64::min), known().reduce(f64::max)),
        &row.verdict.map_or("few builds".to_owned(), |verdict| verdict.to_string()),
    ])
}

/// Formats a row: 2 + 24 + 1 + 5 + 2 + 14 + 2 + 14 + 2 + 10 = 76 columns.
fn line([row, ratio, interval, range, verdict]: [&str; 5]) -> String {
    let line = format!("  {row:<24} {ratio:>5}  {interval:<14}  {range:<14}  {verdict:<10}");
    format!("{}\n", line.trim_end())
}

fn closing(found: &OverBuilds) -> String {
    let count = |verdict| found.count(verdict);
    let few = found.rows.iter().filter(|row| row.verdict.is_none()).count();
    let mut tally = format!(
        "{}: {} faster, {} slower, {} same (within {}), {} undecided",
        number::count(found.builds as u64, "build"),
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Same),
        number::percent_chosen(found.threshold_share),
        count(Verdict::Undecided)
    );
    if few > 0 {
        tally += &format!(
            ", {few} with too few builds: {} are needed for {}",
            found.builds_needed,
            number::count(found.rows.len() as u64, "comparison")
        );
    }
    format!(
        "{tally}. Each build gives one value, the median of the ratios within its rounds; the interval is \
         over builds and holds for all rows together."
    )
}
