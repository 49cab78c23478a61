//! The file of a packed run: what may be in it, and how it is read. A file comes from anybody, so that
//! names are matched, never used as paths, and sizes are bounded.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use crate::merge::details;

/// All files that a packed run may have; the first comes first.
pub(super) const FILES: [&str; 3] = ["run.json", details::NAME, "rounds.jsonl"];
/// Bytes that a packed run may have unpacked: far more than any single host writes, and less than
/// would fill a disk.
const MOST_BYTES: u64 = 16 << 30;
/// First bytes of a gzip file.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A packed run cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}; pack the run again with `cellbench pack`", .path.display())]
pub struct PackError {
    /// The file.
    pub path: PathBuf,
    /// Fault in the file.
    pub what: String,
}

/// Returns whether `path` is a file that begins as a packed run does.
#[must_use]
pub fn is_packed(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == MAGIC
}

/// Unpacks the run in file `path` into directory `into`, which becomes the run's.
///
/// # Errors
/// [`PackError`] naming the file: not whole, or with something in it that is no part of a run.
pub fn unpack(path: &Path, into: &Path) -> Result<(), PackError> {
    unpack_until(path, into, None)
}

/// Unpacks `run.json` alone.
///
/// # Errors
/// As [`unpack`], as far as the file is read.
pub fn unpack_head(path: &Path, into: &Path) -> Result<(), PackError> {
    unpack_until(path, into, Some(FILES[0]))
}

fn unpack_until(path: &Path, into: &Path, last: Option<&str>) -> Result<(), PackError> {
    // A name in it may hold a line feed, or what a terminal obeys.
    let wrong = |what: String| {
        let what = what.replace(char::is_control, "\u{fffd}");
        PackError { path: path.to_owned(), what }
    };
    let not_whole = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => wrong(format!("no room in {} to unpack it", into.display())),
        _ => wrong(format!("not a whole packed run: {error}")),
    };
    let file = File::open(path).map_err(|error| wrong(format!("cannot read it: {error}")))?;
    let mut bounded = GzDecoder::new(BufReader::new(file)).take(MOST_BYTES);
    let mut archive = tar::Archive::new(&mut bounded);
    let mut found = Vec::new();
    // Raw: a packed run has no long names, which are read into memory, however long they are.
    for entry in archive.entries().map_err(not_whole)?.raw(true) {
        let mut entry = entry.map_err(not_whole)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(known) = FILES.into_iter().find(|known| *known == name) else {
            return Err(wrong(format!("`{name}` in it is no part of a packed run")));
        };
        if found.contains(&known) || !entry.header().entry_type().is_file() {
            return Err(wrong(format!("`{name}` in it twice, or no file")));
        }
        found.push(known);
        let target = into.join(known);
        let copied = File::create(&target).and_then(|mut file| io::copy(&mut entry, &mut file));
        copied.map_err(not_whole)?;
        if last == Some(known) {
            return Ok(());
        }
    }
    if let Some(missing) = [FILES[0], FILES[2]].into_iter().find(|name| !found.contains(name)) {
        return Err(wrong(format!("it has no {missing}")));
    }
    // To the end, so that the checksum is compared.
    io::copy(&mut bounded, &mut io::sink()).map_err(not_whole)?;
    if bounded.limit() == 0 {
        return Err(wrong(format!("more than {MOST_BYTES} bytes unpacked")));
    }
    Ok(())
}

/// Packs files of a directory. The same content makes the same bytes.
pub(super) fn write(dir: &Path, files: &[&str]) -> io::Result<Vec<u8>> {
    let packed: GzEncoder<Vec<u8>> =
        GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(packed);
    for name in files {
        let bytes = fs::read(dir.join(name))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        archive.append_data(&mut header, name, &bytes[..])?;
    }
    let mut packed = archive.into_inner()?;
    packed.flush()?;
    packed.finish()
}
