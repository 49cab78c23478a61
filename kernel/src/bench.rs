//! A row, loaded: cells in a map of their own, and a program that makes attempts on them.
//!
//! Everything is held by file descriptors and nothing is pinned, so that the kernel takes it all
//! back when the bench is dropped or the process ends, however it ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cellbench_record::{Invariants, OK};
use libbpf_rs::{Map, MapCore, MapFlags, Object, ProgramInput, ProgramMut};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::counts::{Counts, ERRNOS, OPS, errno_name};
use crate::error::Error;
use crate::histogram::{BUCKETS, Histogram};
use crate::interrupt;
use crate::object::{Sizes, load};
use crate::operations::{Callbacks, Source};
use crate::options::Options;
use crate::rows::{Context, Layout, Row};

/// `struct args` of `src/bpf/cell.h` as 64-bit words, by index.
pub(crate) mod word {
    pub(crate) const ATTEMPTS_MAX: usize = 0;
    pub(crate) const DEADLINE_NS: usize = 1;
    pub(crate) const THREAD: usize = 2;
    pub(crate) const BASE: usize = 3;
    pub(crate) const MASK: usize = 4;
    pub(crate) const USE_KEYS: usize = 5;
    pub(crate) const SAMPLE_EVERY: usize = 6;
    pub(crate) const FLAGS: usize = 7;
    pub(crate) const ENDED_NS: usize = 9;
    pub(crate) const ELAPSED_NS: usize = 10;
    pub(crate) const ENTRIES: usize = 11;
    pub(crate) const FAILED: usize = 12;
    pub(crate) const OK: usize = 13;
    pub(crate) const COUNT: usize = OK + super::OPS.len();
}

/// `struct args`.
pub(crate) type Args = [u64; word::COUNT];

/// Length of a thread's table of keys, as `NR_KEYS` in `src/bpf/cell.h`.
const KEYS: usize = 4096;
/// Bits of a key that choose the cell, as `CELL_BITS` in `src/bpf/cell.h`; the others are random.
const CELL_BITS: u32 = 24;
/// Cells each thread schedules in turn, where cells are its own: a task work is taken until the
/// thread
/// returns to user space, so that one cell would show its success path once per system call.
const TASK_WORKS: u32 = 256;
/// Cells brought to life per entry into the kernel; a power of two.
const PREPARE_CHUNK: u32 = 64;
/// Chances for each cell, and the time between them.
const PREPARE_PASSES: u32 = 200;
const PREPARE_PAUSE: Duration = Duration::from_millis(2);
/// Wait for freed memory to come back: about a grace period.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);
/// Number of this operation in [`OPS`].
const SET_CALLBACK: usize = 2;
/// Longest stay in the kernel in task context. A kernel without preemption switches tasks only when a
/// program is left; what it owes until then to others, RCU above all, falls due in one piece. It also
/// accounts wrongly for such a stay: a wake-up that asks for a switch keeps the clock of the CPU from
/// being read again at that switch (`rq_clock_skip_update()` in `wakeup_preempt()`), so that up to a
/// tick of the thread's own running time is booked as its waiting for the CPU.
const ENTRY_NS: u64 = 200_000;
/// Longest wait for callbacks that are still on their way.
const SETTLE: Duration = Duration::from_secs(2);

/// A row, loaded into the kernel with fresh cells.
#[derive(Debug)]
pub struct Bench {
    row: Row,
    options: Options,
    cells: u32,
    object: Object,
}

pub(crate) fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn to_words(bytes: &[u8]) -> Vec<u64> {
    // A chunk of 8 bytes always makes an array of 8.
    bytes.chunks_exact(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap_or_default())).collect()
}

impl Bench {
    /// Loads `row` with fresh cells and brings them to life where the row asks for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if this kernel or host cannot run the row, [`Error::Load`] if the
    /// kernel refuses it for another reason, [`Error::Prepare`] if the cells cannot be prepared.
    pub fn open(row: &Row, options: Options) -> Result<Self, Error> {
        Self::open_with(row, options, &[])
    }

