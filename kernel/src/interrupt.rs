//! Attempts from interrupts: a perf event on the thread itself enters the program at every overflow; in
//! softirq, the callback of a BPF timer does, which arms itself again.
//!
//! The CPU clock event is driven by an hrtimer and overflows in hardirq context on any host. A
//! hardware counter overflows in NMI context, where there is one. The thread meanwhile spins in user
//! space, so that the interrupt finds it, and nothing else, on its CPU.

use libbpf_rs::{MapCore, MapFlags, PerfEventOpts};
use perf_event::events::{Hardware, Software};
use perf_event::{Builder, Counter};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use crate::bench::{Args, Bench, Worker, monotonic_ns, to_bytes, to_words, word};
use crate::error::Error;
use crate::rows::{Context, Row};

/// Overflow of the CPU clock: every 200 us.
const CLOCK_PERIOD_NS: u64 = 200_000;
/// Overflow of the cycle counter: every 100 to 300 us on today's CPUs.
const CYCLES_PERIOD: u64 = 500_000;
/// Longest wait beyond the window for a first interrupt.
const FIRST_INTERRUPT_NS: u64 = 2_000_000_000;
/// Times round the loop per interrupt: short beside the period.
const ATTEMPTS: u64 = 32;

/// Opens the event of the row's context on this thread.
pub(crate) fn open_event(row: &Row) -> Result<Counter, Error> {
    let mut builder = match row.context {
        Context::Task | Context::Softirq | Context::Hardirq => {
            let mut builder = Builder::new(Software::CPU_CLOCK);
            builder.sample_period(CLOCK_PERIOD_NS);
            builder
        }
        Context::Nmi => {
            let mut builder = Builder::new(Hardware::CPU_CYCLES);
            builder.sample_period(CYCLES_PERIOD);
            builder
        }
    };
    // Overflows count in the kernel and in user space alike.
    builder.observe_self().any_cpu().exclude_kernel(false).exclude_hv(false);
    builder.build().map_err(|error| {
        let reason = match (row.context, error.kind()) {
            (Context::Nmi, std::io::ErrorKind::NotFound | std::io::ErrorKind::Unsupported) => {
                "no hardware performance counter raises NMIs here (virtual machine without a PMU?)"
                    .to_owned()
            }
            (_, std::io::ErrorKind::PermissionDenied) => format!(
                "the perf event is not permitted ({error}): needs CAP_PERFMON, or \
                 kernel.perf_event_paranoid at most 1"
            ),
            _ => format!("the perf event cannot be opened: {error}"),
        };
        Error::Unsupported { row: row.name(), reason }
    })
}

/// Lets interrupts attempt until `deadline_ns`, and takes their counts into `args`.
pub(crate) fn run_until(
    worker: &Worker<'_>,
    args: &mut Args,
    deadline_ns: u64,
) -> Result<(), Error> {
    let bench = worker.bench;
    let row = bench.row();
    let map = bench.map("interrupt_args")?;
    let key = worker.thread.to_ne_bytes();
    args[word::ATTEMPTS_MAX] = ATTEMPTS;
    // The loop's own deadline check is for long loops.
    args[word::DEADLINE_NS] = 0;
    map.update(&key, &to_bytes(args), MapFlags::ANY)
        .map_err(bench.run_error("writing the arguments"))?;

    let read = |args: &mut Args| -> Result<(), Error> {
        let value = map
            .lookup(&key, MapFlags::ANY)
            .map_err(bench.run_error("reading the counts"))?
            .unwrap_or_default();
        for (into, from) in args.iter_mut().zip(to_words(&value)) {
            *into = from;
        }
        Ok(())
    };
    if row.context == Context::Softirq {
        arm_entry(bench, worker.thread, CLOCK_PERIOD_NS, Some(CLOCK_PERIOD_NS))?;
        await_interrupts(args, deadline_ns, &read)?;
        end_entries(bench, worker.thread)?;
        return read(args);
    }
    let program = bench.program(&format!("irq_{}", row.operation.program))?;
    let options = PerfEventOpts { cookie: worker.thread.into(), ..PerfEventOpts::default() };
    let event = open_event(row)?.into_raw_fd();
    // Switches the event on, and takes the descriptor, which it closes with the link.
    let link = program.attach_perf_event_with_opts(event, options).map_err(|error| {
        // SAFETY: the descriptor was taken out of its owner above, and libbpf takes it only on success.
        drop(unsafe { OwnedFd::from_raw_fd(event) });
        bench.run_error("attaching to the perf event")(error)
    })?;
    await_interrupts(args, deadline_ns, &read)?;
    drop(link);
    read(args)
}

/// Spins until the deadline, and beyond it until a first interrupt came.
fn await_interrupts(
    args: &mut Args,
    deadline_ns: u64,
    read: &dyn Fn(&mut Args) -> Result<(), Error>,
) -> Result<(), Error> {
    while monotonic_ns() < deadline_ns {
        std::hint::spin_loop();
    }
    // A preempted thread's event stands still: a window without an interrupt gets a longer one.
    while args[word::ENTRIES] == 0 && monotonic_ns() < deadline_ns + FIRST_INTERRUPT_NS {
        read(args)?;
    }
    Ok(())
}

/// Arms the timer whose callback enters the row's program on this CPU, once, or every `period_ns`.
pub(crate) fn arm_entry(
    bench: &Bench,
    thread: u32,
    delay_ns: u64,
    period_ns: Option<u64>,
) -> Result<(), Error> {
    let mut args: Args = [0; word::COUNT];
    args[word::THREAD] = thread.into();
    args[word::FLAGS] = delay_ns;
    args[word::SAMPLE_EVERY] = period_ns.unwrap_or(0);
    let program = format!("soft_{}", bench.row().operation.program);
    match bench.enter(&bench.program(&program)?, &mut args)? {
        0 => Ok(()),
        _ => Err(Error::Run {
            row: bench.row().name(),
            what: "arming the timer that enters the program",
            reason: "the kernel refused it".to_owned(),
        }),
    }
}

/// Cancels the timer of [`arm_entry`] and waits for its callback.
pub(crate) fn end_entries(bench: &Bench, thread: u32) -> Result<(), Error> {
    let mut args: Args = [0; word::COUNT];
    args[word::THREAD] = thread.into();
    bench.enter(&bench.program("soft_end")?, &mut args).map(drop)
}
