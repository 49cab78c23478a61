//! The virtual machine: one processor, all of it emulated, its time that of its instructions, so that
//! every boot executes the same.

use std::fmt;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::io;
use crate::trace::TraceError;

const QEMU: &str = "qemu-system-x86_64";
/// No randomisation of addresses; locked instructions stay so on a single processor; no thunks.
const APPEND: &str = "console=ttyS0 panic=-1 nokaslr norandmaps randomize_kstack_offset=off \
                      noreplace-smp mitigations=off oops=panic softlockup_panic=1";
/// Lines of the console that a report shows.
const CONSOLE_LINES: usize = 3;
/// Time between two looks at the machine.
const LOOK: Duration = Duration::from_millis(100);
/// Free bytes below which a disk counts as full.
const LEAST_FREE: u64 = 16 << 10;
/// Exit status of the plugin where it gives up.
const PLUGIN_GAVE_UP: i32 = 74;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The machine switched itself off.
    Off,
    /// The kernel panicked; the last lines of its console.
    Panic(String),
    /// Nothing came from it for too long; the last lines of its console.
    Hang(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("switched itself off"),
            Self::Panic(console) => write!(f, "panicked: {console}"),
            Self::Hang(console) => write!(f, "hung: {console}"),
        }
    }
}

/// A machine to be booted.
pub(super) struct Machine<'a> {
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) plugin: &'a Path,
    pub(super) scratch: &'a Path,
}

/// Ends QEMU when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Either may find that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that QEMU is there.
pub(super) fn check() -> Result<(), TraceError> {
    let mut version = Command::new(QEMU);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match version.status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(TraceError::NoTool { tool: QEMU, package: "qemu-system-x86" }),
    }
}

/// The end of a console's text, in one line.
fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // What a panic prints behind its reason is where it happened to be.
    let from = lines
        .iter()
        .rposition(|line| line.contains("Kernel panic") || line.contains("BUG:"))
        .map_or(lines.len().saturating_sub(CONSOLE_LINES), |at| at.saturating_sub(1));
    let shown: Vec<&str> = lines[from..].iter().take(CONSOLE_LINES).copied().collect();
    shown.join(" | ")
}

impl Machine<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(QEMU);
        let path = |name: &str| self.file(name).display().to_string().replace(',', ",,");
        command
            .args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-seed", "1"])
            .args(["-rtc", "base=2026-01-01,clock=vm", "-smp", "1", "-m", "1024"])
            .args(["-cpu", "max,-hypervisor,-rdrand,-rdseed"])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .args(["-serial", &format!("file:{}", path("console"))])
            .args(["-chardev", &format!("file,id=guest,path={}", path("guest"))])
            .args(["-device", "isa-debugcon,iobase=0xe9,chardev=guest"])
            .args(["-device", "ib700", "-action", "watchdog=inject-nmi"])
            .args(["-plugin", &format!("{},out={}", self.plugin.display(), path("trace"))])
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", APPEND])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let parent = std::process::id();
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
                Ok(())
            });
        }
        command
    }

    /// Boots and waits until the machine is off, silent for too long, or given up.
    pub(super) fn run(
        &self,
        silence: Duration,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Ended, TraceError> {
        for name in ["console", "guest", "trace"] {
            fs::write(self.file(name), b"").map_err(io(&self.file(name)))?;
        }
        let started = self.command().spawn();
        let no_qemu = |_| TraceError::NoTool { tool: QEMU, package: "qemu-system-x86" };
        let mut running = Running(started.map_err(no_qemu)?);
        let mut lengths = (0, 0);
        let mut told = 0;
        let mut heard = Instant::now();
        loop {
            let status = running.0.try_wait().map_err(io(Path::new(QEMU)))?;
            self.announce(&mut told, progress)?;
            if let Some(status) = status {
                return self.ended(status.code(), &mut running.0);
            }
            let length = |name: &str| fs::metadata(self.file(name)).map_or(0, |m| m.len());
            let now = (length("guest"), length("console"));
            if now != lengths {
                (lengths, heard) = (now, Instant::now());
            }
            if heard.elapsed() > silence {
                return Ok(Ended::Hang(last_lines(&self.text("console")?)));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Tells of rows that the guest began since the last look.
    fn announce(&self, told: &mut u64, progress: &mut dyn FnMut(&str)) -> Result<(), TraceError> {
        let path = self.file("guest");
        let mut file = fs::File::open(&path).map_err(io(&path))?;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(*told)).map_err(io(&path))?;
        file.read_to_end(&mut text).map_err(io(&path))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        *told += whole as u64;
        for line in String::from_utf8_lossy(&text[..whole]).lines() {
            if let Some(row) = line.strip_prefix("row ") {
                progress(row.split(' ').next().unwrap_or(row));
            }
        }
        Ok(())
    }

    /// Fails if the disk is full: what QEMU could not write there is lost without a word.
    fn check_disk(&self) -> Result<(), TraceError> {
        let path = std::ffi::CString::new(self.scratch.as_os_str().as_encoded_bytes());
        // SAFETY: a structure of integers, for which zero is a value.
        let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a zero byte, and the structure is there to be written.
        let told = path.is_ok_and(|path| unsafe { libc::statvfs(path.as_ptr(), &mut disk) } == 0);
        if told && disk.f_bfree * disk.f_frsize < LEAST_FREE {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(io(self.scratch)(source));
        }
        Ok(())
    }

    fn ended(&self, code: Option<i32>, child: &mut Child) -> Result<Ended, TraceError> {
        let mut said = String::new();
        if let Some(pipe) = &mut child.stderr {
            // Without it the message is shorter.
            let _ = pipe.read_to_string(&mut said);
        }
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        self.check_disk()?;
        match code {
            Some(0) => {
                let console = self.text("console")?;
                match console.contains("Kernel panic") {
                    true => Ok(Ended::Panic(last_lines(&console))),
                    false => Ok(Ended::Off),
                }
            }
            Some(PLUGIN_GAVE_UP) => {
                Err(TraceError::Machine { what: last.unwrap_or("the plugin gave up").to_owned() })
            }
            code => {
                let how =
                    code.map_or("was killed".to_owned(), |c| format!("ended with status {c}"));
                let what = format!("{QEMU} {how}: {}", last.unwrap_or("no reason given"));
                Err(TraceError::Machine { what })
            }
        }
    }

    fn text(&self, name: &str) -> Result<String, TraceError> {
        let path = self.file(name);
        let bytes = fs::read(&path).map_err(io(&path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What the guest told.
    pub(super) fn told(&self) -> Result<String, TraceError> {
        self.text("guest")
    }

    /// What the plugin wrote.
    pub(super) fn trace(&self) -> Result<Vec<u8>, TraceError> {
        let path = self.file("trace");
        fs::read(&path).map_err(io(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_with_its_reason() {
        let console = "[1.0] row timer-start\n[1.1] RIP: 0010:bpf_timer_start\n\
                       [1.2] Kernel panic - not syncing: Fatal exception\n[1.3] Kernel Offset: disabled\n";
        let shown = last_lines(console);
        assert!(shown.contains("Kernel panic - not syncing") && shown.contains("bpf_timer_start"));
        assert_eq!(last_lines("a\n\nb\nc\nd\n"), "b | c | d");
    }
}
