//! Workloads: operations of the CPUs on the cells, and the checks that must hold afterwards.
//!
//! A [`Workload`] builds a [`Trial`]: one design of the cell, its programs and maps, on a fresh
//! machine, ready for a number of workers. Whoever measures (a runner on real cores, the
//! simulator) calls [`Trial::batch`] from each worker until time is up, and then [`Trial::check`]:
//! workloads are tests, a fast wrong cell is an error and not a result.
//!
//! What may not be done here: no measuring, no threads, no clock.
//!
//! A new workload is one file and one line in [`registry`].

mod cells;
pub mod field;
mod locks;
pub mod params;
pub mod primitives;
pub mod registry;
mod stall;
pub mod stepping;
pub mod tally;
pub mod trial;
mod unexpected;
pub mod worker;
pub mod zipf;

pub use params::Params;
pub use tally::{Op, Tally};
pub use trial::{EngineNeed, Needs, Serves, Subject, Trial, Violation, Workload};
pub use worker::Worker;
