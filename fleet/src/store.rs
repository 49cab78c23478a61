//! The fleet's directory on shared storage: its tasks, and when each is complete.
//!
//! A task is complete if and only if one of its attempts has the file `complete.json`, which is
//! renamed into its place after everything else is on disk. An attempt begins with the file
//! `incomplete`, which says why it is that; it is written first, with room for the reason, so that a
//! reason can be noted when the storage is full. Where there is no room even for that file, its name
//! becomes `no-space`. Whatever ends an attempt in between leaves it incomplete, and nothing of it is
//! read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cellbench_record::write_atomically;
use serde::{Deserialize, Serialize};

use crate::{FleetError, Job, Task, Tool};

/// Version of `fleet.json` and of the markers.
const VERSION: u32 = 1;
/// Room for the reason why an attempt is incomplete.
const REASON_BYTES: usize = 2048;
/// The reason until there is another.
const NOT_ENDED: &str = "began and did not end";
/// Name of a marker that found no room for its text.
const NO_SPACE: &str = "no-space";
/// The reason of an attempt with that marker.
const STORAGE_FULL: &str = "no space left on the shared storage, not even to begin";

/// Description of what was submitted. Written before anything is submitted, and never changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fleet {
    /// Version of this file.
    pub version: u32,
    /// Name by which the scheduler's jobs are found: no two fleets have the same.
    pub id: String,
    /// The `cellbench` that every task must be run with.
    pub tool: Tool,
    /// Start of the first submission, seconds since 1970 UTC.
    pub began_unix_s: u64,
    /// All tasks, by their number.
    pub tasks: Vec<Task>,
    /// All jobs.
    pub jobs: Vec<Job>,
}

impl Fleet {
    /// Describes a fleet that is submitted now.
    #[must_use]
    pub fn new(tool: Tool, tasks: Vec<Task>, jobs: Vec<Job>) -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let id = format!("cellbench-{:x}-{:x}", now.as_nanos() as u64, std::process::id());
        Self { version: VERSION, id, tool, began_unix_s: now.as_secs(), tasks, jobs }
    }

    /// Returns the name of a job in the scheduler.
    #[must_use]
    pub fn job_name(&self, job: usize) -> String {
        format!("{}.{job}", self.id)
    }
}

/// The marker of a complete attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// Version of this file.
    pub version: u32,
    /// Directory of the run, within the attempt's.
    pub run: String,
    /// The `cellbench` that ran.
    pub tool: Tool,
    /// The node, as the scheduler names it.
    pub node: String,
    /// Start of the attempt, seconds since 1970 UTC.
    pub began_unix_s: u64,
    /// End of it.
    pub ended_unix_s: u64,
    /// Length of `rounds.jsonl`: a file that is shorter or longer is not the one that was written.
    pub rounds_bytes: u64,
    /// Whether an invariant broke: the run is whole, and the cell is wrong.
    pub violations: bool,
}

/// One time that a task was begun.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its directory.
    pub dir: PathBuf,
    /// Outcome of the attempt.
    pub outcome: Outcome,
}

/// Outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is there.
    Complete(Complete),
    /// Nothing was measured, since the host is unfit; why.
    Unfit(String),
    /// Running, or ended on the way; why, as far as it is known.
    Incomplete(String),
}

/// First word of the reason of an attempt on an unfit host.
const UNFIT: &str = "unfit: ";

/// The directory of a fleet.
#[derive(Clone, Debug)]
pub struct Store {
    /// Absolute path.
    pub dir: PathBuf,
    /// Description of what was submitted.
    pub fleet: Fleet,
}

