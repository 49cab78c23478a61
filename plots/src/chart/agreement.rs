//! Measured against predicted: every row of a validation as a point, on logarithmic axes.
//!
//! This chart is of no run, and so not among [`super::CHARTS`].

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Drawing;
use super::lines::draw_marker;
use super::style::{self, FAINT, FONT, INK, Mark, TEXT_PX, TITLE_PX};

/// A row of a validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// Name of the data set: rows of one set share a colour.
    pub set: String,
    /// Name of the row.
    pub row: String,
    /// Measured figure, above zero.
    pub measured: f64,
    /// Predicted figure, above zero, and its interval.
    pub predicted: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

const WIDTH: u32 = 720;
const HEIGHT: u32 = 640;
/// Space below for the names of the data sets, a line each.
const LEGEND_LINE: u32 = TEXT_PX + 6;
/// Errors beyond this share lie outside the thin lines.
const BAR: f64 = 0.30;

/// Draws the rows; `None` if there is none with two figures above zero.
///
/// # Errors
/// A message that says what could not be drawn.
pub fn agreement(title: &str, rows: &[Agreed]) -> Result<Option<Drawing>, String> {
    let possible = |value: f64| value > 0.0 && value.is_finite();
    let rows: Vec<&Agreed> = rows
        .iter()
        .filter(|row| possible(row.measured) && possible(row.predicted) && possible(row.low))
        .collect();
    let ends = rows.iter().flat_map(|row| [row.measured, row.predicted, row.low, row.high]);
    let least = ends.clone().min_by(f64::total_cmp);
    let most = ends.max_by(f64::total_cmp);
    let (Some(least), Some(most)) = (least, most) else { return Ok(None) };
    let mut sets: Vec<&str> = Vec::new();
    for row in &rows {
        if !sets.contains(&row.set.as_str()) {
            sets.push(&row.set);
        }
    }
    let mut svg = String::new();
    let marks = {
        let size = (WIDTH, HEIGHT + LEGEND_LINE * sets.len() as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw_on(&root, title, &rows, &sets, (least * 0.9, most * 1.1))
            .map_err(|error| format!("chart agreement: {error}"))?
    };
    let description = describe(&rows, &sets);
    let svg = style::finish(&svg, title, &description, &marks);
    Ok(Some(Drawing { name: "validation".into(), title: title.to_owned(), description, svg }))
}

fn draw_on(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    rows: &[&Agreed],
    sets: &[&str],
    (least, most): (f64, f64),
) -> Result<Vec<Mark>, Box<dyn std::error::Error>> {
    let (upper, _) = root.split_vertically(HEIGHT);
    let range = || (least..most).log_scale();
    let mut chart = ChartBuilder::on(&upper)
        .caption(title, (FONT, TITLE_PX).into_font().color(&INK))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(76)
        .build_cartesian_2d(range(), range())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style((FONT, TEXT_PX).into_font().color(&INK))
        .x_desc("measured, in the unit of the data set")
        .y_desc("predicted")
        .axis_desc_style((FONT, TEXT_PX).into_font().color(&INK))
        .x_label_formatter(&|value| crate::number::significant(*value))
        .y_label_formatter(&|value| crate::number::significant(*value))
        .draw()?;
    chart.draw_series([PathElement::new([(least, least), (most, most)], INK)])?;
    for factor in [1.0 + BAR, 1.0 - BAR] {
        let from = if factor < 1.0 { least / factor } else { least };
        let to = if factor > 1.0 { most / factor } else { most };
        let ends = [from, to].map(|x| (x, x * factor));
        chart.draw_series([PathElement::new(ends, INK.mix(0.4))])?;
    }
    let mut marks = Vec::new();
    for row in rows {
        let number = sets.iter().position(|set| *set == row.set).unwrap_or(0);
        let look = style::numbered(number);
        let interval = [(row.measured, row.low), (row.measured, row.high)];
        chart.draw_series([PathElement::new(interval, look.colour.mix(0.45))])?;
        let (x, y) = chart.backend_coord(&(row.measured, row.predicted));
        draw_marker(root, (x, y), look)?;
        marks.push(Mark {
            area: [(x - 6, y - 6), (x + 6, y + 6)],
            text: format!(
                "{}, {}: measured {:.2}, predicted {:.2} ({:.2} to {:.2})",
                row.set, row.row, row.measured, row.predicted, row.low, row.high
            ),
        });
    }
    for (number, set) in sets.iter().enumerate() {
        let y = (HEIGHT + number as u32 * LEGEND_LINE + LEGEND_LINE / 2) as i32;
        let rows = rows.iter().filter(|row| row.set == *set).count();
        draw_marker(root, (24, y), style::numbered(number))?;
        let font = (FONT, TEXT_PX).into_font().color(&INK);
        root.draw(&Text::new(format!("{set} ({rows} rows)"), (40, y - 8), font))?;
    }
    Ok(marks)
}

fn describe(rows: &[&Agreed], sets: &[&str]) -> String {
    let of_set = |set: &&str| {
        let errors: Vec<f64> = rows
            .iter()
            .filter(|row| row.set == **set)
            .map(|row| (row.predicted / row.measured - 1.0).abs())
            .collect();
        let worst = errors.iter().copied().fold(0.0, f64::max);
        format!("{set}: {} rows, worst error {:.0} %", errors.len(), 100.0 * worst)
    };
    let sets: Vec<String> = sets.iter().map(of_set).collect();
    format!(
        "Each point is a row: measured to the right, predicted upwards, with its interval; on the line they agree, \
         between the thin lines they differ by less than {:.0} %. {}.",
        100.0 * BAR,
        sets.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(set: &str, measured: f64, predicted: f64) -> Agreed {
        let (low, high) = (predicted * 0.9, predicted * 1.1);
        Agreed { set: set.into(), row: "fetch-add".into(), measured, predicted, low, high }
    }

    #[test]
    fn rows_are_points_that_say_what_they_are() {
        let rows = [row("one", 10.0, 12.0), row("other", 200.0, 90.0)];
        let drawing = agreement("Agreement", &rows).expect("it draws").expect("rows");
        assert!(drawing.svg.contains("one, fetch-add: measured 10.00, predicted 12.00"));
        assert!(drawing.description.contains("other: 1 rows, worst error 55 %"));
    }

    #[test]
    fn nothing_and_what_has_no_logarithm_are_no_chart() {
        assert_eq!(agreement("Agreement", &[]), Ok(None));
        assert_eq!(agreement("Agreement", &[row("one", 0.0, 12.0)]), Ok(None));
        assert_eq!(agreement("Agreement", &[row("one", f64::NAN, 12.0)]), Ok(None));
    }
}
