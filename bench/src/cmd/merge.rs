//! `cellbench merge`: runs of several hosts as one, with the host as a dimension.

use std::path::PathBuf;
use std::process::ExitCode;

use cellbench_plots::merge;

use cellbench_measure::cmd::args::Output;
use cellbench_measure::cmd::{output, report};

/// Make one run of several, one host each
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Directories of runs, or files of `cellbench pack`
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let merged = merge(&args.runs, &args.output.dir())?;
    for damage in &merged.damage.first {
        output::note(&format!("left out: {damage}"));
    }
    report::show(&merged.dir, args.output.json, &[])?;
    Ok(ExitCode::SUCCESS)
}
