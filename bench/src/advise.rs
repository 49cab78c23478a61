//! Which design to choose for a described use: what is ruled out and why, which workload is nearest to
//! the use, and the ranking of the others by figures that were measured or simulated.
//!
//! The figures are those of rows, whatever they come from; this module measures nothing.

use cellbench_impls::cell::CellKind;
use cellbench_impls::lock::GivesUp;
use cellbench_impls::platform::Native;
use cellbench_impls::registry::{CELLS, LOCKS, LockVisitor, visit_lock};
use cellbench_impls::{Context, Lock, Platform};
use cellbench_record::{Entry, Kind};
use serde::Serialize;

/// A row is served evenly if its Jain index is at least this: of two workers one then has at most
/// twice the other's operations.
const EVEN_JAIN: f64 = 0.9;

/// A use to advise on: threads, lengths, contexts, and what an operation may do.
#[derive(Clone, Debug)]
pub struct Use {
    /// Threads that work on one object.
    pub threads: u32,
    /// Length of a critical section, in nanoseconds.
    pub section_ns: u32,
    /// Time between two sections of a thread, in nanoseconds.
    pub outside_ns: u32,
    /// Percentage of operations that only start what others set up. None: a lock is wanted and not a
    /// cell.
    pub readers_percent: Option<u32>,
    /// Contexts in which operations are made.
    pub contexts: Vec<Context>,
    /// Whether an operation may fail (EBUSY) where another is in the way.
    pub may_fail: bool,
    /// Whether all threads must be served alike.
    pub even: bool,
}

/// A design that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Name of the cell or lock.
    pub id: String,
    /// Reason that rules the design out; none if it can be used.
    pub ruled_out: Option<String>,
}

/// A design with the figures that it is ranked by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Name of the cell or lock.
    pub id: String,
    /// Successful operations a second, all threads together.
    pub goodput_ops_s: f64,
    /// 95 % interval of the goodput, where there are rounds enough.
    pub interval_ops_s: Option<(f64, f64)>,
    /// Jain's index of the threads' shares: 1 if all are equal.
    pub fairness_jain: Option<f64>,
    /// Share of attempts that failed.
    pub failure_share: Option<f64>,
    /// 99th percentile of an operation, in nanoseconds.
    pub p99_ns: Option<f64>,
    /// Whether its interval reaches that of the first: the figures do not tell the two apart.
    pub ties_with_first: bool,
}

/// Properties of a lock's type.
struct Properties {
    gives_up: GivesUp,
    sleeps: bool,
}

/// Reads the properties of the lock that is visited.
struct ReadProperties;

impl<P: Platform> LockVisitor<P> for ReadProperties {
    type Output = Properties;

    fn visit<L: Lock<P>>(self) -> Properties {
        Properties { gives_up: L::GIVES_UP, sleeps: L::SLEEPS }
    }
}

