//! The forest plot in letters, for terminal and mail: a line for each design, its ratio to the
//! baseline and the interval on a logarithmic axis.

use std::iter::successors;

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
/// Columns before the bars.
const BEFORE_BAR: usize = 32;
/// Columns of the narrowest bars.
const LEAST_BAR: usize = 12;
/// An axis reaches at most this far to either side of 1.
const FARTHEST: f64 = 16.0;
/// Ends of the axes to the right of 1, of which the first one that holds all is taken; the ends to
/// the left are their inverses. Beyond, an axis ends at powers of two.
const NARROW_ENDS: [f64; 2] = [1.05, 1.25];

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
    let scale = axis.scale();
    let mut lines = if title.chars().count() < BEFORE_BAR {
        vec![format!("{title:<BEFORE_BAR$}{scale}")]
    } else {
        let title = title.chars().take(width).collect();
        vec![title, format!("{:BEFORE_BAR$}{scale}", "")]
    };
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
    ticks: Vec<f64>,
    width: usize,
}

impl Axis {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>, width: usize) -> Self {
        let (mut low, mut high) = (1.0_f64, 1.0_f64);
        for entry in entries {
            for end in [entry.ratio_low, entry.ratio, entry.ratio_high].into_iter().flatten() {
                (low, high) = (low.min(end), high.max(end));
            }
        }
        if let Some(end) = NARROW_ENDS.into_iter().find(|end| high <= *end && low >= 1.0 / end) {
            return Self { low: 1.0 / end, high: end, ticks: vec![1.0 / end, 1.0, end], width };
        }
        let (low, high) = (low.min(0.5), high.max(2.0));
        let power = |value: f64| libm::exp2(value);
        let low = power(libm::log2(low.max(1.0 / FARTHEST)).floor());
        let high = power(libm::log2(high.min(FARTHEST)).ceil());
        let ticks =
            successors(Some(low), |tick| Some(tick * 2.0)).take_while(|t| *t <= high * 1.001);
        Self { low, high, ticks: ticks.collect(), width }
    }

    /// Returns the column of a ratio, none beyond the ends.
    fn place(&self, ratio: f64) -> Option<usize> {
        let share = libm::log(ratio / self.low) / libm::log(self.high / self.low);
        (0.0..=1.0).contains(&share).then(|| (share * (self.width - 1) as f64).round() as usize)
    }

    /// Returns the ticks over their columns.
    fn scale(&self) -> String {
        let mut line = vec![' '; self.width];
        let mut free_from = 0;
        for &tick in &self.ticks {
            let text = label(tick);
            if let Some(at) = self.place(tick.min(self.high)) {
                let start = (at + 1).saturating_sub(text.len()).min(self.width - text.len());
                if start >= free_from {
                    for (offset, letter) in text.chars().enumerate() {
                        line[start + offset] = letter;
                    }
                    free_from = start + text.len() + 1;
                }
            }
        }
        let line: String = line.into_iter().collect();
        line.trim_end().to_owned()
    }

    /// Returns the bar of an entry.
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

/// Returns a tick in letters: whole numbers and their inverses as such, others with two digits.
fn label(tick: f64) -> String {
    match tick {
        tick if tick <= 0.5 => format!("1/{:.0}", 1.0 / tick),
        tick if tick == 1.0 || tick >= 2.0 => format!("{tick:.0}"),
        _ => format!("{tick:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Entry, Kind, Series, Source};

    use super::bars;

    fn entry(ratio: f64, half: f64) -> Entry {
        let series = Series::new("new", Kind::Timer, "solo-set", 1, "compact", Source::Model);
        Entry {
            ratio: Some(ratio),
            ratio_low: Some(ratio - half),
            ratio_high: Some(ratio + half),
            ..Entry::new(series)
        }
    }

    #[test]
    fn a_long_title_is_whole_and_small_differences_fill_the_axis() {
        let title = "start-mostly-99/cmpxchg-state, 128 threads";
        let lines = bars(title, &[&entry(1.02, 0.01)], None, 80);
        assert_eq!(lines[0], title);
        assert!(lines[1].ends_with("1.05") && lines[1].contains("0.95"), "{lines:?}");
        let bar = lines[2].chars().filter(|letter| "=o".contains(*letter)).count();
        assert!(bar > 5, "{lines:?}");
        let wide = bars("short, 2 threads", &[&entry(3.0, 0.5)], None, 80);
        assert!(wide[0].starts_with("short") && wide[0].contains("1/2"), "{wide:?}");
    }
}
