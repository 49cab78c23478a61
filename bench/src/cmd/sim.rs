//! `cellbench sim`: the matrix of the real runs on a simulated machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use cellbench_sim::MachineModel;

use super::args::{Choice, Output, parse_duration, parse_percent};
use super::{output, report, run};
use crate::runner::interrupt::Interrupt;
use crate::runner::plan::Plan;
use crate::simulate::plan::plan;
use crate::simulate::session::{self, Settings};

/// Machine that is simulated unless another is named.
const DEFAULT_MACHINE: &str = "xeon-spr-2s";
/// Cell that the others are compared with, unless it is not simulated.
const BASELINE: &str = cellbench_plots::options::DEFAULT_BASELINE;

/// Simulate chosen cells, workloads and numbers of cores on a machine of up to hundreds of cores
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    choice: Choice,
    /// Machine to simulate: a name that --list shows, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = DEFAULT_MACHINE)]
    machine: String,
    /// List the machines and end
    #[arg(long)]
    list: bool,
    /// Rounds, each with random numbers of its own; fewer than 10 leave comparisons undecided
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Begin no further round after this time, as 90s, 5m or 1h30m [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    time_budget: Option<Duration>,
    /// Seed of every random choice: the same seed gives the same rounds, to the byte
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Cell that the others are compared with [default: spin-queued, or the first of --cells]
    #[arg(long, value_name = "CELL")]
    against: Option<String>,
    /// Relative difference that matters, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    threshold: f64,
}

/// Simulates and reports.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.list {
        list()?;
        return Ok(ExitCode::SUCCESS);
    }
    let machine = MachineModel::find(&args.machine)?;
    let plan = plan(&args.choice.selection(), &machine)?;
    let given: Vec<String> = std::env::args().skip(1).collect();
    let settings = Settings {
        out: args.output.dir(),
        seed: args.seed,
        rounds: args.rounds,
        time_budget: args.time_budget,
        threshold_share: args.threshold,
        baseline: baseline(args.against.as_deref(), &plan)?,
        matrix: args.choice.matrix_name().to_owned(),
        command_line: run::command_line(("cellbench", &given), None),
    };
    let interrupt = Interrupt::install().map_err(|error| anyhow!(error))?;
    let finished = session::run(&plan, &machine, &settings, interrupt)?;
    report::show(&finished.dir, args.output.json, &[])?;
    Ok(run::conclude(&finished))
}

fn list() -> anyhow::Result<()> {
    let mut text = String::new();
    for name in MachineModel::preset_names() {
        let machine = MachineModel::preset(name)?;
        let threads = machine.places().len();
        text += &format!("{name:<20} {threads:>4} hardware threads  {}\n", machine.title);
    }
    output::emit(&text)
}

/// The cell asked for, else the usual one if it is simulated, else the first that is.
fn baseline(against: Option<&str>, plan: &Plan) -> anyhow::Result<String> {
    let simulated = |name: &str| plan.specs().any(|spec| spec.series.cell == name);
    if let Some(name) = against {
        if !simulated(name) {
            bail!("--against {name}: it is not among the cells that are simulated");
        }
        return Ok(name.to_owned());
    }
    let first = plan.specs().next().map(|spec| spec.series.cell.clone());
    Ok(if simulated(BASELINE) { BASELINE.to_owned() } else { first.unwrap_or_default() })
}
