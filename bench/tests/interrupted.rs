//! Real signals: handlers that strike the very cell that their thread is updating, in every
//! generation and at any instruction. The invariants of the workload are what is tested; the
//! counts say that it was.
//!
//! The long form, ten million interruptions of each design, on demand:
//! `CELLBENCH_STRIKES=10000000 cargo test --release -p cellbench --test interrupted`

use std::time::Duration;

use cellbench_host::cpus::CpuSet;
use cellbench_host::{Clock, affinity};
use cellbench_impls::registry::CELLS;
use cellbench_measure::backend::Measured;
use cellbench_measure::backend::cores::round::{Bench, Conditions};
use cellbench_measure::session::plan::Spec;
use cellbench_measure::session::subject::{self, Subject};
use cellbench_record::{Kind, OK, Series, Source};
use cellbench_workloads::registry::WORKLOADS;

/// Signals a second where the handlers take turns with their worker.
const RATE_HZ: u32 = 20_000;

/// The CPU of a test. They run at the same time: on the same CPU each would take twice as long.
#[derive(Clone, Copy)]
enum Which {
    First,
    Last,
}

/// Measures a cell under a workload on one CPU.
fn measure(
    subject: &Subject,
    workload: &str,
    which: Which,
    rate_hz: u32,
    window: Duration,
) -> Measured {
    let entry = WORKLOADS.iter().find(|entry| entry.id == workload).expect("listed");
    let allowed = affinity::current().expect("affinity");
    let cpu = match which {
        Which::First => allowed.first(),
        Which::Last => allowed.iter().next_back(),
    };
    let cpu = cpu.expect("a CPU");
    let series =
        Series::new(&subject.name, subject.kind.clone(), entry.id, 1, "compact", Source::Model);
    let spec = Spec {
        series,
        subject: subject.clone(),
        workload: entry.id,
        engine: entry.engine,
        needs: entry.needs,
        cpus: vec![cpu],
    };
    let conditions = Conditions {
        warm_up: Duration::from_millis(20),
        window,
        sampled: true,
        turns_per_us: 1000,
        charges: cellbench_impls::machine::Charges::default(),
        interrupt_rate_hz: Some(rate_hz),
    };
    let stuck = Box::new(|error| panic!("{error}"));
    let bench = Bench::new(Clock::new(), &CpuSet::from_iter([cpu]), stuck);
    bench.measure(&spec, &conditions, 1).expect("measured")
}

/// Returns the cells, without locks and primitives.
fn cells() -> impl Iterator<Item = Subject> {
    subject::all()
        .into_iter()
        .filter(|subject| !matches!(subject.kind, Kind::Lock | Kind::Primitive))
}

/// Attempts of handlers in the window, and how many of them succeeded.
fn struck(measured: &Measured, context: &str) -> (u64, u64) {
    let outcomes = measured.round.contexts.get(context);
    let outcomes = outcomes.unwrap_or_else(|| panic!("no {context} in {:?}", measured.round));
    (outcomes.values().sum(), outcomes.get(OK).copied().unwrap_or(0))
}

fn assert_whole(subject: &Subject, measured: &Measured) {
    let violations = &measured.round.invariants.violations;
    assert!(violations.is_empty(), "{} {}: {violations:?}", subject.name, subject.kind);
}

/// Returns how often each design is interrupted in each context at least.
fn wanted_strikes() -> u64 {
    let given = std::env::var("CELLBENCH_STRIKES").ok();
    given.map_or(1000, |count| count.parse().expect("CELLBENCH_STRIKES is a number"))
}

/// Windows in a row without an interruption, after which none is expected any more: a busy host may give the
/// worker none of its time in one, but hardly in so many.
const FRUITLESS: u32 = 100;

/// Interrupts a design until it was interrupted as often as wanted; returns the interruptions, and how many of
/// their operations succeeded.
fn strike_thousands(subject: &Subject, workload: &str, context: &str, which: Which) -> (u64, u64) {
    let (mut attempts, mut successes, mut fruitless) = (0, 0, 0);
    let wanted = wanted_strikes();
    while attempts < wanted {
        let measured = measure(subject, workload, which, RATE_HZ, Duration::from_millis(100));
        assert_whole(subject, &measured);
        let (more, ok) = struck(&measured, context);
        attempts += more;
        successes += ok;
        fruitless = if more == 0 { fruitless + 1 } else { 0 };
        let what = (&subject.name, &subject.kind);
        assert!(fruitless < FRUITLESS, "{what:?}: {attempts} interruptions of {wanted}");
    }
    (attempts, successes)
}

#[test]
fn nmi_same_cell_thousands_of_times() {
    for subject in cells() {
        let (attempts, ok) = strike_thousands(&subject, "nmi-same-cell", "nmi", Which::First);
        let promises = CELLS.iter().find(|cell| cell.id == subject.id).expect("listed").promises;
        if !promises.update_in_nmi {
            assert_eq!(ok, 0, "{} {}: of {attempts}", subject.name, subject.kind);
        } else {
            assert!(ok > 0, "{} {}: of {attempts}", subject.name, subject.kind);
        }
    }
}

#[test]
fn every_operation_in_every_context_thousands_of_times() {
    for subject in cells() {
        strike_thousands(&subject, "nmi", "nmi", Which::Last);
        strike_thousands(&subject, "nmi", "hardirq", Which::Last);
    }
}

/// By `pthread_kill`, as fast as the handler returns.
#[test]
fn a_sender_strikes_as_well() {
    let subject = subject::named("cmd-queue").remove(0);
    let measured = measure(&subject, "nmi-same-cell", Which::First, 0, Duration::from_millis(200));
    assert_whole(&subject, &measured);
    assert!(struck(&measured, "nmi").0 > 0);
}
