//! Measuring a configuration once: pinned threads, one common window, then the check.
//!
//! Every call gets fresh maps, so that page, cache slice and home node vary between rounds. Order and
//! number of rounds are the caller's matter.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellbench_host::disturbance::ThreadDisturbance;
use cellbench_host::{CpuId, RoundProbe, ThreadProbe, pin};
use cellbench_record::Invariants;

use crate::bench::{Bench, monotonic_ns};
use crate::counts::Counts;
use crate::error::Error;
use crate::options::Options;
use crate::plan::{Configuration, RoundResult};
use crate::rows::{Context, Layout};

/// From the barrier to the common start: longer than waking the slowest thread takes.
const LEAD_NS: u64 = 200_000;
/// Times round the loop for estimates.
const ESTIMATE: u32 = 20_000;
/// Share of an operation's time that sampling may cost.
const SAMPLING_SHARE: f64 = 0.05;
/// In interrupts, entries are short: every eighth attempt is timed.
const SAMPLE_EVERY_IN_INTERRUPTS: u32 = 8;

/// Benches that are kept until they are freed together. The kernel frees their programs and maps behind the
/// caller's back, after grace periods and by workers that need the CPUs: of rounds that followed a freed
/// bench every fourth lost more of its window than may be. A bench holds some fifteen descriptors; a
/// process has 1,024 by default.
const KEPT_BENCHES: usize = 24;
/// Time in which the kernel frees them: several grace periods of CPUs that idle.
const FREEING_PAUSE: Duration = Duration::from_millis(100);

/// Measures configurations, one after the other.
#[derive(Debug)]
pub struct Sampler {
    latency: bool,
    seed: u64,
    timing_cost_ns: Option<f64>,
    /// Sampling interval by row.
    sample_every: BTreeMap<String, u32>,
    /// Benches that are done with.
    kept: Vec<Bench>,
}

impl Sampler {
    /// Prepares measurements. `latency`: whether to time a sample of the attempts; `seed` is for the
    /// estimates that this takes.
    #[must_use]
    pub fn new(latency: bool, seed: u64) -> Self {
        Self {
            latency,
            seed,
            timing_cost_ns: None,
            sample_every: BTreeMap::new(),
            kept: Vec::new(),
        }
    }

    /// Measures `configuration` in a window of this length. `seed` decides the keys.
    ///
    /// # Errors
    /// [`Error::Plan`] for a window of no length, [`Error::Pin`] for a CPU that cannot be used, and
    /// the errors of [`Bench::open`] and [`Worker::run_until`](crate::Worker::run_until).
    pub fn measure(
        &mut self,
        configuration: &Configuration,
        window: Duration,
        seed: u64,
    ) -> Result<RoundResult, Error> {
        if window.is_zero() {
            return Err(Error::Plan { what: "a window longer than 0 is needed".to_owned() });
        }
        let timing_cost_ns = self.timing_cost_ns(configuration)?;
        let sample_every = self.sample_every(configuration, timing_cost_ns)?;
        let Configuration { row, layout, cpus } = configuration;
        let threads = cpus.len() as u32;
        let bench = Bench::open(row, Options { layout: *layout, threads, sample_every, seed })?;
        let probe = RoundProbe::start(cpus.iter().copied().map(CpuId).collect());
        let Window { start_ns, threads } = together(&bench, cpus, window.as_nanos() as u64)?;
        let host = probe.stop();
        let (per_thread, threads): (Vec<Counts>, Vec<ThreadDisturbance>) =
            threads.into_iter().unzip();
        let ended_ns = per_thread.iter().map(|c| c.ended_ns).max().unwrap_or(0);
        let mut result = RoundResult {
            configuration: configuration.clone(),
            duration_ns: ended_ns.saturating_sub(start_ns),
            per_thread,
            latency: BTreeMap::new(),
            sample_every,
            timing_cost_ns,
            invariants: Invariants::default(),
            threads,
            host,
        };
        result.invariants = bench.check(&result.total())?;
        // After the check, which waits for callbacks that are still on their way.
        result.latency = bench.latency()?;
        self.keep(bench);
        Ok(result)
    }

