//! Activity on the host between two moments: busy CPUs, stolen time, other programs' threads, thermal
//! throttling.

use std::collections::BTreeMap;

use crate::cpus::{CpuId, CpuSet};
use crate::disturbance::CpuTimes;
use crate::roots::Roots;
use crate::topology::Topology;

/// Flag of a kernel thread in `/proc/PID/stat` (proc_pid_stat(5); PF_KTHREAD).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Counters of the host at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    cpus: Vec<CpuTimes>,
    /// CPU time in ticks of every user thread, by process and thread.
    threads: BTreeMap<(u32, u32), u64>,
    throttled: Option<u64>,
}

/// Difference between two snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Share of time each CPU was busy, 0 to 1.
    pub busy: BTreeMap<CpuId, f64>,
    /// Share of time each CPU was stolen by the hypervisor, 0 to 1.
    pub stolen: BTreeMap<CpuId, f64>,
    /// Other programs' threads that ran, most CPU time first.
    pub tasks: Vec<Task>,
    /// Thermal throttling events; `None` where the CPU does not count them.
    pub throttled: Option<u64>,
    /// Thermal throttling events since boot.
    pub throttled_since_boot: Option<u64>,
}

/// A thread of another program that used CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Process ID of the thread's program.
    pub pid: u32,
    /// Thread ID within the system.
    pub tid: u32,
    /// Name of the thread.
    pub name: String,
    /// CPU time as a share of one CPU's time.
    pub cpu_share: f64,
    /// CPUs it may run on.
    pub allowed: CpuSet,
}

impl Snapshot {
    /// Reads all counters; what cannot be read is absent.
    #[must_use]
    pub fn take(roots: &Roots, topology: &Topology) -> Self {
        let numbers = |names: Vec<String>| names.into_iter().filter_map(|name| name.parse().ok());
        let mut threads = BTreeMap::new();
        for pid in numbers(roots.proc_names("")) {
            for tid in numbers(roots.proc_names(&format!("{pid}/task"))) {
                let stat = roots.proc(&format!("{pid}/task/{tid}/stat"));
                if let Some(ticks) = stat.and_then(|stat| user_thread_ticks(&stat)) {
                    threads.insert((pid, tid), ticks);
                }
            }
        }
        Self {
            cpus: CpuTimes::read_all(roots).unwrap_or_default(),
            threads,
            throttled: throttled(roots, topology),
        }
    }
}

impl Activity {
    /// Returns what changed from `before` to `after`, leaving out the threads of process `own`.
    #[must_use]
    pub fn between(roots: &Roots, before: &Snapshot, after: &Snapshot, own: Option<u32>) -> Self {
        let mut activity = Self {
            throttled: after.throttled.zip(before.throttled).map(|(b, a)| b.saturating_sub(a)),
            throttled_since_boot: after.throttled,
            ..Self::default()
        };
        let mut elapsed_ticks = 0;
        for end in &after.cpus {
            let Some(start) = before.cpus.iter().find(|start| start.cpu == end.cpu) else {
                continue;
            };
            let since = |end: u64, start: u64| end.saturating_sub(start);
            let (busy, steal) = (since(end.busy, start.busy), since(end.steal, start.steal));
            let ticks = busy + steal + since(end.idle, start.idle);
            if ticks > 0 {
                activity.busy.insert(end.cpu, busy as f64 / ticks as f64);
                activity.stolen.insert(end.cpu, steal as f64 / ticks as f64);
                elapsed_ticks = elapsed_ticks.max(ticks);
            }
        }
        for (&(pid, tid), &end) in &after.threads {
            // A thread that began meanwhile has used all its time meanwhile.
            let ticks = end.saturating_sub(before.threads.get(&(pid, tid)).copied().unwrap_or(0));
            if ticks == 0 || elapsed_ticks == 0 || own == Some(pid) {
                continue;
            }
            let cpu_share = ticks as f64 / elapsed_ticks as f64;
            activity.tasks.extend(Task::read(roots, pid, tid, cpu_share));
        }
        activity.tasks.sort_by(|a, b| b.cpu_share.total_cmp(&a.cpu_share));
        activity
    }
}

impl Task {
    /// Returns the rest of a thread's description; `None` if it has ended.
    fn read(roots: &Roots, pid: u32, tid: u32, cpu_share: f64) -> Option<Self> {
        let status = roots.proc(&format!("{pid}/task/{tid}/status"))?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        Some(Self {
            pid,
            tid,
            name: field("Name:")?.trim().to_owned(),
            cpu_share,
            allowed: field("Cpus_allowed_list:")?.parse().ok()?,
        })
    }
}

/// Reads user and system time from the text of a `stat`; `None` for kernel threads.
fn user_thread_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may contain anything, so fields count from its end: state is 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let flags: u64 = fields.nth(9 - 3)?.parse().ok()?;
    let utime: u64 = fields.nth(14 - 10)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    (flags & KERNEL_THREAD == 0).then_some(utime + stime)
}

/// Counts throttling events of all cores and packages since boot (x86 only). The counters of a core and
/// of a package show at each of their CPUs; that siblings repeat them does not matter, since only
/// growth does.
fn throttled(roots: &Roots, topology: &Topology) -> Option<u64> {
    let counts = topology.online();
    let counts = counts.iter().flat_map(|cpu| {
        ["core_throttle_count", "package_throttle_count"].into_iter().filter_map(move |name| {
            roots.sys_value::<u64>(&format!("devices/system/cpu/cpu{cpu}/thermal_throttle/{name}"))
        })
    });
    counts.reduce(|sum, count| sum + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_times_are_found_behind_any_name() {
        let rest = "R 1 1 1 0 -1 4194304 5 0 0 0 120 30 0 0 20 0 1 0 100";
        assert_eq!(user_thread_ticks(&format!("7 (a b) ) c) {rest}")), Some(150));
        let kernel = rest.replace("4194304", "2129984");
        assert_eq!(user_thread_ticks(&format!("2 (kworker/0:1) {kernel}")), None);
        assert_eq!(user_thread_ticks("garbage"), None);
    }
}
