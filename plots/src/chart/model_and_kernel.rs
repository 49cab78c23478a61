//! Model, simulator and kernel beside each other: the time of an operation in each, where two or
//! more of them ran the same workload.

use std::collections::BTreeMap;

use cellbench_record::{Entry, Source};

use super::bars::{Bar, Bars, Segment};
use super::{Chart, Drawing, file_name, style};
use crate::number;
use crate::run::Report;

pub(super) struct ModelAndKernel;

/// Conditions that are drawn; the tables have the others.
const MOST_CHARTS: usize = 150;

impl Chart for ModelAndKernel {
    fn name(&self) -> &'static str {
        "sources"
    }

    fn about(&self) -> &'static str {
        "Time per successful operation (threads by goodput) in the model, the simulator and the \
         running kernel. The kernel masks interrupts, arms real timers and allocates."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let mut groups: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        for entry in &report.summary.entries {
            let series = &entry.series;
            let key = (series.kind.to_string(), series.workload.clone(), series.threads);
            groups.entry(key).or_default().push(entry);
        }
        let mut drawings = Vec::new();
        for ((kind, workload, threads), mut entries) in groups {
            let has = |source: &Source| entries.iter().any(|entry| entry.series.source == *source);
            let sources =
                [Source::Model, Source::Sim, Source::Kernel].iter().filter(|s| has(s)).count();
            if sources < 2 || drawings.len() >= MOST_CHARTS {
                continue;
            }
            entries.sort_by_key(|entry| {
                (report.designs.rank(&entry.series.cell), entry.series.source.to_string())
            });
            let bars = entries.iter().filter_map(|entry| {
                let goodput = entry.goodput_ops_s.filter(|goodput| *goodput > 0.0)?;
                let ns = f64::from(threads) * 1e9 / goodput;
                let series = &entry.series;
                let source = series.machine.clone().unwrap_or_else(|| series.source.to_string());
                Some(Bar {
                    name: format!("{}, {source}", series.cell),
                    segments: vec![Segment {
                        name: series.cell.clone(),
                        length: ns,
                        colour: style::look(report.designs, &series.cell).colour,
                    }],
                    value: number::time_ns(Some(ns)),
                })
            });
            let threads_text = threads.to_string();
            let chart = Bars {
                name: file_name(["sources", &kind, &workload, &threads_text]),
                title: format!(
                    "Model and kernel: {kind} {workload}, {}",
                    number::count(threads, "thread")
                ),
                unit: "time per operation".into(),
                full: None,
                bars: bars.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}
