//! Disturbances of a thread or a round: switches, migrations, waiting for a CPU, steal.
//!
//! From the kernel's own accounting, which is always there: no PMU and no privilege needed. A
//! disturbed round is dropped for all cells that are compared in it, counted and reported.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::time::Duration;

use cellbench_record::Round;

use super::cpus::CpuSet;
use super::roots::Roots;

/// Disturbances of one thread between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadDisturbance {
    /// Times the thread gave up the CPU to wait.
    pub voluntary_switches: u64,
    /// Times the CPU was taken from it.
    pub involuntary_switches: u64,
    /// Times it changed CPU; `None` where the kernel does not tell (`/proc/PID/sched` absent).
    pub migrations: Option<u64>,
    /// Time it was runnable without a CPU; `None` without `/proc/PID/schedstat`.
    pub runqueue_wait_ns: Option<u64>,
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that needed I/O.
    pub major_faults: u64,
}

/// A measured thread may be without its CPU for this share of its window.
const WAIT_LIMIT_SHARE: f64 = 0.02;

impl ThreadDisturbance {
    /// Returns whether the thread was without its CPU for more of a window than a measurement can
    /// bear; where
    /// the kernel does not tell for how long, whether the CPU was taken from it at all.
    #[must_use]
    pub fn lost_its_cpu(&self, window: Duration) -> bool {
        self.runqueue_wait_ns.map_or(self.involuntary_switches > 0, |wait_ns| {
            wait_ns as f64 > window.as_nanos() as f64 * WAIT_LIMIT_SHARE
        })
    }
}

/// Start of a thread's interval. Stays on the thread that made it, whose accounts it reads.
#[derive(Debug)]
pub struct ThreadProbe {
    start: ThreadDisturbance,
    on_this_thread: PhantomData<*const ()>,
}

impl ThreadProbe {
    /// Begins the interval of the calling thread.
    #[must_use]
    pub fn start() -> Self {
        Self { start: accounts(&Roots::live()), on_this_thread: PhantomData }
    }

    /// Returns what happened to the calling thread since the start.
    #[must_use]
    pub fn stop(&self) -> ThreadDisturbance {
        let (start, end) = (self.start, accounts(&Roots::live()));
        let since = |end: Option<u64>, start: Option<u64>| Some(end?.saturating_sub(start?));
        ThreadDisturbance {
            voluntary_switches: end.voluntary_switches - start.voluntary_switches,
            involuntary_switches: end.involuntary_switches - start.involuntary_switches,
            migrations: since(end.migrations, start.migrations),
            runqueue_wait_ns: since(end.runqueue_wait_ns, start.runqueue_wait_ns),
            minor_faults: end.minor_faults - start.minor_faults,
            major_faults: end.major_faults - start.major_faults,
        }
    }
}

/// Returns the calling thread's totals since it began.
fn accounts(roots: &Roots) -> ThreadDisturbance {
    let usage = thread_usage();
    let count = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
    ThreadDisturbance {
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
        migrations: roots.proc("thread-self/sched").and_then(|text| migrations(&text)),
        runqueue_wait_ns: roots.proc("thread-self/schedstat").and_then(|text| runqueue_wait(&text)),
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
    }
}

fn thread_usage() -> libc::rusage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable memory of the right type. With RUSAGE_THREAD and a valid pointer
    // the call cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: zeroes are a valid rusage, and the kernel has filled it.
    unsafe { usage.assume_init() }
}

