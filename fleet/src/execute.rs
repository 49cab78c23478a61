//! One task, on the node that the scheduler chose.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use cellbench_record::{Finding, RunReader, Severity};
use serde::Deserialize;

use crate::store::{self, Complete};
use crate::{FleetError, Store, Task, Tool, Work, turns};

/// Exit status of `cellbench doctor` on an unfit host.
const UNFIT: i32 = 4;
/// Exit status of `cellbench run` and `sim` when an invariant broke: the run is whole.
const VIOLATION: i32 = 1;
/// Exit status of a command that left no round which can be judged.
const NOTHING: i32 = 3;

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is complete now.
    Complete,
    /// It was before.
    WasComplete,
    /// The host is unfit; why.
    Unfit(String),
}

/// Does task `number` of the fleet in `dir` with the command `cellbench`, which is `tool`.
///
/// # Errors
/// [`FleetError`]: the attempt is incomplete, and says why as far as the storage lets it.
pub fn execute(
    dir: &Path,
    number: u32,
    cellbench: &Path,
    tool: &Tool,
) -> Result<Ended, FleetError> {
    let store = Store::open(dir)?;
    let Some(task) = store.fleet.tasks.get(number as usize) else {
        let tasks = store.fleet.tasks.len();
        return Err(FleetError::Refused(format!("no task {number}; there are {tasks}")));
    };
    if store.complete(number)?.is_some() {
        return Ok(Ended::WasComplete);
    }
    let attempt = store.begin(number, &attempt_name())?;
    let began_unix_s = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let theirs = &store.fleet.tool;
    let outcome = if theirs.agrees_with(tool) {
        measure(task, cellbench, &attempt)
    } else {
        Err(FleetError::Refused(format!(
            "task {number} on {}: this is {tool}, the plan was submitted with {theirs}; install that one",
            node()
        )))
    };
    match outcome {
        Ok(Outcome::Unfit(why)) => {
            store::note_unfit(&attempt, &format!("{}: {why}", node()))?;
            Ok(Ended::Unfit(why))
        }
        Ok(Outcome::Ran { violations }) => {
            let complete = store::completed(tool.clone(), node(), began_unix_s, String::new());
            let complete = Complete { violations, ..complete };
            let marked = finished(&attempt, complete)
                .and_then(|complete| store::mark_complete(&attempt, &complete));
            marked.inspect_err(|error| note(&attempt, error))?;
            Ok(Ended::Complete)
        }
        Err(error) => {
            note(&attempt, &error);
            Err(error)
        }
    }
}

fn note(attempt: &Path, error: &FleetError) {
    // The caller reports `error` itself, to the task's log.
    let _ = store::note_incomplete(attempt, &error.to_string());
}

enum Outcome {
    Unfit(String),
    Ran { violations: bool },
}

fn measure(task: &Task, cellbench: &Path, attempt: &Path) -> Result<Outcome, FleetError> {
    if let Work::Measure { unfit } | Work::Kernel { unfit } | Work::Kernels { unfit, .. } =
        &task.work
        && let Some(why) = doctor(cellbench, attempt)?
        && !unfit
    {
        return Ok(Outcome::Unfit(why));
    }
    let violations = match &task.work {
        Work::Kernels { boot, kernels, turns, .. } => {
            let booted = turns::Booted { boot, kernels, turns: *turns, args: &task.args };
            booted.measure(cellbench, attempt)?
        }
        _ => {
            let mut command = Command::new(cellbench);
            command.args(&task.args).arg("--out").arg(attempt);
            run_into(&mut command, &task.args, attempt)?
        }
    };
    Ok(Outcome::Ran { violations })
}

/// Runs a command that leaves a run, its output in `dir`; returns whether an invariant broke.
pub(crate) fn run_into(
    command: &mut Command,
    args: &[String],
    dir: &Path,
) -> Result<bool, FleetError> {
    let output = dir.join("output.txt");
    let stdout = File::create(&output).map_err(|e| FleetError::io(&output, "create it", e))?;
    let program = PathBuf::from(command.get_program());
    let (status, last_line) = run(command.stdout(stdout), &program)?;
    match status.code() {
        Some(0) => Ok(false),
        Some(VIOLATION) => Ok(true),
        _ => Err(FleetError::Refused(failed(args, status, &last_line))),
    }
}

