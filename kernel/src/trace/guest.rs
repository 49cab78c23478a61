//! The part that runs inside the traced kernel: makes each operation's calls between the plugin's
//! markers and tells the host, over a port that QEMU writes to a file, which window was which call.
//!
//! Protocol, a line each:
//!
//! ```text
//! guest 1 RELEASE                 version of the protocol, kernel
//! cell KIND NAME                  generation of the cells
//! row NAME CONTEXT CELL           a row begins
//! skip REASON                     this kernel cannot run it
//! window N CALL                   window N of the plugin is this call of the row
//! object N value|task|block HEX   where the objects of that window lie
//! word N INDEX HEX                words of the block
//! outcome N OP=OUTCOME            what the call led to
//! end                             of the row
//! layout STRUCT SIZE / field OFFSET SIZE NAME
//! symbol HEX NAME                 its distance from the one before, from 0 for the first
//! done
//! ```

use std::arch::asm;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::IntoRawFd as _;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, MapCore, MapFlags, PerfEventOpts, ProgramInput, ProgramMut};

use super::request::{FILE, Fault, Lines};
use super::{CALLS, MIXED_ATTEMPTS, STRUCTURES, WAITING_CALLS};
use crate::bench::{Bench, to_bytes, to_words, word};
use crate::btf::Btf;
use crate::error::Error;
use crate::info::{Kernel, KernelInfo, VMLINUX_BTF};
use crate::interrupt;
use crate::options::Options;
use crate::rows::{Context, Layout, Row, rows};

/// Port of QEMU's debug console.
const PORT: u16 = 0xe9;
/// Port of the ib700 watchdog that sets its time: 15 stands for none.
const WATCHDOG: u16 = 0x443;
/// After each call, for what the call left to run later.
const LATER: Duration = Duration::from_millis(3);
/// After the boot, for what the kernel does by itself then: tests of its cryptography.
const BOOT: Duration = Duration::from_secs(5);
/// Longest wait for an interrupt, in the guest's time.
const INTERRUPTS: Duration = Duration::from_secs(2);
/// Words of `struct addresses`.
const ADDRESS_WORDS: usize = 20;

/// Markers of the plugin: instructions without effect, see `trace/trace.c`.
mod marker {
    use std::arch::asm;

    macro_rules! marker {
        ($name:ident, $code:literal) => {
            #[inline(never)]
            pub(super) fn $name() {
                // SAFETY: a no-operation with an address that is not accessed.
                unsafe {
                    asm!(
                        ".byte 0x0f, 0x1f, 0x84, 0x00",
                        concat!(".long 0x0ce11b00 + ", $code),
                        options(nostack, preserves_flags)
                    );
                }
            }
        };
    }
    marker!(ready, "0");
    marker!(begin, "1");
    marker!(end, "2");
    marker!(rest, "3");
}

/// The line to the host.
struct Host {
    text: String,
}

impl Host {
    fn open() -> io::Result<Self> {
        // SAFETY: asks for access to two ports, which nothing but this module uses.
        let granted =
            unsafe { libc::ioperm(PORT.into(), 1, 1) | libc::ioperm(WATCHDOG.into(), 1, 1) };
        match granted {
            0 => Ok(Self { text: String::new() }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        // Formatting into a string does not fail.
        let _ = writeln!(self.text, "{line}");
        if self.text.len() >= 4096 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        // SAFETY: access to the port was granted; the instruction reads the text and nothing else.
        unsafe {
            asm!(
                "rep outsb",
                in("dx") PORT,
                inout("rcx") self.text.len() => _,
                inout("rsi") self.text.as_ptr() => _,
                options(nostack, readonly, preserves_flags)
            );
        }
        self.text.clear();
    }
}

macro_rules! say {
    ($host:expr, $($arg:tt)*) => { $host.say(format_args!($($arg)*)) };
}

fn run_error(row: &Row, what: &'static str) -> impl Fn(String) -> Error {
    let row = row.name();
    move |reason| Error::Run { row: row.clone(), what, reason }
}

/// Makes traced calls of rows.
struct Tracer<'h> {
    host: &'h mut Host,
    windows: u32,
}

impl Tracer<'_> {
    fn row(&mut self, row: &Row) -> Result<(), Error> {
        let same = row.layouts().iter().find(|layout| **layout == Layout::Same);
        let options = Options {
            layout: *same.unwrap_or(&row.layouts()[0]),
            threads: row.threads_min().max(1),
            sample_every: 0,
            seed: 0,
        };
        let entered_by_nmi = format!("nmi_{}", row.operation.program);
        let bench = if row.context == Context::Nmi {
            // The processor that is emulated has no counters, and opening the row would ask for one.
            let in_task = Row { context: Context::Task, ..row.clone() };
            Bench::open_with(&in_task, options, &["addresses", &entered_by_nmi])
        } else {
            Bench::open_with(row, options, &["addresses"])
        }?;
        marker::ready();
        // Lets the plugin throw old translations away before the first window.
        std::thread::yield_now();
        let traced = match row.context {
            Context::Task => self.calls(row, &bench),
            Context::Hardirq => {
                let event = interrupt::open_event(row)?.into_raw_fd();
                let cookie = PerfEventOpts::default();
                self.interrupts(
                    row,
                    &bench,
                    &format!("irq_{}", row.operation.program),
                    &|program| program.attach_perf_event_with_opts(event, cookie.clone()),
                )
            }
            Context::Nmi => self.interrupts(row, &bench, &entered_by_nmi, &|program| {
                program.attach_raw_tracepoint("nmi_handler")
            }),
        };
        marker::rest();
        traced
    }

