//! One cell under one workload on a simulated machine, once: a fresh trial, a virtual core for each
//! worker, one window of simulated time, then the check.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use cellbench_impls::CpuId;
use cellbench_impls::machine::Charges;
use cellbench_impls::platform::Sim;
use cellbench_record::{
    Coherence, FalseSharing, FieldPlace, FieldTraffic, Invariants, LineTraffic, Round, ThreadCount,
};
use cellbench_sim::report::{Counters, Field, LineReport};
use cellbench_sim::{
    End, MachineModel, Report, Simulation, advance, advance_after_stall, now_ns, set_operation,
};
use cellbench_trials_sim as trials;
use cellbench_workloads::tally::outcome_id;
use cellbench_workloads::{Params, Subject, Tally, Trial, Worker};

use super::meter::Meter;
use cellbench_measure::alloc::within;
use cellbench_measure::backend::cores::round::{counted, message};
use cellbench_measure::backend::latency::{Attribution, Latencies};
use cellbench_measure::session::plan::Spec;

/// Accesses of the window are attributed to this operation, others to none.
const WINDOW: &str = "window";
/// Workers begin at this time: until then their CPUs came online, and the misses of that are over.
const START_NS: f64 = 20_000.0;
/// Steps of each worker by which the time of a step is found.
const PILOT_STEPS: u32 = 6;
/// Steps of all workers together in a window.
const WINDOW_STEPS: f64 = 4_000.0;
/// Steps of each worker in a window: at least and at most.
const WORKER_STEPS: (f64, f64) = (16.0, 1_000.0);
/// The longest window. Where some steps end by a timeout of a quarter of a second and the others
/// take
/// nanoseconds, their mean says little about how many there will be.
const LONGEST_WINDOW_NS: f64 = 5e6;
/// Time before the window, as a share of it: queues are as long as they get.
const WARM_UP_SHARE: f64 = 0.5;
/// A worker on a real core passes a quiescent state after some hundred steps; a short window is to
/// see some, and not more of them than of what is measured.
const STEPS_PER_QUIESCENT_STATE: u32 = 16;
/// Simulated time after which nothing is expected to come any more.
const TIME_LIMIT_NS: f64 = 5e9;
/// Objects of each size that a CPU keeps ready where a workload allocates: as after running long.
const RESERVE: usize = 64;
/// Lines of a report that a round keeps, those waited for longest first.
const LINES_KEPT: usize = 8;

/// A configuration could not be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The simulation itself.
    #[error("{series}: {source}")]
    Simulation {
        /// Row that was simulated, by its name.
        series: String,
        /// Error of the simulator.
        source: cellbench_sim::SimError,
    },
    /// The subject has no such workload.
    #[error("{series}: the cell does not run under this workload")]
    NoTrial {
        /// Row that was to be simulated, by its name.
        series: String,
    },
}

/// Simulated machine, with the settings of the simulation.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The machine.
    pub model: &'a MachineModel,
    /// Labels of fields that are given cache lines of their own.
    pub own_lines: &'a [String],
    /// Charges for what user space cannot do, in nanoseconds.
    pub charges: Charges,
    /// Counts the simulations.
    pub meter: &'a Meter,
}

impl<'a> Machine<'a> {
    /// Returns the machine, with every field where it is, and nothing charged.
    #[must_use]
    pub fn of(model: &'a MachineModel, meter: &'a Meter) -> Self {
        Self { model, own_lines: &[], charges: Charges::default(), meter }
    }
}

/// Needs of a configuration that only a simulation of it tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Length of a window, in simulated nanoseconds.
    window_ns: f64,
    /// Steps take memory.
    allocates: bool,
}

/// Results of one simulated trial.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// For the record; its number and position are the caller's.
    pub round: Round,
    /// Whole distributions by operation.
    pub(crate) latencies: Latencies,
    /// Which of [`Machine::own_lines`] it has no field of.
    pub(crate) without: Vec<String>,
}

/// Finds by a few steps how long a configuration is to be simulated.
///
/// # Errors
/// [`SimulateError`].
pub fn effort(spec: &Spec, machine: &Machine<'_>, seed: u64) -> Result<Effort, SimulateError> {
    within(|| {
        let stage = Stage::new(spec, machine, seed, true)?;
        let before = stage.trial.machine().heap().stats().allocated;
        let work = Work::new(spec.cpus.len());
        let ended = stage.run(&work, Loop::Steps(PILOT_STEPS))?;
        let after = stage.trial.machine().heap().stats().allocated;
        let step_ns = match &ended {
            Ok(_) => work.borrow().longest_ns / f64::from(PILOT_STEPS),
            // What broke will break in the window too, and be reported there.
            Err(_) => 1_000.0,
        };
        let steps = (WINDOW_STEPS / spec.cpus.len() as f64).clamp(WORKER_STEPS.0, WORKER_STEPS.1);
        stage.leave(ended.is_err());
        let window_ns = (step_ns * steps).min(LONGEST_WINDOW_NS).ceil();
        Ok(Effort { window_ns, allocates: after > before })
    })
}

