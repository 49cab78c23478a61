//! Core-to-core latency as a heat map: the ground that everything contended stands on.

use cellbench_record::CoreMatrix;

use super::heat::{self, Heat};
use super::{Chart, Drawing, file_name};
use crate::run::Report;

pub(super) struct CoreToCore;

impl Chart for CoreToCore {
    fn name(&self) -> &'static str {
        "core-to-core"
    }

    fn about(&self) -> &'static str {
        "One-way latency of a cache line between two CPUs, by method."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        matrices(&report.run.calibration.core_to_core, None)
    }
}

/// Draws each matrix of a host, all on one scale where that is given.
///
/// # Errors
/// The reason if one could not be drawn.
pub(crate) fn matrices(
    matrices: &[CoreMatrix],
    scale: Option<(f64, f64)>,
) -> Result<Vec<Drawing>, String> {
    let mut drawings = Vec::new();
    for matrix in matrices {
        let chart = Heat {
            name: file_name(["core-to-core", &matrix.method]),
            title: format!("Core to core: {}", matrix.method),
            unit: "one-way latency, ns".into(),
            names: matrix.cpus.iter().map(u32::to_string).collect(),
            values: matrix.one_way_ns.clone(),
            scale,
        };
        drawings.extend(chart.draw()?);
    }
    Ok(drawings)
}

/// Returns the least and the greatest latency of several matrices; none if there is none.
pub(crate) fn span<'a>(matrices: impl Iterator<Item = &'a CoreMatrix>) -> Option<(f64, f64)> {
    matrices.filter_map(|matrix| heat::span(&matrix.one_way_ns)).reduce(|a, b| {
        let ((low, high), (least, most)) = (a, b);
        (low.min(least), high.max(most))
    })
}
