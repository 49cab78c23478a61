//! `hosts.jsonl` of a merged run: what grows with the square of a host's CPUs, a line for each host.
//!
//! A run of 128 CPUs holds 16,000 latencies between them for each method; thousands of hosts with
//! theirs fit no memory. `run.json` has the hosts without; whoever draws a matrix reads the lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use cellbench_record::{CoreMatrix, CpuPlace, Damage, ReadError, Run, WriteError};
use serde::{Deserialize, Serialize};

/// Name of the file in a merged run.
pub const NAME: &str = "hosts.jsonl";

/// The large parts of a host's run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Label of the host.
    pub host: String,
    /// Place of each CPU.
    pub cpus: Vec<CpuPlace>,
    /// Core-to-core latency, a matrix for each method.
    pub core_to_core: Vec<CoreMatrix>,
}

impl Details {
    /// Takes the large parts out of the run of host `host`; none if it has none.
    pub(super) fn take(host: &str, run: &mut Run) -> Option<Self> {
        let cpus = std::mem::take(&mut run.host.topology.cpus);
        let core_to_core = std::mem::take(&mut run.calibration.core_to_core);
        let is_empty = cpus.is_empty() && core_to_core.is_empty();
        (!is_empty).then(|| Self { host: host.to_owned(), cpus, core_to_core })
    }
}

/// Writes `hosts.jsonl`.
#[derive(Debug)]
pub(super) struct DetailsWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl DetailsWriter {
    pub(super) fn create(dir: &Path) -> Result<Self, WriteError> {
        let path = dir.join(NAME);
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file: BufWriter::new(file) }),
            Err(error) => Err(failed(&path, error)),
        }
    }

    pub(super) fn append(&mut self, details: &Details) -> Result<(), WriteError> {
        let mut line = serde_json::to_vec(details).map_err(|error| WriteError::Encode {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| failed(&self.path, error))
    }

    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        self.file.flush().map_err(|error| failed(&self.path, error))
    }
}

fn failed(path: &Path, source: io::Error) -> WriteError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::DiskFull { path },
        _ => WriteError::Io { path, action: "write it", source },
    }
}

/// Returns the large parts of the hosts of the run in `dir`, one after the other; nothing for a run
/// that is not merged.
///
/// # Errors
/// [`ReadError::Io`] if the file is there but cannot be opened.
pub fn read(dir: &Path) -> Result<impl Iterator<Item = Result<Details, Damage>>, ReadError> {
    let path = dir.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(ReadError::Io { path, source }),
    };
    let lines = file.into_iter().flat_map(|file| file.split(b'\n'));
    let mut has_failed = false;
    // A read that failed once fails for ever.
    let lines = lines.take_while(move |line| !std::mem::replace(&mut has_failed, line.is_err()));
    Ok(lines.zip(1..).map(move |(line, number)| {
        let damaged = |what| Damage { path: path.clone(), line: Some(number), what };
        let line = line.map_err(|error| damaged(error.to_string()))?;
        serde_json::from_slice(&line).map_err(|error| damaged(format!("not a host: {error}")))
    }))
}
