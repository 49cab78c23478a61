//! Is the model right? Predicts what two threads of this host take for primitives, locks and cells,
//! and measures the same.
//!
//! The machine that predicts is calibrated by microbenchmarks ([`crate::backend::sim::host`]). One of them,
//! additions by both threads to one word, is like a row here, which does not count. A virtual machine's CPUs may be moved meanwhile, to where a line travels twice
//! as far or not at all; so everything is measured in passes, each between two ping-pongs, and a
//! pass counts only if the host held still in it and was where it was in most others. A row whose
//! passes still disagree has several regimes, none of which is *the* time it takes: it is shown, and
//! not counted.

pub mod against;
mod measure;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::Source;
use cellbench_sim::MachineModel;
use cellbench_sim::truth::{self, Agreement, Prediction};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use measure::{MeasureError, measure};

use crate::backend::sim::host::{HostError, Microbenchmarks};
use crate::backend::sim::meter::Meter;
use crate::backend::sim::plan::topology;
use crate::backend::sim::trial::{Machine, SimulateError, effort, simulate};
use cellbench_host::Placement;
use cellbench_host::cpus::CpuId;
use cellbench_measure::session::plan::Spec;
use cellbench_measure::session::plan::{Matrix, Plan, PlanError, Selection};

/// The median error may be so large.
pub const MEDIAN_BAR: f64 = 0.20;
/// And the largest one.
pub const WORST_BAR: f64 = 0.40;
/// Of so many pairs of cells in an order, one may be predicted the other way round.
pub const PAIRS_FOR_AN_INVERSION: usize = 40;
/// A row has several regimes if its quartiles are further apart than the model is to be right.
const REGIMES_RATIO: f64 = 1.0 / (1.0 - MEDIAN_BAR);
/// Simulations of each row, each with a seed of its own; the median counts.
const SEEDS: u64 = 9;
/// Number of the designs and workloads: raised with each change that makes an earlier measurement
/// of a cell
/// one of something else. The first (commit 0a51159) had other layouts of the blocks, and armed
/// timers
/// by one exchange.
const DESIGNS: u32 = 2;
/// Kinds of the rows.
const KINDS: [&str; 3] = [PRIMITIVE, "lock", "timer"];
/// Kind of the rows that are neither cells nor locks.
const PRIMITIVE: &str = "primitive";
/// The row that the model is calibrated by.
const ADDITION: (&str, &str) = ("fetch-add", "shared");

/// Primitives, with these workloads.
const PRIMITIVES: Names = (
    &["fetch-add", "exchange", "cas-loop", "neighbouring-words", "two-lines"],
    &["shared", "shared-100ns"],
);
/// Locks, with these.
const LOCKS: Names = (
    &["spin-tas", "spin-queued", "spin-queued-byte", "rqspin", "ticket"],
    &["lock-0ns", "lock-50ns"],
);
/// Cells of timers, with these: everybody on one cell, everybody on a cell of their own beside the
/// others', and everybody on one that is mostly started and seldom changed.
const CELLS: Names = (
    &["spin-tas", "spin-queued", "rqspin", "cmpxchg-state", "mpmc-cell", "seq-latch", "cmd-queue"],
    &["same-cell", "own-cell-packed", "start-mostly-99"],
);
/// Primitives of earlier measurements that have another name now, with their workload.
const RENAMED: [(&str, (&str, &str)); 5] = [
    ("fetch-add", ADDITION),
    ("cas-loop", ("cas-loop", "shared")),
    ("false-sharing", ("neighbouring-words", "shared")),
    ("fetch-add-work", ("fetch-add", "shared-100ns")),
    ("two-lines", ("two-lines", "shared")),
];

/// Names of subjects, and of workloads that each of them is measured under.
type Names = (&'static [&'static str], &'static [&'static str]);

/// Measurements of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Passes that were made.
    pub passes: usize,
    /// Passes that count: the host held still, and was where it was in most others.
    pub kept: usize,
    /// The designs that were measured, by their number; the first have none in their files. Rows
    /// of cells
    /// of another number than this program's are shown, and do not count.
    #[serde(default = "first_designs")]
    pub designs: u32,
    /// Figures that calibrate the model: the medians of the passes that count.
    pub microbenchmarks: Microbenchmarks,
    /// Rows that the model is to predict.
    pub rows: Vec<MeasuredRow>,
    /// Rows of an earlier measurement that this program does not know any more.
    #[serde(skip)]
    pub left_out: Vec<String>,
}

fn first_designs() -> u32 {
    1
}

