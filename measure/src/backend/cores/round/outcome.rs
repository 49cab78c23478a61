//! Sum of the workers' reports, as a line of the record.

use std::collections::BTreeMap;
use std::time::Duration;

use cellbench_impls::Context;
use cellbench_impls::heap::HeapStats;
use cellbench_record::{ContextOps, Round, ThreadCount};
use cellbench_workloads::tally::{OUTCOMES, outcome_id};
use cellbench_workloads::{Op, Tally};
use hdrhistogram::Histogram;

use super::worker::Report;
use crate::backend::Measured;
use crate::backend::latency::Latencies;
use crate::session::plan::Spec;
use cellbench_host::counters;
use cellbench_host::disturbance::{self, RoundDisturbance, ThreadDisturbance};

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
    round.counters = counters::sum(reports.iter().map(|report| &report.counters));
    let shares_cpus = drivers_share_cpus || spec.needs.workers_per_cpu > 1;
    let threads: Vec<ThreadDisturbance> = reports.iter().map(|report| report.disturbance).collect();
    disturbance::note(&mut round, &threads, host, shares_cpus);
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

/// Returns operation, outcome and how many of them came between two counts.
pub fn counted<'a>(
    before: &'a Tally,
    after: &'a Tally,
) -> impl Iterator<Item = (Op, usize, u64)> + use<'a> {
    Op::ALL.iter().flat_map(move |op| {
        (0..OUTCOMES)
            .map(move |outcome| (*op, outcome, after.get(*op, outcome) - before.get(*op, outcome)))
            .filter(|(_, _, count)| *count > 0)
    })
}

/// Adds the outcomes of the handlers, by context: counts and latencies. The round's own counts are the
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
        let handlers = report.handlers.iter().map(|one| (one.context, &one.before, &one.after));
        for (context, before, after) in std::iter::once(task).chain(handlers) {
            let of_context = by_op.entry(context.name().to_owned()).or_default();
            for (op, outcome, count) in counted(before, after) {
                let outcomes = of_context.entry(op.id().to_owned()).or_default();
                *outcomes.entry(outcome_id(outcome).to_owned()).or_default() += count;
            }
        }
        for handlers in &report.handlers {
            missed += handlers.missed;
            for (op, values) in &handlers.latencies {
                let name = format!("{}@{}", op.id(), handlers.context.name());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cores::loops::Span;
    use crate::session::plan::{Matrix, Plan, Selection};
    use cellbench_host::Topology;

    fn report(disturbance: ThreadDisturbance) -> Report {
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
            handlers: Vec::new(),
            disturbance,
            counters: counters::Readings::new(),
        }
    }

    /// Disturbance is defined in one place, which has its own tests; a round carries it on.
    #[test]
    fn steal_a_switch_and_a_migration_disturb_a_round() {
        let spec = spec();
        let window = Duration::from_millis(10);
        let reasons = |thread: ThreadDisturbance, steal_ns| {
            let host = RoundDisturbance { steal_ns };
            let measured = of(&spec, window, false, false, &[report(thread)], host);
            (!measured.round.disturbed.is_empty(), measured.round.is_usable())
        };
        let quiet = ThreadDisturbance::default();
        assert_eq!(reasons(quiet, Some(0)), (false, true));
        assert_eq!(reasons(quiet, Some(10_000_000)), (true, false));
        let switched = ThreadDisturbance { involuntary_switches: 1, ..quiet };
        assert_eq!(reasons(switched, Some(0)), (true, false));
        let moved = ThreadDisturbance { migrations: Some(1), ..quiet };
        assert_eq!(reasons(moved, Some(0)), (true, false));
    }

    fn spec() -> Spec {
        let selection = Selection {
            cells: vec!["cmpxchg-state".to_owned()],
            workloads: vec!["solo-set".to_owned()],
            threads: vec![1],
            ..Selection::of(Matrix::Headline)
        };
        let plan = Plan::new(&selection, &Topology::read().unwrap()).unwrap();
        plan.specs().next().unwrap().clone()
    }
}
