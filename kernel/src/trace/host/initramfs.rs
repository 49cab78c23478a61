//! Writes the guest's file system: the program as its first process, the libraries that it needs, and
//! the list of rows, in the format that the kernel unpacks (Documentation/driver-api/early-userspace/
//! buffer-format.rst), so that no archiver is needed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::io;
use crate::trace::TraceError;
use crate::trace::request::FILE;

/// Kinds and permissions, as `st_mode` has them.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

struct Archive {
    bytes: Vec<u8>,
    number: u32,
}

impl Archive {
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.number += 1;
        let fields = [
            self.number,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }
}

/// Returns the libraries of a program, as its loader finds them here; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, TraceError> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .map_err(|_| TraceError::NoTool { tool: "ldd", package: "libc-bin" })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Returns the archive of a program with its libraries and the lines of a request.
fn archive(program: &Path, request: &[String]) -> Result<Vec<u8>, TraceError> {
    let mut archive = Archive { bytes: Vec::new(), number: 0 };
    let mut directories: BTreeSet<String> = BTreeSet::new();
    for name in ["proc", "sys", "dev", "tmp"] {
        directories.insert(name.to_owned());
        archive.add(name, DIRECTORY, b"");
    }
    for library in libraries(program)? {
        let name = library.to_string_lossy().trim_start_matches('/').to_owned();
        for (end, _) in name.match_indices('/') {
            if directories.insert(name[..end].to_owned()) {
                archive.add(&name[..end], DIRECTORY, b"");
            }
        }
        archive.add(&name, PROGRAM, &fs::read(&library).map_err(io(&library))?);
    }
    archive.add("init", PROGRAM, &fs::read(program).map_err(io(program))?);
    let list: String = request.iter().map(|line| format!("{line}\n")).collect();
    archive.add(FILE.trim_start_matches('/'), 0o100_644, list.as_bytes());
    archive.add("TRAILER!!!", 0, b"");
    Ok(archive.bytes)
}

/// Writes the archive to a file on the disk of `directory`.
pub(crate) fn write(
    mut into: &File,
    directory: &Path,
    program: &Path,
    request: &[String],
) -> Result<(), TraceError> {
    into.write_all(&archive(program, request)?).map_err(io(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_kernels_format() {
        let mut archive = Archive { bytes: Vec::new(), number: 0 };
        archive.add("request", 0o100_644, b"timer-start\n");
        let text = String::from_utf8(archive.bytes.clone()).unwrap();
        assert!(text.starts_with("07070100000001000081A4"));
        // A header of 110 bytes, the name with its end, and content from a multiple of four on.
        assert_eq!(&archive.bytes[120..132], b"timer-start\n");
        assert_eq!(archive.bytes.len() % 4, 0);
    }

    #[test]
    fn the_guest_has_its_program_and_its_rows() {
        let bytes = archive(Path::new("/bin/true"), &["row timer-start".to_owned()]).unwrap();
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(holds(b"init\0") && holds(b"row timer-start\n") && holds(b"TRAILER!!!\0"));
        assert!(holds(b"libc.so.6\0"));
    }
}
