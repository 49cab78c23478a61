//! The planted bugs alone, as `proof` hunts them: built in a third of the time, for the mutations.

#![allow(dead_code, reason = "the modules serve `proof`, which uses all of them")]

mod arena;
mod cases;
mod explore;
mod history;
mod loom_cells;
mod loom_locks;
mod orders;
mod planted;
mod published;
mod report;
mod schedules;
mod shuttle_cells;
mod shuttle_locks;

use libtest_mimic::Arguments;

fn main() {
    history::print_history_of_panics();
    planted::hunt_if_asked();
    libtest_mimic::run(&Arguments::from_args(), planted::trials()).exit();
}
