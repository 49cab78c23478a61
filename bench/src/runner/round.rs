//! One cell under one workload, once: fresh memory, pinned workers, one window, then the check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cellbench_impls::platform::{Native, NativeEpoch, NativeLive};
use cellbench_impls::{Context, CpuId as MachineCpu};
use cellbench_record::{Counter, Invariants, Round, Series, ThreadCount};
use cellbench_workloads::registry::{peer_trial, trial};
use cellbench_workloads::tally::{OUTCOMES, outcome_id};
use cellbench_workloads::trial::Needs;
use cellbench_workloads::{EngineNeed, Op, Params, Tally, Trial, Worker};
use hdrhistogram::Histogram;

use super::gate::{Gate, OnFailure};
use super::interruptions::{Marked, Source, Striker, Struck};
use super::latency::Latencies;
use super::live::Drive;
use super::loops::{self, Dice, Schedule, Span};
use super::subject::{Reclaim, Subject};
use crate::host::affinity;
use crate::host::cpus::{CpuId, CpuSet};
use crate::host::disturbance::{RoundDisturbance, ThreadDisturbance};
use crate::host::pin::{PinError, pin};
use crate::host::{Clock, RoundProbe, ThreadCounters, ThreadProbe, counters};

/// How long a batch is to take: the harness's work between two batches is some hundred
/// nanoseconds, well under a hundredth of it.
const BATCH: Duration = Duration::from_micros(20);
/// Between the last worker's arrival at the gate and the first step.
pub(crate) const LEAD: Duration = Duration::from_micros(20);
/// Counters are switched on this long before the window: it takes some system calls.
const READY_LEAD: Duration = Duration::from_micros(300);
/// Share of the window by which a worker may have waited for its CPU.
const WAIT_LIMIT_SHARE: f64 = 0.02;
/// Stalls in the window of a workload that suspends a worker.
const STALLS_PER_WINDOW: u32 = 4;
/// A round that takes longer than its window by this much makes no progress any more.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The row it belongs to.
    pub series: Series,
    /// Cell or lock.
    pub subject: Subject,
    /// Workload, by name.
    pub workload: &'static str,
    /// Engine that the workload needs.
    pub engine: EngineNeed,
    /// What else it needs.
    pub needs: Needs,
    /// CPUs, one for each worker.
    pub cpus: Vec<CpuId>,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Time before the window.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
    /// Whether latencies are sampled in the closed loop.
    pub sampled: bool,
    /// Turns of `Memory::spend` in a microsecond.
    pub turns_per_us: u32,
    /// Turns that each interrupt-off section costs extra.
    pub irq_save_turns: u32,
    /// Interruptions of each worker and context a second; 0: as fast as they are handled, sent by
    /// another thread; none: what the workload says.
    pub interrupt_rate_hz: Option<u32>,
}

impl Conditions {
    /// The window of `spec`: one that stalls needs several stalls' time.
    #[must_use]
    pub fn window_of(&self, spec: &Spec) -> Duration {
        if spec.needs.stalls {
            self.window.max(Duration::from_nanos(Params::new(1, 0).stall_ns) * STALLS_PER_WINDOW)
        } else {
            self.window
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// For the record; the number of the round, its position and start are the caller's.
    pub round: Round,
    /// Whole distributions by operation; those of handlers as `operation@context`.
    pub latencies: Vec<(String, Histogram<u64>)>,
}

/// A round could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// A worker could not be placed.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The system has no thread left.
    #[error(
        "cannot start a worker thread: {0}; raise the limit of processes (ulimit -u) or use fewer threads"
    )]
    Spawn(std::io::Error),
    /// Workers could not be interrupted.
    #[error(
        "cannot set a timer that interrupts a worker: {0}; raise the limit of pending signals (ulimit -i) or leave out the workloads that interrupt"
    )]
    Interruptions(std::io::Error),
    /// Counters that were open could not be started or stopped.
    #[error("performance counters: {0}")]
    Counters(std::io::Error),
    /// The subject has no such workload.
    #[error("{cell} ({kind}) does not run under workload {workload}")]
    NoTrial {
        /// Cell or lock.
        cell: String,
        /// Its kind.
        kind: String,
        /// Workload.
        workload: &'static str,
    },
    /// Neither the end of the window nor an error ended the workers.
    #[error("{series}: no progress {} s after its window ended; the workers cannot be stopped", STUCK_AFTER.as_secs())]
    Stuck {
        /// Row.
        series: Box<Series>,
    },
}

