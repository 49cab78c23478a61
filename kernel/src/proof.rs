//! Functional proof: every row runs on this kernel with the outcomes it may have, and every error
//! that can be provoked from task context is returned.
//!
//! For kernels that are booted under emulation to see whether they behave, not how fast they are.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cellbench_host::{CpuId, pin};
use libbpf_rs::{Object, ProgramInput, libbpf_sys};

use crate::bench::{Bench, to_bytes, to_words, word};
use crate::counts::{Counts, errno_name};
use crate::error::Error;
use crate::info::KernelInfo;
use crate::measure::Sampler;
use crate::object::{Sizes, load};
use crate::operations::Source;
use crate::options::Options;
use crate::plan::{Configuration, Plan, RoundResult, Skipped};
use crate::rows::{Context, Layout, Row, rows};

/// Words of `struct proof` in the programs.
const RETURNS: usize = 16;
/// Longest wait for a callback.
const CALLBACK: Duration = Duration::from_secs(5);
/// How long a lock is held so that a waiter times out; the limits are 250 and 500 ms.
const HOLD: Duration = Duration::from_millis(900);
/// Longest try to run into a deadlock.
const DEADLOCK: Duration = Duration::from_secs(20);

/// Something that must be so, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Operation that was made, in words.
    pub what: String,
    /// Outcome that is expected, in words.
    pub expected: String,
    /// Outcome that was found, in words.
    pub found: String,
    /// Whether they agree.
    pub holds: bool,
}

impl Expectation {
    fn equal(what: String, expected: String, found: String) -> Self {
        Self { holds: expected == found, what, expected, found }
    }
}

/// Rows whose sources have errors that one thread can provoke.
const WITH_ERRORS: &[&str] =
    &["timer-start", "timer-cancel_async", "wq-start", "task_work-schedule"];
/// Rows whose errors take a second CPU.
const WITH_TWO_THREADS: &[&str] = &["bpf_res_spin_lock", "bpf_res_spin_lock-abba"];

fn returned(value: i64) -> String {
    match u32::try_from(-value) {
        Ok(errno) if errno > 0 => errno_name(errno),
        _ => value.to_string(),
    }
}

/// A call, and what it must return: a number or the name of an errno.
type Call = (&'static str, &'static str);

const TIMER: &[Call] = &[
    ("set_callback before init", "EINVAL"),
    ("start before init", "EINVAL"),
    ("cancel before init", "EINVAL"),
    ("init with an unknown clock", "EINVAL"),
    ("init with unknown flags", "EINVAL"),
    ("init", "0"),
    ("init of an initialised timer", "EBUSY"),
    ("start without a callback", "EINVAL"),
    ("set_callback", "0"),
    ("start with unknown flags", "EINVAL"),
    ("start", "0"),
    ("cancel of a pending timer", "1"),
    ("start after cancel dropped the callback", "EINVAL"),
    ("set_callback after cancel", "0"),
    ("start, to fire at once", "0"),
];
const TIMER_CALLBACK: &[Call] =
    &[("timer fired", "1"), ("cancel from the timer's own callback", "EDEADLK")];
const TIMER_ASYNC: &[Call] = &[
    ("cancel_async before init", "EINVAL"),
    ("init", "0"),
    ("cancel_async of a timer that does not run", "0"),
    ("set_callback", "0"),
    ("start", "0"),
    ("cancel_async of a pending timer", "1"),
];
const WQ: &[Call] = &[
    ("set_callback before init", "EINVAL"),
    ("start before init", "EINVAL"),
    ("init with unknown flags", "EINVAL"),
    ("init", "0"),
    ("init of an initialised work", "EBUSY"),
    ("start without a callback", "EINVAL"),
    ("set_callback with unknown flags", "EINVAL"),
    ("set_callback", "0"),
    ("start with unknown flags", "EINVAL"),
    ("start", "0"),
];
const TASK_WORK: &[Call] = &[
    ("schedule", "0"),
    ("schedule of a scheduled work", "EBUSY"),
    ("schedule in the other mode of a scheduled work", "EBUSY"),
];
const RAN_ONCE: &[Call] = &[("callbacks that ran", "1")];
const TIMER_UNREFERENCED: &[Call] = &[("init without a user reference to the map", "EPERM")];
const TASK_WORK_UNREFERENCED: &[Call] =
    &[("schedule without a user reference to the map", "EBUSY")];

