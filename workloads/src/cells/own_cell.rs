//! Each CPU updates a cell of its own; the cells lie apart, or next to each other as in a map's
//! values. The difference is false sharing, and nothing else: programs are each worker's own.

use std::sync::Arc;

use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

/// Cells on lines of their own.
pub(crate) struct Padded;
/// Neighbouring cells share lines.
pub(crate) struct Packed;

impl Workload for Padded {
    const ID: &'static str = "own-cell-padded";
    const ABOUT: &'static str = "each CPU calls set_callback on its own cell, one cell a line";
}

impl Workload for Packed {
    const ID: &'static str = "own-cell-packed";
    const ABOUT: &'static str = "each CPU calls set_callback on its own cell, cells side by side";
}

impl CellWorkload for Padded {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(OwnCell::<P, C>::new(params, Layout::Padded))
    }
}

impl CellWorkload for Packed {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(OwnCell::<P, C>::new(params, Layout::Packed))
    }
}

struct OwnCell<P: Platform, C> {
    field: Field<P, C>,
}

impl<P: Platform, C: AsyncCell<P>> OwnCell<P, C> {
    fn new(params: &Params, layout: Layout) -> Self {
        let threads = params.threads as usize;
        Self { field: Field::new(params, layout, threads, threads) }
    }
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for OwnCell<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.field.make_ready(cpu, worker.index as usize, worker.index as usize);
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let own = worker.index as usize;
        let cell = self.field.cell(own);
        let Worker { tally, step, .. } = worker;
        tally.repeat(Op::SetCallback, steps, || {
            let (program, callback) = self.field.callback(own, (*step & 1) as usize);
            *step += 1;
            cell.set_callback(cpu, program, callback)
        });
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}
