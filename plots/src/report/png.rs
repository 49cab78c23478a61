//! Charts as PNG, for mail and slides that show no SVG: drawn from the same SVG, on white, with the
//! font that this crate brings along, so that the outcome does not depend on the host's fonts.

use std::sync::Arc;

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use super::{Format, Rendered, Report};
use crate::chart::Drawings;

/// Latin, Greek and the signs of measurement, of DejaVu Sans; see `fonts/README.md`.
const FONT: &[u8] = include_bytes!("../../fonts/DejaVuSans-subset.ttf");
const FONT_NAME: &str = "DejaVu Sans";
/// Pixels of the picture for one of the drawing: sharp at the size at which charts are shown.
const SCALE: f32 = 2.0;

/// Format of `charts/*.png`.
pub(super) struct Png;

impl Format for Png {
    fn name(&self) -> &'static str {
        "png"
    }

    fn is_on_demand(&self) -> bool {
        true
    }

    fn render(&self, _: &Report<'_>, drawings: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        let options = options();
        let mut files = Vec::new();
        for drawing in drawings.get()?.iter().flatten() {
            let bytes = picture(&drawing.svg, &options)
                .map_err(|reason| format!("chart {}: {reason}", drawing.name))?;
            let path = format!("charts/{}.png", drawing.name).into();
            files.push(Rendered { path, bytes });
        }
        Ok(files)
    }
}

/// Returns options with no font but the one that is here.
fn options() -> Options<'static> {
    let mut fonts = Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family(FONT_NAME);
    Options { fontdb: Arc::new(fonts), font_family: FONT_NAME.into(), ..Options::default() }
}

fn picture(svg: &str, options: &Options<'_>) -> Result<Vec<u8>, String> {
    let tree = Tree::from_str(svg, options).map_err(|error| error.to_string())?;
    let size = tree.size().to_int_size();
    let pixels = |side: u32| (side as f32 * SCALE).round() as u32;
    let mut pixmap = Pixmap::new(pixels(size.width()), pixels(size.height()))
        .ok_or_else(|| format!("{} by {} is no size of a picture", size.width(), size.height()))?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{options, picture};
    use resvg::tiny_skia::Pixmap;

    fn drawn(inside: &str) -> Pixmap {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"90\" height=\"30\">{inside}</svg>"
        );
        Pixmap::decode_png(&picture(&svg, &options()).unwrap()).unwrap()
    }

    fn ink(pixmap: &Pixmap) -> usize {
        pixmap.pixels().iter().filter(|pixel| pixel.red() < 128).count()
    }

    #[test]
    fn text_needs_no_font_of_the_host() {
        let empty = drawn("");
        assert_eq!((empty.width(), empty.height(), ink(&empty)), (180, 60, 0));
        let text = |letter: &str| {
            drawn(&format!(
                "<text x=\"5\" y=\"22\" font-family=\"sans-serif\" font-size=\"20\">{letter}</text>"
            ))
        };
        assert!(ink(&text("MM")) > ink(&text("M")) && ink(&text("M")) > 50);
        assert!(ink(&text("\u{b5}")) > 20, "the sign of micro is in the font");
    }
}
