//! Lines over a numeric axis, with bands for intervals and labels where the lines end.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::Drawing;
use super::style::{self, FAINT, FONT, INK, Look, Mark, Shape, TEXT_PX, TITLE_PX};

/// A value with its interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The points of one cell, from left to right.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) cell: String,
    pub(super) look: Look,
    /// Measured values, each with its marker.
    pub(super) points: Vec<Point>,
    /// Places of a curve through or beside the points; empty: straight from point to point.
    pub(super) curve: Vec<(f64, f64)>,
}

impl Line {
    /// Points joined by straight lines.
    pub(super) fn joined(cell: String, look: Look, points: Vec<Point>) -> Self {
        Self { cell, look, points, curve: Vec::new() }
    }
}

/// Mapping from values to places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// Doublings, ticks at the powers of two.
    Doublings,
    /// Powers of ten, a tick at each.
    Decades,
}

/// Content of a chart.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) x_scale: Scale,
    pub(super) y_scale: Scale,
    /// Ticks of the x axis with their text; empty: chosen by the scale.
    pub(super) x_ticks: Vec<(f64, String)>,
    /// An x value that is no tick of `x_ticks`.
    pub(super) x_text: fn(f64) -> String,
    pub(super) y_text: fn(f64) -> String,
    pub(super) lines: Vec<Line>,
}

const WIDTH: u32 = 640;
const HEIGHT: u32 = 340;
/// Room on the right for the labels of the lines.
const LABELS: u32 = 150;
/// From the end of a line to its name at most.
const FAR: i32 = 60;
/// Room below for the x axis.
const X_LABELS: u32 = 46;
/// Least distance between two labels.
const LABEL_STEP: i32 = TEXT_PX as i32 + 3;

/// An axis in scaled coordinates with given ticks.
#[derive(Clone)]
struct Axis {
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.from) / (self.to - self.from);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Doublings => value.max(f64::MIN_POSITIVE).log2(),
            Scale::Decades => value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Scale::Linear => place,
            Scale::Doublings => place.exp2(),
            Scale::Decades => 10_f64.powf(place),
        }
    }

    /// Returns an axis over the values, in scaled coordinates.
    fn axis(self, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        match self {
            Scale::Linear => {
                let step = nice_step(most.max(f64::MIN_POSITIVE) / 5.0);
                let to = (most / step).ceil().max(1.0) * step;
                let ticks = (0..=(to / step).round() as u32).map(|i| f64::from(i) * step).collect();
                Axis { from: 0.0, to, ticks }
            }
            Scale::Doublings | Scale::Decades => {
                let from = self.place(least).floor();
                let to = self.place(most).ceil().max(from + 1.0);
                let step = ((to - from) / 10.0).ceil().max(1.0);
                let ticks = (0..)
                    .map(|i| from + f64::from(i) * step)
                    .take_while(|tick| *tick <= to)
                    .collect();
                Axis { from, to, ticks }
            }
        }
    }
}

/// Returns 1, 2 or 5 times a power of ten, at least `least`.
pub(super) fn nice_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * decade)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(decade * 10.0)
}

impl Lines {
    /// Draws; `None` if there is no line with a point.
    pub(super) fn draw(mut self) -> Result<Option<Drawing>, String> {
        self.lines.retain(|line| !(line.points.is_empty() && line.curve.is_empty()));
        if self.lines.is_empty() {
            return Ok(None);
        }
        let mut svg = String::new();
        let marks = {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
            self.draw_on(&root).map_err(|error| format!("chart {}: {error}", self.name))?
        };
        let description = self.describe();
        let svg = style::finish(&svg, &self.title, &description, &marks);
        Ok(Some(Drawing { name: self.name, title: self.title, description, svg }))
    }

