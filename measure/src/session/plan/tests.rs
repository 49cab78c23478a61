//! Meaning of a selection on a host.

use super::*;
use cellbench_host::cpus::CpuSet;
use cellbench_host::quota::CpuQuota;
use cellbench_host::topology::{CoreKind, Cpu};

/// Returns a host of one package and cache, every core one CPU.
fn host(cpus: u32) -> Topology {
    let cpu = |number| Cpu {
        id: CpuId(number),
        package: Some(0),
        die: None,
        llc: Some(0),
        core: number,
        smt_index: 0,
        numa_node: Some(0),
        kind: CoreKind::Performance,
    };
    Topology {
        cpus: (0..cpus).map(cpu).collect(),
        offline: CpuSet::new(),
        usable: (0..cpus).map(CpuId).collect(),
        quota: None,
    }
}

fn threads(plan: &Plan, workload: &str) -> BTreeSet<u32> {
    let of = plan.specs().filter(|spec| spec.workload == workload);
    of.map(|spec| spec.series.threads).collect()
}

#[test]
fn the_headline_matrix_compares_on_one_cpu_and_on_all_and_surveys_between() {
    let plan = Plan::new(&Selection::of(Matrix::Headline), &host(48)).unwrap();
    assert_eq!(threads(&plan, "same-cell-retry"), BTreeSet::from([1, 2, 4, 8, 16, 32, 48]));
    assert_eq!(threads(&plan, "solo-set"), BTreeSet::from([1]));
    assert_eq!(threads(&plan, "own-cell-padded"), BTreeSet::new());
    let compared: BTreeSet<u32> =
        plan.blocks.iter().filter(|block| !block.surveyed).map(Block::threads).collect();
    assert_eq!(compared, BTreeSet::from([1, 48]));
    assert!(plan.specs().all(|spec| spec.subject.kind != Kind::Wq && !spec.subject.is_peer()));
    let quick = Plan::new(&Selection::of(Matrix::Quick), &host(48)).unwrap();
    assert_eq!(threads(&quick, "same-cell-retry"), BTreeSet::from([48]));
    assert!(quick.blocks.iter().all(|block| !block.surveyed));
    let one = Plan::new(&Selection::of(Matrix::Headline), &host(1)).unwrap();
    assert_eq!(threads(&one, "same-cell-retry"), BTreeSet::from([1]));
}

/// The names that the matrices have, so that none goes out of date in silence.
#[test]
fn every_cell_and_workload_of_a_matrix_exists() {
    for name in QUICK {
        assert!(HEADLINE.contains(name), "{name}");
    }
    let locks = subject::all().into_iter().filter(|subject| subject.kind == Kind::Lock);
    let locks: Vec<&str> = locks.map(|subject| subject.id).collect();
    assert!(HEADLINE_LOCKS.iter().all(|lock| locks.contains(lock)), "{locks:?}");
}

#[test]
fn every_headline_workload_exists() {
    for name in HEADLINE {
        assert!(WORKLOADS.iter().any(|workload| workload.id == *name), "{name}");
    }
}

#[test]
fn a_quota_limits_the_default_and_says_so() {
    let mut topology = host(8);
    topology.quota = Some(CpuQuota { quota_us: 250_000, period_us: 100_000, source: "/q".into() });
    let plan = Plan::new(&Selection::of(Matrix::Headline), &topology).unwrap();
    assert_eq!(threads(&plan, "same-cell-retry"), BTreeSet::from([1, 2]));
    assert!(plan.skipped.iter().any(|what| what.contains("2.5 CPUs of 8")), "{:?}", plan.skipped);
    let asked = Selection { threads: vec![8], ..Selection::of(Matrix::Headline) };
    let plan = Plan::new(&asked, &topology).unwrap();
    assert_eq!(threads(&plan, "same-cell-retry"), BTreeSet::from([8]));
}

#[test]
fn cells_of_a_block_differ_in_nothing_but_the_cell() {
    let plan = Plan::new(&Selection::of(Matrix::Full), &host(4)).unwrap();
    for block in &plan.blocks {
        let first = &block.specs[0];
        for spec in &block.specs {
            assert_eq!(spec.series.with_cell(""), first.series.with_cell(""));
            assert_eq!(spec.cpus, first.cpus);
            assert_eq!(spec.series.threads as usize, spec.cpus.len());
        }
    }
    let rows: BTreeSet<&Series> = plan.specs().map(|spec| &spec.series).collect();
    assert_eq!(rows.len(), plan.len(), "no row twice");
}

#[test]
fn placements_that_would_be_the_same_cpus_are_measured_once_unless_asked_for() {
    let full = Plan::new(&Selection::of(Matrix::Full), &host(2)).unwrap();
    assert!(full.specs().all(|spec| spec.series.placement == "compact"));
    assert!(full.skipped.iter().any(|what| what.contains("smt")), "{:?}", full.skipped);
    let both = Selection {
        placements: vec![Placement::Compact, Placement::Spread],
        ..Selection::of(Matrix::Full)
    };
    let both = Plan::new(&both, &host(2)).unwrap();
    assert!(both.specs().any(|spec| spec.series.placement == "spread"));
}

#[test]
fn each_rate_is_a_block_of_its_own() {
    let selection = Selection {
        workloads: vec!["same-cell".into()],
        rates_ops_s: vec![1000, 2000],
        ..Selection::of(Matrix::Headline)
    };
    let plan = Plan::new(&selection, &host(1)).unwrap();
    let rates: BTreeSet<_> = plan.specs().map(|spec| spec.series.offered_ops_s).collect();
    assert_eq!(rates, BTreeSet::from([Some(1000), Some(2000)]));
}

#[test]
fn retry_takes_the_form_that_repeats() {
    let selection = Selection {
        workloads: vec!["same-cell".into(), "solo-set".into()],
        retry: true,
        ..Selection::of(Matrix::Headline)
    };
    let plan = Plan::new(&selection, &host(1)).unwrap();
    assert!(plan.specs().all(|spec| spec.workload == "same-cell-retry"));
    assert!(plan.skipped.iter().any(|what| what.contains("solo-set")), "{:?}", plan.skipped);
}

#[test]
fn what_needs_others_or_seconds_is_left_out_with_a_reason() {
    let plan = Plan::new(&Selection::of(Matrix::Full), &host(1)).unwrap();
    for workload in WORKLOADS.iter().filter(|workload| workload.needs.least_workers > 1) {
        assert_eq!(threads(&plan, workload.id), BTreeSet::new());
        let said = plan.skipped.iter().any(|what| what.starts_with(workload.id));
        assert!(said, "{}: {:?}", workload.id, plan.skipped);
    }
}

#[test]
fn a_filter_sees_kind_workload_and_cell() {
    let mut plan = Plan::new(&Selection::of(Matrix::Quick), &host(2)).unwrap();
    plan.retain(|name| name.contains("timer/same-cell-retry/cmpxchg-state"));
    assert!(!plan.is_empty());
    assert!(plan.specs().all(|spec| spec.subject.id.starts_with("cmpxchg-state")));
    plan.retain(|_| false);
    assert!(plan.is_empty());
}
