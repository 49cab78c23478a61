//! `cellbench kernel`: the running kernel's own timers, work queues, task works and locks.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use cellbench_kernel::{Event, Kernel, KernelInfo, Layout, Row, measure, rows};
use cellbench_record::{RunWriter, Severity};
use serde_json::json;

use super::args::{Output, parse_duration, parse_percent};
use super::command_line::{command_line, given};
use super::{output, report, run};
use crate::session::ctrl_c::{self, CtrlC};
use crate::session::run::{Settings, describe_run, unix_s};
use cellbench_host::cpus::CpuSet;
use cellbench_host::doctor::examine;
use cellbench_host::{Placement, Topology};

/// Measure the running kernel's own timers, work queues, task works and locks through BPF
///
/// Needs root, and a build with `--features kernel`; `--list` needs neither.
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
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
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
    cellbench_kernel::built()?;
    info.check_permission()?;
    record(args, &info, chosen)
}

/// The rows asked for.
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

fn record(args: &Args, info: &KernelInfo, chosen: Vec<Row>) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let topology = Topology::read()?;
    let mut threads = args.threads.clone();
    if threads.is_empty() {
        threads = vec![1, topology.usable.len() as u32];
        threads.dedup();
    }
    let most = threads.iter().copied().max().unwrap_or(0);
    for &count in &threads {
        topology.place(args.placement, count as usize)?;
    }
    let cpus = topology.place(args.placement, most as usize)?;
    let seed = args.seed.unwrap_or_else(run::seed_from_clock);
    let given = given();
    let settings = Settings {
        out: args.output.dir(),
        seed,
        time_budget: args.time_budget,
        window: Some(args.window),
        most_rounds: Some(args.rounds),
        threshold_share: args.threshold,
        baseline: baseline(&chosen),
        irq_save_cost_ns: 0.0,
        interrupt_rate_hz: None,
        matrix: "kernel".to_owned(),
        command_line: command_line(("cellbench", &given), args.seed.is_none().then_some(seed)),
    };
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let mut run = describe_run(&topology, &cpus, &settings);
    run.settings.window_s = args.window.as_secs_f64();
    let used: CpuSet = cpus.iter().copied().collect();
    run.findings = examine(&topology, &used, Duration::from_millis(500));
    if info.jit == Some(false) {
        run.findings.insert(0, interpreted());
    }
    run.notes
        .extend(info.cells.evidence.iter().map(|member| format!("the kernel's cells: {member}")));
    let mut writer = RunWriter::create(&settings.out, run)?;
    let events = measure(cellbench_kernel::Plan {
        rows: chosen,
        layouts: vec![Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF],
        threads,
        cpus: cpus.iter().map(|cpu| cpu.0).collect(),
        placement: args.placement.name().to_owned(),
        rounds: args.rounds,
        window: args.window,
        latency: true,
        seed,
        stop: None,
        emulator: info.emulator.clone(),
    })?;
    let mut notes = Vec::new();
    for event in events {
        match event? {
            Event::Skipped { row, reason } => notes.push(format!("left out: {row}: {reason}")),
            Event::Round(result) => writer.append(&result.to_round()?)?,
        }
        if ctrl_c.is_requested() || began.elapsed() >= args.time_budget {
            break;
        }
    }
    writer.update_run(|run| {
        run.notes.append(&mut notes);
        run.finished_unix_s = Some(unix_s());
    })?;
    report::show(writer.dir(), args.output.json, &[])?;
    Ok(if ctrl_c.is_requested() { ExitCode::from(ctrl_c::EXIT_STATUS) } else { ExitCode::SUCCESS })
}

/// The kernel has one generation of cells; its locks are compared with each other.
fn baseline(chosen: &[Row]) -> String {
    let lock = chosen.iter().find(|row| row.cell == "bpf_spin_lock");
    lock.or(chosen.first()).map(|row| row.cell.clone()).unwrap_or_default()
}

/// The JIT is off.
fn interpreted() -> cellbench_record::Finding {
    cellbench_record::Finding {
        id: "bpf-jit".to_owned(),
        severity: Severity::Unfit,
        text: "BPF programs are interpreted".to_owned(),
        effect: "the loops measure the interpreter, not the kernel's cells".to_owned(),
        fix: "as root: sysctl net.core.bpf_jit_enable=1".to_owned(),
    }
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
