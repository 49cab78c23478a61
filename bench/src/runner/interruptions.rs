//! Interruptions of a worker: real signals, sent to its thread by timers of its own or by another
//! thread, whose handler runs the workload's operation on top of whatever the worker is in the
//! middle of.
//!
//! A signal stands for an NMI as it is: it strikes between any two instructions. It stands for a
//! hardware interrupt through the machine's `irq_work`: while the worker has interrupts off, the
//! operation waits until they come on.
//!
//! Everything a handler touches is its own, the machine's, or read-only, and was made before the
//! first signal: it allocates nothing, takes no lock and makes no system call. It strikes only while
//! the worker is inside [`Trial::batch`]; a signal at another moment is let go and counted.

use std::cell::{Cell, OnceCell, UnsafeCell};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use cellbench_impls::irq_work::IrqWork;
use cellbench_impls::{Context, Cpu, Machine, Platform};
use cellbench_workloads::{Op, Tally, Trial, Violation, Worker};
use hdrhistogram::Histogram;

use super::latency::changed;
use super::time::TimeSource;
use crate::host::cpus::CpuSet;
use crate::host::{Clock, affinity};

/// Longest latency a handler keeps apart: it must not let a histogram grow.
const MAX_NS: u64 = 10_000_000_000;
/// Digits of a recorded latency: two, a sixteenth of the memory of three.
const DIGITS: u8 = 2;

/// What a handler did to one worker in one context, within the window.
#[derive(Clone, Debug)]
pub(crate) struct Struck {
    pub(crate) context: Context,
    /// Counts when the window began.
    pub(crate) before: Tally,
    /// Counts when it ended.
    pub(crate) after: Tally,
    /// Latencies by operation.
    pub(crate) latencies: Vec<(Op, Histogram<u64>)>,
    /// Signals that came while the worker was not in a batch.
    pub(crate) let_go: u64,
}

/// A trial that notes when its worker is inside a batch.
pub(crate) struct Marked<'a, P: Platform> {
    inner: &'a dyn Trial<P>,
    in_batch: AtomicBool,
}

impl<'a, P: Platform> Marked<'a, P> {
    pub(crate) fn new(inner: &'a dyn Trial<P>) -> Self {
        Self { inner, in_batch: AtomicBool::new(false) }
    }

    /// Read by a handler on the same thread, so it only has to stay in program order.
    fn is_in_batch(&self) -> bool {
        self.in_batch.load(Ordering::Relaxed)
    }
}

impl<P: Platform> Trial<P> for Marked<'_, P> {
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

/// What the signal carries: who is struck, and how.
#[repr(C)]
struct Target {
    /// Called with the target itself.
    strike: unsafe fn(*const Target),
}

/// One worker's interruptions in one context.
#[repr(C)]
pub(crate) struct Source<'a, P: Platform> {
    // First: the signal carries its address, which is the source's.
    target: Target,
    trial: &'a Marked<'a, P>,
    cpu: &'a Cpu<'a, P>,
    clock: &'a Clock,
    context: Context,
    /// Hardware interrupts: runs where one would arrive.
    work: OnceCell<IrqWork<P>>,
    state: UnsafeCell<State>,
    let_go: AtomicU64,
    /// Signals handled, for the thread that sends them.
    handled: Arc<AtomicU64>,
}

/// The handler's own; nobody else looks while signals come.
struct State {
    worker: Worker,
    before: Tally,
    probe: Tally,
    latencies: Vec<Histogram<u64>>,
}

impl<'a, P: Platform> Source<'a, P> {
    /// Interruptions of worker `worker.index`, in place: signals carry its address.
    pub(crate) fn new(
        trial: &'a Marked<'a, P>,
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
        let source = Box::new(Self {
            target: Target { strike: Self::strike },
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
            let_go: AtomicU64::new(0),
            handled: Arc::default(),
        });
        let owner = ptr::from_ref(&*source).cast_mut().cast();
        source.work.get_or_init(|| IrqWork::new(Self::arrive, owner));
        source
    }

