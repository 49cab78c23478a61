//! Where rounds come from. Here is what every source has in common, and the one that every host has: its
//! cores. The simulator, the running kernel and others are in the `cellbench` crate.
//!
//! A backend measures configurations and describes itself for the record. Order, number of rounds and
//! what is written are the session's matter.

pub mod cores;
pub mod latency;

use std::time::Duration;

use cellbench_host::cpus::CpuId;
use cellbench_impls::heap::HeapStats;
use cellbench_record::{Round, Run, Series};
use hdrhistogram::Histogram;

/// A source of rounds.
pub trait Backend {
    /// One thing that this backend can measure.
    type Spec: Configuration;

    /// Returns how a session goes about the rounds of this backend.
    fn pace(&self) -> Pace;

    /// Measures what must be known before the first round; `time_budget` is what the session may take, or will
    /// take by its rounds and window.
    ///
    /// # Errors
    /// [`BackendError`] if nothing can be measured.
    fn prepare(&mut self, time_budget: Option<Duration>) -> Result<(), BackendError> {
        let _ = time_budget;
        Ok(())
    }

    /// Writes into `run` what is known of the host or machine so far. Called before
    /// [`prepare`](Self::prepare), after it, and at the end; `run.notes` is empty each time.
    fn describe(&self, run: &mut Run);

    /// Estimates what measuring `spec` takes, for the budget.
    fn cost(&self, spec: &Self::Spec, window: Duration) -> Duration;

    /// Measures each configuration of `batch` once, in windows of this length where the backend's
    /// windows are not its own. `seed` decides every random choice.
    ///
    /// # Errors
    /// [`BackendError`]; then nothing of the batch was measured.
    fn measure(
        &mut self,
        batch: &[&Self::Spec],
        window: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError>;

    /// Checks after each round what only a whole round shows.
    ///
    /// # Errors
    /// [`BackendError`] if the run is not to go on.
    fn end_round(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Properties that all kinds of configurations have.
pub trait Configuration {
    /// Returns the row of the table.
    fn series(&self) -> &Series;

    /// Returns the CPUs, one for each worker.
    fn cpus(&self) -> &[CpuId];
}

/// Order and size of the batches that a session asks a backend for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One at a time and in shuffled order: the host drifts, so what is compared runs close together
    /// and nothing always runs first.
    Interleaved,
    /// So many at a time, in the order of the plan and with one seed for a round: time does not
    /// matter.
    Batches(usize),
}

/// A configuration, measured once.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The line of the record, but for its number, position and start, which are the session's.
    pub round: Round,
    /// Whole distributions by operation; those of handlers as `operation@context`.
    pub latencies: Vec<(String, Histogram<u64>)>,
    /// Control blocks and commands that were handed out and returned, after the check.
    pub objects: HeapStats,
}

impl Measured {
    /// Returns a round without latencies and objects.
    #[must_use]
    pub fn of(round: Round) -> Self {
        Self { round, latencies: Vec::new(), objects: HeapStats { allocated: 0, freed: 0 } }
    }
}

/// A backend could not measure.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// One configuration cannot be measured; the others can. Only for batches of one.
    #[error("{what}: {reason}")]
    LeftOut {
        /// The configuration.
        what: String,
        /// Reason in one line.
        reason: String,
        /// Whether it can be in no later round either.
        for_good: bool,
    },
    /// Nothing more can be measured.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl BackendError {
    /// Wraps an error that ends the session.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}
