//! Dots with error bars: a row for each name, columns side by side that share one axis.

use plotters::style::RGBColor;

use super::Drawing;
use super::style::{self, Look, Mark, Shape, TEXT_PX, TITLE_PX, escape, hex};

/// A value with its interval.
#[derive(Clone, Debug)]
pub(super) struct Dot {
    /// Number of its row.
    pub(super) row: usize,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) look: Look,
    /// Marked with a cross at the edge of the column.
    pub(super) note: Option<String>,
    /// Text shown when pointed at.
    pub(super) words: String,
}

/// Dots under one heading.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Lines of the heading.
    pub(super) title: Vec<String>,
    pub(super) dots: Vec<Dot>,
}

/// Content of a chart.
#[derive(Clone, Debug)]
pub(super) struct Dots {
    pub(super) name: String,
    pub(super) title: String,
    /// Meaning of a value.
    pub(super) unit: String,
    pub(super) rows: Vec<String>,
    pub(super) columns: Vec<Column>,
    /// A logarithmic axis around 1 that reaches at most so far to either side; none: linear from 0.
    pub(super) around_one: Option<f64>,
    pub(super) text: fn(f64) -> String,
    /// Explanation of the shapes, where a row has several dots.
    pub(super) legend: Vec<(Look, String)>,
}

/// Distances in pixels.
const MARGIN: f64 = 12.0;
const TOP: f64 = 44.0;
const LINE: f64 = TEXT_PX as f64 + 4.0;
const ROW: f64 = 26.0;
const GAP: f64 = 16.0;
/// Width of the figure with one column, and with several at most.
const NARROW: f64 = 640.0;
const WIDE: f64 = 1_160.0;
/// For the value in words, and for a note.
const VALUE: f64 = 46.0;
const NOTE: f64 = 58.0;
/// Width of a letter, about.
const LETTER: f64 = TEXT_PX as f64 * 0.56;
/// Where failures are marked.
const NOTE_COLOUR: RGBColor = RGBColor(0xd5, 0x5e, 0x00);

/// From a value to a share of the axis.
pub(super) struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    /// Returns a logarithmic axis that holds 1 and `ends`, and reaches at most `farthest` to
    /// either side.
    pub(super) fn around_one(ends: impl Iterator<Item = f64>, farthest: f64) -> Self {
        let (least, most) =
            ends.fold((1.0, 1.0), |(least, most): (f64, f64), end| (least.min(end), most.max(end)));
        let (least, most) = (least.max(1.0 / farthest), most.min(farthest));
        // Half a doubling at least to either side.
        let from = ((least.log2() * 2.0).floor() / 2.0).min(-0.5);
        let to = ((most.log2() * 2.0).ceil() / 2.0).max(0.5);
        let is_close = to - from <= 1.01;
        let ticks = if is_close {
            vec![0.75, 1.0, 1.33]
        } else {
            let doublings = (-4..=4).map(f64::from);
            doublings.filter(|it| (from..=to).contains(it)).map(f64::exp2).collect()
        };
        Self { from, to, is_log: true, ticks }
    }

    pub(super) fn share(&self, value: f64) -> f64 {
        let value = if self.is_log { value.max(f64::MIN_POSITIVE).log2() } else { value };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        let value = if self.is_log { value.max(f64::MIN_POSITIVE).log2() } else { value };
        (self.from..=self.to).contains(&value)
    }
}

