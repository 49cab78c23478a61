//! The part in the guest: measures rows as the host asks for over the second serial line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use cellbench_host::affinity;
use cellbench_record::pack_histogram;
use serde::Serialize;

use super::protocol::{Answer, Hello, Opening, Request, RowInfo, VERSION};
use crate::error::Error;
use crate::info::Kernel;
use crate::measure::Sampler;
use crate::plan::{Configuration, Plan};
use crate::rows::{Layout, rows};
use crate::trace::guest::commit;
use crate::trace::request::Lines;

/// The line to the host.
const LINE: &str = "/dev/ttyS1";
/// Name of the order of a guest's CPUs: the host has placed them.
const PLACEMENT: &str = "compact";

/// Opens the line, which then passes bytes on as they are.
fn open() -> io::Result<File> {
    let line = OpenOptions::new().read(true).write(true).open(LINE)?;
    // SAFETY: a structure of integers, for which zero is a value.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the terminal is open, and the structure this function's own.
    let set = unsafe {
        libc::tcgetattr(line.as_raw_fd(), &mut settings) == 0 && {
            libc::cfmakeraw(&mut settings);
            libc::tcsetattr(line.as_raw_fd(), libc::TCSANOW, &settings) == 0
        }
    };
    if set { Ok(line) } else { Err(io::Error::last_os_error()) }
}

fn say(mut line: &File, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    line.write_all(&text)
}

/// Returns what this kernel has of what is asked for.
fn plan(lines: &Lines) -> Result<(Hello, Vec<Configuration>), Error> {
    let info = Kernel::probe()?;
    let wanted = |name: &String| lines.rows.is_empty() || lines.rows.contains(name);
    let plan = Plan {
        rows: rows(&info).into_iter().filter(|row| wanted(&row.name())).collect(),
        layouts: vec![Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF],
        threads: if lines.threads.is_empty() { vec![1] } else { lines.threads.clone() },
        cpus: affinity::current().unwrap_or_default().iter().map(|cpu| cpu.0).collect(),
    };
    let (configurations, skipped) = plan.configurations()?;
    let row = |of: &Configuration| RowInfo {
        name: of.row.name(),
        series: of.series(PLACEMENT),
        cpus: of.cpus.clone(),
    };
    let hello = Hello {
        protocol: VERSION,
        release: info.release,
        evidence: info.cells.evidence,
        jit: info.jit,
        rows: configurations.iter().map(row).collect(),
        skipped,
    };
    Ok((hello, configurations))
}

fn measure(sampler: &mut Sampler, of: &Configuration, request: &Request) -> Answer {
    let window = Duration::from_nanos(request.window_ns);
    let measured = sampler.measure(of, window, request.seed).and_then(|result| {
        let pack = |(op, histogram): (&&str, &crate::Histogram)| {
            let packed = pack_histogram(&histogram.to_hdr());
            packed.map(|packed| ((*op).to_owned(), packed)).map_err(|what| Error::Plan { what })
        };
        let latencies: Result<Vec<_>, Error> = result.latency.iter().map(pack).collect();
        Ok((result.to_round(PLACEMENT), latencies?))
    });
    match measured {
        Ok((round, latencies)) => Answer::Measured(Box::new(round), latencies),
        // Memory may be back in the next round.
        Err(error) => Answer::LeftOut {
            for_good: !matches!(error, Error::Prepare { .. }),
            reason: match error {
                Error::Unsupported { reason, .. } => reason,
                error => error.to_string(),
            },
        },
    }
}

/// Serves the host until its line ends.
///
/// # Errors
/// Those of the line.
pub(crate) fn serve(lines: &Lines) -> io::Result<()> {
    let line = open()?;
    let (hello, configurations) = match plan(lines) {
        Ok(planned) => planned,
        Err(error) => return say(&line, &Opening::Failed(error.to_string())),
    };
    say(&line, &Opening::Ready(hello))?;
    let mut sampler = Sampler::new(true, 0);
    for request in BufReader::new(line.try_clone()?).lines() {
        let request: Request = serde_json::from_str(&request?)?;
        let Some(of) = configurations.get(request.row as usize) else {
            let reason = format!("there is no row {}", request.row);
            say(&line, &Answer::LeftOut { reason, for_good: true })?;
            continue;
        };
        println!("row {}", of.row);
        lines.faults.iter().for_each(|fault| commit(fault, &of.row.name()));
        say(&line, &measure(&mut sampler, of, &request))?;
    }
    Ok(())
}
