//! `charts/*.svg`: every chart as a file of its own.

use super::{Format, Rendered, Report};
use crate::chart::{Drawing, Drawings};

pub(super) struct Charts;

impl Format for Charts {
    fn name(&self) -> &'static str {
        "charts"
    }

    fn render(&self, _: &Report<'_>, drawings: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        let file = |it: &Drawing| Rendered::text(format!("charts/{}.svg", it.name), it.svg.clone());
        Ok(drawings.get()?.iter().flatten().map(file).collect())
    }
}
