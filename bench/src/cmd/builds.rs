//! `cellbench builds`: one comparison over several builds of the same sources.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use cellbench_plots::builds::{OverBuilds, Pair};
use cellbench_plots::{Loaded, over_builds, report};
use cellbench_record::Verdict;

use cellbench_measure::cmd::args::parse_percent;
use cellbench_measure::cmd::output;

/// Exit status when a cell is slower and --fail-on-slower asks.
const EXIT_FAILED: u8 = 1;

/// Compare cells over runs of several builds, since the place of code moves its speed
///
/// The runs are of one plan, each measured by a build in which functions lie elsewhere, as
/// `scripts/layouts.sh` makes them. What one build decides and others do not is the place of its code.
///
/// Exit status: 0; with --fail-on-slower 1 if a cell is slower than the one it is paired with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Directories of runs, one of each build
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Cells to compare [default: each with the baseline]
    #[arg(long, value_name = "CELL/CELL", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<Pair>,
    /// Relative difference that matters, in percent [default: what the first run says]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    threshold: Option<f64>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// End with status 1 if a cell is slower
    #[arg(long)]
    fail_on_slower: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut runs = Vec::with_capacity(args.runs.len());
    for dir in &args.runs {
        let run = Loaded::read(dir, |options| {
            if let Some(threshold) = args.threshold {
                options.threshold_share = threshold;
            }
        })?;
        for damage in &run.damage.first {
            output::note(&format!("left out: {damage}"));
        }
        runs.push(run);
    }
    check(&args.pairs, &runs)?;
    let found = over_builds(&runs, &args.pairs);
    if args.json {
        output::emit_json(&found)?;
    } else {
        output::emit(&report::over_builds(&found))?;
    }
    Ok(status(&found, args.fail_on_slower))
}

/// Refuses a pair whose cells no run has: a misspelt name must not read as nothing to compare.
fn check(pairs: &[Pair], runs: &[Loaded]) -> anyhow::Result<()> {
    let is_measured = |cell: &str| {
        let entries = runs.iter().flat_map(|run| &run.summary.entries);
        entries.into_iter().any(|entry| entry.series.cell == cell)
    };
    for cell in pairs.iter().flat_map(|pair| [&pair.cell, &pair.against]) {
        if !is_measured(cell) {
            bail!("--pairs: no run has the cell `{cell}`");
        }
    }
    Ok(())
}

fn status(found: &OverBuilds, fail_on_slower: bool) -> ExitCode {
    let slower = found.count(Verdict::Slower);
    if !fail_on_slower || slower == 0 {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("--fail-on-slower: {slower} slower"));
    ExitCode::from(EXIT_FAILED)
}

/// Reads `mcs/ck-mcs`.
fn parse_pair(text: &str) -> Result<Pair, String> {
    match text.split_once('/') {
        Some((cell, against)) if !cell.is_empty() && !against.is_empty() && cell != against => {
            Ok(Pair { cell: cell.to_owned(), against: against.to_owned() })
        }
        _ => Err("two cells with a slash between, as in `mcs/ck-mcs`".to_owned()),
    }
}
