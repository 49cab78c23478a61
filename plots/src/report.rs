//! Reports: formats in which people see a run, one file each.
//!
//! A format turns a [`Report`] into files below `report/` and touches no disk itself. Adding one is
//! a file here and a line in [`FORMATS`].

mod benchstat;
mod builds;
mod charts;
mod comparison;
mod csv;
mod findings;
mod forest_text;
mod gallery;
mod github;
pub mod glossary;
mod ground_truth;
mod html;
mod kept;
mod layout;
mod mail;
mod markdown;
mod outcome;
mod overview;
#[cfg(feature = "png")]
mod png;
mod results_md;
mod terminal;
pub mod verdict;

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{ReadError, WriteError, write_atomically};

use crate::chart::Drawings;
use crate::options::Options;
use crate::run::{Loaded, Report};

pub use builds::over_builds;
pub use comparison::comparison;
pub use forest_text::bars;
pub use gallery::{Gallery, Rejected, figure_path};
pub use kept::{Kept, KeptError, keep};
pub(crate) use layout::host_lines;
pub use layout::{Group, groups};
pub use outcome::{Caution, CautionKind, Outcome, cautions, outcome};
pub use terminal::{Terminal, terminal};

/// A file of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Path below `report/`.
    pub path: PathBuf,
    /// Content of the file.
    pub bytes: Vec<u8>,
}

impl Rendered {
    /// Returns a text file.
    #[must_use]
    pub fn text(path: impl Into<PathBuf>, text: String) -> Self {
        Self { path: path.into(), bytes: text.into_bytes() }
    }
}

/// One way to show a run.
pub trait Format: Sync {
    /// Returns the name, as `cellbench report --only` takes it.
    fn name(&self) -> &'static str;

    /// Returns whether the format is made only where it is asked for by name.
    fn is_on_demand(&self) -> bool {
        false
    }

    /// Returns the files of this format.
    ///
    /// # Errors
    /// A message that says what could not be shown and why; other formats are then still written.
    fn render(&self, report: &Report<'_>, drawings: &Drawings<'_>)
    -> Result<Vec<Rendered>, String>;
}

/// All formats, in the order in which they are written.
pub const FORMATS: &[&dyn Format] = &[
    &results_md::ResultsMd,
    &mail::Mail,
    &benchstat::Benchstat,
    &csv::Csv,
    &github::Github,
    &terminal::Terminal,
    &charts::Charts,
    #[cfg(feature = "png")]
    &png::Png,
    &html::Html,
];

/// Files that [`write_all`] wrote, and the run they were made from.
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
    /// The request names something that is not there.
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

/// Writes as [`write_all`] does, with other options than the run's own and for some formats only.
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
    let report = loaded.report();
    let drawings = Drawings::of(report);
    for format in FORMATS.iter().filter(|format| wanted(**format)) {
        match format.render(&report, &drawings) {
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
    drop(drawings);
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