impl Store {
    /// Opens the fleet in directory `dir`.
    ///
    /// # Errors
    /// [`FleetError::Refused`] if there is none, or one of another version.
    pub fn open(dir: &Path) -> Result<Self, FleetError> {
        let path = dir.join("fleet.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let what =
                    "no fleet here: give the directory that `cellbench fleet submit` printed";
                return Err(FleetError::Refused(format!("{}: {what}", dir.display())));
            }
            Err(e) => return Err(FleetError::io(&path, "read it", e)),
        };
        let wrong = |what| FleetError::Refused(format!("{}: {what}", path.display()));
        let fleet: Fleet = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if fleet.version != VERSION {
            let found = fleet.version;
            return Err(wrong(format!("version {found}; this tool reads {VERSION}")));
        }
        let dir = fs::canonicalize(dir).map_err(|e| FleetError::io(dir, "find it", e))?;
        Ok(Self { dir, fleet })
    }

    /// Writes `fleet.json`, with which the directory becomes a fleet's.
    ///
    /// # Errors
    /// [`FleetError`] naming the file.
    pub fn create(dir: &Path, fleet: Fleet) -> Result<Self, FleetError> {
        let bytes = serde_json::to_vec_pretty(&fleet)
            .map_err(|e| FleetError::Refused(format!("fleet.json: {e}")))?;
        write_atomically(&dir.join("fleet.json"), &bytes)?;
        Self::open(dir)
    }

    /// Takes the fleet for one command at a time; the lock goes with the returned file.
    ///
    /// # Errors
    /// [`FleetError::Refused`] if another command has it.
    pub fn lock(dir: &Path) -> Result<File, FleetError> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| FleetError::io(&path, "create it", e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(FleetError::Refused(format!(
                "{}: another `cellbench fleet` is at work on it; wait for its end",
                dir.display()
            ))),
            Err(fs::TryLockError::Error(e)) => Err(FleetError::io(&path, "lock it", e)),
        }
    }

    /// Returns the directory of a task.
    #[must_use]
    pub fn task_dir(&self, number: u32) -> PathBuf {
        self.dir.join(format!("tasks/{number:04}"))
    }

    /// Returns the attempts of a task, in the order of their names.
    ///
    /// # Errors
    /// [`FleetError::Io`] if a directory cannot be read.
    pub fn attempts(&self, number: u32) -> Result<Vec<Attempt>, FleetError> {
        let dir = self.task_dir(number);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(FleetError::io(&dir, "read it", e)),
        };
        let mut dirs = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| FleetError::io(&dir, "read it", e))?.path();
            if path.is_dir() {
                dirs.push(path);
            }
        }
        dirs.sort();
        Ok(dirs.into_iter().map(|dir| Attempt { outcome: outcome(&dir), dir }).collect())
    }

    /// Returns the one attempt of a task that counts: of several complete ones the first by name.
    ///
    /// # Errors
    /// As [`Self::attempts`].
    pub fn complete(&self, number: u32) -> Result<Option<(PathBuf, Complete)>, FleetError> {
        let attempts = self.attempts(number)?;
        Ok(attempts.into_iter().find_map(|attempt| match attempt.outcome {
            Outcome::Complete(complete) => Some((attempt.dir, complete)),
            _ => None,
        }))
    }

    /// Begins an attempt: a new directory that is marked incomplete.
    ///
    /// # Errors
    /// [`FleetError`] naming the directory.
    pub fn begin(&self, number: u32, name: &str) -> Result<PathBuf, FleetError> {
        let task = self.task_dir(number);
        fs::create_dir_all(&task).map_err(|e| FleetError::io(&task, "create the directory", e))?;
        let mut dir = task.join(name);
        let mut again = 1;
        loop {
            match fs::create_dir(&dir) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    again += 1;
                    dir = task.join(format!("{name}-{again}"));
                }
                Err(e) => return Err(FleetError::io(&dir, "create the directory", e)),
            }
        }
        mark_begun(&dir)?;
        Ok(dir)
    }
}

/// Writes the first marker of an attempt, or leaves its name as a sign that there was no room for it.
fn mark_begun(attempt: &Path) -> Result<(), FleetError> {
    let marker = attempt.join("incomplete");
    let written = fs::write(&marker, padded(NOT_ENDED));
    let written = written.map_err(|e| FleetError::io(&marker, "write it", e));
    if matches!(written, Err(FleetError::StorageFull { .. })) {
        // A name needs no room beside the one it had. If it does, the task's log has the error.
        let _ = fs::rename(&marker, attempt.join(NO_SPACE));
    }
    written
}

/// Notes why an attempt is incomplete, in the room that there is.
///
/// # Errors
/// [`FleetError::Io`] if even that cannot be written.
pub fn note_incomplete(attempt: &Path, reason: &str) -> Result<(), FleetError> {
    let path = attempt.join("incomplete");
    let write = || {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.write_all(&padded(reason))
    };
    write().map_err(|e| FleetError::io(&path, "write it", e))
}

/// Notes that the host of an attempt is unfit.
///
/// # Errors
/// As [`note_incomplete`].
pub fn note_unfit(attempt: &Path, reason: &str) -> Result<(), FleetError> {
    note_incomplete(attempt, &format!("{UNFIT}{reason}"))
}

/// Marks an attempt complete. What the marker speaks of must be on disk.
///
/// # Errors
/// [`FleetError`]; the attempt is then still incomplete.
pub fn mark_complete(attempt: &Path, complete: &Complete) -> Result<(), FleetError> {
    let path = attempt.join("complete.json");
    let temporary = attempt.join("complete.json.tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut file, complete)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(attempt)?.sync_all()
    };
    write().map_err(|e| FleetError::io(&path, "write it", e))?;
    // With both files the attempt is complete; the other one would only puzzle whoever looks.
    let _ = fs::remove_file(attempt.join("incomplete"));
    Ok(())
}

/// Describes a complete attempt.
#[must_use]
pub fn completed(tool: Tool, node: String, began_unix_s: u64, run: String) -> Complete {
    let ended_unix_s = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let (rounds_bytes, violations) = (0, false);
    let version = VERSION;
    Complete { version, run, tool, node, began_unix_s, ended_unix_s, rounds_bytes, violations }
}

