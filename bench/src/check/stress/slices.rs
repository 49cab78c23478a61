//! A stress run as a session: a slice is a round of its cell, and every cell is a block of its own.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use cellbench_host::cpus::CpuId;
use cellbench_record::{Round, Run, Series, Source};

use super::account::Report;
use super::deck::Deck;
use super::slice::Order;
use super::supervisor;
use cellbench_measure::backend::{Backend, BackendError, Configuration, Measured, Pace};
use cellbench_measure::rng::Rng;
use cellbench_measure::session::plan::{Block, Plan, Shard};
use cellbench_measure::session::rounds::{Observer, Rounds};
use cellbench_measure::session::run::SessionError;

/// Settings that every slice of a run shares.
#[derive(Clone, Debug)]
pub struct Common {
    /// Host CPU of each worker; a CPU may stand here more than once.
    pub cpus: Vec<u32>,
    /// Length of a slice.
    pub slice: Duration,
    /// Interruptions of each worker and context a second; none: what the workload says.
    pub interrupt_rate_hz: Option<u32>,
    /// One worker, interrupted before an access of each operation.
    pub stepped: bool,
    /// A known bug to switch on.
    pub planted: Option<String>,
}

/// When a run is over.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After so long; none: no limit.
    pub time: Option<Duration>,
    /// When every cell was interrupted so often; none: no end.
    pub interruptions: Option<u64>,
    /// At the first violation.
    pub at_first_violation: bool,
}

/// Time that a slice takes beyond its window: a process, and the check at rest.
const BESIDE_WINDOW: Duration = Duration::from_millis(50);

/// Runs slices of all cells until a limit is reached or `is_stopped`. `report` is entered slice by
/// slice, `save` writes it after each round over the cells, and `watch` is told of each slice and then
/// called now and then while it runs.
///
/// # Errors
/// [`SessionError`] if a slice cannot take place or the report cannot be saved.
pub fn run(
    decks: Vec<Deck>,
    common: Common,
    limits: Limits,
    report: &RefCell<Report>,
    is_stopped: &dyn Fn() -> bool,
    save: &dyn Fn(&Report) -> Result<(), SessionError>,
    watch: &dyn Fn(Option<&Order>),
) -> Result<(), SessionError> {
    let seed = report.borrow().seed;
    let began = Instant::now();
    let plan = plan(&decks, &common);
    let mut slices = Slices { decks, common, report, watch, began };
    let window = slices.common.slice;
    let mut clerk = Clerk { interruptions: limits.interruptions, report, save };
    let rounds = Rounds {
        first: 0,
        most: u32::MAX,
        shard: Shard::WHOLE,
        look_every: 1,
        window,
        began,
        time_budget: limits.time,
        seed,
        stop: &|| {
            is_stopped() || limits.at_first_violation && !report.borrow().violations.is_empty()
        },
        progress: &|_, _, _| {},
    };
    rounds.run(&plan, &mut slices, &mut clerk, &mut Rng::new(seed)).map(drop)
}

/// Returns the time that gives each of the decks' workloads a slice.
#[must_use]
pub fn time_for_all(decks: &[Deck], slice: Duration) -> Duration {
    let slices: usize = decks.iter().map(Deck::slices).sum();
    (slice + BESIDE_WINDOW) * slices as u32
}

fn plan(decks: &[Deck], common: &Common) -> Plan<Slice> {
    let cpus: Vec<CpuId> = common.cpus.iter().copied().map(CpuId).collect();
    let block = |(deck, of): (usize, &Deck)| {
        let (name, kind) = (&of.subject.name, of.subject.kind.clone());
        let series = Series::new(name, kind, "stress", cpus.len() as u32, "", Source::Model);
        Block { specs: vec![Slice { deck, series, cpus: cpus.clone() }], surveyed: false }
    };
    Plan { blocks: decks.iter().enumerate().map(block).collect(), skipped: Vec::new() }
}

/// A slice of some cell; the deck knows the workload.
struct Slice {
    deck: usize,
    series: Series,
    cpus: Vec<CpuId>,
}

impl Configuration for Slice {
    fn series(&self) -> &Series {
        &self.series
    }

    fn cpus(&self) -> &[CpuId] {
        &self.cpus
    }
}

/// Slices in processes of their own.
struct Slices<'a> {
    decks: Vec<Deck>,
    common: Common,
    report: &'a RefCell<Report>,
    watch: &'a dyn Fn(Option<&Order>),
    began: Instant,
}

impl Backend for Slices<'_> {
    type Spec = Slice;

    fn pace(&self) -> Pace {
        Pace::Interleaved
    }

    fn describe(&self, _: &mut Run) {}

    fn cost(&self, _: &Slice, window: Duration) -> Duration {
        window + BESIDE_WINDOW
    }

    fn measure(
        &mut self,
        batch: &[&Slice],
        window: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        let mut rng = Rng::new(seed);
        let mut all = Vec::with_capacity(batch.len());
        for spec in batch {
            let deck = &mut self.decks[spec.deck];
            let common = &self.common;
            let order = Order {
                cell: deck.subject.name.clone(),
                kind: deck.subject.kind.to_string(),
                workload: deck.draw(&mut rng).id.to_owned(),
                cpus: common.cpus.clone(),
                window_ms: window.as_millis() as u64,
                // 53 bits, which every JSON reader keeps.
                seed: rng.number() >> 11,
                interrupt_rate_hz: common.interrupt_rate_hz,
                stepped: common.stepped,
                planted: common.planted.clone(),
            };
            (self.watch)(Some(&order));
            let outcome = supervisor::run(&order, || (self.watch)(None));
            let outcome = outcome.map_err(BackendError::failed)?;
            let mut report = self.report.borrow_mut();
            report.enter(&order, &outcome);
            report.elapsed_s = self.began.elapsed().as_secs_f64();
            let mut round = Round::new(spec.series.clone(), 0, window.as_secs_f64());
            round.series.workload = order.workload;
            round.context_ops = outcome.counts;
            round.invariants.violations = outcome.violations;
            all.push(Measured::of(round));
        }
        Ok(all)
    }
}

/// Saves the report after each round, and says which cells were interrupted often enough.
struct Clerk<'a> {
    interruptions: Option<u64>,
    report: &'a RefCell<Report>,
    save: &'a dyn Fn(&Report) -> Result<(), SessionError>,
}

impl Observer<Slice> for Clerk<'_> {
    fn measured(&mut self, _: usize, _: &Slice, _: Measured) -> Result<(), SessionError> {
        // The backend has entered it: the report keeps the order, which a round has no place for.
        Ok(())
    }

    fn is_decided(&mut self, block: usize) -> bool {
        let done = self.report.borrow().cells[block].interruptions;
        self.interruptions.is_some_and(|wanted| done >= wanted)
    }

    fn round_ended(&mut self) -> Result<(), SessionError> {
        (self.save)(&self.report.borrow())
    }
}
