//! The selection that the user asked for, and the errors in it.

use cellbench_workloads::registry::WORKLOADS;

use super::HEADLINE;
use crate::session::subject::{self, EPOCH};
use cellbench_host::placement::{Placement, PlacementError};
use cellbench_host::topology::Topology;

/// How much of what there is to measure when no names are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// A handful of workloads that tell the generations apart, alone or on all CPUs.
    Quick,
    /// Each generation on the workloads that tell them apart: compared on one CPU and on all,
    /// surveyed on the numbers between.
    Headline,
    /// Everything at every number of threads in every placement.
    Full,
}

impl Matrix {
    /// Returns the name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Headline => "headline",
            Self::Full => "full",
        }
    }
}

/// Selection that the user asked for; where nothing is given, the matrix decides.
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
    /// Placements of threads.
    pub placements: Vec<Placement>,
    /// Open loop: steps per second over all threads. None: closed loop.
    pub rates_ops_s: Vec<u64>,
    /// Take the form of each workload that repeats an operation until it succeeds.
    pub retry: bool,
}

impl Selection {
    /// Returns whether the cells are those that the headline matrix compares: none was named, and
    /// not
    /// everything is wanted.
    pub(super) fn takes_few_cells(&self) -> bool {
        self.cells.is_empty()
            && self.kinds.is_empty()
            && self.workloads.is_empty()
            && self.matrix != Matrix::Full
    }

    /// Returns whether so many threads of a workload are measured for the curve alone, without
    /// verdicts: what a matrix adds to its comparisons.
    pub(super) fn is_survey(&self, workload: &str, threads: u32, topology: &Topology) -> bool {
        let between = threads != 1 && threads != most_threads(topology);
        let named = !self.workloads.is_empty();
        let unnamed_threads = self.threads.is_empty() && between;
        match self.matrix {
            Matrix::Full => !named && (unnamed_threads || !HEADLINE.contains(&workload)),
            Matrix::Headline | Matrix::Quick => !named && unnamed_threads,
        }
    }

    /// Returns all that `matrix` says.
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

/// Returns the number of CPUs that can be used at once, as affinity and cgroup allow.
pub(super) fn most_threads(topology: &Topology) -> u32 {
    let usable = topology.usable.len() as u32;
    let quota = topology.quota.as_ref().map_or(usable, |quota| quota.cpus() as u32);
    quota.clamp(1, usable)
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

/// Returns every name that `--cells` takes.
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

/// Returns every name that `--workloads` takes.
#[must_use]
pub fn known_workloads() -> String {
    WORKLOADS.iter().map(|workload| workload.id).collect::<Vec<_>>().join(", ")
}
