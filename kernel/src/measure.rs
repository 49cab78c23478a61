//! A small complete runner: pinned threads, one common window, shuffled interleaved rounds.
//!
//! Every series of a round gets fresh maps, so that page, cache slice and home node vary between
//! rounds, and all series of a round run seconds apart, so that drift of the host moves them alike.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::bench::{Bench, monotonic_ns};
use crate::counts::Counts;
use crate::error::Error;
use crate::noise::{Switches, steal_ns};
use crate::options::Options;
use crate::plan::{Event, Plan, RoundResult};
use crate::rows::{Context, Layout, Row};

/// From the barrier to the common start: longer than waking the slowest thread takes.
const LEAD_NS: u64 = 200_000;
/// Times round the loop for estimates.
const ESTIMATE: u32 = 20_000;
/// Share of an operation's time that sampling may cost.
const SAMPLING_SHARE: f64 = 0.05;
/// In interrupts, entries are short: every eighth attempt is timed.
const SAMPLE_EVERY_IN_INTERRUPTS: u32 = 8;

/// A row in a layout with a number of threads.
#[derive(Clone, Debug)]
struct Planned {
    row: Row,
    layout: Layout,
    threads: u32,
}

/// A measurement under way: an iterator over what happens.
#[derive(Debug)]
pub struct Measurement {
    plan: Plan,
    series: Vec<Planned>,
    /// Series of the round that are still to run, with their positions.
    queue: VecDeque<(u32, usize)>,
    round: u32,
    skipped: VecDeque<(String, String)>,
    /// Rows that turned out not to run here.
    dropped: BTreeSet<String>,
    sample_every: BTreeMap<String, u32>,
    timing_cost_ns: f64,
    rng: SmallRng,
    started: Instant,
}

fn plan_error<T>(what: &str) -> Result<T, Error> {
    Err(Error::Plan { what: what.to_owned() })
}

/// Starts a measurement. Nothing runs until the iterator is asked.
///
/// # Errors
/// [`Error::Plan`] if the plan cannot be carried out; any error of loading the empty row, by which
/// the cost of timing is measured.
pub fn measure(plan: Plan) -> Result<Measurement, Error> {
    let most = plan.threads.iter().copied().max().unwrap_or(0);
    if most == 0 || plan.threads.contains(&0) {
        return plan_error("thread counts start at 1");
    }
    if plan.cpus.len() < most as usize {
        return plan_error(&format!("{most} threads need {most} CPUs, {} given", plan.cpus.len()));
    }
    if plan.rounds == 0 || plan.window.is_zero() {
        return plan_error("at least one round and a window longer than 0 are needed");
    }
    let mut skipped = VecDeque::new();
    let mut series = Vec::new();
    for row in &plan.rows {
        if let Some(reason) = &row.skipped {
            skipped.push_back((row.name(), reason.clone()));
            continue;
        }
        for &threads in plan.threads.iter().filter(|threads| **threads >= row.threads_min()) {
            let solo_twin = |layout: Layout| {
                // A thread alone: own cells are the same cell again, unless the row has no other.
                threads == 1
                    && row.layouts().contains(&Layout::Same)
                    && matches!(layout, Layout::OwnPadded | Layout::OwnPacked)
                    && row.kind() != cellbench_record::Kind::TaskWork
            };
            series.extend(
                row.layouts()
                    .iter()
                    .filter(|layout| plan.layouts.contains(layout) && !solo_twin(**layout))
                    .map(|layout| Planned { row: row.clone(), layout: *layout, threads }),
            );
        }
    }
    let rng = SmallRng::seed_from_u64(plan.seed);
    let mut measurement = Measurement {
        plan,
        series,
        queue: VecDeque::new(),
        round: 0,
        skipped,
        dropped: BTreeSet::new(),
        sample_every: BTreeMap::new(),
        timing_cost_ns: 0.0,
        rng,
        started: Instant::now(),
    };
    measurement.timing_cost_ns = measurement.measure_timing_cost()?;
    measurement.fill();
    Ok(measurement)
}

