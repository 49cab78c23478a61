//! One program that serves rounds, as the session sees it.

use std::io::{self, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use cellbench_record::Round;
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;

use super::protocol::{Answer, Ready, Request, Rows, VERSION, read_line, unpack, write_line};
use cellbench_measure::backend::cores::calibrate::Lengths;

/// A program and its name in the table.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name in the table, such as a revision.
    pub label: String,
    /// The `cellbench` binary.
    pub path: PathBuf,
}

/// Why a program does not serve rounds.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// The program cannot be started, read or written.
    #[error("{label} ({}): {source}", path.display())]
    Io {
        /// Name of the side.
        label: String,
        /// The program.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The program ended.
    #[error("{label} ({}) ended: {status}; a revision must have `cellbench serve-rounds`", path.display())]
    Ended {
        /// Name of the side.
        label: String,
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: String,
    },
    /// The program says what is not expected.
    #[error("{label}: {what}")]
    Answer {
        /// Name of the side.
        label: String,
        /// Description of the answer that was not expected.
        what: String,
    },
    /// No row is in both.
    #[error("{} and {} have no row in common; name a cell that both have, or a pair with --pair OLD=NEW", labels[0], labels[1])]
    NothingInCommon {
        /// Names of the sides.
        labels: [String; 2],
    },
}

/// A running program. Dropped, it is told to end and waited for.
pub(super) struct Side {
    program: Program,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(super) rows: Rows,
}

impl Side {
    /// Starts `program` with the flags `choice` and reads its rows.
    pub(super) fn start(program: Program, choice: &[String]) -> Result<Self, SideError> {
        let io = |source| SideError::Io {
            label: program.label.clone(),
            path: program.path.clone(),
            source,
        };
        let mut child = Command::new(&program.path)
            .arg("serve-rounds")
            .args(choice)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not in the foreground group: Ctrl-C is the session's matter.
            .process_group(0)
            .spawn()
            .map_err(io)?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("piped above"));
        let rows = Rows { protocol: VERSION, rows: Vec::new(), skipped: Vec::new() };
        let mut side = Self { program, child, requests, answers, rows };
        side.rows = side.read()?;
        if side.rows.protocol != VERSION {
            let what =
                format!("speaks version {} of the protocol, not {VERSION}", side.rows.protocol);
            return Err(side.says(what));
        }
        Ok(side)
    }

    /// Has the program calibrate.
    pub(super) fn prepare(&mut self, time_budget: Option<Duration>) -> Result<Ready, SideError> {
        let time_budget_s = time_budget.map(|budget| budget.as_secs_f64());
        match self.ask(&Request::Prepare { time_budget_s })? {
            Answer::Ready(ready) => Ok(*ready),
            answer => Err(self.unexpected(answer)),
        }
    }

    /// Has the program measure again how long computing takes.
    pub(super) fn calibrate(&mut self) -> Result<Lengths, SideError> {
        match self.ask(&Request::Calibrate)? {
            Answer::Calibrated(lengths) => Ok(lengths),
            answer => Err(self.unexpected(answer)),
        }
    }

    /// Has the program charge by these figures.
    pub(super) fn adopt(&mut self, lengths: Lengths) -> Result<(), SideError> {
        match self.ask(&Request::Adopt(lengths))? {
            Answer::Adopted => Ok(()),
            answer => Err(self.unexpected(answer)),
        }
    }

    /// Has the program measure a row.
    #[expect(clippy::type_complexity, reason = "the two halves of what was measured")]
    pub(super) fn measure(
        &mut self,
        row: u32,
        window: Duration,
        seed: u64,
    ) -> Result<(Round, Vec<(String, Histogram<u64>)>), SideError> {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        match self.ask(&Request::Measure { row, window_ns, seed })? {
            Answer::Measured(round, packed) => {
                let latencies = unpack(packed).map_err(|what| self.says(what))?;
                Ok((*round, latencies))
            }
            answer => Err(self.unexpected(answer)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, SideError> {
        let requests = self.requests.as_mut().expect("open until ended");
        match write_line(requests, request) {
            // The program has ended; the read below says how.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.io(error)),
            _ => self.read(),
        }
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T, SideError> {
        match read_line(&mut self.answers) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(self.ended()),
            Err(error) => Err(self.io(error)),
        }
    }

    fn io(&self, source: io::Error) -> SideError {
        let Program { label, path } = self.program.clone();
        SideError::Io { label, path, source }
    }

    fn says(&self, what: String) -> SideError {
        SideError::Answer { label: self.program.label.clone(), what }
    }

    fn unexpected(&self, answer: Answer) -> SideError {
        match answer {
            Answer::Failed(what) => self.says(what),
            Answer::Ready(_) | Answer::Calibrated(_) | Answer::Adopted | Answer::Measured(..) => {
                self.says("answered something else".to_owned())
            }
        }
    }

    fn ended(&mut self) -> SideError {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
        let Program { label, path } = self.program.clone();
        SideError::Ended { label, path, status }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The end of its input ends the program.
        self.requests = None;
        let _ = self.child.wait();
    }
}
