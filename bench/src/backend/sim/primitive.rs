//! Primitives on shared lines, written once: pinned threads run them natively, virtual cores in
//! the simulator, as cells and locks are. The validation of the model predicts the one from the
//! other.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Barrier;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

use cellbench_impls::platform::{IntWord, Memory, Word};
use cellbench_sim::{MachineModel, SimError, Simulation, now_ns};
use crossbeam_utils::CachePadded;

use crate::alloc::within;
use cellbench_host::cpus::CpuId;
use cellbench_host::pin::{PinError, pin};
use cellbench_host::threads::together;
use cellbench_host::{Clock, ThreadProbe};

/// Windows that are tried until one is undisturbed.
const TRIES: usize = 8;
/// Steps between two looks at the clock.
const CHUNK: u32 = 512;
/// Simulated time of one prediction: some thousand transfers.
const SIMULATED_NS: f64 = 200_000.0;
/// Local computation of `fetch-add-work`.
const WORK_NS: f64 = 100.0;

/// Takes a number of steps as one of the workers.
pub type Batch = Box<dyn Fn(usize, u32) + Send + Sync>;

/// A primitive operation on shared lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primitive {
    /// Name in the table.
    pub name: &'static str,
    /// What a step is.
    pub about: &'static str,
}

/// All of them.
pub const PRIMITIVES: &[Primitive] = &[
    Primitive { name: "fetch-add", about: "fetch_add on one word" },
    Primitive { name: "cas-loop", about: "load, then compare-exchange until it succeeds" },
    Primitive { name: "false-sharing", about: "fetch_add on neighbouring words of one line" },
    Primitive { name: "fetch-add-work", about: "fetch_add on one word, then local computation" },
    Primitive { name: "two-lines", about: "fetch_add on two words of two lines, in turn" },
    Primitive { name: "ticket-lock", about: "ticket lock of two lines, nothing inside" },
];

/// Two words that share a line with nothing else.
struct Line<M: Memory>(CachePadded<[M::U64; 2]>);

impl<M: Memory> Line<M> {
    fn new() -> Self {
        Self(CachePadded::new(["line.first", "line.second"].map(|label| M::U64::new(label, 0))))
    }

    fn word(&self) -> &M::U64 {
        &self.0[0]
    }
}

fn repeat(step: impl Fn(usize) + Send + Sync + 'static) -> Batch {
    Box::new(move |worker, steps| {
        for _ in 0..steps {
            step(worker);
        }
    })
}

/// Returns the code of a primitive on fresh lines. `turn_ns` is what a turn of [`Memory::spend`]
/// takes.
///
/// # Panics
/// If there is no primitive of that name.
#[must_use]
pub fn build<M: Memory>(name: &str, turn_ns: f64) -> Batch {
    let line = Line::<M>::new();
    match name {
        "fetch-add" => repeat(move |_| {
            black_box(line.word().fetch_add(1, SeqCst));
        }),
        "cas-loop" => repeat(move |_| {
            let mut seen = line.word().load(Relaxed);
            // AcqRel: as an update that publishes something would.
            while let Err(found) = line.word().cas(seen, seen + 1, AcqRel, Relaxed) {
                seen = found;
            }
        }),
        "false-sharing" => repeat(move |worker| {
            black_box(line.0[worker % 2].fetch_add(1, SeqCst));
        }),
        "fetch-add-work" => {
            let turns = (WORK_NS / turn_ns) as u32;
            repeat(move |_| {
                black_box(line.word().fetch_add(1, SeqCst));
                M::spend(turns);
            })
        }
        "two-lines" => {
            let other = Line::<M>::new();
            repeat(move |_| {
                black_box(line.word().fetch_add(1, SeqCst));
                black_box(other.word().fetch_add(1, SeqCst));
            })
        }
        "ticket-lock" => {
            let serving = Line::<M>::new();
            repeat(move |_| {
                let mine = line.word().fetch_add(1, Relaxed);
                // Acquire pairs with the release of the holder before.
                M::wait_until(|| (serving.word().load(Acquire) == mine).then_some(()));
                serving.word().store(mine + 1, Release);
            })
        }
        other => panic!("no primitive `{other}`"),
    }
}

/// What one window showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Nanoseconds for each step, all CPUs together: the reciprocal of their combined rate.
    pub step_ns: f64,
    /// Whether a worker lost its CPU in it.
    pub disturbed: bool,
}

