//! The workers of a round, from the first touch of their memory to the check after they left.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cellbench_impls::CpuId as MachineCpu;
use cellbench_impls::machine::Charges;
use cellbench_record::Invariants;
use cellbench_trials_native::Compiled;
use cellbench_workloads::{Params, Tally, Trial, Worker};

use super::{Bench, Conditions, LEAD, RoundError, STUCK_AFTER, message, outcome};
use crate::backend::Measured;
use crate::backend::cores::gate::{Gate, OnFailure};
use crate::backend::cores::live::Drive;
use crate::backend::cores::loops::{self, Schedule, Span};
use crate::backend::cores::signals::{Handler, HandlerCounts, Interruptible, SignalTimer};
use crate::patience::Patience;
use crate::rng::Rng;
use crate::session::plan::Spec;
use cellbench_host::disturbance::ThreadDisturbance;
use cellbench_host::pin::pin;
use cellbench_host::{RoundProbe, ThreadCounters, ThreadProbe, affinity, counters};

/// How long a batch is to take: the harness's work between two batches is some hundred
/// nanoseconds, well under a hundredth of it.
const BATCH: Duration = Duration::from_micros(20);
/// Counters are switched on this long before the window: it takes some system calls.
const READY_LEAD: Duration = Duration::from_micros(300);

/// A round being measured.
pub(super) struct Runner<'a> {
    pub(super) bench: &'a Bench,
    pub(super) spec: &'a Spec,
    pub(super) conditions: &'a Conditions,
    pub(super) seed: u64,
}

/// The result of one worker.
pub(super) struct Report {
    pub(super) index: usize,
    pub(super) span: Span,
    pub(super) total: Tally,
    pub(super) handlers: Vec<HandlerCounts>,
    pub(super) disturbance: ThreadDisturbance,
    pub(super) counters: counters::Readings,
}

/// The results of all workers.
struct Work {
    reports: Vec<Report>,
    /// Messages of the panics of workers.
    panics: Vec<String>,
}

/// The reason why a worker has no result.
enum Failure {
    Round(RoundError),
    /// Another one failed first.
    Abandoned,
    Panic(String),
}

