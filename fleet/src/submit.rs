//! Submitting the tasks of a plan, or those that are missing.
//!
//! The two are one: what is complete or at work is left alone, the rest is submitted. Jobs are found
//! by their names, which are on disk before the first is submitted; so a client that is killed at any
//! point, even between the scheduler's answer and its own next step, has lost nothing.

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::write_atomically;

use crate::slurm::{self, Queue};
use crate::store::{Fleet, Outcome};
use crate::{Check, FleetError, Job, Plan, Store, Tool, script, task};

/// Result of a submission.
#[derive(Debug)]
pub struct Submitted {
    /// The fleet.
    pub store: Store,
    /// Batch scripts, with their text.
    pub scripts: Vec<(PathBuf, String)>,
    /// Jobs submitted now: the scheduler's number, the script's name, and how many tasks.
    pub jobs: Vec<(String, String, usize)>,
    /// Tasks that need nothing: complete, or at work.
    pub left_alone: usize,
    /// Tasks that found their host unfit, and were not submitted again.
    pub unfit: usize,
}

/// How to submit a plan.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// The `cellbench` that is copied to the shared storage.
    pub cellbench: &'a Path,
    /// Its identity.
    pub tool: &'a Tool,
    /// Writes the scripts, and submits nothing.
    pub dry_run: bool,
}

/// Makes the plan in file `path` a fleet and submits its tasks. A plan that was submitted before,
/// unchanged, is resumed.
///
/// # Errors
/// [`FleetError`] in one line: the plan, the storage, or the scheduler.
pub fn submit(path: &Path, how: How<'_>, check: Check<'_>) -> Result<Submitted, FleetError> {
    let plan = Plan::read(path)?;
    let (tasks, jobs) = task::expand(&plan, check)?;
    if !how.dry_run {
        has_partitions(&jobs)?;
    }
    let dir = plan.directory.join(&plan.name);
    for part in ["bin", "jobs", "logs", "tasks"] {
        let part = dir.join(part);
        fs::create_dir_all(&part).map_err(|e| FleetError::io(&part, "create the directory", e))?;
    }
    let _lock = Store::lock(&dir)?;
    let known = if dir.join("fleet.json").exists() { Some(Store::open(&dir)?) } else { None };
    let is_submitted = submitted_marker(&dir).exists();
    let store = match known {
        Some(store)
            if (&store.fleet.tasks, &store.fleet.jobs) == (&tasks, &jobs)
                && store.fleet.tool.agrees_with(how.tool) =>
        {
            store
        }
        Some(store) if is_submitted => return Err(other_fleet(&store, how.tool)),
        _ => {
            // Entries may all name one of their own.
            if jobs.iter().any(|job| job.cellbench.is_none()) {
                copy_tool(how.cellbench, &dir)?;
            }
            let text = fs::read(path).map_err(|e| FleetError::io(path, "read it", e))?;
            write_atomically(&dir.join("plan.toml"), &text)?;
            Store::create(&dir, Fleet::new(how.tool.clone(), tasks, jobs))?
        }
    };
    let scripts = write_scripts(&store)?;
    if how.dry_run {
        let (jobs, left_alone, unfit) = (Vec::new(), 0, 0);
        return Ok(Submitted { store, scripts, jobs, left_alone, unfit });
    }
    if !is_submitted {
        // All or none: what the scheduler refuses is found before the first job is in.
        for ((path, _), job) in scripts.iter().zip(&store.fleet.jobs) {
            slurm::sbatch_test(path)
                .map_err(|e| FleetError::Slurm(format!("{}: {e}", job.script)))?;
        }
    }
    submit_missing(store, scripts, false)
}

/// Submits again what is missing of the fleet in `dir`; with `unfit` also the tasks that found
/// their
/// host unfit.
///
/// # Errors
/// As [`submit`].
pub fn resume(dir: &Path, unfit: bool) -> Result<Submitted, FleetError> {
    let store = Store::open(dir)?;
    let _lock = Store::lock(&store.dir)?;
    let scripts = write_scripts(&store)?;
    submit_missing(store, scripts, unfit)
}

/// Says that jobs may be in the scheduler: before the first one is.
fn submitted_marker(dir: &Path) -> PathBuf {
    dir.join("submitted")
}