impl Dots {
    /// Draws; `None` if there is no dot.
    pub(super) fn draw(self) -> Option<Drawing> {
        if self.columns.iter().all(|column| column.dots.is_empty()) {
            return None;
        }
        let axis = self.axis();
        let names = self.rows.iter().map(|row| row.chars().count()).max().unwrap_or(0);
        let left = MARGIN + (names as f64 * LETTER + 12.0).clamp(60.0, 240.0);
        let count = self.columns.len() as f64;
        let has_notes = self.dots().any(|(_, dot)| dot.note.is_some());
        let note = if has_notes { NOTE } else { 0.0 };
        let least = left + MARGIN + count * (GAP + VALUE + note + 90.0);
        let width = if count > 1.0 { WIDE.max(least) } else { NARROW.max(least) };
        let each = (width - left - MARGIN) / count;
        let heading = self.columns.iter().map(|column| column.title.len()).max().unwrap_or(0);
        let top = TOP + heading as f64 * LINE + 4.0;
        let bottom = top + self.rows.len() as f64 * ROW;
        let legend = if self.legend.is_empty() { 0.0 } else { LINE };
        let height = bottom + 2.0 * LINE + legend + MARGIN;

        let mut svg = format!(
            "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"{TEXT_PX}\">\n"
        );
        text(&mut svg, (MARGIN, 28.0), "start", &self.title, TITLE_PX);
        for (row, name) in self.rows.iter().enumerate() {
            let y = top + row as f64 * ROW;
            line(&mut svg, [(MARGIN, y + ROW), (width - MARGIN, y + ROW)], "#DCDCDC", 1.0);
            text(&mut svg, (MARGIN, y + ROW / 2.0 + 5.0), "start", name, TEXT_PX);
        }
        let mut marks = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            let begin = left + index as f64 * each + GAP / 2.0;
            let end = begin + each - GAP - VALUE - note;
            let x = |value: f64| begin + axis.share(value) * (end - begin);
            for (number, words) in column.title.iter().enumerate() {
                let y = TOP + (number as f64 + 0.6) * LINE;
                let fits = ((each - 4.0) / LETTER) as usize;
                text(&mut svg, (begin, y), "start", &shortened(words, fits), TEXT_PX);
            }
            let mut free_from = f64::NEG_INFINITY;
            for tick in &axis.ticks {
                let place = x(*tick);
                let is_one = axis.is_log && *tick == 1.0;
                let (colour, pen) = if is_one { ("#202020", 1.5) } else { ("#DCDCDC", 1.0) };
                line(&mut svg, [(place, top), (place, bottom)], colour, pen);
                let words = tick_text(*tick, self.text, axis.is_log);
                let half = words.chars().count() as f64 * LETTER / 2.0;
                if place - half >= free_from || is_one {
                    text(&mut svg, (place, bottom + LINE), "middle", &words, TEXT_PX);
                    free_from = place + half + 4.0;
                }
            }
            let in_row = |row: usize| column.dots.iter().filter(move |dot| dot.row == row).count();
            let mut seen = vec![0_usize; self.rows.len()];
            for dot in &column.dots {
                // Several dots of a row stand above each other.
                let many = in_row(dot.row) as f64;
                let place = seen[dot.row] as f64;
                seen[dot.row] += 1;
                let y = top + (dot.row as f64 + 0.5) * ROW + (place - (many - 1.0) / 2.0) * 9.0;
                let colour = hex(dot.look.colour);
                line(&mut svg, [(x(dot.low), y), (x(dot.high), y)], &colour, 2.0);
                for end in [dot.low, dot.high] {
                    if axis.holds(end) {
                        line(&mut svg, [(x(end), y - 4.0), (x(end), y + 4.0)], &colour, 2.0);
                    }
                }
                let at = (x(dot.value), y);
                if axis.holds(dot.value) {
                    shape(&mut svg, at, dot.look);
                } else {
                    arrow(&mut svg, at, axis.share(dot.value) > 0.5, &colour);
                }
                if many <= 1.0 {
                    let y = y + 5.0;
                    text(&mut svg, (end + VALUE, y), "end", &(self.text)(dot.value), TEXT_PX);
                    if let Some(note) = &dot.note {
                        cross(&mut svg, (end + VALUE + 12.0, y - 5.0), &hex(NOTE_COLOUR));
                        text(&mut svg, (end + VALUE + 20.0, y), "start", note, TEXT_PX - 2);
                    }
                }
                let (x, y) = (at.0 as i32, y as i32);
                marks
                    .push(Mark { area: [(x - 8, y - 8), (x + 8, y + 8)], text: dot.words.clone() });
            }
        }
        text(&mut svg, (left, bottom + 2.0 * LINE), "start", &self.unit, TEXT_PX);
        let mut x = left;
        for (look, words) in &self.legend {
            shape(&mut svg, (x + 5.0, bottom + 3.0 * LINE - 5.0), *look);
            text(&mut svg, (x + 16.0, bottom + 3.0 * LINE), "start", words, TEXT_PX);
            x += 36.0 + words.chars().count() as f64 * LETTER;
        }
        svg += "</svg>\n";
        let description = self.describe();
        let svg = style::finish(&svg, &self.title, &description, &marks);
        Some(Drawing { name: self.name, title: self.title, description, svg })
    }

    fn dots(&self) -> impl Iterator<Item = (&Column, &Dot)> {
        self.columns.iter().flat_map(|column| column.dots.iter().map(move |dot| (column, dot)))
    }

    fn axis(&self) -> Axis {
        let ends = || self.dots().flat_map(|(_, dot)| [dot.low, dot.value, dot.high]);
        let most = ends().fold(0.0, f64::max);
        match self.around_one {
            Some(farthest) => Axis::around_one(ends(), farthest),
            None => {
                let step = super::lines::nice_step(most.max(f64::MIN_POSITIVE) / 4.0);
                let steps = (most / step).ceil().max(1.0);
                let ticks = (0..=steps as u32).map(|i| f64::from(i) * step).collect();
                Axis { from: 0.0, to: steps * step, is_log: false, ticks }
            }
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("{}.", self.unit);
        for (_, dot) in self.dots() {
            text += &format!(" {};", dot.words);
        }
        text
    }
}

