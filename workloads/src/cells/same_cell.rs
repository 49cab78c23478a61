//! All CPUs update one cell: the storm that tells the designs apart.

use std::sync::Arc;

use cellbench_impls::{AsyncCell, Cpu, Errno, Machine, Platform};

use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// Workers that share a CPU where they do.
pub(crate) const WORKERS_PER_CPU: u32 = 4;

/// Every attempt counts, whatever it returns.
pub(crate) struct SameCell;
/// With more workers than CPUs: one that holds a lock, or a place in its queue, may not be running.
pub(crate) struct Oversubscribed;
/// Each step tries until it succeeds: compares like with like when designs fail differently.
pub(crate) struct SameCellRetry;

impl Workload for SameCell {
    const ID: &'static str = "same-cell";
    const ABOUT: &'static str = "all CPUs call set_callback on one cell, two programs in turn";
    const WITH_EPOCHS: bool = true;
}

impl Workload for Oversubscribed {
    const ID: &'static str = "oversubscribed";
    const ABOUT: &'static str = "same-cell with 4 workers on each CPU";
    const NEEDS: Needs = Needs { workers_per_cpu: WORKERS_PER_CPU, ..Needs::NOTHING };
}

impl Workload for SameCellRetry {
    const ID: &'static str = "same-cell-retry";
    const ABOUT: &'static str = "same-cell, each update repeated until it succeeds";
}

impl CellWorkload for SameCell {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Storm::<P, C, false>::new(params))
    }
}

impl CellWorkload for Oversubscribed {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Storm::<P, C, false>::new(params))
    }
}

impl CellWorkload for SameCellRetry {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Storm::<P, C, true>::new(params))
    }
}

struct Storm<P: Platform, C, const RETRY: bool> {
    field: Field<P, C>,
}

impl<P: Platform, C: AsyncCell<P>, const RETRY: bool> Storm<P, C, RETRY> {
    fn new(params: &Params) -> Self {
        Self { field: Field::new(params, Layout::Padded, 1, 2) }
    }
}

impl<P: Platform, C: AsyncCell<P>, const RETRY: bool> Trial<P> for Storm<P, C, RETRY> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        if worker.index == 0 {
            self.field.make_ready(cpu, 0, 0);
        }
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let cell = self.field.cell(0);
        let Worker { tally, step, .. } = worker;
        // Each CPU hands in both programs in turn: every update changes the program.
        let mut update = || {
            let (program, callback) = self.field.callback((*step & 1) as usize, 0);
            *step += 1;
            move || cell.set_callback(cpu, program, callback)
        };
        if !RETRY {
            tally.repeat(Op::SetCallback, steps, || update()());
            return;
        }
        for _ in 0..steps {
            let attempt = update();
            loop {
                let outcome = attempt();
                tally.count(Op::SetCallback, &outcome);
                if !matches!(outcome, Err(Errno::EBUSY | Errno::EAGAIN)) {
                    break;
                }
                P::relax();
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}