/// Simulates `spec` once. `seed` decides the workload's choices and the machine's variation.
///
/// A broken invariant, a panic or a deadlock is not an error but a result: the round says so.
///
/// # Errors
/// [`SimulateError`] if the round did not take place.
pub fn simulate(
    spec: &Spec,
    machine: &Machine<'_>,
    effort: Effort,
    seed: u64,
) -> Result<Simulated, SimulateError> {
    within(|| {
        let stage = Stage::new(spec, machine, seed, effort.allocates)?;
        let work = Work::new(spec.cpus.len());
        let start_ns = START_NS + (effort.window_ns * WARM_UP_SHARE).ceil();
        let end_ns = start_ns + effort.window_ns;
        let ended = stage.run(&work, Loop::Window { start_ns, end_ns })?;
        let work = work.borrow();
        let mut round = Round::new(spec.series.clone(), 0, effort.window_ns / 1e9);
        round.cpus = spec.cpus.iter().map(|cpu| cpu.0).collect();
        let mut without = Vec::new();
        let broken = match ended {
            Ok(report) => {
                let window_ns = effort.window_ns * spec.cpus.len() as f64;
                note_coherence(&mut round, &report, window_ns / work.attributed_ns);
                let has = |label: &String| report.rows.iter().any(|row| row.label == *label);
                without.extend(machine.own_lines.iter().filter(|label| !has(label)).cloned());
                None
            }
            Err(violation) => Some(violation),
        };
        for (cpu, tallies) in spec.cpus.iter().zip(&work.counted) {
            let mut thread = ThreadCount { cpu: cpu.0, attempts: 0, ok: 0 };
            for (op, outcome, count) in counted(&tallies.before, &tallies.after) {
                round.count(op.id(), outcome_id(outcome), count);
                thread.attempts += count;
                thread.ok += if outcome == 0 { count } else { 0 };
            }
            round.per_thread.push(thread);
        }
        round.latency_sample_every = Some(1);
        round.invariants = match broken {
            Some(violation) => Invariants { checked: 1, violations: vec![violation] },
            None => stage.check(&work.total),
        };
        let broken = !round.invariants.violations.is_empty();
        stage.leave(broken);
        Ok(Simulated { round, latencies: work.latencies.clone(), without })
    })
}

/// Extent of a worker's loop.
#[derive(Clone, Copy)]
enum Loop {
    /// So many steps.
    Steps(u32),
    /// Steps until the end; those that end within the window count.
    Window { start_ns: f64, end_ns: f64 },
}

/// A worker's counts at the first and the last step that ended within the window.
#[derive(Clone, Default)]
struct Counted {
    before: Tally,
    after: Tally,
}

/// Results of the workers, which are fibers of one OS thread.
struct Work {
    /// By worker.
    counted: Vec<Counted>,
    /// Everything anybody did.
    total: Tally,
    latencies: Latencies,
    /// Longest time that a worker took for its steps.
    longest_ns: f64,
    /// Time whose accesses are attributed to the window, all workers together: whole steps, of
    /// which
    /// the first begins in the window and the last ends behind it.
    attributed_ns: f64,
}

impl Work {
    fn new(workers: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            counted: vec![Counted::default(); workers],
            total: Tally::default(),
            latencies: Latencies::for_ops_of(&Tally::default()),
            longest_ns: 0.0,
            attributed_ns: 0.0,
        }))
    }
}

/// A trial and the machine it is to run on.
struct Stage<'a> {
    spec: &'a Spec,
    machine: &'a Machine<'a>,
    seed: u64,
    trial: Arc<dyn Trial<Sim>>,
    workers: RefCell<Vec<Worker>>,
}