    fn draw_on(
        &self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
    ) -> Result<Vec<Mark>, Box<dyn std::error::Error + '_>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let curves = || self.lines.iter().flat_map(|line| &line.curve);
        let of_points = points().map(|point| point.x);
        let mut x_axis = self.x_scale.axis(of_points.chain(curves().map(|(x, _)| *x)));
        let of_points = points().flat_map(|point| [point.low, point.high]);
        let y_axis = self.y_scale.axis(of_points.chain(curves().map(|(_, y)| *y)));
        let texts: Vec<(f64, String)> = self
            .x_ticks
            .iter()
            .map(|(value, text)| (self.x_scale.place(*value), text.clone()))
            .collect();
        if !texts.is_empty() {
            x_axis.ticks = texts.iter().map(|(place, _)| *place).collect();
            x_axis.from = x_axis.ticks.iter().copied().fold(x_axis.from, f64::min);
            x_axis.to = x_axis.ticks.iter().copied().fold(x_axis.to, f64::max);
        }
        // Single points and ends do not sit on the frame.
        let margin = (x_axis.to - x_axis.from) * 0.03;
        x_axis.from -= margin;
        x_axis.to += margin;
        let x_text = |place: &f64| {
            texts
                .iter()
                .find(|(tick, _)| (tick - place).abs() < 1e-9)
                .map_or_else(|| (self.x_text)(self.x_scale.value(*place)), |(_, text)| text.clone())
        };
        let mut chart = ChartBuilder::on(root)
            .caption(&self.title, (FONT, TITLE_PX).into_font().color(&INK))
            .margin(8)
            .margin_right(LABELS)
            .x_label_area_size(X_LABELS)
            .y_label_area_size(76)
            .build_cartesian_2d(x_axis, y_axis)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style((FONT, TEXT_PX).into_font().color(&INK))
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .axis_desc_style((FONT, TEXT_PX).into_font().color(&INK))
            .x_label_formatter(&x_text)
            .y_label_formatter(&|place| (self.y_text)(self.y_scale.value(*place)))
            .draw()?;
        let place = |point: &Point, y: f64| (self.x_scale.place(point.x), self.y_scale.place(y));
        for line in &self.lines {
            let colour = line.look.colour;
            let band: Vec<_> = line
                .points
                .iter()
                .map(|point| place(point, point.low))
                .chain(line.points.iter().rev().map(|point| place(point, point.high)))
                .collect();
            chart.draw_series([Polygon::new(band, colour.mix(0.18))])?;
        }
        let mut ends = Vec::new();
        let mut marks = Vec::new();
        for line in &self.lines {
            let colour = line.look.colour;
            let path: Vec<_> = line.points.iter().map(|point| place(point, point.y)).collect();
            let curve: Vec<_> = line
                .curve
                .iter()
                .map(|(x, y)| (self.x_scale.place(*x), self.y_scale.place(*y)))
                .collect();
            let drawn = if curve.is_empty() { &path } else { &curve };
            ends.extend(drawn.last().map(|end| (chart.backend_coord(end), &line.cell, line.look)));
            chart.draw_series([PathElement::new(drawn.clone(), colour.stroke_width(2))])?;
            for (point, placed) in line.points.iter().zip(&path) {
                let at = chart.backend_coord(placed);
                draw_marker(root, at, line.look)?;
                marks.push(Mark {
                    area: [(at.0 - 7, at.1 - 7), (at.0 + 7, at.1 + 7)],
                    text: format!(
                        "{}, {} {}: {}{}",
                        line.cell,
                        self.x_label,
                        x_text(&placed.0),
                        (self.y_text)(point.y),
                        self.interval(point)
                    ),
                });
            }
        }
        label_ends(root, ends)?;
        Ok(marks)
    }

    /// Writes ` (low to high)`, where there is an interval.
    fn interval(&self, point: &Point) -> String {
        if point.low < point.high {
            format!(" ({} to {})", (self.y_text)(point.low), (self.y_text)(point.high))
        } else {
            String::new()
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("{} against {}.", self.y_label, self.x_label);
        for line in &self.lines {
            text += &format!(" {}:", line.cell);
            for point in line.points.iter().take(16) {
                let x = self.x_ticks.iter().find(|(tick, _)| *tick == point.x);
                let x = x.map_or_else(|| (self.x_text)(point.x), |(_, text)| text.clone());
                text += &format!(" {x}: {};", (self.y_text)(point.y));
            }
        }
        text
    }
}

