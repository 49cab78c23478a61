//! One task, on the node that the scheduler chose.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use cellbench_record::{Finding, Severity};
use serde::Deserialize;

use crate::command::{failed, node, run, run_into, whole};
use crate::store::{self, Complete};
use crate::{FleetError, Store, Task, Tool, Work, turns};

/// Exit status of `cellbench doctor` on an unfit host.
const UNFIT: i32 = 4;
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

/// Has the host examined, keeps what was found, and returns why it is unfit, if it is.
fn doctor(cellbench: &Path, attempt: &Path) -> Result<Option<String>, FleetError> {
    /// Fields of `cellbench doctor --json` that are of interest here.
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
