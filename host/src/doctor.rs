//! Is this host fit to measure on, and what to change?
//!
//! Each check yields findings: what is, what that does to results, and the command that changes
//! it. All read below [`Roots`], so that they can be tried on made-up hosts; what needs time to
//! show (load, steal, throttling, competing tasks) is seen between two snapshots.
//!
//! Exit statuses of `cellbench doctor`: 0 fit, 3 fit with warnings, 4 unfit (1 is an error of the
//! tool, 2 a wrong command line).

mod activity;
mod frequency;
mod platform;
mod scheduling;

use std::fmt;
use std::time::Duration;

use cellbench_record::{Finding, Severity};

pub use activity::{Activity, Snapshot, Task};

use super::counters::{Plan, ThreadCounters, Unavailable};
use super::cpus::CpuSet;
use super::roots::Roots;
use super::topology::Topology;

/// Input of the checks.
#[derive(Clone, Debug)]
pub struct Examined<'a> {
    /// Where to read.
    pub roots: &'a Roots,
    /// CPUs of the host.
    pub topology: &'a Topology,
    /// CPUs that will be measured on.
    pub cpus: &'a CpuSet,
    /// Activity on the host while it was watched.
    pub activity: &'a Activity,
    /// Result of opening a hardware counter; `None` if nobody tried, and then files decide.
    pub counting: Option<Result<(), Unavailable>>,
}

/// The verdict over all findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// Nothing to object to.
    Fit,
    /// Usable; the warnings say what to expect.
    FitWithWarnings,
    /// Results from this host, as it is, should not be used.
    Unfit,
}

impl Fitness {
    /// Returns the verdict that the worst finding leaves.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        match findings.iter().map(|finding| finding.severity).max() {
            Some(Severity::Unfit) => Self::Unfit,
            Some(Severity::Warning) => Self::FitWithWarnings,
            Some(Severity::Ok | Severity::Info) | None => Self::Fit,
        }
    }

    /// Returns the exit status that tells it to scripts.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Fit => 0,
            Self::FitWithWarnings => 3,
            Self::Unfit => 4,
        }
    }
}

impl fmt::Display for Fitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fit => "fit",
            Self::FitWithWarnings => "fit with warnings",
            Self::Unfit => "unfit",
        })
    }
}

/// Examines this host for a run on `cpus`, watching it for `window` (the calling thread sleeps
/// meanwhile, so that its own work does not show).
#[must_use]
pub fn examine(topology: &Topology, cpus: &CpuSet, window: Duration) -> Vec<Finding> {
    let roots = Roots::live();
    let before = Snapshot::take(&roots, topology);
    std::thread::sleep(window);
    let after = Snapshot::take(&roots, topology);
    let activity = Activity::between(&roots, &before, &after, Some(std::process::id()));
    let counting = try_counting(&roots, cpus);
    diagnose(&Examined { roots: &roots, topology, cpus, activity: &activity, counting })
}

/// Returns all findings on what was examined, worst first, in order of the checks among equals.
#[must_use]
pub fn diagnose(examined: &Examined<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    frequency::check(examined, &mut findings);
    scheduling::check(examined, &mut findings);
    platform::check(examined, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Returns whether a hardware counter can be opened for the calling thread.
fn try_counting(roots: &Roots, cpus: &CpuSet) -> Option<Result<(), Unavailable>> {
    const EVENT: &str = "cycles";
    let plan = Plan::basic(roots, cpus.first()?).only(EVENT)?;
    Some(ThreadCounters::open(&plan).why_not(EVENT).cloned().map_or(Ok(()), Err))
}

/// Returns what is said about one thing.
fn finding(
    id: &str,
    severity: Severity,
    text: impl Into<String>,
    effect: &str,
    fix: impl Into<String>,
) -> Finding {
    Finding {
        id: id.to_owned(),
        severity,
        text: text.into(),
        effect: effect.to_owned(),
        fix: fix.into(),
    }
}

/// Returns a thing as it should be.
fn ok(id: &str, text: impl Into<String>) -> Finding {
    finding(id, Severity::Ok, text, "", "")
}
