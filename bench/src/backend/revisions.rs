//! Rounds of two revisions of the sources: each built into a program of its own, and the rounds of
//! the two interleaved in one session.
//!
//! A comparison of two runs cannot tell a patch from the drift of the host between them. Here both
//! programs are loaded at once and take turns within each round, in shuffled order, so that a
//! difference is judged like that between two cells: the revisions are the cells of the table.
//!
//! Each program runs `serve-rounds` ([`serve`]): it plans what it was asked for from its own
//! registries, lists the rows, and then measures whichever row it is told to ([`protocol`]). While one
//! measures, the other waits in a read.

pub mod protocol;
pub mod serve;
mod side;
pub mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use cellbench_host::cpus::CpuId;
use cellbench_impls::heap::HeapStats;
use cellbench_record::{Run, Series};

use cellbench_measure::backend::cores::calibrate::Lengths;
use cellbench_measure::backend::{Backend, BackendError, Configuration, Measured, Pace};
use cellbench_measure::session::budget::warm_up;
use cellbench_measure::session::plan::{Block, Plan};
use protocol::Ready;
use side::Side;
pub use side::{Program, SideError};

/// Time of a round beside its window and warm-up.
const OVERHEAD: Duration = Duration::from_millis(3);
/// Calibrations of each side.
const CALIBRATIONS: usize = 9;

/// A row of one revision.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The row of the table: the revision is its cell, `workload/cell` its workload.
    series: Series,
    cpus: Vec<CpuId>,
    side: usize,
    /// Index among the rows of the side's program.
    row: u32,
}

impl Configuration for Spec {
    fn series(&self) -> &Series {
        &self.series
    }

    fn cpus(&self) -> &[CpuId] {
        &self.cpus
    }
}

/// A cell of the first revision that stands against another one of the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name in the first revision.
    pub old: String,
    /// Name in the second.
    pub new: String,
}

/// Two programs as a source of rounds.
pub struct Revisions {
    sides: [Side; 2],
    ready: Option<Ready>,
    notes: Vec<String>,
}

impl Revisions {
    /// Starts both programs, each with its flags of `choices`, and plans what both of them have.
    /// `notes` say what the revisions are.
    ///
    /// # Errors
    /// [`SideError`] if a program cannot be started, says something else than rows, or if the two
    /// have no row in common.
    pub fn start(
        programs: [Program; 2],
        choices: &[Vec<String>; 2],
        pairs: &[Pair],
        notes: Vec<String>,
    ) -> Result<(Self, Plan<Spec>), SideError> {
        let labels = programs.each_ref().map(|program| program.label.clone());
        let [old, new] = programs;
        let sides = [Side::start(old, &choices[0])?, Side::start(new, &choices[1])?];
        let plan = plan(&sides, &labels, pairs)?;
        Ok((Self { sides, ready: None, notes }, plan))
    }
}

impl Revisions {
    /// Has both sides charge alike. Charges are whole turns of a calibrated loop: by calibrations of
    /// their own, which differ by noise and by the minute, the sides would differ in each operation
    /// that is charged, for the whole run.
    fn agree_on_lengths(&mut self) -> Result<(), SideError> {
        let [old, new] = &mut self.sides;
        let mut found = [const { Vec::new() }; 2];
        for _ in 0..CALIBRATIONS {
            // In turn, so that a host that drifts meets both.
            found[0].push(old.calibrate()?);
            found[1].push(new.calibrate()?);
        }
        let [old_lengths, new_lengths] = found.each_ref().map(|found| Lengths::median_of(found));
        if old_lengths.agrees_with(&new_lengths) {
            old.adopt(old_lengths.clone())?;
            return new.adopt(old_lengths);
        }
        self.notes.push(
            "the two revisions compute at different speeds: their charges were calibrated apart"
                .to_owned(),
        );
        old.adopt(old_lengths)?;
        new.adopt(new_lengths)
    }
}