impl Use {
    /// Returns the kind of the designs that come into question.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.readers_percent.is_some() { Kind::Timer } else { Kind::Lock }
    }

    /// Returns every design of the kind, with what rules it out.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let in_context = |context| self.contexts.contains(&context);
        let interrupts = in_context(Context::Hardirq) || in_context(Context::Nmi);
        if self.readers_percent.is_some() {
            let cells = CELLS.iter().filter(|cell| cell.kind == CellKind::Timer);
            let check = |promises: cellbench_impls::cell::Promises| {
                let works = promises.update_in_nmi && promises.start_in_nmi;
                (in_context(Context::Nmi) && !works)
                    .then(|| "refuses or hangs in NMI context".to_owned())
            };
            return cells
                .map(|cell| Candidate { id: cell.id.into(), ruled_out: check(cell.promises) })
                .collect();
        }
        let check = |id: &str| {
            let Properties { gives_up, sleeps } = visit_lock::<Native, _>(id, ReadProperties)?;
            let reason = match gives_up {
                GivesUp::Never if in_context(Context::Nmi) => {
                    "an NMI that meets its own CPU's section waits for ever"
                }
                GivesUp::AtOnce if !self.may_fail => "fails instead of waiting (EBUSY)",
                _ if sleeps && interrupts => "its waiters sleep, which handlers must not",
                _ => return None,
            };
            Some(reason.to_owned())
        };
        LOCKS
            .iter()
            .map(|lock| Candidate { id: lock.id.into(), ruled_out: check(lock.id) })
            .collect()
    }

    /// Returns the workload of the suite that is nearest to the use.
    #[must_use]
    pub fn workload(&self) -> &'static str {
        if let Some(readers) = self.readers_percent {
            return match readers {
                95.. => "start-mostly-99",
                50.. => "start-mostly-90",
                _ if self.may_fail => "same-cell",
                _ => "same-cell-retry",
            };
        }
        /// Workloads on one lock: length of the section and time outside, in nanoseconds.
        const LOCKED: [(&str, u32, u32); 5] = [
            ("lock-0ns", 0, 0),
            ("lock-50ns", 50, 0),
            ("lock-500ns", 500, 0),
            ("lock-outside-500ns", 50, 500),
            ("lock-outside-5us", 50, 5_000),
        ];
        // Ratios count, and a few nanoseconds are the lock's own.
        let apart = |a: u32, b: u32| (f64::from(a + 20) / f64::from(b + 20)).ln().abs();
        let distance = |(_, section, outside): &(&str, u32, u32)| {
            apart(*section, self.section_ns) + apart(*outside, self.outside_ns)
        };
        let nearest = LOCKED.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.expect("a list with entries").0
    }

    /// Ranks the rows of the use's workload with so many threads, best first; rows of designs that
    /// `may_rank` refuses, with a broken invariant or without goodput are left out.
    #[must_use]
    pub fn rank(
        &self,
        entries: &[Entry],
        threads: u32,
        may_rank: impl Fn(&str) -> bool,
    ) -> Vec<Ranked> {
        let (kind, workload) = (self.kind(), self.workload());
        let mut ranked: Vec<Ranked> = entries
            .iter()
            .filter(|entry| {
                let series = &entry.series;
                series.kind == kind
                    && series.workload == workload
                    && series.threads == threads
                    && entry.violations.is_empty()
                    && may_rank(&series.cell)
                    && (!self.even || entry.fairness_jain.is_none_or(|jain| jain >= EVEN_JAIN))
            })
            .filter_map(|entry| {
                let goodput_ops_s = entry.goodput_ops_s.filter(|goodput| *goodput > 0.0)?;
                Some(Ranked {
                    id: entry.series.cell.clone(),
                    goodput_ops_s,
                    interval_ops_s: entry.goodput_low_ops_s.zip(entry.goodput_high_ops_s),
                    fairness_jain: entry.fairness_jain,
                    failure_share: entry.failure_share,
                    p99_ns: entry.p99_ns,
                    ties_with_first: false,
                })
            })
            .collect();
        ranked.sort_by(|a, b| b.goodput_ops_s.total_cmp(&a.goodput_ops_s));
        if let Some(first) = ranked.first().and_then(|first| first.interval_ops_s) {
            for other in &mut ranked[1..] {
                // Without an interval nothing is told apart.
                other.ties_with_first =
                    other.interval_ops_s.is_none_or(|(_, high)| high >= first.0);
            }
        }
        ranked
    }
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Series, Source};

    use super::*;

    fn plain() -> Use {
        Use {
            threads: 4,
            section_ns: 50,
            outside_ns: 0,
            readers_percent: None,
            contexts: vec![Context::Task],
            may_fail: false,
            even: false,
        }
    }

    fn reason(of: &Use, id: &str) -> Option<String> {
        let found = of.candidates().into_iter().find(|candidate| candidate.id == id);
        found.unwrap_or_else(|| panic!("{id} is a candidate")).ruled_out
    }

    #[test]
    fn what_cannot_be_used_is_ruled_out_with_its_reason() {
        let nmi = Use { contexts: vec![Context::Task, Context::Nmi], ..plain() };
        assert!(reason(&nmi, "spin-queued").unwrap().contains("NMI"));
        assert_eq!(reason(&nmi, "rqspin"), None);
        assert_eq!(reason(&plain(), "spin-queued"), None);
        assert!(reason(&plain(), "guard-try").unwrap().contains("EBUSY"));
        assert_eq!(reason(&Use { may_fail: true, ..plain() }, "guard-try"), None);
        let hardirq = Use { contexts: vec![Context::Hardirq], ..plain() };
        assert!(reason(&hardirq, "futex-mutex").unwrap().contains("sleep"));
        let cell = Use { readers_percent: Some(99), ..nmi };
        assert!(reason(&cell, "spin-queued").unwrap().contains("NMI"));
        assert_eq!(reason(&cell, "cmd-queue"), None);
    }

    #[test]
    fn the_nearest_workload_is_taken() {
        let nearest = |section_ns, outside_ns| Use { section_ns, outside_ns, ..plain() }.workload();
        assert_eq!(nearest(0, 0), "lock-0ns");
        assert_eq!(nearest(80, 10), "lock-50ns");
        assert_eq!(nearest(2_000, 0), "lock-500ns");
        assert_eq!(nearest(50, 400), "lock-outside-500ns");
        assert_eq!(nearest(10, 20_000), "lock-outside-5us");
        let readers = |percent| Use { readers_percent: Some(percent), ..plain() }.workload();
        assert_eq!(
            [99, 80, 10].map(readers),
            ["start-mostly-99", "start-mostly-90", "same-cell-retry"]
        );
    }

    #[test]
    fn rows_are_ranked_and_ties_are_called_so() {
        let entry = |cell: &str, goodput: f64, jain| {
            let series = Series::new(cell, Kind::Lock, "lock-50ns", 4, "compact", Source::Sim);
            Entry {
                goodput_ops_s: Some(goodput),
                goodput_low_ops_s: Some(goodput * 0.9),
                goodput_high_ops_s: Some(goodput * 1.1),
                fairness_jain: Some(jain),
                ..Entry::new(series)
            }
        };
        let rows = [
            entry("mcs", 10.0, 1.0),
            entry("spin-tas", 20.0, 0.5),
            entry("clh", 9.5, 1.0),
            entry("ticket", 5.0, 1.0),
        ];
        let order = |of: &Use| -> Vec<(String, bool)> {
            let ranked = of.rank(&rows, 4, |id| id != "ticket");
            ranked.into_iter().map(|row| (row.id, row.ties_with_first)).collect()
        };
        let named = |names: &[(&str, bool)]| -> Vec<(String, bool)> {
            names.iter().map(|(name, ties)| ((*name).to_owned(), *ties)).collect()
        };
        assert_eq!(order(&plain()), named(&[("spin-tas", false), ("mcs", false), ("clh", false)]));
        let even = Use { even: true, ..plain() };
        assert_eq!(order(&even), named(&[("mcs", false), ("clh", true)]));
        assert!(plain().rank(&rows, 8, |_| true).is_empty());
    }
}
