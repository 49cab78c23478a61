//! The `cellbench` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: cellbench_measure::alloc::LineAligned = cellbench_measure::alloc::LineAligned;

fn main() -> ExitCode {
    cellbench::cmd::main()
}