/// Matches the rows of the two sides.
fn plan(sides: &[Side; 2], labels: &[String; 2], pairs: &[Pair]) -> Result<Plan<Spec>, SideError> {
    let mut plan = Plan { blocks: Vec::new(), skipped: Vec::new() };
    let mut new: BTreeMap<Series, u32> = BTreeMap::new();
    for (index, row) in (0..).zip(&sides[1].rows.rows) {
        let old = pairs.iter().find(|pair| pair.new == row.series.cell);
        let series = old.map_or_else(|| row.series.clone(), |pair| row.series.with_cell(&pair.old));
        new.insert(series, index);
    }
    for (index, row) in (0..).zip(&sides[0].rows.rows) {
        let Some(other) = new.remove(&row.series) else {
            plan.skipped.push(format!("{}: not in {}", row.series, labels[1]));
            continue;
        };
        let spec = |side: usize, index: u32| Spec {
            series: Series {
                workload: format!("{}/{}", row.series.workload, row.series.cell),
                cell: labels[side].clone(),
                ..row.series.clone()
            },
            cpus: row.cpus.iter().map(|&cpu| CpuId(cpu)).collect(),
            side,
            row: index,
        };
        let specs = vec![spec(0, index), spec(1, other)];
        plan.blocks.push(Block { specs, surveyed: false });
    }
    plan.skipped.extend(new.keys().map(|series| format!("{series}: not in {}", labels[0])));
    for side in sides {
        plan.skipped.extend(side.rows.skipped.iter().cloned());
    }
    plan.skipped.sort();
    plan.skipped.dedup();
    if plan.is_empty() {
        return Err(SideError::NothingInCommon { labels: labels.clone() });
    }
    Ok(plan)
}

impl Backend for Revisions {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        Pace::Interleaved
    }

    fn prepare(&mut self, time_budget: Option<Duration>) -> Result<(), BackendError> {
        let [old, new] = &mut self.sides;
        let first = old.prepare(time_budget).map_err(BackendError::failed)?;
        new.prepare(time_budget).map_err(BackendError::failed)?;
        self.ready = Some(first);
        self.agree_on_lengths().map_err(BackendError::failed)?;
        Ok(())
    }

    fn describe(&self, run: &mut Run) {
        if let Some(ready) = &self.ready {
            run.host = ready.host.clone();
            run.findings.clone_from(&ready.findings);
            run.calibration = ready.calibration.clone();
            run.settings.irq_save_cost_ns = ready.irq_save_cost_ns;
            run.settings.charges = Some(ready.charges);
        }
        run.notes.extend(self.notes.iter().cloned());
    }

    fn cost(&self, _: &Spec, window: Duration) -> Duration {
        window + warm_up(window) + OVERHEAD
    }

    fn measure(
        &mut self,
        batch: &[&Spec],
        window: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        let measure = |spec: &&Spec| {
            let side = &mut self.sides[spec.side];
            let (mut round, latencies) = side.measure(spec.row, window, seed)?;
            round.series = spec.series.clone();
            let objects = HeapStats { allocated: 0, freed: 0 };
            Ok(Measured { round, latencies, objects })
        };
        batch.iter().map(measure).collect::<Result<_, SideError>>().map_err(BackendError::failed)
    }
}

/// Returns labels of the two sides that can be told apart.
#[must_use]
pub fn distinct(labels: [String; 2]) -> [String; 2] {
    let [old, new] = labels;
    if old == new {
        let twin = format!("{new}+twin");
        return [old, twin];
    }
    [old, new]
}

#[cfg(test)]
mod tests {
    use super::distinct;

    #[test]
    fn a_revision_against_itself_has_two_names() {
        let same = ["abc".to_owned(), "abc".to_owned()];
        assert_eq!(distinct(same), ["abc".to_owned(), "abc+twin".to_owned()]);
        let other = ["abc".to_owned(), "def".to_owned()];
        assert_eq!(distinct(other.clone()), other);
    }
}
