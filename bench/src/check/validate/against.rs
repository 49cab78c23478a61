//! The model against all ground truth at once: machines with many cores, latency matrices, and the
//! validations of hosts with two CPUs that were sent in.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_plots::chart::{Agreed, Drawing, agreement};
use cellbench_sim::SimError;
use cellbench_sim::truth::{self, Agreement, DRAWS, DataSet, Half, Row, TruthError};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    MEDIAN_BAR, Measured, MeasuredRow, Nothing, ReadMeasuredError, ValidateError, Validation,
    WORST_BAR, read_measured,
};

/// Errors beyond this share are where the model diverges.
pub const DIVERGES: f64 = 0.30;
/// Of so many pairs of rows one may be in the wrong order.
const PAIRS_TO_ONE_WRONG: usize = 40;
/// Rows named where the model diverges; there may be more.
const NAMED: usize = 6;

/// A comparison with ground truth failed.
#[derive(Debug, thiserror::Error)]
pub enum AgainstError {
    /// The measurements of machines with many cores.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// A simulation.
    #[error(transparent)]
    Simulation(#[from] SimError),
    /// A validation of a host.
    #[error("{}: {source}", .path.display())]
    Host {
        /// Its file.
        path: PathBuf,
        /// Error of that validation.
        source: Box<ValidateError>,
    },
    /// A file with the validation of a host.
    #[error(transparent)]
    Read(#[from] ReadMeasuredError),
    /// There is nothing to compare with.
    #[error(transparent)]
    Nothing(#[from] Nothing),
    /// The chart.
    #[error("{0}")]
    Chart(String),
}

/// One data set and its predictions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the data set.
    pub name: String,
    /// The measured thing and its unit.
    pub title: String,
    /// All rows.
    pub rows: Vec<Row>,
    /// How the rows agree, or `None` if none counts: all, those by which the model was tuned, and those
    /// that were held out.
    pub all: Option<Agreement>,
    /// The tuned half.
    pub tuned: Option<Agreement>,
    /// The half that was held out.
    pub held_out: Option<Agreement>,
}

impl Compared {
    fn new(name: String, title: String, rows: Vec<Row>) -> Self {
        let of = |half: Option<Half>| {
            let wanted = |row: &&Row| half.is_none_or(|half| row.half == half);
            Agreement::of(&rows.iter().filter(wanted).collect::<Vec<_>>())
        };
        let (all, tuned, held_out) = (of(None), of(Some(Half::Tuned)), of(Some(Half::HeldOut)));
        Self { name, title, rows, all, tuned, held_out }
    }

    /// Returns the rows whose error is beyond [`DIVERGES`], the worst first.
    fn divergent(&self) -> Vec<&Row> {
        let beyond = |row: &&Row| row.counts() && row.error().abs() > DIVERGES;
        let mut rows: Vec<&Row> = self.rows.iter().filter(beyond).collect();
        rows.sort_by(|one, other| other.error().abs().total_cmp(&one.error().abs()));
        rows
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The data sets: many cores, then hosts, then matrices.
    pub sets: Vec<Compared>,
    /// A line for each measurement that nothing predicts.
    pub skipped: Vec<String>,
}

impl Comparison {
    /// Reads everything in a folder and predicts it. `draws` machines are drawn within the uncertainty of
    /// the figures for each row's interval.
    ///
    /// # Errors
    /// [`AgainstError`], which names the file; [`AgainstError::Nothing`] if no row counts.
    pub fn of(folder: &Path) -> Result<Self, AgainstError> {
        let (sets, skipped) = truth::read(folder)?;
        let (matrices, many): (Vec<DataSet>, Vec<DataSet>) =
            sets.into_iter().partition(DataSet::is_matrix);
        let mut compared = predict(many)?;
        for path in json_files(&folder.join("hosts"))? {
            compared.push(host(&path)?);
        }
        compared.extend(predict(matrices)?);
        if compared.iter().all(|set| set.all.is_none()) {
            let rows = compared.iter().map(|set| set.rows.len()).sum();
            return Err(Nothing::new(&folder.display().to_string(), rows).into());
        }
        Ok(Self { sets: compared, skipped })
    }

    /// Returns whether every data set is within the bars, and at most one pair in forty in the wrong order.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.sets.iter().filter_map(|set| set.all.as_ref()).all(|all| {
            all.median_error <= MEDIAN_BAR
                && all.worst_error <= WORST_BAR
                && all.inversions.len() * PAIRS_TO_ONE_WRONG <= all.pairs
        })
    }

