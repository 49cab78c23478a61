//! `cellbench kernel`: the running kernel's own timers, work queues, task works and locks, or those of
//! kernels in virtual machines.

mod machines;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use cellbench_kernel::{Kernel, KernelInfo, Row, rows};
use serde_json::json;

use cellbench_host::Placement;
use cellbench_measure::backend::Backend;
use cellbench_measure::cmd::args::{Output, parse_duration, parse_percent};
use cellbench_measure::cmd::command_line::{command_line, given};
use cellbench_measure::cmd::{output, report, run};
use cellbench_measure::session::ctrl_c::CtrlC;
use cellbench_measure::session::plan::{Plan, Shard};
use cellbench_measure::session::run::{Settings, run as run_session};

/// Measure the running kernel's own timers, work queues, task works and locks through BPF
///
/// Needs root, and a build with `--features kernel`; `--list` needs neither. With --vm, the same of
/// another kernel, in QEMU with KVM; with --against, of two, their rounds interleaved.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,
    /// Show what this kernel has, and measure nothing
    #[arg(long)]
    list: bool,
    /// Rows by name, as --list shows them
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    workloads: Vec<String>,
    /// Kinds: timer, wq, task_work, lock
    #[arg(long, value_name = "K,L", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Numbers of threads, one per CPU [default: 1 and all]
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    threads: Vec<u32>,
    /// How threads are placed: compact, spread, smt
    #[arg(long, value_name = "P", default_value = "compact")]
    placement: Placement,
    /// Time for all
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    time_budget: Duration,
    /// Length of one measurement
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_duration)]
    window: Duration,
    /// Stop after so many rounds
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seed of every random choice [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Relative difference that matters, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    threshold: f64,
    #[command(flatten)]
    machines: machines::Flags,
}

