//! Goodput against threads with the Universal Scalability Law laid through it, up to its peak.

use cellbench_record::{Entry, Scaling};

use super::lines::{Line, Lines, Point, Scale};
use super::panel::{Panel, by_cell, panels, si, thread_ticks};
use super::{Chart, Drawing, style};
use crate::run::Report;
use crate::stats::usl::Fit;

pub(super) struct ScalabilityLaw;

/// Places of a curve.
const STEPS: u32 = 48;
/// Multiple of the threads measured up to which a curve goes on to its peak: further on it is no prediction.
const FARTHEST: f64 = 4.0;

impl Chart for ScalabilityLaw {
    fn name(&self) -> &'static str {
        "scaling"
    }

    fn about(&self) -> &'static str {
        "The Universal Scalability Law fitted to goodput: marks are measured, curves are fitted and go \
         on to the predicted peak where that lies within 4 times the threads measured. Needs three \
         thread counts."
    }

    fn draw(&self, report: &Report<'_>) -> Result<Vec<Drawing>, String> {
        let fits: Vec<(Panel, &Scaling)> = report
            .summary
            .scaling
            .iter()
            .filter(|scaling| scaling.lambda_ops_s.is_some())
            .map(|scaling| (Panel::of(&scaling.series), scaling))
            .collect();
        let mut drawings = Vec::new();
        for (panel, entries) in panels(report) {
            let lines = by_cell(report, &entries).into_iter().filter_map(|(cell, of_cell)| {
                let fitted =
                    |(of, fit): &&(Panel, &Scaling)| *of == panel && fit.series.cell == cell;
                let (_, scaling) = fits.iter().find(fitted)?;
                line(report, cell, &of_cell, scaling)
            });
            let chart = Lines {
                name: panel.file_name("scaling"),
                title: format!("Scalability law: {}", panel.title()),
                x_label: "threads".into(),
                y_label: "successful operations/s".into(),
                x_scale: Scale::Doublings,
                y_scale: Scale::Linear,
                x_ticks: thread_ticks(&entries),
                x_text: |threads| format!("{threads:.1}"),
                y_text: si,
                lines: lines.collect(),
            };
            drawings.extend(chart.draw()?);
        }
        Ok(drawings)
    }
}

/// Makes points of the measured values and a curve of the law.
fn line(report: &Report<'_>, cell: String, of_cell: &[&Entry], scaling: &Scaling) -> Option<Line> {
    let fit = Fit {
        lambda: scaling.lambda_ops_s?,
        sigma: scaling.sigma?,
        kappa: scaling.kappa?,
        r_squared: scaling.r_squared,
    };
    let points: Vec<Point> = of_cell
        .iter()
        .filter_map(|entry| {
            let y = entry.goodput_ops_s?;
            Some(Point { x: f64::from(entry.series.threads), y, low: y, high: y })
        })
        .collect();
    let (least, most) = (points.first()?.x, points.last()?.x);
    let end = match fit.peak_threads() {
        Some(peak) if peak > most && peak <= FARTHEST * most => peak,
        _ => most,
    };
    let step = (end / least).log2() / f64::from(STEPS);
    let curve = (0..=STEPS).map(|i| {
        let threads = least * (f64::from(i) * step).exp2();
        (threads, fit.goodput(threads))
    });
    let look = style::look(report.designs, &cell);
    Some(Line { cell, look, points, curve: curve.collect() })
}
