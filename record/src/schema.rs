//! The names by which rounds and entries are matched, and the version of the files.
//!
//! Kept apart from the files themselves because every file uses them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version of the files this crate writes.
pub const SCHEMA: SchemaVersion = SchemaVersion { major: 1, minor: 1 };

/// Version of the record files, written as `"major.minor"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaVersion {
    /// Rises when a field changes its meaning or goes away.
    pub major: u32,
    /// Rises when fields are added.
    pub minor: u32,
}

impl SchemaVersion {
    /// Returns whether this crate may read files of version `self`: same or older major, any minor.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.major <= SCHEMA.major
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for SchemaVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('.')
            .and_then(|(major, minor)| {
                Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
            })
            .ok_or_else(|| format!("schema version {text:?} is not of the form \"1.0\""))
    }
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Kind of the measured thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A `bpf_timer` cell.
    Timer,
    /// A `bpf_wq` cell.
    Wq,
    /// A `bpf_task_work` cell.
    TaskWork,
    /// A lock alone.
    Lock,
    /// An operation on shared lines.
    Primitive,
    /// A kind that a newer writer knows.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timer => "timer",
            Self::Wq => "wq",
            Self::TaskWork => "task_work",
            Self::Lock => "lock",
            Self::Primitive => "primitive",
            Self::Other(name) => name,
        })
    }
}

/// Which world a number comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The user-space model on real cores.
    Model,
    /// The coherence simulator; times are simulated.
    Sim,
    /// The running kernel's own cells.
    Kernel,
    /// A source that a newer writer knows.
    #[serde(untagged)]
    Other(String),
}

impl Source {
    /// Returns whether numbers depend on the state of a host, and not on a simulated machine alone.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        matches!(self, Self::Model | Self::Kernel)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Sim => "sim",
            Self::Kernel => "kernel",
            Self::Other(name) => name,
        })
    }
}

/// Key shared by all rounds of one row of the table: the measured configuration.
///
/// Flattened into [`Round`](crate::Round) and [`Entry`](crate::Entry), so that a line of JSON reads
/// `{"cell": ..., "kind": ..., ...}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// Host of a merged run, by the label that `merge` gave it; none in a run of one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Model, simulator or kernel.
    pub source: Source,
    /// Simulated machine, or what runs the kernel of a virtual machine; none on the host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Timer, work queue, task work or lock.
    pub kind: Kind,
    /// Workload, by its name in `cellbench list`.
    pub workload: String,
    /// Engine that arms and runs callbacks: `count`, `live`, `sim`; empty where nothing is armed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine: String,
    /// Placement of the threads: `compact`, `spread`, `smt`.
    pub placement: String,
    /// Open loop: rate at which operations were due, over all threads. None in closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_ops_s: Option<u64>,
    /// Worker threads, one per CPU.
    pub threads: u32,
    /// Cell or lock, by its name in reports.
    pub cell: String,
}

impl Series {
    /// Returns a closed-loop series on the host that runs the tool, without an engine.
    #[must_use]
    pub fn new(
        cell: impl Into<String>,
        kind: Kind,
        workload: impl Into<String>,
        threads: u32,
        placement: impl Into<String>,
        source: Source,
    ) -> Self {
        Self {
            host: None,
            source,
            machine: None,
            kind,
            workload: workload.into(),
            engine: String::new(),
            placement: placement.into(),
            offered_ops_s: None,
            threads,
            cell: cell.into(),
        }
    }

    /// Returns the same conditions with another cell: the row that `self` is compared to.
    #[must_use]
    pub fn with_cell(&self, cell: &str) -> Self {
        Self { cell: cell.to_owned(), ..self.clone() }
    }

    /// Returns a name for files: the parts joined by `_`, other characters than letters, digits,
    /// `.`, `+`
    /// and `-` replaced by `-`.
    #[must_use]
    pub fn file_stem(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.host.clone());
        parts.push(self.source.to_string());
        parts.extend(self.machine.clone());
        parts.push(self.kind.to_string());
        parts.push(self.workload.clone());
        if !self.engine.is_empty() {
            parts.push(self.engine.clone());
        }
        parts.push(self.placement.clone());
        parts.extend(self.offered_ops_s.map(|rate| format!("{rate}ops")));
        parts.push(format!("{}t", self.threads));
        parts.push(self.cell.clone());
        parts
            .join("_")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '-' })
            .collect()
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}: ")?;
        }
        write!(f, "{} {} {}", self.cell, self.kind, self.workload)?;
        if !self.engine.is_empty() {
            write!(f, " ({})", self.engine)?;
        }
        write!(f, " x{} {}", self.threads, self.placement)?;
        if let Some(rate) = self.offered_ops_s {
            write!(f, " at {rate} ops/s")?;
        }
        if self.source != Source::Model {
            write!(f, " [{}]", self.source)?;
        }
        if let Some(machine) = &self.machine {
            write!(f, " on {machine}")?;
        }
        Ok(())
    }
}