/// Called when workers do not come back; must end the process, as threads that spin for ever cannot
/// be ended.
pub type WhenStuck<'a> = &'a (dyn Fn(RoundError) + Sync);

/// What the rounds of a run share.
#[derive(Debug)]
pub struct Bench {
    clock: Clock,
    /// What to count on each CPU that is used.
    counters: BTreeMap<CpuId, counters::Plan>,
}

impl Bench {
    /// For rounds on `cpus`.
    #[must_use]
    pub fn new(clock: Clock, cpus: &CpuSet) -> Self {
        let roots = crate::host::Roots::live();
        let counters = cpus.iter().map(|cpu| (cpu, counters::Plan::full(&roots, cpu))).collect();
        Self { clock, counters }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Measures `spec` once. `seed` decides every random choice of the workload.
    ///
    /// A broken invariant or a panic is not an error but a result: the round says so.
    ///
    /// # Errors
    /// [`RoundError`] if the round did not take place.
    pub fn measure(
        &self,
        spec: &Spec,
        conditions: &Conditions,
        seed: u64,
        when_stuck: WhenStuck<'_>,
    ) -> Result<Measured, RoundError> {
        let runner = Runner { bench: self, spec, conditions, seed, when_stuck };
        match (spec.engine, spec.subject.reclaim) {
            (EngineNeed::Live, _) => runner.run::<NativeLive>(),
            (EngineNeed::Count, Reclaim::Qsbr) => runner.run::<Native>(),
            (EngineNeed::Count, Reclaim::Epoch) => runner.run::<NativeEpoch>(),
        }
    }
}

/// A round being measured.
struct Runner<'a> {
    bench: &'a Bench,
    spec: &'a Spec,
    conditions: &'a Conditions,
    seed: u64,
    when_stuck: WhenStuck<'a>,
}

/// What a worker brings home.
struct Report {
    index: usize,
    span: Span,
    total: Tally,
    struck: Vec<Struck>,
    disturbance: ThreadDisturbance,
    counters: counters::Readings,
}

/// What all workers bring home.
struct Work {
    reports: Vec<Report>,
    /// What workers panicked with.
    panics: Vec<String>,
}

/// Why a worker came home without.
enum Failure {
    Round(RoundError),
    /// Another one failed first.
    Abandoned,
    Panic(String),
}

