//! Proof that the locks and cells are correct, by machines that look for the races which
//! reviewers find by reading: every interleaving (loom), random schedules (shuttle), an
//! interruption at every atomic step, and bugs planted to show that the tools find bugs.
//!
//! The tests are generated over the registry, so a new design is covered by its line there.
//! `cargo test -p cellbench-impls --test proof -- --list` names them; VERIFICATION.md says how to
//! run the whole.

mod arena;
mod cases;
mod history;
#[cfg(feature = "loom")]
mod loom_cells;
mod report;

use libtest_mimic::{Arguments, Trial};

fn main() {
    #[cfg(feature = "loom")]
    print_timeline_of_panics();
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    #[cfg(feature = "loom")]
    trials.extend(loom_trials::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        report::print();
    }
    conclusion.exit();
}

/// A failed execution says what happened in it, before it unwinds: with a checker's threads that
/// may abort.
#[cfg(feature = "loom")]
fn print_timeline_of_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        if let Some(history) = loom_cells::history_in_progress() {
            eprintln!("{}", history::timeline(&history));
        }
    }));
}

#[cfg(feature = "loom")]
mod loom_trials {
    use cellbench_impls::AsyncCell;
    use cellbench_impls::platform::Loom;
    use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
    use libtest_mimic::Trial;

    use crate::arena::Setup;
    use crate::cases::{self, Case, State};
    use crate::loom_cells::{Bound, check_case};
    use crate::report::{self, RowKey};

    struct Cells;

    impl CellVisitor<Loom> for Cells {
        type Output = Vec<Trial>;
        fn visit<C: AsyncCell<Loom>>(self) -> Vec<Trial> {
            let mut trials = Vec::new();
            for state in State::ALL {
                for case in cases::pairs::<Loom, C>(state) {
                    let preemptions = if state == State::Running { 1 } else { 2 };
                    trials.push(trial::<C>(case, format!("pairs, {state}"), preemptions));
                }
            }
            for case in cases::triples::<Loom, C>() {
                trials.push(trial::<C>(case, "triples".to_owned(), 1));
            }
            trials
        }
    }

    fn trial<C: AsyncCell<Loom>>(case: Case, property: String, preemptions: usize) -> Trial {
        let subject = format!("{}/{}", C::KIND, C::ID);
        let name = format!("loom/{subject}/{case}");
        Trial::test(name, move || {
            let setup = Setup::new(case.threads.len() as u32);
            let explored = check_case::<C>(&case, setup, Bound::new(preemptions), |_| {});
            report::add(RowKey { tool: "loom", subject, property }, explored);
            Ok(())
        })
    }

    pub(crate) fn trials() -> Vec<Trial> {
        CELLS
            .iter()
            .flat_map(|entry| visit_cell(entry.id, entry.kind, Cells).expect("registered"))
            .collect()
    }
}
