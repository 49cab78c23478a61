//! The ground everything else stands on: what a run leaves on disk, and how it is read back.
//!
//! Measuring and reporting meet only in these files, so that a run can be killed at any point,
//! reported again, merged and compared without measuring. Nothing here measures or computes.
//!
//! ```text
//! <out>/<run-id>/run.json       one [`Run`]: tool, host, findings, calibration, settings
//!                rounds.jsonl   one [`Round`] a line: a cell on a workload in one round
//!                summary.json   one [`Summary`]: what the reports are made from, for programs
//!                latency/*.hlog HdrHistogram interval logs, one interval per round and operation
//!                report/        made from the above, never read back
//! <out>/latest                  symbolic link to the newest run that ended
//! ```
//!
//! # Writing
//!
//! ```
//! use cellbench_record::{Kind, Round, Run, RunReader, RunWriter, Series, Source, OK};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let out = tempfile::tempdir()?;
//! let mut run = Run::new("0.1.0", 42);
//! run.baseline = "spin-queued".into();
//! let mut writer = RunWriter::create(out.path(), run)?;
//! let series = Series::new("cmpxchg-state", Kind::Timer, "update", 2, "compact", Source::Model);
//! let mut round = Round::new(series, 0, 0.25);
//! round.count("set_callback", OK, 1_000_000);
//! round.count("set_callback", "EBUSY", 20_000);
//! writer.append(&round)?; // on its way to the disk when this returns
//! let dir = writer.dir().to_owned();
//! # drop(writer);
//!
//! let mut reader = RunReader::open(&dir)?;
//! let rounds: Vec<Round> = reader.rounds()?.filter_map(Result::ok).collect();
//! assert_eq!(rounds[0].goodput_ops_s(), Some(4_000_000.0));
//! # Ok(()) }
//! ```
//!
//! # Versions
//!
//! [`SCHEMA`] is `major.minor`. A minor step adds fields: an older reader keeps what it does not know
//! in the `extra` maps and a newer one takes the absent as unknown. A major step changes a meaning:
//! [`RunReader::open`] refuses it with [`ReadError::NewerSchema`]. Version 1.0 kept some fields under other names, without
//! declaring them; [`Round`] reads these names too. Units stand in field names
//! (`_ns`, `_s`, `_ops_s`, `_bytes`, `_share` for 0 to 1, `_percent` for 0 to 100).

mod coherence;
mod error;
mod host;
mod latency;
mod named;
mod reader;
mod round;
mod run;
mod schema;
mod summary;
mod writer;

pub use coherence::{Coherence, FalseSharing, FieldPlace, FieldTraffic, LineTraffic};
pub use error::{Damage, ReadError, WriteError};
pub use host::{CpuPlace, Finding, Host, Severity, Spinlocks, Topology};
pub use latency::{Interval, latency_log, pack_histogram, read_latency_log, unpack_histogram};
pub use named::Named;
pub use reader::{Rounds, RunReader};
pub use round::{ContextOps, Counter, Invariants, Latency, OK, OutcomeCounts, Round, ThreadCount};
pub use run::{
    AaCheck, Calibration, ChargeCheck, Charges, CoreMatrix, Design, PlantedCheck, PooledLatency,
    Run, SelfTest, Settings, ShardOf, SimulationSpeed, Verification, rfc3339_utc,
};
pub use schema::{Kind, SCHEMA, SchemaVersion, Series, Source};
pub use summary::{Entry, Scaling, Summary, Verdict};
pub use writer::{RunWriter, write_atomically};

/// Fields of a newer writer, kept so that nothing is lost when a file is read and written again.
pub type Extra = serde_json::Map<String, serde_json::Value>;
