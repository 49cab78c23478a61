//! Subject of a measurement: a cell or a lock of the registry, perhaps in a variant.
//!
//! A variant is part of the name under which the subject stands in records, so that two variants of
//! a cell are two rows and can be compared:
//!
//! | name | is |
//! |---|---|
//! | `cmpxchg-state` | the cell as it is |
//! | `cmpxchg-state+epoch` | with epochs (crossbeam-epoch) in place of RCU by quiescent states |
//! | `cmpxchg-state+twin` | the same again, for the A/A test |
//! | `spin-queued+5%` | slowed by a known amount, for the self-test |

use cellbench_impls::CellKind;
use cellbench_impls::registry::{CELLS, LOCKS, PEERS};
use cellbench_record::Kind;
use cellbench_workloads::Subject as Under;
use cellbench_workloads::primitives::PRIMITIVES;

/// Suffix of a cell whose memory is reclaimed by epochs.
pub const EPOCH: &str = "+epoch";
/// Suffix of the second of two equal cells.
pub const TWIN: &str = "+twin";

/// A cell or lock to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Name in records.
    pub name: String,
    /// Name in the registry.
    pub id: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Which of the platforms it needs.
    pub reclaim: Reclaim,
    /// Turns of work added to each of its interrupt-off sections, beyond the run's own; only the
    /// locked cells have such sections.
    pub extra_turns: u32,
}

/// How a subject's memory outlives its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// RCU by quiescent states.
    Qsbr,
    /// RCU by crossbeam-epoch.
    Epoch,
}

impl Subject {
    fn of(id: &'static str, kind: Under) -> Self {
        Self {
            name: id.to_owned(),
            id,
            kind: recorded(kind),
            reclaim: Reclaim::Qsbr,
            extra_turns: 0,
        }
    }

    /// Returns the same with epochs.
    #[must_use]
    pub fn with_epoch(self) -> Self {
        Self { name: self.name + EPOCH, reclaim: Reclaim::Epoch, ..self }
    }

    /// Returns the same under another name.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self { name: format!("{}{TWIN}", self.name), ..self.clone() }
    }

    /// Returns the same with `turns` turns of work more in each interrupt-off section, named by
    /// what that
    /// amounts to.
    #[must_use]
    pub fn slowed(&self, percent: f64, turns: u32) -> Self {
        Self {
            name: format!("{}+{percent}%", self.name),
            extra_turns: self.extra_turns + turns,
            ..self.clone()
        }
    }

    /// Returns what it is to a workload.
    ///
    /// # Panics
    /// Never for a subject of [`all`] or [`named`]: the registry has these kinds alone.
    #[must_use]
    pub fn under(&self) -> Under {
        under(&self.kind).expect("a subject of the registry")
    }

    /// Returns whether it is a lock of others, which exists on real cores only.
    #[must_use]
    pub fn is_peer(&self) -> bool {
        self.kind == Kind::Lock && PEERS.iter().any(|peer| peer.id == self.id)
    }
}

/// Returns every cell, lock, peer and primitive as it is, in the registry's order.
#[must_use]
pub fn all() -> Vec<Subject> {
    let cells = CELLS.iter().map(|cell| Subject::of(cell.id, Under::Cell(cell.kind)));
    let locks = LOCKS.iter().chain(PEERS).map(|lock| Subject::of(lock.id, Under::Lock));
    let primitives = PRIMITIVES.iter().map(|one| Subject::of(one.id, Under::Primitive));
    cells.chain(locks).chain(primitives).collect()
}

/// Returns the subjects of that name, one for each kind that has it; a cell's name may end in
/// [`EPOCH`].
#[must_use]
pub fn named(name: &str) -> Vec<Subject> {
    let (id, epoch) = match name.strip_suffix(EPOCH) {
        Some(id) => (id, true),
        None => (name, false),
    };
    let found = all().into_iter().filter(|subject| subject.id == id);
    if epoch {
        // Locks and primitives reclaim nothing.
        let reclaims = |kind: &Kind| !matches!(kind, Kind::Lock | Kind::Primitive);
        found.filter(|subject| reclaims(&subject.kind)).map(Subject::with_epoch).collect()
    } else {
        found.collect()
    }
}

/// Returns the record's word for what is under a workload.
#[must_use]
pub fn recorded(subject: Under) -> Kind {
    match subject {
        Under::Cell(CellKind::Timer) => Kind::Timer,
        Under::Cell(CellKind::Wq) => Kind::Wq,
        Under::Cell(CellKind::TaskWork) => Kind::TaskWork,
        Under::Lock => Kind::Lock,
        Under::Primitive => Kind::Primitive,
    }
}

/// Returns what is under a workload by the record's word; `None` for a kind of a newer writer.
#[must_use]
pub fn under(kind: &Kind) -> Option<Under> {
    match kind {
        Kind::Timer => Some(Under::Cell(CellKind::Timer)),
        Kind::Wq => Some(Under::Cell(CellKind::Wq)),
        Kind::TaskWork => Some(Under::Cell(CellKind::TaskWork)),
        Kind::Lock => Some(Under::Lock),
        Kind::Primitive => Some(Under::Primitive),
        Kind::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_every_kind_that_has_it() {
        let kinds: Vec<Kind> = named("spin-queued").into_iter().map(|found| found.kind).collect();
        for kind in [Kind::Timer, Kind::Wq, Kind::Lock] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        assert_eq!(named("no-such-cell"), []);
    }

    #[test]
    fn epochs_are_a_variant_of_cells_and_not_of_locks() {
        let found = named("spin-queued+epoch");
        assert!(!found.is_empty());
        assert!(found.iter().all(|subject| subject.kind != Kind::Lock
            && subject.reclaim == Reclaim::Epoch
            && subject.name == "spin-queued+epoch"
            && subject.id == "spin-queued"));
    }

    #[test]
    fn every_kind_of_the_registry_has_a_word_in_the_records() {
        for subject in all() {
            assert!(!matches!(subject.kind, Kind::Other(_)), "{subject:?}");
        }
    }
}
