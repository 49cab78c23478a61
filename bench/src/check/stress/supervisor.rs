//! Runs a slice in a process of its own. A cell that is wrong may crash the process, abort it out of
//! a signal handler or hang it: each is a finding with a name, and the run goes on.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::slice::{Order, Outcome};
use cellbench_measure::patience::Patience;

/// How long a slice may take beyond its window. Workers that do not come back are reported by the
/// slice itself after a minute; this is for a check that never ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks whether the slice is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How much of what a process said before it died is kept, in bytes.
const MOST_SAID: usize = 2000;

/// Signals that no fault of a program raises in itself: they come from a user, from the kernel where memory
/// runs out, or from a limit.
const FROM_OUTSIDE: [i32; 6] =
    [libc::SIGKILL, libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGXCPU];

/// Exit status of a slice that could not take place.
pub const EXIT_REFUSED: u8 = 2;

/// A slice that did not take place.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The process could not be started or waited for.
    #[error("cannot run a slice in a process of its own: {0}")]
    Process(#[from] io::Error),
    /// The slice says why.
    #[error("{0}")]
    Refused(String),
    /// Somebody else ended the process, which says nothing about the cell.
    #[error(
        "a slice was ended from outside, by signal {signal}{}; repeat the run",
        if *.signal == libc::SIGKILL { ", as by the kernel where memory runs out" } else { "" }
    )]
    Outside {
        /// Signal that ended the process.
        signal: i32,
    },
}

/// Runs `order` by the command of this very program and waits for it; `turn` is called now and
/// then while waiting.
///
/// # Errors
/// [`SuperviseError`] if the slice did not take place.
pub fn run(order: &Order, mut turn: impl FnMut()) -> Result<Outcome, SuperviseError> {
    let text = serde_json::to_string(order).map_err(io::Error::from)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["stress", "--order", &text])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for the one who prints the summary.
        .process_group(0)
        .spawn()?;
    // Read by threads: a pipe that is full would stop the slice.
    let output = child.stdout.take().map(read_all);
    let errors = child.stderr.take().map(read_all);
    let limit = Duration::from_millis(order.window_ms) + PATIENCE;
    let ended = wait(&mut child, limit, &mut turn)?;
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    judge(ended, &text(output), &text(errors))
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end; `None` if it had to be forced.
fn wait(
    child: &mut Child,
    limit: Duration,
    turn: &mut impl FnMut(),
) -> io::Result<Option<ExitStatus>> {
    let mut patience = Patience::new(limit);
    while patience.lasts() {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        turn();
        thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Returns what a process that ended so, and said that, means.
fn judge(ended: Option<ExitStatus>, output: &str, errors: &str) -> Result<Outcome, SuperviseError> {
    let Some(status) = ended else {
        return Ok(Outcome::broken("the slice did not come to rest".to_owned()));
    };
    if status.code() == Some(i32::from(EXIT_REFUSED)) {
        let line = errors.lines().last().unwrap_or_default();
        let line = line.strip_prefix("cellbench: error: ").unwrap_or(line);
        return Err(SuperviseError::Refused(line.to_owned()));
    }
    if let Ok(outcome) = serde_json::from_str(output) {
        return Ok(outcome);
    }
    if let Some(signal) = status.signal().filter(|signal| FROM_OUTSIDE.contains(signal)) {
        return Err(SuperviseError::Outside { signal });
    }
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("the process was ended by signal {signal}"),
        (None, Some(code)) => format!("the process ended with status {code}"),
        (None, None) => "the process ended".to_owned(),
    };
    let said: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut said = said.join("; ");
    if let Some((cut, _)) = said.char_indices().nth(MOST_SAID) {
        said.truncate(cut);
    }
    let what = if said.is_empty() { how } else { format!("{how}, saying: {said}") };
    Ok(Outcome::broken(what))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    #[test]
    fn every_way_to_end_means_something() {
        let status = |raw| Some(ExitStatus::from_raw(raw));
        let good = Outcome { objects_allocated: 3, objects_freed: 3, ..Outcome::default() };
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(judge(status(0), &text, "").unwrap(), good);

        let broken = |ended, errors| judge(ended, "", errors).unwrap().violations.join("; ");
        assert_eq!(broken(status(11), ""), "the process was ended by signal 11");
        let aborted = broken(status(6), "thread 'worker 0' panicked:\n\n write after free\n");
        assert!(aborted.contains("signal 6") && aborted.contains("panicked:; write after free"));
        assert!(broken(status(3 << 8), "").contains("status 3"));
        assert!(broken(None, "").contains("did not come to rest"));
        assert!(broken(status(6), &"x".repeat(9000)).len() < 2100);

        let refused = judge(status(2 << 8), "", "cellbench: error: no CPU 9\n").unwrap_err();
        assert_eq!(refused.to_string(), "no CPU 9");

        let outside = |raw| judge(status(raw), "", "").unwrap_err().to_string();
        assert!(outside(libc::SIGKILL).contains("by signal 9, as by the kernel where memory"));
        assert!(outside(libc::SIGTERM).ends_with("by signal 15; repeat the run"));
    }

    /// As a run that was suspended with Ctrl-Z, whose slice in its own process group went on.
    #[test]
    fn a_slice_that_ended_while_this_process_was_stopped_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (mut input, stat) = (child.stdin.take(), format!("/proc/{}/stat", child.id()));
        let limit = Patience::LOOK + Duration::from_millis(50);
        let ended = wait(&mut child, limit, &mut || {
            drop(input.take());
            let stopped = Instant::now();
            while stopped.elapsed() < limit || !fs::read_to_string(&stat).unwrap().contains(") Z ")
            {
                thread::sleep(LOOK_EVERY);
            }
        });
        let ended = ended.unwrap();
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    }

    #[test]
    fn what_never_ends_is_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut turns = 0;
        let ended = wait(&mut child, Duration::from_millis(20), &mut || turns += 1).unwrap();
        assert!(ended.is_none() && turns > 0);
    }
}
