//! Writing a run so that whatever kills the process, what was finished stays readable.
//!
//! Whole files are written beside their place and renamed into it; rounds are appended a line at a
//! time with one system call each. Nothing of an earlier run is opened for writing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::latency::{self, Interval};
use crate::{Latency, Round, Run, Series, Summary, WriteError, rfc3339_utc};

/// A run being recorded.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    run: Run,
    rounds: File,
    line: Vec<u8>,
    /// The last append failed, perhaps half-way through its line.
    cut: bool,
}

impl RunWriter {
    /// Creates `<out>/<run-id>/` and writes its `run.json`.
    ///
    /// The run's id is its start time; a number is added if a run of that second exists.
    ///
    /// # Errors
    /// [`WriteError`] naming the file or directory.
    pub fn create(out: &Path, mut run: Run) -> Result<Self, WriteError> {
        fs::create_dir_all(out).map_err(|e| WriteError::io(out, "create the directory", e))?;
        let stamp: String =
            rfc3339_utc(run.started_unix_s).chars().filter(|c| !"-:".contains(*c)).collect();
        let dir = create_unique(out, &stamp)?;
        run.run_id = dir.file_name().map(|name| name.to_string_lossy().into()).unwrap_or(stamp);
        write_run(&dir.join("run.json"), &run)?;
        let path = dir.join("rounds.jsonl");
        let rounds = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .map_err(|e| WriteError::io(&path, "create it", e))?;
        Ok(Self { dir, run, rounds, line: Vec::new(), cut: false })
    }

    /// Points `<out>/latest` to this run: it is whole, and one that people ask for.
    ///
    /// # Errors
    /// [`WriteError`] naming the link; it is then as it was.
    pub fn point_latest(&self) -> Result<(), WriteError> {
        match self.dir.parent() {
            Some(out) => point_latest(out, &self.run.run_id),
            None => Ok(()),
        }
    }

    /// Returns the directory of the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the run as last saved.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Changes what is known of the run and writes `run.json` anew, the old one staying until the
    /// new one is whole. The run's id stays as it is.
    ///
    /// # Errors
    /// [`WriteError`] naming the file.
    pub fn update_run(&mut self, change: impl FnOnce(&mut Run)) -> Result<(), WriteError> {
        let run_id = self.run.run_id.clone();
        change(&mut self.run);
        self.run.run_id = run_id;
        write_run(&self.dir.join("run.json"), &self.run)
    }

    /// Appends a round; it is with the kernel when this returns, so that a killed run keeps it.
    ///
    /// # Errors
    /// [`WriteError`] naming the file. The round is then lost, earlier and later ones are not.
    pub fn append(&mut self, round: &Round) -> Result<(), WriteError> {
        let path = || self.dir.join("rounds.jsonl");
        self.line.clear();
        if self.cut {
            self.line.push(b'\n');
        }
        serde_json::to_writer(&mut self.line, round).map_err(|e| WriteError::encode(&path(), e))?;
        self.line.push(b'\n');
        let written = self.rounds.write_all(&self.line);
        self.cut = written.is_err();
        written.map_err(|e| WriteError::io(&path(), "append to it", e))
    }

    /// Appends a round with its latencies: the distributions to the log of its series, and their
    /// summaries to `round.latency`, where a summary that is there already stays.
    ///
    /// # Errors
    /// [`WriteError`] as those of [`Self::append`] and [`Self::append_latency`].
    pub fn append_measured(
        &mut self,
        round: &mut Round,
        latencies: &[(String, Histogram<u64>)],
    ) -> Result<(), WriteError> {
        let intervals: Vec<Interval> = latencies
            .iter()
            .map(|(op, histogram)| Interval {
                op: op.clone(),
                start_s: round.start_s,
                duration_s: round.duration_s,
                disturbed: !round.disturbed.is_empty(),
                histogram: histogram.clone(),
            })
            .collect();
        if !intervals.is_empty() {
            let hlog = self.append_latency(&round.series, &intervals)?;
            for (op, histogram) in latencies {
                let summary =
                    round.latency.entry(op.clone()).or_insert_with(|| Latency::of(histogram));
                summary.hlog = Some(hlog.clone());
            }
        }
        self.append(round)
    }

