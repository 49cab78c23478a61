//! Verdicts and reports from the records of a run. Reads records; measures nothing.
//!
//! # For a runner
//!
//! ```no_run
//! use cellbench_plots::{Decision, Options, Table, write_all};
//! # fn measure(number: u32) -> Vec<cellbench_record::Round> { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut writer: cellbench_record::RunWriter = unimplemented!();
//! let mut table = Table::new(Options::of(writer.run()));
//! for number in 0.. {
//!     for round in measure(number) {
//!         writer.append(&round)?;
//!         table.push(&round);
//!     }
//!     match table.decision() {
//!         Decision::Enough => break,
//!         Decision::More(rounds) => println!("about {rounds} more rounds"),
//!     }
//! }
//! let written = write_all(writer.dir())?;
//! print!("{}", cellbench_plots::report::terminal(&written.loaded.report(), false));
//! # Ok(()) }
//! ```
//!
//! # For a reader
//!
//! [`summarise`] gives the numbers, [`write_all`] makes every report of a run again from its records
//! alone, [`compare()`] sets two runs against each other, [`over_builds`] compares cells over several
//! builds, [`merge()`] makes one run of several
//! hosts, and [`pack()`] one file of a run. Formats are in [`report`], statistics in [`stats`].

pub mod builds;
pub mod chart;
pub mod compare;
pub mod designs;
pub mod hosts;
pub mod merge;
pub mod number;
pub mod options;
pub mod overview;
pub mod pack;
pub mod report;
pub mod run;
mod summarise;
mod table;

pub use builds::over_builds;
pub use cellbench_stats as stats;
pub use compare::compare;
pub use merge::merge;
pub use options::Options;
pub use pack::pack;
pub use report::{write_all, write_formats};
pub use run::{Loaded, Report};
pub use summarise::summarise;
pub use table::{Decision, Table};