impl Measurement {
    /// Series that will run in each round.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Cost of timing one attempt, included in every latency: mean of a timed attempt that does
    /// nothing. 0 if latency is not sampled.
    #[must_use]
    pub fn timing_cost_ns(&self) -> f64 {
        self.timing_cost_ns
    }

    fn pinned<T: Send>(
        &self,
        cpu: u32,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                pin(cpu)?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn measure_timing_cost(&self) -> Result<f64, Error> {
        let empty = |planned: &&Planned| {
            planned.row.operation.program == "empty_row" && planned.row.context == Context::Task
        };
        // Any empty row will do; without one in the plan, one of the sources in the plan has it.
        let Some(planned) = self.series.iter().find(empty).or_else(|| self.series.first()) else {
            return Ok(0.0);
        };
        if !self.plan.latency {
            return Ok(0.0);
        }
        let row = planned.row.empty_of_same_source();
        self.pinned(self.plan.cpus[0], || {
            let options =
                Options { layout: Layout::Same, threads: 1, sample_every: 1, seed: self.plan.seed };
            let bench = Bench::open(&row, options)?;
            bench.worker(0)?.run_batch(ESTIMATE)?;
            Ok(bench.latency()?.get("empty").and_then(|h| h.mean_ns()).unwrap_or(0.0))
        })
    }

    /// How often to time a row: so that timing takes at most its share of a solo attempt.
    fn sampling(&mut self, planned: &Planned) -> Result<u32, Error> {
        if !self.plan.latency {
            return Ok(0);
        }
        if planned.row.context != Context::Task {
            return Ok(SAMPLE_EVERY_IN_INTERRUPTS);
        }
        if let Some(every) = self.sample_every.get(&planned.row.name()) {
            return Ok(*every);
        }
        let batch = planned.row.operation.batch.min(ESTIMATE);
        let counts = if planned.row.threads_min() > 1 {
            // Alone it would be another row; timed rarely enough for the cheapest.
            None
        } else {
            let options = Options {
                layout: planned.layout,
                threads: 1,
                sample_every: 0,
                seed: self.plan.seed,
            };
            let row = planned.row.clone();
            Some(self.pinned(self.plan.cpus[0], || {
                Bench::open(&row, options)?.worker(0)?.run_batch(batch)
            })?)
        };
        let attempt_ns = counts.and_then(|c| c.ns_per_attempt()).unwrap_or(5.0).max(1.0);
        let every = (self.timing_cost_ns / (SAMPLING_SHARE * attempt_ns)).ceil().max(1.0) as u32;
        let every = every.next_power_of_two().min((planned.row.operation.batch / 4).max(1));
        self.sample_every.insert(planned.row.name(), every);
        Ok(every)
    }

    /// Queues the next round, in an order of its own.
    fn fill(&mut self) {
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        order.shuffle(&mut self.rng);
        self.queue = (0..).zip(order).collect();
    }

    fn stopped(&self) -> bool {
        // Relaxed: a flag on its own, nothing is published with it.
        self.plan.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn run(&mut self, planned: &Planned, position: u32) -> Result<RoundResult, Error> {
        let sample_every = self.sampling(planned)?;
        let seed = self.plan.seed.wrapping_add(u64::from(self.round) << 16 | u64::from(position));
        let options =
            Options { layout: planned.layout, threads: planned.threads, sample_every, seed };
        let cpus = self.plan.cpus[..planned.threads as usize].to_vec();
        let bench = Bench::open(&planned.row, options)?;
        let start_s = self.started.elapsed().as_secs_f64();
        let steal_before = steal_ns(&cpus);
        let window_ns = self.plan.window.as_nanos() as u64;
        let Window { start_ns, threads } = together(&bench, &cpus, window_ns)?;
        let steal_after = steal_ns(&cpus);

        let sum = |of: fn(Switches) -> u64| {
            threads.iter().map(|thread| thread.switches.map(of)).sum::<Option<u64>>()
        };
        let (voluntary, involuntary) = (sum(|s| s.voluntary), sum(|s| s.involuntary));
        let per_thread: Vec<Counts> = threads.into_iter().map(|thread| thread.counts).collect();
        let ended_ns = per_thread.iter().map(|c| c.ended_ns).max().unwrap_or(0);
        let mut result = RoundResult {
            row: planned.row.clone(),
            layout: planned.layout,
            cpus,
            placement: self.plan.placement.clone(),
            round: self.round,
            position,
            start_s,
            duration_ns: ended_ns.saturating_sub(start_ns),
            per_thread,
            latency: bench.latency()?,
            sample_every,
            timing_cost_ns: self.timing_cost_ns,
            invariants: cellbench_record::Invariants::default(),
            involuntary_switches: involuntary,
            voluntary_switches: voluntary,
            steal_ns: steal_after
                .zip(steal_before)
                .map(|(after, before)| after.saturating_sub(before)),
            emulator: self.plan.emulator.clone(),
        };
        result.invariants = bench.check(&result.total())?;
        // Callbacks may have come in while settling.
        result.latency = bench.latency()?;
        Ok(result)
    }
}

/// Numbers of CPUs that the affinity call's fixed set (`cpu_set_t`) can hold.
const CPUS_MAX: u32 = 1024;

/// Pins the calling thread.
pub(crate) fn pin(cpu: u32) -> Result<(), Error> {
    if cpu < CPUS_MAX && core_affinity::set_for_current(core_affinity::CoreId { id: cpu as usize })
    {
        return Ok(());
    }
    Err(Error::Pin { cpu })
}

/// What one thread did in a window.
struct ThreadRun {
    counts: Counts,
    switches: Option<Switches>,
}

/// A window that all threads shared.
struct Window {
    start_ns: u64,
    threads: Vec<ThreadRun>,
}

/// Runs one thread on each of `cpus` for a common window.
fn together(bench: &Bench, cpus: &[u32], window_ns: u64) -> Result<Window, Error> {
    let ready = Barrier::new(cpus.len());
    let go = Barrier::new(cpus.len());
    let start = AtomicU64::new(0);
    let one = |thread: u32, cpu: u32| {
        let worker = pin(cpu).and_then(|()| bench.worker(thread));
        // Every thread passes both barriers, also one that failed: the others wait for it.
        if ready.wait().is_leader() {
            // Relaxed: the barrier `go` orders it before the loads.
            start.store(monotonic_ns() + LEAD_NS, Ordering::Relaxed);
        }
        go.wait();
        let start_ns = start.load(Ordering::Relaxed);
        let mut worker = worker?;
        let before = Switches::of_this_thread();
        while monotonic_ns() < start_ns {
            std::hint::spin_loop();
        }
        let counts = worker.run_until(start_ns + window_ns)?;
        let switches = Switches::of_this_thread().zip(before).map(|(now, then)| now.since(then));
        Ok(ThreadRun { counts, switches })
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

impl Iterator for Measurement {
    type Item = Result<Event, Error>;

    /// Measures the next series. An error belongs to one row, which is then left out; the others go on.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((row, reason)) = self.skipped.pop_front() {
            return Some(Ok(Event::Skipped { row, reason }));
        }
        loop {
            if self.stopped() {
                return None;
            }
            let Some((position, index)) = self.queue.pop_front() else {
                self.round += 1;
                if self.round >= self.plan.rounds || self.dropped.len() == self.plan.rows.len() {
                    return None;
                }
                self.fill();
                continue;
            };
            let planned = self.series.get(index)?.clone();
            if self.dropped.contains(&planned.row.name()) {
                continue;
            }
            return Some(match self.run(&planned, position) {
                Ok(result) => Ok(Event::Round(Box::new(result))),
                Err(Error::Unsupported { row, reason }) => {
                    self.dropped.insert(row.clone());
                    Ok(Event::Skipped { row, reason })
                }
                // Memory may be back in the next round.
                Err(error @ Error::Prepare { .. }) => {
                    let series = format!("{} in this round", planned.row);
                    Ok(Event::Skipped { row: series, reason: error.to_string() })
                }
                Err(error) => {
                    self.dropped.insert(planned.row.name());
                    Err(error)
                }
            });
        }
    }
}
