//! `cellbench doctor`: is this host fit to measure on, and what to change.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use cellbench_record::Severity;
use serde_json::json;

use cellbench_host::cpus::CpuSet;
use cellbench_host::doctor::{Fitness, examine};
use cellbench_host::{Placement, Topology};
use cellbench_measure::cmd::output;

/// Say whether this host is fit to measure on, and what to change
///
/// Exit status: 0 fit, 3 fit with warnings, 4 unfit.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Number of CPUs to examine [default: all that may be used]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Which ones
    #[arg(long, value_name = "P", default_value = "compact")]
    placement: Placement,
    /// How long to watch the host
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = cellbench_measure::cmd::args::parse_duration)]
    watch: Duration,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let topology = Topology::read()?;
    let cpus: CpuSet = match args.threads {
        Some(threads) => topology.place(args.placement, threads as usize)?.into_iter().collect(),
        None => topology.usable.clone(),
    };
    let findings = examine(&topology, &cpus, args.watch);
    let fitness = Fitness::of(&findings);
    if args.json {
        output::emit_json(&json!({
            "fitness": fitness.to_string(),
            "cpus": cpus.to_string(),
            "findings": findings,
        }))?;
        return Ok(ExitCode::from(fitness.exit_status()));
    }
    let mut text = String::new();
    for finding in &findings {
        let mark = match finding.severity {
            Severity::Ok => "ok     ",
            Severity::Info => "info   ",
            Severity::Warning => "WARNING",
            Severity::Unfit => "UNFIT  ",
        };
        writeln!(text, "{mark}  {}: {}", finding.id, finding.text)?;
        if !finding.effect.is_empty() {
            writeln!(text, "           effect: {}", finding.effect)?;
        }
        if !finding.fix.is_empty() {
            writeln!(text, "           change: {}", finding.fix)?;
        }
    }
    writeln!(text, "CPUs {cpus}: {fitness}")?;
    output::emit(&text)?;
    Ok(ExitCode::from(fitness.exit_status()))
}
