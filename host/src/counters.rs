//! Hardware and kernel counters of a thread, in groups, with a reason wherever there is none.
//!
//! What is counted:
//! - cycles, instructions, branch misses, L1 and LLC misses: the kernel's generic events;
//! - how the core's lines moved, and what its atomics cost: vendor events chosen by CPU model from
//!   the tables in `host/events/` ([`catalogue`]);
//! - context switches, migrations and page faults: kernel events, or, where those are denied, the
//!   kernel's accounts of the thread, which never are.
//!
//! Hardware events count user space only: a run needs no privilege up to
//! `perf_event_paranoid` 2, and cells run in user space. [`Reading`] is either a count with the
//! time it was asked for and the time it ran, or an [`Unavailable`] that says why not and what to
//! change. An unknown is never a zero.

pub mod catalogue;
pub mod event;
pub mod thread;

use std::collections::BTreeMap;

pub use event::Plan;
pub use thread::ThreadCounters;

use super::roots::Roots;

/// Readings by the name of the event, as `perf list` spells it.
pub type Readings = BTreeMap<String, Reading>;

/// Count of an event, or the reason for which there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A count, as the counter showed it.
    Counted {
        /// Events while the counter ran, not scaled.
        value: u64,
        /// Time the event was asked for.
        enabled_ns: u64,
        /// Time it was on a counter; less than `enabled_ns` if it shared the counter.
        running_ns: u64,
    },
    /// No count.
    Unavailable(Unavailable),
}

impl Reading {
    /// Returns events in the whole time asked for: extrapolated if the event shared its counter.
    #[must_use]
    pub fn scaled(&self) -> Option<f64> {
        match *self {
            Self::Counted { value, enabled_ns, running_ns } => {
                Some(value as f64 * (enabled_ns as f64 / running_ns as f64))
            }
            Self::Unavailable(_) => None,
        }
    }

    /// Returns whether [`scaled`](Self::scaled) extrapolates.
    #[must_use]
    pub fn is_multiplexed(&self) -> bool {
        matches!(self, Self::Counted { enabled_ns, running_ns, .. } if running_ns < enabled_ns)
    }

    /// Returns them in the form of the record.
    #[must_use]
    pub fn to_record(&self) -> cellbench_record::Counter {
        match self {
            &Self::Counted { value, enabled_ns, running_ns } => {
                cellbench_record::Counter::Counted { value, enabled_ns, running_ns }
            }
            Self::Unavailable(reason) => {
                cellbench_record::Counter::Unavailable { unavailable: reason.to_string() }
            }
        }
    }

    fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (
                Self::Counted { value, enabled_ns, running_ns },
                Self::Counted { value: value2, enabled_ns: enabled2_ns, running_ns: running2_ns },
            ) => Self::Counted {
                value: value + value2,
                enabled_ns: enabled_ns + enabled2_ns,
                running_ns: running_ns + running2_ns,
            },
            (reason @ Self::Unavailable(_), _) | (_, reason) => reason.clone(),
        }
    }

    /// Returns a count from what perf reports; an event that never ran has none.
    fn from_times(value: u64, enabled_ns: u64, running_ns: u64) -> Self {
        if running_ns == 0 {
            Self::Unavailable(Unavailable::NeverRan)
        } else {
            Self::Counted { value, enabled_ns, running_ns }
        }
    }
}

/// Returns the counters of several threads as one record: sums of counts and of times. An event
/// that one
/// thread could not count has no sum.
pub fn sum<'a>(
    threads: impl IntoIterator<Item = &'a Readings>,
) -> BTreeMap<String, cellbench_record::Counter> {
    let mut sums: BTreeMap<&String, Reading> = BTreeMap::new();
    for (name, reading) in threads.into_iter().flatten() {
        match sums.get_mut(name) {
            None => {
                sums.insert(name, reading.clone());
            }
            Some(sum) => *sum = sum.plus(reading),
        }
    }
    sums.into_iter().map(|(name, sum)| (name.clone(), sum.to_record())).collect()
}