fn outcome(dir: &Path) -> Outcome {
    match fs::read(dir.join("complete.json")) {
        Ok(bytes) => match serde_json::from_slice::<Complete>(&bytes) {
            Ok(complete) if complete.version == VERSION => return Outcome::Complete(complete),
            Ok(complete) => {
                let what = format!("complete.json is of version {}", complete.version);
                return Outcome::Incomplete(what);
            }
            Err(e) => return Outcome::Incomplete(format!("complete.json: {e}")),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Outcome::Incomplete(format!("complete.json: {e}")),
    }
    if dir.join(NO_SPACE).exists() {
        return Outcome::Incomplete(STORAGE_FULL.to_owned());
    }
    let mut text = String::new();
    let read =
        File::open(dir.join("incomplete")).and_then(|mut file| file.read_to_string(&mut text));
    let reason = match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => NOT_ENDED.to_owned(),
    };
    match reason.strip_prefix(UNFIT) {
        Some(why) => Outcome::Unfit(why.to_owned()),
        None => Outcome::Incomplete(reason),
    }
}

/// Returns a reason in a file of always the same size: one line, then spaces.
fn padded(reason: &str) -> Vec<u8> {
    let mut line: String = reason
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    while line.len() >= REASON_BYTES {
        line.pop();
    }
    let mut bytes = line.into_bytes();
    bytes.push(b'\n');
    bytes.resize(REASON_BYTES, b' ');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool() -> Tool {
        Tool {
            version: "1".into(),
            revision: None,
            architecture: "x86_64".into(),
            build: "0".into(),
        }
    }

    fn store(dir: &Path) -> Store {
        Store::create(dir, Fleet::new(tool(), Vec::new(), Vec::new())).unwrap()
    }

    #[test]
    fn an_attempt_is_incomplete_until_its_marker_is_whole() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        let attempt = store.begin(3, "7_0").unwrap();
        let outcome = || store.attempts(3).unwrap().remove(0).outcome;
        assert_eq!(outcome(), Outcome::Incomplete(NOT_ENDED.into()));
        note_incomplete(&attempt, "killed\n by signal 9").unwrap();
        assert_eq!(outcome(), Outcome::Incomplete("killed; by signal 9".into()));
        note_unfit(&attempt, "busy").unwrap();
        assert_eq!(outcome(), Outcome::Unfit("busy".into()));
        // A marker that was being written when the process was killed.
        fs::write(attempt.join("complete.json.tmp"), "{").unwrap();
        assert!(matches!(outcome(), Outcome::Unfit(_)));
        assert!(store.complete(3).unwrap().is_none());
        let complete = completed(tool(), "n1".into(), 1, "run".into());
        mark_complete(&attempt, &complete).unwrap();
        assert_eq!(outcome(), Outcome::Complete(complete));
        assert!(!attempt.join("incomplete").exists());
    }

    #[test]
    fn an_attempt_without_room_for_its_marker_says_so() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        let attempt = store.task_dir(0).join("7_0");
        fs::create_dir_all(&attempt).unwrap();
        // Accepts no byte, as a file on a full storage.
        std::os::unix::fs::symlink("/dev/full", attempt.join("incomplete")).unwrap();
        let error = mark_begun(&attempt).unwrap_err();
        assert!(matches!(error, FleetError::StorageFull { .. }), "{error}");
        let outcome = store.attempts(0).unwrap().remove(0).outcome;
        assert_eq!(outcome, Outcome::Incomplete(STORAGE_FULL.into()));
    }

    #[test]
    fn of_several_attempts_one_counts() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path());
        for name in ["9_0", "8_0", "8_0"] {
            let attempt = store.begin(0, name).unwrap();
            let complete = completed(tool(), attempt.display().to_string(), 1, "run".into());
            mark_complete(&attempt, &complete).unwrap();
        }
        assert_eq!(store.attempts(0).unwrap().len(), 3);
        let (dir, complete) = store.complete(0).unwrap().unwrap();
        assert!(dir.ends_with("8_0") && complete.node.ends_with("8_0"), "{complete:?}");
    }

    #[test]
    fn a_reason_never_needs_more_room() {
        for length in [0, 5, REASON_BYTES - 1, REASON_BYTES, 3 * REASON_BYTES] {
            assert_eq!(padded(&"\u{e4}".repeat(length)).len(), REASON_BYTES);
        }
    }

    #[test]
    fn two_commands_are_not_at_work_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let held = Store::lock(home.path()).unwrap();
        let error = Store::lock(home.path()).unwrap_err().to_string();
        assert!(error.contains("another `cellbench fleet` is at work"), "{error}");
        drop(held);
        assert!(Store::lock(home.path()).is_ok());
    }

    #[test]
    fn a_directory_without_a_fleet_is_named() {
        let home = tempfile::tempdir().unwrap();
        let error = Store::open(home.path()).unwrap_err().to_string();
        assert!(error.contains("no fleet here"), "{error}");
        fs::write(home.path().join("fleet.json"), "{\"version\"").unwrap();
        let error = Store::open(home.path()).unwrap_err().to_string();
        assert!(error.contains("fleet.json: ") && error.lines().count() == 1, "{error}");
    }
}
