//! Slurm's own commands, run and read. The only file that starts them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;

use cellbench_record::rfc3339_utc;

use crate::FleetError;
use crate::store::Fleet;

/// State of a task that the scheduler knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Array job and index, as `squeue` and `scancel` take them.
    pub id: String,
    /// State in Slurm's words, such as `RUNNING`.
    pub state: String,
    /// Node, or none yet.
    pub node: String,
    /// Time that it has run, as Slurm writes it.
    pub elapsed: String,
    /// Why it waits, or why it ended.
    pub reason: String,
}

impl Queued {
    /// Returns whether the scheduler still has work to do for it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        const ENDED: [&str; 10] = [
            "BOOT_FAIL",
            "CANCELLED",
            "COMPLETED",
            "DEADLINE",
            "FAILED",
            "NODE_FAIL",
            "OUT_OF_MEMORY",
            "PREEMPTED",
            "REVOKED",
            "TIMEOUT",
        ];
        // `CANCELLED by 0` in sacct's words.
        let word = self.state.split_whitespace().next().unwrap_or_default();
        !ENDED.contains(&word)
    }

    /// Returns whether it waits for a node.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state == "PENDING"
    }
}

/// Tasks by their number, as the scheduler knows them.
pub type Queue = BTreeMap<u32, Queued>;

/// Submits a script for some indices of its array and returns the job's number.
///
/// # Errors
/// [`FleetError::Slurm`] with what `sbatch` says.
pub fn sbatch(script: &Path, indices: &str) -> Result<String, FleetError> {
    let array = format!("--array={indices}");
    let said = slurm("sbatch", &["--parsable", &array, &script.to_string_lossy()])?;
    // `number;cluster` on a site with several clusters.
    Ok(said.trim().split(';').next().unwrap_or_default().to_owned())
}

/// Asks whether the scheduler would take a script, without submitting it.
///
/// # Errors
/// [`FleetError::Slurm`] with what `sbatch` says.
pub fn sbatch_test(script: &Path) -> Result<(), FleetError> {
    slurm("sbatch", &["--test-only", &script.to_string_lossy()]).map(|_| ())
}