/// Runs `program`, which fills in what each call returned.
fn returns_of(row: &Row, object: &Object, program: &str) -> Result<Vec<i64>, Error> {
    let failed = |reason: String| Error::Run { row: row.name(), what: "proving", reason };
    let program = object
        .progs_mut()
        .find(|p| p.name() == program)
        .ok_or_else(|| failed(format!("no program {program}")))?;
    let mut bytes = to_bytes(&[0; RETURNS]);
    let input = ProgramInput { context_in: Some(&mut bytes), ..ProgramInput::default() };
    let output = program.test_run(input).map_err(|error| failed(error.to_string()))?;
    if output.return_value != 0 {
        return Err(failed("the program found no cell".to_owned()));
    }
    Ok(to_words(&bytes).into_iter().map(|word| word as i64).collect())
}

fn compare(kind: &str, calls: &[Call], returns: &[i64]) -> Vec<Expectation> {
    calls
        .iter()
        .zip(returns)
        .map(|((what, expected), found)| {
            Expectation::equal(format!("{kind}: {what}"), (*expected).to_owned(), returned(*found))
        })
        .collect()
}

/// Runs the callback's program until its first word is no longer 0, or a bounded time has passed.
fn await_callback(row: &Row, object: &Object) -> Result<Vec<i64>, Error> {
    let end = Instant::now() + CALLBACK;
    loop {
        let returns = returns_of(row, object, "proof_callback")?;
        if returns[0] != 0 || Instant::now() > end {
            return Ok(returns);
        }
        std::thread::yield_now();
    }
}

/// Runs `proof_unreferenced` after closing every descriptor of the maps: the program alone holds
/// them.
fn unreferenced(row: &Row) -> Result<Vec<i64>, Error> {
    let sizes = Sizes { cells: 1, threads: 1 };
    let object = load(row, Layout::Same, sizes, &["proof_unreferenced"])?;
    let failed = |reason: String| Error::Run { row: row.name(), what: "proving", reason };
    let program = object
        .progs()
        .find(|program| program.name() == "proof_unreferenced")
        .ok_or_else(|| failed("no program proof_unreferenced".to_owned()))?
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed(error.to_string()))?;
    drop(object);
    let mut bytes = to_bytes(&[0; RETURNS]);
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        ctx_in: bytes.as_mut_ptr().cast(),
        ctx_size_in: bytes.len() as u32,
        ..Default::default()
    };
    // SAFETY: the descriptor is open; `options` states its own size; the context is a live buffer of
    // the size stated, which the kernel reads and writes during the call only.
    let ret = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    if ret != 0 {
        return Err(failed(returned(ret.into())));
    }
    Ok(to_words(&bytes).into_iter().map(|word| word as i64).collect())
}

/// Proves the errors of one source of programs.
fn prove_errors(row: &Row, cpus: &[u32]) -> Result<Vec<Expectation>, Error> {
    let sizes = Sizes { cells: 1, threads: 1 };
    let open = |programs: &[&str]| load(row, Layout::Same, sizes, programs);
    let kind = row.kind().to_string();
    let mut found = Vec::new();
    match row.operation.source {
        Source::Timer if row.operation.program == "cancel_async" => {
            let object = open(&["proof_cancel_async"])?;
            let returns = returns_of(row, &object, "proof_cancel_async")?;
            found.extend(compare(&kind, TIMER_ASYNC, &returns));
        }
        Source::Timer => {
            let object = open(&["proof", "proof_callback"])?;
            found.extend(compare(&kind, TIMER, &returns_of(row, &object, "proof")?));
            found.extend(compare(&kind, TIMER_CALLBACK, &await_callback(row, &object)?));
            found.extend(compare(&kind, TIMER_UNREFERENCED, &unreferenced(row)?));
        }
        Source::Wq => {
            let object = open(&["proof", "proof_callback"])?;
            found.extend(compare(&kind, WQ, &returns_of(row, &object, "proof")?));
            found.extend(compare(&kind, RAN_ONCE, &await_callback(row, &object)?));
            found.extend(compare(&kind, TIMER_UNREFERENCED, &unreferenced(row)?));
        }
        Source::TaskWork => {
            let object = open(&["proof", "proof_callback"])?;
            found.extend(compare(&kind, TASK_WORK, &returns_of(row, &object, "proof")?));
            found.extend(compare(&kind, RAN_ONCE, &await_callback(row, &object)?));
            found.extend(compare(&kind, TASK_WORK_UNREFERENCED, &unreferenced(row)?));
        }
        Source::ResLock if row.operation.program == "lock_abba" => {
            found.push(prove_abba(row, cpus)?)
        }
        Source::ResLock => found.push(prove_timeout(row, cpus)?),
        Source::SpinLock | Source::IrqWork => {}
    }
    Ok(found)
}