    /// Appends a round's latencies to the log of `series` and returns its path relative to
    /// [`Self::dir`], for [`Latency::hlog`](crate::Latency::hlog).
    ///
    /// # Errors
    /// [`WriteError`] naming the file; an operation name with comma, space or line end, or a time
    /// that is negative or not finite, is [`WriteError::Encode`].
    pub fn append_latency(
        &mut self,
        series: &Series,
        intervals: &[Interval],
    ) -> Result<String, WriteError> {
        let dir = self.dir.join("latency");
        fs::create_dir_all(&dir).map_err(|e| WriteError::io(&dir, "create the directory", e))?;
        let name = format!("latency/{}.hlog", series.file_stem());
        latency::append(&self.dir.join(&name), self.run.started_unix_s, intervals)?;
        Ok(name)
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// [`WriteError`] naming the file.
    pub fn write_summary(&self, summary: &Summary) -> Result<(), WriteError> {
        summary.write(&self.dir)
    }
}

impl Summary {
    /// Writes `summary.json` into the directory of a run, an entry a line, so that `grep` and
    /// `diff`
    /// are of use on it.
    ///
    /// # Errors
    /// [`WriteError`] naming the file.
    pub fn write(&self, run_dir: &Path) -> Result<(), WriteError> {
        let path = run_dir.join("summary.json");
        replace(&path, Durability::Remakeable, |file| {
            let mut serializer =
                serde_json::Serializer::with_formatter(&mut *file, LinePerEntry(0));
            self.serialize(&mut serializer)?;
            file.write_all(b"\n")
        })
    }
}

/// Writes a file beside its place and renames it into it: readers see the old or the new, whole.
/// For what can be made again: a power cut soon after may lose it.
///
/// # Errors
/// [`WriteError`] naming the file; the old one is then as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    replace(path, Durability::Remakeable, |file| file.write_all(bytes))
}

/// Whether a file must outlive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// It cannot be made again.
    Unique,
    /// It is made from other files.
    Remakeable,
}

fn replace(
    path: &Path,
    durability: Durability,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), WriteError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush()?;
        if durability == Durability::Unique {
            file.get_ref().sync_data()?; // else the rename can reach the disk before the content
        }
        fs::rename(&temporary, path)
    });
    written.map_err(|e| {
        // The error that matters is `e`; a temporary file that cannot be removed only costs space.
        let _ = fs::remove_file(&temporary);
        WriteError::io(path, "write it", e)
    })
}

fn write_run(path: &Path, run: &Run) -> Result<(), WriteError> {
    replace(path, Durability::Unique, |file| {
        serde_json::to_writer_pretty(&mut *file, run)?;
        file.write_all(b"\n")
    })
}

/// Compact JSON, but every field of the outermost object and every element of an array in it on its
/// own line. Holds the depth of nesting.
struct LinePerEntry(u32);

impl Formatter for LinePerEntry {
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 -= 1;
        writer.write_all(if self.0 == 0 { b"\n}" } else { b"}" })
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        separate(writer, first, self.0 == 1)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 += 1;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 -= 1;
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        separate(writer, first, self.0 == 2)
    }
}

fn separate<W: ?Sized + Write>(writer: &mut W, first: bool, line: bool) -> io::Result<()> {
    writer.write_all(match (first, line) {
        (true, true) => b"\n",
        (true, false) => b"",
        (false, true) => b",\n",
        (false, false) => b",",
    })
}

fn create_unique(out: &Path, stamp: &str) -> Result<PathBuf, WriteError> {
    let mut dir = out.join(stamp);
    let mut number = 1;
    loop {
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                number += 1;
                dir = out.join(format!("{stamp}-{number}"));
            }
            Err(e) => return Err(WriteError::io(&dir, "create the directory", e)),
        }
    }
}

/// Replaces `<out>/latest` by rename, so that it points somewhere at every moment.
fn point_latest(out: &Path, run_id: &str) -> Result<(), WriteError> {
    let latest = out.join("latest");
    let temporary = out.join(format!(".latest.{}.{run_id}", std::process::id()));
    symlink(run_id, &temporary).and_then(|()| fs::rename(&temporary, &latest)).map_err(|e| {
        let _ = fs::remove_file(&temporary); // as in write_atomically
        WriteError::io(&latest, "point it to the new run", e)
    })
}
