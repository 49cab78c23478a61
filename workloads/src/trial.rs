//! The contract between workloads and whoever measures them.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use cellbench_impls::cell::{CellKind, TWO_STEP_KINDS};
use cellbench_impls::{AsyncCell, Context, Cpu, Lock, Machine, Platform};

use crate::params::Params;
use crate::tally::Tally;
use crate::worker::Worker;

/// Subject of a workload: a cell of some kind, a lock, or a primitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An async cell.
    Cell(CellKind),
    /// A lock.
    Lock,
    /// An operation on shared lines.
    Primitive,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 5] = [
        Self::Cell(CellKind::Timer),
        Self::Cell(CellKind::Wq),
        Self::Cell(CellKind::TaskWork),
        Self::Lock,
        Self::Primitive,
    ];

    /// Returns the name in files and on the command line: that of the kind, `lock` or `primitive`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cell(kind) => kind.name(),
            Self::Lock => "lock",
            Self::Primitive => "primitive",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names neither a kind of cell nor `lock` nor `primitive`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: neither a kind of cell (timer, wq, task_work) nor lock nor primitive")]
pub struct UnknownSubject(pub String);

impl FromStr for Subject {
    type Err = UnknownSubject;

    fn from_str(name: &str) -> Result<Self, UnknownSubject> {
        let found = Self::ALL.into_iter().find(|subject| subject.name() == name);
        found.ok_or_else(|| UnknownSubject(name.to_owned()))
    }
}

/// The subjects that a workload serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Async cells of every kind in the list.
    Cells(&'static [CellKind]),
    /// Every lock.
    Locks,
    /// Every primitive.
    Primitives,
}

impl Serves {
    /// Returns whether the subject is among them.
    pub const fn serves(self, subject: Subject) -> bool {
        match (self, subject) {
            (Self::Cells(kinds), Subject::Cell(kind)) => kind.is_in(kinds),
            (Self::Locks, Subject::Lock) | (Self::Primitives, Subject::Primitive) => true,
            _ => false,
        }
    }
}

/// Which engine a workload needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineNeed {
    /// Callbacks never run: the cell's own cost.
    Count,
    /// Callbacks run, on CPUs beyond the workers' that the caller drives.
    Live,
}

/// Needs of a workload of whoever measures it, beyond calls of [`Trial::batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Contexts in which every worker is to be interrupted again and again while it is in
    /// [`Trial::batch`]: the caller calls [`Trial::interrupt`] on top of it. Empty: none.
    pub interrupts: &'static [Context],
    /// Interruptions of each worker and context a second, unless the user chose another rate.
    pub interrupt_rate_hz: u32,
    /// Workers on each CPU of the host; more than 1: they take it from each other.
    pub workers_per_cpu: u32,
    /// One worker at a time is suspended for [`Params::stall_ns`]. A window shorter than a few
    /// of these may see the inside of one only.
    pub stalls: bool,
    /// Fewest workers with which it shows what it is about.
    pub least_workers: u32,
}

impl Needs {
    /// Nothing but [`Trial::batch`].
    pub const NOTHING: Self = Self {
        interrupts: &[],
        interrupt_rate_hz: 0,
        workers_per_cpu: 1,
        stalls: false,
        least_workers: 1,
    };
}

/// A workload: how to build a trial of it.
pub trait Workload {
    /// Name in reports.
    const ID: &'static str;
    /// Description of the workload, in a line.
    const ABOUT: &'static str;
    /// Which engine it needs.
    const ENGINE: EngineNeed = EngineNeed::Count;
    /// Whether it is offered with epochs in place of RCU too, to measure that choice.
    const WITH_EPOCHS: bool = false;
    /// Further needs of the workload.
    const NEEDS: Needs = Needs::NOTHING;
}

/// A workload on cells.
pub trait CellWorkload: Workload {
    /// Kinds that it makes sense for.
    const KINDS: &'static [CellKind] = TWO_STEP_KINDS;

    /// Builds a trial on a fresh machine.
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>>;
}

/// A workload on locks.
pub trait LockWorkload: Workload {
    /// Only for locks that can fail: the others would hang.
    const FALLIBLE_ONLY: bool = false;

    /// Builds a trial on a fresh machine.
    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>>;
}

/// One design under one workload, on a machine of its own.
///
/// Life of a trial: each worker claims its CPU ([`Machine::cpu`] with the worker's index), calls
/// [`enter`](Self::enter) once, waits for the others, and calls [`batch`](Self::batch) until time
/// is up, with [`Cpu::quiescent`] after each batch. When all workers have let go of their CPUs,
/// one calls [`check`](Self::check).
///
/// Under a workload whose [`Needs::interrupts`] is not empty each worker has, for each of these
/// contexts, a second [`Worker`] with its own index, which the interruptions count in: the
/// interrupted `batch` holds the first. The caller interrupts from the first `batch` to the last
/// and calls [`interrupt`](Self::interrupt) with the interrupted CPU in that context
/// ([`Cpu::interrupted`]): an NMI wherever it strikes, a hardirq not while interrupts are off.
pub trait Trial<P: Platform>: Send + Sync {
    /// Returns the machine.
    fn machine(&self) -> &Machine<P>;

    /// Prepares what this worker will use, so that its memory is touched by its user first.
    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let _ = (cpu, worker);
    }

    /// Takes `steps` steps of the workload, each at least one attempt, counted in the worker's
    /// tally; none where a worker waits for another in vain, as at the end of a round.
    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32);

    /// Does what a handler does that interrupts this worker's `batch`, in the context of `cpu`: at most
    /// one attempt, counted in the handler's own `worker`. Async-signal-safe: it takes no lock of
    /// the process, and memory from the machine only.
    fn interrupt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let _ = (cpu, worker);
    }

    /// Frees everything, at rest, settles the machine and checks what must hold. `total` is the
    /// sum of the tallies of workers and handlers.
    ///
    /// # Errors
    /// What does not hold.
    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation>;
}

/// A broken invariant: the design is wrong, and its speed is not a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant broken: {0}")]
pub struct Violation(pub String);

/// Fails with a [`Violation`] unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::trial::Violation(format!($($message)+)));
        }
    };
}
