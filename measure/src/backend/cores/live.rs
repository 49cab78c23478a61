//! The platforms that a round can run on, and the threads that make callbacks run.
//!
//! Under the live engine each CPU in use gets one more thread, pinned to the same CPU, on a machine
//! CPU of its own. It acts as that CPU's timer interrupt and workqueue worker: it sleeps
//! until the earliest timer expires or the waker calls it, runs what is due, and sleeps again. While
//! it sleeps its machine CPU is offline, so that it holds up no grace period.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

use cellbench_impls::engine::{Queued, QueuedEngine};
use cellbench_impls::lock::peers::RealCores;
use cellbench_impls::platform::{Native, NativeEpoch, World};
use cellbench_impls::rcu::Qsbr;
use cellbench_impls::registry::HasPeers;
use cellbench_impls::{CpuId as MachineCpu, Machine, Platform};
use cellbench_workloads::Trial;
use crossbeam_utils::CachePadded;

use cellbench_host::cpus::CpuId;
use cellbench_host::pin::{PinError, pin};
use cellbench_host::threads::NoThread;

/// A platform that rounds run on, with the threads that drive its engine.
pub trait Drive: HasPeers {
    /// Returns the machine CPUs needed beyond those of `threads` workers.
    fn extra_cpus(_threads: u32) -> u32 {
        0
    }

    /// Runs `measure` while callbacks are run on `cpus`, those of the workers, and returns when
    /// nobody drives the engine any more.
    ///
    /// # Errors
    /// A driver could not be started or pinned.
    fn while_driven<R>(
        _trial: &Arc<dyn Trial<Self>>,
        _cpus: &[CpuId],
        measure: impl FnOnce() -> R,
    ) -> Result<R, PinError> {
        Ok(measure())
    }
}

impl Drive for Native {}
impl Drive for NativeEpoch {}

impl<M: RealCores> Drive for World<M, Qsbr, Queued> {
    fn extra_cpus(threads: u32) -> u32 {
        threads
    }

    fn while_driven<R>(
        trial: &Arc<dyn Trial<Self>>,
        cpus: &[CpuId],
        measure: impl FnOnce() -> R,
    ) -> Result<R, PinError> {
        let machine = trial.machine();
        let parker = Arc::new(Parker::new(cpus.len()));
        let engine = EnginePtr(machine.engine());
        let waker = Arc::clone(&parker);
        machine.engine().set_waker(move |base| waker.wake(base, &engine));
        thread::scope(|scope| {
            // Also when `measure` panics: the scope waits for the drivers.
            let stop = StopOnDrop(&parker);
            let spawn = |(index, cpu): (usize, &CpuId)| {
                let (parker, cpu) = (&*parker, *cpu);
                let driver = move || {
                    pin(cpu)?;
                    drive(machine, parker, index);
                    Ok::<(), PinError>(())
                };
                thread::Builder::new().spawn_scoped(scope, driver)
            };
            // Where one cannot be started, `stop` ends those that were.
            let drivers: Result<Vec<_>, io::Error> = cpus.iter().enumerate().map(spawn).collect();
            let drivers = drivers.map_err(NoThread::from)?;
            let measured = measure();
            drop(stop);
            for driver in drivers {
                driver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(measured)
        })
    }
}

/// The engine that owns the waker which owns this.
struct EnginePtr<P: Platform>(*const QueuedEngine<P>);

// SAFETY: used only for shared access to a `Sync` engine.
unsafe impl<P: Platform> Send for EnginePtr<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for EnginePtr<P> {}

impl<P: Platform> EnginePtr<P> {
    fn engine(&self) -> &QueuedEngine<P> {
        // SAFETY: the waker is part of the engine and called by it, so the engine is alive; it does
        // not move, being part of a trial behind an `Arc`.
        unsafe { &*self.0 }
    }
}

/// Puts drivers to sleep and wakes them.
struct Parker {
    slots: Box<[CachePadded<Slot>]>,
    stop: AtomicBool,
}

/// State of one driver.
struct Slot {
    /// When the sleeping driver wakes by itself, on the platform's clock; [`AWAKE`] while it runs.
    until_ns: AtomicU64,
    thread: OnceLock<Thread>,
}

/// No expiry is earlier, so a driver that runs is never woken.
const AWAKE: u64 = 0;

impl Parker {
    fn new(drivers: usize) -> Self {
        let slot = || Slot { until_ns: AtomicU64::new(AWAKE), thread: OnceLock::new() };
        Self {
            slots: (0..drivers).map(|_| CachePadded::new(slot())).collect(),
            stop: AtomicBool::new(false),
        }
    }