/// Why an event has no count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The kernel offers no PMU of this CPU, as in most virtual machines.
    #[error(
        "no PMU: the kernel offers none (usual in a virtual machine); measure on bare metal, or give the guest a virtual PMU"
    )]
    NoPmu,
    /// The paranoia level forbids it.
    #[error(
        "denied by kernel.perf_event_paranoid={level}; as root: sysctl kernel.perf_event_paranoid={needed}"
    )]
    Paranoid {
        /// Level in force.
        level: i64,
        /// Highest level that allows the event.
        needed: i64,
    },
    /// Denied although the paranoia level allows it: a seccomp filter or security module.
    #[error(
        "denied by a seccomp filter or security module; allow perf_event_open or CAP_PERFMON in the container"
    )]
    Denied,
    /// The kernel has no `perf_event_open`.
    #[error("the kernel has no perf_event_open (CONFIG_PERF_EVENTS); boot one that has")]
    NoPerf,
    /// No table for this CPU.
    #[error("no event table for this CPU ({cpu}); add one to host/events")]
    UnknownCpu {
        /// The CPU, as it names itself.
        cpu: String,
    },
    /// The PMU does not know the event, or not in this form.
    #[error("this PMU does not offer the event ({what})")]
    Unsupported {
        /// Error that the kernel returned, in words.
        what: String,
    },
    /// All counters are taken, by the NMI watchdog or another profiler.
    #[error(
        "all hardware counters are taken; stop other profilers, or as root: sysctl kernel.nmi_watchdog=0"
    )]
    Busy,
    /// Accepted, but never on a counter while the thread ran.
    #[error(
        "the event was never on a hardware counter in this time; stop other profilers, or measure longer"
    )]
    NeverRan,
    /// The kernel keeps no such account.
    #[error("the kernel keeps no such account of a thread ({missing} is missing)")]
    NoAccount {
        /// File it would be in.
        missing: &'static str,
    },
    /// Anything else.
    #[error("perf_event_open: {what}")]
    Failed {
        /// Error that the kernel returned, in words.
        what: String,
    },
}

impl Unavailable {
    /// Explains the error of `perf_event_open(2)` for an event that needs a paranoia level of at most
    /// `needed` when unprivileged; `has_pmu` tells whether the kernel has a PMU for the CPU.
    #[must_use]
    pub fn from_error(error: &std::io::Error, roots: &Roots, needed: i64, has_pmu: bool) -> Self {
        let what = error.to_string();
        match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => {
                match roots.proc_value("sys/kernel/perf_event_paranoid") {
                    Some(level) if level > needed => Self::Paranoid { level, needed },
                    _ => Self::Denied,
                }
            }
            Some(libc::ENOSYS) => Self::NoPerf,
            Some(libc::EBUSY) => Self::Busy,
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EOPNOTSUPP | libc::EINVAL) => {
                if has_pmu {
                    Self::Unsupported { what }
                } else {
                    Self::NoPmu
                }
            }
            // `perf_event_open` of the crate turns E2BIG into an error without a number.
            None if error.kind() == std::io::ErrorKind::Unsupported => Self::Unsupported { what },
            _ => Self::Failed { what },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_scaled_by_the_time_they_ran_and_say_so() {
        let whole = Reading::from_times(100, 50, 50);
        assert_eq!((whole.scaled(), whole.is_multiplexed()), (Some(100.0), false));
        let half = Reading::from_times(100, 50, 25);
        assert_eq!((half.scaled(), half.is_multiplexed()), (Some(200.0), true));
        assert_eq!(half.to_record().scaled(), Some(200.0));
    }

    #[test]
    fn an_event_that_never_ran_is_unknown_and_not_zero() {
        let never = Reading::from_times(0, 50, 0);
        assert_eq!(never, Reading::Unavailable(Unavailable::NeverRan));
        assert_eq!(never.scaled(), None);
        assert_eq!(never.to_record().scaled(), None);
    }

    #[test]
    fn a_sum_over_threads_needs_every_thread() {
        let count = |value| Reading::from_times(value, 50, 25);
        let never = Reading::from_times(0, 50, 0);
        let thread = |cycles, misses: &Reading| {
            Readings::from([("cycles".into(), count(cycles)), ("misses".into(), misses.clone())])
        };
        let sums = sum(&[thread(10, &count(1)), thread(20, &never), thread(30, &count(3))]);
        assert_eq!(sums["cycles"].scaled(), Some(120.0));
        assert!(matches!(sums["misses"], cellbench_record::Counter::Unavailable { .. }));
    }

    #[test]
    fn every_denial_gets_its_own_reason() {
        let proc = tempfile::tempdir().unwrap();
        let kernel = proc.path().join("sys/kernel");
        std::fs::create_dir_all(&kernel).unwrap();
        std::fs::write(kernel.join("perf_event_paranoid"), "3\n").unwrap();
        let roots = Roots::at("/nonexistent", proc.path());
        let reason = |errno, needed, has_pmu| {
            let error = std::io::Error::from_raw_os_error(errno);
            Unavailable::from_error(&error, &roots, needed, has_pmu)
        };
        assert_eq!(reason(libc::EACCES, 2, true), Unavailable::Paranoid { level: 3, needed: 2 });
        assert!(
            reason(libc::EACCES, 2, true)
                .to_string()
                .contains("sysctl kernel.perf_event_paranoid=2")
        );
        assert_eq!(reason(libc::EPERM, 3, true), Unavailable::Denied);
        assert_eq!(reason(libc::ENOENT, 2, false), Unavailable::NoPmu);
        assert!(matches!(reason(libc::ENOENT, 2, true), Unavailable::Unsupported { .. }));
        assert_eq!(reason(libc::ENOSYS, 2, true), Unavailable::NoPerf);
        assert_eq!(reason(libc::EBUSY, 2, true), Unavailable::Busy);
        assert!(matches!(reason(libc::EMFILE, 2, true), Unavailable::Failed { .. }));
    }
}