impl Runner<'_> {
    fn run<P: Drive>(&self) -> Result<Measured, RoundError> {
        let trial = self.build::<P>()?;
        let probe = RoundProbe::start(self.spec.cpus.iter().copied().collect());
        let Work { reports, panics } =
            P::while_driven(&trial, &self.spec.cpus, || self.work(&trial))??;
        let disturbance = probe.stop();
        let mut measured = self.evaluate::<P>(&reports, disturbance);
        if panics.is_empty() {
            measured.round.invariants = check(&trial, &reports);
        } else {
            measured.round.invariants = Invariants { checked: 1, violations: panics };
            // Whatever state the panic left it in, it is not to be touched again.
            std::mem::forget(trial);
        }
        release_free_memory();
        Ok(measured)
    }

    fn window(&self) -> Duration {
        self.conditions.window_of(self.spec)
    }

    /// Builds the trial on the first worker's CPU, so that what all share is near one of them.
    fn build<P: Drive>(&self) -> Result<Arc<dyn Trial<P>>, RoundError> {
        let Spec { subject, workload, cpus, .. } = self.spec;
        let threads = cpus.len() as u32;
        let params = Params {
            extra_cpus: P::extra_cpus(threads),
            turns_per_us: self.conditions.turns_per_us,
            irq_save_turns: self.conditions.irq_save_turns + subject.extra_turns,
            ..Params::new(threads, self.seed)
        };
        thread::scope(|scope| {
            let builder = thread::Builder::new()
                .spawn_scoped(scope, || {
                    pin(cpus[0])?;
                    let kind = subject.kind.to_string();
                    let built = if subject.is_peer() {
                        peer_trial::<P>(subject.id, workload, &params)
                    } else {
                        trial::<P>(subject.id, &kind, workload, &params)
                    };
                    built.ok_or_else(|| RoundError::NoTrial {
                        cell: subject.name.clone(),
                        kind,
                        workload,
                    })
                })
                .map_err(RoundError::Spawn)?;
            builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs the workers; their reports come in order of their number.
    fn work<P: Drive>(&self, trial: &Arc<dyn Trial<P>>) -> Result<Work, RoundError> {
        let workers = self.spec.cpus.len();
        let gate = Gate::new(workers as u32);
        let (sender, receiver) = mpsc::channel();
        let homecoming: Vec<Result<Report, Failure>> = thread::scope(|scope| {
            let spawned = (0..workers).try_for_each(|index| {
                let (sender, gate) = (sender.clone(), &gate);
                thread::Builder::new()
                    .name(format!("worker {index}"))
                    .spawn_scoped(scope, move || {
                        let work =
                            std::panic::AssertUnwindSafe(|| self.worker(&**trial, gate, index));
                        let report = std::panic::catch_unwind(work)
                            .unwrap_or_else(|panic| Err(Failure::Panic(message(&*panic))));
                        // The receiver waits for all, unless it gave up on a stuck round.
                        let _ = sender.send(report);
                    })
                    .map(|_| ())
                    .map_err(RoundError::Spawn)
            });
            drop(sender);
            if let Err(error) = spawned {
                gate.abandon();
                return vec![Err(Failure::Round(error))];
            }
            let limit = self.conditions.warm_up + self.window() + STUCK_AFTER;
            let mut reports = Vec::with_capacity(workers);
            while reports.len() < workers {
                match receiver.recv_timeout(limit) {
                    Ok(report) => reports.push(report),
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        let series = Box::new(self.spec.series.clone());
                        (self.when_stuck)(RoundError::Stuck { series });
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
            reports
        });
        let mut work = Work { reports: Vec::with_capacity(workers), panics: Vec::new() };
        for report in homecoming {
            match report {
                Ok(report) => work.reports.push(report),
                Err(Failure::Round(error)) => return Err(error),
                Err(Failure::Panic(what)) => work.panics.push(format!("a worker panicked: {what}")),
                // Whoever failed first says why.
                Err(Failure::Abandoned) => {}
            }
        }
        work.reports.sort_by_key(|report| report.index);
        Ok(work)
    }

    /// A worker's whole life.
    fn worker<P: Drive>(
        &self,
        trial: &dyn Trial<P>,
        gate: &Gate,
        index: usize,
    ) -> Result<Report, Failure> {
        let abandon = OnFailure::abandon(gate);
        let cpu = self.spec.cpus[index];
        let allowed = affinity::current().unwrap_or_default();
        pin(cpu).map_err(|error| Failure::Round(error.into()))?;
        let clock = &self.bench.clock;
        let mut counters = ThreadCounters::open(&self.bench.counters[&cpu]);
        let mut worker = Worker::new(index as u32, self.seed);
        let dice = Dice::new(self.seed ^ (index as u64 + 1) << 32);
        let machine_cpu = trial.machine().cpu(MachineCpu(index as u32));
        trial.enter(&machine_cpu, &mut worker);

        let marked = Marked::new(trial);
        let contexts = self.spec.needs.interrupts;
        // A trial that is interrupted goes through one more call; others do not.
        let trial: &dyn Trial<P> = if contexts.is_empty() { trial } else { &marked };
        let sources: Vec<_> = contexts
            .iter()
            .map(|context| {
                let seed = self.seed ^ (*context as u64 + 1) << 48;
                let worker = Worker::new(index as u32, seed);
                Source::new(&marked, &machine_cpu, clock, *context, worker)
            })
            .collect();
        let rate_hz = self.conditions.interrupt_rate_hz;
        let rate_hz = rate_hz.unwrap_or(self.spec.needs.interrupt_rate_hz);

        let opened = gate.pass(clock, clock.ticks(LEAD)).map_err(|_| Failure::Abandoned)?;
        let strikers: Result<Vec<_>, _> =
            sources.iter().map(|source| Striker::start(source, rate_hz, &allowed)).collect();
        let strikers =
            strikers.map_err(|error| Failure::Round(RoundError::Interruptions(error)))?;
        let start = opened + clock.ticks(self.conditions.warm_up);
        let schedule = Schedule {
            ready: start - clock.ticks(READY_LEAD.min(self.conditions.warm_up)),
            start,
            end: start + clock.ticks(self.window()),
            batch: clock.ticks(BATCH),
            sampled: self.conditions.sampled,
        };
        let mut probe = None;
        let mut started = Ok(());
        let ready = || {
            probe = Some(ThreadProbe::start());
            started = counters.start();
            sources.iter().for_each(|source| source.mark());
        };
        let span = match self.spec.series.offered_ops_s {
            None => loops::closed(trial, &machine_cpu, &mut worker, clock, &schedule, dice, ready),
            Some(rate) => {
                let own_rate = rate as f64 / self.spec.cpus.len() as f64;
                let mean = 1e9 / own_rate / clock.ns_per_tick();
                loops::open(trial, &machine_cpu, &mut worker, clock, &schedule, dice, mean, ready)
            }
        };
        drop(strikers);
        let counting = |error| Failure::Round(RoundError::Counters(error));
        started.and_then(|()| counters.stop()).map_err(counting)?;
        let disturbance = probe.map(|probe| probe.stop()).unwrap_or_default();
        let struck: Vec<Struck> = sources.into_iter().map(|source| source.finish()).collect();
        let mut total = worker.tally;
        struck.iter().for_each(|struck| total.add(&struck.after));
        drop(machine_cpu);
        abandon.disarm();
        let counters = counters.read();
        Ok(Report { index, span, total, struck, disturbance, counters })
    }

    /// What the workers' reports say together.
    fn evaluate<P: Drive>(&self, reports: &[Report], host: RoundDisturbance) -> Measured {
        let spec = self.spec;
        let mut round = Round::new(spec.series.clone(), 0, self.window().as_secs_f64());
        let mut latencies = Latencies::default();
        round.cpus = spec.cpus.iter().map(|cpu| cpu.0).collect();
        for report in reports {
            let mut thread = ThreadCount { cpu: spec.cpus[report.index].0, attempts: 0, ok: 0 };
            for (op, outcome, count) in counted(&report.span.before, &report.span.after) {
                thread.attempts += count;
                if outcome == 0 {
                    thread.ok += count;
                }
                round.count(op.id(), outcome_id(outcome), count);
            }
            round.per_thread.push(thread);
            latencies.add(&report.span.latencies);
        }
        let mut latencies: Vec<(String, Histogram<u64>)> =
            latencies.iter().map(|(op, values)| (op.to_owned(), values.clone())).collect();
        if !spec.needs.interrupts.is_empty() {
            interruptions(reports, &mut round, &mut latencies);
        }
        let sum = |of: fn(&ThreadDisturbance) -> Option<u64>| -> Option<u64> {
            reports.iter().map(|report| of(&report.disturbance)).sum()
        };
        round.context_switches_voluntary = sum(|thread| Some(thread.voluntary_switches));
        round.context_switches_involuntary = sum(|thread| Some(thread.involuntary_switches));
        round.migrations = sum(|thread| thread.migrations);
        round.steal_ns = host.steal_ns;
        round.counters = sum_counters(reports);
        let shares_cpus = P::extra_cpus(1) > 0 || spec.needs.workers_per_cpu > 1;
        round.disturbed = disturbed(reports, host, self.window(), shares_cpus);
        let sampled_every = reports.iter().map(|report| report.span.sampled_every).min();
        if self.conditions.sampled {
            round.extra.insert("latency_sample_every".to_owned(), sampled_every.into());
        }
        if spec.series.offered_ops_s.is_some() {
            let unserved: u64 = reports.iter().map(|report| report.span.unserved).sum();
            round.extra.insert("unserved".to_owned(), unserved.into());
        }
        Measured { round, latencies }
    }
}

/// Operation, outcome and how many of them came between two counts.
pub(crate) fn counted<'a>(
    before: &'a Tally,
    after: &'a Tally,
) -> impl Iterator<Item = (Op, usize, u64)> + use<'a> {
    Op::ALL.iter().flat_map(move |op| {
        (0..OUTCOMES)
            .map(move |outcome| (*op, outcome, after.get(*op, outcome) - before.get(*op, outcome)))
            .filter(|(_, _, count)| *count > 0)
    })
}

/// What handlers did, by context: outcomes and latencies. The round's own counts are the
/// interrupted workers'; by operation the handlers' stand in `context_ops`.
fn interruptions(
    reports: &[Report],
    round: &mut Round,
    latencies: &mut Vec<(String, Histogram<u64>)>,
) {
    let mut by_op: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, u64>>> = BTreeMap::new();
    let mut let_go = 0;
    for report in reports {
        let task = (Context::Task, &report.span.before, &report.span.after);
        let handlers = report.struck.iter().map(|one| (one.context, &one.before, &one.after));
        for (context, before, after) in std::iter::once(task).chain(handlers) {
            let of_context = by_op.entry(context.name()).or_default();
            for (op, outcome, count) in counted(before, after) {
                let outcomes = of_context.entry(op.id()).or_default();
                *outcomes.entry(outcome_id(outcome)).or_default() += count;
            }
        }
        for struck in &report.struck {
            let_go += struck.let_go;
            for (op, values) in &struck.latencies {
                let name = format!("{}@{}", op.id(), struck.context.name());
                match latencies.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => sum.add(values).expect("the same bounds"),
                    None => latencies.push((name, values.clone())),
                }
            }
        }
    }
    for (context, ops) in &by_op {
        let mut outcomes = BTreeMap::new();
        for (outcome, count) in ops.values().flatten() {
            *outcomes.entry((*outcome).to_owned()).or_default() += count;
        }
        round.contexts.insert((*context).to_owned(), outcomes);
    }
    round.extra.insert("context_ops".to_owned(), serde_json::json!(by_op));
    round.extra.insert("interruptions_let_go".to_owned(), let_go.into());
}

fn sum_counters(reports: &[Report]) -> BTreeMap<String, Counter> {
    let mut sums: BTreeMap<String, Counter> = BTreeMap::new();
    for (name, reading) in reports.iter().flat_map(|report| &report.counters) {
        let reading = reading.to_record();
        let sum = match (sums.remove(name), reading) {
            (None, reading) => reading,
            (
                Some(Counter::Counted { value, enabled_ns, running_ns }),
                Counter::Counted { value: v, enabled_ns: e, running_ns: r },
            ) => Counter::Counted {
                value: value + v,
                enabled_ns: enabled_ns + e,
                running_ns: running_ns + r,
            },
            // One worker without a count, and the sum is unknown.
            (Some(missing @ Counter::Unavailable { .. }), _) | (_, missing) => missing,
        };
        sums.insert(name.clone(), sum);
    }
    sums
}

/// Why the round must not count.
fn disturbed(
    reports: &[Report],
    host: RoundDisturbance,
    window: Duration,
    shares_cpus: bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(steal_ns) = host.steal_ns.filter(|steal_ns| *steal_ns > 0) {
        reasons.push(format!("the hypervisor took {} ms", steal_ns / 1_000_000));
    }
    let threads = || reports.iter().map(|report| &report.disturbance);
    let migrations: u64 = threads().filter_map(|thread| thread.migrations).sum();
    if migrations > 0 {
        reasons.push(format!("workers moved to other CPUs {migrations} times"));
    }
    // With each other, or with the engine's threads: that is what is measured.
    if shares_cpus {
        return reasons;
    }
    match threads().map(|thread| thread.runqueue_wait_ns).max() {
        Some(Some(wait_ns)) => {
            if wait_ns as f64 > window.as_nanos() as f64 * WAIT_LIMIT_SHARE {
                reasons.push(format!("a worker waited {} us for its CPU", wait_ns / 1000));
            }
        }
        _ => {
            let switches: u64 = threads().map(|thread| thread.involuntary_switches).sum();
            if switches > 0 {
                reasons.push(format!("workers lost their CPU {switches} times"));
            }
        }
    }
    reasons
}

/// Checks what must hold at rest.
fn check<P: Drive>(trial: &Arc<dyn Trial<P>>, reports: &[Report]) -> Invariants {
    let mut total = Tally::default();
    reports.iter().for_each(|report| total.add(&report.total));
    let cpu = trial.machine().cpu(MachineCpu(0));
    let violations =
        trial.check(&cpu, &total).err().map(|violation| violation.0).into_iter().collect();
    Invariants { checked: 1, violations }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Hands free memory back to the system, so that the next trial gets other pages: where a line's
/// home is depends on its physical address.
fn release_free_memory() {
    // SAFETY: no memory of ours is touched; free memory belongs to the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
