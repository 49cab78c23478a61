//! `cellbench report`: every report of a run again, from its records.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use cellbench_plots::report::{
    Caution, CautionKind, FORMATS, Format, Kept, cautions, keep, terminal,
};
use cellbench_plots::{Options, write_formats};
use cellbench_record::{Entry, Extra, Summary, write_atomically};

use super::args::parse_percent;
use super::output;
use super::run::EXIT_NOTHING;
use crate::session::plan::HEADLINE;

/// Rows that a terminal shows without hiding what matters.
const ROWS_SHOWN: usize = 80;

/// Make every report of a run again, from its records alone
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Directory of the run, such as target/cellbench/latest
    run: PathBuf,
    /// Print summary.json instead of text
    #[arg(long)]
    json: bool,
    /// Only these formats
    #[arg(long, value_name = "F,G", value_delimiter = ',')]
    only: Vec<String>,
    /// Charts as PNG as well; takes a build with --features png
    #[arg(long)]
    png: bool,
    /// Take RUN for a directory of kept runs, and write one page of them all, such as RESULTS.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "only", "png", "against", "threshold"])]
    page: Option<PathBuf>,
    /// Keep the run in this directory, without what no report reads, for --page
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "only", "png", "against", "threshold", "page"])]
    keep: Option<PathBuf>,
    /// Compare with another cell than the run itself says
    #[arg(long, value_name = "CELL")]
    against: Option<String>,
    /// Relative difference that matters, in percent [default: what the run says]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    threshold: Option<f64>,
}

/// Command that makes the page again, for its header.
const PAGE_COMMAND: &str = "cargo run --release -p cellbench -- report results --page RESULTS.md";

/// Makes the reports again, or writes a page of kept runs, or keeps the run.
///
/// # Errors
/// A run that cannot be read, a format or workload that it lacks, or a place that cannot be written to.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(page) = &args.page {
        return write_page(&args.run, page);
    }
    if let Some(into) = &args.keep {
        keep(&args.run, into)?;
        output::emit(&format!("{}\n", into.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !cfg!(feature = "png") && (args.png || args.only.iter().any(|name| name == "png")) {
        bail!("this build draws no PNG; build with `--features png`");
    }
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
    let answers = show_with(&args.run, args.json, wanted, options, args.against.as_deref())?;
    Ok(if answers { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOTHING) })
}

/// Writes one page of the runs kept in `dir`, with the table of the VERIFICATION.md beside the
/// page.
fn write_page(dir: &Path, page: &Path) -> anyhow::Result<ExitCode> {
    let kept = Kept::read(dir)?;
    for damage in kept.runs.iter().flat_map(|(_, run)| &run.damage.first) {
        output::note(&format!("left out: {damage}"));
    }
    let verification = match fs::read_to_string(page.with_file_name("VERIFICATION.md")) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(anyhow!("VERIFICATION.md: {error}")),
    };
    let text = kept.page(PAGE_COMMAND, verification.as_deref()).map_err(|error| anyhow!(error))?;
    write_with_figures(page, &text, kept.figures().map_err(|error| anyhow!(error))?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page, and beside it the figures that it names; prints the page's path.
pub fn write_with_figures(
    page: &Path,
    text: &str,
    figures: Vec<(PathBuf, String)>,
) -> anyhow::Result<()> {
    for (path, svg) in figures {
        let path = page.with_file_name(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_atomically(&path, svg.as_bytes())?;
    }
    write_atomically(page, text.as_bytes())?;
    output::emit(&format!("{}\n", page.display()))
}

/// Writes the reports of a run (all if `only` is empty) and shows its table, or its summary as
/// JSON.
/// Returns whether the run has something that can be judged.
pub fn show(run: &Path, json: bool, only: &[String]) -> anyhow::Result<bool> {
    show_with(run, json, |format| is_wanted(format, only), |_| (), None)
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
    asked_for: Option<&str>,
) -> anyhow::Result<bool> {
    let written = write_formats(run, options, wanted)?;
    // Where nobody asked for a cell, a caution of the report says that there is none to compare with.
    if let Some(baseline) =
        asked_for.and_then(|asked| missing_baseline(&written.loaded.summary.entries, asked))
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
    let fatal =
        |caution: &Caution| matches!(caution.kind, CautionKind::Empty | CautionKind::AllDisturbed);
    let answers = !cautions(&written.loaded.report()).iter().any(fatal);
    if json {
        output::emit_json(&written.loaded.summary)?;
        return Ok(answers);
    }
    let all = &written.loaded.summary;
    let shown = shown(&all.entries);
    let hidden = all.entries.len() - shown.len();
    let summary = Summary {
        run_id: all.run_id.clone(),
        baseline: all.baseline.clone(),
        entries: shown,
        scaling: Vec::new(),
        extra: Extra::new(),
        ..*all
    };
    let report = written.loaded.report().with_summary(&summary);
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
    output::emit(&text)?;
    Ok(answers)
}

/// Returns the baseline, if there are rows and none of them is its.
fn missing_baseline<'a>(entries: &[Entry], baseline: &'a str) -> Option<&'a str> {
    let missing = !entries.is_empty() && !entries.iter().any(|entry| entry.series.cell == baseline);
    missing.then_some(baseline)
}

/// Returns what fits on a terminal: all, or the headline workloads on most threads. Errors are
/// always shown. Where that would be nothing, the report of all rows chooses among them.
fn shown(entries: &[Entry]) -> Vec<Entry> {
    if entries.len() <= ROWS_SHOWN {
        return entries.to_vec();
    }
    let most = entries.iter().map(|entry| entry.series.threads).max().unwrap_or(1);
    let is_shown = |entry: &&Entry| {
        let series = &entry.series;
        let threads = if series.workload.starts_with("solo-") { 1 } else { most };
        !entry.violations.is_empty()
            || HEADLINE.contains(&series.workload.as_str()) && series.threads == threads
    };
    let shown: Vec<Entry> = entries.iter().filter(is_shown).cloned().collect();
    if shown.is_empty() { entries.to_vec() } else { shown }
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Kind, Series, Source};

    use super::*;

    fn entries(workload: &str) -> Vec<Entry> {
        let on = |threads| {
            Series::new("spin-queued", Kind::Timer, workload, threads, "compact", Source::Sim)
        };
        (1..=ROWS_SHOWN as u32 + 1).map(|threads| Entry::new(on(threads))).collect()
    }

    #[test]
    fn many_rows_without_a_headline_workload_are_not_called_none() {
        assert_eq!(shown(&entries("same-cell-retry")).len(), 1);
        assert_eq!(shown(&entries("same-cell")).len(), ROWS_SHOWN + 1);
    }
}
