//! Proof that the locks and cells are correct, by machines that look for the races which
//! reviewers find by reading: every interleaving (loom), random schedules (shuttle), an
//! interruption at every atomic step, and bugs planted to show that the tools find bugs.
//!
//! The tests are generated over the registry, so a new design is covered by its line there.
//! `cargo test -p cellbench-impls --test proof -- --list` names them; VERIFICATION.md says how to
//! run the whole.

mod arena;
mod cases;
#[cfg(feature = "loom")]
mod explore;
mod history;
#[cfg(feature = "shuttle")]
mod linear;
#[cfg(feature = "loom")]
mod loom_cells;
#[cfg(feature = "loom")]
mod loom_locks;
#[cfg(feature = "shuttle")]
mod model;
#[cfg(all(feature = "loom", feature = "shuttle", feature = "planted"))]
mod orders;
#[cfg(all(feature = "loom", feature = "shuttle", feature = "planted"))]
mod planted;
#[cfg(feature = "shuttle")]
mod random;
mod report;
#[cfg(feature = "shuttle")]
mod schedules;
#[cfg(feature = "shuttle")]
mod shuttle_cells;

use libtest_mimic::{Arguments, Trial};

fn main() {
    history::print_history_of_panics();
    #[cfg(all(feature = "loom", feature = "shuttle", feature = "planted"))]
    planted::hunt_if_asked();
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    #[cfg(feature = "loom")]
    {
        trials.extend(loom_locks::trials());
        trials.extend(loom_cells::trials());
    }
    #[cfg(feature = "shuttle")]
    {
        trials.extend(shuttle_cells::trials());
        trials.extend(random::trials());
        trials.extend(model::trials());
        trials.extend(linear::trials());
    }
    #[cfg(all(feature = "loom", feature = "shuttle", feature = "planted"))]
    trials.extend(planted::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        report::print();
    }
    conclusion.exit();
}
