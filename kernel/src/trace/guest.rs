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

mod port;
mod types;

use std::fs;
use std::io;
use std::os::fd::IntoRawFd as _;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, Map, MapCore, MapFlags, PerfEventOpts, ProgramInput, ProgramMut};

use super::contended::{TRACED, while_stopped};
use super::request::{CONTENDED, FILE, Fault, Lines};
use super::{CALLS, CONTENDED_CALLS, MIXED_ATTEMPTS, WAITING_CALLS};
use crate::bench::{Bench, to_bytes, to_words, word};
use crate::btf::Btf;
use crate::error::Error;
use crate::info::{Kernel, KernelInfo, VMLINUX_BTF};
use crate::interrupt;
use crate::options::Options;
use crate::rows::{Context, Layout, Row, rows};
use port::{Host, PORT, marker, raise_nmi, say};
use types::{layouts, symbols};

/// After each call, for what the call left to run later.
const LATER: Duration = Duration::from_millis(3);
/// After the boot, for what the kernel does by itself then: tests of its cryptography.
const BOOT: Duration = Duration::from_secs(5);
/// Longest wait for an interrupt, in the guest's time.
const INTERRUPTS: Duration = Duration::from_secs(2);
/// From arming the timer that enters a program in softirq to its callback: longer than it takes to come to
/// the window's beginning.
const ENTRY: Duration = Duration::from_micros(500);
/// Words of `struct addresses`.
const ADDRESS_WORDS: usize = 20;

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
    /// Traces a row; `stop`: an address at which a second processor is stopped meanwhile.
    fn row(&mut self, row: &Row, stop: Option<u64>) -> Result<(), Error> {
        let same = row.layouts().iter().find(|layout| **layout == Layout::Same);
        let options = Options {
            layout: *same.unwrap_or(&row.layouts()[0]),
            threads: row.threads_min().max(if stop.is_some() { 2 } else { 1 }),
            sample_every: 0,
            seed: 0,
        };
        let entered_by_nmi = format!("nmi_{}", row.operation.program);
        let bench = if row.context == Context::Nmi {
            // The processor that is emulated has no counters, and opening the row would ask for one.
            let in_task = Row { context: Context::Task, ..row.clone() };
            Bench::open_with(&in_task, options, &["addresses", &entered_by_nmi])
        } else {
            Bench::open_with(row, options, &["addresses", "stop"])
        }?;
        marker::ready();
        // Lets the plugin throw old translations away before the first window.
        std::thread::yield_now();
        let traced = match row.context {
            Context::Task => self.calls(row, &bench, stop),
            Context::Softirq => self.softirqs(row, &bench),
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

    fn calls(&mut self, row: &Row, bench: &Bench, stop: Option<u64>) -> Result<(), Error> {
        let mut worker = bench.worker(0)?;
        let program = bench.program(row.operation.program)?;
        let attempts = if row.operation.program == "mixed" { MIXED_ATTEMPTS } else { 1 };
        let calls = match row.operation.program {
            _ if stop.is_some() => CONTENDED_CALLS,
            "lock_aa" => WAITING_CALLS,
            _ => CALLS,
        };
        for call in 0..calls {
            self.objects(row, bench)?;
            let n = self.windows;
            say!(self.host, "window {n} {call}");
            self.host.flush();
            let mut args = worker.args;
            args[word::ATTEMPTS_MAX] = attempts;
            let mut traced_call = || {
                marker::begin();
                let entered = bench.enter(&program, &mut args);
                std::thread::sleep(LATER);
                marker::end();
                entered
            };
            match stop {
                Some(at) => while_stopped(bench, at, traced_call)?,
                None => traced_call()?,
            };
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

    /// Returns a window for each softirq, which makes one attempt.
    fn softirqs(&mut self, row: &Row, bench: &Bench) -> Result<(), Error> {
        let worker = bench.worker(0)?;
        let mut args = worker.args;
        args[word::ATTEMPTS_MAX] = 1;
        let failed = |what| run_error(row, what);
        let map = bench.map("interrupt_args")?;
        let key = 0_u32.to_ne_bytes();
        map.update(&key, &to_bytes(&args), MapFlags::ANY)
            .map_err(|error| failed("writing the arguments")(error.to_string()))?;
        for call in 0..CALLS {
            self.objects(row, bench)?;
            say!(self.host, "window {} {call}", self.windows);
            self.host.flush();
            // Before the window: what arms the timer is none of the row's operations.
            interrupt::arm_entry(bench, 0, ENTRY.as_nanos() as u64, None)?;
            let end = Instant::now() + INTERRUPTS;
            marker::begin();
            let mut seen = 0;
            while seen <= call.into() && Instant::now() < end {
                for _ in 0..100_000 {
                    std::hint::spin_loop();
                }
                seen = entries(row, &map)?;
            }
            std::thread::sleep(LATER);
            marker::end();
            self.objects(row, bench)?;
            self.windows += 1;
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
            seen = entries(row, &map)?;
        }
        marker::end();
        drop(link);
        self.objects(row, bench)?;
        self.windows += 1;
        Ok(())
    }
}

/// Returns how often the program of an interrupt was entered.
fn entries(row: &Row, map: &Map<'_>) -> Result<u64, Error> {
    let value = map
        .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| run_error(row, "reading the counts")(error.to_string()))?;
    Ok(to_words(&value.unwrap_or_default()).get(word::ENTRIES).copied().unwrap_or(0))
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
    let is_contended = !request.holds.is_empty();
    if is_contended {
        cellbench_host::pin(TRACED)?;
    }
    let mut tracer = Tracer { host: &mut host, windows: 0 };
    for row in &all {
        let hold = request.holds.iter().find(|(name, _)| row.name() == *name);
        if hold.is_none() && !wanted.contains(&row.name()) {
            continue;
        }
        let name = format!("{row}{}", if hold.is_some() { CONTENDED } else { "" });
        say!(tracer.host, "row {name} {} {}", row.context.name(), row.cell);
        tracer.host.flush();
        println!("row {name}");
        request.faults.iter().for_each(|fault| commit(fault, &name));
        if let Err(error) = tracer.row(row, hold.map(|(_, at)| *at)) {
            say!(tracer.host, "skip {}", error.to_string().replace('\n', "; "));
        }
        say!(tracer.host, "end");
        tracer.host.flush();
    }
    if is_contended {
        // Structures and symbols are those of the boot before, in which the addresses were found.
        say!(host, "done");
        host.flush();
        return Ok(());
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
