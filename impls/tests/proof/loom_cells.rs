//! Every pair of operations, and the chosen triples, in every interleaving.

use cellbench_impls::AsyncCell;
use cellbench_impls::platform::Loom;
use cellbench_impls::platform::loom::advance_ns;
use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
use libtest_mimic::Trial;

use crate::arena::{Body, Setup};
use crate::cases::{self, Case, State};
use crate::explore::{Bound, explore, run_threads};
use crate::report::{self, Explored, RowKey};

/// Explores a case on a cell of type `C`, with its threads in each order: which of them loom runs
/// first decides which interleavings it takes for equal (see [`crate::schedules`]).
pub(crate) fn check_case<C: AsyncCell<Loom>>(case: &Case, setup: Setup, bound: Bound) -> Explored {
    let mut all = Explored::default();
    for order in orders(case.threads.len()) {
        let case = case.clone();
        let explored = explore(bound, move || {
            // A relative and an absolute time differ.
            advance_ns(1);
            let setup = Setup { body: Body::Nothing, ..setup };
            case.run::<Loom, C>(setup, &order, run_threads);
        });
        all.executions += explored.executions;
        all.seconds += explored.seconds;
        all.cut_short |= explored.cut_short;
    }
    all
}

/// Returns all orders of so many threads.
fn orders(threads: usize) -> Vec<Vec<usize>> {
    let Some(last) = threads.checked_sub(1) else { return vec![Vec::new()] };
    let extended = |order: Vec<usize>| {
        (0..threads).map(move |place| {
            let mut order = order.clone();
            order.insert(place, last);
            order
        })
    };
    orders(last).into_iter().flat_map(extended).collect()
}

/// Executions of a case in each order of its threads. A thread that spins is switched at every
/// turn, which no bound on preemptions limits: such cases end here. The same cases run under every
/// schedule of [`crate::shuttle_cells`], where a thread that spins hands on to the next one.
const CAP: u64 = 2_000;

struct Cells;

impl CellVisitor<Loom> for Cells {
    type Output = Vec<Trial>;
    fn visit<C: AsyncCell<Loom>>(self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for state in State::ALL {
            for case in cases::pairs::<Loom, C>(state) {
                let preemptions = if state == State::Running { 2 } else { 3 };
                let bound = Bound::new(preemptions).at_most(CAP);
                trials.push(trial::<C>(case, "pairs".to_owned(), bound));
            }
        }
        for case in cases::triples::<Loom, C>() {
            trials.push(trial::<C>(case, "triples".to_owned(), Bound::new(2).at_most(CAP)));
        }
        trials
    }
}

fn trial<C: AsyncCell<Loom>>(case: Case, property: String, bound: Bound) -> Trial {
    let subject = format!("{}/{}", C::KIND, C::ID);
    let name = format!("loom/{subject}/{case}");
    Trial::test(name, move || {
        let setup = case.setup();
        let explored = check_case::<C>(&case, setup, bound);
        report::add(RowKey { tool: "loom", subject, property }, explored);
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
