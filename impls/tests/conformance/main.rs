//! Every registered design against the tables of operations and errors: each row of what an
//! operation returns in which state and context, and every interruption of one operation by
//! another, step by step. The errors that a design was seen to return are exactly those that it
//! may return: one that never occurs would be a row that nobody drove.

mod callbacks;
mod interruptions;
mod rows;
mod scene;
mod tables;

use cellbench_impls::cell::Steps;
use cellbench_impls::registry::{CELLS, CellEntry, CellVisitor, visit_cell};
use cellbench_impls::{AsyncCell, Errno};

use crate::scene::{Op, P, Seen};

/// Runs every row and compares.
struct Conform(CellEntry);

impl CellVisitor<P> for Conform {
    /// Errors that were seen and may not be, and those that may be and were not seen.
    type Output = [Vec<(Op, Errno)>; 2];

    fn visit<C: AsyncCell<P>>(self) -> Self::Output {
        let seen = Seen::default();
        if C::STEPS == Steps::One {
            rows::schedule_rows::<C>(&seen);
        } else {
            rows::state_rows::<C>(&seen);
            rows::life_rows::<C>(&seen);
            rows::context_rows::<C>(&seen);
            rows::memory_rows::<C>(&seen);
            callbacks::frees_itself::<C>(&seen);
            interruptions::at_every_step::<C>(&seen);
            if C::PROMISES.update_in_nmi && !C::PROMISES.lockless {
                interruptions::times_out::<C>(&seen);
            }
            if C::PROMISES.cancel_needs_irqs {
                interruptions::recursion::<C>(&seen);
            }
            if C::CANCELS {
                callbacks::self_cancel::<C>(&seen);
                callbacks::mutual_cancel::<C>(&seen);
            }
        }
        let (seen, allowed) =
            (seen.take(), tables::errors(self.0.id, self.0.kind, C::CANCELS_ASYNC));
        [&seen - &allowed, &allowed - &seen].map(Vec::from_iter)
    }
}

#[test]
fn every_design_returns_what_its_tables_say_and_all_of_it() {
    let mut all_conform = true;
    for entry in CELLS {
        println!("{} {}", entry.id, entry.kind);
        let result = visit_cell::<P, _>(entry.id, entry.kind, Conform(*entry));
        let [forbidden, unseen] = result.expect("registered");
        if !forbidden.is_empty() || !unseen.is_empty() {
            println!("  returned and may not: {forbidden:?}");
            println!("  never returned: {unseen:?}");
            all_conform = false;
        }
    }
    assert!(all_conform, "see above");
}
