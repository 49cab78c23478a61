//! A guest as the host sees it: booted, asked, and gone when it is dropped.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::protocol::{Answer, Hello, Opening, Request, VERSION};
use super::qemu::{self, QEMU, Running, inherited, last_lines, nameless, tie};
use crate::trace::TraceError;
use crate::trace::host::{self, initramfs};
use crate::trace::request::Fault;

/// Longest wait for the first line of a guest, and for the answer beyond the window that it
/// measures.
const PATIENCE: [(Engine, Duration); 2] =
    [(Engine::Kvm, Duration::from_secs(60)), (Engine::Instructions, Duration::from_secs(300))];
/// Between two looks at what QEMU complains of.
const LOOK: Duration = Duration::from_millis(200);
/// QEMU stops the machine and stays, where KVM cannot execute an instruction.
const STOPPED: &str = "KVM internal error";
const APPEND: &str = "console=ttyS0 panic=-1 oops=panic cryptomgr.notests quiet";

/// Executor of a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The host's processors.
    Kvm,
    /// QEMU's code generator, on one processor whose clock counts instructions.
    Instructions,
}

impl Engine {
    /// Returns the name of the machine, as records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "QEMU with KVM",
            Self::Instructions => "QEMU counting instructions",
        }
    }
}

/// A machine to be booted.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Image file.
    pub image: PathBuf,
    /// Program that is the guest's first process: `kernelproof`, built with the feature `bpf`.
    pub program: PathBuf,
    /// Directory on whose disk the machine's files lie; they have no names.
    pub disk: PathBuf,
    /// Rows by name; all if empty.
    pub rows: Vec<String>,
    /// Numbers of threads to measure with.
    pub threads: Vec<u32>,
    /// The host's CPUs, one for each of the guest's, which is pinned to it.
    pub cpus: Vec<u32>,
    /// Executor of the guest's instructions.
    pub engine: Engine,
    /// Faults that the guest commits, to see what becomes of them.
    pub faults: Vec<Fault>,
}

/// A virtual machine could not measure.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// QEMU, the image or a file is not there or not fit.
    #[error(transparent)]
    Host(#[from] TraceError),
    /// The guest ended, or says nothing.
    #[error("the guest {how}")]
    Gone {
        /// How, with the last lines of its console.
        how: String,
        /// Whether it did so by itself: the same row would lead there again.
        by_itself: bool,
    },
    /// The guest cannot measure, or says what is not expected.
    #[error("the guest says: {what}")]
    Refused {
        /// Message of the guest, or the unexpected answer.
        what: String,
    },
}

/// A running guest. It ends with this value, and with this process.
#[derive(Debug)]
pub struct Guest {
    running: Running,
    requests: ChildStdin,
    answers: Receiver<String>,
    console: File,
    complaints: File,
    disk: PathBuf,
    patience: Duration,
}

impl Guest {
    /// Boots a machine and waits until its rows are known.
    ///
    /// # Errors
    /// [`VmError`] that says why it did not come so far.
    pub fn boot(machine: &Machine) -> Result<(Self, Hello), VmError> {
        for (file, what) in [(&machine.image, "kernel image"), (&machine.program, "guest program")]
        {
            if !file.is_file() {
                return Err(TraceError::Missing { what, path: file.clone() }.into());
            }
        }
        qemu::check()?;
        let disk = &machine.disk;
        fs::create_dir_all(disk).map_err(host::io(disk))?;
        let archive = nameless(disk)?;
        initramfs::write(&archive, disk, &machine.program, &machine.request())?;
        let console = nameless(disk)?;
        let mut guest = Self::start(machine.command(&archive, &console), console, machine)?;
        let opening = guest.read(guest.patience)?;
        let hello = match opening {
            Opening::Ready(hello) if hello.protocol == VERSION => hello,
            Opening::Ready(hello) => {
                let other = hello.protocol;
                let what = format!("protocol {other}, not {VERSION}: build kernelproof again");
                return Err(VmError::Refused { what });
            }
            Opening::Failed(what) => return Err(VmError::Refused { what }),
        };
        if machine.engine == Engine::Kvm {
            let pinned = pin_processors(guest.running.0.id(), &machine.cpus);
            if pinned != machine.cpus.len() {
                let what = format!("only {pinned} of {} processors are pinned", machine.cpus.len());
                return Err(VmError::Refused { what });
            }
        }
        Ok((guest, hello))
    }

