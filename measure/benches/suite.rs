//! The main job: measure this host and report. `cargo bench`, or `cargo bench --bench suite -- ...`
//! with the flags of `cellbench run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cellbench_measure::cmd::suite()
}