impl<'a> Stage<'a> {
    /// Builds the trial and lets all workers enter it, before simulated time begins.
    fn new(
        spec: &'a Spec,
        machine: &'a Machine<'a>,
        seed: u64,
        reserve: bool,
    ) -> Result<Self, SimulateError> {
        let threads = spec.cpus.len() as u32;
        let under = spec.subject.under();
        let places = machine.model.places();
        let numa_nodes = spec.cpus.iter().map(|cpu| places[cpu.0 as usize].socket as u16).collect();
        // Charges are in turns, of which each takes a nanosecond on a simulated core.
        let params = Params { numa_nodes, charges: machine.charges, ..Params::new(threads, seed) };
        let trial = trials::trial(spec.subject.id, under, spec.workload, &params)
            .ok_or_else(|| SimulateError::NoTrial { series: spec.series.to_string() })?;
        let enter = |index| {
            let mut worker = Worker::new(index, seed);
            let cpu = trial.machine().cpu(CpuId(index));
            if let (true, Subject::Cell(kind)) = (reserve, under) {
                trials::reserve(spec.subject.id, kind, &cpu, RESERVE);
            }
            trial.enter(&cpu, &mut worker);
            worker
        };
        let workers = RefCell::new((0..threads).map(enter).collect());
        Ok(Self { spec, machine, seed, trial, workers })
    }

    /// Runs the simulation; `Err` inside says what broke.
    fn run(
        &self,
        work: &Rc<RefCell<Work>>,
        what: Loop,
    ) -> Result<Result<Report, String>, SimulateError> {
        let failed =
            |source| SimulateError::Simulation { series: self.spec.series.to_string(), source };
        let mut simulation = Simulation::new(self.machine.model, self.seed);
        simulation.time_limit_ns(TIME_LIMIT_NS);
        for label in self.machine.own_lines {
            simulation.own_line(label);
        }
        let between_ns = self.machine.model.core.operation_ns;
        for (cpu, worker) in self.spec.cpus.iter().zip(self.workers.take()) {
            let (trial, work) = (Arc::clone(&self.trial), Rc::clone(work));
            let code = move || run_worker(&*trial, worker, &work, what, between_ns);
            simulation.spawn(cpu.0 as usize, code).map_err(failed)?;
        }
        let run = || self.machine.meter.measure(|| simulation.run());
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(report)) => Ok(match report.end {
                End::Completed => Ok(report),
                End::Deadlock => Err(format!("deadlock: {}", waiting(&report))),
                End::TimeLimit => {
                    Err(format!("no end after {} s: {}", TIME_LIMIT_NS / 1e9, waiting(&report)))
                }
            }),
            Ok(Err(error)) => Err(failed(error)),
            Err(panic) => Ok(Err(format!("a worker panicked: {}", message(&*panic)))),
        }
    }

    /// Returns the workload's own check, after simulated time.
    fn check(&self, total: &Tally) -> Invariants {
        let cpu = self.trial.machine().cpu(CpuId(0));
        let violations = self.trial.check(&cpu, total).err().map(|violation| violation.to_string());
        Invariants { checked: 1, violations: violations.into_iter().collect() }
    }

    /// Ends the trial; whatever state something broken left it in is not touched again.
    fn leave(self, broken: bool) {
        if broken {
            std::mem::forget(self.trial);
        }
    }
}

/// Runs the code of a virtual core.
fn run_worker(
    trial: &dyn Trial<Sim>,
    mut worker: Worker,
    work: &RefCell<Work>,
    what: Loop,
    between_ns: f64,
) {
    let index = worker.index as usize;
    let cpu = trial.machine().cpu(CpuId(worker.index));
    let wait_ns = START_NS - now_ns();
    if wait_ns > 0.0 {
        advance(wait_ns);
    }
    let began_ns = now_ns();
    let mut until_quiescent = STEPS_PER_QUIESCENT_STATE;
    let mut step = |worker: &mut Worker| {
        trial.batch(&cpu, worker, 1);
        advance_after_stall(between_ns);
        until_quiescent -= 1;
        if until_quiescent == 0 {
            cpu.quiescent();
            until_quiescent = STEPS_PER_QUIESCENT_STATE;
        }
    };
    let mut counted = Counted { before: worker.tally.clone(), after: worker.tally.clone() };
    match what {
        Loop::Steps(steps) => (0..steps).for_each(|_| step(&mut worker)),
        Loop::Window { start_ns, end_ns } => {
            let mut attribution = Attribution::Changed(Box::default());
            let mut now = began_ns;
            let mut attributed_from_ns = f64::INFINITY;
            while now < end_ns {
                if now >= start_ns {
                    set_operation(WINDOW);
                    attributed_from_ns = attributed_from_ns.min(now);
                }
                attribution.before(&worker.tally);
                step(&mut worker);
                let after = now_ns();
                if after < end_ns {
                    counted.after.clone_from(&worker.tally);
                }
                if after < start_ns {
                    counted.before.clone_from(&worker.tally);
                } else if after < end_ns {
                    let op = attribution.after(&worker.tally);
                    work.borrow_mut().latencies.record(op, (after - now).round() as u64);
                }
                now = after;
            }
            set_operation("");
            work.borrow_mut().attributed_ns += (now - attributed_from_ns).max(0.0);
        }
    }
    let took_ns = now_ns() - began_ns;
    drop(cpu);
    let mut work = work.borrow_mut();
    work.longest_ns = work.longest_ns.max(took_ns);
    work.total.add(&worker.tally);
    work.counted[index] = counted;
}

