//! History of an execution, with logical times: the calls, their replies and the callbacks that ran.
//!
//! It is kept outside the checkers: a `std` counter and per-CPU lists, which are no steps to
//! explore. In a checked execution one thread runs at a time, so the times are the order in which
//! things happened; on real threads a call's true duration lies within its interval.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cellbench_impls::Errno;

/// An operation on a cell, or something that happens around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Op {
    /// A call of `init`.
    Init,
    /// `set_callback` with the program of that number.
    Set(u8),
    /// `start`, in some time from now.
    Start,
    /// `start` of a timer, for a point in time.
    StartAt,
    /// `set_callback` and `start` in one, with the program of that number.
    Schedule(u8),
    /// A call of `cancel`.
    Cancel,
    /// A call of `cancel_async`.
    CancelAsync,
    /// A call of `cancel_and_free`.
    Free,
    /// User space drops its last reference to the map.
    PutUser,
    /// Timers that are due fire, queued works run.
    Fire,
    /// The start of a section with interrupts off, in which the thread makes all its further calls.
    IrqsOff,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Init => f.write_str("init"),
            Op::Set(program) => write!(f, "set_callback(p{program})"),
            Op::Start => f.write_str("start"),
            Op::StartAt => f.write_str("start(absolute)"),
            Op::Schedule(program) => write!(f, "schedule(p{program})"),
            Op::Cancel => f.write_str("cancel"),
            Op::CancelAsync => f.write_str("cancel_async"),
            Op::Free => f.write_str("cancel_and_free"),
            Op::PutUser => f.write_str("map.put_user"),
            Op::Fire => f.write_str("fire"),
            Op::IrqsOff => f.write_str("irqs off"),
        }
    }
}

/// Result of a call: `Ok(pending)` for the cancels, `Ok(true)` for all others.
pub(crate) type Reply = Result<bool, Errno>;

/// A call from its invocation to its response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    /// The CPU it ran on.
    pub(crate) cpu: u32,
    /// Operation that was called.
    pub(crate) op: Op,
    /// Logical time of the invocation.
    pub(crate) invoked: u64,
    /// Logical time of the response; [`PENDING`] if there was none.
    pub(crate) returned: u64,
    /// Result that the call returned.
    pub(crate) reply: Reply,
    /// The callbacks that ran inside it, each with the program it belongs to.
    pub(crate) runs: Vec<Run>,
}

/// The response of a call that has not returned.
pub(crate) const PENDING: u64 = u64::MAX;

/// A callback that ran.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Run {
    /// The program it belongs to.
    pub(crate) program: u8,
    /// Logical time at which it began.
    pub(crate) began: u64,
    /// Logical time at which it ended.
    pub(crate) ended: u64,
}

impl Call {
    /// Returns whether the two were in progress at the same time.
    pub(crate) fn overlaps(&self, other: &Call) -> bool {
        self.invoked < other.returned && other.invoked < self.returned
    }
}

/// The log of one arena.
pub(crate) struct Log {
    clock: AtomicU64,
    per_cpu: Vec<Mutex<PerCpu>>,
}

#[derive(Default)]
struct PerCpu {
    calls: Vec<Call>,
    /// Which of them are in progress, the innermost last.
    open: Vec<usize>,
}

impl Log {
    /// Makes an empty log for `cpus` CPUs: that of the execution in progress on this thread.
    pub(crate) fn new(cpus: u32) -> Arc<Self> {
        let log = Arc::new(Self {
            clock: AtomicU64::new(0),
            per_cpu: (0..cpus).map(|_| Mutex::default()).collect(),
        });
        LOG.set(Some(Arc::clone(&log)));
        log
    }

