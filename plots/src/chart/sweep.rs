//! Which lock wins where: the workloads `sweep-<section>-<outside>-<lines>` as a map, section against
//! time between two, one map for each number of lines of data and of threads. Each square has the
//! colour of the lock with the highest goodput, and says how far it is ahead of the next; a square
//! whose best two cannot be told apart by their intervals says so.

use std::collections::BTreeMap;

use cellbench_record::{Entry, Kind};
use plotters::prelude::*;

use super::panel::Panel;
use super::style::{self, FAINT, FONT, INK, Mark, TEXT_PX, TITLE_PX};
use super::{Chart, Drawing};
use crate::number;
use crate::run::Report;

pub(super) struct Sweep;

/// A point of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    section_ns: u32,
    outside_ns: u32,
}

/// Returns the point and the lines of data of a workload of the sweep.
fn point(workload: &str) -> Option<(Point, u32)> {
    let mut numbers = workload.strip_prefix("sweep-")?.split('-').map(|part| part.parse().ok());
    let [section_ns, outside_ns, lines] = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some((Point { section_ns, outside_ns }, lines))
}

/// The entries of a map by point.
type Points<'a> = BTreeMap<Point, Vec<&'a Entry>>;

/// Who wins at a point.
#[derive(Debug, PartialEq)]
struct Winner<'a> {
    cell: &'a str,
    /// Goodput over that of the next one; none: it is alone.
    ahead: Option<f64>,
    /// The next one, where the intervals of both overlap.
    tied: Option<&'a str>,
}

fn winner<'a>(entries: &[&'a Entry]) -> Option<Winner<'a>> {
    let mut ranked: Vec<(&Entry, f64)> =
        entries.iter().filter_map(|entry| Some((*entry, entry.goodput_ops_s?))).collect();
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let (best, goodput) = ranked.first()?;
    let next = ranked.get(1);
    let apart = |next: &Entry| match (best.goodput_low_ops_s, next.goodput_high_ops_s) {
        (Some(low), Some(high)) => low > high,
        // Without intervals nothing is said about how sure it is: one round of a simulation.
        _ => best.goodput_ops_s > next.goodput_ops_s,
    };
    Some(Winner {
        cell: &best.series.cell,
        ahead: next.map(|(_, of_next)| goodput / of_next).filter(|ratio| ratio.is_finite()),
        tied: next.filter(|(next, _)| !apart(next)).map(|(next, _)| next.series.cell.as_str()),
    })
}

impl Chart for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn about(&self) -> &'static str {
        "The lock with the highest goodput by length of the section and time between two, and how far \
         it is ahead of the next."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut maps: Vec<((Panel, u32, u32), Points<'_>)> = Vec::new();
        for entry in &report.summary.entries {
            let series = &entry.series;
            let Some((point, lines)) = point(&series.workload) else { continue };
            if series.kind != Kind::Lock {
                continue;
            }
            let key = (Panel::of_all(series), series.threads, lines);
            let place = maps.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                maps.push((key, BTreeMap::new()));
                maps.len() - 1
            });
            maps[place].1.entry(point).or_default().push(entry);
        }
        let drawn = maps.into_iter().map(|((panel, threads, lines), points)| {
            Map {
                name: format!("{}-{threads}t-{lines}l", panel.file_name("sweep")),
                title: format!(
                    "Fastest lock: {}, {}, {} of data",
                    panel.title(),
                    number::count(threads, "thread"),
                    number::count(lines, "line")
                ),
                winners: points
                    .iter()
                    .filter_map(|(point, entries)| Some((*point, winner(entries)?)))
                    .collect(),
            }
            .draw(report)
        });
        Ok(drawn.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// A map that is drawn.
struct Map<'a> {
    name: String,
    title: String,
    winners: BTreeMap<Point, Winner<'a>>,
}

const LEFT: i32 = 110;
const TOP: i32 = 70;
/// Size of a square.
const WIDTH: i32 = 150;
const HEIGHT: i32 = 46;

/// Returns a length of time, short.
fn time(ns: u32) -> String {
    if ns >= 1000 && ns.is_multiple_of(100) {
        format!("{} us", number::significant(f64::from(ns) / 1e3))
    } else {
        format!("{ns} ns")
    }
}

