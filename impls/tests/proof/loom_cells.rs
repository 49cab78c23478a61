//! Every pair of operations, and the chosen triples, in every interleaving.

use std::sync::Arc;

use cellbench_impls::platform::Loom;
use cellbench_impls::platform::loom::advance_ns;
use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
use cellbench_impls::{AsyncCell, CpuId};
use libtest_mimic::Trial;

use crate::arena::{Arena, Body, Setup};
use crate::cases::{self, Case, State};
use crate::explore::{Bound, ThreadBody, explore, run_threads};
use crate::history::Call;
use crate::report::{self, Explored, RowKey};

/// Explores a case on a cell of type `C`; `check` sees the history of each execution.
pub(crate) fn check_case<C: AsyncCell<Loom>>(
    case: &Case,
    setup: Setup,
    bound: Bound,
    check: fn(&[Call]),
) -> Explored {
    let case = case.clone();
    explore(bound, move || {
        // A relative and an absolute time differ.
        advance_ns(1);
        let arena = Arena::<Loom, C>::new(Setup { body: Body::Nothing, ..setup });
        arena.prepare(case.state.preparation(C::KIND));
        let bodies = case.threads.iter().enumerate().map(|(number, ops)| -> ThreadBody {
            let (arena, ops) = (Arc::clone(&arena), ops.clone());
            Box::new(move || {
                let cpu = arena.machine.cpu(CpuId(number as u32));
                for op in ops {
                    let _ = arena.perform(&cpu, op);
                }
            })
        });
        run_threads(bodies.collect());
        check(&arena.check_rest());
    })
}

struct Cells;

impl CellVisitor<Loom> for Cells {
    type Output = Vec<Trial>;
    fn visit<C: AsyncCell<Loom>>(self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for state in State::ALL {
            for case in cases::pairs::<Loom, C>(state) {
                let preemptions = if state == State::Running { 2 } else { 3 };
                trials.push(trial::<C>(case, format!("pairs, {state}"), preemptions));
            }
        }
        for case in cases::triples::<Loom, C>() {
            trials.push(trial::<C>(case, "triples".to_owned(), 2));
        }
        trials
    }
}

fn trial<C: AsyncCell<Loom>>(case: Case, property: String, preemptions: usize) -> Trial {
    let subject = format!("{}/{}", C::KIND, C::ID);
    let name = format!("loom/{subject}/{case}");
    Trial::test(name, move || {
        let setup = case.setup();
        let explored = check_case::<C>(&case, setup, Bound::new(preemptions), |_| {});
        report::add(RowKey { tool: "loom", subject, property }, explored);
        Ok(())
    })
}

/// The tests of all registered cells.
pub(crate) fn trials() -> Vec<Trial> {
    CELLS
        .iter()
        .flat_map(|entry| visit_cell(entry.id, entry.kind, Cells).expect("registered"))
        .collect()
}