    /// Keeps a bench that is done with; frees those kept once they are many, and waits for it.
    fn keep(&mut self, bench: Bench) {
        self.kept.push(bench);
        if self.kept.len() >= KEPT_BENCHES {
            self.kept.clear();
            std::thread::sleep(FREEING_PAUSE);
        }
    }

    /// Returns the cost of timing one attempt, included in every latency: the mean of a timed attempt
    /// that does nothing. 0 if latency is not sampled.
    fn timing_cost_ns(&mut self, configuration: &Configuration) -> Result<f64, Error> {
        if !self.latency {
            return Ok(0.0);
        }
        if let Some(known) = self.timing_cost_ns {
            return Ok(known);
        }
        // Any empty row will do; each source has one.
        let row = configuration.row.empty_of_same_source();
        let options =
            Options { layout: Layout::Same, threads: 1, sample_every: 1, seed: self.seed };
        let cost_ns = pinned(configuration.cpus[0], || {
            let bench = Bench::open(&row, options)?;
            bench.worker(0)?.run_batch(ESTIMATE)?;
            Ok(bench.latency()?.get("empty").and_then(|h| h.mean_ns()).unwrap_or(0.0))
        })?;
        self.timing_cost_ns = Some(cost_ns);
        Ok(cost_ns)
    }

    /// Returns how often to time a row: so that timing takes at most its share of a solo attempt.
    fn sample_every(
        &mut self,
        configuration: &Configuration,
        timing_cost_ns: f64,
    ) -> Result<u32, Error> {
        let Configuration { row, layout, cpus } = configuration;
        if !self.latency {
            return Ok(0);
        }
        if row.context != Context::Task {
            return Ok(SAMPLE_EVERY_IN_INTERRUPTS);
        }
        if let Some(every) = self.sample_every.get(&row.name()) {
            return Ok(*every);
        }
        let batch = row.operation.batch.min(ESTIMATE);
        let counts = if row.threads_min() > 1 {
            // Alone it would be another row; timed rarely enough for the cheapest.
            None
        } else {
            let options = Options { layout: *layout, threads: 1, sample_every: 0, seed: self.seed };
            Some(pinned(cpus[0], || Bench::open(row, options)?.worker(0)?.run_batch(batch))?)
        };
        let attempt_ns = counts.and_then(|c| c.ns_per_attempt()).unwrap_or(5.0).max(1.0);
        let every = (timing_cost_ns / (SAMPLING_SHARE * attempt_ns)).ceil().max(1.0) as u32;
        let every = every.next_power_of_two().min((row.operation.batch / 4).max(1));
        self.sample_every.insert(row.name(), every);
        Ok(every)
    }
}

/// Does `work` on a thread pinned to `cpu`.
fn pinned<T: Send>(cpu: u32, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(CpuId(cpu))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A window that all threads shared.
struct Window {
    start_ns: u64,
    threads: Vec<(Counts, ThreadDisturbance)>,
}

/// Runs one thread on each of `cpus` for a common window.
fn together(bench: &Bench, cpus: &[u32], window_ns: u64) -> Result<Window, Error> {
    let ready = Barrier::new(cpus.len());
    let go = Barrier::new(cpus.len());
    let start = AtomicU64::new(0);
    let one = |thread: u32, cpu: u32| {
        let worker = pin(CpuId(cpu)).map_err(Error::from).and_then(|()| bench.worker(thread));
        // Every thread passes both barriers, also one that failed: the others wait for it.
        if ready.wait().is_leader() {
            // Relaxed: the barrier `go` orders it before the loads.
            start.store(monotonic_ns() + LEAD_NS, Ordering::Relaxed);
        }
        go.wait();
        let start_ns = start.load(Ordering::Relaxed);
        let mut worker = worker?;
        let probe = ThreadProbe::start();
        while monotonic_ns() < start_ns {
            std::hint::spin_loop();
        }
        let counts = worker.run_until(start_ns + window_ns)?;
        Ok((counts, probe.stop()))
    };
    let threads = std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> =
            (0..).zip(cpus).map(|(thread, cpu)| scope.spawn(move || one(thread, *cpu))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, Error>>()
    })?;
    Ok(Window { start_ns: start.into_inner(), threads })
}
