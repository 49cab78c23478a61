//! What the workers' reports say together, as a line of the record.

use std::collections::BTreeMap;
use std::time::Duration;

use cellbench_impls::Context;
use cellbench_impls::heap::HeapStats;
use cellbench_record::{ContextOps, Counter, Round, ThreadCount};
use cellbench_workloads::tally::{OUTCOMES, outcome_id};
use cellbench_workloads::{Op, Tally};
use hdrhistogram::Histogram;

use super::worker::Report;
use super::{Measured, Spec};
use crate::backend::latency::Latencies;
use cellbench_host::disturbance::{RoundDisturbance, ThreadDisturbance};

/// Puts the reports together. `drivers_share_cpus`: threads that drive the engine ran on the
/// workers' CPUs.
pub(super) fn of(
    spec: &Spec,
    window: Duration,
    sampled: bool,
    drivers_share_cpus: bool,
    reports: &[Report],
    host: RoundDisturbance,
) -> Measured {
    let mut round = Round::new(spec.series.clone(), 0, window.as_secs_f64());
    let mut latencies = Latencies::default();
    round.cpus = spec.cpus.iter().map(|cpu| cpu.0).collect();
    for report in reports {
        let mut thread = ThreadCount { cpu: spec.cpus[report.index].0, attempts: 0, ok: 0 };
        for (op, outcome, count) in counted(&report.span.before, &report.span.after) {
            thread.attempts += count;
            if outcome == 0 {
                thread.ok += count;
            }
            round.count(op.id(), outcome_id(outcome), count);
        }
        round.per_thread.push(thread);
        latencies.add(&report.span.latencies);
    }
    let mut latencies: Vec<(String, Histogram<u64>)> =
        latencies.iter().map(|(op, values)| (op.to_owned(), values.clone())).collect();
    if !spec.needs.interrupts.is_empty() {
        interruptions(reports, &mut round, &mut latencies);
    }
    let sum = |of: fn(&ThreadDisturbance) -> Option<u64>| -> Option<u64> {
        reports.iter().map(|report| of(&report.disturbance)).sum()
    };
    round.context_switches_voluntary = sum(|thread| Some(thread.voluntary_switches));
    round.context_switches_involuntary = sum(|thread| Some(thread.involuntary_switches));
    round.migrations = sum(|thread| thread.migrations);
    round.steal_ns = host.steal_ns;
    round.counters = sum_counters(reports);
    let shares_cpus = drivers_share_cpus || spec.needs.workers_per_cpu > 1;
    round.disturbed = disturbed(reports, host, window, shares_cpus);
    let sampled_every = reports.iter().map(|report| report.span.sampled_every).min();
    if sampled {
        round.latency_sample_every = sampled_every;
    }
    if spec.series.offered_ops_s.is_some() {
        let unserved: u64 = reports.iter().map(|report| report.span.unserved).sum();
        round.unserved = Some(unserved);
    }
    Measured { round, latencies, objects: HeapStats { allocated: 0, freed: 0 } }
}

/// Operation, outcome and how many of them came between two counts.
pub(crate) fn counted<'a>(
    before: &'a Tally,
    after: &'a Tally,
) -> impl Iterator<Item = (Op, usize, u64)> + use<'a> {
    Op::ALL.iter().flat_map(move |op| {
        (0..OUTCOMES)
            .map(move |outcome| (*op, outcome, after.get(*op, outcome) - before.get(*op, outcome)))
            .filter(|(_, _, count)| *count > 0)
    })
}

/// What handlers did, by context: outcomes and latencies. The round's own counts are the
/// interrupted workers'; by operation the handlers' stand in `context_ops`.
fn interruptions(
    reports: &[Report],
    round: &mut Round,
    latencies: &mut Vec<(String, Histogram<u64>)>,
) {
    let mut by_op = ContextOps::new();
    let mut missed = 0;
    for report in reports {
        let task = (Context::Task, &report.span.before, &report.span.after);
        let handlers = report.struck.iter().map(|one| (one.context, &one.before, &one.after));
        for (context, before, after) in std::iter::once(task).chain(handlers) {
            let of_context = by_op.entry(context.name().to_owned()).or_default();
            for (op, outcome, count) in counted(before, after) {
                let outcomes = of_context.entry(op.id().to_owned()).or_default();
                *outcomes.entry(outcome_id(outcome).to_owned()).or_default() += count;
            }
        }
        for struck in &report.struck {
            missed += struck.let_go;
            for (op, values) in &struck.latencies {
                let name = format!("{}@{}", op.id(), struck.context.name());
                match latencies.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => sum.add(values).expect("the same bounds"),
                    None => latencies.push((name, values.clone())),
                }
            }
        }
    }
    for (context, ops) in &by_op {
        let mut outcomes = BTreeMap::new();
        for (outcome, count) in ops.values().flatten() {
            *outcomes.entry(outcome.clone()).or_default() += count;
        }
        round.contexts.insert(context.clone(), outcomes);
    }
    round.context_ops = by_op;
    round.interruptions_missed = Some(missed);
}

