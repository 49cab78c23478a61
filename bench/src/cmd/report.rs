//! `cellbench report`: every report of a run again, from its records.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use cellbench_plots::report::{FORMATS, Format, terminal};
use cellbench_plots::{Options, write_formats};
use cellbench_record::Entry;

use super::args::parse_percent;
use super::output;
use crate::runner::plan::HEADLINE;

/// Rows that a terminal shows without hiding what matters.
const ROWS_SHOWN: usize = 80;

/// Make every report of a run again, from its records alone
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Directory of the run, such as target/cellbench/latest
    run: PathBuf,
    /// Print summary.json instead of text
    #[arg(long)]
    json: bool,
    /// Only these formats
    #[arg(long, value_name = "F,G", value_delimiter = ',')]
    only: Vec<String>,
    /// Charts as PNG as well
    #[arg(long)]
    png: bool,
    /// Compare with another cell than the run itself says
    #[arg(long, value_name = "CELL")]
    against: Option<String>,
    /// Relative difference that matters, in percent [default: what the run says]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    threshold: Option<f64>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let known: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
    if let Some(name) = args.only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("unknown format `{name}`; known are {}", known.join(", "));
    }
    let options = |options: &mut Options| {
        if let Some(baseline) = &args.against {
            options.baseline.clone_from(baseline);
        }
        if let Some(threshold) = args.threshold {
            options.threshold_share = threshold;
        }
    };
    let wanted =
        |format: &dyn Format| args.png && format.name() == "png" || is_wanted(format, &args.only);
    show_with(&args.run, args.json, wanted, options)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the reports of a run (all if `only` is empty) and shows its table, or its summary as JSON.
pub(super) fn show(run: &Path, json: bool, only: &[String]) -> anyhow::Result<()> {
    show_with(run, json, |format| is_wanted(format, only), |_| ())
}

fn is_wanted(format: &dyn Format, only: &[String]) -> bool {
    if only.is_empty() {
        !format.is_on_demand()
    } else {
        only.iter().any(|name| name == format.name())
    }
}

fn show_with(
    run: &Path,
    json: bool,
    wanted: impl Fn(&dyn Format) -> bool,
    options: impl FnOnce(&mut Options),
) -> anyhow::Result<()> {
    let written = write_formats(run, options, wanted)?;
    if let Some(baseline) =
        missing_baseline(&written.loaded.summary.entries, &written.loaded.summary.baseline)
    {
        return Err(anyhow!(
            "no row of cell `{baseline}` in {} to compare with; see --against",
            run.display()
        ));
    }
    for damage in &written.loaded.damage.first {
        output::note(&format!("left out: {damage}"));
    }
    if written.loaded.damage.total > written.loaded.damage.first.len() as u64 {
        output::note(&format!("left out: {} places in all", written.loaded.damage.total));
    }
    for (format, reason) in &written.failed {
        output::note(&format!("no {format}: {reason}"));
    }
    if json {
        return output::emit_json(&written.loaded.summary);
    }
    let mut summary = written.loaded.summary.clone();
    let hidden = shorten(&mut summary.entries);
    let report = cellbench_plots::report::Report { summary: &summary, ..written.loaded.report() };
    let mut text = terminal(&report, output::colour());
    text.push('\n');
    if hidden > 0 {
        text += &format!("{hidden} more rows in the reports.\n");
    }
    for file in ["index.html", "mail.txt", "RESULTS.md"] {
        let path = written.loaded.dir.join("report").join(file);
        if written.files.contains(&path) {
            text += &format!("{}\n", path.display());
        }
    }
    output::emit(&text)
}

/// The baseline, if there are rows and none of them is its.
fn missing_baseline<'a>(entries: &[Entry], baseline: &'a str) -> Option<&'a str> {
    let missing = !entries.is_empty() && !entries.iter().any(|entry| entry.series.cell == baseline);
    missing.then_some(baseline)
}

/// Keeps what fits on a terminal: all, or the headline workloads on most threads. Errors always
/// stay. Returns how many rows went.
fn shorten(entries: &mut Vec<Entry>) -> usize {
    let before = entries.len();
    if before <= ROWS_SHOWN {
        return 0;
    }
    let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(1);
    let solo = |entry: &Entry| entry.series.workload.starts_with("solo-");
    entries.retain(|entry| {
        let threads = if solo(entry) { 1 } else { most };
        !entry.violations.is_empty()
            || HEADLINE.contains(&entry.series.workload.as_str()) && entry.series.threads == threads
    });
    before - entries.len()
}