    /// Returns the driver of an engine base: that of the worker whose CPU it is, or that of the
    /// driver's own CPU, which callbacks arm on.
    fn slot(&self, base: u32) -> &Slot {
        &self.slots[base as usize % self.slots.len()]
    }

    /// Wakes the driver of `base`, where something was queued, if it would sleep too long.
    fn wake<P: Platform>(&self, base: u32, engine: &EnginePtr<P>) {
        let slot = self.slot(base);
        // Pairs with the fence in `sleep`: either this sees that the driver sleeps, or the driver
        // sees what was queued.
        fence(Ordering::SeqCst);
        let until_ns = slot.until_ns.load(Ordering::Relaxed);
        if until_ns != AWAKE && earliest_ns(engine.engine(), base) < until_ns {
            // One of the threads that see it asleep wakes it. Relaxed: `unpark` orders.
            if slot.until_ns.swap(AWAKE, Ordering::Relaxed) != AWAKE
                && let Some(thread) = slot.thread.get()
            {
                thread.unpark();
            }
        }
    }

    /// Sleeps until something on one of `bases` is due. May return early.
    fn sleep<P: Platform>(&self, engine: &QueuedEngine<P>, bases: [u32; 2]) {
        let slot = self.slot(bases[0]);
        let earliest = || bases.map(|base| earliest_ns(engine, base)).into_iter().min();
        let until_ns = earliest().unwrap_or(u64::MAX);
        // Relaxed: the fence orders it before the second look.
        slot.until_ns.store(until_ns.max(AWAKE + 1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let queued_since = earliest().unwrap_or(u64::MAX) < until_ns;
        if !queued_since && !self.stop.load(Ordering::Relaxed) {
            let now_ns = P::now_ns();
            match until_ns {
                u64::MAX => thread::park(),
                _ => thread::park_timeout(Duration::from_nanos(until_ns.saturating_sub(now_ns))),
            }
        }
        slot.until_ns.store(AWAKE, Ordering::Relaxed);
    }
}

/// Returns when something on `base` is due: a queued work is due at once.
fn earliest_ns<P: Platform>(engine: &QueuedEngine<P>, base: u32) -> u64 {
    if engine.has_works(base) { AWAKE } else { engine.next_expiry_ns(base) }
}

/// Stops the drivers when dropped.
struct StopOnDrop<'a>(&'a Parker);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        // SeqCst, with the fence in `sleep`: a driver that does not see it is seen by the `unpark`,
        // whose token ends the next `park`.
        self.0.stop.store(true, Ordering::SeqCst);
        for thread in self.0.slots.iter().filter_map(|slot| slot.thread.get()) {
            thread.unpark();
        }
    }
}