    /// Starts the program of a machine, whose standard input and output are the guest's line.
    fn start(mut command: Command, console: File, machine: &Machine) -> Result<Self, VmError> {
        let complaints = nameless(&machine.disk)?;
        let stderr = complaints.try_clone().map_err(host::io(&machine.disk))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let no_qemu = |_| TraceError::NoTool { tool: QEMU, package: "qemu-system-x86" };
        let mut running = Running(command.spawn().map_err(no_qemu)?);
        let requests = running.0.stdin.take().expect("piped above");
        let from = running.0.stdout.take().expect("piped above");
        let (sender, answers) = sync_channel(1);
        // Ends with the guest's line, or when nobody takes what it read.
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                if line.is_ok_and(|line| sender.send(line).is_ok()) {
                    continue;
                }
                break;
            }
        });
        let patience = PATIENCE.iter().find(|(engine, _)| *engine == machine.engine);
        let patience = patience.map_or(Duration::from_secs(60), |(_, patience)| *patience);
        let disk = machine.disk.clone();
        Ok(Self { running, requests, answers, console, complaints, disk, patience })
    }

    /// Has the guest measure a row once.
    ///
    /// # Errors
    /// [`VmError::Gone`] if the guest panicked, hangs or was ended; it is of no more use then.
    pub fn measure(&mut self, request: &Request) -> Result<Answer, VmError> {
        let mut line = serde_json::to_vec(request).unwrap_or_default();
        line.push(b'\n');
        if self.requests.write_all(&line).and_then(|()| self.requests.flush()).is_err() {
            return Err(self.gone());
        }
        self.read(self.patience + Duration::from_nanos(request.window_ns))
    }

    /// Returns the process of the machine.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.running.0.id()
    }

    fn read<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T, VmError> {
        let end = Instant::now() + patience;
        let answer = loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {
                    if let Some(said) = self.stopped() {
                        let how = format!("is gone: {QEMU} stopped it: {said}");
                        return Err(VmError::Gone { how, by_itself: true });
                    }
                }
                answer => break answer,
            }
        };
        match answer {
            Ok(line) => serde_json::from_str(&line).map_err(|error| VmError::Refused {
                what: format!("{error}: {}", line.chars().take(80).collect::<String>()),
            }),
            Err(RecvTimeoutError::Timeout) => {
                let silent = patience.as_secs();
                let how = format!("hung: silent for {silent} s: {}", self.last_lines());
                Err(VmError::Gone { how, by_itself: true })
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
        }
    }

    /// Returns what QEMU said if it stopped the machine.
    fn stopped(&self) -> Option<String> {
        let said = qemu::bytes(&self.complaints, &self.disk).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let from = said.lines().position(|line| line.contains(STOPPED))?;
        Some(said.lines().skip(from).take(2).map(str::trim).collect::<Vec<_>>().join(": "))
    }

    fn last_lines(&self) -> String {
        let text = qemu::bytes(&self.console, &self.disk).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&text))
    }

    /// Returns how a guest ended whose line has ended.
    fn gone(&mut self) -> VmError {
        let status = self.running.0.wait();
        let said = qemu::bytes(&self.complaints, &self.disk).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        let (how, by_itself) = match status {
            Ok(status) if status.success() => {
                let console = self.last_lines();
                let panicked = console.contains("Kernel panic");
                let verb = if panicked { "panicked" } else { "switched itself off" };
                (format!("{verb}: {console}"), true)
            }
            // An assertion of QEMU that fails is no one's signal from outside.
            Ok(status) if status.signal() == Some(libc::SIGABRT) => {
                (format!("is gone: {QEMU} gave up: {said}"), true)
            }
            Ok(status) if status.signal().is_some() => {
                (format!("is gone: {QEMU} was killed"), false)
            }
            Ok(status) => (format!("is gone: {QEMU}: {status}: {said}"), true),
            Err(error) => (format!("is gone: {QEMU}: {error}"), true),
        };
        VmError::Gone { how, by_itself }
    }
}

impl Machine {
    /// Returns lines of the request that the guest reads.
    fn request(&self) -> Vec<String> {
        let mut lines = vec!["serve".to_owned()];
        lines.extend(self.rows.iter().map(|row| format!("row {row}")));
        lines.extend(self.threads.iter().map(|threads| format!("threads {threads}")));
        lines.extend(self.faults.iter().map(|fault| format!("fault {fault}")));
        lines
    }

    fn command(&self, archive: &File, console: &File) -> Command {
        let mut command = Command::new(QEMU);
        let processors = self.cpus.len().max(1).to_string();
        match self.engine {
            Engine::Kvm => command
                .args(["-accel", "kvm", "-cpu", "host", "-smp", &processors])
                // Threads tell which processor they are.
                .args(["-name", "cellbench,debug-threads=on"]),
            Engine::Instructions => command
                .args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on"])
                .args(["-cpu", "max,-hypervisor,-rdrand,-rdseed", "-smp", "1", "-seed", "1"]),
        };
        command
            .args(["-m", "1024", "-display", "none", "-monitor", "none", "-nic", "none"])
            .args(["-no-reboot", "-serial", &format!("file:{}", inherited(console))])
            .args(["-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line"])
            .arg("-kernel")
            .arg(&self.image)
            .args(["-initrd", &inherited(archive), "-append", APPEND]);
        tie(&mut command, [archive, console]);
        command
    }
}