    fn now(&self) -> u64 {
        // SeqCst: times are to agree with what really came first.
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn with<R>(&self, cpu: u32, body: impl FnOnce(&mut PerCpu) -> R) -> R {
        body(&mut self.per_cpu[cpu as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `body` as a call.
    pub(crate) fn call(&self, cpu: u32, op: Op, body: impl FnOnce() -> Reply) -> Reply {
        let invoked = self.now();
        let call = Call { cpu, op, invoked, returned: PENDING, reply: Ok(true), runs: Vec::new() };
        let index = self.with(cpu, |log| {
            log.calls.push(call);
            log.open.push(log.calls.len() - 1);
            log.calls.len() - 1
        });
        let reply = body();
        let returned = self.now();
        self.with(cpu, |log| {
            log.open.pop();
            log.calls[index].returned = returned;
            log.calls[index].reply = reply;
        });
        reply
    }

    /// Runs `body` as a callback of `program`, inside the call in progress on this CPU.
    pub(crate) fn run(&self, cpu: u32, program: u8, body: impl FnOnce()) {
        let began = self.now();
        let (call, run) = self.with(cpu, |log| {
            let call = *log.open.last().expect("callbacks run inside a call");
            log.calls[call].runs.push(Run { program, began, ended: PENDING });
            (call, log.calls[call].runs.len() - 1)
        });
        body();
        let ended = self.now();
        self.with(cpu, |log| log.calls[call].runs[run].ended = ended);
    }

    /// Returns all calls, in the order of the invocations.
    pub(crate) fn history(&self) -> Vec<Call> {
        let mut calls: Vec<Call> = (0..self.per_cpu.len() as u32)
            .flat_map(|cpu| self.with(cpu, |log| log.calls.clone()))
            .collect();
        calls.sort_by_key(|call| call.invoked);
        calls
    }
}

thread_local! {
    /// The log of the execution in progress, for the report of a panic.
    static LOG: RefCell<Option<Arc<Log>>> = const { RefCell::new(None) };
    /// Executions of the test in progress.
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
    /// Seed that the executions were drawn from.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Begins another execution of this thread's test.
pub(crate) fn begin_execution() {
    EXECUTIONS.set(EXECUTIONS.get() + 1);
    LOG.set(None);
}

/// Sets the seed that the executions which follow on this thread are drawn from.
pub(crate) fn set_seed(seed: u64) {
    SEED.set(Some(seed));
}

/// The first line of what a failed execution prints, before its number.
pub(crate) const FAILED_EXECUTION: &str = "in execution ";

/// Has a failed execution say which one it was and print its history before it unwinds: with a checker's
/// threads that may abort.
pub(crate) fn print_history_of_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        if EXECUTIONS.get() > 0 {
            eprintln!("{FAILED_EXECUTION}{}", EXECUTIONS.get());
        }
        if let Some(seed) = SEED.get() {
            eprintln!("again with CELLBENCH_SEED={seed}");
        }
        if let Some(log) = LOG.with_borrow(Option::clone) {
            eprint!("{}", timeline(&log.history()));
        }
    }));
}

/// Prints a history as a timeline: a column for each CPU, a line for each event.
pub(crate) fn timeline(history: &[Call]) -> String {
    let mut events: Vec<(u64, u32, String)> = Vec::new();
    for call in history {
        let reply = match (call.op, call.reply) {
            (Op::Cancel | Op::CancelAsync, Ok(pending)) => {
                if pending { "was pending" } else { "was not pending" }.to_owned()
            }
            (_, Ok(_)) => "ok".to_owned(),
            (_, Err(errno)) => errno.to_string(),
        };
        if call.returned == call.invoked + 1 {
            events.push((call.invoked, call.cpu, format!("{}: {reply}", call.op)));
        } else {
            events.push((call.invoked, call.cpu, format!("{} {{", call.op)));
            if call.returned != PENDING {
                events.push((call.returned, call.cpu, format!("}} {}: {reply}", call.op)));
            }
        }
        for run in &call.runs {
            events.push((run.began, call.cpu, format!("callback of p{} begins", run.program)));
            if run.ended != PENDING {
                events.push((run.ended, call.cpu, format!("callback of p{} ends", run.program)));
            }
        }
    }
    events.sort();
    let mut cpus: Vec<u32> = events.iter().map(|event| event.1).collect();
    cpus.sort_unstable();
    cpus.dedup();
    let width = 2 + events.iter().map(|event| event.2.len()).max().unwrap_or(0).max(6);
    let mut text = String::new();
    let line = |cells: Vec<String>| {
        let row: String = cells.iter().map(|cell| format!("{cell:<width$}")).collect();
        format!("  {}\n", row.trim_end())
    };
    text += &line(cpus.iter().map(|cpu| format!("CPU {cpu}")).collect());
    for (_, at, event) in &events {
        text += &line(
            cpus.iter().map(|cpu| if cpu == at { event.clone() } else { String::new() }).collect(),
        );
    }
    text
}
