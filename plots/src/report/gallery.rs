//! `HOSTS.md`: the gallery of the hosts whose packed runs a repository keeps, one file each. What is
//! broken or unfit is rejected, so that whatever the page shows can be believed as far as a run can.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{CoreMatrix, Severity, rfc3339_utc};

use super::layout::{Columns, host_lines};
use super::markdown::Page;
use super::{Caution, CautionKind, Loaded, cautions, outcome};
use crate::chart::{matrices, span};
use crate::number;
use crate::pack::{self, ENDING};

/// Contributed runs that can be shown.
#[derive(Debug)]
pub struct Gallery {
    /// Runs by name, that of the file without its ending.
    pub hosts: Vec<(String, Loaded)>,
}

/// A contributed file that is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The file.
    pub path: PathBuf,
    /// Why, and what to do.
    pub why: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl Gallery {
    /// Reads every packed run in `dir`; also returns what is rejected, with the reason. A file of
    /// another
    /// ending is looked at by nobody, but for files in Markdown it is rejected, too.
    ///
    /// # Errors
    /// [`Rejected`] with the directory if it cannot be listed.
    pub fn read(dir: &Path) -> Result<(Self, Vec<Rejected>), Rejected> {
        let failed = |error: std::io::Error| Rejected {
            path: dir.to_owned(),
            why: format!("cannot list the packed runs in it: {error}"),
        };
        let mut paths = Vec::new();
        for found in fs::read_dir(dir).map_err(failed)? {
            let path = found.map_err(failed)?.path();
            if path.extension().is_none_or(|ending| ending != "md") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut hosts: Vec<(String, Loaded)> = Vec::new();
        let mut rejected = Vec::new();
        let mut known: BTreeMap<(String, u64, u64), String> = BTreeMap::new();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let why = match check(&path) {
                Err(why) => why,
                Ok(loaded) => {
                    let run = &loaded.run;
                    let of_run = (run.run_id.clone(), run.seed, run.started_unix_s);
                    match known.get(&of_run) {
                        Some(first) => format!("the same run as {first}; a host counts once"),
                        None => {
                            known.insert(of_run, name.clone());
                            hosts.push((name, loaded));
                            continue;
                        }
                    }
                }
            };
            rejected.push(Rejected { path, why });
        }
        Ok((Self { hosts }, rejected))
    }

    /// Returns the page. `command` makes it again.
    ///
    /// # Errors
    /// The reason if a figure could not be drawn.
    pub fn page(&self, command: &str) -> Result<String, String> {
        let mut page = Page::default();
        page.line("# Hosts");
        page.line("");
        page.line(&format!(
            "Generated from the packed runs in `results/hosts/` by `{command}`; do not edit. \
             [results/hosts/README.md](results/hosts/README.md) says how to add a host."
        ));
        page.line("");
        let mut columns =
            Columns::new(&[("host", false), ("CPU", false), ("date", false), ("cellbench", false)]);
        for (name, loaded) in &self.hosts {
            let run = &loaded.run;
            let [hardware, _] = host_lines(&run.host);
            columns.rows.push(vec![
                format!("[{name}](#{name})"),
                hardware,
                date(loaded).to_owned(),
                version(loaded),
            ]);
        }
        page.table(&columns);
        if let Some((low, high)) = self.scale() {
            page.line(&format!(
                "\nThe heat maps of all hosts share one scale: {low:.0} ns (light) to {high:.0} ns (dark), one \
                 way."
            ));
        }
        let figures = self.drawings()?;
        for (name, loaded) in &self.hosts {
            host(&mut page, name, loaded);
            for figure in figures.iter().filter(|figure| figure.host == *name) {
                page.line(&format!("\n![{}]({})", figure.title, figure.path));
            }
        }
        Ok(page.text)
    }

    /// Returns the figures that the page names, with their paths beside it.
    ///
    /// # Errors
    /// The reason if a figure could not be drawn.
    pub fn figures(&self) -> Result<Vec<(PathBuf, String)>, String> {
        Ok(self.drawings()?.into_iter().map(|it| (it.path.into(), it.svg)).collect())
    }

    fn matrices(&self) -> impl Iterator<Item = &CoreMatrix> {
        self.hosts.iter().flat_map(|(_, loaded)| &loaded.run.calibration.core_to_core)
    }

    fn scale(&self) -> Option<(f64, f64)> {
        span(self.matrices())
    }

    fn drawings(&self) -> Result<Vec<Figure>, String> {
        let scale = self.scale();
        let mut figures = Vec::new();
        for (host, loaded) in &self.hosts {
            for drawing in matrices(&loaded.run.calibration.core_to_core, scale)? {
                figures.push(Figure {
                    host: host.clone(),
                    title: format!("{}: {}", host, drawing.title),
                    path: figure_path(host, &drawing.name),
                    svg: drawing.svg,
                });
            }
        }
        Ok(figures)
    }
}