/// Reads the text of `/proc/PID/sched`.
fn migrations(sched: &str) -> Option<u64> {
    let line = sched.lines().find(|line| line.starts_with("se.nr_migrations"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

/// Returns the second of the three numbers of `/proc/PID/schedstat`
/// (`Documentation/scheduler/sched-stats.rst`).
fn runqueue_wait(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

/// Disturbances on the CPUs of a round between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundDisturbance {
    /// Time the hypervisor ran something else while a CPU was ready, summed over the CPUs. In the
    /// kernel's ticks, so usually multiples of 10 ms. `None` if `/proc/stat` is not readable.
    pub steal_ns: Option<u64>,
}

/// Start of a round's interval on some CPUs.
#[derive(Clone, Debug)]
pub struct RoundProbe {
    cpus: CpuSet,
    start_ticks: Option<u64>,
}

impl RoundProbe {
    /// Begins the interval of `cpus`.
    #[must_use]
    pub fn start(cpus: CpuSet) -> Self {
        let start_ticks = steal_ticks(&cpus);
        Self { cpus, start_ticks }
    }

    /// Returns what happened on the CPUs since the start.
    #[must_use]
    pub fn stop(&self) -> RoundDisturbance {
        let ticks = steal_ticks(&self.cpus).zip(self.start_ticks);
        RoundDisturbance {
            steal_ns: ticks.map(|(end, start)| end.saturating_sub(start) * ns_per_tick()),
        }
    }
}

/// Notes in `round` what disturbed its threads and CPUs, and whether that makes it one that must
/// not
/// count. The one definition for every source of rounds: the hypervisor took time, a thread moved
/// to
/// another CPU, or a thread was without its CPU for too much of the window. `shares_cpus`: the
/// threads share their CPUs with each other, or with others of the workload, on purpose; then the
/// last does not disturb.
pub fn note(
    round: &mut Round,
    threads: &[ThreadDisturbance],
    host: RoundDisturbance,
    shares_cpus: bool,
) {
    let sum = |of: fn(&ThreadDisturbance) -> Option<u64>| threads.iter().map(of).sum();
    round.context_switches_voluntary = sum(|thread| Some(thread.voluntary_switches));
    round.context_switches_involuntary = sum(|thread| Some(thread.involuntary_switches));
    round.migrations = sum(|thread| thread.migrations);
    round.steal_ns = host.steal_ns;
    if let Some(steal_ns) = host.steal_ns.filter(|steal_ns| *steal_ns > 0) {
        round.disturbed.push(format!("the hypervisor took {} ms", steal_ns / 1_000_000));
    }
    let migrations: u64 = threads.iter().filter_map(|thread| thread.migrations).sum();
    if migrations > 0 {
        round.disturbed.push(format!("workers moved to other CPUs {migrations} times"));
    }
    let window = Duration::from_secs_f64(round.duration_s);
    if !shares_cpus && threads.iter().any(|thread| thread.lost_its_cpu(window)) {
        round.disturbed.push(match threads.iter().map(|thread| thread.runqueue_wait_ns).max() {
            Some(Some(wait_ns)) => format!("a worker waited {} us for its CPU", wait_ns / 1000),
            _ => {
                let switches: u64 = threads.iter().map(|thread| thread.involuntary_switches).sum();
                format!("workers lost their CPU {switches} times")
            }
        });
    }
}

fn steal_ticks(cpus: &CpuSet) -> Option<u64> {
    let times = CpuTimes::read_all(&Roots::live())?;
    Some(times.iter().filter(|times| cpus.contains(times.cpu)).map(|times| times.steal).sum())
}

/// Returns the length of a tick of `/proc/stat`.
fn ns_per_tick() -> u64 {
    // SAFETY: no memory is touched; the value is a constant of the system.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(ticks_per_s).unwrap_or(100).max(1)
}

/// A CPU's line in `/proc/stat`, in ticks since boot (proc_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    /// CPU of the line.
    pub cpu: super::cpus::CpuId,
    /// Everything but idle, waiting for I/O and stolen.
    pub busy: u64,
    /// Idle and waiting for I/O.
    pub idle: u64,
    /// Stolen by the hypervisor.
    pub steal: u64,
}

impl CpuTimes {
    /// Returns the lines of all CPUs; `None` if `stat` is missing or malformed.
    #[must_use]
    pub fn read_all(roots: &Roots) -> Option<Vec<Self>> {
        let stat = roots.proc("stat")?;
        let per_cpu = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let times: Option<Vec<Self>> = stat.lines().filter(per_cpu).map(Self::parse).collect();
        times.filter(|times| !times.is_empty())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("cpu")?.split_whitespace();
        let cpu = super::cpus::CpuId(fields.next()?.parse().ok()?);
        // user nice system idle iowait irq softirq steal; guest times are contained in user's.
        let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let &[user, nice, system, idle, iowait, irq, softirq, steal] = ticks.as_slice() else {
            return None;
        };
        Some(Self { cpu, busy: user + nice + system + irq + softirq, idle: idle + iowait, steal })
    }
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Kind, Series, Source};

    use super::*;
    use crate::cpus::CpuId;

    #[test]
    fn the_kernels_texts_are_understood() {
        let sched =
            "cat (1, #threads: 1)\n---\nse.vruntime      :   1.5\nse.nr_migrations   :     7\n";
        assert_eq!(migrations(sched), Some(7));
        assert_eq!(migrations("nothing"), None);
        assert_eq!(runqueue_wait("123 456 7\n"), Some(456));
        assert_eq!(runqueue_wait(""), None);
        let times = CpuTimes::parse("cpu12 1 2 3 40 5 6 7 8 9 10").unwrap();
        assert_eq!(times, CpuTimes { cpu: CpuId(12), busy: 19, idle: 45, steal: 8 });
        assert_eq!(CpuTimes::parse("cpu0 1 2 3"), None);
    }

    #[test]
    fn waiting_and_touching_memory_are_counted() {
        let probe = ThreadProbe::start();
        std::thread::sleep(std::time::Duration::from_micros(1));
        let touched = vec![1_u8; 4 << 20];
        let disturbance = probe.stop();
        assert!(touched.iter().all(|&byte| byte == 1));
        assert!(disturbance.voluntary_switches >= 1, "{disturbance:?}");
        assert!(disturbance.minor_faults >= 1, "{disturbance:?}");
    }

    #[test]
    fn whatever_disturbs_a_round_is_noted_with_its_amount() {
        let noted = |thread: ThreadDisturbance, steal_ns, shares_cpus| {
            let series = Series::new("a", Kind::Timer, "same-cell", 1, "compact", Source::Model);
            let mut round = Round::new(series, 0, 0.01);
            note(&mut round, &[thread], RoundDisturbance { steal_ns }, shares_cpus);
            assert_eq!(round.steal_ns, steal_ns);
            assert_eq!(round.context_switches_involuntary, Some(1));
            round.disturbed.join("; ")
        };
        let quiet = ThreadDisturbance {
            migrations: Some(0),
            runqueue_wait_ns: Some(100_000),
            involuntary_switches: 1,
            ..ThreadDisturbance::default()
        };
        assert_eq!(noted(quiet, Some(0), false), "");
        assert_eq!(noted(quiet, None, false), "", "unknown steal is not a disturbance");
        assert!(noted(quiet, Some(10_000_000), false).contains("10 ms"));
        let waited = ThreadDisturbance { runqueue_wait_ns: Some(300_000), ..quiet };
        assert!(noted(waited, Some(0), false).contains("300 us"));
        assert_eq!(noted(waited, Some(0), true), "", "sharing the CPU is what is measured");
        let moved = ThreadDisturbance { migrations: Some(2), ..quiet };
        assert!(noted(moved, Some(0), true).contains("2 times"));
        let unknown_wait = ThreadDisturbance { runqueue_wait_ns: None, ..quiet };
        assert!(noted(unknown_wait, Some(0), false).contains("lost their CPU 1 times"));
    }

    #[test]
    fn steal_is_summed_over_the_cpus_asked_for() {
        let online = crate::affinity::current().unwrap();
        let nothing = RoundProbe::start(CpuSet::new()).stop();
        assert!(nothing.steal_ns.is_none_or(|ns| ns == 0));
        let all = RoundProbe::start(online).stop();
        assert_eq!(all.steal_ns.is_some(), nothing.steal_ns.is_some());
    }
}