/// Returns names of the partitions.
///
/// # Errors
/// [`FleetError::Slurm`] if `sinfo` cannot tell.
pub fn partitions() -> Result<Vec<String>, FleetError> {
    let said = slurm("sinfo", &["--noheader", "--format=%R"])?;
    let mut names: Vec<String> = said.lines().map(|line| line.trim().to_owned()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Returns what `squeue` knows of the tasks of a fleet: those that wait, run, or ended not long
/// ago.
///
/// # Errors
/// [`FleetError::Slurm`] if `squeue` cannot tell.
pub fn squeue(fleet: &Fleet) -> Result<Queue, FleetError> {
    let names = format!("--name={}", job_names(fleet));
    let format = "--format=%j|%F|%K|%T|%N|%M|%r";
    let said = slurm("squeue", &["--noheader", "--array", "--states=all", &names, format])?;
    Ok(queue(fleet, &said))
}

/// Returns what accounting knows of the tasks of a fleet; none on a cluster without accounting.
#[must_use]
pub fn sacct(fleet: &Fleet) -> Option<Queue> {
    let names = format!("--name={}", job_names(fleet));
    // A day early: sacct reads dates in the time zone of the host.
    let since = rfc3339_utc(fleet.began_unix_s.saturating_sub(86_400));
    let since = format!("--starttime={}", &since[..10]);
    let format = "--format=JobName,JobID,State,NodeList,Elapsed,ExitCode";
    let options =
        ["--noheader", "--parsable2", "--allocations", "--array", "--allusers", &names, &since];
    // Accounting that is not there, not reached or of another version tells nothing.
    let said = slurm("sacct", &[&options[..], &[format]].concat()).ok()?;
    let lines = said.lines().map(|line| {
        let mut fields = line.split('|');
        let mut next = || fields.next().unwrap_or_default();
        let (name, id) = (next(), next());
        let (job, index) = id.split_once('_').unwrap_or((id, ""));
        let (state, node, elapsed, status) = (next(), next(), next(), next());
        format!("{name}|{job}|{index}|{state}|{node}|{elapsed}|exit status {status}\n")
    });
    Some(queue(fleet, &lines.collect::<String>()))
}

/// Reads lines of name, array job, index, state, node, time and reason. Of two jobs with the same
/// task, the one that is at work counts, else the later.
fn queue(fleet: &Fleet, said: &str) -> Queue {
    let numbers: BTreeMap<String, u32> =
        fleet.jobs.iter().enumerate().map(|(i, job)| (fleet.job_name(i), job.first)).collect();
    let mut queue = Queue::new();
    for line in said.lines() {
        let fields: Vec<&str> = line.splitn(7, '|').map(str::trim).collect();
        let [name, job, index, state, node, elapsed, reason] = fields[..] else { continue };
        let (Some(first), Ok(index)) = (numbers.get(name), index.parse::<u32>()) else { continue };
        let found = Queued {
            id: format!("{job}_{index}"),
            state: state.to_owned(),
            node: node.to_owned(),
            elapsed: elapsed.to_owned(),
            reason: reason.to_owned(),
        };
        let order = |queued: &Queued| {
            let job = queued.id.split('_').next().and_then(|job| job.parse::<u64>().ok());
            (queued.is_active(), job)
        };
        let known = queue.get(&(first + index)).is_some_and(|known| order(known) > order(&found));
        if !known {
            queue.insert(first + index, found);
        }
    }
    queue
}

fn job_names(fleet: &Fleet) -> String {
    (0..fleet.jobs.len()).map(|job| fleet.job_name(job)).collect::<Vec<_>>().join(",")
}

/// Runs one of Slurm's commands and returns what it prints.
fn slurm(command: &str, args: &[&str]) -> Result<String, FleetError> {
    let output = Command::new(command).args(args).output().map_err(|e| {
        FleetError::Slurm(match e.kind() {
            io::ErrorKind::NotFound => format!(
                "{command} is not on this host: run this where Slurm's commands are installed; one host alone needs `cellbench run` only"
            ),
            _ => format!("{command}: {e}"),
        })
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said
        .lines()
        .map(|line| line.trim().trim_start_matches(&format!("{command}: ")))
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("fatal: "))
        .filter(|line| !line.is_empty())
        .collect();
    let said = if said.is_empty() { output.status.to_string() } else { said.join("; ") };
    Err(FleetError::Slurm(format!("{command}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Job, Tool};

    fn fleet() -> Fleet {
        let tool = Tool {
            version: "1".into(),
            revision: None,
            architecture: "x86_64".into(),
            build: "0".into(),
        };
        let job = |first, count| Job {
            script: format!("job{first}"),
            first,
            count,
            options: Vec::new(),
            cellbench: None,
        };
        Fleet { id: "f".into(), ..Fleet::new(tool, Vec::new(), vec![job(0, 2), job(2, 3)]) }
    }

    #[test]
    fn lines_of_squeue_become_tasks() {
        let said = "\
f.0|11|1|RUNNING|n1|0:07|None
f.1|12|2|PENDING||0:00|Resources
f.1|12|0|FAILED|n2|1:00|NonZeroExitCode
other|13|0|RUNNING|n3|0:01|None
f.1|N/A|N/A|RUNNING|n3|0:01|None
garbage
";
        let queue = queue(&fleet(), said);
        assert_eq!(queue.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!((queue[&1].id.as_str(), queue[&1].node.as_str()), ("11_1", "n1"));
        assert!(queue[&1].is_active() && queue[&4].is_pending() && !queue[&2].is_active());
    }

    #[test]
    fn of_two_jobs_the_one_at_work_counts_else_the_later() {
        let both = queue(&fleet(), "f.0|9|0|RUNNING|n|1|None\nf.0|10|0|FAILED|n|1|x\n");
        assert_eq!(both[&0].id, "9_0");
        let both = queue(&fleet(), "f.0|10|0|FAILED|n|1|x\nf.0|9|0|NODE_FAIL|n|1|x\n");
        assert_eq!(both[&0].id, "10_0");
        let by_user = queue(&fleet(), "f.0|9|0|CANCELLED by 0|n|1|x\n");
        assert!(!by_user[&0].is_active());
    }
}
