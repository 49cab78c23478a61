//! Program that `cargo bench` runs: `cellbench run` under the conditions of a Cargo bench target.
//!
//! Cargo adds `--bench` to what the user typed.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::args::Measuring;
use super::command_line::given;
use super::{finish, output, run, usage};
use crate::session::plan::Plan;
use cellbench_host::Topology;

/// Words that the user typed before the arguments.
const COMMAND: &str = "cargo bench --";

/// Measure this host and report.
#[derive(Debug, Parser)]
#[command(name = COMMAND, version)]
struct Suite {
    #[command(flatten)]
    measuring: Measuring,
    /// Only rows whose name, as `timer/same-cell/cmpxchg-state`, contains this
    filter: Option<String>,
    /// List the rows instead of measuring them
    #[arg(long)]
    list: bool,
}

/// Returns the suite's whole `main`.
#[must_use]
pub fn suite() -> ExitCode {
    let own: Vec<OsString> = given().into_iter().filter(|arg| arg != "--bench").collect();
    match Suite::try_parse_from(std::iter::once(COMMAND.into()).chain(own.iter().cloned())) {
        Ok(suite) => finish(measure(&suite, &own)),
        Err(error) => usage(&error),
    }
}

fn measure(suite: &Suite, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let topology = Topology::read()?;
    let mut plan = Plan::new(&suite.measuring.choice.selection(), &topology)?;
    if let Some(filter) = &suite.filter {
        plan.retain(|name| name.contains(filter.as_str()));
        if plan.is_empty() {
            // It may be a benchmark of another target.
            output::note(&format!("suite: no row matches `{filter}`"));
            return Ok(ExitCode::SUCCESS);
        }
    }
    if suite.list {
        let rows: String = plan.specs().map(|spec| format!("{}\n", spec.series)).collect();
        output::emit(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    run::measure(&suite.measuring, plan, &topology, (COMMAND, args))
}