    /// Opens as [`Bench::open`] does, with further programs of the row's object.
    pub(crate) fn open_with(row: &Row, options: Options, more: &[&str]) -> Result<Self, Error> {
        if let Some(reason) = &row.skipped {
            return Err(Error::Unsupported { row: row.name(), reason: reason.clone() });
        }
        let plan_error = |what: String| Err(Error::Plan { what: format!("{row}: {what}") });
        if !row.layouts().contains(&options.layout) {
            let known: Vec<&str> = row.layouts().iter().map(|l| l.name()).collect();
            return plan_error(format!(
                "has no layout {}; it has {}",
                options.layout.name(),
                known.join(", ")
            ));
        }
        if options.threads < row.threads_min() {
            return plan_error(format!("needs at least {} threads", row.threads_min()));
        }
        let operation = row.operation;
        let per_thread = if operation.source == Source::TaskWork { TASK_WORKS } else { 1 };
        let cells = match options.layout {
            Layout::Same => operation.threads_min.max(1),
            Layout::OwnPadded | Layout::OwnPacked => options.threads * per_thread,
            Layout::Zipf { cells, .. } => cells,
        };
        let name = match row.context {
            Context::Task => operation.program.to_owned(),
            Context::Softirq => format!("soft_{}", operation.program),
            Context::Hardirq | Context::Nmi => format!("irq_{}", operation.program),
        };
        let sizes = Sizes { cells, threads: options.threads };
        let mut programs = vec![name.as_str()];
        programs.extend(more);
        if operation.prepare {
            programs.push("prepare");
        }
        if row.context == Context::Softirq {
            programs.push("soft_end");
        }
        let object = load(row, options.layout, sizes, &programs)?;
        let mut bench = Self { row: row.clone(), options, cells, object };
        bench.fill_keys()?;
        if operation.prepare {
            bench.prepare()?;
        }
        if matches!(row.context, Context::Hardirq | Context::Nmi) {
            // Says before the measurement whether the host has the event.
            interrupt::open_event(&bench.row)?;
        }
        Ok(bench)
    }

    pub(crate) fn run_error(
        &self,
        what: &'static str,
    ) -> impl Fn(libbpf_rs::Error) -> Error + use<> {
        let row = self.row.name();
        move |error| Error::Run { row: row.clone(), what, reason: error.to_string() }
    }