impl Args {
    /// Returns whether kernels in virtual machines are meant, and not the running one.
    pub(super) fn is_in_machines(&self) -> bool {
        self.machines.vm.is_some()
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(image) = &args.machines.vm {
        return machines::run(args, image);
    }
    let info = Kernel::probe()?;
    let chosen = choose(&info, args)?;
    if args.list {
        if args.output.json {
            output::emit_json(&as_json(&info, &chosen))?;
        } else {
            output::emit(&as_text(&info, &chosen)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    record(args, &info, chosen)
}

/// Returns the rows asked for.
fn choose(info: &KernelInfo, args: &Args) -> anyhow::Result<Vec<Row>> {
    let all = rows(info);
    let known = |names: &mut dyn Iterator<Item = String>| {
        let mut names: Vec<String> = names.collect();
        names.dedup();
        names.join(", ")
    };
    if let Some(name) =
        args.workloads.iter().find(|name| !all.iter().any(|row| row.name() == **name))
    {
        bail!("unknown row `{name}`; known are {}", known(&mut all.iter().map(Row::name)));
    }
    let kind = |row: &Row| row.kind().to_string();
    if let Some(name) = args.kinds.iter().find(|name| !all.iter().any(|row| kind(row) == **name)) {
        bail!("unknown kind `{name}`; known are {}", known(&mut all.iter().map(kind)));
    }
    let wanted = |row: &Row| {
        (args.workloads.is_empty() || args.workloads.contains(&row.name()))
            && (args.kinds.is_empty() || args.kinds.contains(&kind(row)))
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// Measures the rows and reports; without its measuring part, says how to get it.
#[cfg(not(feature = "kernel"))]
fn record(_: &Args, _: &KernelInfo, _: Vec<Row>) -> anyhow::Result<ExitCode> {
    cellbench_kernel::built()?;
    Ok(ExitCode::FAILURE)
}

/// Measures the rows and reports.
#[cfg(feature = "kernel")]
fn record(args: &Args, info: &KernelInfo, chosen: Vec<Row>) -> anyhow::Result<ExitCode> {
    use crate::backend::kernel::{RunningKernel, plan};
    use cellbench_host::Topology;

    info.check_permission()?;
    if let Some(emulator) = &info.emulator {
        return Err(cellbench_kernel::Error::Emulated { emulator: emulator.clone() }.into());
    }
    let topology = Topology::read()?;
    let mut threads = args.threads.clone();
    if threads.is_empty() {
        threads = vec![1, topology.usable.len() as u32];
        threads.dedup();
    }
    for &count in &threads {
        topology.place(args.placement, count as usize)?;
    }
    let most = threads.iter().copied().max().unwrap_or(0);
    let cpus = topology.place(args.placement, most as usize)?;
    let seed = args.seed.unwrap_or_else(run::seed_from_clock);
    let baseline = baseline(&chosen);
    let plan = plan(chosen, threads, &cpus, args.placement)?;
    let mut kernel = RunningKernel::new(info, &topology, &cpus, args.placement, seed);
    // Rows are compared with those of another run, of another kernel, as a rule.
    session(args, seed, baseline, false, plan, &mut kernel)
}

/// Measures a plan and reports.
fn session<B: Backend>(
    args: &Args,
    seed: u64,
    baseline: String,
    stops_when_decided: bool,
    plan: Plan<B::Spec>,
    backend: &mut B,
) -> anyhow::Result<ExitCode> {
    let given = given();
    let settings = Settings {
        out: args.output.dir(),
        seed,
        time_budget: Some(args.time_budget),
        window: Some(args.window),
        shard: Shard::WHOLE,
        most_rounds: Some(args.rounds),
        stops_when_decided,
        threshold_share: args.threshold,
        baseline,
        matrix: "kernel".to_owned(),
        command_line: command_line(("cellbench", &given), args.seed.is_none().then_some(seed)),
        watch: false,
        announce: output::note,
    };
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let finished = run_session(plan, backend, &settings, ctrl_c)?;
    let answers = report::show(&finished.dir, args.output.json, &[])?;
    Ok(run::conclude(&finished, answers))
}

/// Returns the kernel has one generation of cells; its locks are compared with each other.
#[cfg(feature = "kernel")]
fn baseline(chosen: &[Row]) -> String {
    let lock = chosen.iter().find(|row| row.cell == "bpf_spin_lock");
    lock.or(chosen.first()).map(|row| row.cell.clone()).unwrap_or_default()
}

fn as_json(info: &KernelInfo, chosen: &[Row]) -> serde_json::Value {
    let rows: Vec<_> = chosen
        .iter()
        .map(|row| {
            json!({
                "row": row.name(), "cell": row.cell, "kind": row.kind(), "about": row.about(),
                "skipped": row.skipped,
            })
        })
        .collect();
    json!({
        "release": info.release,
        "timer": info.cells.timer.map(|generation| generation.name()),
        "wq": info.cells.wq.map(|generation| generation.name()),
        "task_work": info.cells.task_work,
        "evidence": info.cells.evidence,
        "missing_capabilities": info.missing_capabilities,
        "emulator": info.emulator,
        "jit": info.jit,
        "built": cellbench_kernel::built().is_ok(),
        "rows": rows,
    })
}

fn as_text(info: &KernelInfo, chosen: &[Row]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let name = |generation: Option<cellbench_kernel::Generation>| {
        generation.map_or("none", |generation| generation.name())
    };
    writeln!(text, "kernel {}", info.release)?;
    writeln!(text, "timers: {}; work queues: {}", name(info.cells.timer), name(info.cells.wq))?;
    writeln!(text, "task works: {}", if info.cells.task_work { "yes" } else { "none" })?;
    for member in &info.cells.evidence {
        writeln!(text, "  by {member}")?;
    }
    if let Err(error) = info.check_permission() {
        writeln!(text, "measuring: {error}")?;
    }
    if let Err(error) = cellbench_kernel::built() {
        writeln!(text, "measuring: {error}")?;
    }
    writeln!(text)?;
    for row in chosen {
        let what = row
            .skipped
            .as_ref()
            .map_or_else(|| row.about().to_owned(), |reason| format!("not here: {reason}"));
        writeln!(text, "  {:<32} {:<14} {what}", row.name(), row.cell)?;
    }
    Ok(text)
}