/// Returns what the cores that did not finish wait for.
fn waiting(report: &Report) -> String {
    let mut labels: Vec<&str> = report
        .cores
        .iter()
        .filter(|core| core.finished_ns.is_none())
        .map(|core| core.waiting_for.as_deref().unwrap_or("nothing"))
        .collect();
    let cores = labels.len();
    labels.sort_unstable();
    labels.dedup();
    format!("{cores} cores have not finished; they wait for {}", labels.join(", "))
}

/// Notes what moved in the window, by field, and which lines were waited for. `share` is the
/// window's
/// of the time that is attributed to it.
fn note_coherence(round: &mut Round, report: &Report, share: f64) {
    let mut coherence = Coherence::default();
    for row in report.rows.iter().filter(|row| row.operation == WINDOW) {
        let found = &row.counters;
        let moved = found.transfers();
        if moved > 0 {
            round.line_transfers.insert(row.label.clone(), moved);
        }
        let waited_ns = ((found.wait_ns + found.spin_ns) * share).round() as u64;
        if waited_ns > 0 {
            round.line_waits_ns.insert(row.label.clone(), waited_ns);
        }
        if found.wait_ns > 0.0 || found.spin_ns > 0.0 {
            coherence.fields.insert(row.label.clone(), field_traffic(found));
        }
    }
    coherence.lines = report.lines.iter().take(LINES_KEPT).map(line_traffic).collect();
    coherence.false_sharing = report
        .false_sharing
        .iter()
        .map(|pair| FalseSharing {
            first: place(&pair.first),
            second: place(&pair.second),
            lines: pair.lines,
            requests: pair.requests,
        })
        .collect();
    round.coherence = Some(Box::new(coherence));
}

fn field_traffic(found: &Counters) -> FieldTraffic {
    FieldTraffic {
        loads: found.loads,
        stores: found.stores,
        rmws: found.rmws,
        hits: found.hits,
        transfers_same_llc: found.transfers_same_llc,
        transfers_cross_llc: found.transfers_cross_llc,
        transfers_cross_socket: found.transfers_cross_socket,
        rfos: found.rfos,
        hitms: found.hitms,
        invalidations: found.invalidations,
        false_sharing: found.false_sharing,
        wait_ns: found.wait_ns.round(),
        spin_ns: found.spin_ns.round(),
    }
}

fn line_traffic(line: &LineReport) -> LineTraffic {
    LineTraffic {
        fields: line.fields.iter().map(place).collect(),
        lines: line.lines,
        transfers: line.transfers,
        invalidations: line.invalidations,
        false_sharing: line.false_sharing,
        wait_ns: line.wait_ns,
        longest_queue: line.longest_queue,
    }
}

fn place(field: &Field) -> FieldPlace {
    FieldPlace { label: field.label.clone(), offset: field.offset }
}

#[cfg(test)]
mod tests {
    use cellbench_sim::MachineModel;

    use super::*;
    use crate::backend::sim::plan::plan;
    use cellbench_measure::session::plan::{Matrix, Selection};

    fn spec(machine: &MachineModel, cell: &str, workload: &str, threads: u32) -> Spec {
        let selection = Selection {
            cells: vec![cell.to_owned()],
            workloads: vec![workload.to_owned()],
            threads: vec![threads],
            ..Selection::of(Matrix::Full)
        };
        plan(&selection, machine).expect("known names").specs().next().expect("one").clone()
    }

    fn simulated(cell: &str, workload: &str, threads: u32, seed: u64) -> Simulated {
        let machine = MachineModel::preset("desktop").expect("built in");
        let spec = spec(&machine, cell, workload, threads);
        simulated_on(&Machine::of(&machine, &Meter::default()), &spec, seed)
    }

