//! Latency as a distribution: how the timed operations spread, where a percentile would hide that
//! there are two humps.

use cellbench_record::{Entry, Interval, latency_log, read_latency_log};

use super::latency::time;
use super::lines::{Line, Lines, Point, Scale};
use super::panel::{by_cell, panels};
use super::style::{self, Look};
use super::{Chart, Drawing};
use crate::number;
use crate::run::Report;

pub(super) struct Distribution;

/// Classes a decade: wide enough that a few thousand samples fill them.
const CLASSES: f64 = 12.0;
/// Share of the operations that is drawn: the last few would make three decades of the axis empty.
const SHOWN: f64 = 0.9995;
/// Percentiles that are marked.
const MARKED: [f64; 2] = [50.0, 99.0];

impl Chart for Distribution {
    fn name(&self) -> &'static str {
        "distribution"
    }

    fn about(&self) -> &'static str {
        "Share of the timed operations by latency, in twelve classes a decade, at the largest number \
         of threads, over all undisturbed rounds; the slowest 0.05 % are left out. Marks are the median and the \
         99th percentile."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(0);
            let lines = by_cell(report, &entries).into_iter().filter_map(|(cell, of_cell)| {
                let entry = of_cell.last().filter(|entry| entry.series.threads == most)?;
                let counts = counts(report, entry)?;
                let look = style::look(report.designs, &cell);
                Some(line(cell, look, &counts))
            });
            let chart = Lines {
                name: panel.file_name("distribution"),
                title: format!("Latencies: {}, {}", panel.title(), number::count(most, "thread")),
                x_label: "latency".into(),
                y_label: "share of operations".into(),
                x_scale: Scale::Decades,
                y_scale: Scale::Linear,
                x_ticks: Vec::new(),
                x_text: time,
                y_text: |share| number::percent(Some(share)),
                lines: lines.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}

/// Samples by class, from the first to the last that has any; classes are numbered from 1 ns.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    first: i32,
    by_class: Vec<u64>,
}

impl Counts {
    fn add(&mut self, value_ns: u64, count: u64) {
        let class = ((value_ns.max(1) as f64).log10() * CLASSES).floor() as i32;
        if self.by_class.is_empty() {
            self.first = class;
        }
        while class < self.first {
            self.by_class.insert(0, 0);
            self.first -= 1;
        }
        let place = (class - self.first) as usize;
        if place >= self.by_class.len() {
            self.by_class.resize(place + 1, 0);
        }
        self.by_class[place] = self.by_class[place].saturating_add(count);
    }

    fn total(&self) -> u64 {
        self.by_class.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the middle of a class, and the share of samples in it.
    fn places(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let total = self.total().max(1) as f64;
        self.by_class.iter().zip(self.first..).map(move |(count, class)| {
            (10_f64.powf((f64::from(class) + 0.5) / CLASSES), *count as f64 / total)
        })
    }
}

/// Returns latencies of the operation with most samples, from the log of the entry's series; none
/// where no
/// log was kept. What of a log is damaged is left out.
fn counts(report: &Report<'_>, entry: &Entry) -> Option<Counts> {
    let (op, latency) = entry.latency.iter().max_by_key(|(_, latency)| latency.samples)?;
    let (intervals, _) = read_latency_log(&latency_log(report.dir, latency.hlog.as_ref()?)).ok()?;
    let mut counts = Counts::default();
    let counts_in = |it: &&Interval| {
        it.op == *op && !it.disturbed && !report.table.was_disturbed(&entry.series, it.start_s)
    };
    for interval in intervals.iter().filter(counts_in) {
        for value in interval.histogram.iter_recorded() {
            counts.add(value.value_iterated_to(), value.count_since_last_iteration());
        }
    }
    (counts.total() > 0).then_some(counts)
}

fn line(cell: String, look: Look, counts: &Counts) -> Line {
    let mut drawn = 0.0;
    let is_shown = |(_, share): &(f64, f64)| {
        let is_shown = drawn < SHOWN;
        drawn += share;
        is_shown
    };
    let curve: Vec<(f64, f64)> = counts.places().take_while(is_shown).collect();
    let mut points = Vec::new();
    for percentile in MARKED {
        let mut below = 0.0;
        let place = curve.iter().find(|(_, share)| {
            below += share;
            below >= percentile / 100.0 - 1e-12
        });
        points.extend(place.map(|(x, y)| Point { x: *x, y: *y, low: *y, high: *y }));
    }
    Line { cell, look, points, curve }
}

#[cfg(test)]
mod tests {
    use super::{Counts, line, style};
    use crate::designs::Designs;

    #[test]
    fn samples_fall_into_classes_on_both_sides_of_the_first() {
        let mut counts = Counts::default();
        counts.add(100, 98);
        counts.add(10, 1);
        counts.add(1_000_000, 1);
        assert_eq!((counts.first, counts.by_class.len(), counts.total()), (12, 61, 100));
        let places: Vec<(f64, f64)> = counts.places().filter(|(_, share)| *share > 0.0).collect();
        assert_eq!(places.iter().map(|(_, share)| *share).collect::<Vec<_>>(), [0.01, 0.98, 0.01]);
        for ((middle, _), value) in places.iter().zip([10.0, 100.0, 1e6]) {
            assert!((value..value * 1.22).contains(middle), "{middle} of {value}");
        }
        let look = style::look(&Designs::default(), "x");
        let line = line("x".into(), look, &counts);
        // Median and 99th percentile lie both in the class of 100 ns.
        assert_eq!(line.points.len(), 2);
        assert!(line.points.iter().all(|point| (point.y - 0.98).abs() < 1e-12));
    }
}