    pub(crate) fn map(&self, name: &str) -> Result<Map<'_>, Error> {
        self.object.maps().find(|map| map.name() == name).ok_or_else(|| Error::Run {
            row: self.row.name(),
            what: "finding a map",
            reason: format!("the object has no map {name}"),
        })
    }

    pub(crate) fn program(&self, name: &str) -> Result<ProgramMut<'_>, Error> {
        self.object.progs_mut().find(|program| program.name() == name).ok_or_else(|| Error::Run {
            row: self.row.name(),
            what: "finding a program",
            reason: format!("the object has no program {name}"),
        })
    }

    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    fn uses_keys(&self) -> bool {
        matches!(self.options.layout, Layout::Zipf { .. }) || self.row.operation.program == "mixed"
    }

    fn cells_of(&self, thread: u32) -> (u32, u32) {
        match self.options.layout {
            Layout::Same | Layout::Zipf { .. } => (0, 1),
            Layout::OwnPadded | Layout::OwnPacked => {
                let per_thread = self.cells / self.options.threads;
                (thread * per_thread, per_thread)
            }
        }
    }

    /// Gives each thread its sequence of cells and random choices.
    fn fill_keys(&mut self) -> Result<(), Error> {
        if !self.uses_keys() {
            return Ok(());
        }
        let map = self.map("keys")?;
        for thread in 0..self.options.threads {
            let mut rng = SmallRng::seed_from_u64(self.options.seed ^ u64::from(thread) << 32);
            let zipf = match self.options.layout {
                Layout::Zipf { cells, exponent } => {
                    Some(Zipf::new(f64::from(cells), exponent).map_err(|error| Error::Plan {
                        what: format!("Zipf distribution over {cells} cells: {error}"),
                    })?)
                }
                _ => None,
            };
            let (base, _) = self.cells_of(thread);
            let keys: Vec<u8> = (0..KEYS)
                .flat_map(|_| {
                    let cell = zipf.as_ref().map_or(base, |z| z.sample(&mut rng) as u32 - 1);
                    let choice: u32 = rng.random_range(0..256);
                    (cell | choice << CELL_BITS).to_ne_bytes()
                })
                .collect();
            map.update(&thread.to_ne_bytes(), &keys, MapFlags::ANY)
                .map_err(self.run_error("writing the keys"))?;
        }
        Ok(())
    }

    /// Brings every cell to life. The kernel allocates without waiting, so that an init can run
    /// into
    /// ENOMEM until cells freed before have come back to its caches: such cells get further
    /// chances.
    fn prepare(&self) -> Result<(), Error> {
        let program = self.program("prepare")?;
        let mut args: Args = [0; word::COUNT];
        for _ in 0..PREPARE_PASSES {
            args = [0; word::COUNT];
            for base in (0..self.cells).step_by(PREPARE_CHUNK as usize) {
                args[word::ATTEMPTS_MAX] = PREPARE_CHUNK.min(self.cells - base).into();
                args[word::BASE] = base.into();
                args[word::MASK] = u64::from(PREPARE_CHUNK - 1);
                self.enter(&program, &mut args)?;
            }
            // A cell made in an earlier pass answers its second init with EBUSY.
            if args[word::OK + SET_CALLBACK] == u64::from(self.cells) {
                return Ok(());
            }
            std::thread::sleep(PREPARE_PAUSE);
        }
        Err(Error::Prepare {
            row: self.row.name(),
            cells: self.cells,
            failed: u64::from(self.cells) - args[word::OK + SET_CALLBACK],
        })
    }

    /// Runs a program once; it adds to the counts in `args`. Returns what the program returned.
    pub(crate) fn enter(&self, program: &ProgramMut<'_>, args: &mut Args) -> Result<u32, Error> {
        let mut bytes = to_bytes(args);
        let input = ProgramInput { context_in: Some(&mut bytes), ..ProgramInput::default() };
        let output = program.test_run(input).map_err(self.run_error("running the program"))?;
        let returned = output.return_value;
        for (into, from) in args.iter_mut().zip(to_words(&bytes)) {
            *into = from;
        }
        Ok(returned)
    }

    /// Returns counts from the words of a run, and the thread's failures by operation and errno,
    /// of which
    /// those in `failures_before` are not this run's.
    pub(crate) fn counts(
        &self,
        args: &Args,
        failures_before: &[u64],
        thread: u32,
    ) -> Result<(Counts, Vec<u64>), Error> {
        let mut counts = Counts {
            elapsed_ns: args[word::ELAPSED_NS],
            entries: args[word::ENTRIES],
            ended_ns: args[word::ENDED_NS],
            ..Counts::default()
        };
        for (op, ok) in OPS.iter().zip(&args[word::OK..]) {
            counts.add(op, OK, *ok);
        }
        if args[word::FAILED] == 0 {
            return Ok((counts, failures_before.to_owned()));
        }
        let value = self
            .map("failures")?
            .lookup(&thread.to_ne_bytes(), MapFlags::ANY)
            .map_err(self.run_error("reading the failures"))?;
        let failures = to_words(&value.unwrap_or_default());
        for (at, (now, before)) in failures.iter().zip(failures_before).enumerate() {
            let errno = (at % ERRNOS) as u32;
            counts.add(OPS[at / ERRNOS], &errno_name(errno), now - before);
        }
        Ok((counts, failures))
    }

    /// Returns a thread's hold on the bench. Made on the thread that uses it.
    ///
    /// # Errors
    /// [`Error::Plan`] if the bench was opened for fewer threads.
    pub fn worker(&self, thread: u32) -> Result<Worker<'_>, Error> {
        if thread >= self.options.threads {
            return Err(Error::Plan {
                what: format!(
                    "{}: thread {thread} of a bench opened for {}",
                    self.row, self.options.threads
                ),
            });
        }
        let (base, cells) = self.cells_of(thread);
        let mut args: Args = [0; word::COUNT];
        args[word::THREAD] = thread.into();
        args[word::BASE] = base.into();
        args[word::MASK] = u64::from(cells - 1);
        args[word::USE_KEYS] = self.uses_keys().into();
        if self.options.sample_every > 0 {
            args[word::SAMPLE_EVERY] = self.options.sample_every.next_power_of_two().into();
        }
        Ok(Worker { bench: self, thread, args, failures: vec![0; OPS.len() * ERRNOS] })
    }

    /// Returns the latency of the timed attempts so far, by operation; `callback` is the time from
    /// a successful
    /// schedule to its callback.
    ///
    /// # Errors
    /// [`Error::Run`] if the map cannot be read.
    pub fn latency(&self) -> Result<BTreeMap<&'static str, Histogram>, Error> {
        let map = self.map("latency")?;
        let mut all = BTreeMap::new();
        for (number, op) in OPS.iter().enumerate() {
            let per_cpu = map
                .lookup_percpu(&(number as u32).to_ne_bytes(), MapFlags::ANY)
                .map_err(self.run_error("reading the latencies"))?;
            let mut merged = Histogram::default();
            for value in per_cpu.unwrap_or_default() {
                if let Some(histogram) = Histogram::from_words(&to_words(&value)[..BUCKETS + 2]) {
                    merged.merge(&histogram);
                }
            }
            if merged.samples() > 0 {
                all.insert(*op, merged);
            }
        }
        Ok(all)
    }

    /// Returns the number of callbacks that ran so far.
    ///
    /// # Errors
    /// [`Error::Run`] if the map cannot be read.
    pub fn callbacks(&self) -> Result<u64, Error> {
        let per_cpu = self
            .map("callbacks")?
            .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(self.run_error("reading the callbacks"))?;
        Ok(per_cpu.unwrap_or_default().iter().flat_map(|value| to_words(value)).sum())
    }

    /// Returns the sum of what the critical sections counted; wraps at 2^32.
    fn increments(&self) -> Result<u32, Error> {
        let map = self.map("cells")?;
        let mut sum = 0_u32;
        for cell in 0..self.cells {
            let value = map
                .lookup(&cell.to_ne_bytes(), MapFlags::ANY)
                .map_err(self.run_error("reading a cell"))?
                .unwrap_or_default();
            let inside = value.get(4..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
            sum = sum.wrapping_add(u32::from_ne_bytes(inside));
        }
        Ok(sum)
    }

    /// Checks what must hold at rest, given everything that all workers counted since the bench was
    /// opened. Waits a bounded time for callbacks on their way.
    ///
    /// # Errors
    /// [`Error::Run`] if a map cannot be read.
    pub fn check(&self, total: &Counts) -> Result<Invariants, Error> {
        let mut found = Invariants::default();
        let mut holds = |condition: bool, violation: String| {
            found.checked += 1;
            if !condition {
                found.violations.push(violation);
            }
        };
        match self.row.operation.source {
            Source::SpinLock | Source::ResLock => {
                let (inside, ok) = (self.increments()?, total.of("lock", OK));
                holds(
                    inside == ok as u32,
                    format!("mutual exclusion: {ok} critical sections left a count of {inside}"),
                );
            }
            Source::IrqWork => {
                let (drained, busy) = (total.of("drain", OK), total.of("drain", "EBUSY"));
                holds(
                    busy == 0 || self.options.threads > 1,
                    format!("a ring that one thread drained was busy {busy} times of {drained}"),
                );
            }
            Source::Timer | Source::Wq | Source::TaskWork => {
                let (init, freed) = (total.of("init", OK), total.of("update", OK));
                let cells = u64::from(self.cells);
                holds(
                    init <= freed + cells,
                    format!("{init} inits succeeded on {cells} cells with only {freed} frees"),
                );
                let started = total.of("start", OK) + total.of("schedule", OK);
                let expected = match self.row.operation.callbacks {
                    Callbacks::None => 0..=0,
                    Callbacks::EachSchedule => started..=started,
                    Callbacks::AtMostEach => 0..=started,
                };
                let end = Instant::now() + SETTLE;
                let mut ran = self.callbacks()?;
                while ran < *expected.start() && Instant::now() < end {
                    std::thread::yield_now();
                    ran = self.callbacks()?;
                }
                holds(
                    expected.contains(&ran),
                    format!("{ran} callbacks ran for {started} successful starts"),
                );
            }
        }
        Ok(found)
    }
}