impl Measured {
    /// Returns whether a row tells something of the model: it was measured with the designs and
    /// workloads of this program (primitives and locks are what they were), and the model was not
    /// calibrated by the like, as it is by additions to one word.
    fn is_to_be_predicted(&self, row: &MeasuredRow) -> bool {
        let is_primitive = row.kind == PRIMITIVE;
        let is_current = self.designs == DESIGNS || is_primitive || row.kind == "lock";
        is_current && !(is_primitive && row.is_of(ADDITION))
    }

    /// Gives the rows of an earlier measurement the names they have now, and leaves out those that are
    /// not measured any more.
    fn renamed(mut self) -> Self {
        for row in self.rows.iter_mut().filter(|row| row.kind == PRIMITIVE) {
            let found = RENAMED.iter().find(|(old, _)| row.is_of((old, "")));
            if let Some((_, (subject, workload))) = found {
                (row.subject, row.workload) = ((*subject).to_owned(), (*workload).to_owned());
            }
        }
        let is_known = |row: &MeasuredRow| !row.workload.is_empty();
        let unknown = self.rows.iter().filter(|row| !is_known(row));
        self.left_out = unknown.map(|row| row.subject.clone()).collect();
        self.rows.retain(is_known);
        self
    }

    /// Returns the machine that the microbenchmarks make. Measurements that are older than the one of
    /// additions by two CPUs have it as a row.
    fn machine(&self) -> Result<MachineModel, HostError> {
        let mut microbenchmarks = self.microbenchmarks.clone();
        let mut rows = self.rows.iter();
        let addition = rows.find(|row| row.kind == PRIMITIVE && row.is_of(ADDITION));
        let addition_ns = addition.filter(|row| row.is_one_regime()).map(|row| row.median_ns);
        microbenchmarks.addition_ns = microbenchmarks.addition_ns.or(addition_ns);
        microbenchmarks.machine()
    }
}

/// One primitive, lock or cell, as two threads of the host found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRow {
    /// Primitive, lock or cell.
    pub subject: String,
    /// `primitive`, or its kind in the registry.
    pub kind: String,
    /// Workload by name.
    pub workload: String,
    /// Time for each success of both threads together, the median of the passes that count.
    pub median_ns: f64,
    /// The lower quartile of these passes.
    pub lower_ns: f64,
    /// The upper one.
    pub upper_ns: f64,
}

impl MeasuredRow {
    /// Returns whether this is the row of a subject under a workload.
    fn is_of(&self, (subject, workload): (&str, &str)) -> bool {
        self.subject == subject && self.workload == workload
    }

    /// Returns whether the passes agree so far that there is one time to predict.
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
    /// Time that the model predicts, in nanoseconds: the median over seeds.
    pub predicted_ns: f64,
    /// The same with its interval.
    pub predicted: Prediction,
    /// `predicted / measured - 1`.
    pub error: f64,
    /// Whether it counts: measurement and prediction have one regime each, the design is what it
    /// was, and the model was not calibrated by the like.
    pub counts: bool,
}

/// Two rows that the model puts in the wrong order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inversion {
    /// The one that is faster on the host.
    pub faster: String,
    /// The one that is faster in the model.
    pub predicted_faster: String,
}

/// How the model did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Measurements that the predictions are held against.
    pub measured: Measured,
    /// The machine that predicts, as a file that `--machine` reads.
    pub machine: String,
    /// Row by row.
    pub rows: Vec<Row>,
    /// Median of the absolute errors of rows that count; none if there is no such row.
    pub median_error: Option<f64>,
    /// The largest of them.
    pub worst_error: Option<f64>,
    /// Pairs of cells under one workload that the host puts in an order: both count, and
    /// their times differ by a tenth or more and by their quartiles.
    pub ordered_pairs: usize,
    /// Those of them that the model does not tell apart.
    pub ties: usize,
    /// Those of them that are predicted the other way round.
    pub inversions: Vec<Inversion>,
}

/// Nothing that was measured can be compared.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}; measure again with nothing else on the host")]
pub struct Nothing {
    what: String,
    why: String,
}

impl Nothing {
    /// Says that none of so many rows of `what` counts.
    fn new(what: &str, rows: usize) -> Self {
        let why = if rows == 0 {
            "no row was measured".to_owned()
        } else {
            format!(
                "none of {rows} rows counts: each has several regimes, or is of a design that has changed since"
            )
        };
        Self { what: what.to_owned(), why }
    }
}

/// An earlier measurement could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadMeasuredError {
    /// The file.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Its content.
    #[error("{}: not the validation.json of a cellbench sim --validate: {source}", .path.display())]
    Content {
        /// Its path.
        path: PathBuf,
        /// Error of the JSON parser.
        source: serde_json::Error,
    },
    /// There is no row in it.
    #[error(transparent)]
    Nothing(#[from] Nothing),
}

