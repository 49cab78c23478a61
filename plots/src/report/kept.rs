//! `RESULTS.md` of a repository: one page from the runs that are kept in it, so that text and data
//! cannot part. Each run has its directory below one (`results/model`, `results/sim`, ...); the page
//! shows each at a glance, and the run's own report has the rest.

mod traces;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{
    Counter, Damage, Entry, Latency, Named, PooledLatency, ReadError, Run, RunReader, Series,
    Source, WriteError, write_atomically,
};

use super::findings::{findings, reservations};
use super::ground_truth::{self, Background};
use super::layout::Columns;
use super::markdown::{
    Page, at_most_threads, disturbed, limits, measured, ruler, scaling, self_test, waits,
};
use super::{Loaded, outcome, overview, verdict};
use crate::number;
use traces::Traces;

/// Runs kept below one directory.
#[derive(Debug)]
pub struct Kept {
    /// Runs with the names of their directories: model, simulator, kernel, then others.
    pub runs: Vec<(String, Loaded)>,
    /// The simulator's comparison with measurements by others, as text, if one is kept.
    pub ground_truth: Option<String>,
    traces: Traces,
}

/// Where that comparison is kept, and its chart beside it.
const GROUND_TRUTH: &str = "validation/ground-truth.md";

/// The kept runs could not be read, or a run not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The directory cannot be listed.
    #[error("{}: cannot list its runs: {source}", .path.display())]
    List {
        /// Path of the directory.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// There is no run below it.
    #[error("{}: no run below it; keep each in a directory of its own, such as {}/model/run.json", .0.display(), .0.display())]
    Empty(PathBuf),
    /// A run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A run is not whole.
    #[error("{0}; only a whole run can be kept")]
    Damaged(Damage),
}

impl Kept {
    /// Reads every run that has its directory in `dir`.
    ///
    /// # Errors
    /// [`KeptError`] if there is none, or one that cannot be read.
    pub fn read(dir: &Path) -> Result<Self, KeptError> {
        let list = |source| KeptError::List { path: dir.to_owned(), source };
        let mut runs = Vec::new();
        for found in fs::read_dir(dir).map_err(list)? {
            let found = found.map_err(list)?;
            if found.path().join("run.json").is_file() {
                let name = found.file_name().to_string_lossy().into_owned();
                runs.push((name, Loaded::read(&found.path(), |_| ())?));
            }
        }
        if runs.is_empty() {
            return Err(KeptError::Empty(dir.to_owned()));
        }
        runs.sort_by_cached_key(|(name, loaded)| (rank(source_of(loaded)), name.clone()));
        let file = dir.join(GROUND_TRUTH);
        let ground_truth = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(KeptError::List { path: file, source }),
        };
        Ok(Self { runs, ground_truth, traces: Traces::read(dir) })
    }

    /// Returns, for a simulated run with fields on lines of their own: the one with every field in its
    /// place.
    fn base_of(&self, padded: &Loaded) -> Option<(&str, &Loaded)> {
        let place = |loaded: &Loaded| {
            let first = loaded.summary.entries.first()?;
            Some((first.series.source.clone(), first.series.machine.clone()))
        };
        let is_base = |other: &Loaded| {
            other.run.settings.own_lines.is_empty() && place(other) == place(padded)
        };
        if padded.run.settings.own_lines.is_empty() {
            return None;
        }
        let (name, base) = self.runs.iter().find(|(_, loaded)| is_base(loaded))?;
        Some((name, base))
    }

    /// Returns the page. `command` makes it again; `verification` is the text of VERIFICATION.md,
    /// if there
    /// is one, whose first table is shown.
    ///
    /// # Errors
    /// The reason if a figure could not be drawn.
    pub fn page(&self, command: &str, verification: Option<&str>) -> Result<String, String> {
        let mut page = Page::default();
        page.line("# Results");
        page.line("");
        page.line(&format!("Generated from the runs in `results/` by `{command}`; do not edit."));
        page.line("");
        for (number, finding) in findings(&self.runs)?.iter().enumerate() {
            page.line(&format!("{}. **{}** *({})*", number + 1, finding.text, finding.source));
            if let Some(figure) = &finding.figure {
                page.line(&format!("\n   ![{}]({})\n", figure.title, figure_path(&figure.name)));
            }
        }
        if let Some(table) = verification.and_then(first_table) {
            let checks = table.lines().count().saturating_sub(2);
            page.line(&format!(
                "\nThe designs themselves are held to their promises by {}, each with its tool and command, in \
                 VERIFICATION.md.",
                number::count(checks as u64, "check")
            ));
        }
        page.section("What would change the answer");
        for line in reservations(&self.runs) {
            page.line(&format!("- {line}"));
        }
        page.section("How to read the tables");
        page.line(&format!(
            "Each run has its own full report: `cellbench report results/{}` writes tables, charts \
             and a page for browsers. How to read a number is in METHODOLOGY.md.",
            self.runs.first().map_or("RUN", |(name, _)| name)
        ));
        page.line("");
        page.line(overview::LEGEND);
        for (name, loaded) in &self.runs {
            // What differs from a run in nothing but where some fields lie is shown beside it.
            if self.base_of(loaded).is_none() {
                run(&mut page, name, loaded);
            }
        }
        for (name, loaded) in &self.runs {
            if let Some((base, unpadded)) = self.base_of(loaded) {
                padding(&mut page, (base, unpadded), (name, loaded));
            }
        }
        let all: Vec<&Entry> =
            self.runs.iter().flat_map(|(_, loaded)| &loaded.summary.entries).collect();
        page.depth = 0;
        let native = self.runs.iter().filter(|(_, loaded)| source_of(loaded) != Some(&Source::Sim));
        let background = Background::of(native.map(|(_, loaded)| &loaded.run));
        ground_truth::section(&mut page, &all, background);
        if let Some(text) = &self.ground_truth {
            page.section("The simulator against measurements by others");
            page.line(
                "Made by `cellbench sim --validate --against sim/ground-truth`. Half of the rows, by a hash of \
                 their names, was never used to choose a figure of the model: held out. What a data set is \
                 and where it comes from is in `sim/ground-truth/`.\n",
            );
            page.line("![Measured against predicted](results/validation/ground-truth.svg)\n");
            page.text += text;
        }
        self.traces.section(&mut page);
        if let Some(table) = verification.and_then(first_table) {
            page.section("Verification");
            page.line("From VERIFICATION.md, which also says what `MODELS` stands for and what is not verified.\n");
            page.text += &table;
        }
        page.section("Limits");
        page.line(
            "What the model leaves out, and what these numbers cannot say, is in METHODOLOGY.md under \
             those headings. Simulated numbers are those of a model of a machine, on which no two runs \
             with one seed differ. Their intervals hold 95 % of the rounds, each of which has random numbers \
             of its own and, where the run says so, a machine of its own within the uncertainty of the \
             figures: they do not cover what the model leaves out.",
        );
        Ok(page.text)
    }

    /// Returns the figures that the page names, with their paths beside it.
    ///
    /// # Errors
    /// The reason if a figure could not be drawn.
    pub fn figures(&self) -> Result<Vec<(PathBuf, String)>, String> {
        let figures = findings(&self.runs)?.into_iter().filter_map(|finding| finding.figure);
        Ok(figures.map(|figure| (figure_path(&figure.name).into(), figure.svg)).collect())
    }
}