    /// The signal.
    ///
    /// # Safety
    /// On the worker's thread, with the target of a source.
    unsafe fn strike(target: *const Target) {
        // SAFETY: the target is the first field of a source, which outlives its timer.
        let source = unsafe { &*target.cast::<Self>() };
        // Relaxed: the next one may be sent; nothing is read on the strength of it.
        source.handled.fetch_add(1, Ordering::Relaxed);
        if !source.trial.is_in_batch() {
            source.let_go.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if source.context == Context::Nmi {
            source.cpu.nmi(|cpu| source.attempt(cpu));
        } else if let Some(work) = source.work.get() {
            // SAFETY: the source outlives the batch, within which the work runs.
            unsafe { IrqWork::queue(work, source.cpu) };
        }
    }

    /// The hardware interrupt, when interrupts are on.
    unsafe fn arrive(owner: *mut (), cpu: &Cpu<'_, P>) {
        // SAFETY: the source that the work is part of.
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

    /// The window begins. Called outside of batches.
    pub(crate) fn mark(&self) {
        // SAFETY: on the worker's thread and outside of batches, when no handler looks.
        let state = unsafe { &mut *self.state.get() };
        state.before.clone_from(&state.worker.tally);
        state.latencies.iter_mut().for_each(Histogram::reset);
    }

    /// What was done. Its timer is gone.
    pub(crate) fn finish(self) -> Struck {
        let let_go = self.let_go.load(Ordering::Relaxed);
        let State { worker, before, latencies, .. } = self.state.into_inner();
        let used =
            |(op, values): (&Op, Histogram<u64>)| (!values.is_empty()).then_some((*op, values));
        let latencies = Op::ALL.iter().zip(latencies).filter_map(used).collect();
        Struck { context: self.context, before, after: worker.tally, latencies, let_go }
    }
}

/// A timer that signals its thread; gone when dropped, with the signals it had sent.
pub(crate) struct Timer<'a, 's, P: Platform> {
    id: libc::timer_t,
    _source: &'s Source<'a, P>,
}

impl<'a, 's, P: Platform> Timer<'a, 's, P> {
    /// Signals the calling thread `rate_hz` times a second.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(source: &'s Source<'a, P>, rate_hz: u32) -> io::Result<Self> {
        install_handlers()?;
        // SAFETY: no memory is touched.
        let thread = unsafe { libc::gettid() };
        // SAFETY: zeroes are a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal(source.context);
        event.sigev_notify_thread_id = thread;
        event.sigev_value.sival_ptr = ptr::from_ref(source).cast_mut().cast();
        let mut id = ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let timer = Self { id, _source: source };
        let period_ns = (1_000_000_000 / i64::from(rate_hz.max(1))).max(1);
        let period = libc::timespec {
            tv_sec: (period_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (period_ns % 1_000_000_000) as libc::c_long,
        };
        let setting = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer was made above; the setting is valid for the call.
        if unsafe { libc::timer_settime(timer.id, 0, &setting, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(timer)
    }
}

impl<P: Platform> Drop for Timer<'_, '_, P> {
    fn drop(&mut self) {
        // A signal that it sent before is delivered when this call returns to user space, at the
        // latest: the source is still there.
        // SAFETY: made in `start`, deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}

thread_local! {
    /// Who is struck by signals of a [`Sender`]. Without a destructor, so that a handler may look.
    static TARGET: Cell<*const Target> = const { Cell::new(ptr::null()) };
}

/// Another thread that signals its maker by `pthread_kill`, each time as soon as the signal before
/// was handled: more than any timer can. Gone when dropped.
pub(crate) struct Sender<'a, 's, P: Platform> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _source: &'s Source<'a, P>,
}

impl<'a, 's, P: Platform> Sender<'a, 's, P> {
    /// Signals the calling thread, from whichever of `cpus` is free.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(source: &'s Source<'a, P>, cpus: CpuSet) -> io::Result<Self> {
        install_handlers()?;
        TARGET.set(ptr::from_ref(source).cast());
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, handled) = (Arc::clone(&stop), Arc::clone(&source.handled));
        let number = signal(source.context);
        // SAFETY: touches no memory.
        let receiver = unsafe { libc::pthread_self() } as usize;
        let send = move || {
            // Inherited from the pinned receiver otherwise, and one CPU takes turns then.
            let _ = affinity::set_current(&cpus);
            while !stopped.load(Ordering::Relaxed) {
                let before = handled.load(Ordering::Relaxed);
                // SAFETY: the receiver joins this thread before it ends.
                unsafe { libc::pthread_kill(receiver as libc::pthread_t, number) };
                let mut spins = 0_u32;
                while handled.load(Ordering::Relaxed) == before && !stopped.load(Ordering::Relaxed)
                {
                    spins += 1;
                    if spins.is_multiple_of(1024) {
                        thread::yield_now()
                    } else {
                        std::hint::spin_loop()
                    }
                }
            }
        };
        let thread = Some(thread::Builder::new().name("sender".to_owned()).spawn(send)?);
        Ok(Self { stop, thread, _source: source })
    }
}

impl<P: Platform> Drop for Sender<'_, '_, P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A sender that panicked sends no more either.
            let _ = thread.join();
        }
        // A signal that is still on its way finds no target.
        TARGET.set(ptr::null());
    }
}

