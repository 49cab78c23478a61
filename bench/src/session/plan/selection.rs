//! What the user asked for, and what is wrong with it.

use cellbench_workloads::registry::WORKLOADS;

use crate::session::subject::{self, EPOCH};
use cellbench_host::placement::{Placement, PlacementError};

/// How much of what there is to measure when no names are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// `HEADLINE` on timers, task works and locks, on one CPU and on all.
    Quick,
    /// Every cell under every workload: the headline ones at 1, 2, 4 ... all threads and until they
    /// are decided, the others at 1, 2 and all.
    Headline,
    /// Everything at every number of threads in every placement.
    Full,
}

impl Matrix {
    /// Name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Headline => "headline",
            Self::Full => "full",
        }
    }
}

/// What the user asked for; nothing given means what the matrix says.
#[derive(Clone, Debug)]
pub struct Selection {
    /// How much where no names are given.
    pub matrix: Matrix,
    /// Names of cells and locks.
    pub cells: Vec<String>,
    /// Names of workloads.
    pub workloads: Vec<String>,
    /// Names of kinds.
    pub kinds: Vec<String>,
    /// Numbers of threads.
    pub threads: Vec<u32>,
    /// Placements.
    pub placements: Vec<Placement>,
    /// Open loop: steps per second over all threads. None: closed loop.
    pub rates_ops_s: Vec<u64>,
    /// Take the form of each workload that repeats an operation until it succeeds.
    pub retry: bool,
}

impl Selection {
    /// All that `matrix` says.
    #[must_use]
    pub fn of(matrix: Matrix) -> Self {
        Self {
            matrix,
            cells: Vec::new(),
            workloads: Vec::new(),
            kinds: Vec::new(),
            threads: Vec::new(),
            placements: Vec::new(),
            rates_ops_s: Vec::new(),
            retry: false,
        }
    }
}

/// Why a selection cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A name that the registry does not have.
    #[error("unknown {what} `{name}`; known are {known}")]
    Unknown {
        /// `cell`, `workload` or `kind`.
        what: &'static str,
        /// Name that was given.
        name: String,
        /// Names that there are.
        known: String,
    },
    /// So many threads cannot be placed.
    #[error("--threads {threads}: {source}")]
    Threads {
        /// Number that was given.
        threads: u32,
        /// Why not.
        source: PlacementError,
    },
    /// All names are known, but no cell serves a workload.
    #[error("nothing to measure: {reasons}")]
    Nothing {
        /// Why each was left out.
        reasons: String,
    },
}

/// Every name that `--cells` takes.
#[must_use]
pub fn known_cells() -> String {
    let mut names: Vec<String> = Vec::new();
    for subject in subject::all() {
        if !names.contains(&subject.name) {
            names.push(subject.name);
        }
    }
    format!("{} (cells also with {EPOCH})", names.join(", "))
}

/// Every name that `--workloads` takes.
#[must_use]
pub fn known_workloads() -> String {
    WORKLOADS.iter().map(|workload| workload.id).collect::<Vec<_>>().join(", ")
}
