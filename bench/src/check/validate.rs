//! Is the model right? Predicts what two threads of this host take for primitives, locks and cells,
//! and measures the same.
//!
//! The machine that predicts is calibrated by other microbenchmarks ([`crate::backend::sim::host`]) than those
//! predicted here. A virtual machine's CPUs may be moved meanwhile, to where a line travels twice
//! as far or not at all; so everything is measured in passes, each between two ping-pongs, and a
//! pass counts only if the host held still in it and was where it was in most others. A row whose
//! passes still disagree has several regimes, none of which is *the* time it takes: it is shown, and
//! not counted.

mod measure;
mod table;

use cellbench_record::Source;
use cellbench_sim::MachineModel;
use serde::{Deserialize, Serialize};

pub use measure::{MeasureError, measure};

use crate::backend::sim::host::{HostError, Microbenchmarks};
use crate::backend::sim::meter::Meter;
use crate::backend::sim::plan::topology;
use crate::backend::sim::primitive;
use crate::backend::sim::trial::{Machine, SimulateError, effort, simulate};
use crate::session::plan::Spec;
use crate::session::plan::{Matrix, Plan, PlanError, Selection};
use cellbench_host::Placement;
use cellbench_host::clock::median;
use cellbench_host::cpus::CpuId;

/// The median error may be so large.
pub const MEDIAN_BAR: f64 = 0.20;
/// And the largest one.
pub const WORST_BAR: f64 = 0.40;
/// Cells whose measured times differ by less than this, or whose quartiles overlap, are not put in an
/// order.
const SAME_SHARE: f64 = 0.10;
/// The model tells two cells apart if it sees this difference: its own seeds differ by less.
const TIE_SHARE: f64 = 0.02;
/// A row has several regimes if its quartiles are further apart than the model is to be right.
const REGIMES_RATIO: f64 = 1.0 / (1.0 - MEDIAN_BAR);
/// Simulations of each row, each with a seed of its own; the median counts.
const SEEDS: u64 = 9;
/// Kind of the rows that are neither cells nor locks.
const PRIMITIVE: &str = "primitive";

/// Locks, with these workloads.
const LOCKS: (&[&str], &[&str]) =
    (&["spin-tas", "spin-queued", "spin-queued-byte", "rqspin"], &["lock-0ns", "lock-50ns"]);
/// Cells of timers, with these: everybody on one cell, everybody on a cell of their own beside the
/// others', and everybody on one that is mostly started and seldom changed.
const CELLS: (&[&str], &[&str]) = (
    &["spin-tas", "spin-queued", "rqspin", "cmpxchg-state", "mpmc-cell", "seq-latch", "cmd-queue"],
    &["same-cell", "own-cell-packed", "start-mostly-99"],
);

/// What was measured on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Passes that were made.
    pub passes: usize,
    /// Passes that count: the host held still, and was where it was in most others.
    pub kept: usize,
    /// What the model is calibrated by: the medians of the passes that count.
    pub microbenchmarks: Microbenchmarks,
    /// What it is to predict.
    pub rows: Vec<MeasuredRow>,
}

/// One primitive, lock or cell, as two threads of the host found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRow {
    /// Primitive, lock or cell.
    pub subject: String,
    /// `primitive`, or its kind in the registry.
    pub kind: String,
    /// Workload; empty for a primitive.
    pub workload: String,
    /// Time for each success of both threads together, the median of the passes that count.
    pub median_ns: f64,
    /// The lower quartile of these passes.
    pub lower_ns: f64,
    /// The upper one.
    pub upper_ns: f64,
}

impl MeasuredRow {
    /// Whether the passes agree so far that there is one time to predict.
    #[must_use]
    pub fn is_one_regime(&self) -> bool {
        self.upper_ns < self.lower_ns * REGIMES_RATIO
    }
}

/// A prediction beside its measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The measurement.
    #[serde(flatten)]
    pub measured: MeasuredRow,
    /// What the model says.
    pub predicted_ns: f64,
    /// `predicted / measured - 1`.
    pub error: f64,
}

/// Two cells that the model puts in the wrong order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inversion {
    /// Workload.
    pub workload: String,
    /// The one that is faster on the host.
    pub faster: String,
    /// The one that is faster in the model.
    pub predicted_faster: String,
}

/// How the model did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// What was measured.
    pub measured: Measured,
    /// The machine that predicts, as a file that `--machine` reads.
    pub machine: String,
    /// Row by row.
    pub rows: Vec<Row>,
    /// Median of the absolute errors of rows with one regime.
    pub median_error: f64,
    /// The largest of them.
    pub worst_error: f64,
    /// Pairs of cells under one workload that the host puts in an order: both have one regime, and
    /// their times differ by a tenth or more and by their quartiles.
    pub ordered_pairs: usize,
    /// Those of them that the model does not tell apart.
    pub ties: usize,
    /// Those of them that are predicted the other way round.
    pub inversions: Vec<Inversion>,
}

/// A prediction failed.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// Measuring.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A cell or lock.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// A primitive.
    #[error("{primitive}: {source}")]
    Primitive {
        /// Its name.
        primitive: String,
        /// Why.
        source: cellbench_sim::SimError,
    },
    /// The measurements name something that is not there.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Validation {
    /// Calibrates the model by the microbenchmarks of `measured` and predicts its rows.
    ///
    /// # Errors
    /// [`ValidateError`].
    pub fn of(measured: Measured) -> Result<Self, ValidateError> {
        let machine = measured.microbenchmarks.machine()?;
        let mut rows = Vec::with_capacity(measured.rows.len());
        for row in &measured.rows {
            let predicted_ns = predict(&machine, row)?;
            let error = predicted_ns / row.median_ns - 1.0;
            rows.push(Row { measured: row.clone(), predicted_ns, error });
        }
        let counted = rows.iter().filter(|row| row.measured.is_one_regime());
        let mut errors: Vec<f64> = counted.map(|row| row.error.abs()).collect();
        let worst_error = errors.iter().copied().fold(0.0, f64::max);
        let Order { pairs: ordered_pairs, ties, inversions } = order(&rows);
        Ok(Self {
            machine: machine.to_toml(),
            median_error: median(&mut errors),
            worst_error,
            ordered_pairs,
            ties,
            inversions,
            rows,
            measured,
        })
    }

    /// Whether the errors are within the bars and the cells in order.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.median_error <= MEDIAN_BAR
            && self.worst_error <= WORST_BAR
            && self.inversions.is_empty()
    }
}