    fn addresses(&self, row: &Row, bench: &Bench) -> Result<Vec<u64>, Error> {
        let mut bytes = to_bytes(&[0; ADDRESS_WORDS]);
        let input = ProgramInput { context_in: Some(&mut bytes), ..ProgramInput::default() };
        let output = bench.program("addresses")?.test_run(input);
        let failed = run_error(row, "asking for addresses");
        match output {
            Ok(output) if output.return_value == 0 => Ok(to_words(&bytes)),
            Ok(_) => Err(failed("the program found no cell".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Tells where the objects of the next window lie.
    fn objects(&mut self, row: &Row, bench: &Bench) -> Result<(), Error> {
        let words = self.addresses(row, bench)?;
        let n = self.windows;
        for (name, at) in [("value", words[0]), ("task", words[1]), ("block", words[2])] {
            if at != 0 {
                say!(self.host, "object {n} {name} {at:x}");
            }
        }
        for (index, word) in words[4..].iter().enumerate().filter(|(_, word)| **word != 0) {
            say!(self.host, "word {n} {index} {word:x}");
        }
        Ok(())
    }

    fn calls(&mut self, row: &Row, bench: &Bench) -> Result<(), Error> {
        let mut worker = bench.worker(0)?;
        let program = bench.program(row.operation.program)?;
        let attempts = if row.operation.program == "mixed" { MIXED_ATTEMPTS } else { 1 };
        let calls = if row.operation.program == "lock_aa" { WAITING_CALLS } else { CALLS };
        for call in 0..calls {
            self.objects(row, bench)?;
            let n = self.windows;
            say!(self.host, "window {n} {call}");
            self.host.flush();
            let mut args = worker.args;
            args[word::ATTEMPTS_MAX] = attempts;
            marker::begin();
            let entered = bench.enter(&program, &mut args);
            std::thread::sleep(LATER);
            marker::end();
            entered?;
            // What the call made is known only now; the later address is kept.
            self.objects(row, bench)?;
            self.windows += 1;
            let counts = worker.settle(&args)?;
            for (op, outcomes) in &counts.ops {
                for outcome in outcomes.keys() {
                    say!(self.host, "outcome {n} {op}={outcome}");
                }
            }
        }
        Ok(())
    }

    /// Returns one window for several interrupts, each of which makes one attempt.
    fn interrupts(
        &mut self,
        row: &Row,
        bench: &Bench,
        name: &str,
        attach: &dyn Fn(&ProgramMut<'_>) -> libbpf_rs::Result<Link>,
    ) -> Result<(), Error> {
        let failed = |what| run_error(row, what);
        let worker = bench.worker(0)?;
        let mut args = worker.args;
        args[word::ATTEMPTS_MAX] = 1;
        let map = bench.map("interrupt_args")?;
        let key = 0_u32.to_ne_bytes();
        map.update(&key, &to_bytes(&args), MapFlags::ANY)
            .map_err(|error| failed("writing the arguments")(error.to_string()))?;
        let program = bench.program(name)?;
        self.objects(row, bench)?;
        say!(self.host, "window {} 0", self.windows);
        self.host.flush();
        let link = attach(&program).map_err(|e| failed("attaching to the event")(e.to_string()))?;
        let entries = || -> Result<u64, Error> {
            let value = map
                .lookup(&key, MapFlags::ANY)
                .map_err(|error| failed("reading the counts")(error.to_string()))?;
            Ok(to_words(&value.unwrap_or_default()).get(word::ENTRIES).copied().unwrap_or(0))
        };
        let end = Instant::now() + INTERRUPTS;
        marker::begin();
        let mut seen = 0;
        while seen < CALLS.into() && Instant::now() < end {
            if row.context == Context::Nmi {
                raise_nmi();
            }
            for _ in 0..100_000 {
                std::hint::spin_loop();
            }
            seen = entries()?;
        }
        marker::end();
        drop(link);
        self.objects(row, bench)?;
        self.windows += 1;
        Ok(())
    }
}

/// Raises an NMI: the watchdog runs out at once, and the machine is told to make an NMI of that.
fn raise_nmi() {
    // SAFETY: access to the port was granted; it belongs to a watchdog that nothing else uses.
    unsafe {
        asm!("out dx, al", in("dx") WATCHDOG, in("al") 0x0f_u8, options(nostack, nomem));
    }
}

fn layouts(host: &mut Host, btf: &Btf) {
    for (name, depth) in STRUCTURES {
        let (Some(size), Some(fields)) = (btf.size(name), btf.fields(name, *depth)) else {
            continue;
        };
        say!(host, "layout {name} {size}");
        for field in fields {
            say!(host, "field {} {} {}", field.offset, field.size, field.name);
        }
    }
}

/// Symbols of the kernel proper. Those of modules and BPF programs come and go.
fn symbols(host: &mut Host) -> io::Result<()> {
    let mut before = 0_u64;
    for line in fs::read_to_string("/proc/kallsyms")?.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let noise = [
            "__pfx_",
            "__ksym",
            "__kstr",
            "__crc_",
            "__cfi_",
            ".L",
            "__func__",
            "__tracepoint_",
            "__bpf_trace",
            "__initcall",
            "__already",
            "__msg",
            "__key",
            "__event_",
            "event_",
            "types__",
            "args__",
            "__syscall_meta",
            "__p_syscall",
            "trace_event_",
            "print_fmt",
            "__export",
            "__x64_sys_",
            "__ia32_sys",
            "__do_sys_",
            "__se_sys",
            "__UNIQUE_ID",
            "__BTF_ID",
            "_RN",
        ];
        // Constants are not what CPUs meet at.
        if matches!(kind, "r" | "R") || noise.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // They are many, and the port takes a byte at a time.
        let at = u64::from_str_radix(address, 16).unwrap_or(before);
        say!(host, "symbol {:x} {name}", at.wrapping_sub(before));
        before = at;
    }
    Ok(())
}

fn info_lines(host: &mut Host, info: &KernelInfo) {
    say!(host, "guest 1 {}", info.release);
    for (kind, generation) in [("timer", info.cells.timer), ("wq", info.cells.wq)] {
        if let Some(generation) = generation {
            say!(host, "cell {kind} {}", generation.name());
        }
    }
}

/// Lies an empty file system over the description of the kernel's types.
fn hide_btf() -> io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    mount("none", "/sys/kernel/btf", "tmpfs", MountFlags::empty(), None)?;
    Ok(())
}

/// Commits a fault if it is one of this row.
pub(crate) fn commit(fault: &Fault, row: &str) {
    match fault {
        Fault::Panic(of) if of == row => {
            // The kernel is gone when this returns; if not, the row shows it.
            let _ = fs::write("/proc/sysrq-trigger", "c");
        }
        Fault::Hang(of) if of == row => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
}

/// Does what the host asks for: traces, or serves.
///
/// # Errors
/// Why not, in a line.
pub fn work() -> Result<(), String> {
    let request = Lines::parse(&fs::read_to_string(FILE).unwrap_or_default());
    if request.serve {
        return crate::vm::serve::serve(&request).map_err(|error| error.to_string());
    }
    trace_rows(&request).map_err(|error| error.to_string())
}

/// Traces the rows that the host asks for, or all, and says what it needs to know to read the
/// trace.
///
/// # Errors
/// Those of [`Kernel::probe`]; an error of one row is told to the host and the next follows.
fn trace_rows(request: &Lines) -> Result<(), Error> {
    let plan = |what: String| Error::Plan { what };
    let mut host = Host::open()
        .map_err(|error| plan(format!("no line to the host, port {PORT:#x}: {error}")))?;
    if request.faults.contains(&Fault::NoBtf) {
        hide_btf().map_err(|error| plan(format!("hiding the kernel's types: {error}")))?;
    }
    let info = match Kernel::probe() {
        Ok(info) => info,
        Err(error) => {
            say!(host, "error {error}");
            host.flush();
            return Err(error);
        }
    };
    info_lines(&mut host, &info);
    let wanted = &request.rows;
    let all = rows(&info);
    if let Some(name) = wanted.iter().find(|name| !all.iter().any(|row| row.name() == **name)) {
        say!(host, "error unknown row {name}");
    }
    host.flush();
    std::thread::sleep(BOOT);
    let mut tracer = Tracer { host: &mut host, windows: 0 };
    for row in all.iter().filter(|row| wanted.contains(&row.name())) {
        say!(tracer.host, "row {} {} {}", row.name(), row.context.name(), row.cell);
        tracer.host.flush();
        println!("row {}", row.name());
        request.faults.iter().for_each(|fault| commit(fault, &row.name()));
        if let Err(error) = tracer.row(row) {
            say!(tracer.host, "skip {}", error.to_string().replace('\n', "; "));
        }
        say!(tracer.host, "end");
        tracer.host.flush();
    }
    let bytes = fs::read(VMLINUX_BTF).map_err(|error| plan(format!("{VMLINUX_BTF}: {error}")))?;
    if let Ok(btf) = Btf::parse(&bytes) {
        layouts(&mut host, &btf);
    }
    symbols(&mut host).map_err(|error| plan(format!("/proc/kallsyms: {error}")))?;
    say!(host, "done");
    host.flush();
    Ok(())
}

/// Returns whether this process is the first of its machine.
#[must_use]
pub fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Makes the file systems that the programs need, as the first process must.
///
/// # Errors
/// What the kernel says.
pub fn mount_all() -> io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(kind, at, kind, MountFlags::empty(), None)?;
    }
    Ok(())
}

/// Switches the machine off; returns only if that fails.
pub fn power_off() {
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}
