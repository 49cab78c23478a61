//! Charts: each reads a [`Report`] and draws itself as SVG.
//!
//! A chart is a file here and a line in [`CHARTS`]. It says *what* is drawn as lines, bars or a heat
//! map; `lines.rs`, `bars.rs` and `heat.rs` say *how*, in the one style of `style.rs`: one colour and
//! one marker for each generation everywhere, readable by the colour-blind, in light and dark, in
//! print, and at half size. No font is needed: text is left to whoever shows the file.

mod agreement;
mod bars;
mod contexts;
mod core_to_core;
mod distribution;
mod dots;
mod failures;
mod fairness;
mod forest;
mod goodput;
mod heat;
mod hosts;
mod latency;
mod lines;
mod load;
mod model_and_kernel;
mod multiples;
mod panel;
mod scaling;
mod style;
mod sweep;
mod transfers;

use std::cell::OnceCell;

use crate::run::Report;

pub use agreement::{Agreed, agreement};
pub(crate) use core_to_core::{matrices, span};
pub use style::colour_hex;

/// A drawn chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// File name without ending: letters, digits and dashes.
    pub name: String,
    /// Title for readers.
    pub title: String,
    /// Description for readers who cannot see it, with the values.
    pub description: String,
    /// The picture.
    pub svg: String,
}

/// A kind of chart.
pub trait Chart: Sync {
    /// Returns the name of the kind, in file names and as the heading of its section.
    fn name(&self) -> &'static str;
    /// Returns an explanation in a sentence.
    fn about(&self) -> &'static str;
    /// Returns whether the chart is about the hosts of a merged run: the page shows those first.
    fn compares_hosts(&self) -> bool {
        false
    }
    /// Draws all charts of this kind that the data have something for.
    ///
    /// # Errors
    /// A message that says what could not be drawn.
    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String>;
}

/// All charts, in the order in which they are shown.
pub const CHARTS: &[&dyn Chart] = &[
    &forest::Forest,
    &goodput::Goodput,
    &scaling::ScalabilityLaw,
    &failures::Failures,
    &latency::Percentiles,
    &distribution::Distribution,
    &load::Load,
    &contexts::Contexts,
    &fairness::Fairness,
    &transfers::Transfers,
    &sweep::Sweep,
    &model_and_kernel::ModelAndKernel,
    &core_to_core::CoreToCore,
    &hosts::RatiosByHost,
    &hosts::CoreToCoreByHost,
];

/// All charts of a report, drawn when the first format asks and once for all formats.
#[derive(Debug)]
pub struct Drawings<'a> {
    report: Report<'a>,
    drawn: OnceCell<Result<Vec<Vec<Drawing>>, String>>,
}

impl<'a> Drawings<'a> {
    /// Returns the charts of `report`, none drawn yet.
    #[must_use]
    pub fn of(report: Report<'a>) -> Self {
        Self { report, drawn: OnceCell::new() }
    }

    /// Returns the drawings of each of [`CHARTS`].
    ///
    /// # Errors
    /// The reason if they could not be drawn.
    pub fn get(&self) -> Result<&[Vec<Drawing>], String> {
        let draw = || CHARTS.iter().map(|chart| chart.draw(&self.report)).collect();
        self.drawn.get_or_init(draw).as_deref().map_err(String::clone)
    }
}

/// Returns a file name from words: lower case, dashes for everything else.
fn file_name<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut name = String::new();
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        if !name.is_empty() {
            name.push('-');
        }
        name.extend(word.chars().map(|letter| match letter {
            'a'..='z' | '0'..='9' => letter,
            'A'..='Z' => letter.to_ascii_lowercase(),
            _ => '-',
        }));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn file_names_are_plain() {
        assert_eq!(
            file_name(["goodput", "", "task_work", "2 x Xeon"]),
            "goodput-task-work-2-x-xeon"
        );
    }
}
