//! Proof that the locks and cells are correct, by machines that look for the races which
//! reviewers find by reading: every interleaving (loom), bounded and random schedules (shuttle),
//! linearizability, and bugs planted to show that the tools find bugs.
//!
//! The tests are generated over the registry, so a new design is covered by its line there. Their
//! groups are `loom/`, `bounded/`, `random/`, `pct/`, `model/`, `linear/`, `planted/`, `published/` and
//! `lkmm/`: give one as a filter. VERIFICATION.md says how to run the whole and what was seen.

mod arena;
mod cases;
mod explore;
mod history;
mod linear;
mod loom_cells;
mod loom_locks;
mod model;
mod orders;
mod planted;
mod published;
mod random;
mod report;
mod schedules;
mod shuttle_cells;
mod shuttle_locks;

use libtest_mimic::Arguments;

// Cargo.toml has this test built only where the features `loom`, `shuttle` and `planted` are on.
fn main() {
    history::print_history_of_panics();
    planted::hunt_if_asked();
    let arguments = Arguments::from_args();
    let trials = [
        // Before those under shuttle: its panic hook, once installed, prints two lines for every
        // execution that loom unwinds.
        loom_locks::trials(),
        loom_cells::trials(),
        shuttle_locks::trials(),
        shuttle_cells::trials(),
        random::trials(),
        model::trials(),
        linear::trials(),
        planted::trials(),
        published::trials(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    if !arguments.list {
        report::print();
    }
    conclusion.exit();
}
