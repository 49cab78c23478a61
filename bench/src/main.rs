//! The `cellbench` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    cellbench::cmd::main()
}