pub(super) fn tick_text(tick: f64, text: fn(f64) -> String, is_log: bool) -> String {
    match tick {
        tick if !is_log => text(tick),
        tick if tick < 0.7 => format!("1/{:.0}", 1.0 / tick),
        tick if tick == tick.round() => format!("{tick:.0}"),
        tick => format!("{tick}"),
    }
}

pub(super) fn shortened(words: &str, most: usize) -> String {
    if words.chars().count() <= most {
        return words.to_owned();
    }
    words.chars().take(most.saturating_sub(1)).chain(['\u{2026}']).collect()
}

pub(super) fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str, size: u32) {
    *svg += &format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"#202020\">{}</text>\n",
        escape(words)
    );
}

pub(super) fn line(
    svg: &mut String,
    [(x1, y1), (x2, y2)]: [(f64, f64); 2],
    colour: &str,
    width: f64,
) {
    *svg += &format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\n"
    );
}

fn cross(svg: &mut String, (x, y): (f64, f64), colour: &str) {
    line(svg, [(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)], colour, 2.0);
    line(svg, [(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)], colour, 2.0);
}

fn polygon(svg: &mut String, points: &[(f64, f64)], paint: &str) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    *svg += &format!("<polygon points=\"{}\" {paint}/>\n", points.join(" "));
}

/// Draws an arrow at the end of the axis: the value lies beyond.
pub(super) fn arrow(svg: &mut String, (x, y): (f64, f64), to_the_right: bool, colour: &str) {
    let tip = if to_the_right { 7.0 } else { -7.0 };
    polygon(svg, &[(x, y - 6.0), (x + tip, y), (x, y + 6.0)], &format!("fill=\"{colour}\""));
}

/// Returns the shape of a look.
pub(super) fn shape(svg: &mut String, (x, y): (f64, f64), look: Look) {
    let colour = hex(look.colour);
    let paint = if look.is_hollow {
        format!("fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"2\"")
    } else {
        format!("fill=\"{colour}\" stroke=\"{colour}\" stroke-width=\"1\"")
    };
    match look.shape {
        Shape::Circle => {
            *svg += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" {paint}/>\n")
        }
        Shape::Square => polygon(
            svg,
            &[(x - 4.5, y - 4.5), (x + 4.5, y - 4.5), (x + 4.5, y + 4.5), (x - 4.5, y + 4.5)],
            &paint,
        ),
        Shape::Diamond => {
            polygon(svg, &[(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)], &paint)
        }
        Shape::Triangle => {
            polygon(svg, &[(x, y - 5.5), (x + 5.5, y + 4.5), (x - 5.5, y + 4.5)], &paint)
        }
        Shape::Down => {
            polygon(svg, &[(x, y + 5.5), (x + 5.5, y - 4.5), (x - 5.5, y - 4.5)], &paint)
        }
        Shape::Cross => cross(svg, (x, y), &colour),
        Shape::Plus | Shape::Star => {
            line(svg, [(x - 5.0, y), (x + 5.0, y)], &colour, 2.0);
            line(svg, [(x, y - 5.0), (x, y + 5.0)], &colour, 2.0);
            if look.shape == Shape::Star {
                cross(svg, (x, y), &colour);
            }
        }
    }
}