impl Map<'_> {
    /// Draws; `None` if there is no square.
    fn draw(self, report: &Report<'_>) -> Result<Option<Drawing>, String> {
        if self.winners.is_empty() {
            return Ok(None);
        }
        let mut svg = String::new();
        let marks = self
            .draw_on(&mut svg, report)
            .map_err(|error| format!("chart {}: {error}", self.name))?;
        let words = self.winners.iter().map(|(point, winner)| words(*point, winner));
        let description = words.collect::<Vec<_>>().join("; ") + ".";
        let svg = style::finish(&svg, &self.title, &description, &marks);
        Ok(Some(Drawing { name: self.name, title: self.title, description, svg }))
    }

    fn draw_on(&self, svg: &mut String, report: &Report<'_>) -> Result<Vec<Mark>, String> {
        let sorted = |of: fn(&Point) -> u32| {
            let mut values: Vec<u32> = self.winners.keys().map(of).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        let (sections, outsides) = (sorted(|it| it.section_ns), sorted(|it| it.outside_ns));
        let (columns, rows) = (outsides.len() as i32, sections.len() as i32);
        let size = ((LEFT + columns * WIDTH + 24).max(640), TOP + rows * HEIGHT + 40);
        let root = SVGBackend::with_string(svg, (size.0 as u32, size.1 as u32)).into_drawing_area();
        let fail = |error: DrawingAreaErrorKind<_>| error.to_string();
        let text = |words: &str, at: (i32, i32)| {
            let font = (FONT, TEXT_PX).into_font().color(&INK);
            root.draw(&Text::new(words.to_owned(), at, font)).map_err(fail)
        };
        let title = (FONT, TITLE_PX).into_font().color(&INK);
        root.draw(&Text::new(self.title.as_str(), (12, 10), title)).map_err(fail)?;
        for (column, ns) in (0..).zip(&outsides) {
            text(&time(*ns), (LEFT + column * WIDTH + 8, TOP - 22))?;
        }
        let mut marks = Vec::new();
        for (row, section_ns) in (0..).zip(&sections) {
            let y = TOP + row * HEIGHT;
            text(&time(*section_ns), (12, y + HEIGHT / 2 - 8))?;
            for (column, outside_ns) in (0..).zip(&outsides) {
                let point = Point { section_ns: *section_ns, outside_ns: *outside_ns };
                let x = LEFT + column * WIDTH;
                let area = [(x, y), (x + WIDTH - 4, y + HEIGHT - 4)];
                root.draw(&Rectangle::new(area, FAINT.stroke_width(1))).map_err(fail)?;
                let Some(winner) = self.winners.get(&point) else { continue };
                // A bar of the design's colour, so that the words stay readable in both schemes.
                let colour = style::look(report.designs, winner.cell).colour;
                let bar = [(x, y), (x + 12, y + HEIGHT - 4)];
                let style = if winner.tied.is_some() { colour.mix(0.4) } else { colour.mix(1.0) };
                root.draw(&Rectangle::new(bar, style.filled())).map_err(fail)?;
                text(winner.cell, (x + 18, y + 3))?;
                text(&ahead(winner), (x + 18, y + 21))?;
                marks.push(Mark { area, text: words(point, winner) });
            }
        }
        text("down: section; right: between two sections", (12, TOP + rows * HEIGHT + 12))?;
        root.present().map_err(fail)?;
        Ok(marks)
    }
}

/// Says how far it is ahead.
fn ahead(winner: &Winner<'_>) -> String {
    match (winner.tied, winner.ahead) {
        (Some(_), _) => "not told apart".into(),
        (None, Some(ratio)) => format!("{} times", number::significant(ratio)),
        (None, None) => "alone".into(),
    }
}

fn words(point: Point, winner: &Winner<'_>) -> String {
    let place =
        format!("section {}, {} between two", time(point.section_ns), time(point.outside_ns));
    match (winner.tied, winner.ahead) {
        (Some(other), _) => format!("{place}: {} and {other}, not told apart", winner.cell),
        (None, Some(ratio)) => {
            let ratio = number::significant(ratio);
            format!("{place}: {}, {ratio} times the next", winner.cell)
        }
        (None, None) => format!("{place}: {} alone", winner.cell),
    }
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Entry, Kind, Series, Source};

    use super::{Point, Winner, point, winner};

    fn entry(cell: &str, goodput: Option<f64>, interval: Option<(f64, f64)>) -> Entry {
        let series = Series::new(cell, Kind::Lock, "sweep-0-500-8", 2, "compact", Source::Model);
        let mut entry = Entry::new(series);
        entry.goodput_ops_s = goodput;
        entry.goodput_low_ops_s = interval.map(|(low, _)| low);
        entry.goodput_high_ops_s = interval.map(|(_, high)| high);
        entry
    }

    #[test]
    fn a_point_is_read_from_the_workloads_name() {
        let expected = (Point { section_ns: 200, outside_ns: 5000 }, 8);
        assert_eq!(point("sweep-200-5000-8"), Some(expected));
        for other in ["sweep-200-5000", "sweep-200-5000-8-1", "sweep-a-0-1", "lock-8-lines"] {
            assert_eq!(point(other), None, "{other}");
        }
    }

    #[test]
    fn the_winner_is_told_apart_by_the_intervals() {
        let (mcs, clh) = (
            entry("mcs", Some(30.0), Some((25.0, 35.0))),
            entry("clh", Some(20.0), Some((18.0, 22.0))),
        );
        let found = winner(&[&clh, &mcs]);
        assert_eq!(found, Some(Winner { cell: "mcs", ahead: Some(1.5), tied: None }));
        let close = entry("clh", Some(20.0), Some((18.0, 26.0)));
        assert_eq!(winner(&[&close, &mcs]).unwrap().tied, Some("clh"));
        // Unknown is not a value.
        let unknown = entry("tas", None, None);
        let alone = Some(Winner { cell: "mcs", ahead: None, tied: None });
        assert_eq!(winner(&[&unknown, &mcs]), alone);
        assert_eq!(winner(&[&unknown]), None);
    }
}
