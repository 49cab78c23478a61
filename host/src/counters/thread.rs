//! The counters of the calling thread.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use perf_event::{Counter, Group};

use super::event::{EventSpec, Plan, Pmu};
use super::{Reading, Readings, Unavailable};
use crate::disturbance::{ThreadDisturbance, ThreadProbe};
use crate::roots::Roots;

/// Highest `perf_event_paranoid` at which user-space events of one's own thread are allowed.
const USER_PARANOIA: i64 = 2;
/// Highest at which kernel events of one's own thread are.
const KERNEL_PARANOIA: i64 = 1;

/// Open counters of the thread that opened them, on which they must be read.
pub struct ThreadCounters {
    groups: Vec<OpenGroup>,
    /// Kernel events that perf denies, served from the kernel's accounts instead.
    from_accounts: Vec<(String, Unavailable)>,
    unavailable: Vec<(String, Unavailable)>,
    accounts: Accounts,
    on_this_thread: PhantomData<*const ()>,
}

/// Events that are on their counters at the same time.
struct OpenGroup {
    group: Group,
    members: Vec<(String, Counter)>,
    /// Totals at the last start. Resetting the counters would not do: perf then zeroes the counts
    /// but not the times they are scaled by.
    base: Totals,
}

/// Totals of a group since it was opened.
#[derive(Default)]
struct Totals {
    enabled_ns: u64,
    running_ns: u64,
    /// By member; `None` if the kernel left it out.
    values: Vec<Option<u64>>,
}

/// The kernel's accounts of the thread over the time the counters are enabled.
struct Accounts {
    running: Option<(ThreadProbe, Instant)>,
    last: Option<(ThreadDisturbance, Duration)>,
}

impl ThreadCounters {
    /// Opens what can be opened of `plan` for the calling thread, stopped. Never fails: what
    /// cannot be opened has its reason in every reading.
    #[must_use]
    pub fn open(plan: &Plan) -> Self {
        let mut counters = Self {
            groups: Vec::new(),
            from_accounts: Vec::new(),
            unavailable: plan.without.clone(),
            accounts: Accounts { running: None, last: None },
            on_this_thread: PhantomData,
        };
        for events in &plan.groups {
            counters.open_group(events, plan.pmu());
        }
        counters
    }

    /// Returns why the event called `name` has no count; `None` if it has one, or is not in the
    /// plan.
    #[must_use]
    pub fn why_not(&self, name: &str) -> Option<&Unavailable> {
        self.unavailable.iter().find(|(event, _)| event == name).map(|(_, reason)| reason)
    }

    /// Begins counting from zero.
    ///
    /// # Errors
    /// If the kernel refuses to read or enable an open counter.
    pub fn start(&mut self) -> std::io::Result<()> {
        for open in &mut self.groups {
            open.base = open.totals()?;
        }
        self.accounts.last = None;
        self.accounts.running = Some((ThreadProbe::start(), Instant::now()));
        for open in &mut self.groups {
            open.group.enable()?;
        }
        Ok(())
    }

    /// Stops counting; readings keep their values.
    ///
    /// # Errors
    /// If the kernel refuses to disable an open counter.
    pub fn stop(&mut self) -> std::io::Result<()> {
        for open in &mut self.groups {
            open.group.disable()?;
        }
        if let Some((probe, since)) = self.accounts.running.take() {
            self.accounts.last = Some((probe.stop(), since.elapsed()));
        }
        Ok(())
    }

    /// Returns what was counted between the last start and stop (or now, if not stopped).
    #[must_use]
    pub fn read(&mut self) -> Readings {
        let mut readings = Readings::new();
        for open in &mut self.groups {
            open.read_into(&mut readings);
        }
        let accounts = match &self.accounts.running {
            Some((probe, since)) => Some((probe.stop(), since.elapsed())),
            None => self.accounts.last,
        };
        for (name, reason) in &self.from_accounts {
            let reading = match accounts {
                Some((counts, elapsed)) => account(name, &counts, elapsed),
                None => Reading::Unavailable(reason.clone()),
            };
            readings.insert(name.clone(), reading);
        }
        for (name, reason) in &self.unavailable {
            readings.insert(name.clone(), Reading::Unavailable(reason.clone()));
        }
        readings
    }

