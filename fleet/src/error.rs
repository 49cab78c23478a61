//! Errors of a fleet, each in one line that says where and how to go on.

use std::io;
use std::path::{Path, PathBuf};

use cellbench_plots::report::ReportError;
use cellbench_record::{ReadError, WriteError};

/// A command on a fleet ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A plan that says what cannot be done.
    #[error("{}: {what}", .path.display())]
    Plan {
        /// Path of the plan.
        path: PathBuf,
        /// Where in it and what.
        what: String,
    },
    /// The shared storage is full, or a quota is used up.
    #[error("{}: no space left on the shared storage; free some, then `cellbench fleet resume`", .path.display())]
    StorageFull {
        /// File that was being written.
        path: PathBuf,
    },
    /// Any other refusal by the system.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Action that was refused, as a verb with its object.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A command of Slurm is missing or refused.
    #[error("{0}")]
    Slurm(String),
    /// Something about the tasks forbids what was asked for.
    #[error("{0}")]
    Refused(String),
    /// Runs could not be merged or reported.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl FleetError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull { path },
            _ => Self::Io { path, action, source },
        }
    }
}

impl From<ReadError> for FleetError {
    fn from(error: ReadError) -> Self {
        Self::Report(error.into())
    }
}

impl From<WriteError> for FleetError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::DiskFull { path } => Self::StorageFull { path },
            other => Self::Report(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_storage_is_named_whoever_met_it() {
        let path = Path::new("/shared/fleet.json");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let text = FleetError::io(path, "write it", full()).to_string();
        assert!(text.contains("/shared/fleet.json: no space left"), "{text}");
        let error = FleetError::from(WriteError::DiskFull { path: path.to_owned() });
        assert_eq!(error.to_string(), text);
    }
}