/// Returns one thread holds a resilient lock for longer than another waits.
fn prove_timeout(row: &Row, cpus: &[u32]) -> Result<Expectation, Error> {
    let options = Options { layout: Layout::Same, threads: 2, sample_every: 0, seed: 0 };
    let bench = Bench::open_with(row, options, &["hold"])?;
    let hold = |rounds: u64| -> Result<u64, Error> {
        let mut args = [0; word::COUNT];
        args[word::FLAGS] = rounds;
        bench.enter(&bench.program("hold")?, &mut args)?;
        Ok(args[word::ELAPSED_NS])
    };
    let one_round_ns = hold(1)?.max(1);
    let rounds = (HOLD.as_nanos() as u64).div_ceil(one_round_ns);
    // On a busy host the waiter may get no time while the lock is held: then once more.
    let end = Instant::now() + DEADLOCK;
    let mut outcomes = Counts::default();
    while outcomes.of("lock", "ETIMEDOUT") == 0 && Instant::now() < end {
        // Relaxed: a flag on its own, nothing is published with it.
        let released = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let held = pin(CpuId(cpus[0])).map_err(Error::from).and_then(|()| hold(rounds));
                released.store(true, Ordering::Relaxed);
                held
            });
            let waiter = scope.spawn(|| -> Result<Counts, Error> {
                pin(CpuId(cpus[1]))?;
                let mut total = Counts::default();
                let mut worker = bench.worker(1)?;
                while !released.load(Ordering::Relaxed) {
                    total.merge(&worker.run_batch(1)?);
                }
                Ok(total)
            });
            outcomes.merge(&waiter.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            holder.join().unwrap_or_else(|panic| resume_unwind(panic))
        })?;
    }
    Ok(Expectation {
        what: format!("lock: waiting for a resilient lock held for {} ms", HOLD.as_millis()),
        expected: "ETIMEDOUT".to_owned(),
        found: format!("{:?}", outcomes.ops.get("lock").cloned().unwrap_or_default()),
        holds: outcomes.of("lock", "ETIMEDOUT") > 0,
    })
}

/// Lets two threads take two locks in opposite orders, until one of them is told of the deadlock.
fn prove_abba(row: &Row, cpus: &[u32]) -> Result<Expectation, Error> {
    let options = Options { layout: Layout::Same, threads: 2, sample_every: 0, seed: 0 };
    let bench = Bench::open(row, options)?;
    let end = Instant::now() + DEADLOCK;
    let found = AtomicBool::new(false);
    // Relaxed: a flag on its own, nothing is published with it.
    let seen = || found.load(Ordering::Relaxed);
    let one = |thread: u32| -> Result<Counts, Error> {
        pin(CpuId(cpus[thread as usize]))?;
        let mut total = Counts::default();
        let mut worker = bench.worker(thread)?;
        while !seen() && Instant::now() < end {
            total.merge(&worker.run_batch(1000)?);
            if total.of("lock", "EDEADLK") > 0 {
                found.store(true, Ordering::Relaxed);
            }
        }
        Ok(total)
    };
    let total = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| one(0)), scope.spawn(|| one(1))];
        let mut total = Counts::default();
        for thread in threads {
            total.merge(&thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok::<_, Error>(total)
    })?;
    Ok(Expectation {
        what: "lock: two resilient locks in opposite orders".to_owned(),
        expected: "EDEADLK".to_owned(),
        found: format!("{:?}", total.ops.get("lock").cloned().unwrap_or_default()),
        holds: total.of("lock", "EDEADLK") > 0,
    })
}