/// Has the host examined, keeps what was found, and returns why it is unfit, if it is.
fn doctor(cellbench: &Path, attempt: &Path) -> Result<Option<String>, FleetError> {
    /// What of `cellbench doctor --json` is of interest here.
    #[derive(Deserialize)]
    struct Examined {
        findings: Vec<Finding>,
    }
    let path = attempt.join("doctor.json");
    let stdout = File::create(&path).map_err(|e| FleetError::io(&path, "create it", e))?;
    let mut command = Command::new(cellbench);
    command.args(["doctor", "--json"]);
    let (status, last_line) = run(command.stdout(stdout), cellbench)?;
    if status.code() != Some(UNFIT) {
        let fit = matches!(status.code(), Some(0 | 3));
        let refused = || FleetError::Refused(failed(&["doctor".to_owned()], status, &last_line));
        return if fit { Ok(None) } else { Err(refused()) };
    }
    let found = fs::read(&path).map_err(|e| FleetError::io(&path, "read it", e))?;
    let examined: Examined = serde_json::from_slice(&found)
        .map_err(|e| FleetError::Refused(format!("{}: {e}", path.display())))?;
    let unfit = examined.findings.iter().filter(|finding| finding.severity == Severity::Unfit);
    Ok(Some(unfit.map(|finding| finding.text.as_str()).collect::<Vec<_>>().join("; ")))
}

/// Runs a command to its end, passes on what it writes to standard error, and returns the last line
/// of that.
fn run(command: &mut Command, cellbench: &Path) -> Result<(ExitStatus, String), FleetError> {
    let started = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|e| FleetError::io(cellbench, "start it", e))?;
    let mut last_line = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The log may lie on storage that is full; that is no reason to stop.
            let _ = writeln!(io::stderr(), "{line}");
            if !line.trim().is_empty() {
                last_line = line;
            }
        }
    }
    let status = child.wait().map_err(|e| FleetError::io(cellbench, "wait for it", e))?;
    Ok((status, last_line))
}

fn failed(args: &[String], status: ExitStatus, last_line: &str) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "unknown exit status".to_owned(),
    };
    let what = args.first().map_or("", String::as_str);
    let said = last_line.trim().trim_start_matches("cellbench: ").trim_start_matches("error: ");
    // The last line is then one about the plan: that there is nothing stands in the table alone.
    let nothing = "no round can be judged: all were disturbed, or none was recorded";
    let said = if status.code() == Some(NOTHING) { nothing } else { said };
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    format!("cellbench {what} on {}: {how}{said}", node())
}

/// Returns the run that `latest` in `dir` points to, after a check that it is whole.
pub(crate) fn whole(dir: &Path) -> Result<PathBuf, FleetError> {
    let latest = dir.join("latest");
    let run = fs::read_link(&latest).map_err(|e| FleetError::io(&latest, "read it", e))?;
    let dir = dir.join(&run);
    let reader = RunReader::open(&dir)?;
    if let Some(damage) = reader.damage().first() {
        return Err(FleetError::Refused(damage.to_string()));
    }
    let run = reader.run();
    let own = Some(run).filter(|run| run.merged_from.is_empty());
    if own.into_iter().chain(&run.merged_from).any(|part| part.finished_unix_s.is_none()) {
        return Err(FleetError::Refused(format!("{}: the run did not end", dir.display())));
    }
    Ok(dir)
}

/// Checks that the run in `attempt` is whole and on disk, and completes its marker.
fn finished(attempt: &Path, complete: Complete) -> Result<Complete, FleetError> {
    let dir = whole(attempt)?;
    let run = dir.file_name().unwrap_or_default();
    let rounds = dir.join("rounds.jsonl");
    let file = File::open(&rounds).and_then(|file| {
        file.sync_all()?; // before the marker that speaks of it
        file.metadata()
    });
    let rounds_bytes = file.map_err(|e| FleetError::io(&rounds, "read it", e))?.len();
    Ok(Complete { run: run.to_string_lossy().into_owned(), rounds_bytes, ..complete })
}

/// Returns the name of an attempt: job and index in the scheduler's words.
fn attempt_name() -> String {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (get("SLURM_ARRAY_JOB_ID"), get("SLURM_ARRAY_TASK_ID")) {
        (Some(job), Some(index)) => format!("{job}_{index}"),
        _ => "by-hand".to_owned(),
    }
}

/// Returns the node, as the scheduler names it, else the host's own name.
fn node() -> String {
    let hostname = PathBuf::from("/proc/sys/kernel/hostname");
    std::env::var("SLURMD_NODENAME")
        .ok()
        .or_else(|| fs::read_to_string(hostname).ok().map(|name| name.trim().to_owned()))
        .unwrap_or_else(|| "unknown".to_owned())
}
