//! What else happened on the CPUs while a thread measured: preemptions, and time the host took.

use std::fs;

/// Context switches of the calling thread since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

impl Switches {
    /// None if the kernel does not tell.
    pub(crate) fn of_this_thread() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/thread-self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some(Self {
            voluntary: field("voluntary_ctxt_switches:")?,
            involuntary: field("nonvoluntary_ctxt_switches:")?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }
}

/// Time stolen from `cpus` since boot; none if the kernel does not tell.
pub(crate) fn steal_ns(cpus: &[u32]) -> Option<u64> {
    steal_in(&fs::read_to_string("/proc/stat").ok()?, cpus)
}

/// The eighth column of a `cpuN` line, in ticks of USER_HZ, which is 100 on every architecture we know.
fn steal_in(stat: &str, cpus: &[u32]) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    cpus.iter()
        .map(|cpu| {
            let name = format!("cpu{cpu}");
            let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
            line.split_whitespace().nth(8)?.parse::<u64>().ok()
        })
        .try_fold(0, |sum, ticks| Some(sum + ticks? * TICK_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        let switches = Switches::parse(status).unwrap();
        assert_eq!(switches, Switches { voluntary: 7, involuntary: 3 });
        assert_eq!(Switches::parse("Name:\tx\n"), None);
        let before = Switches { voluntary: 2, involuntary: 3 };
        assert_eq!(switches.since(before), Switches { voluntary: 5, involuntary: 0 });
    }

    #[test]
    fn steal_is_summed_over_the_cpus_used() {
        let stat = "cpu  9 9 9 9 9 9 9 99 0 0\ncpu0 1 2 3 4 5 6 7 2 0 0\ncpu1 1 2 3 4 5 6 7 3 0 0\n\
                    cpu10 1 2 3 4 5 6 7 40 0 0\nintr 1\n";
        assert_eq!(steal_in(stat, &[1]), Some(30_000_000));
        assert_eq!(steal_in(stat, &[0, 10]), Some(420_000_000));
        assert_eq!(steal_in(stat, &[2]), None);
    }
}
