//! The forest plot in letters, for terminal and mail: a line for each design, its ratio to the
//! baseline and the interval on a logarithmic axis.

use cellbench_record::Entry;

use super::Report;
use super::layout::ascii;
use super::overview::{heading, sign};
use crate::number;
use crate::overview::{excess_failures, headline, overviews};

/// Columns of the names, and of everything that is no bar: 2 + 20 + 1 + 6 + 1 + 1 + 1, and 1 + 9
/// behind it.
const NAME: usize = 20;
const BESIDE: usize = 42;
/// Columns of the narrowest bars.
const LEAST_BAR: usize = 12;
/// An axis reaches at most this far to either side of 1.
const FARTHEST: f64 = 16.0;

/// Returns the plots of the first `most` workloads that tell most, `width` columns wide; empty if
/// nothing is compared.
pub(super) fn forest(report: &Report<'_>, most: usize, width: usize) -> String {
    let Some(overview) = headline(overviews(report)) else { return String::new() };
    let mut text = String::new();
    for column in overview.telling().into_iter().take(most) {
        let rows: Vec<&Entry> = overview
            .cells
            .iter()
            .filter_map(|(cell, _)| overview.entry(cell, column))
            .filter(|entry| entry.ratio.is_some() && entry.violations.is_empty())
            .collect();
        let base = overview.entry(&report.summary.baseline, column);
        let title = ascii(&heading(overview.workloads[column]));
        if !text.is_empty() {
            text.push('\n');
        }
        text += &bars(&title, &rows, base, width).join("\n");
        text.push('\n');
    }
    text
}

/// Returns a heading with an axis, and a line for each entry: its ratio to the baseline and the
/// interval.
/// `base`: the baseline's own entry, whose failures are no design's.
#[must_use]
pub fn bars(title: &str, rows: &[&Entry], base: Option<&Entry>, width: usize) -> Vec<String> {
    let axis = Axis::of(rows.iter().copied(), width.saturating_sub(BESIDE).max(LEAST_BAR));
    let title: String = title.chars().take(NAME + 11).collect();
    let mut lines = vec![format!("{title:<31} {}", axis.scale())];
    for entry in rows {
        let name: String = ascii(&entry.series.cell).chars().take(NAME).collect();
        let mark = entry.verdict.map_or(' ', sign);
        let fails = excess_failures(entry, base)
            .map_or(String::new(), |excess| format!("!{}", number::percent(Some(excess))));
        let line = format!(
            "  {name:<NAME$} {:>6} {mark} {} {fails}",
            number::ratio(entry.ratio),
            axis.bar(entry)
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Explanation of the signs, for the foot of a page.
pub(super) const LEGEND: &str = "Bars: o ratio of goodput to the baseline's, = its 95 % interval, | equality; \
     + faster, - slower, = same, ? undecided; ! share that fails beyond the baseline's.";

/// A logarithmic axis that holds 1.
struct Axis {
    low: f64,
    high: f64,
    width: usize,
}

impl Axis {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>, width: usize) -> Self {
        let (mut low, mut high) = (0.5_f64, 2.0_f64);
        for entry in entries {
            for end in [entry.ratio_low, entry.ratio, entry.ratio_high].into_iter().flatten() {
                (low, high) = (low.min(end), high.max(end));
            }
        }
        let power = |value: f64| libm::exp2(value);
        Self {
            low: power(libm::log2(low.max(1.0 / FARTHEST)).floor()),
            high: power(libm::log2(high.min(FARTHEST)).ceil()),
            width,
        }
    }

    /// Returns the column of a ratio, none beyond the ends.
    fn place(&self, ratio: f64) -> Option<usize> {
        let share = libm::log(ratio / self.low) / libm::log(self.high / self.low);
        (0.0..=1.0).contains(&share).then(|| (share * (self.width - 1) as f64).round() as usize)
    }

    /// Powers of two over their columns.
    fn scale(&self) -> String {
        let mut line = vec![' '; self.width];
        let mut free_from = 0;
        let mut tick = self.low;
        while tick <= self.high * 1.001 {
            let text =
                if tick < 1.0 { format!("1/{:.0}", 1.0 / tick) } else { format!("{tick:.0}") };
            if let Some(at) = self.place(tick.min(self.high)) {
                let start = (at + 1).saturating_sub(text.len()).min(self.width - text.len());
                if start >= free_from {
                    for (offset, letter) in text.chars().enumerate() {
                        line[start + offset] = letter;
                    }
                    free_from = start + text.len() + 1;
                }
            }
            tick *= 2.0;
        }
        let line: String = line.into_iter().collect();
        line.trim_end().to_owned()
    }

    fn bar(&self, entry: &Entry) -> String {
        let mut line = vec![' '; self.width];
        if let Some(one) = self.place(1.0) {
            line[one] = '|';
        }
        let clamped = |ratio: f64| self.place(ratio.clamp(self.low, self.high));
        if let (Some(low), Some(high)) = (entry.ratio_low, entry.ratio_high)
            && let (Some(from), Some(to)) = (clamped(low), clamped(high))
        {
            for letter in &mut line[from..=to] {
                *letter = '=';
            }
        }
        let ratio = entry.ratio.unwrap_or(1.0);
        if let Some(at) = clamped(ratio) {
            line[at] = match ratio {
                ratio if ratio < self.low => '<',
                ratio if ratio > self.high => '>',
                _ => 'o',
            };
        }
        line.into_iter().collect()
    }
}