impl Runner<'_> {
    pub(super) fn run<P: Drive + Compiled>(&self) -> Result<Measured, RoundError> {
        self.run_trial(self.build::<P>()?)
    }

    pub(super) fn run_trial<P: Drive>(
        &self,
        trial: Arc<dyn Trial<P>>,
    ) -> Result<Measured, RoundError> {
        let probe = RoundProbe::start(self.spec.cpus.iter().copied().collect());
        let Work { reports, panics } =
            P::while_driven(&trial, &self.spec.cpus, || self.work(&trial))??;
        let disturbance = probe.stop();
        let mut measured = outcome::of(
            self.spec,
            self.window(),
            self.conditions.sampled,
            P::extra_cpus(1) > 0,
            &reports,
            disturbance,
        );
        if panics.is_empty() {
            measured.round.invariants = check(&trial, &reports);
            measured.objects = trial.machine().heap().stats();
        } else {
            measured.round.invariants = Invariants { checked: 1, violations: panics };
            // The panic may have left it in any state: it must not be touched again.
            std::mem::forget(trial);
        }
        release_free_memory();
        Ok(measured)
    }

    fn window(&self) -> Duration {
        self.conditions.window_of(self.spec)
    }

    /// Builds the trial on the first worker's CPU, so that what all share is near one of them.
    fn build<P: Drive + Compiled>(&self) -> Result<Arc<dyn Trial<P>>, RoundError> {
        let Spec { subject, workload, cpus, .. } = self.spec;
        let threads = cpus.len() as u32;
        let params = Params {
            extra_cpus: P::extra_cpus(threads),
            turns_per_us: self.conditions.turns_per_us,
            charges: Charges {
                irq_save: self.conditions.charges.irq_save + subject.extra_turns,
                ..self.conditions.charges
            },
            numa_nodes: self.bench.nodes_of(cpus),
            ..Params::new(threads, self.seed)
        };
        thread::scope(|scope| {
            let builder = thread::Builder::new()
                .spawn_scoped(scope, || {
                    pin(cpus[0])?;
                    P::trial(subject.id, subject.under(), workload, &params).ok_or_else(|| {
                        let kind = subject.kind.to_string();
                        RoundError::NoTrial { cell: subject.name.clone(), kind, workload }
                    })
                })
                .map_err(|source| RoundError::Spawn(source.into()))?;
            builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs the workers; their reports come in order of their number.
    fn work<P: Drive>(&self, trial: &Arc<dyn Trial<P>>) -> Result<Work, RoundError> {
        let workers = self.spec.cpus.len();
        let gate = Gate::new(workers as u32);
        let (sender, receiver) = mpsc::channel();
        let reports: Vec<Result<Report, Failure>> = thread::scope(|scope| {
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
                    .map_err(|source| RoundError::Spawn(source.into()))
            });
            drop(sender);
            if let Err(error) = spawned {
                gate.abandon();
                return vec![Err(Failure::Round(error))];
            }
            let limit = self.conditions.warm_up + self.window() + STUCK_AFTER;
            let mut reports = Vec::with_capacity(workers);
            let mut patience = Patience::new(limit);
            while reports.len() < workers {
                match receiver.recv_timeout(Patience::LOOK) {
                    Ok(report) => {
                        reports.push(report);
                        patience = Patience::new(limit);
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) if patience.lasts() => {}
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        let series = Box::new(self.spec.series.clone());
                        (self.bench.on_stuck)(RoundError::Stuck { series });
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
            reports
        });
        let mut work = Work { reports: Vec::with_capacity(workers), panics: Vec::new() };
        for report in reports {
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

    /// Runs one worker, from the first touch of its memory to its report.
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
        let rng = Rng::new(self.seed ^ (index as u64 + 1) << 32);
        let machine_cpu = trial.machine().cpu(MachineCpu(index as u32));
        trial.enter(&machine_cpu, &mut worker);

        let interruptible = Interruptible::new(trial);
        let contexts = self.spec.needs.interrupts;
        // A trial that is interrupted goes through one more call; others do not.
        let trial: &dyn Trial<P> = if contexts.is_empty() { trial } else { &interruptible };
        let handlers: Vec<_> = contexts
            .iter()
            .map(|context| {
                let seed = self.seed ^ (*context as u64 + 1) << 48;
                let worker = Worker::new(index as u32, seed);
                Handler::new(&interruptible, &machine_cpu, clock, *context, worker)
            })
            .collect();
        let rate_hz = self.conditions.interrupt_rate_hz;
        let rate_hz = rate_hz.unwrap_or(self.spec.needs.interrupt_rate_hz);

        let before_all = ThreadProbe::start();
        let opened = gate.pass(clock, clock.ticks(LEAD)).map_err(|_| Failure::Abandoned)?;
        let timers: Result<Vec<_>, _> =
            handlers.iter().map(|handler| SignalTimer::start(handler, rate_hz, &allowed)).collect();
        let timers = timers.map_err(|error| Failure::Round(RoundError::Interruptions(error)))?;
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
        let ready = |late: bool| {
            // The worker became ready after the window opened, so it had lost its CPU: count the
            // disturbance since before the gate.
            probe = Some(if late { before_all } else { ThreadProbe::start() });
            started = counters.start();
            handlers.iter().for_each(|handler| handler.mark());
        };
        let span = match self.spec.series.offered_ops_s {
            None => loops::closed(trial, &machine_cpu, &mut worker, clock, &schedule, rng, ready),
            Some(rate) => {
                let own_rate = rate as f64 / self.spec.cpus.len() as f64;
                let mean = 1e9 / own_rate / clock.ns_per_tick();
                loops::open(trial, &machine_cpu, &mut worker, clock, &schedule, rng, mean, ready)
            }
        };
        drop(timers);
        let counting = |error| Failure::Round(RoundError::Counters(error));
        started.and_then(|()| counters.stop()).map_err(counting)?;
        let disturbance = probe.map(|probe| probe.stop()).unwrap_or_default();
        let handlers: Vec<HandlerCounts> =
            handlers.into_iter().map(|handler| handler.finish()).collect();
        let mut total = worker.tally;
        handlers.iter().for_each(|counts| total.add(&counts.after));
        drop(machine_cpu);
        abandon.disarm();
        let counters = counters.read();
        Ok(Report { index, span, total, handlers, disturbance, counters })
    }
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

/// Hands free memory back to the system, so that the next trial gets other pages: where a line's
/// home is depends on its physical address.
fn release_free_memory() {
    // SAFETY: no memory of ours is touched; free memory belongs to the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