/// Returns the outcomes that a row may have when measured: those its cells' generation can return, given that
/// other threads race on the cell or not.
fn allowed(result: &RoundResult) -> BTreeSet<&'static str> {
    let Configuration { row, layout, cpus } = &result.configuration;
    let racing = cpus.len() > 1 && matches!(layout, Layout::Same | Layout::Zipf { .. });
    let mut allowed = BTreeSet::from(["ok"]);
    match (row.operation.source, row.operation.program) {
        (_, "lock_aa") => return BTreeSet::from(["EDEADLK"]),
        (_, "lock_abba") => allowed.extend(["EDEADLK", "ETIMEDOUT"]),
        (Source::ResLock, "lock_pair" | "lock_pair_irqsave") if racing => {
            allowed.insert("ETIMEDOUT");
        }
        (Source::Timer, "cancel_async") if row.context != Context::Task => {
            allowed.insert("ECANCELED");
        }
        (Source::TaskWork, "empty_row") => {}
        // One thread drains the ring at a time.
        (Source::IrqWork, _) if racing => {
            allowed.insert("EBUSY");
        }
        (Source::TaskWork, _) => {
            allowed.insert("EBUSY");
        }
        // The kernel allocates without waiting; a burst of inits empties its caches.
        (Source::Timer | Source::Wq, "init_free" | "lifecycle" | "mixed") if !racing => {
            allowed.extend(["ENOMEM", "EINVAL", "EBUSY"]);
        }
        // An element freed under a thread's feet has no timer, or one that another made.
        (Source::Timer | Source::Wq, "init_free" | "lifecycle" | "mixed") if racing => {
            allowed.extend(["EBUSY", "EINVAL", "ENOENT", "ENOMEM"]);
        }
        // Another thread's cancel drops the callback before this one's start.
        (Source::Timer, "start_cancel" | "start_cancel_async") if racing => {
            allowed.extend(["EINVAL", "EBUSY"]);
        }
        _ => {}
    }
    allowed
}

fn judge(result: &RoundResult) -> Vec<Expectation> {
    let total = result.total();
    let Configuration { row, layout, cpus } = &result.configuration;
    let what = format!("{row} {} x{}", layout.name(), cpus.len());
    let seen: BTreeSet<&str> =
        total.ops.values().flat_map(|outcomes| outcomes.keys().map(String::as_str)).collect();
    let allowed = allowed(result);
    let mut found = vec![Expectation {
        what: what.clone(),
        expected: format!("attempts with outcomes among {allowed:?}"),
        found: format!("{} attempts: {:?}", total.attempts(), total.ops),
        holds: total.attempts() > 0 && seen.is_subset(&allowed),
    }];
    found.push(Expectation {
        what: format!("{what}: invariants"),
        expected: "none violated".to_owned(),
        found: if result.invariants.violations.is_empty() {
            "none violated".to_owned()
        } else {
            result.invariants.violations.join("; ")
        },
        holds: result.invariants.violations.is_empty() && result.invariants.checked > 0,
    });
    found
}

/// Proves everything on this kernel: every row in every layout at 1 and, with two CPUs, 2 threads,
/// and
/// every error.
///
/// # Errors
/// As [`Sampler::measure`] and [`Bench::open`], for anything but a row that this kernel lacks.
pub fn prove(
    info: &KernelInfo,
    cpus: &[u32],
    window: Duration,
) -> Result<(Vec<Expectation>, Vec<Skipped>), Error> {
    info.check_permission()?;
    let mut found = Vec::new();
    let mut skipped = Vec::new();
    let all = rows(info);
    let names = WITH_ERRORS.iter().chain(if cpus.len() > 1 { WITH_TWO_THREADS } else { &[] });
    for name in names {
        let Some(row) = all.iter().find(|row| row.name() == *name) else { continue };
        if row.skipped.is_none() {
            found.extend(prove_errors(row, cpus)?);
        }
    }
    let threads = if cpus.len() > 1 { vec![1, 2] } else { vec![1] };
    let plan = Plan {
        rows: all,
        layouts: vec![Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF],
        threads,
        cpus: cpus.to_vec(),
    };
    let mut sampler = Sampler::new(true, 1);
    let (configurations, lacking) = plan.configurations()?;
    skipped.extend(lacking);
    for configuration in configurations {
        match sampler.measure(&configuration, window, 1) {
            Ok(result) => found.extend(judge(&result)),
            Err(Error::Unsupported { row, reason }) => {
                if !skipped.iter().any(|(known, _)| *known == row) {
                    skipped.push((row, reason));
                }
            }
            // Memory may be back for the next.
            Err(error @ Error::Prepare { .. }) => {
                skipped.push((configuration.row.name(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, skipped))
}
