//! Core-to-core latency as a heat map: the ground that everything contended stands on.

use super::heat::Heat;
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
        let mut drawings = Vec::new();
        for matrix in &report.run.calibration.core_to_core {
            let chart = Heat {
                name: file_name(["core-to-core", &matrix.method]),
                title: format!("Core to core: {}", matrix.method),
                unit: "one-way latency, ns".into(),
                names: matrix.cpus.iter().map(u32::to_string).collect(),
                values: matrix.one_way_ns.clone(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}
