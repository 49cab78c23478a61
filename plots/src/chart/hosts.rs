//! Hosts of a merged run beside each other, all on one scale: ratios of the designs, and latencies
//! between CPUs.

use std::collections::{BTreeMap, HashMap, HashSet};

use cellbench_record::{CoreMatrix, Entry, Series, Verdict};

use super::dots::{Axis, arrow, line, shape, text, tick_text};
use super::multiples::{Grid, LETTER, MOST_PANELS};
use super::style::{self, Mark, TEXT_PX, hex};
use super::{Chart, Drawing, core_to_core, file_name, heat};
use crate::merge::details;
use crate::number;
use crate::run::Report;

/// The axis of ratios reaches at most this far to either side of 1.
const FARTHEST: f64 = 16.0;
/// Squares along a side of a small heat map: of more CPUs neighbours share one.
const MOST_SQUARES: usize = 32;

/// The ratio of each design on each host.
pub(super) struct RatiosByHost;

impl Chart for RatiosByHost {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn compares_hosts(&self) -> bool {
        true
    }

    fn about(&self) -> &'static str {
        "A panel for each host, all on one logarithmic axis: goodput of each design by that of the \
         baseline, with its 95 % interval, at the most threads of the host. Filled: decided; hollow: \
         undecided or surveyed."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let conditions = conditions(report);
        Ok(conditions.iter().filter_map(|condition| condition.draw(report)).collect())
    }
}

/// Rows of one workload and placement on several hosts.
struct Condition<'a> {
    /// The conditions; host, threads and cell are those of some row.
    series: &'a Series,
    /// Hosts in the order of the summary, each with its rows at the most threads.
    hosts: Vec<(&'a str, Vec<&'a Entry>)>,
}

/// Chooses for each kind the workload that compares most hosts, of equals the one that repeats what failed.
fn conditions<'a>(report: &Report<'a>) -> Vec<Condition<'a>> {
    let mut found: Vec<Condition<'_>> = Vec::new();
    let mut places: HashMap<Series, usize> = HashMap::new();
    let mut of_host: HashMap<(usize, &str), usize> = HashMap::new();
    for entry in &report.summary.entries {
        let series = &entry.series;
        let Some(host) = series.host.as_deref() else { continue };
        if entry.ratio.is_none() || series.offered_ops_s.is_some() {
            continue;
        }
        let place = *places.entry(key(series)).or_insert_with(|| {
            found.push(Condition { series, hosts: Vec::new() });
            found.len() - 1
        });
        let hosts = &mut found[place].hosts;
        let index = *of_host.entry((place, host)).or_insert_with(|| {
            hosts.push((host, Vec::new()));
            hosts.len() - 1
        });
        let rows = &mut hosts[index].1;
        // Threads rise within the conditions.
        rows.retain(|row: &&Entry| row.series.threads >= series.threads);
        if rows.iter().all(|row| row.series.threads == series.threads) {
            rows.push(entry);
        }
    }
    let mut best: BTreeMap<_, Condition<'_>> = BTreeMap::new();
    for condition in found.into_iter().filter(|condition| condition.hosts.len() > 1) {
        let series = condition.series;
        let key = (&series.source, &series.machine, &series.kind, &series.engine);
        let worth = |condition: &Condition<'_>| {
            let series = condition.series;
            let repeats = series.workload.contains("retry");
            (condition.hosts.len(), repeats, series.placement == "compact")
        };
        match best.get(&key) {
            Some(known) if worth(known) >= worth(&condition) => {}
            _ => _ = best.insert(key, condition),
        }
    }
    best.into_values().collect()
}

fn key(series: &Series) -> Series {
    Series { host: None, threads: 0, cell: String::new(), ..series.clone() }
}

const ROW: f64 = 20.0;

