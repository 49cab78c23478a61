//! Task work end to end: scheduled, handed to the task by the irq step, run when the task returns
//! to user space. A step is all of it, so its latency is that from schedule to callback.

use std::sync::Arc;

use cellbench_impls::cell::CellKind;
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use super::solo::FAR;
use crate::ensure;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

const KINDS: &[CellKind] = &[CellKind::TaskWork];
/// Cells of the racing form.
const CELLS: usize = 4;
/// Of a hundred of its steps, those that free.
const FREE_PERCENT: u64 = 20;

/// All CPUs share one cell.
pub(crate) struct Shared;
/// Each CPU has its own.
pub(crate) struct Own;
/// Cells are freed while others schedule.
pub(crate) struct Racing;

impl Workload for Shared {
    const ID: &'static str = "task-work";
    const ABOUT: &'static str = "one cell: all CPUs schedule, and return to user space";
}

impl Workload for Own {
    const ID: &'static str = "task-work-own";
    const ABOUT: &'static str = "own cell: schedule, and return to user space";
}

impl Workload for Racing {
    const ID: &'static str = "task-work-churn";
    const ABOUT: &'static str = "4 cells: schedule, return to user space and cancel_and_free race";
}

impl CellWorkload for Shared {
    const KINDS: &'static [CellKind] = KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Rounds::<P, C> { field: Field::new(params, Layout::Padded, 1, 1) })
    }
}

impl CellWorkload for Own {
    const KINDS: &'static [CellKind] = KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let threads = params.threads as usize;
        Arc::new(Rounds::<P, C> { field: Field::new(params, Layout::Padded, threads, threads) })
    }
}

impl CellWorkload for Racing {
    const KINDS: &'static [CellKind] = KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(RacingTrial::<P, C> { field: Field::new(params, Layout::Padded, CELLS, 1) })
    }
}

/// Rounds on one cell for all, or for each.
struct Rounds<P: Platform, C> {
    field: Field<P, C>,
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for Rounds<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let own = if self.field.len() > 1 { worker.index as usize } else { 0 };
        let (program, callback) = self.field.callback(own, 0);
        let (map, cell) = (self.field.map(), self.field.cell(own));
        worker.tally.repeat(Op::Schedule, steps, || {
            let outcome = cell.schedule(cpu, map, program, callback, FAR);
            cpu.return_to_user();
            outcome
        });
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.field.machine().settle(cpu);
        let (runs, scheduled) = (self.field.runs(), total.ok(Op::Schedule));
        ensure!(runs == scheduled, "{runs} callbacks ran of {scheduled} that were scheduled");
        self.field.check(cpu)
    }
}

struct RacingTrial<P: Platform, C> {
    field: Field<P, C>,
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for RacingTrial<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let (program, callback) = self.field.callback(0, 0);
        for _ in 0..steps {
            let cell = self.field.cell(worker.below(CELLS as u64) as usize);
            if worker.percent(FREE_PERCENT) {
                cell.cancel_and_free(cpu);
                worker.tally.count_ok(Op::Free, 1);
            } else {
                let outcome = cell.schedule(cpu, self.field.map(), program, callback, FAR);
                worker.tally.count(Op::Schedule, &outcome);
                // Now and then only, so that cells are freed in every state.
                if worker.percent(50) {
                    cpu.return_to_user();
                }
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)?;
        let (runs, scheduled) = (self.field.runs(), total.ok(Op::Schedule));
        ensure!(runs <= scheduled, "{runs} callbacks ran of {scheduled} that were scheduled");
        Ok(())
    }
}
