//! One CPU stops in mid-operation: what the others get from the same cell, and when. Under a
//! spinlock nothing, until it goes on; under a resilient lock an error, after the timeout; from a
//! design without a lock an answer at once.
//!
//! Worker 0 is suspended by an NMI that does not return for the length of the stall, and only if
//! it is found keeping others out, in those designs in which that can be.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use cellbench_impls::cell::{ALL_KINDS, CellKind, Steps};
use cellbench_impls::{AsyncCell, Context, Cpu, Machine, Platform};

use super::solo::FAR;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::stall::Stall;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// How long worker 0 waits to be suspended before its step ends, looked at every so many
/// operations.
const PATIENCE_NS: u64 = 10_000_000;
const OPERATIONS_PER_LOOK: u32 = 64;

/// See the module.
pub(crate) struct Stalled;

impl Workload for Stalled {
    const ID: &'static str = "stalled";
    const ABOUT: &'static str =
        "one cell: a CPU stops in mid-operation, the others update and start";
    const NEEDS: Needs = Needs {
        interrupts: &[Context::Nmi],
        interrupt_rate_hz: 10_000,
        stalls: true,
        least_workers: 2,
        ..Needs::NOTHING
    };
}

impl CellWorkload for Stalled {
    const KINDS: &'static [CellKind] = ALL_KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(StalledTrial::<P, C> {
            field: Field::new(params, Layout::Padded, 1, params.threads as usize),
            stall: Stall::new(params),
            operating: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        })
    }
}

struct StalledTrial<P: Platform, C> {
    field: Field<P, C>,
    stall: Stall<P>,
    /// Worker 0 is in an operation, with the others out.
    operating: AtomicBool,
    /// Worker 0 was suspended since this was last cleared.
    stalled: AtomicBool,
}

impl<P: Platform, C: AsyncCell<P>> StalledTrial<P, C> {
    /// Makes updates and starts in turn.
    fn attempt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let cell = self.field.cell(0);
        let turn = worker.step;
        worker.step += 1;
        let (program, callback) =
            self.field.callback(worker.index as usize, ((turn / 2) & 1) as usize);
        let (op, outcome) = if C::STEPS == Steps::One {
            (Op::Schedule, cell.schedule(cpu, self.field.map(), program, callback, FAR))
        } else if turn & 1 == 0 {
            (Op::SetCallback, cell.set_callback(cpu, program, callback))
        } else {
            (Op::Start, cell.start(cpu, FAR))
        };
        worker.tally.count(op, &outcome);
        cpu.return_to_user();
    }

    /// Works, as worker 0, until it was suspended.
    fn be_stalled(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.stall.wait_for_others();
        // Relaxed, here and below: between this CPU and its handler.
        self.stalled.store(false, Ordering::Relaxed);
        let until_ns = P::now_ns() + PATIENCE_NS;
        while !self.stalled.load(Ordering::Relaxed) && P::now_ns() < until_ns {
            for _ in 0..OPERATIONS_PER_LOOK {
                self.operating.store(true, Ordering::Relaxed);
                self.attempt(cpu, worker);
                self.operating.store(false, Ordering::Relaxed);
                if self.stalled.load(Ordering::Relaxed) {
                    break;
                }
            }
            cpu.quiescent();
        }
    }
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for StalledTrial<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        if worker.index == 0 {
            self.field.make_ready(cpu, 0, 0);
        }
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let index = worker.index;
        for _ in 0..steps {
            if index == 0 {
                self.be_stalled(cpu, worker);
            } else {
                self.stall.attempt(index, || self.attempt(cpu, worker));
            }
        }
    }

    fn interrupt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let here = worker.index == 0
            && self.operating.load(Ordering::Relaxed)
            && !self.stalled.load(Ordering::Relaxed)
            && (!C::OCCUPIES || self.field.cell(0).is_occupied(cpu));
        if here {
            self.stall.stand_still();
            self.stalled.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}
