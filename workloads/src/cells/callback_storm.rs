//! Callbacks that use the cells: they start their own cell again, cancel it, which would wait for
//! itself, and cancel each other, which could wait for ever; while the CPUs update and cancel.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::Arc;

use cellbench_impls::cell::Start;
use cellbench_impls::program::Callback;
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use crate::ensure;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, EngineNeed, Trial, Violation, Workload};
use crate::worker::Worker;

/// Few enough that callbacks cancel each other.
pub(super) const CELLS: usize = 4;
pub(super) const PROGRAMS: usize = 2;
/// Timers fire after up to this many nanoseconds.
pub(super) const SOON_NS: u64 = 20_000;

/// See the module.
pub(crate) struct Storm;

impl Workload for Storm {
    const ID: &'static str = "callback-storm";
    const ABOUT: &'static str =
        "4 cells: callbacks start and cancel their own and each other, CPUs update and cancel";
    const ENGINE: EngineNeed = EngineNeed::Live;
}

impl CellWorkload for Storm {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let (field, ring) = ring::<P, C>(params, false);
        Arc::new(StormTrial { field, ring })
    }
}

/// Returns a field whose callbacks use its cells, and what they share, which must outlive them.
/// With
/// `frees` they also free cells.
pub(super) fn ring<P: Platform, C: AsyncCell<P>>(
    params: &Params,
    frees: bool,
) -> (Field<P, C>, Arc<Ring>) {
    let ring = Arc::new(Ring { frees, ..Ring::default() });
    // The callbacks get at the ring by its address.
    let address = Arc::as_ptr(&ring).expose_provenance();
    let callback = (on_fire::<P, C> as _, address);
    let field = Field::<P, C>::with_callback(params, Layout::Padded, CELLS, PROGRAMS, callback);
    for (slot, cell) in ring.cells.iter().zip(field.cells()) {
        slot.store(ptr::from_ref(cell).cast_mut().cast(), Ordering::Relaxed);
    }
    (field, ring)
}

/// State that the callbacks share. Counts order nothing: they are read at rest.
#[derive(Default)]
pub(super) struct Ring {
    cells: [AtomicPtr<()>; CELLS],
    /// Callbacks free cells, too.
    frees: bool,
    /// No callback starts its cell any more.
    over: AtomicBool,
    turns: AtomicU64,
    restarts: AtomicU64,
    /// Cancels of a timer by its own callback that succeeded.
    self_cancels: AtomicU64,
}

impl Ring {
    /// Lets no callback, from now on, start a cell: a field can come to rest.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Starts by callbacks that succeeded. Exact at rest.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

/// Runs as the callback of every cell.
fn on_fire<P: Platform, C: AsyncCell<P>>(
    cpu: &Cpu<'_, P>,
    callback: &Callback<P>,
    value: *const (),
) {
    // SAFETY: the address of the trial's ring, which outlives the callbacks.
    let ring = unsafe { &*ptr::with_exposed_provenance::<Ring>(callback.data) };
    // SAFETY: the ring holds the addresses of the field's cells, which outlive the callbacks.
    let cell =
        |slot: usize| unsafe { &*ring.cells[slot % CELLS].load(Ordering::Relaxed).cast::<C>() };
    let here = |slot: &AtomicPtr<()>| ptr::eq(slot.load(Ordering::Relaxed), value);
    let own = ring.cells.iter().position(here).expect("the value is one of the field's cells");
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let turn = count(&ring.turns);
    match turn % 4 {
        // Would wait for this very callback.
        0 if C::CANCELS && cell(own).cancel(cpu).is_ok() => {
            count(&ring.self_cancels);
        }
        // May be cancelling this one.
        1 if C::CANCELS => {
            let _ = cell(own + 1).cancel(cpu);
        }
        // Its own, whose callback runs, or the next one's, whose callback may.
        2 if ring.frees => cell(own + (turn / 4 % 2) as usize).cancel_and_free(cpu),
        _ => {}
    }
    let after_ns = turn.wrapping_mul(7919) % SOON_NS;
    if !ring.over.load(Ordering::Relaxed) && cell(own).start(cpu, Start::after_ns(after_ns)).is_ok()
    {
        count(&ring.restarts);
    }
}

struct StormTrial<P: Platform, C> {
    field: Field<P, C>,
    ring: Arc<Ring>,
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for StormTrial<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        if worker.index == 0 {
            (0..CELLS).for_each(|cell| self.field.make_ready(cpu, cell, 0));
        }
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            let cell = self.field.cell(worker.below(CELLS as u64) as usize);
            match worker.below(100) {
                0..50 => {
                    let program = worker.below(PROGRAMS as u64) as usize;
                    let (program, callback) = self.field.callback(program, 0);
                    let outcome = cell.set_callback(cpu, program, callback);
                    worker.tally.count(Op::SetCallback, &outcome);
                }
                50..60 if C::CANCELS => {
                    let outcome = cell.cancel(cpu);
                    worker.tally.count(Op::Cancel, &outcome);
                }
                _ => {
                    let outcome = cell.start(cpu, Start::after_ns(worker.below(SOON_NS)));
                    worker.tally.count(Op::Start, &outcome);
                }
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.ring.end();
        self.field.check(cpu)?;
        let self_cancels = self.ring.self_cancels.load(Ordering::Relaxed);
        ensure!(self_cancels == 0, "{self_cancels} callbacks cancelled their own timer");
        let runs = self.field.runs();
        let starts = total.ok(Op::Start) + self.ring.restarts();
        ensure!(
            C::PROMISES.may_repeat || runs <= starts,
            "{runs} callbacks ran after {starts} starts"
        );
        Ok(())
    }
}
