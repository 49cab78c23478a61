//! Small multiples: panels of one size in a grid, one for each host, that share one scale.

use super::dots::{line, text};
use super::style::{TEXT_PX, TITLE_PX};

/// Hosts that are drawn: beyond that nobody compares by eye, and the tables have them all.
pub(super) const MOST_PANELS: usize = 24;

const MARGIN: f64 = 12.0;
const TOP: f64 = 48.0;
const GAP: f64 = 18.0;
const LINE: f64 = TEXT_PX as f64 + 4.0;
/// Width of a letter, about.
pub(super) const LETTER: f64 = TEXT_PX as f64 * 0.56;

/// Places of the panels of a figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Room to the left of each row of panels.
    pub(super) left: f64,
    /// Width and height of a panel, without its title and what stands below.
    pub(super) panel: (f64, f64),
    /// Room below each panel.
    pub(super) below: f64,
    /// Panels in a row.
    pub(super) across: usize,
    /// Panels in all.
    pub(super) count: usize,
}

impl Grid {
    /// Returns the left upper corner of a panel, below its title.
    pub(super) fn corner(&self, index: usize) -> (f64, f64) {
        let (column, row) = (index % self.across, index / self.across);
        let x = MARGIN + self.left + column as f64 * (self.panel.0 + GAP);
        (x, TOP + LINE + row as f64 * self.row_height())
    }

    /// Returns whether a panel is the first of its row.
    pub(super) fn is_first(&self, index: usize) -> bool {
        index.is_multiple_of(self.across)
    }

    fn row_height(&self) -> f64 {
        self.panel.1 + self.below + LINE + GAP
    }

    /// Begins the figure: its title, and the title of each panel.
    pub(super) fn begin(&self, title: &str, titles: &[String]) -> String {
        let (width, height) = self.size();
        let mut svg = format!(
            "<svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"{TEXT_PX}\">\n"
        );
        text(&mut svg, (MARGIN, 28.0), "start", title, TITLE_PX);
        let fits = (self.panel.0 / LETTER) as usize;
        for (index, title) in titles.iter().enumerate() {
            let (x, y) = self.corner(index);
            let title = super::dots::shortened(title, fits);
            text(&mut svg, (x, y - 5.0), "start", &title, TEXT_PX);
        }
        svg
    }

    /// Ends the figure: a line of text below all panels.
    pub(super) fn end(&self, svg: &mut String, words: &str) {
        let (_, height) = self.size();
        text(svg, (MARGIN, height - MARGIN), "start", words, TEXT_PX);
        *svg += "</svg>\n";
    }

    /// Frames a panel.
    pub(super) fn frame(&self, svg: &mut String, index: usize) {
        let (x, y) = self.corner(index);
        let (right, bottom) = (x + self.panel.0, y + self.panel.1);
        let corners = [(x, y), (right, y), (right, bottom), (x, bottom), (x, y)];
        for side in corners.windows(2) {
            line(svg, [side[0], side[1]], "#DCDCDC", 1.0);
        }
    }

    fn size(&self) -> (f64, f64) {
        let across = self.across.min(self.count).max(1) as f64;
        let rows = self.count.div_ceil(self.across) as f64;
        let width = 2.0 * MARGIN + self.left + across * (self.panel.0 + GAP);
        (width.max(520.0), TOP + rows * self.row_height() + LINE + MARGIN)
    }
}
