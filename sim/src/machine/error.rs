//! Errors of a machine file, each in one line.

use std::io;

/// An error in a machine file.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No built-in machine of that name.
    #[error(
        "no simulated machine named `{name}`: choose one of {known}, or give the path of a machine file"
    )]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read machine file {file}: {source}: check the path and its permissions")]
    Read {
        /// Path of the file.
        file: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file is not TOML, or not of this schema.
    #[error("{file}:{line}: {problem}: correct the line (machine::MachineModel lists the fields)")]
    Parse {
        /// Path of the file.
        file: String,
        /// Line the problem was found in, counted from 1.
        line: usize,
        /// The message of the parser, in one line.
        problem: String,
    },
    /// A field has a value that no machine can have.
    #[error("{file}: field `{field}` {problem}: {advice}")]
    Field {
        /// Path of the file.
        file: String,
        /// The field, as a path through the tables.
        field: String,
        /// The fault of its value.
        problem: String,
        /// The remedy.
        advice: String,
    },
}

impl MachineError {
    pub(super) fn parse(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        Self::Parse {
            file: file.to_owned(),
            line: 1 + text.as_bytes()[..before].iter().filter(|&&byte| byte == b'\n').count(),
            problem: error.message().replace('\n', " "),
        }
    }
}