fn sum_counters(reports: &[Report]) -> BTreeMap<String, Counter> {
    let mut sums: BTreeMap<String, Counter> = BTreeMap::new();
    for (name, reading) in reports.iter().flat_map(|report| &report.counters) {
        let reading = reading.to_record();
        let sum = match (sums.remove(name), reading) {
            (None, reading) => reading,
            (
                Some(Counter::Counted { value, enabled_ns, running_ns }),
                Counter::Counted { value: v, enabled_ns: e, running_ns: r },
            ) => Counter::Counted {
                value: value + v,
                enabled_ns: enabled_ns + e,
                running_ns: running_ns + r,
            },
            // One worker without a count, and the sum is unknown.
            (Some(missing @ Counter::Unavailable { .. }), _) | (_, missing) => missing,
        };
        sums.insert(name.clone(), sum);
    }
    sums
}

/// Why the round must not count.
fn disturbed(
    reports: &[Report],
    host: RoundDisturbance,
    window: Duration,
    shares_cpus: bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(steal_ns) = host.steal_ns.filter(|steal_ns| *steal_ns > 0) {
        reasons.push(format!("the hypervisor took {} ms", steal_ns / 1_000_000));
    }
    let threads = || reports.iter().map(|report| &report.disturbance);
    let migrations: u64 = threads().filter_map(|thread| thread.migrations).sum();
    if migrations > 0 {
        reasons.push(format!("workers moved to other CPUs {migrations} times"));
    }
    // With each other, or with the engine's threads: that is what is measured.
    if shares_cpus {
        return reasons;
    }
    if threads().any(|thread| thread.lost_its_cpu(window)) {
        reasons.push(match threads().map(|thread| thread.runqueue_wait_ns).max() {
            Some(Some(wait_ns)) => format!("a worker waited {} us for its CPU", wait_ns / 1000),
            _ => {
                let switches: u64 = threads().map(|thread| thread.involuntary_switches).sum();
                format!("workers lost their CPU {switches} times")
            }
        });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cores::loops::Span;
    use cellbench_host::counters::{Reading, Unavailable};

    fn report(disturbance: ThreadDisturbance, readings: &[(&str, Reading)]) -> Report {
        let readings = readings.iter().map(|(name, reading)| ((*name).to_owned(), reading.clone()));
        Report {
            index: 0,
            span: Span {
                before: Tally::default(),
                after: Tally::default(),
                latencies: Latencies::default(),
                sampled_every: 1,
                unserved: 0,
            },
            total: Tally::default(),
            struck: Vec::new(),
            disturbance,
            counters: readings.collect(),
        }
    }

    #[test]
    fn a_counter_that_one_worker_lacks_has_no_sum() {
        let counted = |value| Reading::Counted { value, enabled_ns: 10, running_ns: 10 };
        let missing = Reading::Unavailable(Unavailable::NoPmu);
        let quiet = ThreadDisturbance::default();
        let reports = [
            report(quiet, &[("cycles", counted(3)), ("page-faults", counted(1))]),
            report(quiet, &[("cycles", missing), ("page-faults", counted(2))]),
        ];
        let sums = sum_counters(&reports);
        assert!(matches!(sums["cycles"], Counter::Unavailable { .. }));
        let expected = Counter::Counted { value: 3, enabled_ns: 20, running_ns: 20 };
        assert_eq!(sums["page-faults"], expected);
    }

    #[test]
    fn what_disturbed_a_round_is_said_with_its_amount() {
        let window = Duration::from_millis(10);
        let reasons = |thread: ThreadDisturbance, steal_ns, shares_cpus| {
            let host = RoundDisturbance { steal_ns };
            disturbed(&[report(thread, &[])], host, window, shares_cpus).join("; ")
        };
        let quiet = ThreadDisturbance {
            migrations: Some(0),
            runqueue_wait_ns: Some(100_000),
            involuntary_switches: 1,
            ..ThreadDisturbance::default()
        };
        assert_eq!(reasons(quiet, Some(0), false), "");
        assert_eq!(reasons(quiet, None, false), "", "unknown steal is not a disturbance");
        assert!(reasons(quiet, Some(10_000_000), false).contains("10 ms"));
        let waited = ThreadDisturbance { runqueue_wait_ns: Some(300_000), ..quiet };
        assert!(reasons(waited, Some(0), false).contains("300 us"));
        assert_eq!(reasons(waited, Some(0), true), "", "sharing the CPU is what is measured");
        let moved = ThreadDisturbance { migrations: Some(2), ..quiet };
        assert!(reasons(moved, Some(0), true).contains("2 times"));
        let unknown_wait = ThreadDisturbance { runqueue_wait_ns: None, ..quiet };
        assert!(reasons(unknown_wait, Some(0), false).contains("lost their CPU 1 times"));
    }
}
