//! Workloads on locks. Here: all CPUs take one lock around a critical section of a given length, and count in it: the count
//! is loaded and stored, so a lock that lets two in loses some.

pub(crate) mod cycle;
pub(crate) mod pattern;
pub(crate) mod rings;
pub(crate) mod stalled;

use std::sync::Arc;

use cellbench_impls::platform::{Ordering, Word};
use cellbench_impls::{Cpu, Lock, Machine, Platform};
use crossbeam_utils::CachePadded;

use crate::cells::same_cell::WORKERS_PER_CPU;
use crate::ensure;
use crate::field::check_clean;
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{LockWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// A workload on one lock with a critical section of `NS` nanoseconds.
pub(crate) struct Section<const NS: u32>;

macro_rules! section {
    ($ns:literal, $id:literal) => {
        impl Workload for Section<$ns> {
            const ID: &'static str = $id;
            const ABOUT: &'static str =
                concat!("one lock, critical section of ", stringify!($ns), " ns");
        }
    };
}

section!(0, "lock-0ns");
section!(50, "lock-50ns");
section!(500, "lock-500ns");

/// With interrupts masked, as the cells' locks are taken. The two sections of one lock differ by what
/// masking costs.
pub(crate) struct IrqSaved;

impl Workload for IrqSaved {
    const ID: &'static str = "lock-irqsave";
    const ABOUT: &'static str =
        "lock-0ns with interrupts masked, at the cost given by --irq-save-ns";
}

/// With more workers than CPUs: the holder, or who is next in line, may not be running.
pub(crate) struct Oversubscribed;

impl Workload for Oversubscribed {
    const ID: &'static str = "lock-oversubscribed";
    const ABOUT: &'static str = "lock-50ns with 4 workers on each CPU";
    const NEEDS: Needs = Needs { workers_per_cpu: WORKERS_PER_CPU, ..Needs::NOTHING };
}

impl<const NS: u32> LockWorkload for Section<NS>
where
    Self: Workload,
{
    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(OneLock::<P, L, false>::new(params, NS))
    }
}

impl LockWorkload for IrqSaved {
    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(OneLock::<P, L, true>::new(params, 0))
    }
}

impl LockWorkload for Oversubscribed {
    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(OneLock::<P, L, false>::new(params, 50))
    }
}

/// All take one lock; with `MASKED`, inside a section with interrupts off.
struct OneLock<P: Platform, L, const MASKED: bool> {
    guarded: CachePadded<Guarded<P, L>>,
    machine: Machine<P>,
    turns: u32,
}

/// The count is next to the lock, as the data that a cell's lock guards is.
struct Guarded<P: Platform, L> {
    lock: L,
    entered: P::U64,
}

impl<P: Platform, L: Lock<P>, const MASKED: bool> OneLock<P, L, MASKED> {
    fn new(params: &Params, section_ns: u32) -> Self {
        Self {
            guarded: CachePadded::new(Guarded { lock: L::new(), entered: Word::new("entered", 0) }),
            machine: params.machine(),
            turns: (u64::from(section_ns) * u64::from(params.turns_per_us) / 1000) as u32,
        }
    }
}

impl<P: Platform, L> Guarded<P, L> {
    /// Counts a section, with the lock held.
    #[inline(always)]
    fn enter(&self) {
        // Relaxed: under the lock, so a load and a store.
        self.entered.store(self.entered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl<P: Platform, L: Lock<P>, const MASKED: bool> Trial<P> for OneLock<P, L, MASKED> {
    fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let (guarded, turns) = (&*self.guarded, self.turns);
        worker.tally.repeat(Op::Lock, steps, || {
            let _masked = MASKED.then(|| cpu.irq_save());
            guarded.lock.run(cpu, move |_| {
                guarded.enter();
                P::charge(turns);
            })
        });
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let entered = self.guarded.entered.load(Ordering::Relaxed);
        let counted = total.ok(Op::Lock);
        ensure!(
            entered == counted,
            "mutual exclusion: {counted} sections ran, their count says {entered}"
        );
        check_clean(&self.machine)
    }
}