/// Reads what an earlier validation measured, from its `validation.json`.
///
/// # Errors
/// [`ReadMeasuredError`], also if there is no row.
pub fn read_measured(path: &Path) -> Result<Measured, ReadMeasuredError> {
    /// The part of a validation that was measured; the rest is predicted anew.
    #[derive(Deserialize)]
    struct Recorded {
        measured: Measured,
    }
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ReadMeasuredError::Read { path, source }),
    };
    match serde_json::from_str::<Recorded>(&text) {
        Ok(recorded) if recorded.measured.rows.is_empty() => {
            Err(Nothing::new(&path.display().to_string(), 0).into())
        }
        Ok(recorded) => Ok(recorded.measured.renamed()),
        Err(source) => Err(ReadMeasuredError::Content { path, source }),
    }
}

/// A prediction failed.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// An error while measuring.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A cell or lock.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// The measurements name something that is not there.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Validation {
    /// Calibrates the model by the microbenchmarks of `measured` and predicts its rows, with
    /// intervals
    /// over so many machines drawn within the uncertainty of the figures.
    ///
    /// # Errors
    /// [`ValidateError`].
    pub fn of(measured: Measured, draws: u64) -> Result<Self, ValidateError> {
        let machine = measured.machine()?;
        let drawn: Vec<MachineModel> = (1..=draws).map(|draw| machine.drawn(draw)).collect();
        let compare = |row: &MeasuredRow| {
            let predicted = predict(&machine, &drawn, row)?;
            Ok(Row {
                predicted_ns: predicted.median,
                error: predicted.median / row.median_ns - 1.0,
                counts: row.is_one_regime()
                    && predicted.regimes.is_none()
                    && measured.is_to_be_predicted(row),
                measured: row.clone(),
                predicted,
            })
        };
        let rows: Result<Vec<Row>, ValidateError> = measured.rows.par_iter().map(compare).collect();
        let mut found = Self {
            machine: machine.to_toml(),
            median_error: None,
            worst_error: None,
            ordered_pairs: 0,
            ties: 0,
            inversions: Vec::new(),
            rows: rows?,
            measured,
        };
        let rows = found.rows_as_truth();
        if let Some(agreement) = Agreement::of(&rows.iter().collect::<Vec<_>>()) {
            found.median_error = Some(agreement.median_error);
            found.worst_error = Some(agreement.worst_error);
            found.ordered_pairs = agreement.pairs;
            found.ties = agreement.ties;
            let inversion = |(faster, predicted_faster)| Inversion { faster, predicted_faster };
            found.inversions = agreement.inversions.into_iter().map(inversion).collect();
        }
        Ok(found)
    }

    /// Returns the rows as rows of ground truth.
    fn rows_as_truth(&self) -> Vec<truth::Row> {
        let as_truth = |row: &Row| {
            against::as_truth(
                &row.measured,
                row.predicted,
                self.measured.is_to_be_predicted(&row.measured),
            )
        };
        self.rows.iter().map(as_truth).collect()
    }

    /// Returns why there is nothing to say of the model, if no row counts.
    #[must_use]
    pub fn nothing(&self) -> Option<Nothing> {
        let what = &self.measured.microbenchmarks.cpu_model;
        self.median_error.is_none().then(|| Nothing::new(what, self.rows.len()))
    }

    /// Returns whether rows count, the errors are within the bars and the cells in order.
    #[must_use]
    pub fn holds(&self) -> bool {
        let within = |error: Option<f64>, bar| error.is_some_and(|error| error <= bar);
        within(self.median_error, MEDIAN_BAR)
            && within(self.worst_error, WORST_BAR)
            && self.inversions.len() * PAIRS_FOR_AN_INVERSION <= self.ordered_pairs
    }
}

