//! Longer histories: some threads with some operations each, under random schedules. What the
//! threads do is drawn from a seed, which a failure prints, and `CELLBENCH_SEED` sets.

use cellbench_impls::AsyncCell;
use cellbench_impls::platform::Shuttle;
use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
use libtest_mimic::Trial;

use crate::cases::{self, Case, State};
use crate::history::{self, Op};
use crate::report::{self, Explored, RowKey};
use crate::schedules::Schedules;
use crate::shuttle_cells::check_case;

/// Histories for each cell and way of scheduling.
const HISTORIES: u64 = 60;
/// Schedules for each history.
const SCHEDULES: usize = 200;

/// Numbers from a seed (Steele, Lea and Flood, SplitMix64).
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Makes the numbers that belong to a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Draws a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Draws the operations of `threads` threads on a cell that has those given. The last reference to the map
/// goes at most once.
pub(crate) fn draw(numbers: &mut Numbers, ops: &[Op], threads: usize, length: usize) -> Case {
    let mut user = true;
    let mut op = || loop {
        let op = match ops[numbers.below(ops.len())] {
            Op::Set(_) => Op::Set(numbers.below(2) as u8),
            Op::Schedule(_) => Op::Schedule(numbers.below(2) as u8),
            // Rare: after it nothing can be initialised.
            Op::PutUser if !user || numbers.below(4) > 0 => continue,
            op => op,
        };
        user &= op != Op::PutUser;
        return op;
    };
    let threads = (0..threads).map(|_| (0..length).map(|_| op()).collect()).collect();
    Case { state: State::Ready, threads }
}

/// Returns the seed to begin with.
pub(crate) fn seed() -> u64 {
    match std::env::var("CELLBENCH_SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("CELLBENCH_SEED={seed}: give a number")),
        Err(_) => 1,
    }
}

fn run<C: AsyncCell<Shuttle>>(schedules: fn(u64) -> Schedules) -> Explored {
    let mut all = Explored::default();
    let ops = cases::ops::<Shuttle, C>();
    for seed in seed()..seed() + HISTORIES {
        history::set_seed(seed);
        let mut numbers = Numbers::new(seed);
        let threads = 3 + numbers.below(4);
        let case = draw(&mut numbers, &ops, threads, 12 / threads + 2);
        let explored = check_case::<C>(&case, case.setup(), schedules(seed));
        all.executions += explored.executions;
        all.seconds += explored.seconds;
    }
    all
}

struct Cells;

impl CellVisitor<Shuttle> for Cells {
    type Output = [Trial; 2];
    fn visit<C: AsyncCell<Shuttle>>(self) -> [Trial; 2] {
        [
            trial::<C>("random", |seed| Schedules::Random { seed, count: SCHEDULES }),
            trial::<C>("pct", |seed| Schedules::Pct { seed, count: SCHEDULES }),
        ]
    }
}

fn trial<C: AsyncCell<Shuttle>>(tool: &'static str, schedules: fn(u64) -> Schedules) -> Trial {
    let subject = format!("{}/{}", C::KIND, C::ID);
    Trial::test(format!("{tool}/{subject}"), move || {
        let property = "invariants, 3 to 6 threads".to_owned();
        let explored = run::<C>(schedules);
        report::add(RowKey { tool, subject, property }, explored);
        Ok(())
    })
}

/// Returns the tests of all registered cells.
pub(crate) fn trials() -> Vec<Trial> {
    CELLS
        .iter()
        .flat_map(|entry| visit_cell(entry.id, entry.kind, Cells).expect("registered"))
        .collect()
}