/// Pins each processor of a machine to one of the host's; returns how many it pinned.
fn pin_processors(process: u32, cpus: &[u32]) -> usize {
    let mut pinned = 0;
    let tasks = format!("/proc/{process}/task");
    for entry in fs::read_dir(&tasks).into_iter().flatten().flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let number = name.strip_prefix("CPU ").and_then(|rest| rest.split('/').next());
        let cpu = number.and_then(|n| n.trim().parse::<usize>().ok()).and_then(|n| cpus.get(n));
        let thread = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let (Some(cpu), Some(thread)) = (cpu, thread) else { continue };
        // SAFETY: a set of bits, for which zero is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is this function's own; the kernel reads as many bytes as are given.
        unsafe {
            libc::CPU_SET(*cpu as usize, &mut set);
            let set = libc::sched_setaffinity(thread, size_of_val(&set), &raw const set);
            pinned += usize::from(set == 0);
        }
    }
    pinned
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn machine(disk: &Path) -> Machine {
        Machine {
            image: "/nonexistent/vmlinuz".into(),
            program: "/bin/true".into(),
            disk: disk.to_owned(),
            rows: vec!["timer-start".to_owned()],
            threads: vec![1],
            cpus: vec![0],
            engine: Engine::Instructions,
            faults: vec![Fault::Panic("timer-start".to_owned())],
        }
    }

    /// Starts a guest that a shell plays.
    fn played(script: &str, console_text: &str) -> Guest {
        let directory = tempfile::tempdir().unwrap();
        let mut console = nameless(directory.path()).unwrap();
        console.write_all(console_text.as_bytes()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Guest::start(command, console, &machine(directory.path())).unwrap()
    }

    fn request() -> Request {
        Request { row: 0, window_ns: 1, seed: 7 }
    }

    #[test]
    fn an_answer_is_read() {
        let script = r#"read line; case $line in *'"row":0'*)
            echo '{"left_out":{"reason":"no event","for_good":true}}';; esac; read line"#;
        let answer = played(script, "").measure(&request()).unwrap();
        assert!(matches!(answer, Answer::LeftOut { for_good: true, .. }), "{answer:?}");
    }

    #[test]
    fn a_guest_that_panicked_is_named_with_its_console() {
        let mut guest = played("read line", "[1.0] BUG: x\n[1.1] Kernel panic - not syncing: y\n");
        let error = guest.measure(&request()).unwrap_err();
        assert!(matches!(error, VmError::Gone { by_itself: true, .. }));
        let text = error.to_string();
        assert!(text.contains("panicked") && text.contains("not syncing: y"), "{text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn a_machine_that_was_killed_is_told_from_one_that_ended() {
        let error = played("read line; kill -KILL $$", "").measure(&request()).unwrap_err();
        assert!(matches!(error, VmError::Gone { by_itself: false, .. }), "{error}");
        let mut gave_up = played("read line; echo 'no MSR' >&2; exit 1", "");
        let error = gave_up.measure(&request()).unwrap_err().to_string();
        assert!(error.contains("no MSR"), "{error}");
    }

    #[test]
    fn a_silent_guest_hangs_and_is_ended() {
        let mut guest = played("echo ready; exec sleep 1000", "last words\n");
        // Reads what is no answer, then waits in vain.
        assert!(matches!(guest.measure(&request()), Err(VmError::Refused { .. })));
        guest.patience = Duration::from_millis(1);
        let text = guest.measure(&request()).unwrap_err().to_string();
        assert!(text.contains("hung") && text.contains("last words"), "{text}");
        let process = guest.process();
        drop(guest);
        assert!(!Path::new(&format!("/proc/{process}")).exists());
    }

    #[test]
    fn a_machine_that_kvm_cannot_run_is_not_waited_for() {
        let script =
            "printf 'KVM internal error. Suberror: 1\\nemulation failure\\n' >&2; exec sleep 1000";
        // Its patience is minutes.
        let text = played(script, "").measure(&request()).unwrap_err().to_string();
        assert!(text.contains("Suberror: 1: emulation failure"), "{text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn each_processor_is_pinned_and_counted() {
        // SAFETY: has no arguments.
        let cpu = unsafe { libc::sched_getcpu() }.unsigned_abs();
        let (tell, told) = sync_channel(0);
        let (end, ended) = sync_channel::<()>(0);
        let processor = std::thread::Builder::new().name("CPU 0/KVM".to_owned()).spawn(move || {
            tell.send(()).unwrap();
            ended.recv().unwrap();
            // SAFETY: a set of bits, for which zero is a value; the kernel writes as many bytes.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
                (libc::CPU_COUNT(&set), libc::CPU_ISSET(cpu as usize, &set))
            }
        });
        told.recv().unwrap();
        assert_eq!(pin_processors(std::process::id(), &[cpu]), 1);
        end.send(()).unwrap();
        assert_eq!(processor.unwrap().join().unwrap(), (1, true));
        assert_eq!(pin_processors(std::process::id(), &[]), 0);
    }

    #[test]
    fn what_is_missing_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let error = Guest::boot(&machine(directory.path())).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/vmlinuz") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_request_names_rows_threads_and_faults() {
        let lines = machine(Path::new("/tmp")).request();
        assert_eq!(lines, ["serve", "row timer-start", "threads 1", "fault panic:timer-start"]);
    }
}