impl Condition<'_> {
    fn draw(&self, report: &Report<'_>) -> Option<Drawing> {
        let shown = &self.hosts[..self.hosts.len().min(MOST_PANELS)];
        let entries = || shown.iter().flat_map(|(_, rows)| rows.iter().copied());
        let mut cells: Vec<&str> = entries().map(|entry| entry.series.cell.as_str()).collect();
        cells.sort_by_key(|cell| report.designs.rank(cell));
        let mut seen = HashSet::new();
        cells.retain(|cell| seen.insert(*cell));
        let ends = entries().flat_map(|entry| {
            [entry.ratio, entry.ratio_low, entry.ratio_high].into_iter().flatten()
        });
        let axis = Axis::around_one(ends, FARTHEST);
        let longest = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let grid = Grid {
            left: longest as f64 * LETTER + 10.0,
            panel: (220.0, cells.len() as f64 * ROW + 8.0),
            below: f64::from(TEXT_PX) + 4.0,
            across: 4,
            count: shown.len(),
        };
        let baseline = &report.summary.baseline;
        let (kind, workload) = (&self.series.kind, &self.series.workload);
        let all = self.hosts.len();
        let mut title = format!("{kind} {workload} against {baseline}, by host");
        if all > shown.len() {
            title += &format!(": {} of {all}", shown.len());
        }
        let titles: Vec<String> =
            shown.iter().map(|(host, rows)| format!("{host}, {}", threads(rows))).collect();
        let mut svg = grid.begin(&title, &titles);
        let mut marks = Vec::new();
        let mut words = String::new();
        for (index, (host, rows)) in shown.iter().enumerate() {
            let (left, top) = grid.corner(index);
            let (width, height) = grid.panel;
            let x = |value: f64| left + axis.share(value) * width;
            grid.frame(&mut svg, index);
            for tick in &axis.ticks {
                let (colour, pen) = if *tick == 1.0 { ("#202020", 1.5) } else { ("#DCDCDC", 1.0) };
                line(&mut svg, [(x(*tick), top), (x(*tick), top + height)], colour, pen);
                let y = top + height + f64::from(TEXT_PX);
                let words = tick_text(*tick, |value| number::ratio(Some(value)), true);
                text(&mut svg, (x(*tick), y), "middle", &words, TEXT_PX - 4);
            }
            for (row, cell) in cells.iter().enumerate() {
                let y = top + 4.0 + (row as f64 + 0.5) * ROW;
                if grid.is_first(index) {
                    text(&mut svg, (left - 8.0, y + 5.0), "end", cell, TEXT_PX);
                }
                let Some(entry) = rows.iter().find(|entry| entry.series.cell == **cell) else {
                    continue;
                };
                let of_row = dot(&mut svg, report, entry, &axis, &x, y);
                let (at, y) = (x(entry.ratio.unwrap_or(1.0)) as i32, y as i32);
                words += &format!(" {host}: {of_row};");
                let text = format!("{host}: {of_row}");
                marks.push(Mark { area: [(at - 8, y - 8), (at + 8, y + 8)], text });
            }
        }
        grid.end(&mut svg, &format!("goodput by that of {baseline}"));
        let description = format!("Goodput by that of {baseline}, one axis for all hosts.{words}");
        let svg = style::finish(&svg, &title, &description, &marks);
        let source = self.series.source.to_string();
        let machine = self.series.machine.as_deref().unwrap_or_default();
        let name = file_name(["hosts", &source, machine, &kind.to_string(), &self.series.engine]);
        Some(Drawing { name, title, description, svg })
    }
}

/// Writes `8 threads`.
fn threads(rows: &[&Entry]) -> String {
    let threads = rows.first().map_or(0, |entry| entry.series.threads);
    number::count(threads, "thread")
}

/// Draws a row's dot with its interval; returns it in words.
fn dot(
    svg: &mut String,
    report: &Report<'_>,
    entry: &Entry,
    axis: &Axis,
    x: &dyn Fn(f64) -> f64,
    y: f64,
) -> String {
    let cell = &entry.series.cell;
    let Some(value) = entry.ratio.filter(|_| entry.violations.is_empty()) else {
        return format!("{cell}, ERROR");
    };
    let mut look = style::look(report.designs, cell);
    look.shape = style::Shape::Square;
    look.is_hollow =
        !matches!(entry.verdict, Some(Verdict::Faster | Verdict::Slower | Verdict::Same));
    let colour = hex(look.colour);
    let (low, high) = (entry.ratio_low.unwrap_or(value), entry.ratio_high.unwrap_or(value));
    line(svg, [(x(low), y), (x(high), y)], &colour, 2.0);
    if axis.holds(value) {
        shape(svg, (x(value), y), look);
    } else {
        arrow(svg, (x(value), y), value > 1.0, &colour);
    }
    let interval = entry.ratio_low.map_or(String::new(), |_| {
        format!(", 95 % interval {}", number::interval(entry.ratio_low, entry.ratio_high))
    });
    format!("{cell}, {}x{interval}", number::ratio(entry.ratio))
}

/// Core-to-core latency of each host.
pub(super) struct CoreToCoreByHost;

