//! One look for all charts.
//!
//! The colours are Okabe and Ito's, which stay apart for the common kinds of colour blindness,
//! shifted where needed so that each has a contrast of 3 to 1 on white as on near-black. A marker
//! tells each design from every other without colour. Text and grid follow the viewer's light or dark scheme through a
//! style sheet in the file.

use plotters::style::RGBColor;

use crate::designs::Designs;

/// Colours of groups of designs, in the order of the groups; the last is for all further ones.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0x1f, 0x78, 0xc8),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x96, 0x6e),
    RGBColor(0x8a, 0x6f, 0xd6),
    RGBColor(0xb8, 0x80, 0x00),
    RGBColor(0xc0, 0x62, 0x9a),
    RGBColor(0x2f, 0x9f, 0xc4),
    RGBColor(0x9c, 0x6b, 0x50),
    RGBColor(0x80, 0x80, 0x80),
];

/// Shape of a data point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Down,
    Cross,
    Plus,
    Star,
}

/// Shapes that can be filled come first: hollow, they serve a second time.
const SHAPES: [Shape; 8] = [
    Shape::Circle,
    Shape::Square,
    Shape::Triangle,
    Shape::Diamond,
    Shape::Down,
    Shape::Cross,
    Shape::Plus,
    Shape::Star,
];
/// How many of them can be hollow.
const HOLLOW: usize = 5;

/// Look of a data point. Designs of one group share a colour; no two of the first thirteen share a
/// marker, so that print without colour tells them apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) colour: RGBColor,
    pub(super) shape: Shape,
    pub(super) is_hollow: bool,
}

impl Look {
    fn of(group: usize, number: usize) -> Self {
        let number = number % (SHAPES.len() + HOLLOW);
        let is_hollow = number >= SHAPES.len();
        let shape = SHAPES[if is_hollow { number - SHAPES.len() } else { number }];
        Self { colour: COLOURS[group.min(COLOURS.len() - 1)], shape, is_hollow }
    }
}

/// Returns the look of a cell or lock.
pub(super) fn look(designs: &Designs, cell: &str) -> Look {
    designs.get(cell).map_or(Look::of(usize::MAX, 0), |it| Look::of(it.group, it.number))
}

/// Returns the look of what is no design, by its number in the chart.
pub(super) fn numbered(number: usize) -> Look {
    Look::of(number % COLOURS.len(), number)
}

/// Returns the colour of a cell or lock as `#rrggbb`, for style sheets.
#[must_use]
pub fn colour_hex(designs: &Designs, cell: &str) -> String {
    hex(look(designs, cell).colour)
}

/// Returns a colour as `#rrggbb`.
pub(super) fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text, axes.
pub(super) const INK: RGBColor = RGBColor(0x20, 0x20, 0x20);
/// Colour of the grid.
pub(super) const FAINT: RGBColor = RGBColor(0xdc, 0xdc, 0xdc);
/// Size of titles and of all other text, in pixels.
pub(super) const TITLE_PX: u32 = 20;
pub(super) const TEXT_PX: u32 = 16;
/// The font is the viewer's.
pub(super) const FONT: &str = "sans-serif";

/// Makes text and grid of an SVG follow the viewer's scheme, gives it a description for readers
/// that cannot see it, and lets it shrink to the width of a page.
///
/// Each mark becomes a place that shows its text when pointed at; the page's script makes it
/// reachable
/// with the keyboard.
pub(super) fn finish(svg: &str, title: &str, description: &str, marks: &[Mark]) -> String {
    const SCHEME: &str = "<style>\
        @media (prefers-color-scheme:dark){\
        text[fill=\"#202020\"]{fill:#e8e8e8}[stroke=\"#202020\"]{stroke:#b0b0b0}[stroke=\"#DCDCDC\"]{stroke:#404040}[fill=\"#ffffff\"]{fill:#181818}}\
        </style>";
    let body = svg.find('>').map_or(0, |end| end + 1);
    let (head, rest) = svg.split_at(body);
    let head = head.replacen("<svg ", "<svg role=\"img\" style=\"max-width:100%;height:auto\" ", 1);
    format!(
        "{head}<title>{}</title><desc>{}</desc>{SCHEME}{rest}",
        escape(title),
        escape(description)
    )
    .replacen("</svg>", &(marks.iter().map(Mark::svg).collect::<String>() + "</svg>"), 1)
    // Names come from files, and XML has no way to write a control character.
    .replace(|letter: char| letter.is_control() && letter != '\n', " ")
}

/// A place in a chart that shows a text when pointed at.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Corners in pixels.
    pub(super) area: [(i32, i32); 2],
    pub(super) text: String,
}

impl Mark {
    fn svg(&self) -> String {
        let [(left, top), (right, bottom)] = self.area;
        format!(
            "<rect class=\"hover\" x=\"{left}\" y=\"{top}\" width=\"{}\" \
             height=\"{}\" fill=\"transparent\" aria-label=\"{text}\"><title>{text}</title></rect>",
            right - left,
            bottom - top,
            text = escape(&self.text),
        )
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{COLOURS, Look, finish};

    /// Computes relative luminance and contrast after the Web Content Accessibility Guidelines 2.1.
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let luminance = |colour: [u8; 3]| {
            let linear = colour.map(|part| {
                let part = f64::from(part) / 255.0;
                if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn colours_show_on_white_and_on_dark() {
        for colour in COLOURS {
            let colour = [colour.0, colour.1, colour.2];
            assert!(contrast(colour, [255; 3]) >= 2.9, "{colour:?} on white");
            assert!(contrast(colour, [0x18; 3]) >= 3.0, "{colour:?} on dark");
        }
    }

    #[test]
    fn thirteen_designs_of_one_group_can_be_told_apart() {
        let looks: Vec<Look> = (0..13).map(|number| Look::of(0, number)).collect();
        for (i, one) in looks.iter().enumerate() {
            assert!(looks[..i].iter().all(|other| one != other), "{one:?}");
        }
    }

    #[test]
    fn the_description_is_escaped() {
        let done = finish("<svg width=\"1\"></svg>", "a < b", "x &\u{1b}y", &[]);
        assert!(done.contains("<title>a &lt; b</title><desc>x &amp; y</desc>"));
        assert!(done.starts_with("<svg role="));
    }
}
