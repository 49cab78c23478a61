//! `cellbench topology`: CPUs, caches, and how far the cores are from each other.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use serde_json::json;

use cellbench_host::c2c::{self, Effort, Matrix, Method};
use cellbench_host::cpus::CpuId;
use cellbench_host::topology::CoreKind;
use cellbench_host::{Clock, Placement, Topology};
use cellbench_measure::cmd::output;
use cellbench_measure::session::ctrl_c::{self, CtrlC};

/// CPUs up to which a matrix takes well under a minute at full effort.
const FULL_EFFORT_CPUS: usize = 32;
/// Time between two notes of how far measuring is.
const BETWEEN_NOTES: Duration = Duration::from_secs(5);
/// CPUs up to which a matrix is printed row by row.
const PRINTED_CPUS: usize = 16;

/// Show CPUs, caches and the core-to-core latency matrix
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Read a saved tree laid out as /sys, of another machine
    #[arg(long, value_name = "DIR")]
    sysfs: Option<PathBuf>,
    /// Number of CPUs [default: all that may be used]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// In which order
    #[arg(long, value_name = "P", default_value = "compact")]
    placement: Placement,
    /// Do not measure latencies
    #[arg(long)]
    no_latency: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let topology = match &args.sysfs {
        Some(dir) => Topology::from_sysfs(dir)?,
        None => Topology::read()?,
    };
    let wanted = args.threads.map_or(topology.usable.len(), |threads| threads as usize);
    let order = topology.place(args.placement, wanted)?;
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let matrices =
        if args.sysfs.is_some() || args.no_latency { Vec::new() } else { measure(&order, ctrl_c)? };
    if args.json {
        output::emit_json(&as_json(&topology, args.placement, &order, &matrices))?;
    } else {
        output::emit(&as_text(&topology, args.placement, &order, &matrices)?)?;
    }
    if ctrl_c.is_requested() {
        output::note("interrupted: pairs of CPUs without a figure were not measured");
        return Ok(ExitCode::from(ctrl_c::EXIT_STATUS));
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures with each method until the user interrupts; says now and then how far it is.
fn measure(cpus: &[CpuId], ctrl_c: CtrlC) -> anyhow::Result<Vec<Matrix>> {
    if cpus.is_empty() {
        bail!("no CPU to measure");
    }
    let clock = Clock::new();
    let effort = if cpus.len() <= FULL_EFFORT_CPUS { Effort::FULL } else { Effort::QUICK };
    let mut said = Instant::now();
    let measured: Result<Vec<Matrix>, _> = Method::ALL
        .into_iter()
        .map(|method| {
            c2c::measure_while(cpus, method, effort, &clock, &mut |done, pairs| {
                if said.elapsed() >= BETWEEN_NOTES {
                    said = Instant::now();
                    output::note(&format!("{}: {done} of {pairs} pairs of CPUs", method.name()));
                }
                !ctrl_c.is_requested()
            })
        })
        .collect();
    Ok(measured?)
}

fn kind(kind: CoreKind) -> &'static str {
    match kind {
        CoreKind::Performance => "performance",
        CoreKind::Efficiency => "efficiency",
    }
}

fn as_json(
    topology: &Topology,
    placement: Placement,
    order: &[CpuId],
    matrices: &[Matrix],
) -> serde_json::Value {
    let cpus: Vec<_> = topology
        .cpus
        .iter()
        .map(|cpu| {
            json!({
                "cpu": cpu.id.0, "package": cpu.package, "die": cpu.die, "llc": cpu.llc,
                "core": cpu.core, "smt_index": cpu.smt_index, "numa_node": cpu.numa_node,
                "kind": kind(cpu.kind), "usable": topology.usable.contains(cpu.id),
            })
        })
        .collect();
    json!({
        "packages": topology.packages(), "dies": topology.dies(),
        "llc_groups": topology.llc_groups(), "numa_nodes": topology.numa_nodes(),
        "cores": topology.cores(), "cpus_online": topology.cpus.len(),
        "cpus_usable": topology.usable.len(), "offline": topology.offline.to_string(),
        "quota_cpus": topology.quota.as_ref().map(|quota| quota.cpus()),
        "placement": placement.name(),
        "order": order.iter().map(|cpu| cpu.0).collect::<Vec<_>>(),
        "cpus": cpus,
        "core_to_core": matrices.iter().map(Matrix::to_record).collect::<Vec<_>>(),
    })
}

fn as_text(
    topology: &Topology,
    placement: Placement,
    order: &[CpuId],
    matrices: &[Matrix],
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let known = |count: Option<usize>| count.map_or("?".to_owned(), |n| n.to_string());
    writeln!(
        text,
        "{} packages, {} dies, {} last-level caches, {} NUMA nodes, {} cores, {} CPUs online",
        known(topology.packages()),
        known(topology.dies()),
        known(topology.llc_groups()),
        known(topology.numa_nodes()),
        topology.cores(),
        topology.cpus.len()
    )?;
    writeln!(text, "usable: {}", topology.usable)?;
    if !topology.offline.is_empty() {
        writeln!(text, "offline: {}", topology.offline)?;
    }
    if let Some(quota) = &topology.quota {
        writeln!(text, "cgroup allows {:.1} CPUs ({})", quota.cpus(), quota.source.display())?;
    }
    let order: Vec<String> = order.iter().map(|cpu| cpu.to_string()).collect();
    writeln!(text, "{placement} order: {}", order.join(" "))?;
    writeln!(text, "\n CPU package die LLC core SMT node kind")?;
    for cpu in &topology.cpus {
        let known = |group: Option<u32>| group.map_or("-".to_owned(), |group| group.to_string());
        writeln!(
            text,
            "{:>4} {:>7} {:>3} {:>3} {:>4} {:>3} {:>4} {}{}",
            cpu.id.0,
            known(cpu.package),
            known(cpu.die),
            known(cpu.llc),
            cpu.core,
            cpu.smt_index,
            known(cpu.numa_node),
            kind(cpu.kind),
            if topology.usable.contains(cpu.id) { "" } else { " (not usable here)" }
        )?;
    }
    for matrix in matrices {
        matrix_text(&mut text, matrix)?;
    }
    Ok(text)
}

fn matrix_text(text: &mut String, matrix: &Matrix) -> std::fmt::Result {
    let Some(median_ns) = matrix.median_ns() else {
        return writeln!(text, "\none CPU: no line moves between cores");
    };
    writeln!(text, "\ncore to core, one way, {}: median {median_ns:.1} ns", matrix.method.name())?;
    if matrix.cpus.len() > PRINTED_CPUS {
        return writeln!(text, "(the whole matrix: --json)");
    }
    write!(text, "    ")?;
    for cpu in &matrix.cpus {
        write!(text, " {:>6}", cpu.0)?;
    }
    writeln!(text)?;
    for (cpu, row) in matrix.cpus.iter().zip(&matrix.one_way_ns) {
        write!(text, "{:>4}", cpu.0)?;
        for latency_ns in row {
            match latency_ns {
                Some(latency_ns) => write!(text, " {latency_ns:>6.1}")?,
                None => write!(text, " {:>6}", "-")?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}