impl Chart for CoreToCoreByHost {
    fn name(&self) -> &'static str {
        "hosts-core-to-core"
    }

    fn compares_hosts(&self) -> bool {
        true
    }

    fn about(&self) -> &'static str {
        "A panel for each host, all on one scale of colour: one-way latency of a cache line between two \
         CPUs. Of a host with many CPUs neighbours share a square, which has their mean."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut by_method: BTreeMap<String, Vec<(String, CoreMatrix)>> = BTreeMap::new();
        let lines = details::read(report.dir).map_err(|error| error.to_string())?;
        // A damaged line is a host less here; its run's other parts are whole.
        for host in lines.filter_map(Result::ok) {
            for matrix in host.core_to_core {
                let panels = by_method.entry(matrix.method.clone()).or_default();
                if panels.len() < MOST_PANELS {
                    panels.push((host.host.clone(), matrix));
                }
            }
        }
        let several = by_method.iter().filter(|(_, panels)| panels.len() > 1);
        Ok(several.filter_map(|(method, panels)| heat_maps(method, panels)).collect())
    }
}

const SIDE: f64 = 200.0;

fn heat_maps(method: &str, panels: &[(String, CoreMatrix)]) -> Option<Drawing> {
    let scale = core_to_core::span(panels.iter().map(|(_, matrix)| matrix))?;
    let grid = Grid { left: 0.0, panel: (SIDE, SIDE), below: 0.0, across: 5, count: panels.len() };
    let title = format!("Core to core by host: {method}");
    let titles: Vec<String> = panels
        .iter()
        .map(|(host, matrix)| format!("{host}, {}", number::count(matrix.cpus.len() as u64, "CPU")))
        .collect();
    let mut svg = grid.begin(&title, &titles);
    let mut words = String::new();
    for (index, (host, matrix)) in panels.iter().enumerate() {
        squares(&mut svg, &blocks(&matrix.one_way_ns), grid.corner(index), scale);
        grid.frame(&mut svg, index);
        if let Some((least, most)) = heat::span(&matrix.one_way_ns) {
            words += &format!(" {host}: {least:.0} to {most:.0} ns;");
        }
    }
    let (low, high) = scale;
    let legend = format!("one-way latency, ns: {low:.0} (light) to {high:.0} (dark)");
    grid.end(&mut svg, &legend);
    let description = format!("{legend}, one scale for all hosts.{words}");
    let svg = style::finish(&svg, &title, &description, &[]);
    Some(Drawing { name: file_name(["hosts-core-to-core", method]), title, description, svg })
}

/// Returns the matrix with neighbours together, so that a side has at most [`MOST_SQUARES`].
fn blocks(values: &[Vec<Option<f64>>]) -> Vec<Vec<Option<f64>>> {
    let size = values.len().div_ceil(MOST_SQUARES).max(1);
    let mean = |rows: &[Vec<Option<f64>>], column: usize| {
        let cells = rows.iter().flat_map(|row| row.iter().skip(column * size).take(size));
        let (sum, count) =
            cells.flatten().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        (count > 0.0).then(|| sum / count)
    };
    let side = values.len().div_ceil(size);
    values.chunks(size).map(|rows| (0..side).map(|column| mean(rows, column)).collect()).collect()
}

/// Draws squares; those of one colour are one path.
fn squares(
    svg: &mut String,
    values: &[Vec<Option<f64>>],
    (left, top): (f64, f64),
    scale: (f64, f64),
) {
    let side = SIDE / values.len().max(1) as f64;
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for (row, values) in values.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let colour = hex(heat::shade((heat::share(*value, scale) * 15.0).round() / 15.0));
            let (x, y) = (left + column as f64 * side, top + row as f64 * side);
            let path = paths.entry(colour).or_default();
            *path += &format!("M{x:.1} {y:.1}h{side:.1}v{side:.1}h-{side:.1}z");
        }
    }
    for (colour, path) in paths {
        *svg += &format!("<path fill=\"{colour}\" d=\"{path}\"/>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn neighbours_share_a_square() {
        let row = |from: f64| (0..64).map(|column| Some(from + f64::from(column % 2))).collect();
        let values: Vec<Vec<Option<f64>>> = (0..64).map(|number| row(f64::from(number))).collect();
        let shared = blocks(&values);
        assert_eq!((shared.len(), shared[0].len()), (32, 32));
        // Rows 2 and 3, columns with 0 and 1 more.
        assert_eq!(shared[1][5], Some(3.0));
        assert_eq!(blocks(&[vec![None, Some(1.0)], vec![Some(2.0), None]])[1], [Some(2.0), None]);
    }
}