/// Returns where a figure lies beside the page.
fn figure_path(name: &str) -> String {
    format!("results/figures/{name}.svg")
}

/// Keeps a run in a directory: `run.json` and the rounds without what no report reads, which is
/// what
/// takes the space: fields that are not of the schema, traffic by field, outcomes by context and
/// operation, and of a counter that a host does not have the
/// reason more than once for each row.
///
/// # Errors
/// [`KeptError`] if the run cannot be read whole or a file not be written.
pub fn keep(run: &Path, into: &Path) -> Result<(), KeptError> {
    let reader = RunReader::open(run)?;
    let mut kept = reader.run().clone();
    let loaded = Loaded::read(run, |_| ())?;
    kept.pooled_latency = pooled(&loaded);
    kept.notes.retain(|note| note != REDUCED);
    kept.notes.push(REDUCED.into());
    let mut lines = Vec::new();
    let mut seen = HashSet::new();
    for round in reader.rounds()? {
        let mut round = round.map_err(KeptError::Damaged)?;
        round.extra.clear();
        round.coherence = None;
        round.context_ops.clear();
        if !seen.insert(round.series.clone()) {
            round.counters.retain(|_, counter| !matches!(counter, Counter::Unavailable { .. }));
        }
        for latency in round.latency.values_mut() {
            latency.hlog = None;
        }
        lines.extend(encode(into, serde_json::to_vec(&round))?);
        lines.push(b'\n');
    }
    fs::create_dir_all(into).map_err(|source| WriteError::Io {
        path: into.to_owned(),
        action: "create the directory",
        source,
    })?;
    write_atomically(&into.join("rounds.jsonl"), &lines)?;
    write_atomically(
        &into.join("run.json"),
        &encode(into, serde_json::to_vec_pretty::<Run>(&kept))?,
    )?;
    Ok(())
}

/// Returns latencies of all samples together, which the logs hold that are not kept.
fn pooled(loaded: &Loaded) -> Vec<PooledLatency> {
    let pooled = loaded.summary.entries.iter().filter(|entry| entry.latency_pooled);
    pooled
        .map(|entry| {
            let mut latency = Named::new();
            for (op, pooled) in &entry.latency {
                latency.insert(op.clone(), Latency { hlog: None, ..pooled.clone() });
            }
            PooledLatency { series: entry.series.clone(), latency }
        })
        .collect()
}

