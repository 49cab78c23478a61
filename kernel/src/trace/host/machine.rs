//! The virtual machine: one processor, or two that take turns, all of it emulated, its time that of its
//! instructions, so that every boot executes the same.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::io;
use crate::trace::TraceError;
use crate::vm::qemu::{self, QEMU, Running, inherited, last_lines, nameless};

/// No randomisation of addresses; locked instructions stay so on a single processor; no thunks.
/// The kernel's cryptography is not tested at each boot, which takes long and makes no difference.
const APPEND: &str = "console=ttyS0 panic=-1 nokaslr norandmaps randomize_kstack_offset=off \
                      noreplace-smp mitigations=off oops=panic softlockup_panic=1 \
                      cryptomgr.notests";
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
    /// An assertion of QEMU's own failed; what it said. QEMU 7.2 keeps the plugin's callbacks of an instruction that
    /// an exception ended, and meets them after it has freed them: which instruction that is depends on
    /// all that it ran before.
    Aborted(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("switched itself off"),
            Self::Panic(console) => write!(f, "panicked: {console}"),
            Self::Hang(console) => write!(f, "hung: {console}"),
            Self::Aborted(said) => write!(f, "was lost: {QEMU} gave up: {said}"),
        }
    }
}

/// A machine to be booted. Its files have no names, so that nothing is left of them however this
/// process ends.
pub(super) struct Machine<'a> {
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a File,
    pub(super) plugin: &'a Path,
    /// Directory whose disk holds the files.
    pub(super) disk: &'a Path,
    /// Number of processors.
    processors: u32,
    console: File,
    guest: File,
    trace: File,
}

impl<'a> Machine<'a> {
    /// Prepares a machine.
    pub(super) fn new(
        image: &'a Path,
        initramfs: &'a File,
        plugin: &'a Path,
        disk: &'a Path,
        processors: u32,
    ) -> Result<Self, TraceError> {
        let (console, guest, trace) = (nameless(disk)?, nameless(disk)?, nameless(disk)?);
        Ok(Self { image, initramfs, plugin, disk, processors, console, guest, trace })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(QEMU);
        let plugin = self.plugin.display().to_string().replace(',', ",,");
        command
            .args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-seed", "1"])
            .args(["-rtc", "base=2026-01-01,clock=vm", "-smp", &self.processors.to_string()])
            .args(["-m", "1024"])
            .args(["-cpu", "max,-hypervisor,-rdrand,-rdseed"])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .args(["-serial", &format!("file:{}", inherited(&self.console))])
            .args(["-chardev", &format!("file,id=guest,path={}", inherited(&self.guest))])
            .args(["-device", "isa-debugcon,iobase=0xe9,chardev=guest"])
            .args(["-device", "ib700", "-action", "watchdog=inject-nmi"])
            .args(["-plugin", &format!("{plugin},out={}", inherited(&self.trace))])
            .arg("-kernel")
            .arg(self.image)
            .args(["-initrd", &inherited(self.initramfs)])
            .args(["-append", APPEND])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        qemu::tie(&mut command, [self.initramfs, &self.console, &self.guest, &self.trace]);
        command
    }

    /// Boots and waits until the machine is off, silent for too long, or given up.
    pub(super) fn run(
        &self,
        silence: Duration,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Ended, TraceError> {
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
                return self.ended(status, &mut running.0);
            }
            let length = |file: &File| file.metadata().map_or(0, |m| m.len());
            let now = (length(&self.guest), length(&self.console));
            if now != lengths {
                (lengths, heard) = (now, Instant::now());
            }
            if heard.elapsed() > silence {
                return Ok(Ended::Hang(last_lines(&self.text(&self.console)?)));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Tells of rows that the guest began since the last look.
    fn announce(&self, told: &mut u64, progress: &mut dyn FnMut(&str)) -> Result<(), TraceError> {
        let mut text = vec![0; (self.guest.metadata().map_or(0, |m| m.len()) - *told) as usize];
        self.guest.read_exact_at(&mut text, *told).map_err(io(self.disk))?;
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
        let path = std::ffi::CString::new(self.disk.as_os_str().as_encoded_bytes());
        // SAFETY: a structure of integers, for which zero is a value.
        let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a zero byte, and the structure is there to be written.
        let told = path.is_ok_and(|path| unsafe { libc::statvfs(path.as_ptr(), &mut disk) } == 0);
        if told && disk.f_bfree * disk.f_frsize < LEAST_FREE {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(io(self.disk)(source));
        }
        Ok(())
    }

    fn ended(&self, status: ExitStatus, child: &mut Child) -> Result<Ended, TraceError> {
        let mut said = String::new();
        if let Some(pipe) = &mut child.stderr {
            // Without it the message is shorter.
            let _ = pipe.read_to_string(&mut said);
        }
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        self.check_disk()?;
        // Nobody sends this signal to a QEMU that he wants to end.
        if status.signal() == Some(libc::SIGABRT) {
            return Ok(Ended::Aborted(last.unwrap_or("no reason given").to_owned()));
        }
        match status.code() {
            Some(0) => {
                let console = self.text(&self.console)?;
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

    fn text(&self, file: &File) -> Result<String, TraceError> {
        Ok(String::from_utf8_lossy(&qemu::bytes(file, self.disk)?).into_owned())
    }

    /// Returns what the guest told.
    pub(super) fn told(&self) -> Result<String, TraceError> {
        self.text(&self.guest)
    }

    /// Returns what the plugin wrote.
    pub(super) fn trace(&self) -> Result<Vec<u8>, TraceError> {
        qemu::bytes(&self.trace, self.disk)
    }
}
