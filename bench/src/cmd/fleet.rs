//! `cellbench fleet`: many hosts and many simulated machines, through Slurm.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use cellbench_fleet::submit::{How, Submitted};
use cellbench_fleet::{Plan as FleetPlan, Store, Tool, collect, execute, status, submit};
use cellbench_sim::MachineModel;
use clap::{Parser, Subcommand};

use super::{Cli, Command};
use crate::backend::sim;
use cellbench_measure::cmd::{output, report, run};
use cellbench_measure::session::plan::{Plan, Selection};
use cellbench_measure::session::run::GIT_REVISION;

/// Exit status when no task waits or runs, and not all are complete.
const EXIT_INCOMPLETE: u8 = 1;
/// Exit status when tasks wait or run.
const EXIT_AT_WORK: u8 = 3;
/// Exit status of a task on an unfit host, that of `cellbench doctor`.
const EXIT_UNFIT: u8 = 4;
/// Time between two looks of `status --follow`.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Machine whose hardware threads stand for those of a host that is not known yet.
const LARGE: &str = "xeon-spr-2s";

/// Measure on many hosts and simulate on many machines, through Slurm
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Of,
}

#[derive(Debug, Subcommand)]
enum Of {
    /// Write the batch scripts of a plan, show and submit them, and say how to follow
    Submit {
        /// The plan, see docs/fleet.md
        plan: PathBuf,
        /// Write and show only
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what became of the tasks, and why
    ///
    /// Exit status: 0 all complete, 3 tasks wait or run, 1 none does and some are not complete.
    Status {
        /// The plan, or the directory that submit printed
        fleet: PathBuf,
        /// Wait until no task waits or runs
        #[arg(long)]
        follow: bool,
    },
    /// Submit again what is missing, and nothing else
    Resume {
        /// The plan, or the directory that submit printed
        fleet: PathBuf,
        /// Also the tasks that found their host unfit
        #[arg(long)]
        unfit: bool,
    },
    /// Check, join and merge what the tasks left, and report
    Collect {
        /// The plan, or the directory that submit printed
        fleet: PathBuf,
        /// Leave out what is not complete
        #[arg(long)]
        partial: bool,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Do one task: what the batch scripts call
    #[command(hide = true)]
    Task {
        /// The fleet's directory
        fleet: PathBuf,
        /// Number of the task
        number: u32,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Of::Submit { plan, dry_run } => submitted(plan, *dry_run),
        Of::Status { fleet, follow } => show_status(&directory(fleet)?, *follow),
        Of::Resume { fleet, unfit } => {
            let dir = directory(fleet)?;
            // Killed before anything was written down: nothing is missing but everything.
            if dir != *fleet && !dir.join("fleet.json").exists() {
                return submitted(fleet, false);
            }
            let done = submit::resume(&dir, *unfit)?;
            output::emit(&follow(&done, fleet)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Of::Collect { fleet, partial, json } => {
            let collected = collect::collect(&Store::open(&directory(fleet)?)?, *partial)?;
            for note in &collected.notes {
                output::note(note);
            }
            for merged in &collected.merged {
                report::show(merged, *json, &[])?;
            }
            for joined in &collected.joined {
                output::note(&format!("joined: {}", joined.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        Of::Task { fleet, number } => {
            let cellbench = std::env::current_exe().context("the path of cellbench")?;
            let ended = execute::execute(fleet, *number, &cellbench, &tool(&cellbench)?)?;
            match ended {
                execute::Ended::Complete => Ok(ExitCode::SUCCESS),
                execute::Ended::WasComplete => {
                    output::note(&format!("task {number} is complete already"));
                    Ok(ExitCode::SUCCESS)
                }
                execute::Ended::Unfit(why) => {
                    output::note(&format!(
                        "task {number}: not measured, this host is unfit: {why}"
                    ));
                    Ok(ExitCode::from(EXIT_UNFIT))
                }
            }
        }
    }
}

/// Returns the directory of a fleet that is named by its plan or by itself.
fn directory(fleet: &Path) -> anyhow::Result<PathBuf> {
    if !fleet.is_file() {
        return Ok(fleet.to_owned());
    }
    let plan = FleetPlan::read(fleet)?;
    Ok(plan.directory.join(plan.name))
}

/// Describes this build of cellbench.
fn tool(cellbench: &Path) -> anyhow::Result<Tool> {
    Tool::of(cellbench, env!("CARGO_PKG_VERSION"), GIT_REVISION)
        .with_context(|| format!("{}: read it", cellbench.display()))
}

fn submitted(plan: &Path, dry_run: bool) -> anyhow::Result<ExitCode> {
    let cellbench = std::env::current_exe().context("the path of cellbench")?;
    let how = How { cellbench: &cellbench, tool: &tool(&cellbench)?, dry_run };
    let done = submit::submit(plan, how, &check)?;
    let mut text = String::new();
    for (path, script) in &done.scripts {
        write!(text, "# {}\n{script}\n", path.display())?;
    }
    if dry_run {
        let command = std::env::args().next().unwrap_or_else(|| "cellbench".to_owned());
        let (tasks, plan) = (done.store.fleet.tasks.len(), plan.display());
        let tasks = tasks_of(tasks);
        writeln!(text, "{tasks}, none submitted; submit: {command} fleet submit {plan}")?;
    } else {
        text += &follow(&done, plan)?;
    }
    output::emit(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a number of tasks in words.
fn tasks_of(number: usize) -> String {
    if number == 1 { "1 task".to_owned() } else { format!("{number} tasks") }
}

/// Returns what was submitted, and how to follow it.
fn follow(done: &Submitted, fleet: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for (number, script, tasks) in &done.jobs {
        writeln!(text, "job {number}: {script}, {}", tasks_of(*tasks))?;
    }
    if done.left_alone > 0 {
        writeln!(text, "{} tasks are complete or at work", done.left_alone)?;
    }
    if done.unfit > 0 {
        writeln!(text, "{} tasks found their host unfit; again: resume --unfit", done.unfit)?;
    }
    let command = std::env::args().next().unwrap_or_else(|| "cellbench".to_owned());
    let fleet = fleet.display();
    writeln!(text, "directory: {}", done.store.dir.display())?;
    writeln!(text, "follow:    {command} fleet status --follow {fleet}")?;
    writeln!(text, "finish:    {command} fleet collect {fleet}")?;
    Ok(text)
}

fn show_status(dir: &Path, follow: bool) -> anyhow::Result<ExitCode> {
    let store = Store::open(dir)?;
    let mut shown = String::new();
    loop {
        let found = status::status(&store)?;
        let text = found.to_string();
        if text != shown {
            output::emit(&text)?;
            shown = text;
        }
        if follow && let Some(why) = &found.no_queue {
            bail!("cannot follow: {why}");
        }
        if follow && found.is_at_work() {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        return Ok(if found.is_complete() {
            ExitCode::SUCCESS
        } else if found.is_at_work() {
            ExitCode::from(EXIT_AT_WORK)
        } else {
            ExitCode::from(EXIT_INCOMPLETE)
        });
    }
}

/// Checks the arguments of a task as the command will read them, as far as that can be known
/// before it
/// is on its host; returns the number of configurations.
pub(super) fn check(args: &[String]) -> Result<usize, String> {
    let words = std::iter::once("cellbench").chain(args.iter().map(String::as_str));
    let cli = Cli::try_parse_from(words)
        .map_err(|error| cellbench_measure::cmd::what_is_wrong(&error))?;
    let one_line = |error: anyhow::Error| format!("{error:#}");
    match cli.command {
        Command::Run(measuring) => {
            // How many CPUs the host has is not known here; names are.
            let any = Selection {
                threads: Vec::new(),
                placements: Vec::new(),
                ..measuring.choice.selection()
            };
            let large = MachineModel::preset(LARGE).map_err(|error| error.to_string())?;
            let plan = Plan::new(&any, &sim::plan::topology(&large));
            let plan = plan.map_err(|error| error.to_string())?;
            let against = measuring.against.as_deref();
            run::baseline(against, &mut plan.specs()).map_err(|error| error.to_string())?;
            Ok(plan.len())
        }
        Command::Sim(args) => args.configurations().map_err(one_line),
        // Which rows a kernel has is known on its node alone; a guest runs a program of its own.
        Command::Kernel(kernel) if kernel.is_in_machines() => Ok(1),
        Command::Kernel(_) => {
            cellbench_kernel::built().map(|()| 1).map_err(|error| one_line(error.into()))
        }
        _ => Err(format!("`{}` is no task of a fleet", args.join(" "))),
    }
}