    /// Opens `events` as one group; a member that the kernel does not take into the group (too
    /// many for the counters, or one that must be alone) is tried in a group of its own.
    fn open_group(&mut self, events: &[EventSpec], pmu: Option<&Pmu>) {
        let Some((first, _)) = events.split_first() else { return };
        let roots = Roots::live();
        let refuse = |event: &EventSpec, error: &std::io::Error| {
            let needed = if event.is_software() { KERNEL_PARANOIA } else { USER_PARANOIA };
            Unavailable::from_error(error, &roots, needed, event.is_software() || pmu.is_some())
        };
        // The leader counts nothing, so that no event's refusal takes the group with it.
        let mut group = match Group::new() {
            Ok(group) => group,
            Err(error) => {
                for event in events {
                    self.give_up(event, refuse(first, &error));
                }
                return;
            }
        };
        let mut members = Vec::new();
        let mut rejected = Vec::new();
        for event in events {
            match group.add(&event.builder(pmu)) {
                Ok(counter) => members.push((event.name.clone(), counter)),
                Err(error) if events.len() > 1 && error.raw_os_error() == Some(libc::EINVAL) => {
                    rejected.push(event.clone());
                }
                Err(error) => self.give_up(event, refuse(event, &error)),
            }
        }
        if !members.is_empty() {
            self.groups.push(OpenGroup { group, members, base: Totals::default() });
        }
        for event in rejected {
            self.open_group(&[event], pmu);
        }
    }

    fn give_up(&mut self, event: &EventSpec, reason: Unavailable) {
        let list =
            if event.is_software() { &mut self.from_accounts } else { &mut self.unavailable };
        list.push((event.name.clone(), reason));
    }
}

impl OpenGroup {
    fn totals(&mut self) -> std::io::Result<Totals> {
        let data = self.group.read()?;
        let ns = |time: Option<Duration>| time.map_or(0, |time| time.as_nanos() as u64);
        Ok(Totals {
            enabled_ns: ns(data.time_enabled()),
            running_ns: ns(data.time_running()),
            values: self
                .members
                .iter()
                .map(|(_, counter)| data.get(counter).map(|entry| entry.value()))
                .collect(),
        })
    }

    fn read_into(&mut self, readings: &mut Readings) {
        let totals = self.totals();
        for (index, (name, _)) in self.members.iter().enumerate() {
            let reading = match &totals {
                Ok(totals) => totals.since(&self.base, index),
                Err(error) => Reading::Unavailable(Unavailable::Failed { what: error.to_string() }),
            };
            readings.insert(name.clone(), reading);
        }
    }
}

impl Totals {
    /// Returns what the member at `index` counted since `base`.
    fn since(&self, base: &Self, index: usize) -> Reading {
        let Some(end) = self.values[index] else {
            return Reading::Unavailable(Unavailable::NeverRan);
        };
        let start = base.values.get(index).copied().flatten().unwrap_or(0);
        Reading::from_times(
            end.saturating_sub(start),
            self.enabled_ns.saturating_sub(base.enabled_ns),
            self.running_ns.saturating_sub(base.running_ns),
        )
    }
}

/// Returns a kernel event by the kernel's accounts.
fn account(name: &str, counts: &ThreadDisturbance, elapsed: Duration) -> Reading {
    let value = match name {
        "context-switches" => Ok(counts.voluntary_switches + counts.involuntary_switches),
        "page-faults" => Ok(counts.minor_faults + counts.major_faults),
        _ => counts.migrations.ok_or("/proc/thread-self/sched"),
    };
    let elapsed_ns = elapsed.as_nanos() as u64;
    match value {
        Ok(value) => Reading::from_times(value, elapsed_ns, elapsed_ns),
        Err(missing) => Reading::Unavailable(Unavailable::NoAccount { missing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_are_those_since_the_start() {
        let totals = |enabled_ns, running_ns, value| Totals {
            enabled_ns,
            running_ns,
            values: vec![Some(value), None],
        };
        let (base, end) = (totals(1000, 1000, 70), totals(1400, 1100, 100));
        // On a counter for a quarter of this interval, although for most of its life.
        assert_eq!(end.since(&base, 0).scaled(), Some(120.0));
        assert!(end.since(&base, 0).is_multiplexed());
        assert_eq!(end.since(&base, 1), Reading::Unavailable(Unavailable::NeverRan));
        assert_eq!(base.since(&base, 0), Reading::Unavailable(Unavailable::NeverRan));
        // Before the first start everything counts.
        assert_eq!(base.since(&Totals::default(), 0).scaled(), Some(70.0));
    }
}
