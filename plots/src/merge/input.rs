//! An input of the merge: the directory of a run, or a packed run.

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{Damage, RunReader, WriteError};
use tempfile::TempDir;

use crate::pack;
use crate::report::ReportError;

/// How much of an input is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The file `run.json` alone.
    Head,
    /// The whole run.
    Whole,
}

/// An input that can be read.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) reader: RunReader,
    /// The packed run, if it is one.
    packed: Option<PathBuf>,
    /// Where a packed run lies unpacked; removed with the input.
    _unpacked: Option<TempDir>,
}

impl Input {
    /// Opens `path`; a packed run is unpacked below `out`, where there is room for what is merged.
    pub(super) fn open(path: &Path, out: &Path, part: Part) -> Result<Self, ReportError> {
        if !pack::is_packed(path) {
            return Ok(Self { reader: RunReader::open(path)?, packed: None, _unpacked: None });
        }
        let failed = |action| move |source| WriteError::Io { path: out.to_owned(), action, source };
        fs::create_dir_all(out).map_err(failed("create the directory"))?;
        let dir = tempfile::Builder::new().prefix(".unpacked-").tempdir_in(out);
        let dir = dir.map_err(failed("create a directory in it"))?;
        match part {
            Part::Head => pack::unpack_head(path, dir.path())?,
            Part::Whole => pack::unpack(path, dir.path())?,
        }
        let reader = RunReader::open(dir.path())?;
        Ok(Self { reader, packed: Some(path.to_owned()), _unpacked: Some(dir) })
    }

    /// Has a damage name the file that the user gave, not what was unpacked from it.
    pub(super) fn named(&self, damage: Damage) -> Damage {
        match &self.packed {
            None => damage,
            Some(packed) => {
                let file = damage.path.file_name().unwrap_or_default();
                Damage { path: packed.join(file), ..damage }
            }
        }
    }
}
