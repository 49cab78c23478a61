//! Common parts of every use of QEMU: files without names, an end with its parent, the last lines of a
//! console.

use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::trace::TraceError;
use crate::trace::host::io;

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// Lines of the console that a report shows.
const CONSOLE_LINES: usize = 3;

/// Ends QEMU when dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Either may find that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that QEMU is there.
pub(crate) fn check() -> Result<(), TraceError> {
    let mut version = Command::new(QEMU);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match version.status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(TraceError::NoTool { tool: QEMU, package: "qemu-system-x86" }),
    }
}

/// Makes a file without a name on the disk of a directory: nothing is left of it however this process
/// ends.
pub(crate) fn nameless(disk: &Path) -> Result<File, TraceError> {
    tempfile::tempfile_in(disk).map_err(io(disk))
}

/// Returns the path by which a process that inherits a file opens it.
pub(crate) fn inherited(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Reads a whole file, wherever its position is.
pub(crate) fn bytes(file: &File, disk: &Path) -> Result<Vec<u8>, TraceError> {
    let mut bytes = vec![0; file.metadata().map_err(io(disk))?.len() as usize];
    file.read_exact_at(&mut bytes, 0).map_err(io(disk))?;
    Ok(bytes)
}

/// Has the program that a command starts inherit files, and end when this process ends.
pub(crate) fn tie<const N: usize>(command: &mut Command, files: [&File; N]) {
    let parent = std::process::id();
    let files: [RawFd; N] = files.map(|file| file.as_raw_fd());
    // SAFETY: between fork and exec only system calls are made that may be made there.
    unsafe {
        command.pre_exec(move || {
            // However this process ends, the machine ends with it.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::other("the command is gone"));
            }
            for file in files {
                // Open across exec, in this process alone.
                if libc::fcntl(file, libc::F_SETFD, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Returns the end of a console's text, in one line.
pub(crate) fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // What a panic prints behind its reason is where it happened to be.
    let from = lines
        .iter()
        .rposition(|line| line.contains("Kernel panic") || line.contains("BUG:"))
        .map_or(lines.len().saturating_sub(CONSOLE_LINES), |at| at.saturating_sub(1));
    let shown: Vec<&str> = lines[from..].iter().take(CONSOLE_LINES).copied().collect();
    if shown.is_empty() { "its console is empty".to_owned() } else { shown.join(" | ") }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_panic_is_shown_with_its_reason() {
        let console = "[1.0] row timer-start\n[1.1] RIP: 0010:bpf_timer_start\n\
                       [1.2] Kernel panic - not syncing: Fatal exception\n[1.3] Kernel Offset: disabled\n";
        let shown = last_lines(console);
        assert!(shown.contains("Kernel panic - not syncing") && shown.contains("bpf_timer_start"));
        assert_eq!(last_lines("a\n\nb\nc\nd\n"), "b | c | d");
    }

    #[test]
    fn a_file_without_a_name_is_read_by_whoever_inherits_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = nameless(directory.path()).unwrap();
        file.write_all(b"rows").unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut command = Command::new("cat");
        command.arg(inherited(&file));
        tie(&mut command, [&file]);
        assert_eq!(command.output().unwrap().stdout, b"rows");
        assert_eq!(bytes(&file, directory.path()).unwrap(), b"rows");
    }
}
