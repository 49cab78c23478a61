//! Commands of cellbench that a task runs, and the run that each leaves.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use cellbench_record::RunReader;

use crate::FleetError;

/// Exit status of `cellbench run` and `sim` when an invariant broke: the run is whole.
const VIOLATION: i32 = 1;
/// Exit status of a command that left no round which can be judged.
const NOTHING: i32 = 3;

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

/// Runs a command to its end, passes on what it writes to standard error, and returns the last line
/// of that.
pub(crate) fn run(
    command: &mut Command,
    cellbench: &Path,
) -> Result<(ExitStatus, String), FleetError> {
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

/// Returns the sentence for a command that failed: how it ended, and the last line that it wrote.
pub(crate) fn failed(args: &[String], status: ExitStatus, last_line: &str) -> String {
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

/// Returns the node, as the scheduler names it, else the host's own name.
pub(crate) fn node() -> String {
    let hostname = PathBuf::from("/proc/sys/kernel/hostname");
    std::env::var("SLURMD_NODENAME")
        .ok()
        .or_else(|| fs::read_to_string(hostname).ok().map(|name| name.trim().to_owned()))
        .unwrap_or_else(|| "unknown".to_owned())
}
