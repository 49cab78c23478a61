//! What people see of a run, one file per format.
//!
//! A format turns a [`Report`] into files below `report/` and touches no disk itself. Adding one is
//! a file here and a line in [`FORMATS`].

mod benchstat;
mod comparison;
mod csv;
mod ground_truth;
mod html;
mod kept;
mod layout;
mod mail;
mod markdown;
pub mod number;
mod overview;
mod results_md;
mod terminal;
pub mod verdict;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cellbench_record::{
    Damage, ReadError, Run, RunReader, Summary, WriteError, read_latency_log, write_atomically,
};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

#[cfg(feature = "png")]
use crate::chart::Png;
use crate::chart::{Charts, Drawn};
use crate::options::Options;
use crate::table::Table;

pub use comparison::comparison;
pub use kept::{Kept, KeptError, keep};
pub use layout::{Group, groups};
pub use terminal::{Terminal, terminal};

/// Everything a format may use.
#[derive(Debug)]
pub struct Report<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its summary.
    pub summary: &'a Summary,
    /// Its rounds, gathered.
    pub table: &'a Table,
    /// Directory of the run, below which the latency logs lie.
    pub dir: &'a Path,
    /// What of the records could not be used.
    pub damage: &'a DamageList,
    /// Its charts, once one format has drawn them.
    pub(crate) drawn: &'a OnceLock<Drawn>,
}

impl<'a> Report<'a> {
    /// The same run with another summary, such as one of fewer rows.
    #[must_use]
    pub fn with_summary(self, summary: &'a Summary) -> Self {
        Self { summary, ..self }
    }
}

/// A file of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Path below `report/`.
    pub path: PathBuf,
    /// Content.
    pub bytes: Vec<u8>,
}

impl Rendered {
    /// A text file.
    #[must_use]
    pub fn text(path: impl Into<PathBuf>, text: String) -> Self {
        Self { path: path.into(), bytes: text.into_bytes() }
    }
}

/// One way to show a run.
pub trait Format: Sync {
    /// Name, as `cellbench report --only` takes it.
    fn name(&self) -> &'static str;

    /// Whether the format is made only where it is asked for by name.
    fn is_on_demand(&self) -> bool {
        false
    }

    /// The files of this format.
    ///
    /// # Errors
    /// A message that says what could not be shown and why; other formats are then still written.
    fn render(&self, report: &Report<'_>) -> Result<Vec<Rendered>, String>;
}

/// All formats, in the order in which they are written.
pub const FORMATS: &[&dyn Format] = &[
    &results_md::ResultsMd,
    &mail::Mail,
    &benchstat::Benchstat,
    &csv::Csv,
    &terminal::Terminal,
    &Charts,
    #[cfg(feature = "png")]
    &Png,
    &html::Html,
];

/// Damage found, the first of it word for word: a foreign file may have a million such lines.
#[derive(Clone, Debug, Default)]
pub struct DamageList {
    /// The first of it.
    pub first: Vec<Damage>,
    /// All of it, by number.
    pub total: u64,
}

impl DamageList {
    const KEPT: usize = 20;

    /// Notes a damage.
    pub fn push(&mut self, damage: Damage) {
        if self.first.len() < Self::KEPT {
            self.first.push(damage);
        }
        self.total += 1;
    }
}

/// A run read from its records.
#[derive(Debug)]
pub struct Loaded {
    /// Directory of the run.
    pub dir: PathBuf,
    /// The run.
    pub run: Run,
    /// Its rounds, gathered.
    pub table: Table,
    /// Their summary, made anew.
    pub summary: Summary,
    /// What could not be used.
    pub damage: DamageList,
    drawn: OnceLock<Drawn>,
}

impl Loaded {
    /// Reads a run and summarises it; `options` may change what the run itself says.
    ///
    /// # Errors
    /// [`ReadError`] if there is no run, or one of a newer schema.
    pub fn read(run_dir: &Path, options: impl FnOnce(&mut Options)) -> Result<Self, ReadError> {
        let reader = RunReader::open(run_dir)?;
        let run = reader.run().clone();
        let mut damage = DamageList::default();
        for found in reader.damage() {
            damage.push(found.clone());
        }
        let mut chosen = Options::of(&run);
        options(&mut chosen);
        let mut table = Table::new(chosen);
        for round in reader.rounds()? {
            match round {
                Ok(round) => table.push(&round),
                Err(found) => damage.push(found),
            }
        }
        let (table, summary) = table.finish(&run);
        for found in damaged_logs(reader.dir(), &summary) {
            damage.push(found);
        }
        Ok(Self {
            dir: reader.dir().to_owned(),
            run,
            table,
            summary,
            damage,
            drawn: OnceLock::new(),
        })
    }

    /// What the formats take.
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report {
            run: &self.run,
            summary: &self.summary,
            table: &self.table,
            dir: &self.dir,
            damage: &self.damage,
            drawn: &self.drawn,
        }
    }
}

/// What cannot be read of the latency logs that a run's rows name, in the order of their names.
fn damaged_logs(dir: &Path, summary: &Summary) -> Vec<Damage> {
    let latencies = summary.entries.iter().flat_map(|entry| entry.latency.values());
    let logs: BTreeSet<&String> = latencies.filter_map(|latency| latency.hlog.as_ref()).collect();
    let logs: Vec<&String> = logs.into_iter().collect();
    let damage = logs.into_par_iter().flat_map_iter(|log| {
        let path = dir.join(log);
        match read_latency_log(&path) {
            Ok((_, damage)) => damage,
            Err(error) => vec![Damage { path, line: None, what: error.to_string() }],
        }
    });
    damage.collect()
}

/// What [`write_all`] left.
#[derive(Debug)]
pub struct Written {
    /// The run as read.
    pub loaded: Loaded,
    /// Files written, `summary.json` first.
    pub files: Vec<PathBuf>,
    /// Formats that could not be made, with the reason.
    pub failed: Vec<(&'static str, String)>,
}

/// A report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The run could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What was asked for is not there.
    #[error("{0}")]
    Request(String),
}

/// Makes `summary.json` and every report of a run again, from its records alone, but those that are
/// made on demand.
///
/// # Errors
/// [`ReportError`] if the run cannot be read or a file not written. Damage within the records is no
/// error: what is whole is used and the rest named in [`Loaded::damage`].
pub fn write_all(run_dir: &Path) -> Result<Written, ReportError> {
    write_formats(run_dir, |_| (), |format| !format.is_on_demand())
}

/// [`write_all`] with other options than the run's own and for some formats only.
///
/// # Errors
/// As [`write_all`].
pub fn write_formats(
    run_dir: &Path,
    options: impl FnOnce(&mut Options),
    wanted: impl Fn(&dyn Format) -> bool,
) -> Result<Written, ReportError> {
    let loaded = Loaded::read(run_dir, options)?;
    loaded.summary.write(&loaded.dir)?;
    let mut files = vec![loaded.dir.join("summary.json")];
    let mut failed = Vec::new();
    let root = loaded.dir.join("report");
    for format in FORMATS.iter().filter(|format| wanted(**format)) {
        match format.render(&loaded.report()) {
            Ok(rendered) => {
                for Rendered { path, bytes } in rendered {
                    let path = root.join(path);
                    create_parent(&path)?;
                    write_atomically(&path, &bytes)?;
                    files.push(path);
                }
            }
            Err(reason) => failed.push((format.name(), reason)),
        }
    }
    Ok(Written { loaded, files, failed })
}

fn create_parent(path: &Path) -> Result<(), WriteError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|source| WriteError::Io {
        path: parent.to_owned(),
        action: "create the directory",
        source,
    })
}