/// Writes each line's name beside its end, moved apart where lines end together.
fn label_ends(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    mut ends: Vec<((i32, i32), &String, Look)>,
) -> Result<(), Box<dyn std::error::Error>> {
    ends.sort_by_key(|((_, y), _, _)| *y);
    let x = WIDTH as i32 - LABELS as i32 + 4;
    let mut labels: Vec<i32> = Vec::new();
    for ((_, y), _, _) in &ends {
        let least = labels.last().map_or(i32::MIN, |before| before + LABEL_STEP);
        labels.push((*y).max(least));
    }
    // What was pushed below the axis moves up again.
    let mut most = HEIGHT as i32 - X_LABELS as i32 - LABEL_STEP;
    for label in labels.iter_mut().rev() {
        *label = (*label).min(most);
        most = *label - LABEL_STEP;
    }
    for ((end, cell, look), y) in
        ends.iter().map(|(end, cell, look)| (*end, cell, *look)).zip(labels)
    {
        // A curve that ends far from its name would be crossed out by a line to it.
        if x - end.0 < FAR {
            root.draw(&PathElement::new(
                vec![(end.0 + 6, end.1), (x - 2, y)],
                look.colour.mix(0.5),
            ))?;
        }
        draw_marker(root, (x + 5, y), look)?;
        let font = (FONT, TEXT_PX).into_font().color(&INK);
        root.draw(&Text::new(cell.as_str(), (x + 14, y - TEXT_PX as i32 / 2), font))?;
    }
    Ok(())
}

/// Draws a data point's marker at a place in pixels.
pub(super) fn draw_marker(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    (x, y): (i32, i32),
    Look { colour, shape, is_hollow }: Look,
) -> Result<(), Box<dyn std::error::Error>> {
    let pen = colour.stroke_width(2);
    let fill = if is_hollow { pen } else { colour.filled() };
    let stroke = |points: [(i32, i32); 2]| {
        root.draw(&PathElement::new(points.map(|(dx, dy)| (x + dx, y + dy)).to_vec(), pen))
    };
    let polygon = |corners: &[(i32, i32)]| {
        let mut points: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        if is_hollow {
            points.extend(points.first().copied());
            root.draw(&PathElement::new(points, pen))
        } else {
            root.draw(&Polygon::new(points, fill))
        }
    };
    match shape {
        Shape::Circle => root.draw(&Circle::new((x, y), 4, fill))?,
        Shape::Square => root.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], fill))?,
        Shape::Diamond => polygon(&[(0, -5), (5, 0), (0, 5), (-5, 0)])?,
        Shape::Triangle => polygon(&[(0, -5), (5, 4), (-5, 4)])?,
        Shape::Down => polygon(&[(0, 5), (5, -4), (-5, -4)])?,
        Shape::Cross => {
            stroke([(-4, -4), (4, 4)])?;
            stroke([(-4, 4), (4, -4)])?;
        }
        Shape::Plus => {
            stroke([(-5, 0), (5, 0)])?;
            stroke([(0, -5), (0, 5)])?;
        }
        Shape::Star => {
            stroke([(-4, -4), (4, 4)])?;
            stroke([(-4, 4), (4, -4)])?;
            stroke([(-5, 0), (5, 0)])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Scale, nice_step};

    #[test]
    fn steps_are_round_numbers() {
        assert_eq!([0.13, 0.2, 3.0, 7.0].map(nice_step), [0.2, 0.2, 5.0, 10.0]);
    }

    #[test]
    fn an_axis_holds_its_values() {
        let axis = Scale::Linear.axis([3.0, 17.0].into_iter());
        assert_eq!((axis.from, axis.to), (0.0, 20.0));
        let axis = Scale::Doublings.axis([1.0, 256.0].into_iter());
        assert_eq!((axis.from, axis.to, axis.ticks.len()), (0.0, 8.0, 9));
        // One value only: still an axis with a length.
        let axis = Scale::Decades.axis([5.0].into_iter());
        assert!(axis.from < axis.to);
    }
}
