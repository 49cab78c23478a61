//! `cellbench sim`: the matrix of the real runs on a simulated machine; and whether the simulated
//! host is like the real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use cellbench_record::rfc3339_utc;
use cellbench_sim::MachineModel;
use cellbench_sim::truth::DRAWS;

use crate::backend::sim::plan::plan;
use crate::backend::sim::{Simulator, host, meter};
use crate::check::validate::against::{AgainstError, Comparison};
use crate::check::validate::{self, Nothing, ReadMeasuredError, Validation};
use cellbench_host::c2c::Effort;
use cellbench_host::{Clock, CpuId, Topology};
use cellbench_measure::cmd::args::{Charged, Choice, Output, parse_duration, parse_percent};
use cellbench_measure::cmd::command_line::{command_line, given};
use cellbench_measure::cmd::run::EXIT_NOTHING;
use cellbench_measure::cmd::{output, report, run};
use cellbench_measure::session::budget;
use cellbench_measure::session::ctrl_c::CtrlC;
use cellbench_measure::session::plan::Shard;
use cellbench_measure::session::run::{self as session, Settings};

/// Machine that is simulated unless another is named.
const DEFAULT_MACHINE: &str = "xeon-spr-2s";
/// Name under which the host itself is simulated.
const HOST: &str = "host";
/// Exit status when the model misses its bars.
const EXIT_MISSED: u8 = 1;

/// Simulate chosen cells, workloads and numbers of cores on a machine of up to hundreds of cores
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    charged: Charged,
    /// Machine to simulate: a name that --list shows, a file, or `host` for this one, as measured
    /// now and
    /// written to host.toml beside the run
    #[arg(long, value_name = "NAME|FILE", default_value = DEFAULT_MACHINE)]
    machine: String,
    /// List the machines and end
    #[arg(long)]
    list: bool,
    /// Calibrate a model of this host, measure primitives, locks and cells with two threads, and
    /// compare with what the model predicts; status 1 if it misses its bars, 3 if nothing counts.
    /// With
    /// --against: compare with measurements by others instead
    #[arg(long, conflicts_with_all = ["cells", "workloads", "kinds", "threads", "machine", "irq_save_ns", "arm_ns",
        "queue_ns", "irq_work_ns", "no_charges"])]
    validate: bool,
    /// With --validate: predict what an earlier one measured (its validation.json), without
    /// measuring
    #[arg(long, value_name = "FILE", requires = "validate", conflicts_with = "against")]
    measured: Option<PathBuf>,
    /// Give these fields, by label, cache lines of their own: what padding them would buy
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',')]
    own_line: Vec<String>,
    /// Rounds, each with random numbers of its own [default: the least that can decide every
    /// comparison, at least 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Begin no further round after this time, as 90s, 5m or 1h30m [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    time_budget: Option<Duration>,
    /// Seed of every random choice: the same seed gives the same rounds, to the byte
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Simulate every N-th configuration alone, beginning with the K-th: N processes together write
    /// the rounds that one writes, and `cellbench fleet` joins them
    #[arg(long, value_name = "K/N", conflicts_with_all = ["time_budget", "own_line", "validate"])]
    shard: Option<Shard>,
    /// Simulate every round on the machine as its file says; otherwise each round is on a machine
    /// drawn
    /// within the uncertainty of the figures, so that verdicts hold for all of these
    #[arg(long)]
    exact_machine: bool,
    /// Cell that the others are compared with [default: spin-queued, or the first of --cells]; with
    /// --validate a folder of measurements, such as sim/ground-truth
    #[arg(long, value_name = "CELL|DIR")]
    against: Option<String>,
    /// Relative difference that matters, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    threshold: f64,
}

impl Args {
    /// Returns the number of configurations that these arguments choose, without simulating any.
    ///
    /// # Errors
    /// What is wrong with machine, names or numbers.
    pub(super) fn configurations(&self) -> anyhow::Result<usize> {
        let machine = find_machine(&self.machine)?;
        let plan = plan(&self.choice.selection(), &machine)?;
        run::baseline(self.against.as_deref(), &mut plan.specs())?;
        Ok(plan.len())
    }
}