/// The note that a kept run bears.
const REDUCED: &str = "kept without latency logs and without what no report reads";

fn encode(into: &Path, bytes: serde_json::Result<Vec<u8>>) -> Result<Vec<u8>, WriteError> {
    bytes.map_err(|error| WriteError::Encode { path: into.to_owned(), reason: error.to_string() })
}

fn run(page: &mut Page, name: &str, loaded: &Loaded) {
    let report = loaded.report();
    let (run, summary) = (&loaded.run, &loaded.summary);
    page.depth = 0;
    page.section(&format!("{} (`results/{name}`)", heading(source_of(loaded))));
    page.line(&format!(
        "{}, {}; intervals hold together over {}.",
        number::count(summary.entries.len() as u64, "row"),
        number::count(
            summary.entries.iter().map(|entry| u64::from(entry.rounds)).sum::<u64>(),
            "round"
        ),
        number::count(summary.comparisons, "comparison"),
    ));
    page.line("");
    page.outcome(&outcome(&report));
    page.line("\n<details>\n<summary>Tables: every design in every workload</summary>\n");
    overview::tables(page, &report);
    page.line("\n</details>");
    page.depth = 1;
    let headlines = verdict::headlines(summary);
    if headlines.is_empty() {
        page.line(&format!("\nNo row can be compared with `{}`.", summary.baseline));
    } else {
        page.line("\n<details>\n<summary>In words</summary>\n");
        for headline in &headlines {
            page.line(&format!("- {headline}"));
        }
        page.line("\n</details>");
    }
    page.line("\n<details>\n<summary>Host, command, scaling and limits</summary>");
    measured(page, run);
    scaling(page, summary);
    waits(page, summary);
    if source_of(loaded) != Some(&Source::Sim) {
        ruler(page, run);
        disturbed(page, summary);
        self_test(page, run);
    }
    limits(page, &report);
    page.line("\n</details>");
    page.depth = 0;
}

/// Goodput that changes by less than this with a field's place is said to stay.
const SAME_SHARE: f64 = 0.05;

/// Shows what some fields gain from lines of their own, at the most threads.
fn padding(page: &mut Page, base: (&str, &Loaded), padded: (&str, &Loaded)) {
    let (base_name, base) = base;
    let (name, padded) = padded;
    let labels: Vec<String> =
        padded.run.settings.own_lines.iter().map(|label| format!("`{label}`")).collect();
    page.section(&format!("With a line of its own for {} (`results/{name}`)", labels.join(", ")));
    let mut columns = Columns::new(&[
        ("kind, workload", false),
        ("threads", true),
        ("cell", false),
        ("as it is, ok/s", true),
        ("with it, ok/s", true),
        ("ratio", true),
    ]);
    let of_base: HashMap<&Series, &Entry> =
        base.summary.entries.iter().map(|entry| (&entry.series, entry)).collect();
    let mut same = 0_u64;
    for entry in at_most_threads(&padded.summary) {
        let series = &entry.series;
        let Some(before) = of_base.get(series) else { continue };
        let (Some(was), Some(is)) = (before.goodput_ops_s, entry.goodput_ops_s) else { continue };
        if (is / was - 1.0).abs() < SAME_SHARE {
            same += 1;
            continue;
        }
        columns.rows.push(vec![
            format!("{}, {}", series.kind, series.workload),
            series.threads.to_string(),
            series.cell.clone(),
            number::si(Some(was)),
            number::si(Some(is)),
            number::ratio(Some(is / was)),
        ]);
    }
    page.line(&format!(
        "Against `results/{base_name}`, at the most threads; medians over rounds. Within {}: {}.\n",
        number::percent_chosen(SAME_SHARE),
        number::count(same, "row")
    ));
    if !columns.rows.is_empty() {
        page.table(&columns);
    }
    page.line(&format!("\n```\n{}\n```", padded.run.command_line));
}

/// Returns where the rows of a run come from, by its first.
fn source_of(loaded: &Loaded) -> Option<&Source> {
    loaded.summary.entries.first().map(|entry| &entry.series.source)
}

fn rank(source: Option<&Source>) -> u32 {
    match source {
        Some(Source::Model) => 0,
        Some(Source::Sim) => 1,
        Some(Source::Kernel) => 2,
        _ => 3,
    }
}

fn heading(source: Option<&Source>) -> &'static str {
    match source {
        Some(Source::Model) => "Measured on real cores",
        Some(Source::Sim) => "Simulated on many cores",
        Some(Source::Kernel) => "In the running kernel",
        _ => "Other",
    }
}

/// Returns the first table of a text in Markdown.
fn first_table(text: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with('|')).peekable();
    lines.peek()?;
    Some(lines.take_while(|line| line.starts_with('|')).flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::first_table;

    #[test]
    fn the_first_table_is_found() {
        let text = "# A\n\nwords\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n";
        assert_eq!(first_table(text).unwrap(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
        assert_eq!(first_table("no table"), None);
    }
}