/// Returns the rows of a kind that are measured.
fn selection(kind: &str) -> Selection {
    let (cells, workloads) = match kind {
        PRIMITIVE => PRIMITIVES,
        "lock" => LOCKS,
        _ => CELLS,
    };
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

/// Predicts a row over [`SEEDS`] seeds on the machine, and once on each of the drawn ones.
fn predict(
    machine: &MachineModel,
    drawn: &[MachineModel],
    row: &MeasuredRow,
) -> Result<Prediction, ValidateError> {
    let on_drawn = || (SEEDS + 1..).zip(drawn);
    let on_machine = || (1..=SEEDS).map(|seed| (seed, machine));
    let spec = spec(machine, row)?;
    let meter = Meter::default();
    let effort = effort(&spec, &Machine::of(machine, &meter), 1)?;
    let predict = |(seed, machine): (u64, &MachineModel)| {
        let round = simulate(&spec, &Machine::of(machine, &meter), effort, seed)?.round;
        // A window without a success says that a success takes longer.
        Ok(round.duration_s * 1e9 / round.ok().max(1) as f64)
    };
    let seeds: Result<Vec<f64>, SimulateError> = on_machine().map(predict).collect();
    let draws: Result<Vec<f64>, SimulateError> = on_drawn().map(predict).collect();
    let (seeds, draws) = (seeds?, draws?);
    Ok(Prediction::of(seeds, &draws).expect("there are seeds"))
}

/// Returns what a row is in a simulation.
fn spec(machine: &MachineModel, row: &MeasuredRow) -> Result<Spec, PlanError> {
    let selection = Selection {
        cells: vec![row.subject.clone()],
        workloads: vec![row.workload.clone()],
        ..selection(&row.kind)
    };
    let plan = Plan::new(&selection, &topology(machine))?;
    let first = plan.specs().next();
    let mut spec =
        first.ok_or_else(|| PlanError::Nothing { reasons: plan.skipped.join("; ") })?.clone();
    spec.series.source = Source::Sim;
    spec.cpus = vec![CpuId(0), CpuId(1)];
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rows: Vec<MeasuredRow>) -> Measured {
        Measured {
            passes: 9,
            kept: 9,
            designs: DESIGNS,
            microbenchmarks: crate::backend::sim::host::tests::measured(26.0, 54.0),
            rows,
            left_out: Vec::new(),
        }
    }

    fn row(subject: &str, kind: &str, workload: &str, quartiles: (f64, f64)) -> MeasuredRow {
        MeasuredRow {
            subject: subject.to_owned(),
            kind: kind.to_owned(),
            workload: workload.to_owned(),
            median_ns: f64::midpoint(quartiles.0, quartiles.1),
            lower_ns: quartiles.0,
            upper_ns: quartiles.1,
        }
    }

    #[test]
    fn without_a_row_that_counts_nothing_holds_and_nothing_panics() {
        for rows in [Vec::new(), vec![row("cas-loop", PRIMITIVE, "shared", (5.0, 50.0))]] {
            let found = Validation::of(measured(rows), 0).expect("it predicts");
            assert_eq!((found.median_error, found.holds()), (None, false));
            let why = found.nothing().expect("nothing counts").to_string();
            assert!(why.contains("no row was measured") || why.contains("none of 1 rows"), "{why}");
            assert!(found.to_string().contains("No row counts"), "{found}");
        }
    }

    #[test]
    fn cells_of_other_designs_are_shown_and_do_not_count() {
        let rows = vec![
            row("cas-loop", PRIMITIVE, "shared", (5.0, 5.1)),
            row("cmpxchg-state", "timer", "same-cell", (50.0, 51.0)),
        ];
        let counts = |designs| {
            let measured = Measured { designs, ..measured(rows.clone()) };
            let found = Validation::of(measured, 0).expect("it predicts");
            found.rows.iter().map(|row| row.counts).collect::<Vec<_>>()
        };
        assert_eq!(counts(DESIGNS), [true, true]);
        assert_eq!(counts(DESIGNS - 1), [true, false]);
    }

    #[test]
    fn the_row_that_calibrates_is_shown_and_does_not_count() {
        let rows = vec![
            row(ADDITION.0, PRIMITIVE, ADDITION.1, (12.0, 12.1)),
            row("two-lines", PRIMITIVE, "shared", (30.0, 30.1)),
        ];
        let found = Validation::of(measured(rows), 0).expect("it predicts");
        let counts: Vec<bool> = found.rows.iter().map(|row| row.counts).collect();
        assert_eq!(counts, [false, true]);
    }

    #[test]
    fn rows_of_earlier_measurements_have_the_names_of_today() {
        let old = vec![
            row("false-sharing", PRIMITIVE, "", (12.0, 12.1)),
            row("ticket-lock", PRIMITIVE, "", (30.0, 30.1)),
            row("spin-tas", "lock", "lock-0ns", (30.0, 30.1)),
        ];
        let renamed = measured(old).renamed();
        assert_eq!(renamed.left_out, ["ticket-lock"]);
        assert!(renamed.rows[0].is_of(("neighbouring-words", "shared")));
        assert_eq!(renamed.rows.len(), 2);
        // Every name of a table is one of the registries.
        for (_, (subject, workload)) in RENAMED {
            let row = row(subject, PRIMITIVE, workload, (5.0, 5.1));
            Validation::of(measured(vec![row]), 0).expect("it predicts");
        }
    }
}