fn submit_missing(
    store: Store,
    scripts: Vec<(PathBuf, String)>,
    again_unfit: bool,
) -> Result<Submitted, FleetError> {
    let marker = submitted_marker(&store.dir);
    write_atomically(&marker, b"")?;
    let queue = slurm::squeue(&store.fleet)?;
    let mut submitted = Submitted { store, scripts, jobs: Vec::new(), left_alone: 0, unfit: 0 };
    for index in 0..submitted.store.fleet.jobs.len() {
        let job = submitted.store.fleet.jobs[index].clone();
        let missing = missing(&mut submitted, &job, &queue, again_unfit)?;
        if missing.is_empty() {
            continue;
        }
        let number = slurm::sbatch(&submitted.scripts[index].0, &ranges(&missing))
            .map_err(|e| FleetError::Slurm(format!("{}: {e}", job.script)))?;
        submitted.jobs.push((number, job.script, missing.len()));
    }
    Ok(submitted)
}

/// Returns indices of a job's array for which nothing is complete and nothing is at work.
fn missing(
    submitted: &mut Submitted,
    job: &Job,
    queue: &Queue,
    again_unfit: bool,
) -> Result<Vec<u32>, FleetError> {
    let mut missing = Vec::new();
    for number in job.tasks() {
        let attempts = submitted.store.attempts(number)?;
        let is_complete =
            attempts.iter().any(|attempt| matches!(attempt.outcome, Outcome::Complete(_)));
        if is_complete || queue.get(&number).is_some_and(slurm::Queued::is_active) {
            submitted.left_alone += 1;
        } else if !again_unfit
            && attempts.last().is_some_and(|last| matches!(last.outcome, Outcome::Unfit(_)))
        {
            submitted.unfit += 1;
        } else {
            missing.push(number - job.first);
        }
    }
    Ok(missing)
}

/// Writes numbers as `0-3,7`.
fn ranges(indices: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &index in indices {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let parts =
        parts.iter().map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        );
    parts.collect::<Vec<_>>().join(",")
}

/// Checks that the cluster has the partitions that jobs ask for; also, that there is a Slurm.
fn has_partitions(jobs: &[Job]) -> Result<(), FleetError> {
    let known = slurm::partitions()?;
    let asked = jobs.iter().flat_map(|job| {
        let of_job = job.options.iter().filter_map(|option| option.strip_prefix("--partition="));
        of_job.flat_map(|names| names.split(',')).map(move |name| (job, name))
    });
    for (job, name) in asked {
        if !known.iter().any(|known| known == name) {
            let known = known.join(", ");
            return Err(FleetError::Slurm(format!(
                "{}: unknown partition `{name}`; this cluster has {known}",
                job.script
            )));
        }
    }
    Ok(())
}

fn write_scripts(store: &Store) -> Result<Vec<(PathBuf, String)>, FleetError> {
    let mut scripts = Vec::new();
    for (index, job) in store.fleet.jobs.iter().enumerate() {
        let path = store.dir.join(format!("jobs/{}.sh", job.script));
        let text = script::script(&store.dir, &store.fleet.job_name(index), job);
        write_atomically(&path, text.as_bytes())?;
        scripts.push((path, text));
    }
    Ok(scripts)
}

/// Copies the tool, so that what is rebuilt meanwhile does not mix versions.
fn copy_tool(cellbench: &Path, dir: &Path) -> Result<(), FleetError> {
    let target = dir.join("bin/cellbench");
    let temporary = dir.join(format!("bin/cellbench.{}.tmp", std::process::id()));
    let copied = fs::copy(cellbench, &temporary).and_then(|_| fs::rename(&temporary, &target));
    copied.map_err(|e| {
        // It is the copying that failed; what is left of it takes room.
        let _ = fs::remove_file(&temporary);
        FleetError::io(&target, "copy cellbench to it", e)
    })
}

fn other_fleet(store: &Store, tool: &Tool) -> FleetError {
    let (dir, theirs) = (store.dir.display(), &store.fleet.tool);
    FleetError::Refused(if theirs.agrees_with(tool) {
        format!("{dir}: another plan of this name was submitted; give this one another name")
    } else {
        format!(
            "{dir}: submitted with {theirs}, this is {tool}; resume it, or give the plan another name"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn indices_are_written_as_ranges() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[5]), "5");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