/// Runs the callbacks of worker `index`'s CPU and of the driver's own.
fn drive<M: RealCores>(machine: &Machine<World<M, Qsbr, Queued>>, parker: &Parker, index: usize) {
    let workers = parker.slots.len();
    let bases = [index as u32, (workers + index) as u32];
    let engine = machine.engine();
    parker.slots[index].thread.set(thread::current()).expect("one driver for each CPU");
    while !parker.stop.load(Ordering::SeqCst) {
        {
            let cpu = machine.cpu(MachineCpu(bases[1]));
            loop {
                let now_ns = M::now_ns();
                let ran: usize = bases
                    .into_iter()
                    .map(|base| {
                        engine.run_timers(&cpu, base, now_ns) + engine.run_works(&cpu, base)
                    })
                    .sum();
                cpu.quiescent();
                if ran == 0 || parker.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        parker.sleep(engine, bases);
    }
}

#[cfg(test)]
mod tests {
    use cellbench_impls::Cpu;
    use cellbench_impls::cell::TWO_STEP_KINDS;
    use cellbench_impls::engine::{Engine, Expiry};
    use cellbench_impls::machine::MachineConfig;
    use cellbench_impls::platform::NativeLive;
    use cellbench_trials_native::Compiled;
    use cellbench_workloads::Subject as Under;
    use cellbench_workloads::{Op, Params, Tally, Violation, Worker};

    use super::*;
    use cellbench_host::affinity;

    struct Bare(Machine<NativeLive>);

    impl Trial<NativeLive> for Bare {
        fn machine(&self) -> &Machine<NativeLive> {
            &self.0
        }
        fn batch(&self, _: &Cpu<'_, NativeLive>, _: &mut Worker, _: u32) {}
        fn check(&self, _: &Cpu<'_, NativeLive>, _: &Tally) -> Result<(), Violation> {
            Ok(())
        }
    }

    unsafe fn count(owner: *mut (), _: &Cpu<'_, NativeLive>) {
        // SAFETY: the test hands in a counter that outlives the engine.
        unsafe { &*owner.cast::<AtomicU64>() }.fetch_add(1, Ordering::SeqCst);
    }

    /// A driver that sleeps wakes for a timer, for an earlier one, and for work; the test would
    /// hang if it slept through one of them.
    #[test]
    fn a_sleeping_driver_wakes_for_whatever_is_due() {
        let host_cpu = affinity::current().unwrap().first().unwrap();
        let fired = AtomicU64::new(0);
        let owner = std::ptr::from_ref(&fired).cast_mut().cast();
        let timer = <NativeLive as Platform>::Engine::timer(count, owner);
        let far = <NativeLive as Platform>::Engine::timer(count, owner);
        let work = <NativeLive as Platform>::Engine::work(count, owner);
        let trial: Arc<dyn Trial<NativeLive>> = Arc::new(Bare(Machine::new(MachineConfig::new(2))));
        NativeLive::while_driven(&trial, &[host_cpu], || {
            let cpu = trial.machine().cpu(MachineCpu(0));
            let engine = trial.machine().engine();
            let wait_for = |count| {
                while fired.load(Ordering::SeqCst) < count {
                    cpu.quiescent();
                    thread::yield_now();
                }
            };
            let after = |ns| Expiry { ns, absolute: false, pinned: false };
            // SAFETY: the items outlive the drivers, which `while_driven` waits for.
            unsafe { engine.arm(&cpu, &far, after(3_600_000_000_000)) };
            for round in 0..100 {
                // SAFETY: as above.
                unsafe { engine.arm(&cpu, &timer, after(1000)) };
                wait_for(2 * round + 1);
                // SAFETY: as above.
                unsafe { engine.queue(&cpu, &work) };
                wait_for(2 * round + 2);
            }
            assert!(engine.cancel(&cpu, &far), "the far timer is still armed");
        })
        .unwrap();
        assert_eq!(fired.load(Ordering::SeqCst), 200);
    }

    #[test]
    fn workers_and_drivers_leave_a_machine_that_passes_its_check() {
        let host_cpu = affinity::current().unwrap().first().unwrap();
        for kind in TWO_STEP_KINDS {
            let params = Params { extra_cpus: NativeLive::extra_cpus(1), ..Params::new(1, 5) };
            let trial =
                NativeLive::trial("cmpxchg-state", Under::Cell(*kind), "churn-live", &params)
                    .unwrap();
            let mut worker = Worker::new(0, 5);
            NativeLive::while_driven(&trial, &[host_cpu], || {
                let cpu = trial.machine().cpu(MachineCpu(0));
                trial.enter(&cpu, &mut worker);
                for _ in 0..200 {
                    trial.batch(&cpu, &mut worker, 50);
                    cpu.quiescent();
                    thread::yield_now();
                }
            })
            .unwrap();
            assert!(worker.tally.ok(Op::Start) > 0);
            let cpu = trial.machine().cpu(MachineCpu(0));
            trial.check(&cpu, &worker.tally).unwrap();
        }
    }
}
