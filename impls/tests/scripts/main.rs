//! Holds the designs to the access scripts in `impls/scripts/`: the sequence of accesses of each
//! operation, on each path, as it was published. The README there describes the format. Holds the litmus
//! tests in `docs/litmus/` to their list.
//!
//! `cargo test -p cellbench-impls --test scripts`; a filter is a part of a file's or path's name.

mod cells;
mod compare;
mod litmus;
mod locks;
mod script;
mod sequence;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let trials = [cells::trials(), locks::trials(), litmus::trials()];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
