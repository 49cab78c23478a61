//! A run as one file to hand on: records and host, without what is personal.
//!
//! The file is a gzipped tar of `run.json`, `rounds.jsonl` and, of a merged run, `hosts.jsonl`, with
//! nothing of whoever packed it: no owner, no time. The run is reduced as a kept one is. Free text (the
//! command, notes, findings) loses paths and whatever words the caller calls private; fields that this
//! version does not know are left out, since nobody can say what is in them. The host's name goes too,
//! unless the user gives the run a label.

mod archive;
mod private;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{Run, RunReader, Severity, WriteError, rfc3339_utc, write_atomically};

use crate::merge::details;
use crate::number;
use crate::report::{KeptError, ReportError, host_lines, keep};
use crate::run::{Loaded, Report};

pub use archive::{PackError, is_packed, unpack, unpack_head};
pub use private::{Private, without_private};

/// Ending of the names of packed runs.
pub const ENDING: &str = "cellbench";

/// A run ready to be written as one file.
#[derive(Debug)]
pub struct Packed {
    /// Everything that is in it, in lines for people.
    pub contents: String,
    bytes: Vec<u8>,
}

/// Packs the run in directory `run`. Its host is called `label`; without one, by its CPU model.
///
/// # Errors
/// [`KeptError`] if the run cannot be read whole, or there is no room to prepare it.
pub fn pack(run: &Path, label: Option<&str>, private: &Private) -> Result<Packed, KeptError> {
    let io = |path: &Path, action| {
        let path = path.to_owned();
        move |source| WriteError::Io { path, action, source }
    };
    let scratch = tempfile::tempdir().map_err(io(&std::env::temp_dir(), "make a directory"))?;
    let dir = scratch.path();
    keep(run, dir)?;
    let mut kept = RunReader::open(dir)?.run().clone();
    without_private(&mut kept, private);
    // A label is the user's word; a host's name is not for others to know.
    kept.host.name = label.map(str::to_owned);
    let path = dir.join("run.json");
    let encoded = serde_json::to_vec_pretty::<Run>(&kept)
        .map_err(|error| WriteError::Encode { path: path.clone(), reason: error.to_string() })?;
    write_atomically(&path, &encoded)?;
    let source = RunReader::open(run)?;
    let details = source.dir().join(details::NAME);
    if details.is_file() {
        let copy = dir.join(details::NAME);
        fs::copy(&details, &copy).map_err(io(&copy, "copy it"))?;
    }
    let files = archive::FILES.iter().filter(|name| dir.join(name).is_file()).copied();
    let files: Vec<&str> = files.collect();
    let bytes = archive::write(dir, &files).map_err(io(dir, "pack it"))?;
    let loaded = Loaded::read(dir, |_| ())?;
    let contents = contents(&loaded.report(), dir, &files, bytes.len())?;
    Ok(Packed { contents, bytes })
}

impl Packed {
    /// Writes the file.
    ///
    /// # Errors
    /// [`WriteError`] naming the file.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        write_atomically(path, &self.bytes)
    }
}

/// Returns the name of a packed run beside which no other run of the host has the same.
#[must_use]
pub fn file_name(run: &Path) -> Option<PathBuf> {
    let name = fs::canonicalize(run).ok()?.file_name()?.to_string_lossy().into_owned();
    Some(format!("{name}.{ENDING}").into())
}

/// Returns what stands in the file, all free text word for word.
fn contents(
    report: &Report<'_>,
    dir: &Path,
    files: &[&str],
    packed: usize,
) -> Result<String, KeptError> {
    let (run, summary) = (report.run, report.summary);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<9} {value}");
    };
    let rounds: u64 = summary.entries.iter().map(|entry| u64::from(entry.rounds)).sum();
    let rows = number::count(summary.entries.len() as u64, "row");
    line("run", &format!("{}, {rows} with {}", run.run_id, number::count(rounds, "round")));
    for part in std::iter::once(run).filter(|_| run.merged_from.is_empty()).chain(&run.merged_from)
    {
        let label = part.host_label.as_deref().or(part.host.name.as_deref());
        line("host", label.unwrap_or("without a name"));
        for about in host_lines(&part.host) {
            line("", &about);
        }
        let revision = part.git_revision.as_deref().unwrap_or("unknown revision");
        let when = rfc3339_utc(part.started_unix_s);
        line("", &format!("cellbench {} ({revision}), {when}", part.tool_version));
        line("command", &part.command_line);
        let warnings = part.findings.iter().filter(|it| it.severity >= Severity::Warning);
        for finding in warnings {
            line("finding", &finding.text);
        }
        for note in &part.notes {
            line("note", note);
        }
    }
    line("left out", "host name, user name, paths, latency logs, unknown fields");
    for name in files {
        let bytes = fs::metadata(dir.join(name)).map_or(0, |found| found.len());
        line("file", &format!("{name}, {}", number::bytes(bytes)));
    }
    line("packed", &number::bytes(packed as u64));
    Ok(text)
}

impl From<PackError> for ReportError {
    fn from(error: PackError) -> Self {
        Self::Request(error.to_string())
    }
}
