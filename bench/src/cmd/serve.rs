//! `cellbench serve-rounds`: measures rows as `cellbench ab` tells it to.

use std::io::{stdin, stdout};
use std::process::ExitCode;

use anyhow::Context;

use crate::backend::revisions::serve::serve;
use cellbench_host::topology::Topology;
use cellbench_measure::backend::cores::Cores;
use cellbench_measure::cmd::args::Measuring;
use cellbench_measure::cmd::run::stuck;
use cellbench_measure::session::plan::Plan;

/// Serves rounds on standard input and output.
pub(super) fn run(args: &Measuring) -> anyhow::Result<ExitCode> {
    let topology = Topology::read()?;
    let plan = Plan::new(&args.choice.selection(), &topology)?;
    let options = args.options();
    let mut cores = Cores::new(&topology, plan.cpus(), options, stuck(args.output.dir()));
    serve(&plan, &mut cores, &mut stdin().lock(), &mut stdout().lock())
        .context("serving rounds")?;
    Ok(ExitCode::SUCCESS)
}