/// The rows that are measured, beside the primitives.
fn selection(kind: &str) -> Selection {
    let (cells, workloads) = if kind == "lock" { LOCKS } else { CELLS };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Selection {
        cells: names(cells),
        workloads: names(workloads),
        kinds: vec![kind.to_owned()],
        threads: vec![2],
        placements: vec![Placement::Compact],
        ..Selection::of(Matrix::Full)
    }
}

fn predict(machine: &MachineModel, row: &MeasuredRow) -> Result<f64, ValidateError> {
    let mut found: Vec<f64> = if row.kind == PRIMITIVE {
        let cores = [0, 1];
        let predicted =
            (1..=SEEDS).map(|seed| primitive::predict(machine, &cores, &row.subject, seed));
        predicted
            .collect::<Result<_, _>>()
            .map_err(|source| ValidateError::Primitive { primitive: row.subject.clone(), source })?
    } else {
        let spec = spec(machine, row)?;
        let meter = Meter::default();
        let machine = Machine::of(machine, &meter);
        let effort = effort(&spec, &machine, 1)?;
        let predicted = (1..=SEEDS).map(|seed| {
            let round = simulate(&spec, &machine, effort, seed)?.round;
            Ok(round.duration_s * 1e9 / round.ok() as f64)
        });
        predicted.collect::<Result<_, SimulateError>>()?
    };
    Ok(median(&mut found))
}

/// What a row is in a simulation.
fn spec(machine: &MachineModel, row: &MeasuredRow) -> Result<Spec, PlanError> {
    let selection = Selection {
        cells: vec![row.subject.clone()],
        workloads: vec![row.workload.clone()],
        ..selection(&row.kind)
    };
    let plan = Plan::new(&selection, &topology(machine))?;
    let mut spec = plan.specs().next().expect("a plan is not empty").clone();
    spec.series.source = Source::Sim;
    spec.cpus = vec![CpuId(0), CpuId(1)];
    Ok(spec)
}

/// What became of the host's order in the model.
struct Order {
    /// Pairs that the host puts in an order.
    pairs: usize,
    /// Those that the model does not.
    ties: usize,
    /// Those that it puts in the other.
    inversions: Vec<Inversion>,
}

fn order(rows: &[Row]) -> Order {
    let mut found = Order { pairs: 0, ties: 0, inversions: Vec::new() };
    for (position, one) in rows.iter().enumerate() {
        for other in &rows[position + 1..] {
            let (a, b) = (&one.measured, &other.measured);
            if a.kind == PRIMITIVE || (&a.kind, &a.workload) != (&b.kind, &b.workload) {
                continue;
            }
            let (fast, slow) = if a.median_ns < b.median_ns { (one, other) } else { (other, one) };
            let apart = fast.measured.upper_ns < slow.measured.lower_ns
                && slow.measured.median_ns >= fast.measured.median_ns * (1.0 + SAME_SHARE);
            if !apart || !a.is_one_regime() || !b.is_one_regime() {
                continue;
            }
            found.pairs += 1;
            if (fast.predicted_ns / slow.predicted_ns).ln().abs() < TIE_SHARE {
                found.ties += 1;
            } else if fast.predicted_ns > slow.predicted_ns {
                found.inversions.push(Inversion {
                    workload: a.workload.clone(),
                    faster: fast.measured.subject.clone(),
                    predicted_faster: slow.measured.subject.clone(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, measured_ns: f64, predicted_ns: f64) -> Row {
        Row {
            measured: MeasuredRow {
                subject: subject.to_owned(),
                kind: "timer".to_owned(),
                workload: "same-cell".to_owned(),
                median_ns: measured_ns,
                lower_ns: measured_ns * 0.99,
                upper_ns: measured_ns * 1.01,
            },
            predicted_ns,
            error: predicted_ns / measured_ns - 1.0,
        }
    }

    #[test]
    fn only_clear_differences_have_an_order() {
        let rows = [row("a", 10.0, 12.0), row("b", 10.5, 9.0), row("c", 20.0, 11.0)];
        let found = order(&rows);
        assert_eq!((found.pairs, found.ties), (2, 0));
        let inversion = &found.inversions[0];
        assert_eq!((found.inversions.len(), inversion.faster.as_str()), (1, "a"));
        assert_eq!(inversion.predicted_faster, "c");
    }

    #[test]
    fn a_prediction_alike_is_no_order_and_overlapping_quartiles_are_none_either() {
        let mut rows = [row("a", 10.0, 12.0), row("b", 12.0, 12.1), row("c", 20.0, 13.0)];
        let found = order(&rows);
        assert_eq!((found.pairs, found.ties, found.inversions.len()), (3, 1, 0));
        rows[1].measured.lower_ns = 9.9;
        let found = order(&rows);
        assert_eq!((found.pairs, found.ties), (2, 0), "a and b overlap");
        rows[1].measured.upper_ns = 19.0;
        assert_eq!(order(&rows).pairs, 1, "b has several regimes");
    }
}
