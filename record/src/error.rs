//! Errors of the files, each named so that the user can act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::{SCHEMA, SchemaVersion};

/// A record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file system is full, or a quota is used up.
    #[error("{}: no space left on the device; free some, or choose another directory with --out", .path.display())]
    DiskFull {
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
    /// A value that the format cannot hold.
    #[error("{}: cannot encode: {reason}", .path.display())]
    Encode {
        /// File that was being written.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl WriteError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, action, source },
        }
    }

    pub(crate) fn encode(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Encode { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// A run could not be read at all. Damage within a file is a [`Damage`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing of a run at this place.
    #[error("{}: not a run: neither run.json nor rounds.jsonl is there; give a run's directory, such as target/cellbench/latest", .path.display())]
    NotARun {
        /// Place that was looked at.
        path: PathBuf,
    },
    /// Written by a newer tool whose fields may mean something else.
    #[error("{}: written in schema {found}, this tool reads up to {}.x; use the newer cellbench", .path.display(), SCHEMA.major)]
    NewerSchema {
        /// Path of the file.
        path: PathBuf,
        /// Version in the file.
        found: SchemaVersion,
    },
    /// The system refused.
    #[error("{}: cannot read: {source}", .path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that cannot be used in part is not whole.
    #[error("{damage}")]
    Damaged {
        /// Where and what.
        damage: Damage,
    },
}

impl ReadError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// A part of a file that could not be used, and was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Path of the file.
    pub path: PathBuf,
    /// Line, from 1; none if the file as a whole is meant.
    pub line: Option<u64>,
    /// Description of the damage.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.what),
            None => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}