/// A heat map of a host.
struct Figure {
    host: String,
    title: String,
    path: String,
    svg: String,
}

/// Returns where a figure of a host lies beside the page.
#[must_use]
pub fn figure_path(host: &str, figure: &str) -> String {
    format!("results/figures/hosts/{host}-{figure}.svg")
}

/// Writes the host, its headline ratios, and what bears on them.
fn host(page: &mut Page, name: &str, loaded: &Loaded) {
    let report = loaded.report();
    page.section(name);
    for line in host_lines(&loaded.run.host) {
        page.line(&format!("- {line}"));
    }
    page.line(&format!("- {}, cellbench {}", date(loaded), version(loaded)));
    let warnings =
        loaded.run.findings.iter().filter(|finding| finding.severity == Severity::Warning);
    let warnings: Vec<&str> = warnings.map(|finding| finding.text.as_str()).collect();
    if !warnings.is_empty() {
        page.line(&format!("- bears on the results: {}", warnings.join("; ")));
    }
    page.line("");
    page.outcome(&outcome(&report));
}

/// Writes a day as `2026-11-29`.
fn date(loaded: &Loaded) -> String {
    rfc3339_utc(loaded.run.started_unix_s)[..10].to_owned()
}

fn version(loaded: &Loaded) -> String {
    let run = &loaded.run;
    let revision = run.git_revision.as_deref().unwrap_or("unknown revision");
    format!("{} ({revision})", run.tool_version)
}

/// Least rounds of the rows of a contributed run: with fewer no row can be decided.
const LEAST_ROUNDS: u32 = 10;

/// Reads a packed run; an error says why it cannot be shown.
fn check(path: &Path) -> Result<Loaded, String> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if path.extension().is_none_or(|ending| ending != ENDING) {
        return Err(format!("not a packed run: `cellbench pack` writes NAME.{ENDING}"));
    }
    if !name.chars().all(is_plain) {
        return Err("name it by its hardware, in small letters, digits and `-`".to_owned());
    }
    let dir = tempfile::tempdir().map_err(|error| format!("cannot unpack it: {error}"))?;
    pack::unpack(path, dir.path()).map_err(|error| error.what)?;
    let loaded = Loaded::read(dir.path(), |_| ()).map_err(|error| error.to_string())?;
    if let Some(damage) = loaded.damage.first.first() {
        let file = damage.path.file_name().unwrap_or_default().to_string_lossy();
        let line = damage.line.map_or(String::new(), |line| format!(":{line}"));
        return Err(format!("damaged: {file}{line}: {}", damage.what));
    }
    let run = &loaded.run;
    if !run.merged_from.is_empty() {
        return Err("merged from several runs; pack the run of one host".to_owned());
    }
    if !loaded.summary.entries.iter().any(|entry| entry.series.source.is_measured()) {
        return Err("not measured on a host; the gallery shows hosts".to_owned());
    }
    if run.host.cpu_model.is_none() || run.host.topology.cpus_online == 0 {
        return Err("it does not say which CPU measured".to_owned());
    }
    match run.git_revision.as_deref() {
        None => return Err("of unknown sources: build from a checkout".to_owned()),
        Some(revision) if revision.ends_with("-dirty") => {
            return Err("of sources that were changed: build from a clean checkout".to_owned());
        }
        Some(_) => {}
    }
    let is_reason = |caution: &Caution| {
        caution.kind.is_fatal()
            || matches!(
                caution.kind,
                CautionKind::Unfit | CautionKind::Killed | CautionKind::OneDesign
            )
    };
    if let Some(caution) = cautions(&loaded.report()).into_iter().find(is_reason) {
        return Err(caution.text);
    }
    let rounds = loaded.summary.entries.iter().map(|entry| entry.rounds).max().unwrap_or(0);
    if rounds < LEAST_ROUNDS {
        let rounds = number::count(rounds, "round");
        return Err(format!("{rounds} of each row; {LEAST_ROUNDS} decide something"));
    }
    Ok(loaded)
}
