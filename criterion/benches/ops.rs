//! Per-operation cost with Criterion: alone on one CPU, and on all CPUs against each other.
//!
//! ```text
//! cargo bench -p cellbench-criterion --bench ops                        everything
//! cargo bench -p cellbench-criterion --bench ops -- solo-set            one operation, every cell
//! cargo bench -p cellbench-criterion --bench ops -- timer/cmpxchg-state one cell
//! cargo bench -p cellbench-criterion --bench ops -- --save-baseline before
//!                                               then, after a change: --baseline before
//! ```
//!
//! Criterion measures one benchmark after the other, so a drift of the host comes between them: for
//! the cost of an operation, and for before and after; verdicts between cells are the suite's.

use cellbench_host::{Clock, Topology};
use cellbench_measure::backend::cores::steps::time_steps;
use cellbench_measure::session::plan::{Matrix, Plan, Selection};
use cellbench_record::Kind;
use criterion::Criterion;

/// Operations alone, each worker on its own cell.
const ALONE: &[&str] =
    &["solo-init", "solo-set", "solo-set-same", "solo-start", "solo-cancel", "lock-0ns"];
/// Of these, what is measured for work items, whose code is the timers' but for the queue.
const ALONE_WQ: &[&str] = &["solo-set", "solo-start"];
/// Operations against each other, on all CPUs.
const CONTENDED: &[&str] = &["same-cell", "lock-0ns"];

fn main() {
    let mut criterion = cellbench_criterion::criterion();
    let clock = Clock::new();
    let topology = match Topology::read() {
        Ok(topology) => topology,
        Err(error) => {
            eprintln!("ops: error: {error}");
            std::process::exit(2);
        }
    };
    bench(&mut criterion, &clock, &topology, ALONE, 1);
    let all = topology.usable.len() as u32;
    if all > 1 {
        bench(&mut criterion, &clock, &topology, CONTENDED, all);
    }
    criterion.final_summary();
}

fn bench(
    criterion: &mut Criterion,
    clock: &Clock,
    topology: &Topology,
    workloads: &[&str],
    threads: u32,
) {
    let selection = Selection {
        workloads: workloads.iter().map(|&name| name.to_owned()).collect(),
        threads: vec![threads],
        ..Selection::of(Matrix::Headline)
    };
    let plan = Plan::new(&selection, topology).expect("workloads of the registry");
    for block in &plan.blocks {
        let Some(first) = block.specs.first() else { continue };
        if first.series.kind == Kind::Wq && (threads > 1 || !ALONE_WQ.contains(&first.workload)) {
            continue;
        }
        let against = if threads == 1 { String::new() } else { format!("{threads}-threads/") };
        let mut group =
            criterion.benchmark_group(format!("{}/{against}{}", first.workload, first.series.kind));
        for spec in &block.specs {
            group.bench_function(&spec.subject.name, |bencher| {
                bencher.iter_custom(|steps| {
                    time_steps(spec, clock, steps)
                        .unwrap_or_else(|error| panic!("{}: {error}", spec.series))
                });
            });
        }
        group.finish();
    }
}
