//! Counts of a batch of attempts, by operation and outcome.

use std::collections::BTreeMap;

use cellbench_record::OK;

/// Names of the operations, in the order of `enum op` in `src/bpf/cell.h`.
#[cfg(feature = "bpf")]
pub(crate) const OPS: [&str; 11] = [
    "empty",
    "init",
    "set_callback",
    "start",
    "cancel",
    "cancel_async",
    "update",
    "schedule",
    "lock",
    "callback",
    "drain",
];

/// Errnos kept apart, as `NR_ERRNOS` in `src/bpf/cell.h`.
#[cfg(feature = "bpf")]
pub(crate) const ERRNOS: usize = 128;

/// Returns the kernel's name of an errno, for those that the measured operations return.
#[must_use]
pub fn errno_name(errno: u32) -> String {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        7 => "E2BIG",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        14 => "EFAULT",
        16 => "EBUSY",
        22 => "EINVAL",
        28 => "ENOSPC",
        35 => "EDEADLK",
        95 => "EOPNOTSUPP",
        110 => "ETIMEDOUT",
        125 => "ECANCELED",
        other => return format!("errno {other}"),
    };
    name.to_owned()
}

/// Outcomes of attempts, and the time they took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operation to outcome (`ok` or errno) to attempts. Operations never attempted are absent.
    pub ops: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Time inside the programs, from before the first attempt of each entry to after its last.
    pub elapsed_ns: u64,
    /// Times a program was entered.
    pub entries: u64,
    /// End of the last attempt, on the kernel's monotonic clock.
    pub ended_ns: u64,
}

impl Counts {
    /// Adds attempts.
    pub(crate) fn add(&mut self, op: &'static str, outcome: &str, count: u64) {
        if count == 0 {
            return;
        }
        let outcomes = self.ops.entry(op).or_default();
        match outcomes.get_mut(outcome) {
            Some(total) => *total += count,
            None => {
                outcomes.insert(outcome.to_owned(), count);
            }
        }
    }

    /// Adds what another thread counted. Times add up too: CPU time, not wall time.
    pub fn merge(&mut self, other: &Self) {
        for (op, outcomes) in &other.ops {
            for (outcome, count) in outcomes {
                self.add(op, outcome, *count);
            }
        }
        self.elapsed_ns += other.elapsed_ns;
        self.entries += other.entries;
        self.ended_ns = self.ended_ns.max(other.ended_ns);
    }

    /// Attempts of all operations.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.ops.values().flat_map(BTreeMap::values).sum()
    }

    /// Attempts of all operations that succeeded.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.ops.values().filter_map(|outcomes| outcomes.get(OK)).sum()
    }

    /// Attempts of `op` that ended as `outcome`.
    #[must_use]
    pub fn of(&self, op: &str, outcome: &str) -> u64 {
        self.ops.get(op).and_then(|outcomes| outcomes.get(outcome)).copied().unwrap_or(0)
    }

    /// Returns the time per attempt of one thread; none without attempts.
    #[must_use]
    pub fn ns_per_attempt(&self) -> Option<f64> {
        let attempts = self.attempts();
        (attempts > 0).then(|| self.elapsed_ns as f64 / attempts as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_add_up() {
        let mut counts = Counts { elapsed_ns: 100, entries: 1, ended_ns: 7, ..Counts::default() };
        counts.add("start", OK, 3);
        counts.add("start", "EBUSY", 1);
        counts.add("cancel", OK, 0);
        let copy = counts.clone();
        counts.merge(&copy);
        assert_eq!((counts.attempts(), counts.ok()), (8, 6));
        assert_eq!(counts.of("start", "EBUSY"), 2);
        assert_eq!(counts.of("cancel", OK), 0);
        assert!(!counts.ops.contains_key("cancel"));
        assert_eq!((counts.elapsed_ns, counts.entries, counts.ended_ns), (200, 2, 7));
        assert_eq!(counts.ns_per_attempt(), Some(25.0));
        assert_eq!(Counts::default().ns_per_attempt(), None);
    }

    #[test]
    fn unknown_errnos_keep_their_number() {
        assert_eq!(errno_name(35), "EDEADLK");
        assert_eq!(errno_name(77), "errno 77");
    }
}