/// Simulates and reports.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.list {
        list()?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.validate {
        return validate(args);
    }
    let machine = find_machine(&args.machine)?;
    let plan = plan(&args.choice.selection(), &machine)?;
    let given = given();
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    if shard.count() > plan.len() {
        bail!("--shard {shard}: there are {} configurations", plan.len());
    }
    let settings = Settings {
        out: args.output.dir(),
        seed: args.seed,
        shard,
        window: None,
        most_rounds: Some(args.rounds.unwrap_or_else(|| budget::least_to_decide(&plan))),
        stops_when_decided: false,
        time_budget: args.time_budget,
        threshold_share: args.threshold,
        baseline: run::baseline(args.against.as_deref(), &mut plan.specs())?,
        matrix: args.choice.matrix_name().to_owned(),
        command_line: command_line(("cellbench", &given), None),
        watch: false,
        announce: output::note,
    };
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let mut simulator = Simulator::new(&machine, &args.own_line, args.seed)
        .exact(args.exact_machine)
        .charging(args.charged.of(machine.core.interrupt_ns));
    let finished = session::run(plan, &mut simulator, &settings, ctrl_c)?;
    if args.machine == HOST {
        let file = finished.dir.join("host.toml");
        fs::write(&file, machine.to_toml())
            .with_context(|| format!("{}: write the machine", file.display()))?;
    }
    let answers = if shard == Shard::WHOLE {
        report::show(&finished.dir, args.output.json, &[])?
    } else {
        // Rows of a part are compared with nothing: their baselines may be in another.
        output::emit(&format!("{}\n", finished.dir.display()))?;
        true
    };
    output::note(&meter::describe(&simulator.speed()));
    Ok(run::conclude(&finished, answers))
}

fn list() -> anyhow::Result<()> {
    let mut text = String::new();
    for name in MachineModel::preset_names() {
        let machine = MachineModel::preset(name)?;
        let threads = machine.places().len();
        text += &format!("{name:<20} {threads:>4} hardware threads  {}\n", machine.title);
    }
    text += &format!("{HOST:<20} {:>22}  this host, measured when it is named\n", "");
    output::emit(&text)
}

/// Returns a built-in machine, one from a file, or this host.
fn find_machine(name: &str) -> anyhow::Result<MachineModel> {
    if name != HOST {
        return Ok(MachineModel::find(name)?);
    }
    let topology = Topology::read()?;
    let cpus: Vec<CpuId> = topology.usable.iter().collect();
    let effort = Effort::for_cpus(cpus.len());
    let measured = host::measure(&topology, &cpus, effort, &Clock::new())?;
    Ok(measured.machine()?)
}

/// Compares model and measurements, writes both down, and says by the exit status whether it holds.
fn validate(args: &Args) -> anyhow::Result<ExitCode> {
    match compare(args) {
        Err(error) if error.chain().any(is_nothing) => {
            output::error(&error);
            Ok(ExitCode::from(EXIT_NOTHING))
        }
        outcome => outcome,
    }
}

/// Returns whether an error says that nothing counts. A transparent one hides its cause from the chain.
fn is_nothing(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<Nothing>()
        || matches!(error.downcast_ref(), Some(ReadMeasuredError::Nothing(_)))
        || matches!(error.downcast_ref(), Some(AgainstError::Nothing(_)))
}

fn compare(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.against {
        return against(args, Path::new(folder));
    }
    let measured = match &args.measured {
        Some(file) => validate::read_measured(file)?,
        None => {
            let topology = Topology::read()?;
            let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
            let dir = args.output.dir();
            validate::measure(&topology, ctrl_c, run::stuck(dir))?
        }
    };
    let validation = Validation::of(measured, DRAWS)?;
    let figures = serde_json::to_string_pretty(&validation).context("encoding JSON")? + "\n";
    let dir = write_validation(
        &args.output.dir(),
        &[
            ("validation.json", figures),
            ("validation.md", validation.to_string()),
            ("host.toml", validation.machine.clone()),
        ],
    )?;
    if args.output.json {
        output::emit_json(&validation)?;
    } else {
        output::emit(&format!("{validation}\nWritten to {}\n", dir.display()))?;
    }
    if let Some(nothing) = validation.nothing() {
        return Err(nothing.into());
    }
    Ok(if validation.holds() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_MISSED) })
}

/// Compares the model with all measurements in a folder.
fn against(args: &Args, folder: &Path) -> anyhow::Result<ExitCode> {
    let comparison = Comparison::of(folder)?;
    let figures = serde_json::to_string_pretty(&comparison).context("encoding JSON")? + "\n";
    let mut files =
        vec![("ground-truth.json", figures), ("ground-truth.md", comparison.to_string())];
    if let Some(chart) = comparison.chart()? {
        files.push(("ground-truth.svg", chart.svg));
    }
    let dir = write_validation(&args.output.dir(), &files)?;
    if args.output.json {
        output::emit_json(&comparison)?;
    } else {
        output::emit(&format!("{comparison}\nWritten to {}\n", dir.display()))?;
    }
    Ok(if comparison.holds() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_MISSED) })
}

/// Writes files to a directory of their own.
fn write_validation(out: &Path, files: &[(&str, String)]) -> anyhow::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamp: String = rfc3339_utc(now.as_secs()).chars().filter(|c| !"-:".contains(*c)).collect();
    let dir = out.join(format!("validation-{stamp}"));
    fs::create_dir_all(&dir).with_context(|| format!("{}: create the directory", dir.display()))?;
    for (name, text) in files {
        let file = dir.join(name);
        fs::write(&file, text).with_context(|| format!("{}: write it", file.display()))?;
    }
    Ok(dir)
}
