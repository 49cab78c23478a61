//! The `cellbench` command.
fn main() {}