/// A thread's hold on a bench.
#[derive(Debug)]
pub struct Worker<'b> {
    pub(crate) bench: &'b Bench,
    pub(crate) thread: u32,
    pub(crate) args: Args,
    failures: Vec<u64>,
}

impl Worker<'_> {
    pub(crate) fn settle(&mut self, args: &Args) -> Result<Counts, Error> {
        let (counts, failures) = self.bench.counts(args, &self.failures, self.thread)?;
        self.failures = failures;
        Ok(counts)
    }

    /// Goes round the row's loop `n` times (at most 8,388,608) in one entry into the kernel, in
    /// task
    /// context. One time round may be several attempts.
    ///
    /// # Errors
    /// [`Error::Run`] if the program cannot be run; [`Error::Plan`] for a row of another context.
    pub fn run_batch(&mut self, n: u32) -> Result<Counts, Error> {
        if self.bench.row.context != Context::Task {
            return Err(Error::Plan {
                what: format!("{}: runs until a deadline, not in batches", self.bench.row),
            });
        }
        let mut args = self.args;
        args[word::ATTEMPTS_MAX] = n.into();
        let program = self.bench.program(self.bench.row.operation.program)?;
        self.bench.enter(&program, &mut args)?;
        self.settle(&args)
    }

    /// Attempts until [`monotonic_ns`] shows `deadline_ns`, in the row's context. Ends
    /// at most 128 attempts, or one entry of a row with small batches, later.
    ///
    /// # Errors
    /// [`Error::Run`] if the program cannot be run, [`Error::Unsupported`] if the perf event is
    /// gone.
    pub fn run_until(&mut self, deadline_ns: u64) -> Result<Counts, Error> {
        let mut args = self.args;
        if self.bench.row.context == Context::Task {
            args[word::ATTEMPTS_MAX] = self.bench.row.operation.batch.into();
            let program = self.bench.program(self.bench.row.operation.program)?;
            while args[word::ENDED_NS] < deadline_ns {
                let failed = args[word::FAILED];
                args[word::DEADLINE_NS] = entry_deadline_ns(monotonic_ns(), deadline_ns);
                self.bench.enter(&program, &mut args)?;
                if self.bench.row.operation.frees && args[word::FAILED] > failed {
                    std::thread::sleep(MEMORY_PAUSE);
                }
            }
        } else {
            interrupt::run_until(self, &mut args, deadline_ns)?;
        }
        self.settle(&args)
    }
}

/// Returns when an entry that begins at `now_ns` ends, in a window that ends at `deadline_ns`.
fn entry_deadline_ns(now_ns: u64, deadline_ns: u64) -> u64 {
    deadline_ns.min(now_ns.saturating_add(ENTRY_NS))
}

/// Returns the kernel's monotonic clock (CLOCK_MONOTONIC), which the programs read too.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_keeps_the_kernel_from_other_tasks_for_longer_than_its_share() {
        assert_eq!(entry_deadline_ns(1_000, 20_000_000), 1_000 + ENTRY_NS);
        assert_eq!(entry_deadline_ns(19_999_000, 20_000_000), 20_000_000, "the window's end");
        assert_eq!(entry_deadline_ns(u64::MAX - 1, u64::MAX), u64::MAX);
        // A disturbance counts from 2 % of a window on; an entry is half of that of the usual window.
        assert!(u128::from(ENTRY_NS) * 100 <= Duration::from_millis(20).as_nanos());
    }
}