/// Measures the steps of `batch` on all CPUs of `cpus` at once. A window in which a worker lost its
/// CPU is tried again, a few times. Each worker counts what it does in a window of its own, after a
/// quarter of it to warm up.
///
/// # Errors
/// [`PinError`] if a CPU cannot be used.
pub fn measure(
    cpus: &[CpuId],
    clock: &Clock,
    window: Duration,
    batch: &(dyn Fn(usize, u32) + Sync),
) -> Result<Window, PinError> {
    let mut found = measure_once(cpus, clock, window, batch)?;
    for _ in 1..TRIES {
        if !found.disturbed {
            break;
        }
        found = measure_once(cpus, clock, window, batch)?;
    }
    Ok(found)
}

fn measure_once(
    cpus: &[CpuId],
    clock: &Clock,
    window: Duration,
    batch: &(dyn Fn(usize, u32) + Sync),
) -> Result<Window, PinError> {
    let meeting = Barrier::new(cpus.len());
    let window_ns = window.as_nanos() as f64;
    let warm_up_ns = window_ns / 4.0;
    let worker = |index: usize| {
        let pinned = pin(cpus[index]);
        meeting.wait();
        pinned?;
        let probe = ThreadProbe::start();
        let begin = clock.start();
        while clock.elapsed_ns(begin, clock.stop()) < warm_up_ns {
            batch(index, CHUNK);
        }
        let (start, mut steps) = (clock.start(), 0_u64);
        loop {
            batch(index, CHUNK);
            steps += u64::from(CHUNK);
            let elapsed_ns = clock.elapsed_ns(start, clock.stop());
            if elapsed_ns >= window_ns {
                // The others are to be counted with this one at work.
                while clock.elapsed_ns(start, clock.stop()) < window_ns + warm_up_ns {
                    batch(index, CHUNK);
                }
                return Ok((steps as f64 / elapsed_ns, probe.stop().lost_its_cpu(window)));
            }
        }
    };
    let found: Result<Vec<(f64, bool)>, PinError> =
        together(cpus.len(), worker)?.into_iter().collect();
    let found = found?;
    Ok(Window {
        step_ns: 1.0 / found.iter().map(|(rate, _)| rate).sum::<f64>(),
        disturbed: found.iter().any(|(_, disturbed)| *disturbed),
    })
}

/// Returns what [`measure`] is predicted to find: the primitive `name` on `cores` of `machine`.
///
/// # Errors
/// [`SimError`].
pub fn predict(
    machine: &MachineModel,
    cores: &[usize],
    name: &str,
    seed: u64,
) -> Result<f64, SimError> {
    within(|| {
        let batch: Rc<Batch> = Rc::new(build::<cellbench_impls::platform::Sim>(name, 1.0));
        let steps = Rc::new(Cell::new(0_u64));
        let mut simulation = Simulation::new(machine, seed);
        for (worker, &core) in cores.iter().enumerate() {
            let (batch, steps) = (Rc::clone(&batch), Rc::clone(&steps));
            simulation.spawn(core, move || {
                while now_ns() < SIMULATED_NS {
                    batch(worker, 1);
                    steps.set(steps.get() + 1);
                }
            })?;
        }
        let report = simulation.run()?;
        Ok(report.duration_ns / steps.get() as f64)
    })
}

#[cfg(test)]
mod tests {
    use cellbench_impls::platform::Native;

    use super::*;

    #[test]
    fn every_primitive_runs_natively_and_simulated() {
        let machine = MachineModel::preset("desktop").expect("built in");
        for primitive in PRIMITIVES {
            let batch = build::<Native>(primitive.name, 1.0);
            std::thread::scope(|scope| {
                for worker in 0..2 {
                    let batch = &batch;
                    scope.spawn(move || batch(worker, 100));
                }
            });
            let step_ns = predict(&machine, &[0, 1], primitive.name, 1).expect("it runs");
            assert!(step_ns > 1.0 && step_ns < 1_000.0, "{}: {step_ns}", primitive.name);
        }
    }

    #[test]
    fn false_sharing_is_predicted_as_dear_as_sharing() {
        let machine = MachineModel::preset("desktop").expect("built in");
        let step_ns = |name| predict(&machine, &[0, 1], name, 1).expect("it runs");
        let (shared, falsely) = (step_ns("fetch-add"), step_ns("false-sharing"));
        assert!((falsely / shared - 1.0).abs() < 0.1, "{falsely} ns and {shared} ns");
    }
}