    /// Draws measured against predicted.
    ///
    /// # Errors
    /// [`AgainstError::Chart`].
    pub fn chart(&self) -> Result<Option<Drawing>, AgainstError> {
        let agreed = |set: &Compared, row: &Row| Agreed {
            set: set.name.clone(),
            row: row.label(),
            measured: row.measured,
            predicted: row.predicted.median,
            low: row.predicted.low,
            high: row.predicted.high,
        };
        // A matrix is what its machine is made of, and would hide the others.
        let shown = self.sets.iter().filter(|set| !set.title.contains("ping-pong"));
        let rows: Vec<Agreed> = shown
            .flat_map(|set| {
                set.rows.iter().filter(|row| row.counts()).map(move |row| agreed(set, row))
            })
            .collect();
        agreement("Measured against predicted", &rows).map_err(AgainstError::Chart)
    }
}

/// Predicts sets of measurements on machines with many cores.
fn predict(sets: Vec<DataSet>) -> Result<Vec<Compared>, AgainstError> {
    let compare = |set: DataSet| {
        let rows: Result<Vec<Row>, SimError> =
            set.questions.par_iter().map(|question| set.row(question, DRAWS)).collect();
        Ok(Compared::new(set.name, set.title, rows?))
    };
    sets.into_iter().map(compare).collect()
}

/// Predicts what was measured on a host with two CPUs.
fn host(path: &Path) -> Result<Compared, AgainstError> {
    let measured: Measured = read_measured(path)?;
    let cpu = measured.microbenchmarks.cpu_model.clone();
    let failed = |source| AgainstError::Host { path: path.to_owned(), source: Box::new(source) };
    let validation = Validation::of(measured, DRAWS).map_err(failed)?;
    let name =
        path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let title = format!("{cpu}: two threads, ns for each success");
    Ok(Compared::new(format!("hosts/{name}"), title, validation.rows_as_truth()))
}

/// Returns the JSON files in a folder, sorted; none if there is no such folder.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, AgainstError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    Ok(files)
}

/// Returns a row of a host as one of ground truth. The same row of two hosts is in the same half.
pub(super) fn as_truth(
    row: &MeasuredRow,
    predicted: truth::Prediction,
    is_to_be_predicted: bool,
) -> Row {
    let primitive = row.kind == super::PRIMITIVE;
    let workload =
        Some(row.workload.as_str()).filter(|workload| !primitive || *workload != "shared");
    let name = [Some(row.subject.as_str()), workload].into_iter().flatten().collect::<Vec<_>>();
    let name = name.join(" ");
    Row {
        half: Half::of(&format!("hosts/{}/{name}", row.kind)),
        group: (!primitive).then(|| format!("{} {}", row.kind, row.workload)),
        name,
        threads: 2,
        measured: row.median_ns,
        quartiles: Some((row.lower_ns, row.upper_ns)),
        predicted,
        is_one_regime: row.is_one_regime() && is_to_be_predicted,
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| data set | rows | median error | worst | tuned half: rows, median, worst | held-out half: rows, median, worst | within the interval | wrong order | beyond {:.0} % |",
            100.0 * DIVERGES
        )?;
        writeln!(f, "|:--|--:|--:|--:|--:|--:|--:|--:|:--|")?;
        for set in &self.sets {
            let Some(all) = &set.all else {
                writeln!(f, "| {} | none of {} counts | | | | | | | |", set.name, set.rows.len())?;
                continue;
            };
            let half = |of: &Option<Agreement>| {
                of.as_ref().map_or("none".to_owned(), |of| {
                    format!(
                        "{}, {:.1} %, {:.1} %",
                        of.rows,
                        100.0 * of.median_error,
                        100.0 * of.worst_error
                    )
                })
            };
            let left_out = match all.left_out {
                0 => String::new(),
                rows => format!(" of {}", all.rows + rows),
            };
            let order = match all.pairs {
                0 => "-".to_owned(),
                pairs => format!("{} of {pairs}", all.inversions.len()),
            };
            writeln!(
                f,
                "| {} | {}{left_out} | {:.1} % | {:.1} % | {} | {} | {} of {} | {order} | {} |",
                set.name,
                all.rows,
                100.0 * all.median_error,
                100.0 * all.worst_error,
                half(&set.tuned),
                half(&set.held_out),
                all.within,
                all.rows,
                divergence(&set.divergent()),
            )?;
        }
        writeln!(f)?;
        for set in &self.sets {
            writeln!(f, "- {}: {}", set.name, set.title)?;
        }
        for line in &self.skipped {
            writeln!(f, "- Not predicted: {line}.")?;
        }
        Ok(())
    }
}

/// Names the rows at which the model diverges.
fn divergence(rows: &[&Row]) -> String {
    let named =
        rows.iter().take(NAMED).map(|row| format!("{} {:+.0} %", row.label(), 100.0 * row.error()));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if rows.len() > NAMED {
        text += &format!(" and {} more", rows.len() - NAMED);
    }
    text
}
