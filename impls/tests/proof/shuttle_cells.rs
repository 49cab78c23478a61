//! Every pair of operations and the chosen triples under every schedule with few preemptions.

use cellbench_impls::AsyncCell;
use cellbench_impls::platform::Shuttle;
use cellbench_impls::platform::shuttle::advance_ns;
use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
use libtest_mimic::Trial;

use crate::arena::Setup;
use crate::cases::{self, Case, State};
use crate::explore::Bound;
use crate::report::{self, Explored, RowKey};
use crate::schedules::{Schedules, run, run_threads};

/// Runs a case on a cell of type `C` under the given schedules.
pub(crate) fn check_case<C: AsyncCell<Shuttle>>(
    case: &Case,
    setup: Setup,
    schedules: Schedules,
) -> Explored {
    let case = case.clone();
    let order: Vec<usize> = (0..case.threads.len()).collect();
    run(schedules, move || {
        // A relative and an absolute time differ.
        advance_ns(1);
        case.run::<Shuttle, C>(setup, &order, run_threads);
    })
}

struct Cells;

impl CellVisitor<Shuttle> for Cells {
    type Output = Vec<Trial>;
    fn visit<C: AsyncCell<Shuttle>>(self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for state in State::ALL {
            for case in cases::pairs::<Shuttle, C>(state) {
                trials.push(trial::<C>(case, "pairs".to_owned()));
            }
        }
        for case in cases::triples::<Shuttle, C>() {
            trials.push(trial::<C>(case, "triples".to_owned()));
        }
        trials
    }
}

fn trial<C: AsyncCell<Shuttle>>(case: Case, property: String) -> Trial {
    let subject = format!("{}/{}", C::KIND, C::ID);
    let name = format!("bounded/{subject}/{case}");
    Trial::test(name, move || {
        let bound = Bound::new(1).preemptions.unwrap_or(usize::MAX);
        let explored = check_case::<C>(&case, case.setup(), Schedules::Bounded(bound));
        report::add(RowKey { tool: "bounded", subject, property }, explored);
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