/// What interrupts a worker in one context.
pub(crate) enum Striker<'a, 's, P: Platform> {
    /// So many times a second.
    Timed(#[expect(dead_code, reason = "deleted when dropped")] Timer<'a, 's, P>),
    /// As fast as it is handled.
    Sent(#[expect(dead_code, reason = "stopped when dropped")] Sender<'a, 's, P>),
}

impl<'a, 's, P: Platform> Striker<'a, 's, P> {
    /// Interrupts the calling thread at this rate; 0: as fast as it is handled, by a thread on one
    /// of `cpus`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start(
        source: &'s Source<'a, P>,
        rate_hz: u32,
        cpus: &CpuSet,
    ) -> io::Result<Self> {
        match rate_hz {
            0 => Sender::start(source, cpus.clone()).map(Self::Sent),
            _ => Timer::start(source, rate_hz).map(Self::Timed),
        }
    }
}

/// The signal that stands for an interruption in `context`.
fn signal(context: Context) -> libc::c_int {
    match context {
        Context::Nmi => libc::SIGRTMIN() + 2,
        _ => libc::SIGRTMIN() + 1,
    }
}

/// Takes over both signals, once for the process: an NMI blocks both, a hardware interrupt itself.
fn install_handlers() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        for context in [Context::Hardirq, Context::Nmi] {
            // SAFETY: zeroes are a valid `sigaction`.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: the set is valid for the calls.
            unsafe {
                libc::sigemptyset(&mut action.sa_mask);
                if context == Context::Nmi {
                    libc::sigaddset(&mut action.sa_mask, signal(Context::Hardirq));
                }
            }
            // SAFETY: the action is valid, its handler is async-signal-safe (see the module).
            if unsafe { libc::sigaction(signal(context), &action, ptr::null_mut()) } != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
        }
        Ok(())
    });
    (*installed).map_err(io::Error::from_raw_os_error)
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands in valid information.
    let info = unsafe { &*info };
    let target = match info.si_code {
        // SAFETY: a timer's signal carries a value.
        libc::SI_TIMER => unsafe { info.si_value() }.sival_ptr.cast_const().cast::<Target>(),
        libc::SI_TKILL => TARGET.get(),
        _ => return, // sent by another process: it carries no target
    };
    if target.is_null() {
        return;
    }
    // SAFETY: the address that `Timer::start` or `Sender::start` gave, of a source that outlives it.
    unsafe { ((*target).strike)(target) };
}