    fn simulated_on(machine: &Machine<'_>, spec: &Spec, seed: u64) -> Simulated {
        let effort = effort(spec, machine, 1).expect("it runs");
        simulate(spec, machine, effort, seed).expect("it runs")
    }

    #[test]
    fn a_field_given_its_own_line_moves_alone() {
        let model = MachineModel::preset("desktop").expect("built in");
        let spec = spec(&model, "spin-queued", "own-cell-packed", 4);
        let own_lines = ["lock.value".to_owned()];
        let meter = Meter::default();
        let machine = Machine::of(&model, &meter);
        let together = simulated_on(&machine, &spec, 1).round;
        let apart = simulated_on(&Machine { own_lines: &own_lines, ..machine }, &spec, 1).round;
        let moved = |round: &Round| round.line_transfers.get("lock.value").copied().unwrap_or(0);
        assert!(moved(&together) > 0 && moved(&apart) == 0, "{:?}", apart.line_transfers);
    }

    #[test]
    fn what_is_charged_arrives_in_the_time_of_an_operation() {
        let model = MachineModel::preset("desktop").expect("built in");
        let meter = Meter::default();
        let machine = Machine::of(&model, &meter);
        let attempt_ns = |workload: &str, charges| {
            let spec = spec(&model, "spin-queued", workload, 1);
            let round = simulated_on(&Machine { charges, ..machine }, &spec, 1).round;
            1e9 * round.duration_s / round.attempts() as f64
        };
        let none = Charges::default();
        let masking = Charges { irq_save: 100, ..none };
        let arming = Charges { arm_timer: 1_000, ..none };
        let more_ns =
            |workload, charges| attempt_ns(workload, charges) - attempt_ns(workload, none);
        let close = |found: f64, expected: f64| (found - expected).abs() <= 0.05 * expected;
        assert!(close(more_ns("solo-set", masking), 100.0), "{}", more_ns("solo-set", masking));
        assert!(close(more_ns("solo-start", arming), 1_000.0), "{}", more_ns("solo-start", arming));
        assert!(more_ns("solo-set", arming).abs() < 1.0, "an update arms nothing");
    }

    /// A step that ends in a deadlock takes a millisecond, and a thousand are wanted.
    #[test]
    fn a_window_has_an_end_however_long_its_steps_are() {
        let model = MachineModel::preset("desktop").expect("built in");
        let spec = spec(&model, "rqspin", "lock-abba", 2);
        let effort = effort(&spec, &Machine::of(&model, &Meter::default()), 1).expect("it runs");
        assert_eq!(effort.window_ns, LONGEST_WINDOW_NS);
    }

    #[test]
    fn counts_and_latencies_are_those_of_the_window() {
        let Simulated { round, latencies, .. } = simulated("spin-queued", "same-cell", 4, 1);
        assert_eq!(round.invariants, Invariants { checked: 1, violations: Vec::new() });
        assert_eq!(round.per_thread.len(), 4);
        let by_thread: u64 = round.per_thread.iter().map(|thread| thread.attempts).sum();
        assert_eq!(by_thread, round.attempts());
        let timed: u64 = latencies.iter().map(|(_, values)| values.len()).sum();
        assert_eq!(timed, round.attempts());
        assert!(round.attempts() > 1_000, "{}", round.attempts());
    }

    /// Steps that reach beyond the window are long here: their waits are of the window in part
    /// only.
    #[test]
    fn nobody_waits_longer_than_the_window() {
        let model = MachineModel::preset("epyc-genoa-2s").expect("built in");
        let spec = spec(&model, "cmpxchg-state", "churn", 192);
        let round = simulated_on(&Machine::of(&model, &Meter::default()), &spec, 1).round;
        let waited_ns: u64 = round.line_waits_ns.values().sum();
        let share = waited_ns as f64 / (round.duration_s * 1e9 * 192.0);
        assert!(share > 0.9 && share <= 1.0, "{share}");
    }

    #[test]
    fn lines_move_where_cores_share_them_and_rest_where_they_do_not() {
        let moved = |workload, threads| -> u64 {
            let round = simulated("spin-queued", workload, threads, 1).round;
            round.line_transfers.values().sum::<u64>() * 100 / round.attempts()
        };
        assert!(moved("same-cell", 4) > 100, "more than one transfer for each update");
        assert_eq!(moved("own-cell-padded", 4), 0);
    }

    #[test]
    fn a_seed_is_a_run_and_another_seed_another() {
        let round = |seed| simulated("cmpxchg-state", "start-mostly-99", 4, seed).round;
        assert_eq!(round(3), round(3));
        assert_ne!(round(3), round(4));
    }
}
