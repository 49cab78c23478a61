//! The loop over a backend whose results are known.

use cellbench_host::cpus::CpuId;
use cellbench_record::{Kind, Round, Run, Series, Source};

use super::*;
use crate::session::plan::{Block, Shard};

/// A configuration on no CPU.
#[derive(Clone, Debug)]
pub struct Spec(pub Series);

impl Configuration for Spec {
    fn series(&self) -> &Series {
        &self.0
    }
    fn cpus(&self) -> &[CpuId] {
        &[]
    }
}

/// A backend that takes no time and refuses the cells named so.
struct Known {
    pace: Pace,
    cost: Duration,
    /// The least that a measurement takes.
    takes: Duration,
    /// Names and seeds of each batch.
    batches: Vec<(Vec<String>, u64)>,
}

impl Known {
    fn new(pace: Pace) -> Self {
        Self { pace, cost: Duration::ZERO, takes: Duration::ZERO, batches: Vec::new() }
    }
}

impl Backend for Known {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        self.pace
    }

    fn describe(&self, _: &mut Run) {}

    fn cost(&self, _: &Spec, _: Duration) -> Duration {
        self.cost
    }

    fn measure(
        &mut self,
        batch: &[&Spec],
        _: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        let began = Instant::now();
        while began.elapsed() < self.takes {
            std::hint::spin_loop();
        }
        let names = batch.iter().map(|spec| spec.0.cell.clone()).collect();
        self.batches.push((names, seed));
        if let Some(spec) = batch.iter().find(|spec| spec.0.cell.starts_with("refused")) {
            return Err(BackendError::LeftOut {
                what: spec.0.cell.clone(),
                reason: "as told".to_owned(),
                for_good: spec.0.cell == "refused-for-good",
            });
        }
        let measured = |spec: &&Spec| Measured::of(Round::new(spec.0.clone(), 0, 1.0));
        Ok(batch.iter().map(measured).collect())
    }
}

/// Keeps number, position and cell of each round.
#[derive(Default)]
struct Seen {
    rounds: Vec<(u32, u32, String)>,
    left_out: Vec<String>,
    decided: Vec<usize>,
}

impl Observer<Spec> for Seen {
    fn measured(&mut self, _: usize, spec: &Spec, found: Measured) -> Result<(), SessionError> {
        let Round { round, position, .. } = found.round;
        self.rounds.push((round, position, spec.0.cell.clone()));
        Ok(())
    }
    fn left_out(&mut self, what: String) {
        self.left_out.push(what);
    }
    fn is_decided(&mut self, block: usize) -> bool {
        self.decided.contains(&block)
    }
}

fn plan(blocks: &[&[&str]]) -> Plan<Spec> {
    let spec =
        |cell: &&str| Spec(Series::new(*cell, Kind::Timer, "w", 1, "compact", Source::Model));
    let block =
        |cells: &&[&str]| Block { specs: cells.iter().map(spec).collect(), surveyed: false };
    Plan { blocks: blocks.iter().map(block).collect(), skipped: Vec::new() }
}

fn bounds(most: u32) -> Rounds<'static> {
    Rounds {
        first: 0,
        most,
        look_every: ROUNDS_BETWEEN_LOOKS,
        shard: Shard::WHOLE,
        window: Duration::from_millis(1),
        began: Instant::now(),
        time_budget: None,
        seed: 7,
        stop: &|| false,
        progress: &|_, _, _| (),
    }
}

fn run(bounds: &Rounds<'_>, plan: &Plan<Spec>, backend: &mut Known) -> (Seen, Ended, u32) {
    let mut seen = Seen::default();
    let (ended, rounds) = bounds.run(plan, backend, &mut seen, &mut Rng::new(7)).unwrap();
    (seen, ended, rounds)
}

#[test]
fn a_block_is_measured_together_in_an_order_that_changes_and_with_one_seed() {
    let plan = plan(&[&["a", "b", "c", "d"], &["e", "f", "g", "h"]]);
    let mut backend = Known::new(Pace::Interleaved);
    let (seen, ended, rounds) = run(&bounds(3), &plan, &mut backend);
    assert_eq!((ended, rounds, seen.rounds.len()), (Ended::Spent, 3, 24));
    let mut orders = BTreeSet::new();
    for (block, batches) in seen.rounds.chunks(4).zip(backend.batches.chunks(4)) {
        let number = block[0].0;
        let placed: Vec<(u32, u32)> = block.iter().map(|(round, at, _)| (*round, *at)).collect();
        assert_eq!(placed, [0, 1, 2, 3].map(|position| (number, position)));
        let mut cells: Vec<&str> = block.iter().map(|(_, _, cell)| cell.as_str()).collect();
        orders.insert(cells.concat());
        cells.sort_unstable();
        assert!(["abcd", "efgh"].contains(&cells.concat().as_str()), "{cells:?}");
        assert!(batches.iter().all(|(cells, seed)| cells.len() == 1 && *seed == batches[0].1));
    }
    assert_eq!(orders.len(), 6, "no order twice: {orders:?}");
}

#[test]
fn batches_keep_the_order_of_the_plan_and_one_seed_for_a_round() {
    let plan = plan(&[&["a", "b"], &["c"]]);
    let mut backend = Known::new(Pace::Batches(2));
    let (seen, ..) = run(&bounds(2), &plan, &mut backend);
    let placed: Vec<(u32, u32, &str)> =
        seen.rounds.iter().map(|(round, at, cell)| (*round, *at, cell.as_str())).collect();
    let one = |number| [(number, 0, "a"), (number, 1, "b"), (number, 0, "c")];
    assert_eq!(placed, [one(0), one(1)].concat());
    let seeds: Vec<u64> = backend.batches.iter().map(|(_, seed)| *seed).collect();
    assert_eq!(seeds, [0, 0, 1, 1].map(|number| round_seed(7, number)));
}

