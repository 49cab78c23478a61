//! A matrix of numbers as coloured squares.

use plotters::prelude::*;

use super::Drawing;
use super::style::{self, FONT, INK, TEXT_PX, TITLE_PX};

/// Content of a chart.
#[derive(Clone, Debug)]
pub(super) struct Heat {
    pub(super) name: String,
    pub(super) title: String,
    /// Meaning of a value.
    pub(super) unit: String,
    /// Names of rows and columns.
    pub(super) names: Vec<String>,
    /// Rows of values; none: not measured.
    pub(super) values: Vec<Vec<Option<f64>>>,
    /// Values of the lightest and the darkest colour, where charts share a scale; none: the chart's own.
    pub(super) scale: Option<(f64, f64)>,
}

/// Largest side of the matrix, in pixels.
const SIDE: i32 = 520;
const LEFT: i32 = 56;
const TOP: i32 = 66;
/// Squares at least this large carry their value.
const NUMBERED: i32 = 34;

impl Heat {
    /// Draws; `None` if there is no value.
    pub(super) fn draw(self) -> Result<Option<Drawing>, String> {
        let Some((least, most)) = span(&self.values) else { return Ok(None) };
        let mut svg = String::new();
        self.draw_on(&mut svg, self.scale.unwrap_or((least, most)))
            .map_err(|error| format!("chart {}: {error}", self.name))?;
        let description = format!(
            "{} by {} values, {}, from {least:.0} to {most:.0}.",
            self.names.len(),
            self.names.len(),
            self.unit
        );
        let svg = style::finish(&svg, &self.title, &description, &[]);
        Ok(Some(Drawing { name: self.name, title: self.title, description, svg }))
    }

    fn draw_on(&self, svg: &mut String, (low, high): (f64, f64)) -> Result<(), String> {
        let count = self.names.len().max(1) as i32;
        let square = (SIDE / count).clamp(2, 64);
        let side = square * count;
        let (width, height) = ((LEFT + side + 24).max(420), TOP + side + 44);
        let root = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
        let fail = |error: DrawingAreaErrorKind<_>| error.to_string();
        let font = (FONT, TEXT_PX).into_font().color(&INK);
        root.draw(&Text::new(
            self.title.as_str(),
            (12, 10),
            (FONT, TITLE_PX).into_font().color(&INK),
        ))
        .map_err(fail)?;
        // Every name where they fit, else one in so many.
        let every = (28 / square).max(1) as usize;
        for (index, name) in self.names.iter().enumerate().step_by(every) {
            let at = index as i32 * square + square / 2 - TEXT_PX as i32 / 2;
            root.draw(&Text::new(name.as_str(), (LEFT - 28, TOP + at), font.clone()))
                .map_err(fail)?;
            root.draw(&Text::new(name.as_str(), (LEFT + at, TOP - 18), font.clone()))
                .map_err(fail)?;
        }
        for (row, values) in (0..).zip(&self.values) {
            for (column, value) in (0..).zip(values) {
                let Some(value) = value else { continue };
                let share = share(*value, (low, high));
                let (x, y) = (LEFT + column * square, TOP + row * square);
                let colour = shade(share);
                let area = [(x, y), (x + square - 1, y + square - 1)];
                root.draw(&Rectangle::new(area, colour.filled())).map_err(fail)?;
                if square >= NUMBERED {
                    self.number(&root, (x + 4, y + square / 2 - 6), *value, share)?;
                }
            }
        }
        let legend = format!("{}: {low:.0} (light) to {high:.0} (dark)", self.unit);
        root.draw(&Text::new(legend, (12, TOP + side + 16), font)).map_err(fail)?;
        root.present().map_err(fail)
    }

    /// Writes the value in its square; its colour follows the square, not the viewer's scheme.
    fn number(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        at: (i32, i32),
        value: f64,
        share: f64,
    ) -> Result<(), String> {
        let ink = if share > 0.55 { WHITE } else { BLACK };
        let font = (FONT, TEXT_PX).into_font().color(&ink);
        root.draw(&Text::new(format!("{value:.0}"), at, font)).map_err(|error| error.to_string())
    }
}

/// Returns least and greatest of the values; none if there is no value.
pub(super) fn span(values: &[Vec<Option<f64>>]) -> Option<(f64, f64)> {
    let values = || values.iter().flatten().flatten().copied();
    let (least, most) =
        (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    (least <= most).then_some((least, most))
}

/// Returns the place of a value on a scale: 0 at its low end.
pub(super) fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    if high > low { (value - low) / (high - low) } else { 0.0 }
}

/// Returns a colour from light to dark in one hue, so that it survives grey printing.
pub(super) fn shade(share: f64) -> RGBColor {
    let mix =
        |light: f64, dark: f64| (light + (dark - light) * share.clamp(0.0, 1.0)).round() as u8;
    RGBColor(mix(222.0, 8.0), mix(235.0, 48.0), mix(247.0, 107.0))
}
