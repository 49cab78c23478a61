//! Interruptions of a worker: real signals, sent to its thread by timers of its own or by another
//! thread, whose handler runs the workload's operation on top of whatever the worker is in the
//! middle of.
//!
//! A signal stands for an NMI as it is: it interrupts between any two instructions. It stands for a
//! hardware interrupt through the machine's `irq_work`: while the worker has interrupts off, the
//! operation waits until they come on.
//!
//! Everything a handler touches is its own, the machine's, or read-only, and was made before the
//! first signal: it allocates nothing, takes no lock and makes no system call. It runs the operation
//! only while the worker is inside [`Trial::batch`]; a signal at another moment is missed and counted.

mod timer;

use std::cell::{OnceCell, UnsafeCell};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};

use cellbench_impls::irq_work::IrqWork;
use cellbench_impls::{Context, Cpu, Machine, Platform};
use cellbench_workloads::{Op, Tally, Trial, Violation, Worker};
use hdrhistogram::Histogram;

use super::time::TimeSource;
use crate::backend::latency::changed;
use cellbench_host::Clock;

pub(crate) use timer::SignalTimer;

/// Longest latency a handler keeps apart: it must not let a histogram grow.
const MAX_NS: u64 = 10_000_000_000;
/// Digits of a recorded latency: two, a sixteenth of the memory of three.
const DIGITS: u8 = 2;

/// Counts of one handler, of one worker in one context, within the window.
#[derive(Clone, Debug)]
pub(crate) struct HandlerCounts {
    pub context: Context,
    /// Counts when the window began.
    pub before: Tally,
    /// Counts when it ended.
    pub after: Tally,
    /// Latencies by operation.
    pub latencies: Vec<(Op, Histogram<u64>)>,
    /// Signals that came while the worker was not in a batch.
    pub missed: u64,
}

/// A trial that notes when its worker is inside a batch.
pub(crate) struct Interruptible<'a, P: Platform> {
    inner: &'a dyn Trial<P>,
    in_batch: AtomicBool,
}

impl<'a, P: Platform> Interruptible<'a, P> {
    pub(crate) fn new(inner: &'a dyn Trial<P>) -> Self {
        Self { inner, in_batch: AtomicBool::new(false) }
    }

    /// Tells a handler on the same thread, for which program order is enough, whether a batch runs.
    fn is_in_batch(&self) -> bool {
        self.in_batch.load(Ordering::Relaxed)
    }
}

impl<P: Platform> Trial<P> for Interruptible<'_, P> {
    fn machine(&self) -> &Machine<P> {
        self.inner.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.inner.enter(cpu, worker);
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        self.in_batch.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.inner.batch(cpu, worker, steps);
        compiler_fence(Ordering::SeqCst);
        self.in_batch.store(false, Ordering::Relaxed);
    }

    fn interrupt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.inner.interrupt(cpu, worker);
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.inner.check(cpu, total)
    }
}

/// The value that a signal carries: whom it interrupts, and how.
#[repr(C)]
struct Target {
    /// Called with the target itself.
    interrupt: unsafe fn(*const Target),
}

/// One worker's interruptions in one context.
#[repr(C)]
pub(crate) struct Handler<'a, P: Platform> {
    // First: the signal carries its address, which is the handler's.
    target: Target,
    trial: &'a Interruptible<'a, P>,
    cpu: &'a Cpu<'a, P>,
    clock: &'a Clock,
    context: Context,
    /// Hardware interrupts: runs where one would arrive.
    work: OnceCell<IrqWork<P>>,
    state: UnsafeCell<State>,
    missed: AtomicU64,
    /// Signals handled, for the thread that sends them.
    handled: Arc<AtomicU64>,
}

/// State of the handler alone; nobody else reads it while signals come.
struct State {
    worker: Worker,
    before: Tally,
    probe: Tally,
    latencies: Vec<Histogram<u64>>,
}

impl<'a, P: Platform> Handler<'a, P> {
    /// Prepares to interrupt worker `worker.index`. Boxed, because signals carry its address.
    pub(crate) fn new(
        trial: &'a Interruptible<'a, P>,
        cpu: &'a Cpu<'a, P>,
        clock: &'a Clock,
        context: Context,
        worker: Worker,
    ) -> Box<Self> {
        let empty = || {
            let mut histogram =
                Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("two digits up to 10 s");
            histogram.reset(); // touches the memory
            histogram
        };
        let handler = Box::new(Self {
            target: Target { interrupt: Self::interrupt },
            trial,
            cpu,
            clock,
            context,
            work: OnceCell::new(),
            state: UnsafeCell::new(State {
                worker,
                before: Tally::default(),
                probe: Tally::default(),
                latencies: (0..Op::ALL.len()).map(|_| empty()).collect(),
            }),
            missed: AtomicU64::new(0),
            handled: Arc::default(),
        });
        let owner = ptr::from_ref(&*handler).cast_mut().cast();
        handler.work.get_or_init(|| IrqWork::new(Self::arrive, owner));
        handler
    }

    /// Handles the signal.
    ///
    /// # Safety
    /// Called on the worker's thread, with the target of a handler.
    unsafe fn interrupt(target: *const Target) {
        // SAFETY: the target is the first field of a handler, which outlives its timer.
        let handler = unsafe { &*target.cast::<Self>() };
        // Relaxed: the next one may be sent; nothing is read on the strength of it.
        handler.handled.fetch_add(1, Ordering::Relaxed);
        if !handler.trial.is_in_batch() {
            handler.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if handler.context == Context::Nmi {
            handler.cpu.nmi(|cpu| handler.attempt(cpu));
        } else if let Some(work) = handler.work.get() {
            // SAFETY: the handler outlives the batch, within which the work runs.
            unsafe { IrqWork::queue(work, handler.cpu) };
        }
    }

    /// Handles the hardware interrupt, when interrupts are on.
    unsafe fn arrive(owner: *mut (), cpu: &Cpu<'_, P>) {
        // SAFETY: the handler that the work is part of.
        unsafe { &*owner.cast::<Self>() }.attempt(cpu);
    }

    fn attempt(&self, cpu: &Cpu<'_, P>) {
        // SAFETY: on the worker's thread, whose signals of this context are blocked while one is
        // handled and whose own accesses are outside of batches; `irq_work` does not nest.
        let state = unsafe { &mut *self.state.get() };
        state.probe.clone_from(&state.worker.tally);
        let start = TimeSource::start(self.clock);
        self.trial.interrupt(cpu, &mut state.worker);
        let stop = TimeSource::stop(self.clock);
        if let Some(op) = changed(&state.probe, &state.worker.tally) {
            let latency_ns = TimeSource::elapsed_ns(self.clock, start, stop);
            state.latencies[op].saturating_record(latency_ns);
        }
    }

    /// Begins the window. Called outside of batches.
    pub(crate) fn mark(&self) {
        // SAFETY: on the worker's thread and outside of batches, when no handler looks.
        let state = unsafe { &mut *self.state.get() };
        state.before.clone_from(&state.worker.tally);
        state.latencies.iter_mut().for_each(Histogram::reset);
    }

    /// Returns the counts. The timer has ended.
    pub(crate) fn finish(self) -> HandlerCounts {
        let missed = self.missed.load(Ordering::Relaxed);
        let State { worker, before, latencies, .. } = self.state.into_inner();
        let used =
            |(op, values): (&Op, Histogram<u64>)| (!values.is_empty()).then_some((*op, values));
        let latencies = Op::ALL.iter().zip(latencies).filter_map(used).collect();
        HandlerCounts { context: self.context, before, after: worker.tally, latencies, missed }
    }
}
