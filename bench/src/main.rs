//! The `cellbench` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: cellbench::alloc::LineAligned = cellbench::alloc::LineAligned;

fn main() -> ExitCode {
    cellbench::cmd::main()
}
