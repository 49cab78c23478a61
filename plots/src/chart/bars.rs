//! Horizontal bars in segments: one bar a row, its name on the left, its value on the right.

use plotters::prelude::*;

use super::Drawing;
use super::style::{self, FAINT, FONT, INK, Mark, TEXT_PX, TITLE_PX};
use crate::number;

/// A part of a bar.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) length: f64,
    pub(super) colour: RGBColor,
}

/// A bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) segments: Vec<Segment>,
    /// Written behind the bar.
    pub(super) value: String,
}

/// Content of a chart.
#[derive(Clone, Debug)]
pub(super) struct Bars {
    pub(super) name: String,
    pub(super) title: String,
    /// Meaning of a length.
    pub(super) unit: String,
    /// Length of the full width; the longest bar if none.
    pub(super) full: Option<f64>,
    pub(super) bars: Vec<Bar>,
}

const WIDTH: i32 = 640;
/// Where bars begin and end.
const LEFT: i32 = 190;
const RIGHT: i32 = 520;
const TOP: i32 = 44;
const ROW: i32 = 22;
/// Place of a legend entry.
const LEGEND_STEP: i32 = 108;

impl Bars {
    /// Draws; `None` if there is no bar.
    pub(super) fn draw(self) -> Result<Option<Drawing>, String> {
        if self.bars.is_empty() {
            return Ok(None);
        }
        let mut svg = String::new();
        let marks =
            self.draw_on(&mut svg).map_err(|error| format!("chart {}: {error}", self.name))?;
        let description = self.describe();
        let svg = style::finish(&svg, &self.title, &description, &marks);
        Ok(Some(Drawing { name: self.name, title: self.title, description, svg }))
    }

    fn draw_on(&self, svg: &mut String) -> Result<Vec<Mark>, String> {
        let mut marks = Vec::new();
        let legend = self.legend();
        let rows = self.bars.len() as i32;
        let legend_rows = (legend.len() as i32 * LEGEND_STEP + LEFT + 10) / (WIDTH - 10) + 1;
        let height = TOP + rows * ROW + 12 + legend_rows * (TEXT_PX as i32 + 6) + 8;
        let root = SVGBackend::with_string(svg, (WIDTH as u32, height as u32)).into_drawing_area();
        let font = (FONT, TEXT_PX).into_font().color(&INK);
        let fail = |error: DrawingAreaErrorKind<_>| error.to_string();
        root.draw(&Text::new(
            self.title.as_str(),
            (12, 12),
            (FONT, TITLE_PX).into_font().color(&INK),
        ))
        .map_err(fail)?;
        let longest = self.bars.iter().map(Bar::length).fold(0.0, f64::max);
        let full = self.full.unwrap_or(longest).max(f64::MIN_POSITIVE);
        let pixels = |length: f64| (length / full * f64::from(RIGHT - LEFT)).round() as i32;
        for (row, bar) in (0..).zip(&self.bars) {
            let top = TOP + row * ROW;
            root.draw(&Text::new(bar.name.as_str(), (12, top + 3), font.clone())).map_err(fail)?;
            let frame = [(LEFT, top + 2), (RIGHT, top + ROW - 4)];
            root.draw(&Rectangle::new(frame, FAINT.stroke_width(1))).map_err(fail)?;
            let mut done = 0.0;
            for segment in &bar.segments {
                let from = LEFT + pixels(done);
                done += segment.length;
                let to = LEFT + pixels(done);
                let area = [(from, top + 2), (to, top + ROW - 4)];
                root.draw(&Rectangle::new(area, segment.colour.filled())).map_err(fail)?;
                let text =
                    format!("{}, {}: {}", bar.name, segment.name, self.length(segment.length));
                marks.push(Mark { area, text });
            }
            root.draw(&Text::new(bar.value.as_str(), (RIGHT + 8, top + 3), font.clone()))
                .map_err(fail)?;
        }
        let (mut x, mut y) = (LEFT, TOP + rows * ROW + 12);
        root.draw(&Text::new(self.unit.as_str(), (12, y), font.clone())).map_err(fail)?;
        for (name, colour) in legend {
            if x + LEGEND_STEP > WIDTH {
                (x, y) = (LEFT, y + TEXT_PX as i32 + 6);
            }
            root.draw(&Rectangle::new([(x, y + 2), (x + 11, y + 12)], colour.filled()))
                .map_err(fail)?;
            root.draw(&Text::new(name, (x + 16, y), font.clone())).map_err(fail)?;
            x += LEGEND_STEP;
        }
        root.present().map_err(fail)?;
        Ok(marks)
    }

    /// Returns a length as text: a share where bars have a full length.
    fn length(&self, length: f64) -> String {
        if self.full == Some(1.0) {
            number::percent(Some(length))
        } else {
            number::significant(length)
        }
    }

    /// Returns each kind of segment once, if there are several.
    fn legend(&self) -> Vec<(String, RGBColor)> {
        let mut legend: Vec<(String, RGBColor)> = Vec::new();
        for segment in self.bars.iter().flat_map(|bar| &bar.segments) {
            if !legend.iter().any(|(name, _)| *name == segment.name) {
                legend.push((segment.name.clone(), segment.colour));
            }
        }
        if legend.len() < 2 {
            legend.clear();
        }
        legend
    }

    fn describe(&self) -> String {
        let mut text = format!("{}.", self.unit);
        for bar in &self.bars {
            text += &format!(" {}: {};", bar.name, bar.value);
        }
        text
    }
}

impl Bar {
    fn length(&self) -> f64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }
}