#[test]
fn the_shards_of_a_plan_in_turns_are_the_rounds_of_the_whole() {
    let plan = plan(&[&["a", "b"], &["c"], &["d", "e"]]);
    let of = |shard| {
        let bounds = Rounds { shard, ..bounds(2) };
        run(&bounds, &plan, &mut Known::new(Pace::Batches(2))).0.rounds
    };
    let whole = of(Shard::WHOLE);
    let parts = ["1/2", "2/2"].map(|shard| of(shard.parse().unwrap()));
    assert_eq!(parts.each_ref().map(Vec::len), [6, 4]);
    let one = |number| {
        let first = parts[0].iter().filter(move |(round, ..)| *round == number);
        let mut second = parts[1].iter().filter(move |(round, ..)| *round == number);
        first.flat_map(move |row| std::iter::once(row).chain(second.next())).cloned()
    };
    assert_eq!(one(0).chain(one(1)).collect::<Vec<_>>(), whole);
}

#[test]
fn what_cannot_be_measured_ends_neither_the_round_nor_the_run() {
    let plan = plan(&[&["refused-for-good", "a"], &["refused-this-time"]]);
    let (seen, ended, _) = run(&bounds(3), &plan, &mut Known::new(Pace::Interleaved));
    assert_eq!((ended, seen.rounds.len()), (Ended::Spent, 3));
    let times = |what: &str| seen.left_out.iter().filter(|told| told.starts_with(what)).count();
    assert_eq!((times("refused-for-good: as told"), times("refused-this-time")), (1, 3));
}

#[test]
fn a_run_of_which_nothing_is_left_is_an_error_with_the_reason() {
    let plan = plan(&[&["refused-for-good"]]);
    let backend = &mut Known::new(Pace::Interleaved);
    let error = bounds(3).run(&plan, backend, &mut Seen::default(), &mut Rng::new(7)).unwrap_err();
    assert!(error.to_string().contains("refused-for-good: as told"), "{error}");
}

#[test]
fn decided_blocks_are_measured_no_more_and_looked_at_every_fifth_round() {
    let plan = plan(&[&["a"], &["b"]]);
    let mut seen = Seen { decided: vec![0], ..Seen::default() };
    let backend = &mut Known::new(Pace::Interleaved);
    bounds(7).run(&plan, backend, &mut seen, &mut Rng::new(7)).unwrap();
    let rounds = |wanted: &str| seen.rounds.iter().filter(|(.., cell)| cell == wanted).count();
    assert_eq!((rounds("a"), rounds("b")), (5, 7));
    let mut seen = Seen { decided: vec![0, 1], ..Seen::default() };
    let ended = bounds(100).run(&plan, backend, &mut seen, &mut Rng::new(7)).unwrap();
    assert_eq!(ended, (Ended::Decided, 5));
}

#[test]
fn the_first_block_is_measured_and_none_that_the_budget_has_no_time_for() {
    let plan = plan(&[&["a", "b"], &["c", "d"]]);
    let bounds = Rounds { time_budget: Some(Duration::from_secs(60)), ..bounds(9) };
    let mut backend = Known { cost: Duration::from_secs(40), ..Known::new(Pace::Interleaved) };
    let (seen, ended, rounds) = run(&bounds, &plan, &mut backend);
    assert_eq!((seen.rounds.len(), ended, rounds), (2, Ended::Spent, 1));
    let mut whole = Known { cost: Duration::from_secs(40), ..Known::new(Pace::Batches(1)) };
    let (seen, ended, rounds) = run(&bounds, &plan, &mut whole);
    assert_eq!((seen.rounds.len(), ended, rounds), (4, Ended::Spent, 1), "a whole round");
}

#[test]
fn whoever_stops_the_loop_is_asked_before_each_measurement() {
    let plan = plan(&[&["a", "b", "c"]]);
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    let bounds = Rounds { stop: &stop, ..bounds(9) };
    let (seen, ended, rounds) = run(&bounds, &plan, &mut Known::new(Pace::Interleaved));
    assert_eq!((seen.rounds.len(), ended, rounds), (5, Ended::Interrupted, 2));
}

#[test]
fn a_budget_holds_where_everything_takes_longer_than_estimated() {
    let (cost, takes) = (Duration::from_micros(1), Duration::from_millis(1));
    let mut slow = Known { cost, takes, ..Known::new(Pace::Interleaved) };
    // A round takes 20 ms at least: a second one would end after the budget.
    let cells = ["a"; 20];
    let budget = Some(Duration::from_millis(30));
    let bounds = Rounds { time_budget: budget, ..bounds(9) };
    let (seen, ended, rounds) = run(&bounds, &plan(&[&cells]), &mut slow);
    assert_eq!((seen.rounds.len(), ended, rounds), (20, Ended::Spent, 1));
}

#[test]
fn what_a_block_will_take_is_told_by_itself_else_by_the_others() {
    let ms = Duration::from_millis;
    let mut pace = Observed::new(2);
    assert_eq!(pace.expected(0, ms(3)), ms(3), "nothing is known");
    pace.took(0, ms(1), ms(20));
    assert_eq!((pace.expected(0, ms(3)), pace.expected(1, ms(3))), (ms(60), ms(60)));
    pace.took(1, ms(9), ms(1));
    assert_eq!(pace.expected(0, ms(3)), ms(60));
    assert_eq!(pace.expected(1, ms(3)), ms(3), "never less than estimated");
}
